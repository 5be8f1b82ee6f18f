import copy

import pytest
import torch
from torch import nn

from secateurs import Data, PhaseConfig, masks
from secateurs.measures import kernel
from secateurs.measures.dynamics import feature_dynamics
from secateurs.measures.regime import log_spaced, start_mask_overlap
from secateurs.measures.representation import cka
from secateurs.networks.init import initialise_, prunable
from secateurs.networks.lenet import LeNet300100
from secateurs.optimizers import SGD
from secateurs.regime.dial import lr_at
from secateurs.seeds import stream
from secateurs.training import train


def start(seed=0):
    with torch.device("meta"):
        network = LeNet300100(8, 3, widths=(64, 24))
    initialise_(network.to_empty(device="cpu"), generator=stream(seed, "init"))
    return network.double()


X = torch.randn(64, 8, generator=stream(0, "x")).double()
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()
STEPS = log_spaced(200, 8)


def followed(alpha, mask=None, steps=200):
    network = start()
    if mask is not None:
        masks.apply_(network, mask)
    lr = lr_at(alpha, lr=0.1, alpha_star=1.0, n_layers=3)
    optimizer = SGD(lr=lr, momentum=0.0, nesterov=False)
    phase = PhaseConfig(steps=steps, batch_size=64, optimizer=optimizer, alpha=alpha)
    tell = feature_dynamics(network, X, y=Y, mask=mask)
    done = train(
        network, Data(train=(X, Y)), phase, name="t", seed=0, mask=mask,
        prunable=list(mask or {}), follow=tell, every=STEPS,
    )  # fmt: skip
    return network, done.curve


@pytest.fixture(scope="module")
def curves():
    return {alpha: followed(alpha)[1] for alpha in (0.25, 1.0, 4.0, 16.0)}


def test_rows_come_at_the_steps_asked_for(curves):
    assert [row["step"] for row in curves[1.0]] == STEPS


@pytest.mark.parametrize(
    ("measure", "sign"),
    [
        ("weight_movement", -1),
        ("kernel_distance", -1),
        ("kernel_change", -1),
        ("deviation", -1),
        ("movement.encoder.1.weight", -1),
        ("cka", 1),
        ("unchanged_activations", 1),
        ("start_mask_overlap", 1),
    ],
)
def test_every_dial_turns_with_alpha(curves, measure, sign):
    ends = [curve[-1][measure] for curve in curves.values()]
    assert ends == sorted(ends, reverse=sign < 0)
    assert ends[0] != ends[-1]


def test_nothing_has_moved_at_the_start(curves):
    first = curves[1.0][0]
    assert first["weight_movement"] == first["kernel_change"] == 0
    assert first["unchanged_activations"] == 1
    assert first["cka"] == pytest.approx(1)
    assert first["start_mask_overlap"] == 1
    assert first["kernel_velocity"] is None
    assert first["deviation"] is None


def test_measures_are_those_of_their_modules():
    network, curve = followed(0.25)
    begin, end = start(), curve[-1]
    k_0, k_t = kernel.ntk(begin, X), kernel.ntk(network, X)
    assert end["kernel_distance"] == pytest.approx(kernel.kernel_distance(k_0, k_t))
    assert end["kernel_alignment"] == pytest.approx(kernel.kernel_target_alignment(k_t, Y))
    hidden = [nn.Sequential(*n.encoder[:2])(X).detach() for n in (begin, network)]
    second = [nn.Sequential(*n.encoder[:4])(X).detach() for n in (begin, network)]
    assert end["cka"] == pytest.approx((cka(*hidden) + cka(*second)) / 2)
    scores = {name: w.detach().abs() for name, w in prunable(network).items()}
    top = masks.keep_top(scores, 1 / 8)
    assert end["start_mask_overlap"] == start_mask_overlap(dict(begin.state_dict()), top)


def test_the_change_of_a_linear_network_deviates_by_nothing():
    network = nn.Sequential(nn.Linear(8, 3)).double()
    tell = feature_dynamics(network, X)
    tell(network, 0)
    network[0].weight.data += 1.0
    assert tell(network, 1)["deviation"] == pytest.approx(0, abs=1e-12)


def test_a_ticket_is_measured_from_its_masked_start():
    weights = {name: w.detach().abs() for name, w in prunable(start(), only="encoder.*").items()}
    mask = masks.keep_top(weights, 0.3)
    network, curve = followed(0.25, mask)
    begin = start()
    masks.apply_(begin, mask)
    expected = kernel.kernel_distance(
        kernel.ntk(begin, X, mask=mask), kernel.ntk(network, X, mask=mask)
    )
    assert curve[-1]["kernel_distance"] == pytest.approx(expected)
    assert curve[0]["weight_movement"] == 0
    assert "start_mask_overlap" not in curve[-1]


def test_the_network_is_left_as_found():
    network = start().train()
    state = copy.deepcopy(network.state_dict())
    feature_dynamics(network, X)(network, 0)
    assert network.training
    assert all(torch.equal(state[n], t) for n, t in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
