import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from reference import selection
from secateurs import masks
from secateurs.errors import InputError

LENET = {"0.weight": (300, 784), "2.weight": (100, 300), "4.weight": (10, 100)}

layers = st.lists(
    st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple), min_size=1, max_size=5
).map(lambda shapes: {f"layer{i}": shape for i, shape in enumerate(shapes)})
densities = st.floats(0.001, 1.0, allow_nan=False)


def size(shape):
    return int(torch.Size(shape).numel())


@pytest.mark.parametrize(
    ("density", "n", "kept"), [(0.5, 5, 3), (0.125, 8, 1), (0.1, 4, 0), (1, 7, 7)]
)
def test_halves_are_rounded_upwards(density, n, kept):
    assert masks.n_to_keep(density, n) == kept


@pytest.mark.parametrize(("n", "percent"), [(3, 51.3), (7, 21.1), (9, 13.5), (15, 3.6)])
def test_halved_last_gives_the_densities_of_the_lottery_paper(n, percent):
    # Frankle & Carbin (2019): 20% of what is left a round, 10% in the output layer
    density = (265200 * 0.8**n + 1000 * 0.9**n) / 266200
    assert round(100 * density, 1) == percent
    found = masks.layer_densities(LENET, density, "halved_last")
    assert list(found.values()) == pytest.approx([0.8**n, 0.8**n, 0.9**n], rel=1e-9)
    counts = masks.layer_counts(LENET, density, "halved_last")
    assert sum(counts.values()) == masks.n_to_keep(density, 266200)
    exact = [235200 * 0.8**n, 30000 * 0.8**n, 1000 * 0.9**n]
    assert all(abs(k - real) < 1 for k, real in zip(counts.values(), exact, strict=True))


def test_halved_last_of_one_layer_is_uniform():
    assert masks.layer_densities({"w": (4, 5)}, 0.3, "halved_last")["w"] == pytest.approx(0.3)


def test_erk_is_proportional_to_the_sum_over_the_product_of_the_dimensions():
    shapes = {"conv": (64, 32, 3, 3), "wide": (256, 512)}
    found = masks.layer_densities(shapes, 0.05, "erk")
    kernel, wide = (64 + 32 + 3 + 3) / (64 * 32 * 9), (256 + 512) / (256 * 512)
    assert found["conv"] / found["wide"] == pytest.approx(kernel / wide)


def test_erk_gives_what_full_layers_cannot_take_to_the_others():
    # a small layer is capped, which fills the next one: both must be found
    shapes = {"big": (100, 100), "small": (8, 10), "tiny": (2, 2)}
    found = masks.layer_densities(shapes, 0.15, "erk")
    assert found["tiny"] == found["small"] == 1
    assert found["big"] == pytest.approx((0.15 * 10084 - 84) / 10000)


@given(shapes=layers, density=densities, scope=st.sampled_from(["erk", "halved_last"]))
def test_densities_give_the_total_and_counts_equal_the_slow_twin(shapes, density, scope):
    found = masks.layer_densities(shapes, density, scope)
    n = {name: size(shape) for name, shape in shapes.items()}
    assert all(0 < d <= 1 for d in found.values())
    assert sum(found[name] * n[name] for name in n) == pytest.approx(density * sum(n.values()))
    twin = selection.layer_densities(shapes, density, scope)
    assert found == pytest.approx(twin, rel=1e-6, abs=1e-9)
    counts = masks.layer_counts(shapes, density, scope)
    assert sum(counts.values()) == masks.n_to_keep(density, sum(n.values()))
    assert all(0 <= counts[name] <= n[name] for name in n)
    assert all(abs(counts[name] - found[name] * n[name]) < 1 + 1e-9 for name in n)


def test_the_largest_remainder_gets_the_last_unit_and_ties_go_to_the_first():
    shapes = {"a": (1, 10), "b": (1, 10), "c": (1, 10)}  # 4/3 each: one layer gets 2
    assert masks.layer_counts(shapes, 4 / 30, "erk") == {"a": 2, "b": 1, "c": 1}
    shapes = {"a": (2, 12), "b": (3, 12), "c": (1, 12)}  # (14, 15, 13) / 42 of 10: 3.33 3.57 3.10
    assert masks.layer_counts(shapes, 10 / 72, "erk") == {"a": 3, "b": 4, "c": 3}


@given(
    shapes=layers,
    density=densities,
    scope=st.sampled_from(["erk", "halved_last"]),
    floor=st.integers(0, 4),
)
def test_floors_hold_and_the_total_stays_exact(shapes, density, scope, floor):
    total = masks.n_to_keep(density, sum(size(shape) for shape in shapes.values()))
    needed = {name: min(floor, size(shape)) for name, shape in shapes.items()}
    if sum(needed.values()) > total:
        with pytest.raises(InputError, match=f"min_per_layer={floor} needs"):
            masks.layer_counts(shapes, density, scope, min_per_layer=floor)
    else:
        counts = masks.layer_counts(shapes, density, scope, min_per_layer=floor)
        assert sum(counts.values()) == total
        assert all(needed[name] <= counts[name] <= size(shapes[name]) for name in shapes)


def test_what_floors_take_is_given_back_in_proportion():
    shapes = {"small": (1, 300), "a": (100, 100), "b": (100, 200), "last": (1, 2)}
    without = masks.layer_counts(shapes, 0.1, "halved_last")
    counts = masks.layer_counts(shapes, 0.1, "halved_last", min_per_layer=300)
    assert counts["small"] == 300
    assert counts["last"] == 2  # all it has
    taken = 300 - without["small"] + 2 - without["last"]
    assert taken > 250
    assert abs(without["a"] - counts["a"] - taken / 3) <= 1
    assert abs(without["b"] - counts["b"] - taken * 2 / 3) <= 1


def test_uniform_scopes_round_in_their_own_groups():
    shapes = {"a": (4, 5), "b": (3, 1, 3)}
    assert masks.layer_densities(shapes, 0.3, "layer") == {"a": 0.3, "b": 0.3}
    assert masks.layer_counts(shapes, 0.3, "layer") == {"a": 6, "b": 3}
    assert masks.layer_counts(shapes, 0.3, "output") == {"a": 4 * 2, "b": 3 * 1}


def test_tensors_serve_as_shapes():
    tensors = {name: torch.empty(shape) for name, shape in LENET.items()}
    assert masks.layer_counts(tensors, 0.1, "erk") == masks.layer_counts(LENET, 0.1, "erk")


@pytest.mark.parametrize("density", [0.0, -0.5, 1.5, float("nan"), "0.5", None, True, [0.5]])
def test_what_is_no_density_is_refused(density):
    with pytest.raises(InputError, match=r"density must be in \(0, 1\], got"):
        masks.layer_densities(LENET, density, "erk")


@pytest.mark.parametrize(
    ("shapes", "scope", "words"),
    [
        (LENET, "global", "a scope that sets them, got 'global'"),
        (LENET, "network", "'halved_last', got 'network'"),
        ({}, "erk", "got none in all"),
        ({"a": (3, 2), "b": (0, 4)}, "erk", "got none in b"),
    ],
    ids=["global", "unknown", "no layer", "no weight"],
)
def test_what_has_no_budget_is_refused(shapes, scope, words):
    with pytest.raises(InputError, match=words):
        masks.layer_densities(shapes, 0.5, scope)
