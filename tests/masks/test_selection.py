import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import nn

from reference import selection
from secateurs import masks
from secateurs.errors import InputError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@st.composite
def scored_layers(draw):
    """Some small layers with few distinct integer scores: ties everywhere."""
    shapes = draw(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=3))
    generator = seeded(draw(st.integers(0, 2**31)))
    return {
        f"layer{i}": torch.randint(-2, 3, shape, generator=generator).to(
            draw(st.sampled_from([torch.float32, torch.int64]))
        )
        for i, shape in enumerate(shapes)
    }


densities = st.floats(0.01, 1.0, allow_nan=False)


@given(scores=scored_layers(), density=densities)
def test_exactly_the_asked_number_is_kept_whatever_the_ties(scores, density):
    mask = masks.keep_top(scores, density, allow_empty=True)
    n = sum(score.numel() for score in scores.values())
    assert abs(masks.count(mask) - density * n) <= 0.5
    assert masks.count(mask) == masks.n_to_keep(density, n)
    assert all(mask[name].shape == score.shape for name, score in scores.items())


@given(
    scores=scored_layers(),
    density=densities,
    scope=st.sampled_from(["global", "layer"]),
    min_per_layer=st.integers(0, 3),
    seed=st.integers(0, 2**31),
    share=st.sampled_from([None, 0.5, 0.8, 1.0]),
)
def test_equals_its_slow_twin(scores, density, scope, min_per_layer, seed, share):
    within = None
    if share is not None:
        generator = seeded(seed)
        within = {
            name: torch.rand(score.shape, generator=generator) < share
            for name, score in scores.items()
        }
    options = {"within": within, "scope": scope, "min_per_layer": min_per_layer}
    expected = selection.keep_top(scores, density, **options)
    if expected is None:
        with pytest.raises(InputError):
            masks.keep_top(scores, density, allow_empty=True, **options)
    else:
        mask = masks.keep_top(scores, density, allow_empty=True, **options)
        assert {name: kept.flatten().tolist() for name, kept in mask.items()} == expected


def test_many_seeds_of_real_scores_equal_the_slow_twin():
    for seed in range(100):
        generator = seeded(seed)
        scores = {
            "a": torch.randn(7, 5, generator=generator),
            "b": torch.randn(4, 7, generator=generator),
        }
        density = float(torch.rand(1, generator=generator)) * 0.9 + 0.1
        mask = masks.keep_top(scores, density, allow_empty=True)
        expected = selection.keep_top(scores, density)
        assert {name: kept.flatten().tolist() for name, kept in mask.items()} == expected


def test_of_300_equal_scores_200_are_kept_from_the_front():
    # published code prunes all 300 (ShrinkBench's and SynFlow's threshold with <=)
    scores = {"a": torch.zeros(100), "b": torch.zeros(200)}
    mask = masks.keep_top(scores, 2 / 3)
    assert mask["a"].all()
    assert mask["b"].tolist() == [True] * 100 + [False] * 100


@pytest.mark.parametrize(
    ("density", "n", "kept"), [(0.5, 5, 3), (0.125, 8, 1), (0.1, 4, 0), (1, 7, 7)]
)
def test_halves_are_rounded_upwards(density, n, kept):
    assert masks.n_to_keep(density, n) == kept


@given(scores=scored_layers(), first=densities, second=densities)
def test_a_pruned_weight_never_returns(scores, first, second):
    first, second = max(first, second), min(first, second)
    before = masks.keep_top(scores, first, allow_empty=True)
    opposite = {name: -score for name, score in scores.items()}
    after = masks.keep_top(opposite, second, within=before, allow_empty=True)
    assert not any((after[name] & ~before[name]).any() for name in before)


def test_asking_for_more_than_is_left_is_refused():
    within = {"w": torch.tensor([True, False, False, False])}
    with pytest.raises(InputError, match="asks for 2 weights but only 1"):
        masks.keep_top({"w": torch.arange(4.0)}, 0.5, within=within)


def test_a_floor_is_taken_first_and_the_count_stays_exact():
    scores = {"low": torch.arange(4.0), "high": 100 + torch.arange(12.0)}
    mask = masks.keep_top(scores, 0.5, min_per_layer=2)
    assert masks.kept_per_layer(mask) == {"low": 2, "high": 6}
    assert mask["low"].tolist() == [False, False, True, True]
    assert mask["high"].tolist() == [False] * 6 + [True] * 6


def test_floors_above_the_budget_are_refused():
    scores = {"a": torch.arange(4.0), "b": torch.arange(4.0)}
    with pytest.raises(InputError, match="min_per_layer=2 needs 4 weights"):
        masks.keep_top(scores, 0.25, min_per_layer=2)


def test_scope_layer_keeps_the_same_share_of_each_layer():
    scores = {"low": torch.arange(8.0), "high": 100 + torch.arange(16.0)}
    each = masks.keep_top(scores, 0.25, scope="layer")
    together = masks.keep_top(scores, 0.25, allow_empty=True)
    assert masks.kept_per_layer(each) == {"low": 2, "high": 4}
    assert masks.kept_per_layer(together) == {"low": 0, "high": 6}


def test_layer_collapse_is_an_error_unless_allowed():
    scores = {"low": torch.zeros(4), "high": torch.ones(4)}
    with pytest.raises(InputError, match="layer collapse: no weight is kept in low"):
        masks.keep_top(scores, 0.5)
    assert masks.kept_per_layer(masks.keep_top(scores, 0.5, allow_empty=True))["low"] == 0


def test_nan_scores_are_refused_by_layer():
    scores = {"good": torch.ones(2), "bad": torch.tensor([1.0, torch.nan])}
    with pytest.raises(InputError, match="NaN in bad"):
        masks.keep_top(scores, 0.5)


def test_infinite_scores_rank_as_numbers_do():
    scores = {"w": torch.tensor([torch.inf, 0.0, -torch.inf, 1.0])}
    assert masks.keep_top(scores, 0.75)["w"].tolist() == [True, True, False, True]


@pytest.mark.parametrize("density", [0.0, -0.5, 1.5, 12.5, float("nan")])
def test_densities_out_of_range_are_refused(density):
    with pytest.raises(InputError, match=r"density must be in \(0, 1\]"):
        masks.keep_top({"w": torch.ones(4)}, density)


def test_unknown_scope_lists_the_choices():
    with pytest.raises(InputError, match=r"'global', 'layer', .*, got 'network'"):
        masks.keep_top({"w": torch.ones(4)}, 0.5, scope="network")


def half(seed=0):
    scores = {
        "a": torch.rand(20, 10, generator=seeded(seed)),
        "b": torch.rand(10, 20, generator=seeded(seed + 1)),
    }
    return masks.keep_top(scores, 0.5)


def test_shuffle_keeps_the_count_of_each_layer_and_moves_the_positions():
    # in published code the shuffle control silently returns the mask itself
    mask = half()
    untouched = {name: kept.clone() for name, kept in mask.items()}
    shuffled = masks.shuffle(mask, generator=seeded())
    assert masks.kept_per_layer(shuffled) == masks.kept_per_layer(mask)
    for name, kept in mask.items():
        assert shuffled[name].shape == kept.shape
        # hypergeometric: k of 200 kept, so k^2/200 stay by chance, with a deviation below 3.6
        by_chance = int(kept.sum()) ** 2 / kept.numel()
        assert abs(int((shuffled[name] & kept).sum()) - by_chance) < 15
        assert torch.equal(kept, untouched[name])


def test_shuffle_puts_every_position_everywhere():
    mask = {"w": torch.tensor([True, True, False, False, False, False])}
    generator = seeded()
    hits = sum(masks.shuffle(mask, generator=generator)["w"].long() for _ in range(3000))
    assert ((hits - 1000).abs() < 130).all()  # 5 standard deviations


def test_shuffle_depends_on_its_generator_only():
    state = torch.get_rng_state()
    one, same, other = (masks.shuffle(half(), generator=seeded(s)) for s in (1, 1, 2))
    assert masks.iou(one, same) == 1
    assert masks.iou(one, other) < 0.6
    assert torch.equal(torch.get_rng_state(), state)


def test_overlap_is_1_for_equal_and_0_for_disjoint_masks():
    mask = half()
    opposite = {name: ~kept for name, kept in mask.items()}
    assert masks.iou(mask, mask) == 1
    assert masks.iou(mask, opposite) == 0
    assert masks.iou(mask, masks.ones(mask)) == masks.density(mask) == 0.5


def test_overlap_of_independent_masks_is_d_over_2_minus_d():
    scores = [{"w": torch.rand(200, 200, generator=seeded(s))} for s in (1, 2)]
    one, other = (masks.keep_top(s, 0.2) for s in scores)
    assert masks.iou(one, other) == pytest.approx(0.2 / 1.8, abs=0.01)


@given(scores=scored_layers(), density=densities)
def test_packing_is_undone_by_unpacking(scores, density):
    mask = masks.keep_top(scores, density, allow_empty=True)
    packed = masks.pack(mask)
    assert all(packed[name].numel() == (kept.numel() + 7) // 8 for name, kept in mask.items())
    back = masks.unpack(packed, {name: tuple(kept.shape) for name, kept in mask.items()})
    assert all(torch.equal(back[name], kept) for name, kept in mask.items())


@pytest.mark.parametrize(
    "bits",
    [
        torch.zeros(1, dtype=torch.uint8),
        torch.zeros(3, dtype=torch.uint8),
        torch.zeros(2, 1, dtype=torch.uint8),
        torch.zeros(2, dtype=torch.int64),
    ],
    ids=["short", "long", "matrix", "wrong type"],
)
def test_bits_that_do_not_fit_the_shape_are_refused(bits):
    with pytest.raises(InputError, match="packed mask of w must be 2 bytes"):
        masks.unpack({"w": bits}, {"w": (3, 3)})


def test_apply_zeroes_the_pruned_weights_and_nothing_else():
    network = nn.Linear(6, 4)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    kept = torch.rand(4, 6, generator=seeded()) < 0.5
    masks.apply_(network, {"weight": kept})
    assert torch.equal(network.weight[kept], before["weight"][kept])
    assert (network.weight[~kept] == 0).all()
    assert torch.equal(network.bias, before["bias"])


def test_one_revived_weight_is_found():
    network, kept = nn.Linear(3, 2), torch.tensor([[True, False, True], [False, False, True]])
    mask = {"weight": kept}
    masks.apply_(network, mask)
    masks.check_held(dict(network.named_parameters()), mask)
    with torch.no_grad():
        network.weight[0, 1] = 1e-30
    with pytest.raises(AssertionError, match="1 pruned weights of weight are not zero"):
        masks.check_held(dict(network.named_parameters()), mask)


@given(st.integers(0, 1000), st.floats(0.05, 1))
def test_top_like_has_the_counts_of_one_and_the_scores_of_the_other(seed, density):
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(7, 5, generator=generator) for name in "ab"}
    other = {name: torch.rand(7, 5, generator=generator) for name in "ab"}
    mask = masks.keep_top(scores, density, allow_empty=True)
    found = masks.top_like(other, mask)
    assert masks.kept_per_layer(found) == masks.kept_per_layer(mask)
    for name, kept in found.items():
        if kept.any() and not kept.all():
            assert other[name][kept].min() >= other[name][~kept].max()
    assert masks.iou(masks.top_like(scores, mask), mask) == 1
