import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from secateurs import Data, TicketConfig, find_ticket, masks, tickets
from secateurs.data.batches import epoch_batches
from secateurs.errors import InputError
from secateurs.networks.dense import MLP
from secateurs.networks.init import initialise_
from secateurs.networks.lenet import LeNet300100
from secateurs.objectives import cross_entropy, hinge, mse
from secateurs.optimizers import SGD, AdamW
from secateurs.regime import centring
from secateurs.seeds import stream
from secateurs.training import PhaseConfig, outputs, train

PHASE = PhaseConfig(
    steps=20, batch_size=16, optimizer=SGD(lr=0.02, momentum=0.0, nesterov=False), alpha=0.5
)


def start(seed=0, dtype=torch.float32):
    with torch.device("meta"):
        network = LeNet300100(6, 3, widths=(16, 8))
    initialise_(network.to_empty(device="cpu"), generator=stream(seed, "init"))
    return network.to(dtype)


def rows(dtype=torch.float32):
    generator = stream(0, "rows")
    x = torch.randn(48, 6, generator=generator).to(dtype)
    return Data(train=(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()))


def twin(network, data, phase, mask=None):
    """The objective of method.md section 5, step by step, by an explicit second network."""
    weights = dict(network.named_parameters())
    for name, kept in (mask or {}).items():
        weights[name].data *= kept
    reference = copy.deepcopy(network)
    (x, y), step = data.train, 0
    while True:
        for batch in epoch_batches(
            len(x), phase.batch_size, generator=stream(0, "twin", "order", step // 3)
        ):
            scaled = phase.alpha * (network(x[batch]) - reference(x[batch]).detach())
            network.zero_grad()
            (phase.loss(scaled, y[batch], None) / phase.alpha**2).backward()
            for name, weight in weights.items():
                weight.data -= phase.optimizer.lr * weight.grad
                if name in (mask or {}):
                    weight.data *= mask[name]
            step += 1
            if step == phase.steps:
                return


@pytest.mark.parametrize("loss", [cross_entropy, mse, hinge])
@pytest.mark.parametrize("alpha", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("masked", [False, True])
def test_training_equals_an_explicit_second_network(loss, alpha, masked):
    one, other, data = start(dtype=torch.float64), start(dtype=torch.float64), rows(torch.float64)
    lr = 0.002 if alpha < 1 else 0.05
    phase = replace(PHASE, alpha=alpha, loss=loss, optimizer=replace(PHASE.optimizer, lr=lr))
    names = ["encoder.1.weight", "encoder.3.weight"]
    weights = {name: one.get_parameter(name).detach().abs() for name in names}
    mask = masks.keep_top(weights, 0.5) if masked else None
    done = train(one, data, phase, name="twin", seed=0, prunable=names, mask=mask)
    twin(other, data, phase, mask)
    for name, weight in other.named_parameters():
        torch.testing.assert_close(one.get_parameter(name), weight, rtol=1e-9, atol=1e-12)
    assert 0 < done.history[0]["loss"] < 3  # R, not R / alpha^2


def test_the_start_is_zero_and_its_speed_does_not_depend_on_alpha():
    data, moved = rows(torch.float64), {}
    for alpha in (1.0, 10.0, 100.0):
        network = start(dtype=torch.float64)
        scaled = centring.centre(network, alpha)
        assert not outputs(scaled, data.train[0]).any()
        phase = replace(PHASE, alpha=alpha, steps=1, batch_size=48)
        train(network, data, phase, name="t", seed=0)
        moved[alpha] = outputs(scaled, data.train[0])
    torch.testing.assert_close(moved[100.0], moved[10.0], rtol=0.1, atol=1e-2)
    assert (moved[100.0] - moved[10.0]).norm() < (moved[10.0] - moved[1.0]).norm() / 3


def linearised(network, data, phase):
    """Full-batch descent on f_lin, centred and scaled: the exact limit of a large alpha."""
    names = [name for name, _ in network.named_parameters()]
    at = tuple(p.detach().double() for p in network.parameters())
    network = copy.deepcopy(network).double()

    def f(*weights):
        named = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(network, named, (data.train[0].double(),))

    moved = tuple(torch.zeros_like(p) for p in at)  # alpha dw
    for _ in range(phase.steps):
        scaled = torch.autograd.functional.jvp(f, at, moved)[1].requires_grad_()
        (slope,) = torch.autograd.grad(phase.loss(scaled, data.train[1], None), scaled)
        gradient = torch.func.vjp(f, *at)[1](slope)
        moved = tuple(m - phase.optimizer.lr * g for m, g in zip(moved, gradient, strict=True))
    return torch.autograd.functional.jvp(f, at, moved)[1]


def error_at(alpha):
    data, network = rows(), start()
    phase = replace(PHASE, alpha=alpha, batch_size=48, optimizer=replace(PHASE.optimizer, lr=0.1))
    expected = linearised(network, data, phase)
    assert expected.norm() > 1
    config = TicketConfig(search=phase, init_scale=1.0, compression=1, rewind="none")
    ticket = find_ticket(network, data, replace(config, finetune=replace(phase, epochs=0)))
    found = outputs(ticket.function, data.train[0]).double()
    return ticket, float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("alpha", [1e4, 1e6])
def test_at_a_large_alpha_float64_comes_by_itself_and_equals_the_linearised_network(
    alpha, monkeypatch
):
    ticket, error = error_at(alpha)
    assert next(ticket.network.parameters()).dtype == torch.float64
    assert error < 10 / alpha
    monkeypatch.setattr(centring, "FLOAT32_UP_TO", 1e9)
    ticket, error = error_at(alpha)
    assert next(ticket.network.parameters()).dtype == torch.float32
    assert error > {1e4: 1e-4, 1e6: 0.05}[alpha]


def test_up_to_its_limit_float32_is_good_to_a_hundredth():
    ticket, error = error_at(centring.FLOAT32_UP_TO)
    assert next(ticket.network.parameters()).dtype == torch.float32
    assert error < 1e-2


CONFIG = TicketConfig(
    search=PHASE, finetune=PHASE, compression=4, init_scale=1.0, only=("encoder.*",)
)


@pytest.mark.parametrize("rewind", ["start", "scaled_start", "random", "none", "step:5", "lr:5"])
def test_a_ticket_is_centred_at_its_own_masked_start(rewind):
    data, network = rows(), start()
    config = replace(CONFIG, rewind=rewind, init_scale=0.5 if rewind == "scaled_start" else 1.0)
    ticket = find_ticket(network, data, config)
    expected = copy.deepcopy(network)
    if rewind == "scaled_start":
        for layer in (expected.encoder[1], expected.encoder[3], expected.decoder):
            layer.weight.data *= 0.5
    if rewind == "random":
        expected.load_state_dict(ticket.start)
    masks.apply_(expected, ticket.mask)
    x = data.train[0]
    scaled = PHASE.alpha * (outputs(ticket.network, x) - outputs(expected, x))
    torch.testing.assert_close(outputs(ticket.function, x), scaled)
    assert not torch.equal(outputs(ticket.network, x).argmax(1), scaled.argmax(1))
    if rewind in ("start", "scaled_start", "random"):  # and begins at 0
        untrained = tickets.prune(
            network, data, ticket.searched, replace(config, finetune=replace(PHASE, epochs=0))
        )
        assert not outputs(untrained.function, x).any()


def test_what_follows_a_phase_sees_the_centred_outputs():
    seen = []
    network, data = start(), rows()

    def follow(function, step):
        seen.append(float(outputs(function, data.train[0]).abs().max()))
        return {}

    train(network, data, PHASE, name="t", seed=0, follow=follow, every=10)
    assert seen[0] == 0
    assert min(seen[1:]) > 0


def test_a_killed_phase_goes_on_from_its_own_centre(tmp_path, monkeypatch):
    monkeypatch.setattr("secateurs.training.CHECKPOINT_SECONDS", 0.0)
    data, whole, cut = rows(), start(), start()
    train(whole, data, PHASE, name="t", seed=0)

    def stop(row, _):
        if row["epoch"] == 3:
            raise KeyboardInterrupt

    path = tmp_path / "phase.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(cut, data, PHASE, name="t", seed=0, save_to=path, progress=stop)
    again = start()
    train(again, data, PHASE, name="t", seed=0, save_to=path)
    for name, weight in whole.named_parameters():
        assert torch.equal(again.get_parameter(name), weight)


def test_what_breaks_the_theory_is_refused_by_name():
    for wrong, word in [
        ({"alpha": 0.0}, "alpha"),
        ({"contrastive_weight": 1.0}, "contrastive_weight=0"),
        ({"mixup": 0.4}, "mixup=0"),
        ({"precision": "bf16"}, "precision='fp32'"),
        ({"optimizer": AdamW(weight_decay=1e-2)}, "weight_decay=0"),
    ]:
        with pytest.raises(InputError, match=word):
            replace(PHASE, **wrong)
    with pytest.raises(InputError, match="BatchNorm1d"):
        train(MLP(6, 3, widths=(8,)), rows(), PHASE, name="t", seed=0)
    with pytest.raises(InputError, match="Dropout"):
        centring.centre(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)), 1.0)
    centring.centre(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0)), 1.0)


def test_cross_entropy_of_centred_outputs_is_divided_by_alpha_squared():
    network, data = start(dtype=torch.float64), rows(torch.float64)
    x, y = data.train
    network(x)
    by_hand = torch.autograd.grad(
        F.cross_entropy(4.0 * (network(x) - network(x).detach()), y) / 16, [*network.parameters()]
    )
    before = copy.deepcopy(network)
    phase = replace(PHASE, alpha=4.0, steps=1, batch_size=48)
    train(network, data, phase, name="t", seed=0)
    for (_, p), (_, q), g in zip(
        before.named_parameters(), network.named_parameters(), by_hand, strict=True
    ):
        torch.testing.assert_close(p - q, phase.optimizer.lr * g)
