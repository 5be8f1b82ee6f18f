import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from reference import criteria as slow
from secateurs import criteria, masks
from secateurs.errors import InputError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(n=100, *, width=5, classes=3, seed=0):
    x = torch.randn(n, width, generator=seeded(seed), dtype=torch.float64)
    return x, torch.randint(classes, (n,), generator=seeded(seed))


def tanh_network(seed=0, *, scale=1.0):
    """Return a float64 network of 5, 4, 4 and 3 units with biases."""
    sizes = ((5, 4), (4, 4), (4, 3))
    network = nn.Sequential()
    for n_in, n_out in sizes:
        network.append(nn.Linear(n_in, n_out, dtype=torch.float64)).append(nn.Tanh())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=seeded(seed)) * scale)
    return network[:-1]


def parts(network):
    layers = [module for module in network if isinstance(module, nn.Linear)]
    return [m.weight.detach() for m in layers], [m.bias.detach() for m in layers]


def densities(mask):
    return [float(kept.double().mean()) for kept in mask.values()]


@pytest.mark.parametrize("temperature", [1.0, 200.0])
@pytest.mark.parametrize("seed", range(3))
def test_grasp_equals_the_whole_hessian(seed, temperature):
    network, (x, y) = tanh_network(seed), rows(20)
    batches = [(x[:13], y[:13]), (x[13:], y[13:])]
    scores = criteria.grasp(network, batches, temperature=temperature)
    twins = slow.grasp(*parts(network), x, y, temperature)
    for score, twin in zip(scores.values(), twins, strict=True):
        torch.testing.assert_close(score, twin, rtol=1e-9, atol=0)
    absolute = criteria.grasp_abs(network, batches, temperature=temperature)
    assert all(torch.equal(absolute[name], score.abs()) for name, score in scores.items())


def test_grasp_without_curvature_scores_zero():
    scores = criteria.grasp(nn.Linear(5, 3).double(), [rows()], loss=lambda o, y: o.mean())
    assert (scores["weight"] == 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_sign_of_grasp_on_lenet(make_lenet, seed):
    """Removing the highest of -w * (H g) thins the first layer and keeps the last; the wrong sign,
    which published code has, does the opposite."""
    scores = criteria.grasp(
        make_lenet(seed),
        [(torch.randn(100, 784, generator=seeded(seed)), rows(classes=10, seed=seed)[1])],
    )
    right = densities(masks.keep_top(scores, 0.1))
    wrong = densities(masks.keep_top({name: -score for name, score in scores.items()}, 0.1))
    assert right == pytest.approx([0.059, 0.401, 0.813], rel=0.12)
    assert wrong == pytest.approx([0.088, 0.196, 0.110], rel=0.4)
    assert right[0] < right[1] < right[2]
    assert wrong[0] > right[0]
    assert wrong[2] < 0.2


def test_the_temperature_of_grasp_is_part_of_what_it_is(make_lenet):
    network = make_lenet(0)
    batch = (torch.randn(100, 784, generator=seeded()), rows(classes=10)[1])
    cold, hot = (criteria.grasp(network, [batch], temperature=t) for t in (1.0, 200.0))
    assert 0.6 < masks.iou(masks.keep_top(cold, 0.1), masks.keep_top(hot, 0.1)) < 0.85
    # float32 is enough at 200: no score underflows and float64 keeps the same weights
    double = criteria.grasp(network.double(), [(batch[0].double(), batch[1])])
    for name, score in hot.items():
        assert torch.equal(score == 0, double[name] == 0)
    agreement = masks.iou(masks.keep_top(hot, 0.1), masks.keep_top(double, 0.1))
    assert agreement > 0.999


@pytest.mark.parametrize("name", ["grasp", "grasp_abs"])
def test_grasp_refuses_what_can_be_read_once(name):
    with pytest.raises(InputError, match=r"reads its batches twice.*got generator"):
        criteria.CRITERIA[name](tanh_network(), (batch for batch in [rows()]))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_temperatures_are_refused(temperature):
    with pytest.raises(InputError, match="temperature must be a positive number"):
        criteria.grasp(tanh_network(), [rows()], temperature=temperature)


class OnceOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return 2 * g * ctx.saved_tensors[0]


class Once(nn.Module):
    def forward(self, x):
        return OnceOnly.apply(x)


class Custom(torch.autograd.Function):
    """Wrapped by another decorator, and differentiable as often as you like."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx, g):
        return 2 * g * ctx.saved_tensors[0]


class Square(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_custom_functions_with_a_second_derivative_are_welcome():
    network = nn.Sequential(nn.Linear(5, 4), Square(Custom.apply), nn.Linear(4, 3)).double()
    scores = criteria.grasp(network, [rows()])
    network[1] = Square(torch.square)
    for name, expected in criteria.grasp(network, [rows()]).items():
        torch.testing.assert_close(scores[name], expected)


class Attention(nn.Module):
    """Fused attention has no second derivative on the CPU."""

    def forward(self, x):
        x = x.view(len(x), 1, 2, 2)
        return F.scaled_dot_product_attention(x, x, x).flatten(1)


@pytest.mark.parametrize(
    ("module", "operation"),
    [
        (Once, "OnceOnly is marked to have none"),
        (Attention, r"aten::_scaled_dot_product\w+_backward has none"),
    ],
)
def test_grasp_names_an_operation_without_second_derivative(module, operation):
    network = nn.Sequential(nn.Linear(5, 4), module(), nn.Linear(4, 3)).double()
    with pytest.raises(InputError, match=f"second derivatives.* but {operation}"):
        criteria.grasp(network, [rows()])
    assert (criteria.snip(network, [rows()])["0.weight"] > 0).any()


def test_other_errors_of_a_second_derivative_are_not_disguised():
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            raise RuntimeError("out of paper")

    class Failing(nn.Module):
        def forward(self, x):
            return Wrong.apply(x)

    with pytest.raises(RuntimeError, match="out of paper"):
        criteria.grasp(nn.Sequential(nn.Linear(5, 3).double(), Failing()), [rows()])
