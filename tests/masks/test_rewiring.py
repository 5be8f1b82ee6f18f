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


@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 12),
    density=st.floats(0, 1),
    fraction=st.floats(0.01, 1),
)
def test_equals_its_slow_twin_and_counts_stay(seed, n, density, fraction):
    generator = seeded(seed)
    mask = {name: torch.rand(n, 2, generator=generator) < density for name in "ab"}
    keep, grow = (
        {name: torch.randint(0, 4, (n, 2), generator=generator) for name in "ab"} for _ in range(2)
    )
    before = {name: kept.clone() for name, kept in mask.items()}
    rewired = masks.rewire(mask, keep=keep, grow=grow, fraction=fraction)
    assert masks.kept_per_layer(rewired) == masks.kept_per_layer(mask)
    for name, kept in mask.items():
        rows = (t[name].flatten().tolist() for t in (mask, keep, grow))
        assert rewired[name].flatten().tolist() == selection.rewire(*rows, fraction)
        assert rewired[name].shape == kept.shape
        assert torch.equal(kept, before[name])


def test_what_was_just_dropped_does_not_grow_again():
    mask = {"w": torch.tensor([True, True, True, True, False, False])}
    keep = {"w": torch.tensor([1.0, 2, 3, 4, 0, 0])}
    grow = {"w": torch.tensor([99.0, 99, 99, 99, 1, 2])}
    rewired = masks.rewire(mask, keep=keep, grow=grow, fraction=0.5)
    assert rewired["w"].tolist() == [False, False, True, True, True, True]
    rewired = masks.rewire(mask, keep=keep, grow=grow, fraction=0.25)
    assert rewired["w"].tolist() == [False, True, True, True, False, True]


def test_a_layer_without_room_moves_no_more_than_it_can():
    mask = {"w": torch.tensor([True, True, True, False]), "full": torch.ones(3, dtype=torch.bool)}
    scores = {"w": torch.arange(4.0), "full": torch.arange(3.0)}
    rewired = masks.rewire(mask, keep=scores, grow=scores, fraction=1.0)
    assert rewired["w"].tolist() == [False, True, True, True]
    assert rewired["full"].all()


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5, float("nan")])
def test_fractions_out_of_range_are_refused(fraction):
    mask = {"w": torch.tensor([True, False])}
    scores = {"w": torch.rand(2)}
    with pytest.raises(InputError, match=r"fraction must be in \(0, 1\]"):
        masks.rewire(mask, keep=scores, grow=scores, fraction=fraction)


def test_scores_that_do_not_fit_are_refused():
    mask, good = {"w": torch.tensor([True, False])}, {"w": torch.rand(2)}
    with pytest.raises(InputError, match=r"w \(mask \(2,\), grow \(3,\)\)"):
        masks.rewire(mask, keep=good, grow={"w": torch.rand(3)}, fraction=0.5)
    with pytest.raises(InputError, match="NaN in w"):
        masks.rewire(mask, keep={"w": torch.tensor([1, torch.nan])}, grow=good, fraction=0.5)


def task():
    """Return 256 rows of 16 columns of which the answer reads two, and a network's start."""
    x = torch.randn(256, 16, generator=seeded(1))
    y = (x[:, 3] - x[:, 11]).sign() / 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))
    return x, y, network


def trained(grow):
    """Train at a density of 10% in the first layer, rewired ten times; return what came of it."""
    x, y, network = task()
    # nothing of the two columns that matter is kept at first
    first = masks.keep_top({"0.weight": torch.rand(16, 16, generator=seeded(2))}, 0.1)
    first["0.weight"][:, [3, 11]] = False
    n_kept, seen = masks.count(first), masks.ones(first)
    seen["0.weight"].zero_()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.3, momentum=0.9)
    with masks.hold(network, first, optimizer) as held:
        for step in range(200):
            optimizer.zero_grad()
            loss = (network(x)[:, 0] - y).square().mean()
            if grow is not None and step % 15 == 14 and step < 160:
                # hooks mask .grad only: the gradient of pruned weights is there for the asking
                dense = torch.autograd.grad(loss, network[0].weight, retain_graph=True)[0]
                assert (dense[~held.mask["0.weight"]] != 0).any()
                before = held.mask["0.weight"]
                mask = masks.rewire(
                    held.mask,
                    keep={"0.weight": network[0].weight.abs()},
                    grow={"0.weight": grow(dense)},
                    fraction=0.3,
                )
                held.update(mask)
                grown = mask["0.weight"] & ~before
                assert grown.any()
                assert (network[0].weight[grown] == 0).all()
                assert (optimizer.state[network[0].weight]["momentum_buffer"][grown] == 0).all()
            loss.backward()
            optimizer.step()
            seen["0.weight"] |= held.mask["0.weight"]
            assert masks.count(held.mask) == n_kept
            masks.check_held(network, held.mask)
        # what grew also learnt
        assert (network[0].weight[held.mask["0.weight"]] != 0).all()
        return float(loss.detach()), masks.count(seen), held.mask["0.weight"]


def test_set_and_rigl_train_where_a_fixed_mask_cannot():
    generator = seeded(3)
    fixed, n_fixed, _ = trained(None)
    random, n_random, _ = trained(lambda dense: torch.rand(dense.shape, generator=generator))
    by_gradient, n_rigl, kept = trained(torch.abs)
    assert n_random > n_fixed
    assert n_rigl > n_fixed
    assert fixed > 0.2  # it reads neither column: the variance of the answer is 1/4
    assert random < 0.7 * fixed
    assert by_gradient < 0.3 * fixed
    assert kept[:, [3, 11]].sum() > 0.3 * kept.sum()  # chance is 1/8
