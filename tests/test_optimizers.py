import pytest
import torch
from torch import nn

from reference import steps
from secateurs import optimizers
from secateurs.errors import InputError
from secateurs.optimizers import SGD, AdamW, BetaLasso


def problem(seed=0):
    """Return a float64 network with an encoder weight, and gradients for six steps."""
    torch_generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2)).double()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=torch_generator, dtype=torch.float64))
    gradients = [
        {
            name: torch.randn(p.shape, generator=torch_generator, dtype=torch.float64)
            for name, p in network.named_parameters()
        }
        for _ in range(6)
    ]
    return network, gradients


def run(network, config, gradients, encoder_weights=("0.weight",)):
    """Take the steps; return the weights after each."""
    optimizer = optimizers.build(config, network, encoder_weights=encoder_weights)
    path = []
    for gradient in gradients:
        for name, p in network.named_parameters():
            p.grad = gradient[name].clone()
        optimizer.step()
        path.append({name: p.detach().clone() for name, p in network.named_parameters()})
    return path


def assert_same_path(path, twin_path):
    for ours, theirs in zip(path, twin_path, strict=True):
        for name, weight in ours.items():
            torch.testing.assert_close(weight, theirs[name], rtol=1e-12, atol=1e-12)


def current(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}


@pytest.mark.parametrize("encoder_lr", [None, 0.4])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_sgd_takes_the_written_out_nesterov_steps(encoder_lr, weight_decay):
    network, gradients = problem()
    weights, buffers, twin_path = current(network), {}, []
    lr = dict.fromkeys(weights, 0.05)
    if encoder_lr is not None:
        lr["0.weight"] = encoder_lr
    for gradient in gradients:
        steps.nesterov(weights, gradient, buffers, lr=lr, momentum=0.9, weight_decay=weight_decay)
        twin_path.append(dict(weights))
    config = SGD(lr=0.05, encoder_lr=encoder_lr, weight_decay=weight_decay)
    assert_same_path(run(network, config, gradients), twin_path)


def test_adamw_takes_the_written_out_steps():
    network, gradients = problem()
    weights, state, twin_path = current(network), {}, []
    for gradient in gradients:
        steps.adamw(weights, gradient, state, lr=0.01, weight_decay=0.1)
        twin_path.append(dict(weights))
    assert_same_path(run(network, AdamW(lr=0.01, weight_decay=0.1), gradients), twin_path)


@pytest.mark.parametrize("lr", [0.5, 0.01])
def test_beta_lasso_takes_the_written_out_steps(lr):
    network, gradients = problem()
    weights, twin_path = current(network), []
    for gradient in gradients:
        steps.beta_lasso(weights, gradient, lr=lr, l1=0.02, beta=20, lasso={"0.weight"})
        twin_path.append(dict(weights))
    path = run(network, BetaLasso(lr=lr, l1=0.02, beta=20), gradients)
    assert_same_path(path, twin_path)
    assert (path[-1]["0.weight"] == 0).any()
    assert (path[-1]["1.weight"] != 0).all()


@pytest.mark.parametrize("lr", [1.0, 1e-3, 1e-9])
def test_beta_lasso_cuts_at_beta_times_l1_whatever_the_learning_rate(lr):
    layer = nn.Linear(4, 1, bias=False).double()
    start = torch.tensor([[0.49, -0.49, 0.51, -3.0]], dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(start)
    nothing = [{"weight": torch.zeros(1, 4, dtype=torch.float64)}]
    config = BetaLasso(lr=lr, l1=0.005, beta=100)
    after = run(layer, config, nothing, ["weight"])[0]["weight"]
    assert after[0, :2].tolist() == [0, 0]
    torch.testing.assert_close(after[0, 2:], (start - lr * 0.005 * start.sign())[0, 2:])


def test_beta_lasso_without_l1_is_sgd_without_momentum():
    one, gradients = problem()
    other, _ = problem()
    lasso = run(one, BetaLasso(lr=0.1, l1=0.0), gradients)
    plain = run(other, SGD(lr=0.1, momentum=0.0), gradients)
    for ours, theirs in zip(lasso, plain, strict=True):
        assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())


def test_the_encoders_learning_rate_is_for_its_weights_only(make_network):
    network = make_network()
    names = ["encoder.0.weight", "encoder.3.weight"]
    groups = optimizers.build(
        SGD(lr=0.1, encoder_lr=1.6), network, encoder_weights=names
    ).param_groups
    assert [group["lr"] for group in groups] == [1.6, 0.1]
    parameters = dict(network.named_parameters())
    assert {id(p) for p in groups[0]["params"]} == {id(parameters[name]) for name in names}
    assert len(groups[1]["params"]) == len(parameters) - 2


@pytest.mark.parametrize("config", [SGD(), AdamW(), BetaLasso()], ids=lambda c: type(c).__name__)
def test_frozen_parameters_are_left_out(make_network, config):
    network = make_network()
    network.decoder.requires_grad_(requires_grad=False)
    built = optimizers.build(config, network, encoder_weights=["encoder.0.weight"])
    optimised = {id(p) for group in built.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in network.encoder.parameters()}


@pytest.mark.parametrize("lr", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("config", [SGD, AdamW, BetaLasso], ids=lambda c: c.__name__)
def test_impossible_learning_rates_are_refused(config, lr):
    with pytest.raises(InputError, match="lr must be a positive number"):
        optimizers.build(config(lr=lr), nn.Linear(1, 1), encoder_weights=[])


def test_the_papers_cycles_end_after_15_45_and_105_epochs():
    assert optimizers.cycle_ends("restarts", 105) == (15, 45, 105)
    assert optimizers.cycle_ends("cosine", 105) == (105,)


@pytest.mark.parametrize("epochs", range(1, 30))
def test_cycles_cover_all_epochs(epochs):
    ends = optimizers.cycle_ends("restarts", epochs)
    assert list(ends) == sorted(set(ends))
    assert ends[0] >= 1
    assert ends[-1] == epochs


def test_restarts_equal_torchs_cosine_with_warm_restarts():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    oracle = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=15, T_mult=2)
    for epoch in range(105):
        expected = optimizer.param_groups[0]["lr"]
        assert optimizers.lr_factor("restarts", epoch, 105) == pytest.approx(expected, abs=1e-12)
        optimizer.step()
        oracle.step()


@pytest.mark.parametrize("epochs", [1, 2, 7, 20])
def test_cosine_falls_from_1_and_constant_stays(epochs):
    factors = [optimizers.lr_factor("cosine", epoch, epochs) for epoch in range(epochs)]
    assert factors[0] == 1
    assert factors == sorted(factors, reverse=True)
    assert all(factor > 0 for factor in factors)
    assert {optimizers.lr_factor("constant", epoch, epochs) for epoch in range(epochs)} == {1.0}
