import time

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from scipy import stats

from reference import structure as slow
from secateurs.errors import InputError
from secateurs.measures import structure


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def spans(widths):
    stops = np.cumsum(widths).tolist()
    return list(zip([0, *stops[:-1]], stops, strict=True))


SINGLE = spans([1] * 6)


@st.composite
def layers(draw, *, min_columns=1):
    """A first layer with some dead neurons, masks of any density, columns of any width."""
    groups = spans(draw(st.lists(st.integers(1, 4), min_size=min_columns, max_size=6)))
    shape = draw(st.integers(1, 6)), groups[-1][1]
    generator = seeded(draw(st.integers(0, 2**31)))
    scale = draw(st.sampled_from([1.0, 1e-25, 1e25]))  # squares leave the range of float32
    weight = torch.randn(shape, generator=generator) * scale
    mask = torch.rand(shape, generator=generator) < draw(st.sampled_from([0, 0.1, 0.5, 1]))
    return weight, mask, groups


@given(layer=layers())
def test_equals_its_slow_twins(layer):
    _, mask, _ = layer
    for found, expected in [
        (structure.column_share(*layer), slow.column_share(*layer, abs)),
        (structure.column_share(*layer, by="count"), slow.column_share(*layer, lambda w: 1)),
        (structure.columns_read(*layer), slow.columns_read(*layer)),
        (structure.column_pairs(*layer), slow.column_pairs(*layer)),
    ]:
        np.testing.assert_allclose(found.numpy(), np.array(expected), rtol=1e-9, atol=1e-12)
    assert structure.live_neurons(mask) == sum(any(row) for row in mask.tolist())


@given(layer=layers())
def test_shares_sum_to_1_and_neurons_read_between_1_and_all_columns(layer):
    _, mask, groups = layer
    live = mask.any(1)
    for by in ("magnitude", "count"):
        share = structure.column_share(*layer, by=by)
        assert share.shape == (len(groups),)
        assert float(share.sum()) == pytest.approx(1.0 if live.any() else 0.0)
    read = structure.columns_read(*layer)
    assert (read[~live] == 0).all()
    assert (read[live] >= 1 - 1e-9).all()
    assert (read[live] <= len(groups) + 1e-9).all()
    pairs = structure.column_pairs(*layer)
    assert torch.equal(pairs, pairs.T)
    n_live = structure.live_neurons(mask)
    assert float(pairs.trace()) == pytest.approx(n_live)
    assert n_live - 1e-9 <= float(pairs.sum()) <= n_live * len(groups) + 1e-9


@given(layer=layers(), scale=st.sampled_from([0.25, -2.0]))
def test_only_kept_weights_count_and_their_scale_does_not(layer, scale):
    weight, mask, groups = layer
    other = torch.where(mask, weight * scale, torch.tensor(float("nan")))
    for one in (structure.column_share, structure.columns_read, structure.column_pairs):
        torch.testing.assert_close(one(other, mask, groups), one(*layer))


def test_dense_equal_weights_share_by_width():
    groups = spans([1, 2, 5])
    weight, mask = torch.full((7, 8), -0.3), torch.ones(7, 8, dtype=torch.bool)
    expected = torch.tensor([1, 2, 5], dtype=torch.double) / 8
    for by in ("magnitude", "count"):
        torch.testing.assert_close(structure.column_share(weight, mask, groups, by=by), expected)
    torch.testing.assert_close(structure.column_lift(mask, groups), torch.ones(3).double())
    read = structure.columns_read(weight, mask, groups)
    torch.testing.assert_close(read, (1 / expected.square().sum()).expand(7))


def test_a_mask_of_one_column_reads_one_column():
    groups, weight = spans([2, 3, 1]), torch.randn(5, 6, generator=seeded())
    mask = torch.zeros(5, 6, dtype=torch.bool)
    mask[:4, 2:5] = True
    assert structure.column_share(weight, mask, groups).tolist() == [0, 1, 0]
    assert structure.column_lift(mask, groups).tolist() == pytest.approx([0, 2, 0])
    assert structure.columns_read(weight, mask, groups).tolist() == pytest.approx([1] * 4 + [0])
    pairs = structure.column_pairs(weight, mask, groups)
    assert pairs.flatten().tolist() == pytest.approx([0] * 4 + [4] + [0] * 4)


@given(layer=layers(), seed=st.integers(0, 2**31))
def test_the_lift_of_a_column_weighed_by_width_is_1(layer, seed):
    _, mask, groups = layer
    lift = structure.column_lift(mask, groups)
    widths = torch.tensor([stop - start for start, stop in groups]).double()
    if mask.any():
        assert float((lift * widths).sum() / widths.sum()) == pytest.approx(1)
    else:
        assert lift.isnan().all()


def test_a_layer_with_nothing_kept():
    weight, mask = torch.ones(3, 6), torch.zeros(3, 6, dtype=torch.bool)
    assert structure.live_neurons(mask) == 0
    assert structure.column_share(weight, mask, SINGLE).tolist() == [0] * 6
    assert structure.columns_read(weight, mask, SINGLE).tolist() == [0] * 3
    assert structure.column_pairs(weight, mask, SINGLE).count_nonzero() == 0
    found = structure.pair_strength([(weight, mask)], SINGLE, generator=seeded())
    assert np.isnan(found.z).all()
    assert np.isnan(found.lift).all()
    assert np.isnan(found.floor)


def test_a_layer_of_one_column():
    weight, mask = torch.randn(4, 3, generator=seeded()), torch.ones(4, 3, dtype=torch.bool)
    assert structure.column_share(weight, mask, [(0, 3)]).tolist() == [1]
    assert structure.columns_read(weight, mask, [(0, 3)]).tolist() == pytest.approx([1] * 4)
    assert np.isnan(structure.stability([[1.0], [1.0]]))


def test_a_parameter_of_a_network_is_read_and_not_changed():
    layer = torch.nn.Linear(6, 4)
    mask = torch.rand(4, 6, generator=seeded()) < 0.5
    before = layer.weight.detach().clone()
    structure.pair_strength([(layer.weight, mask)], SINGLE, generator=seeded(), n_shuffles=2)
    assert not structure.columns_read(layer.weight, mask, SINGLE).requires_grad
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize(
    ("weight", "mask", "groups"),
    [
        (torch.ones(2, 3), torch.ones(3, 2).bool(), [(0, 3)]),
        (torch.ones(2, 3), torch.ones(2, 3), [(0, 3)]),
        (torch.ones(3), torch.ones(3).bool(), [(0, 3)]),
        (torch.ones(2, 3), torch.ones(2, 3).bool(), [(0, 2)]),
        (torch.ones(2, 3), torch.ones(2, 3).bool(), [(0, 1), (2, 3)]),
        (torch.ones(2, 3), torch.ones(2, 3).bool(), [(0, 3), (3, 3)]),
        (torch.ones(2, 0), torch.ones(2, 0).bool(), []),
    ],
    ids=["shape", "floats", "vector", "short", "gap", "empty span", "no columns"],
)
def test_shapes_and_groups_that_do_not_fit_are_refused(weight, mask, groups):
    for one in (structure.column_share, structure.columns_read, structure.column_pairs):
        with pytest.raises(InputError):
            one(weight, mask, groups)


def test_unknown_settings_are_refused():
    weight, mask = torch.ones(2, 6), torch.ones(2, 6).bool()
    with pytest.raises(InputError, match="by must be"):
        structure.column_share(weight, mask, SINGLE, by="square")
    with pytest.raises(InputError, match="n_shuffles must be at least 1, got 0"):
        structure.pair_strength([(weight, mask)], SINGLE, generator=seeded(), n_shuffles=0)


# Shuffled tickets


@given(layer=layers(), seed=st.integers(0, 2**31))
def test_a_shuffle_moves_the_kept_values_and_only_them(layer, seed):
    weight, mask, _ = layer
    moved, kept = structure.shuffled(weight, mask, generator=seeded(seed))
    assert sorted(moved[kept].tolist()) == sorted(weight[mask].tolist())
    assert moved[~kept].count_nonzero() == 0
    again, _ = structure.shuffled(weight, mask, generator=seeded(seed))
    assert torch.equal(moved, again)


@given(layer=layers(), seed=st.integers(0, 2**31))
def test_a_shuffle_within_columns_keeps_all_that_is_read_of_each(layer, seed):
    weight, mask, groups = layer
    moved, kept = structure.shuffled(weight, mask, generator=seeded(seed), within=groups)
    assert moved[~kept].count_nonzero() == 0
    torch.testing.assert_close(
        structure.column_share(moved, kept, groups), structure.column_share(*layer)
    )
    for start, stop in groups:  # the spans of the neurons, as wholes, in another order
        there, here = (
            sorted(zip(w[:, start:stop].tolist(), m[:, start:stop].tolist(), strict=True))
            for w, m in ((weight * mask, mask), (moved, kept))
        )
        assert there == here


def test_a_shuffle_moves_values_between_neurons_as_well():
    """A mask that keeps everything leaves no position to choose: the values must move."""
    weight, mask = torch.arange(24.0).view(4, 6), torch.ones(4, 6).bool()
    moved, _ = structure.shuffled(weight, mask, generator=seeded())
    assert (moved != weight).sum() > 12


def test_every_place_is_as_likely_as_any_other():
    weight, mask = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool)
    weight[0, 0], mask[0, 0] = 1, True
    generator, hits = seeded(), torch.zeros(2, 3)
    for _ in range(1200):
        hits += structure.shuffled(weight, mask, generator=generator)[0]
    assert stats.chisquare(hits.flatten().numpy()).pvalue > 1e-4


def test_trees_read_fewer_columns_than_a_shuffled_ticket():
    weight, mask = torch.zeros(32, 32), torch.zeros(32, 32, dtype=torch.bool)
    for neuron in range(32):
        mask[neuron, [neuron, (neuron + 1) % 32, (neuron + 2) % 32]] = True
    weight[mask] = 1.0
    groups = spans([4] * 8)
    read = structure.columns_read(weight, mask, groups).mean()
    moved, kept = structure.shuffled(weight, mask, generator=seeded())
    chance = structure.columns_read(moved, kept, groups)[kept.any(1)].mean()
    assert read < 1.5 < 2 < chance


# Pairs against chance


def planted(n_neurons=480, n_columns=10, *, pair=(2, 7)):
    """Noise at density .2, and a quarter of the neurons reading two columns together."""
    generator = seeded(1)
    weight = torch.randn(n_neurons, n_columns, generator=generator)
    mask = torch.rand(n_neurons, n_columns, generator=generator) < 0.2
    mask[: n_neurons // 4, list(pair)] = True
    return weight, mask, spans([1] * n_columns)


def test_columns_that_are_combined_are_the_only_pair_beyond_chance():
    weight, mask, groups = planted()
    found = structure.pair_strength([(weight, mask)], groups, generator=seeded())
    assert divmod(int(np.nanargmax(found.z)), 10) == (2, 7)
    assert (np.triu(found.z, 1) > found.floor).sum() == 1
    assert found.lift[2, 7] > 1.5
    np.testing.assert_allclose(found.z, found.z.T, equal_nan=True)


def test_columns_that_are_much_read_but_not_combined_do_not_stand_out():
    weight = torch.ones(400, 10)
    mask = torch.rand(400, 10, generator=seeded()) < 0.1
    mask[:, :2] = torch.rand(400, 2, generator=seeded(1)) < 0.6
    layer = weight, mask
    found = structure.pair_strength([layer], spans([1] * 10), generator=seeded())
    assert abs(found.z[0, 1]) < 3


def test_pairs_of_chosen_columns_are_those_of_all():
    weight, mask, groups = planted()
    whole = structure.pair_strength([(weight, mask)], groups, generator=seeded(), n_shuffles=200)
    part = structure.pair_strength(
        [(weight, mask)], groups, columns=[2, 5, 7], generator=seeded(), n_shuffles=200
    )
    assert part.z.shape == (3, 3)
    assert part.z[0, 2] == pytest.approx(whole.z[2, 7], rel=0.1)
    assert part.lift[0, 2] == pytest.approx(whole.lift[2, 7], rel=0.05)


def test_tickets_count_together():
    weight, mask, groups = planted(120)
    one = structure.pair_strength([(weight, mask)], groups, generator=seeded(), n_shuffles=200)
    four = structure.pair_strength([(weight, mask)] * 4, groups, generator=seeded(), n_shuffles=200)
    assert four.z[2, 7] == pytest.approx(2 * one.z[2, 7], rel=0.15)
    assert four.lift[2, 7] == pytest.approx(one.lift[2, 7], rel=0.05)


def test_a_layer_whose_columns_hardly_meet_has_no_pair():
    weight = torch.randn(40, 12, generator=seeded())
    mask = torch.rand(40, 12, generator=seeded(1)) < 0.1
    found = structure.pair_strength([(weight, mask)], spans([1] * 12), generator=seeded())
    assert np.isnan(found.z).all()
    assert np.isnan(found.floor)


@pytest.mark.slow
@pytest.mark.parametrize("n_columns", [12, 40])
def test_random_tickets_are_beyond_all_shuffles_as_often_as_chance_says(n_columns):
    groups, beyond = spans([1] * n_columns), 0
    for seed in range(200):
        weight = torch.randn(200, n_columns, generator=seeded(seed))
        mask = torch.rand(200, n_columns, generator=seeded(1000 + seed)) < 0.2
        found = structure.pair_strength(
            [(weight, mask)], groups, generator=seeded(2000 + seed), n_shuffles=9
        )
        beyond += bool((np.nan_to_num(found.z, nan=-np.inf) > found.floor).any())
    assert 8 <= beyond <= 34  # a tenth of 200 is 20, its standard deviation 4.2


def test_the_first_layer_of_a_wide_network_takes_little_time():
    generator = seeded()
    weight = torch.randn(512, 900, generator=generator)
    mask = torch.rand(512, 900, generator=generator) < 0.125
    begin = time.process_time()
    layer = weight, mask
    structure.pair_strength([layer], spans([3] * 300), generator=generator, n_shuffles=5)
    assert time.process_time() - begin < 3  # 0.15 s on a core that is not shared


# Stability


@given(
    shares=st.lists(
        st.lists(st.integers(0, 4), min_size=5, max_size=5).filter(lambda row: len(set(row)) > 1),
        min_size=2,
        max_size=5,
    )
)
def test_stability_is_the_mean_of_the_rank_correlations(shares):
    found = [
        stats.spearmanr(one, other).statistic
        for i, one in enumerate(shares)
        for other in shares[:i]
    ]
    assert structure.stability(shares) == pytest.approx(np.mean(found))
    assert structure.stability([torch.tensor(row) for row in shares]) == pytest.approx(
        np.mean(found)
    )


@pytest.mark.parametrize(
    "shares",
    [
        [],
        [[0.2, 0.8]],
        [[0.5, 0.5], [0.2, 0.8]],
        [[0.0, 0.0], [0.2, 0.8], [0.2, 0.8]],
        [[np.nan, 0.5], [0.2, 0.8]],
        [[], []],
    ],
    ids=["none", "one", "constant", "nothing kept", "nan", "no columns"],
)
def test_an_undefined_stability_is_nan(shares):
    assert np.isnan(structure.stability(shares))


def test_tickets_of_other_columns_are_refused():
    with pytest.raises(InputError, match="the same columns"):
        structure.stability([[0.5, 0.5], [0.2, 0.3, 0.5]])


def test_widths_alone_make_tickets_stable_and_the_floor_shows_it():
    """Random tickets over columns of widths 1 to 16: stable, and no more than their floor."""
    groups = spans([1, 1, 2, 4, 8, 16])
    generator = seeded()
    tickets = [
        (torch.randn(64, 32, generator=generator), torch.rand(64, 32, generator=generator) < 0.2)
        for _ in range(4)
    ]
    found = structure.stability([structure.column_share(*one, groups) for one in tickets])
    floor = structure.stability_floor(tickets, groups, generator=seeded(1))
    assert found > 0.9
    assert floor == pytest.approx(found, abs=0.06)


def test_the_same_columns_found_again_are_above_the_floor():
    density = torch.linspace(0.02, 0.6, 20)
    generator = seeded()
    tickets = [
        (torch.ones(64, 20), torch.rand(64, 20, generator=generator) < density) for _ in range(3)
    ]
    groups = spans([1] * 20)
    found = structure.stability(
        [structure.column_share(*one, groups, by="count") for one in tickets]
    )
    floor = structure.stability_floor(tickets, groups, generator=seeded(1), by="count")
    assert found > 0.9
    assert abs(floor) < 0.15
