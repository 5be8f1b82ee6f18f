import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reference import kernel as slow
from secateurs import masks
from secateurs.errors import InputError
from secateurs.measures.kernel import kernel_distance, largest_eigenvalue, ntk
from secateurs.networks.dense import MLP
from secateurs.networks.lenet import LeNet300100
from secateurs.objectives import mse
from secateurs.regime.linearised import kernel_descent, linearise


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def started(network):
    network = network.double().eval()
    with torch.no_grad():
        for i, p in enumerate(network.parameters()):
            p.copy_(drawn(*p.shape, seed=i) / max(1, p[0].numel()) ** 0.5)
        for name, b in network.named_buffers():
            if b.is_floating_point():
                b.add_(0.4 if "var" in name else 0.2)
    return network


class Sine(torch.autograd.Function):
    """An operation of the old kind, without forward mode."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0].cos()


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def sampled(x):
    grid = torch.linspace(-0.7, 0.6, 8).double().view(1, 2, 2, 2).expand(len(x), 2, 2, 2)
    return F.grid_sample(x.view(-1, 1, 2, 2), grid, align_corners=False).flatten(1)


def attention(x):
    x = x.view(-1, 1, 3, 2)
    return F.scaled_dot_product_attention(x, x.sin(), x).flatten(1)


def tied():
    network = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    network[2].weight = network[0].weight
    return network


def convolution():
    layers = nn.Conv1d(1, 2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Flatten(), nn.Linear(6, 3)
    return nn.Sequential(nn.Unflatten(1, (1, 4)), *layers)


NETWORKS = {
    "lenet": lambda: LeNet300100(4, 3, widths=(6, 5)),
    "mlp": lambda: MLP(4, 3, widths=(5, 5), dropout=0.5, skip=True),
    "convolution": convolution,
    "tied": tied,
    "function": lambda: nn.Sequential(nn.Linear(4, 3), Apply(Sine.apply), nn.Linear(3, 2)),
    "sampled": lambda: nn.Sequential(nn.Linear(4, 4), Apply(sampled), nn.Linear(4, 2)),
    "attention": lambda: nn.Sequential(nn.Linear(4, 6), Apply(attention), nn.Linear(6, 2)),
}


def a_mask(network):
    generator = torch.Generator().manual_seed(3)
    named = network.named_parameters()
    return {n: torch.rand(p.shape, generator=generator) < 0.5 for n, p in named if p.ndim > 1}


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_the_jacobian_and_so_are_gradients(name, pruned):
    network, x = started(NETWORKS[name]()), drawn(5, 4)
    mask = a_mask(network) if pruned else None
    linear = linearise(network, mask=mask)
    assert [n for n, _ in linear.named_parameters()] == [n for n, _ in network.named_parameters()]
    with masks.applied(network, mask or {}):
        before = network(x).detach()
    torch.testing.assert_close(linear(x), before, rtol=1e-12, atol=1e-12)
    displacement = {n: drawn(*p.shape, seed=7) for n, p in network.named_parameters()}
    with torch.no_grad():
        for n, p in linear.named_parameters():
            p.copy_(displacement[n])
    jacobian = slow.jacobian(network, x, mask)
    flat = torch.cat([d.flatten() for d in displacement.values()])
    outputs, target = linear(x), drawn(*before.shape, seed=9)
    torch.testing.assert_close(outputs, before + jacobian @ flat, rtol=1e-10, atol=1e-10)
    (outputs * target).sum().backward()
    found = torch.cat([p.grad.flatten() for p in linear.parameters()])
    wanted = torch.einsum("nci,nc->i", jacobian, target)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(linear(x), outputs.detach())
        assert not linear(x).requires_grad
    assert linear._forward_mode == (name not in {"function", "sampled"})


@pytest.mark.parametrize("name", ["lenet", "mlp", "convolution", "tied"])
def test_both_ways_agree(name):
    linear, x = linearise(started(NETWORKS[name]())), drawn(5, 4)
    with torch.no_grad():
        for p in linear.parameters():
            p.copy_(drawn(*p.shape, seed=7))
    forward = linear(x)
    assert linear._forward_mode
    linear._forward_mode = False
    torch.testing.assert_close(linear(x), forward, rtol=1e-12, atol=1e-12)


def test_an_operation_with_no_second_derivatives_is_an_error_that_names_it():
    network = nn.Sequential(nn.Linear(4, 3), Apply(lambda x: torch.cdist(x[None], x[None] + 1)))
    with pytest.raises(NotImplementedError, match="cdist"):
        linearise(network)(torch.ones(2, 4))


def test_an_error_of_the_inputs_is_not_taken_for_a_missing_forward_mode():
    linear = linearise(started(LeNet300100(4, 3)))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        linear(drawn(2, 5))
    assert linear._forward_mode


@pytest.mark.parametrize("name", NETWORKS)
def test_the_state_loads_into_the_network(name):
    network = started(NETWORKS[name]())
    mask = a_mask(network)
    linear = linearise(network, mask=mask)
    with torch.no_grad():
        for p in linear.parameters():
            p.fill_(0.25)
    before, state = copy.deepcopy(network.state_dict()), linear.state()
    assert set(state) == set(before)
    network.load_state_dict(state)
    masks.check_held(network, mask)
    for n, p in network.named_parameters():
        moved = before[n] + 0.25
        assert torch.equal(p, moved * mask[n] if n in mask else moved)
    for n, b in network.named_buffers():
        assert torch.equal(b, before[n])


def test_at_is_where_it_is_linear_and_later_changes_of_the_network_do_not_matter():
    network, x = started(LeNet300100(4, 3)), drawn(5, 4)
    start = copy.deepcopy(network.state_dict())
    wanted = network(x)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(1)
    linear, here = linearise(network, at=start), linearise(network)
    assert torch.equal(linear(x), wanted)
    network.load_state_dict(start)
    assert not torch.allclose(here(x), wanted)


def test_copies_moves_and_files_keep_it():
    network, x = started(LeNet300100(4, 3)), drawn(5, 4)
    linear = linearise(network, mask=a_mask(network))
    with torch.no_grad():
        for p in linear.parameters():
            p.fill_(0.01)
    wanted = linear(x)
    assert torch.equal(copy.deepcopy(linear)(x), wanted)
    other = linearise(
        started(LeNet300100(4, 3)), mask={n: m | True for n, m in a_mask(network).items()}
    )
    other.load_state_dict(linear.state_dict())
    assert torch.equal(other(x), wanted)
    torch.testing.assert_close(linear.float()(x.float()), wanted.float(), rtol=1e-4, atol=1e-4)


def test_the_training_flag_does_not_reach_the_network_inside():
    network, x = started(MLP(4, 3, widths=(5,), dropout=0.5)), drawn(5, 4)
    linear = linearise(network)
    network.train()
    before = copy.deepcopy(network.state_dict())
    assert torch.equal(linear.train()(x), linear.eval()(x))
    assert all(torch.equal(v, before[n]) for n, v in network.state_dict().items())


def test_displacements_far_below_the_weights_are_not_lost_in_float32():
    network, x = nn.Linear(3, 1), torch.ones(2, 3)
    nn.init.ones_(network.weight)
    linear = linearise(network)
    optimizer = torch.optim.SGD(linear.parameters(), lr=1e-9)
    for _ in range(4):
        optimizer.zero_grad()
        linear(x).sum().backward()
        optimizer.step()
    moved = linear.displacement()["weight"]
    torch.testing.assert_close(moved, torch.full_like(moved, -8e-9))
    assert torch.equal(linear.state()["weight"], network.weight)  # where w itself cannot move


def test_any_optimizer_trains_it_and_masks_hold():
    network, x, y = started(LeNet300100(4, 2, widths=(30, 20))), drawn(8, 4), drawn(8, 2, seed=1)
    mask = a_mask(network)
    linear = linearise(network, mask=mask)
    optimizer = torch.optim.Adam(linear.parameters(), lr=5e-2)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = mse(linear(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 10
    masks.check_held(linear, mask)
    masks.check(linear, mask)


def test_what_cannot_be_linear_is_refused_in_one_line():
    class Count(nn.Module):
        def __init__(self):
            super().__init__()
            self.n = nn.Parameter(torch.tensor(2), requires_grad=False)

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.state = nn.Linear(2, 1)

    network = nn.Linear(2, 1)
    norm = nn.BatchNorm1d(2, track_running_stats=False).eval()
    for call, words in (
        (lambda: linearise(MLP(2, 1, widths=(3,))), r"BatchNorm1d \(encoder.1\).*call \.eval\(\)"),
        (lambda: linearise(nn.Dropout(0.5)), r"Dropout \(the network itself\).*call \.eval\(\)"),
        (lambda: linearise(norm), "without running statistics"),
        (lambda: linearise(Count()), r"floating-point parameters, got n \(torch.int64\)"),
        (lambda: linearise(Named()), "other names than its own, got state.weight"),
        (lambda: linearise(network, at={}), "the network's state none|at none"),
        (lambda: linearise(network, mask={"w": torch.ones(1) > 0}), "a mask must fit"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


# --- kernel descent


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("name", ["lenet", "mlp", "convolution"])
def test_kernel_descent_is_full_batch_descent_of_the_linearised_network(name, pruned):
    network = started(NETWORKS[name]())
    mask = a_mask(network) if pruned else None
    x, x_test, linear = drawn(6, 4), drawn(3, 4, seed=1), linearise(network, mask=mask)
    f0, f0_test = linear(x).detach(), linear(x_test).detach()
    y = drawn(*f0.shape, seed=2)
    kernel = ntk(network, x, mask=mask, outputs="full")
    kernel_test = ntk(network, x_test, x, mask=mask, outputs="full")
    lr = 1.5 * len(x) / largest_eigenvalue(kernel)
    found = kernel_descent(
        kernel, f0, y, lr=lr, steps=range(41), kernel_test=kernel_test, f0_test=f0_test
    )
    # objectives.mse is the mean over outputs too, and has no 1/2
    optimizer = torch.optim.SGD(linear.parameters(), lr=lr * y.shape[1] / 2)
    for step in range(41):
        outputs = linear(x)
        close = {"rtol": 1e-10, "atol": 1e-10}
        torch.testing.assert_close(found.outputs[step], outputs.detach(), **close)
        torch.testing.assert_close(found.outputs_test[step], linear(x_test).detach(), **close)
        optimizer.zero_grad()
        mse(outputs, y).backward()
        optimizer.step()


def test_it_equals_step_after_step_and_converges_on_the_targets():
    factor, f0, y = drawn(8, 30), drawn(4, 2), drawn(4, 2, seed=1)
    kernel = (factor @ factor.T).view(4, 2, 4, 2)
    lr = 4 / largest_eigenvalue(kernel)
    for steps in (0, 1, 7, 300):
        found = kernel_descent(kernel, f0, y, lr=lr, steps=steps).outputs
        torch.testing.assert_close(found, slow.descent(kernel, f0, y, lr, steps))
    torch.testing.assert_close(kernel_descent(kernel, f0, y, lr=lr, steps=10**6).outputs, y)


def test_directions_without_kernel_stay_and_the_stable_rate_is_2n_over_the_eigenvalue():
    kernel, f0 = torch.tensor([[2.0, 0.0], [0.0, 0.0]]).double(), torch.zeros(2).double()
    y, stable = torch.ones(2).double(), 2 * 2 / 2.0
    found = kernel_descent(
        kernel, f0, y, lr=0.99 * stable, steps=5000, kernel_test=kernel, f0_test=f0
    )
    torch.testing.assert_close(found.outputs, torch.tensor([1.0, 0.0]).double())
    torch.testing.assert_close(found.outputs_test, found.outputs)
    grown = kernel_descent(kernel, f0, y, lr=1.01 * stable, steps=5000).outputs
    assert grown[0].abs() > 1e10


def test_one_kernel_for_all_outputs_is_its_block_diagonal():
    factor, f0, y = drawn(5, 9), drawn(5, 2), drawn(5, 2, seed=1)
    kernel = factor @ factor.T
    full = torch.einsum("nm,cd->ncmd", kernel, torch.eye(2).double())
    one, two = (kernel_descent(k, f0, y, lr=0.1, steps=20).outputs for k in (kernel, full))
    torch.testing.assert_close(one, two)
    alone = kernel_descent(kernel, f0[:, 0], y[:, 0], lr=0.1, steps=20).outputs
    torch.testing.assert_close(alone, one[:, 0])


def test_it_is_the_limit_of_centred_networks_as_alpha_grows():
    x, y = drawn(8, 4), drawn(8, 1, seed=1)
    start = started(nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 1)))
    kernel = ntk(start, x, outputs="full")
    lr, steps = 8 / largest_eigenvalue(kernel), 40
    lazy = kernel_descent(kernel, torch.zeros_like(y), y, lr=lr, steps=steps).outputs
    f0, apart, moved = start(x).detach(), [], []
    for alpha in (1e2, 1e3, 1e4):
        network = copy.deepcopy(start)
        optimizer = torch.optim.SGD(network.parameters(), lr=lr)
        for _ in range(steps):
            optimizer.zero_grad()
            ((alpha * (network(x) - f0) - y).square().sum() / (2 * len(x)) / alpha**2).backward()
            optimizer.step()
        outputs = alpha * (network(x).detach() - f0)
        apart.append(float((outputs - lazy).norm() / lazy.norm()))
        moved.append(kernel_distance(kernel, ntk(network, x, outputs="full")))
    assert apart[2] < 1e-3
    assert apart[0] / apart[1] == pytest.approx(10, rel=0.1)  # of order 1 / alpha
    assert apart[1] / apart[2] == pytest.approx(10, rel=0.1)
    assert moved[0] / moved[1] == pytest.approx(100, rel=0.2)  # a cosine: of order 1 / alpha^2


def test_shapes_that_do_not_fit_are_refused():
    eye, f0 = torch.eye(3), torch.zeros(3, 2)
    for options, words in (
        ({"y": torch.zeros(3)}, "must both be"),
        ({"kernel": torch.eye(4)}, r"kernel must be \(3, 3\) or \(3, 2, 3, 2\)"),
        ({"kernel_test": eye}, "belong together"),
        ({"kernel_test": torch.eye(4), "f0_test": f0}, "kernel_test must be"),
        ({"steps": -1}, "at least 0"),
        ({"steps": []}, "at least 0"),
    ):
        given = {"kernel": eye, "f0": f0, "y": f0, "lr": 1.0, "steps": 1} | options
        with pytest.raises(InputError, match=words):
            kernel_descent(**given)
