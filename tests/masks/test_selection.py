import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given

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
    scope=st.sampled_from(["global", "layer", "output"]),
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


@given(
    scores=scored_layers(),
    density=densities,
    scope=st.sampled_from(["erk", "halved_last"]),
    floor=st.integers(0, 2),
)
def test_layer_budgets_keep_the_best_of_each_layer(scores, density, scope, floor):
    n = sum(score.numel() for score in scores.values())
    assume(len(scores) * floor <= masks.n_to_keep(density, n))
    counts = masks.layer_counts(scores, density, scope, min_per_layer=floor)
    mask = masks.keep_top(scores, density, scope=scope, min_per_layer=floor, allow_empty=True)
    assert masks.kept_per_layer(mask) == counts
    assert masks.count(mask) == masks.n_to_keep(density, n)
    for name, k in counts.items():
        best = sorted(range(scores[name].numel()), key=lambda i: (-scores[name].flatten()[i], i))
        assert mask[name].flatten().nonzero().flatten().tolist() == sorted(best[:k])


@pytest.mark.parametrize("scope", ["layer", "output", "erk", "halved_last"])
def test_rounds_within_each_other_end_at_the_counts_of_one_shot(scope):
    scores = {"a": torch.rand(40, 30, generator=seeded()), "b": torch.rand(10, 40)}
    mask = None
    for density in (0.8, 0.512, 0.33, 0.1):
        mask = masks.keep_top(scores, density, within=mask, scope=scope)
        assert masks.kept_per_layer(mask) == masks.layer_counts(scores, density, scope)
    assert masks.iou(mask, masks.keep_top(scores, 0.1, scope=scope)) == 1


def test_scope_output_keeps_the_same_share_of_each_row():
    # the second output has the larger scores, and would win in any wider comparison
    scores = {"w": torch.tensor([[[4.0], [3], [2], [1]], [[80], [90], [60], [70]]])}
    kept = masks.keep_top(scores, 0.5, scope="output")["w"]
    assert kept.squeeze().tolist() == [[True, True, False, False], [True, True, False, False]]
    assert masks.keep_top(scores, 0.5)["w"].sum((1, 2)).tolist() == [0, 4]


def test_an_output_with_too_few_weights_left_is_named():
    within = {"w": torch.tensor([[True, True, True], [True, False, False]])}
    with pytest.raises(InputError, match="asks for 2 weights of each output of w but one has only"):
        masks.keep_top({"w": torch.ones(2, 3)}, 0.6, within=within, scope="output")


@pytest.mark.parametrize("scope", ["layer", "erk", "halved_last"])
def test_a_layer_with_too_few_weights_left_is_named(scope):
    scores = {"a": torch.ones(4, 4), "b": torch.ones(4, 4)}
    within = masks.ones(scores) | {"b": torch.arange(16).view(4, 4) < 2}
    with pytest.raises(InputError, match=r"asks for \d weights of b but only 2 are left"):
        masks.keep_top(scores, 0.4, within=within, scope=scope)


@pytest.mark.parametrize("scope", ["global", "layer", "output", "erk", "halved_last"])
def test_minus_infinity_is_kept_rather_than_what_is_pruned(scope):
    scores = {"w": torch.tensor([[-torch.inf, -torch.inf, -torch.inf, 1.0]])}
    within = {"w": torch.tensor([[False, True, False, True]])}
    kept = masks.keep_top(scores, 0.5, within=within, scope=scope)["w"]
    assert torch.equal(kept, within["w"])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.int8, torch.uint8])
@pytest.mark.parametrize("alive", [None, 0.7])
def test_every_type_of_score_equals_the_slow_twin(kind, alive):
    scores = {"w": torch.randint(0, 100, (30, 7), generator=seeded()).to(kind)}
    scores["w"][0, 0] = torch.iinfo(kind).min if not kind.is_floating_point else -torch.inf
    within = None if alive is None else {"w": torch.rand(30, 7, generator=seeded(1)) < alive}
    kept = masks.keep_top(scores, 0.5, within=within)["w"]
    assert kept.flatten().tolist() == selection.keep_top(scores, 0.5, within=within)["w"]


def test_scores_with_a_graph_in_any_layout_are_taken_as_they_read():
    scores = torch.rand(6, 8, generator=seeded(), requires_grad=True).t()
    kept = masks.keep_top({"w": scores}, 0.5)["w"]
    assert torch.equal(kept, masks.keep_top({"w": scores.detach().contiguous()}, 0.5)["w"])
    assert not kept.requires_grad


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize(
    ("within", "words"),
    [
        ({"a": (2, 3)}, r"b \(scores \(4,\), within none\)"),
        ({"a": (3, 2), "b": (4,)}, r"a \(scores \(2, 3\), within \(3, 2\)\)"),
        ({"a": (2, 3), "b": (4,), "c": (1,)}, r"c \(scores none, within \(1,\)\)"),
    ],
    ids=["missing", "shape", "extra"],
)
def test_within_of_other_weights_is_refused(within, words, scope):
    scores = {"a": torch.rand(2, 3), "b": torch.rand(4)}
    within = {name: torch.ones(shape, dtype=torch.bool) for name, shape in within.items()}
    with pytest.raises(InputError, match=words):
        masks.keep_top(scores, 0.5, within=within, scope=scope)


def test_within_that_is_not_bool_is_refused():
    with pytest.raises(InputError, match=r"a mask must be bool, got w \(torch\.float32\)"):
        masks.keep_top({"w": torch.rand(4)}, 0.5, within={"w": torch.ones(4)})


@pytest.mark.parametrize(
    ("scores", "words"),
    [({}, "at least one weight"), ({"w": torch.ones(2, dtype=torch.complex64)}, "complex")],
)
def test_scores_that_rank_nothing_are_refused(scores, words):
    with pytest.raises(InputError, match=words):
        masks.keep_top(scores, 0.5)


def test_top_like_of_other_weights_is_refused():
    with pytest.raises(InputError, match=r"w \(scores \(3,\), mask \(2,\)\)"):
        masks.top_like({"w": torch.rand(3)}, {"w": torch.tensor([True, False])})


@pytest.mark.gpu
@pytest.mark.parametrize("scope", ["global", "layer", "output", "erk", "halved_last"])
def test_the_gpu_keeps_what_the_cpu_keeps(scope):
    scores = {n: torch.randint(0, 50, (40, 30), generator=seeded(i)) for i, n in enumerate("ab")}
    scores |= {"c": 50 * torch.rand(10, 40, generator=seeded(2))}
    within = masks.keep_top(scores, 0.8, scope=scope)
    expected = masks.keep_top(scores, 0.3, within=within, scope=scope)
    found = masks.keep_top(
        {n: s.cuda() for n, s in scores.items()}, 0.3, within=within, scope=scope
    )
    assert all(kept.is_cuda for kept in found.values())
    assert masks.iou(expected, {name: kept.cpu() for name, kept in found.items()}) == 1
