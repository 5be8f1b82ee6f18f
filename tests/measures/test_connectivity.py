import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from secateurs import masks, training
from secateurs.errors import InputError
from secateurs.measures.connectivity import barrier
from secateurs.networks.dense import MLP
from secateurs.networks.init import initialise_
from secateurs.seeds import stream


def linear_states():
    generator = torch.Generator().manual_seed(0)
    return [{"weight": torch.randn(2, 3, generator=generator)} for _ in range(2)]


def quadratic(network):
    return float((network.weight - 0.3).square().sum())


def test_a_convex_loss_has_no_barrier():
    network = nn.Linear(3, 2, bias=False)
    found = barrier(network, *linear_states(), quadratic)
    assert found.height == 0
    assert found.t == tuple(i / 10 for i in range(11))
    assert found.values[5] < (found.values[0] + found.values[10]) / 2


def test_the_barrier_of_minus_a_quadratic_is_known():
    # on the line -|w|^2 rises t (1 - t) |a - b|^2 above the chord
    a, b = linear_states()
    network = nn.Linear(3, 2, bias=False)
    found = barrier(network, a, b, lambda net: -float(net.weight.double().square().sum()))
    far = float((a["weight"] - b["weight"]).square().sum())
    assert found.height == pytest.approx(far / 4, rel=1e-5)
    best = max(found.values) - (found.values[0] + found.values[-1]) / 2
    assert found.instability == pytest.approx(best)
    assert found.instability != pytest.approx(found.height)


def test_unequal_ends_are_taken_off_as_a_line():
    network = nn.Linear(1, 1, bias=False)
    ends = {"weight": torch.tensor([[0.0]])}, {"weight": torch.tensor([[8.0]])}
    found = barrier(network, *ends, lambda net: float(net.weight), points=5)
    assert (found.height, found.instability) == (0, 4)
    assert found.values == (0, 2, 4, 6, 8)


@pytest.fixture
def trained(data):
    """Two runs from different starts, both of which learn the rule."""
    x, y = data.train
    states = []
    for seed in range(2):
        network = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
        initialise_(network, generator=stream(seed, "test"))
        optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
        for _ in range(150):
            optimizer.zero_grad()
            functional.cross_entropy(network(x), y).backward()
            optimizer.step()
        states.append(copy.deepcopy(network.state_dict()))
    return network, states, lambda net: float(functional.cross_entropy(net(x), y).detach())


def test_equal_states_have_exactly_none(trained):
    network, (a, _), loss = trained
    found = barrier(network, a, copy.deepcopy(a), loss)
    assert found.height == 0
    assert found.instability == 0
    assert len(set(found.values)) == 1


def test_a_network_and_its_permuted_copy_have_one(trained):
    network, (a, _), loss = trained
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    permuted = {
        "0.weight": a["0.weight"][order],
        "0.bias": a["0.bias"][order],
        "2.weight": a["2.weight"][:, order],
        "2.bias": a["2.bias"],
    }
    found = barrier(network, a, permuted, loss)
    assert found.values[0] == pytest.approx(found.values[-1])  # one function
    assert found.height > 0.1
    assert found.height == pytest.approx(found.instability, rel=1e-3)


def test_the_ends_are_those_states_and_the_network_stays(trained):
    network, (a, b), loss = trained
    network.train()
    before = copy.deepcopy((network.state_dict(), a, b))
    seen = []
    found = barrier(network, a, b, lambda net: seen.append(net.training) or loss(net), points=3)
    assert seen == [False] * 3
    assert network.training
    for now, then in zip((network.state_dict(), a, b), before, strict=True):
        assert all(torch.equal(now[name], then[name]) for name in then)
    for state, value in ((a, found.values[0]), (b, found.values[-1])):
        network.load_state_dict(state)
        assert loss(network) == value


def test_a_refresh_that_forgets_to_evaluate_does_no_harm(trained):
    network, (a, b), loss = trained
    seen = []
    barrier(
        network, a, b, lambda net: seen.append(net.training) or loss(net), refresh=nn.Module.train
    )
    assert seen == [False] * 11


def test_a_mask_holds_at_every_point(trained):
    network, (a, b), loss = trained
    mask = masks.keep_top({"0.weight": a["0.weight"].abs()}, 0.3)
    held = []

    def looked(net):
        masks.check_held(net, mask)
        held.append(bool((net[0].weight != 0).any()))
        return loss(net)

    barrier(network, a, b, looked, mask=mask)
    assert held == [True] * 11


def test_refreshed_statistics_are_those_of_each_point(data):
    x, y = data.train
    network = MLP(6, 3, widths=(16,))
    states = []
    for scale in (1.0, -3.0):
        with torch.no_grad():
            for weight in network.parameters():
                weight.mul_(scale)
        training.reestimate_statistics_(network, x, batch_size=len(x))
        states.append(copy.deepcopy(network.state_dict()))
    seen = []

    def loss(net):
        seen.append(net.encoder[1].running_var / net.encoder[0](x).var(0))
        return float(functional.cross_entropy(net(x), y))

    kept = copy.deepcopy(network.state_dict())
    barrier(network, *states, loss, points=4)
    assert (seen[0] - 1).abs().max() < 1e-3
    assert (seen[2] - 1).abs().max() > 0.5  # interpolated statistics are those of neither

    def refresh(net):
        training.reestimate_statistics_(net, x, batch_size=len(x))

    seen.clear()
    barrier(network, *states, loss, points=4, refresh=refresh)
    assert all((ratio - 1).abs().max() < 1e-3 for ratio in seen)
    assert all(torch.equal(kept[name], t) for name, t in network.state_dict().items())


def test_a_point_without_bounds_is_an_infinite_barrier():
    found = barrier(
        nn.Linear(1, 1, bias=False),
        {"weight": torch.tensor([[-1.0]])},
        {"weight": torch.tensor([[1.0]])},
        lambda net: 1 / abs(float(net.weight)) if float(net.weight) else float("inf"),
        points=3,
    )
    assert found.height == float("inf")


@pytest.mark.parametrize(
    ("value", "points", "said"),
    [
        (lambda net: float("nan"), 3, "got nan at t=0"),
        (lambda net: float("inf"), 3, "got inf at t=0"),
        (quadratic, 2, "at least 3"),
    ],
)
def test_what_gives_no_number_is_refused(value, points, said):
    with pytest.raises(InputError, match=said):
        barrier(nn.Linear(3, 2, bias=False), *linear_states(), value, points=points)


def test_states_of_other_networks_are_refused():
    a, b = linear_states()
    with pytest.raises(InputError, match="state_a and state_b"):
        barrier(nn.Linear(3, 2, bias=False), a, {"weight": b["weight"][:1]}, quadratic)
    with pytest.raises(InputError, match="state_a and network"):
        barrier(nn.Linear(3, 2), a, b, quadratic)
