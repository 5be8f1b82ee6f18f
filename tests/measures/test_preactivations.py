import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from reference import representation as twins
from secateurs import masks
from secateurs.errors import InputError
from secateurs.measures import preactivations
from secateurs.measures.preactivations import compare
from secateurs.networks.dense import MLP
from secateurs.networks.init import initialise_
from secateurs.seeds import stream


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=stream(seed, "test"))


def plain(seed=0, *, n_inputs=20, width=24):
    network = nn.Sequential(nn.Linear(n_inputs, width), nn.ReLU(), nn.Linear(width, width))
    initialise_(network, generator=stream(seed, "test"))
    return network


def permuted(network, seed=0):
    """Return a copy whose hidden neurons and outputs stand in another order."""
    network = copy.deepcopy(network)
    first, last = network[0], network[2]
    orders = [torch.randperm(24, generator=stream(seed, i)) for i in range(2)]
    with torch.no_grad():
        for tensor in (first.weight, first.bias):
            tensor.copy_(tensor[orders[0]])
        last.weight.copy_(last.weight[orders[1]][:, orders[0]])
        last.bias.copy_(last.bias[orders[1]])
    return network


def trajectory(network, x, *, steps=30, mask=None):
    """Return H before and after some full-batch steps towards one target."""
    target = draw(len(x), 24, seed=99)
    start = preactivations.preactivations(network, x)
    for _ in range(steps):
        network.zero_grad()
        (network(x) - target).square().mean().backward()
        with torch.no_grad():
            for weight in network.parameters():
                weight.sub_(0.3 * weight.grad)
        if mask is not None:
            masks.apply_(network, mask)
    return start, preactivations.preactivations(network, x)


# ---- what is recorded


def test_they_are_the_layers_outputs():
    network, x = plain(), draw(50, 20)
    found = preactivations.preactivations(network, x)
    assert list(found) == ["0", "2"]
    torch.testing.assert_close(found["0"], network[0](x).detach())
    torch.testing.assert_close(found["2"], network(x).detach())
    assert not found["0"].requires_grad
    assert list(preactivations.preactivations(network, x, layers=["2"])) == ["2"]


def test_the_network_is_left_as_found_and_seen_in_evaluation():
    network = MLP(6, 3, widths=(16,), dropout=0.5)
    network.train()
    network.encoder[1].eval()  # a mixture of modes is the caller's affair
    before, modes = copy.deepcopy(network.state_dict()), [m.training for m in network.modules()]
    one, two = (preactivations.preactivations(network, draw(40, 6)) for _ in range(2))
    assert list(one) == ["encoder.0", "decoder"]
    assert torch.equal(one["decoder"], two["decoder"])  # no dropout
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert modes == [m.training for m in network.modules()]
    assert not any(m._forward_hooks for m in network.modules())


def test_hooks_are_gone_after_an_error():
    network = plain()
    network.train()
    with pytest.raises(RuntimeError, match="shapes"):
        preactivations.preactivations(network, draw(5, 3))
    assert network.training
    assert not any(m._forward_hooks for m in network.modules())


def test_many_probes_go_through_in_parts(monkeypatch):
    network, x = plain(), draw(50, 20)
    whole = preactivations.preactivations(network, x)
    monkeypatch.setattr(preactivations, "_ROWS", 7)
    parts = preactivations.preactivations(network, x)
    for name, h in whole.items():
        torch.testing.assert_close(parts[name], h)


def test_a_wrapped_network_has_the_plain_ones_names():
    network, x = plain(), draw(9, 20)
    expected = preactivations.preactivations(network, x)
    wrapped = nn.DataParallel(network), torch.compile(network, backend="eager")
    for one in wrapped:
        with torch.no_grad():
            one.eval()(x)  # compiled before there are hooks
        found = preactivations.preactivations(one, x)
        assert list(found) == ["0", "2"]
        assert torch.equal(found["2"], expected["2"])


def test_a_channel_is_a_unit_or_every_place_is():
    network = nn.Sequential(nn.Conv2d(2, 5, 3), nn.Flatten(), nn.Linear(5 * 16, 3))
    x = draw(11, 2, 6, 6)
    images = network[0](x).detach()
    found = preactivations.preactivations(network, x)
    torch.testing.assert_close(found["0"], images.mean((2, 3)))
    assert found["0"].shape[1] == len(preactivations.dead_units(network[0].weight > 0))
    flat = preactivations.preactivations(network, x, places="flat")
    torch.testing.assert_close(flat["0"], images.flatten(1))
    assert flat["2"].shape == (11, 3)


def test_the_units_of_a_sequence_are_its_last_dimension():
    network, x = nn.Sequential(nn.Linear(4, 6)), draw(11, 7, 4)
    found = preactivations.preactivations(network, x)
    torch.testing.assert_close(found["0"], network(x).detach().mean(1))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.used(self.used(x))


@pytest.mark.parametrize(
    ("network", "layers", "said"),
    [
        (plain(), ["0", "none"], r"got \['none'\]; it has 0, 2"),
        (nn.ReLU(), None, "it has none"),
        (Twice(), None, "'used' gave 18"),
        (Twice(), ["idle"], "'idle' gave 0"),
        (nn.Sequential(nn.Flatten(0, 1), nn.Linear(4, 4)), None, "'1' gave 36"),
    ],
)
def test_layers_that_cannot_be_recorded_are_refused(network, layers, said):
    with pytest.raises(InputError, match=said):
        preactivations.preactivations(network, draw(9, 4, 4), layers=layers)


def test_no_probes_and_unknown_places_are_refused():
    with pytest.raises(InputError, match="at least one probe"):
        preactivations.preactivations(plain(), draw(0, 20))
    with pytest.raises(InputError, match="places must be"):
        preactivations.preactivations(plain(), draw(3, 20), places="max")


def test_dead_units_are_the_rows_that_keep_nothing():
    mask = torch.ones(4, 2, 3, 3).bool()
    mask[1] = False
    mask[2, 0] = False
    assert preactivations.dead_units(mask).tolist() == [False, True, False, False]
    for bad in (mask.float(), torch.ones(3).bool()):
        with pytest.raises(InputError, match="mask must be"):
            preactivations.dead_units(bad)


# ---- what is compared


def test_equal_networks_are_alike_in_everything():
    h = preactivations.preactivations(plain(), draw(100, 20))["0"]
    found = compare(h, h.clone(), start=h / 2, reference_start=h / 2, generator=stream(0))
    assert (found.n_pairs, found.n_dead, found.n_dead_reference) == (24, 0, 0)
    for value in (found.h_correlation, found.dh_correlation, found.cka, found.matched_correlation):
        assert value == pytest.approx(1)
    assert found.chance < found.chance_high < 0.5


@pytest.mark.parametrize("layer", ["0", "2"])
def test_a_permuted_copy_is_found_by_matching_alone(layer):
    x = draw(200, 20)
    network = plain()
    h, reference = (
        preactivations.preactivations(one, x)[layer] for one in (permuted(network), network)
    )
    by_index, by_match = (compare(h, reference, matched=m) for m in ("index", "hungarian"))
    assert abs(by_index.h_correlation) < 0.25
    assert by_match.h_correlation == pytest.approx(1)
    for one in (by_index, by_match):
        assert one.matched_correlation == pytest.approx(1)
        assert one.cka == pytest.approx(1)


def test_dh_follows_the_pairs_of_h():
    x, network = draw(100, 20), plain()
    start, end = (h["2"] for h in trajectory(network, x))
    order = torch.randperm(24, generator=stream(0))
    found = compare(
        end[:, order], end, start=start[:, order], reference_start=start, matched="hungarian"
    )
    assert found.dh_correlation == pytest.approx(1)
    by_index = compare(end[:, order], end, start=start[:, order], reference_start=start)
    assert by_index.dh_correlation < 0.5


def test_equal_training_has_dh_1_from_whatever_start():
    x = draw(100, 20)
    start, end = (h["0"] for h in trajectory(plain(), x))
    shift = draw(100, 24, seed=5)  # another start, the same movement
    found = compare(end + shift, end, start=start + shift, reference_start=start)
    assert found.dh_correlation == pytest.approx(1, abs=1e-4)
    assert found.h_correlation < 0.9
    again = [h["0"] for h in trajectory(plain(), x)]
    assert compare(again[1], end, start=again[0], reference_start=start).dh_correlation == 1


def test_a_ticket_moves_more_like_the_dense_network_than_another_network_does():
    x = draw(100, 20)
    dense = trajectory(plain(), x)
    network = plain()
    mask = masks.keep_top({"0.weight": network[0].weight.detach().abs()}, 0.5)
    masks.apply_(network, mask)
    ticket, other = trajectory(network, x, mask=mask), trajectory(plain(1), x)
    ours, theirs = (
        compare(end["2"], dense[1]["2"], start=start["2"], reference_start=dense[0]["2"])
        for start, end in (ticket, other)
    )
    assert ours.dh_correlation > theirs.dh_correlation
    assert ours.h_correlation > 0.5 > abs(theirs.h_correlation)


def test_nothing_moved_is_0_and_rounding_is_nothing():
    h = draw(50, 6)
    still = compare(h, h, start=h.clone(), reference_start=h.clone())
    assert (still.dh_correlation, still.h_correlation) == (0, pytest.approx(1))
    rounded = h * (1 + 2 * torch.finfo(h.dtype).eps)
    assert not torch.equal(rounded, h)
    assert compare(rounded, h, start=h, reference_start=h / 2).dh_correlation == 0


def test_independent_networks_are_near_chance_by_match_if_inputs_are_many():
    # cosines of random weights in 4000 dimensions are far below correlations over 200 probes
    x = draw(200, 4000)
    h, reference = (
        preactivations.preactivations(plain(seed, n_inputs=4000), x)["0"] for seed in (0, 1)
    )
    found = compare(h, reference, matched="index", generator=stream(0))
    assert abs(found.h_correlation) < 0.1
    assert found.matched_correlation == pytest.approx(found.chance, abs=0.03)
    # with 5 inputs the neurons of any two networks are alike: permutations are too low a floor
    few = [preactivations.preactivations(plain(seed, n_inputs=5), x[:, :5])["0"] for seed in (0, 1)]
    found = compare(*few, generator=stream(0))
    assert found.matched_correlation > found.chance_high + 0.3


@given(seed=st.integers(0, 10**6), n=st.integers(1, 5), m=st.integers(1, 5))
def test_the_match_is_the_best_of_all_permutations(seed, n, m):
    h, reference = draw(6, n, seed=seed).double(), draw(6, m, seed=seed + 1).double()
    found = compare(h, reference, matched="hungarian")
    assert found.matched_correlation == pytest.approx(
        twins.best_match(h.tolist(), reference.tolist())
    )
    assert found.n_pairs == min(n, m)


def test_correlations_are_those_of_the_entries():
    h, reference, start, its_start = (draw(9, 4, seed=i).double() + i for i in range(4))
    found = compare(h, reference, start=start, reference_start=its_start)
    twin = twins.centred_correlation(h.tolist(), reference.tolist())
    assert found.h_correlation == pytest.approx(twin)
    twin = twins.centred_correlation((h - start).tolist(), (reference - its_start).tolist())
    assert found.dh_correlation == pytest.approx(twin)


def test_chance_is_the_match_of_permuted_probes():
    h, reference = draw(30, 5).double(), draw(30, 5, seed=1).double()
    found = compare(h, reference, generator=stream(0, "chance"), draws=7)
    generator = stream(0, "chance")
    twin = [
        twins.best_match(h[torch.randperm(30, generator=generator)].tolist(), reference.tolist())
        for _ in range(7)
    ]
    assert found.chance == pytest.approx(np.mean(twin))
    assert found.chance_high == pytest.approx(np.quantile(twin, 0.95))
    assert compare(h, reference).chance is None


def test_dead_neurons_are_left_out_and_counted():
    x, network = draw(100, 20), plain()
    reference = preactivations.preactivations(network, x)
    mask = {"0.weight": torch.ones(24, 20).bool(), "2.weight": torch.ones(24, 24).bool()}
    mask["0.weight"][[3, 7]] = False
    masks.apply_(network, mask)
    h = preactivations.preactivations(network, x)
    dead = preactivations.dead_units(mask["0.weight"])
    named = compare(h["0"], reference["0"], dead=dead, generator=stream(0))
    assert named == compare(h["0"], reference["0"], generator=stream(0))  # constant, so found
    assert (named.n_dead, named.n_dead_reference, named.n_pairs) == (2, 0, 22)
    # the others are as they were
    assert named.h_correlation == pytest.approx(1)
    assert named.matched_correlation == pytest.approx(1)
    by_match = compare(h["0"], reference["0"], matched="hungarian")
    assert (by_match.n_pairs, by_match.h_correlation) == (22, pytest.approx(1))
    back = compare(reference["0"], h["0"])
    assert (back.n_dead, back.n_dead_reference, back.n_pairs) == (0, 2, 22)


def test_neurons_named_dead_do_not_count_whatever_they_hold():
    h, reference = draw(50, 6), draw(50, 6, seed=1)
    dead = torch.tensor([False, True, False, False, True, False])
    found = compare(h, reference, dead=dead, reference_dead=dead)
    alone = compare(h[:, ~dead], reference[:, ~dead])
    assert dataclasses.replace(found, n_dead=0, n_dead_reference=0) == alone
    assert found.n_dead == found.n_dead_reference == 2


def test_a_layer_without_life_gives_zeros():
    h = draw(50, 6)
    found = compare(
        torch.full((50, 6), 0.1), h, start=h, reference_start=h / 3, generator=stream(0)
    )
    assert found == preactivations.Comparison(
        h_correlation=0.0,
        dh_correlation=0.0,
        cka=0.0,
        matched_correlation=0.0,
        chance=0.0,
        chance_high=0.0,
        n_pairs=0,
        n_dead=6,
        n_dead_reference=0,
    )


@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1e-38, 1e-12, 1.0, 1e30]),
    offset=st.sampled_from([0.0, 1.0, 1e30]),
    matched=st.sampled_from(["index", "hungarian"]),
)
def test_no_value_is_nan_or_out_of_range(seed, size, offset, matched):
    h, reference = draw(5, 3, seed=seed) * size + offset, draw(5, 3, seed=seed + 1)
    found = compare(
        h,
        reference,
        start=torch.zeros(5, 3),
        reference_start=reference,
        matched=matched,
        generator=stream(seed),
        draws=2,
    )
    values = dataclasses.asdict(found)
    assert found.dh_correlation == 0
    for name in ("h_correlation", "dh_correlation", "cka"):
        assert -1 <= values[name] <= 1
    for name in ("matched_correlation", "chance", "chance_high"):
        assert 0 <= values[name] <= 1


def test_the_widths_may_differ_if_matched():
    found = compare(draw(50, 4), draw(50, 7, seed=1), matched="hungarian")
    assert found.n_pairs == 4
    with pytest.raises(InputError, match="equal widths, got 4 and 7"):
        compare(draw(50, 4), draw(50, 7))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"h": draw(9, 4)}, "same probes"),
        ({"start": draw(8, 4)}, "come together"),
        ({"start": draw(8, 3), "reference_start": draw(8, 4)}, "shape of its H"),
        ({"dead": torch.zeros(4)}, "one bool for each of 4"),
        ({"reference_dead": torch.zeros(3).bool()}, "one bool for each of 4"),
        ({"matched": "greedy"}, "'index' or 'hungarian'"),
        ({"draws": 0}, "at least 1"),
        ({"h": draw(8, 4) / 0}, "finite"),
        ({"h": draw(3, 4), "reference": draw(3, 4)}, "4 or more probes"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(change, said):
    with pytest.raises(InputError, match=said) as caught:
        compare(**{"h": draw(8, 4), "reference": draw(8, 4), **change})
    assert "\n" not in str(caught.value)


# ---- at which checkpoint


@given(st.lists(st.floats(0, 10), max_size=8), st.lists(st.floats(0, 10), min_size=1, max_size=8))
def test_the_checkpoint_is_the_first_of_nearest_loss(a, b):
    found = preactivations.matched_step(a, b)
    assert len(found) == len(a)
    for loss, step in zip(a, found, strict=True):
        distances = [abs(loss - other) for other in b]
        assert step == distances.index(min(distances))


def test_the_same_curve_at_half_the_speed_is_met_at_twice_the_step():
    losses = np.exp(-0.3 * np.arange(21))
    assert preactivations.matched_step(losses[::2], losses) == list(range(0, 21, 2))


@pytest.mark.parametrize(
    ("a", "b"), [([1.0], []), ([float("nan")], [1.0]), ([1.0], [float("inf")])]
)
def test_losses_that_cannot_be_matched_are_refused(a, b):
    with pytest.raises(InputError, match="losses must be finite"):
        preactivations.matched_step(a, b)
