import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from secateurs import Data, TicketConfig, tickets
from secateurs.errors import InputError
from secateurs.measures.regime import weight_movement
from secateurs.networks.init import initialise_
from secateurs.objectives import mse
from secateurs.optimizers import SGD
from secateurs.regime import dial
from secateurs.seeds import stream
from secateurs.training import PhaseConfig, outputs, train


class Homogeneous(nn.Module):
    """Three bias-free layers; the readout is divided by its fan-in to some power."""

    def __init__(self, width=16, *, power=0.0):
        super().__init__()
        layers = [nn.Linear(5, width, bias=False), nn.ReLU(), nn.Linear(width, width, bias=False)]
        self.encoder = nn.Sequential(*layers, nn.ReLU())
        self.decoder = nn.Linear(width, 1, bias=False)
        self.factor = width**-power
        initialise_(self, generator=stream(0, "init"))
        self.double()

    def forward(self, x):
        return self.factor * self.decoder(self.encoder(x))


X = torch.randn(32, 5, generator=stream(0, "x")).double()
DATA = Data(train=(X, X[:, 0] * X[:, 1]))
PHASE = PhaseConfig(
    steps=50, batch_size=8, loss=mse, optimizer=SGD(lr=2e-3, momentum=0.5), alpha=1.0
)


def at(phase, alpha, lr):
    return replace(phase, alpha=alpha, optimizer=replace(phase.optimizer, lr=lr))


@pytest.mark.parametrize("kappa", [0.25, 0.5, 2.0])
def test_a_small_start_is_alpha_to_the_bit(kappa):
    lr = 2e-3 / max(1.0, kappa) ** 6
    small = TicketConfig(search=at(PHASE, 1.0, lr), init_scale=kappa, compression=1, rewind="none")
    alpha = dial.init_scale_to_alpha(kappa, 3)
    scaled = replace(small, init_scale=1.0, search=at(PHASE, alpha, dial.matched_lr(lr, kappa, 3)))
    one, other = (tickets.search(Homogeneous(), DATA, config) for config in (small, scaled))
    for name, weight in other.state.items():
        assert torch.equal(one.state[name], kappa * weight)
        assert not torch.equal(weight, other.start[name])


@pytest.mark.parametrize("width", [16, 64])
def test_the_mean_field_readout_is_alpha_to_the_bit(width):
    ordinary, mean_field = Homogeneous(width, power=0.5), Homogeneous(width, power=1.0)
    alpha, lr = dial.mean_field(0.5, 2e-3, width)
    train(ordinary, DATA, at(PHASE, 0.5, 2e-3), name="t", seed=0)
    train(mean_field, DATA, at(PHASE, alpha, lr), name="t", seed=0)
    for name, weight in ordinary.named_parameters():
        assert torch.equal(weight, mean_field.get_parameter(name))
    assert outputs(ordinary, X).any()


class Normalised(nn.Module):
    def __init__(self):
        super().__init__()
        tiny = 1e-300  # the limit that the equality is exact in
        layers = [nn.Linear(5, 8, bias=False), nn.BatchNorm1d(8, eps=tiny), nn.ReLU()]
        self.encoder = nn.Sequential(*layers)
        self.decoder = nn.Linear(8, 1)
        initialise_(self, generator=stream(0, "init"))
        self.double()

    def forward(self, x):
        return self.decoder(self.encoder(x))


def test_with_batchnorm_a_small_start_is_the_encoders_rate():
    one, other = Normalised(), Normalised()
    one.encoder[0].weight.data *= 0.25
    plain = SGD(lr=1e-3, momentum=0.0, nesterov=False)
    phase = replace(PHASE, alpha=None, optimizer=plain)
    matched = replace(phase, optimizer=replace(plain, encoder_lr=dial.encoder_lr(1e-3, 0.25)))
    before = other.encoder[0].weight.detach().clone()
    names = ["encoder.0.weight"]
    train(one, DATA, phase, name="t", seed=0, prunable=names)
    train(other, DATA, matched, name="t", seed=0, prunable=names)
    assert torch.equal(one.encoder[0].weight, 0.25 * other.encoder[0].weight)
    assert torch.equal(one.decoder.weight, other.decoder.weight)
    assert not torch.equal(before, other.encoder[0].weight)


def test_the_rule_for_rates_bends_at_the_crossover():
    rates = [
        dial.lr_at(alpha, lr=2.0, alpha_star=0.125, n_layers=3) for alpha in (0.0625, 0.125, 9)
    ]
    assert rates == pytest.approx([2.0 * 0.5 ** (4 / 3), 2.0, 2.0])
    assert dial.crossover(64) == 0.125


def movement(alpha):
    network = Homogeneous()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    lr = dial.lr_at(alpha, lr=1e-2, alpha_star=0.25, n_layers=3)
    train(network, DATA, at(PHASE, alpha, lr), name="t", seed=0)
    return weight_movement(before, network.state_dict(), list(before))


def test_an_alpha_is_found_by_what_it_does():
    target = movement(2.0)
    found = dial.find_alpha(movement, target, between=(0.5, 32.0), within=0.02)
    assert movement(found) == pytest.approx(target, rel=0.02)
    assert found == pytest.approx(2.0, rel=0.1)


def test_a_target_out_of_reach_is_refused():
    with pytest.raises(InputError, match="widen `between`"):
        dial.find_alpha(lambda alpha: 1 / alpha, 20.0, between=(1.0, 10.0))


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_factors_are_positive(wrong):
    for refused in (
        lambda: dial.init_scale_to_alpha(wrong, 2),
        lambda: dial.encoder_lr(0.1, wrong),
        lambda: dial.mean_field(wrong, 0.1, 4),
        lambda: dial.lr_at(wrong, lr=0.1, alpha_star=1, n_layers=2),
    ):
        with pytest.raises(InputError, match="must be a positive number"):
            refused()
