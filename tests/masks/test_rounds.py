"""Rounds without training: one is `keep_top`, each sees what the others left, weights come back."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from secateurs import criteria, masks, schedules
from secateurs.errors import InputError
from secateurs.networks.dense import MLP
from secateurs.networks.init import initialise_

NAMES = ["encoder.0.weight", "encoder.3.weight", "decoder.weight"]


def make(seed=0):
    network = MLP(6, 3, widths=(12, 8))
    initialise_(network, generator=torch.Generator().manual_seed(seed))
    return network


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(one, other):
    """Whether two states are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("scope", ["global", "layer", "output", "erk", "halved_last"])
@given(density=st.floats(0.2, 1.0), min_per_layer=st.integers(0, 3))
def test_one_density_is_keep_top(scope, density, min_per_layer):
    network = make()
    options = {"scope": scope, "min_per_layer": min_per_layer, "allow_empty": True}
    found = masks.keep_in_rounds(network, criteria.magnitude, (density,), **options)
    assert same(found, masks.keep_top(criteria.magnitude(network), density, **options))


@given(
    densities=st.lists(st.floats(0.05, 1.0), min_size=1, max_size=5),
    seed=st.integers(0, 100),
    scope=st.sampled_from(["global", "layer", "erk"]),
)
def test_each_round_scores_the_masked_network_and_its_mask_is_nested(densities, seed, scope):
    densities = sorted(densities, reverse=True)
    network = make(seed)
    before, seen = state(network), []

    def score(masked):
        assert masked is network
        seen.append(state(masked))
        return criteria.synflow(masked, torch.ones(1, 6))

    found = masks.keep_in_rounds(network, score, densities, scope=scope, min_per_layer=1)
    assert same(state(network), before)
    assert len(seen) == len(densities)
    assert same(seen[0], before)
    # the slow and obvious way: a copy that stays pruned
    twin, mask = make(seed), None
    for weights, density in zip(seen, densities, strict=True):
        assert same(weights, state(twin))
        scores = criteria.synflow(twin, torch.ones(1, 6))
        after = masks.keep_top(scores, density, within=mask, scope=scope, min_per_layer=1)
        if mask is not None:
            assert not any((after[name] & ~mask[name]).any() for name in mask)
        mask = after
        masks.apply_(twin, mask)
    assert same(found, mask)


def test_no_round_revives_what_scores_would_have_back():
    """The smallest magnitudes first: a pruned weight, which is 0, would be the best of all."""
    network = make()
    rounds = [
        masks.keep_in_rounds(
            network, lambda n: masks.reverse(criteria.magnitude(n)), densities, allow_empty=True
        )
        for densities in ((0.8,), (0.8, 0.4), (0.8, 0.4, 0.1))
    ]
    for before, after in pairwise(rounds):
        assert not any((after[name] & ~before[name]).any() for name in NAMES)
    assert [masks.count(kept) for kept in rounds] == [154, 77, 19]


def test_within_is_where_the_first_round_begins():
    network, seen = make(), []
    within = masks.keep_top(criteria.random(network, generator=torch.Generator()), 0.5)
    left = {name: kept.clone() for name, kept in within.items()}

    def score(masked):
        seen.append(state(masked))
        return criteria.magnitude(masked)

    found = masks.keep_in_rounds(network, score, (0.4, 0.2), within=within)
    assert all((seen[0][name] != 0).equal(kept) for name, kept in within.items())
    assert not any((found[name] & ~within[name]).any() for name in within)
    assert same(within, left)
    with pytest.raises(InputError, match=r"asks for 115 weights but only 96 are left"):
        masks.keep_in_rounds(network, score, (0.6,), within=within)


@pytest.mark.parametrize("in_round", [1, 2, 3])
def test_weights_come_back_bit_for_bit_though_a_score_raises(in_round):
    network = make()
    with torch.no_grad():  # what no arithmetic would give back
        network.encoder[0].weight[0, 0] = -0.0
        network.encoder[0].weight[0, 1] = torch.nan
    before, calls = state(network), []

    def score(masked):
        calls.append(1)
        if len(calls) == in_round:
            raise RuntimeError("no")
        return {name: masked.get_parameter(name).detach().nan_to_num().abs() for name in NAMES}

    with pytest.raises(RuntimeError, match="no"):
        masks.keep_in_rounds(network, score, (0.8, 0.5, 0.2), min_per_layer=1)
    for name, tensor in network.state_dict().items():
        bits = (t.reshape(-1).view(torch.uint8) for t in (tensor, before[name]))
        assert torch.equal(*bits), name
    assert len(calls) == in_round


def test_rounds_save_synflow_from_the_collapse_that_one_round_is():
    network = nn.Sequential(
        nn.Linear(30, 60), nn.ReLU(), nn.Linear(60, 60), nn.ReLU(), nn.Linear(60, 2)
    )
    initialise_(network, generator=torch.Generator().manual_seed(0))
    score = partial(criteria.synflow, example=torch.ones(1, 30))
    density = 40 / 5520
    with pytest.raises(InputError, match="layer collapse: no weight is kept in"):
        masks.keep_in_rounds(network, score, (density,))
    kept = masks.keep_in_rounds(network, score, schedules.exponential(density, rounds=100))
    assert masks.count(kept) == 40
    assert all(masks.kept_per_layer(kept).values())
