import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from reference import kernel as slow
from secateurs.errors import InputError
from secateurs.measures import kernel
from secateurs.networks.dense import MLP
from secateurs.networks.lenet import LeNet300100


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def started(network, seed=0):
    """Give every parameter and statistic a value of its own, in float64, evaluating."""
    network = network.double().eval()
    with torch.no_grad():
        for i, p in enumerate(network.parameters()):
            p.copy_(drawn(*p.shape, seed=100 * seed + i) / max(1, p[0].numel()) ** 0.5)
        for i, (name, b) in enumerate(network.named_buffers()):
            if b.is_floating_point():
                b.copy_(drawn(*b.shape, seed=50 + i).abs() + 0.5 if "var" in name else b + 0.3)
    return network


class Tied(nn.Module):
    """Uses the weight of a layer that runs once for a second purpose, behind the layer's back."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x).tanh() @ self.layer.weight


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(self.layer(x).tanh())


class Scaled(nn.Module):
    """Has a parameter of its own, beside its layers."""

    def __init__(self):
        super().__init__()
        self.layer, self.scale = nn.Linear(4, 2), nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.layer(x) * self.scale


def closed():
    """Name networks of the closed form."""
    in_place = nn.Sequential(
        nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 3, bias=False), nn.Softmax(1)
    )
    return {
        "lenet": LeNet300100(4, 3, widths=(6, 5)),
        "mlp": MLP(4, 3, widths=(5, 5), dropout=0.5),
        "skip": MLP(4, 2, widths=(5, 5, 5), skip=True),
        "in place": in_place,
        "alone": nn.Linear(4, 2),
    }


def others():
    """Name networks that need the Jacobian, and the shape of their inputs."""
    convolution = nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    return {
        "convolution": (convolution, (1, 6, 6)),
        "tied": (Tied(), (4,)),
        "twice": (Twice(), (4,)),
        "scaled": (Scaled(), (4,)),
        "tokens": (
            nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6, 2)),
            (2, 4),
        ),
    }


def all_networks():
    networks = {name: (network, (4,)) for name, network in closed().items()} | others()
    return [pytest.param(*one, id=name) for name, one in networks.items()]


def a_mask(network, density, seed=0):
    return {
        name: torch.rand(p.shape, generator=seeded(seed + i)) < density
        for i, (name, p) in enumerate(network.named_parameters())
        if p.ndim > 1
    }


@pytest.mark.parametrize("density", [None, 1.0, 0.7, 0.2])
@pytest.mark.parametrize(("network", "shape"), all_networks())
def test_the_kernel_is_the_product_of_whole_jacobians(network, shape, density):
    network = started(network)
    x, other = drawn(5, *shape), drawn(3, *shape, seed=1)
    mask = None if density is None else a_mask(network, density)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    one, two = slow.jacobian(network, x, mask), slow.jacobian(network, other, mask)
    for chunk in (None, 2):
        whole = {"mask": mask, "chunk": chunk}
        found = kernel.ntk(network, x, **whole)
        torch.testing.assert_close(found, slow.trace(one, one), rtol=1e-10, atol=1e-10)
        found = kernel.ntk(network, x, other, **whole)
        torch.testing.assert_close(found, slow.trace(one, two), rtol=1e-10, atol=1e-10)
        found = kernel.ntk(network, x, outputs="full", **whole)
        torch.testing.assert_close(found, slow.full(one, one), rtol=1e-10, atol=1e-10)
        found = kernel.ntk(network, x, other, outputs="full", **whole)
        torch.testing.assert_close(found, slow.full(one, two), rtol=1e-10, atol=1e-10)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_only_networks_of_the_closed_form_take_it(monkeypatch):
    def refused(*_, **__):
        raise AssertionError("by Jacobian")

    monkeypatch.setattr(kernel._Source, "by_jacobian", refused)
    for network in closed().values():
        kernel.ntk(started(network), drawn(3, 4))
    for network, shape in others().values():
        with pytest.raises(AssertionError, match="by Jacobian"):
            kernel.ntk(started(network), drawn(3, *shape))


def test_masks_of_biases_and_norms_count_too():
    network = started(MLP(4, 3, widths=(5, 5)))
    x, parameters = drawn(4, 4), network.named_parameters()
    mask = {
        n: torch.rand(p.shape, generator=seeded(i)) < 0.5 for i, (n, p) in enumerate(parameters)
    }
    one = slow.jacobian(network, x, mask)
    torch.testing.assert_close(kernel.ntk(network, x, mask=mask), slow.trace(one, one))


@pytest.mark.parametrize("make", [lambda: LeNet300100(4, 3, widths=(6, 5)), Scaled])
def test_frozen_parameters_have_no_part(make):
    network = started(make())
    next(network.parameters()).requires_grad_(requires_grad=False)
    one = slow.jacobian(network, drawn(4, 4))
    torch.testing.assert_close(kernel.ntk(network, drawn(4, 4)), slow.trace(one, one))


def test_a_layer_that_does_not_run_and_outputs_without_axis():
    network = started(LeNet300100(4, 1, widths=(6, 5)))
    network.unused = nn.Linear(2, 2).double()
    one = slow.jacobian(network, drawn(4, 4))
    torch.testing.assert_close(kernel.ntk(network, drawn(4, 4)), slow.trace(one, one))
    flat = nn.Sequential(network, nn.Flatten(0))
    torch.testing.assert_close(kernel.ntk(flat, drawn(4, 4)), slow.trace(one, one))


def test_it_works_without_gradients_and_for_the_widths_of_mnist():
    network = LeNet300100(784, 10).eval()
    x = torch.randn(20, 784, generator=seeded(0))
    with torch.no_grad():
        found = kernel.ntk(network, x)
    assert not found.requires_grad
    assert found.dtype == torch.float32
    # float32 by another way: the Jacobian of 20 inputs
    source = kernel._Source(network, None, "trace")
    parts = source.by_jacobian(x, x, 10, None, same=True)
    total = sum(part for _, _, part in parts) / 10
    torch.testing.assert_close(found, total, rtol=1e-4, atol=1e-4 * float(total.max()))


def test_the_kernel_of_a_masked_out_network_is_that_of_its_last_bias():
    network = started(LeNet300100(4, 3, widths=(6, 5)))
    mask = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in network.named_parameters()}
    found = kernel.ntk(network, drawn(4, 4), mask={n: m for n, m in mask.items() if m.ndim == 2})
    torch.testing.assert_close(found, torch.ones(4, 4, dtype=torch.float64))
    assert math.isnan(kernel.kernel_distance(kernel.ntk(network, drawn(4, 4), mask=mask), found))


def test_what_cannot_be_is_refused_in_one_line():
    network, x = LeNet300100(4, 3), torch.ones(2, 4)
    for call, words in (
        (lambda: kernel.ntk(MLP(4, 3, widths=(5,)), x), r"BatchNorm1d \(encoder.1\).*\.eval\(\)"),
        (lambda: kernel.ntk(network, x, outputs="mean"), "one of trace, full, got 'mean'"),
        (lambda: kernel.ntk(network, x, chunk=0), "chunk must be at least 1"),
        (lambda: kernel.ntk(network, x[:0]), "at least one row"),
        (lambda: kernel.ntk(network, x, torch.ones(2, 5)), "of one shape"),
        (lambda: kernel.ntk(network, x, mask={"w": x > 0}), "a mask must fit"),
        (lambda: kernel.ntk(LeNet300100(4, 3).requires_grad_(requires_grad=False), x), "got none"),
        (lambda: kernel.ntk(nn.Sequential(network, nn.Flatten(0)), x), "a row for each input"),
        (lambda: kernel.kernel_distance(torch.eye(2), torch.eye(3)), "of the same inputs"),
        (lambda: kernel.kernel_velocity(torch.eye(2), torch.eye(2), 0), "dt must be above 0"),
        (lambda: kernel.kernel_target_alignment(torch.eye(2), torch.ones(2)), "got one value"),
        (
            lambda: kernel.kernel_target_alignment(torch.eye(2), torch.ones(3)),
            r"K must be \[n, n\]",
        ),
        (lambda: kernel.largest_eigenvalue(torch.ones(2, 3)), "eigenvalues need"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


seeds = st.integers(0, 10**6)


def gram(seed, n=6, rank=3):
    factor = drawn(n, rank, seed=seed)
    return factor @ factor.T


@given(seeds, seeds, st.floats(1e-3, 1e3))
def test_distances_are_in_0_1_symmetric_and_know_no_scale(a, b, scale):
    one, two = gram(a), gram(b)
    found = kernel.kernel_distance(one, two)
    assert 0 <= found <= 1 + 1e-12
    assert kernel.kernel_distance(two, one) == pytest.approx(found, abs=1e-12)
    assert kernel.kernel_distance(one, scale * two) == pytest.approx(found, abs=1e-12)
    cosine = torch.nn.functional.cosine_similarity(one.flatten(), two.flatten(), 0)
    assert found == pytest.approx(1 - float(cosine), abs=1e-12)
    assert kernel.kernel_distance(one, scale * one) == pytest.approx(0, abs=1e-12)
    assert kernel.kernel_velocity(one, two, 0.25) == pytest.approx(4 * found)
    assert kernel.kernel_change(one, scale * one) == pytest.approx(abs(scale - 1), abs=1e-9)


def test_small_distances_keep_their_digits():
    one, other = torch.tensor([1.0, 0.0]).double(), torch.tensor([1.0, 1e-7]).double()
    assert kernel.kernel_distance(one[None], other[None]) == pytest.approx(5e-15, rel=1e-6)


@given(seeds, st.integers(2, 4))
def test_alignment_is_the_cosine_of_centred_kernels(seed, n_classes):
    y = torch.cat([torch.arange(2), torch.randint(n_classes, (5,), generator=seeded(seed))])
    matrix, one_hot = gram(seed, 7), (y[:, None] == torch.arange(n_classes)).double()
    found = kernel.kernel_target_alignment(matrix, y)
    assert found == pytest.approx(slow.alignment(matrix, one_hot))
    assert 0 <= found <= 1 + 1e-12
    # labels are names, kernels have no scale, and a constant is centred away
    assert kernel.kernel_target_alignment(3 * matrix + 5, 10 - y) == pytest.approx(found)
    assert kernel.kernel_target_alignment(one_hot @ one_hot.T, y) == pytest.approx(1)


@given(seeds)
def test_alignment_of_a_target_with_itself_is_1(seed):
    y, matrix = drawn(7, seed=seed), gram(seed + 1, 7)
    assert kernel.kernel_target_alignment(y[:, None] * y, y) == pytest.approx(1)
    assert kernel.kernel_target_alignment(matrix, y) == pytest.approx(
        slow.alignment(matrix, y[:, None])
    )
    two = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    signs = 2.0 * two - 1
    by_class = kernel.kernel_target_alignment(matrix, two)
    assert kernel.kernel_target_alignment(matrix, signs) == pytest.approx(by_class)
    assert kernel.kernel_target_alignment(matrix, two > 0) == pytest.approx(by_class)
    # rows and columns are both centred: any function of one input alone is no alignment
    crossed = matrix + y[:, None] + y
    assert kernel.kernel_target_alignment(crossed, signs) == pytest.approx(by_class)


def test_deviation_and_eigenvalues_by_hand():
    assert kernel.deviation(torch.zeros(3), torch.zeros(3)) == 0
    assert kernel.deviation(torch.zeros(3), torch.ones(3)) == math.inf
    assert kernel.deviation(torch.ones(4), torch.zeros(4)) == 1
    matrix = gram(0)
    assert kernel.largest_eigenvalue(matrix) == pytest.approx(float(torch.linalg.norm(matrix, 2)))
    assert kernel.largest_eigenvalue(torch.eye(6).view(2, 3, 2, 3)) == pytest.approx(1)
