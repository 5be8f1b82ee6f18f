import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reference import programs
from secateurs.errors import InputError
from secateurs.runtime.program import check
from secateurs.runtime.reading import read


class _Forward(nn.Module):
    """A network that is one function, with a weight that it may use."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))

    def forward(self, x):
        return self.function(x, self.weight)


def _agree(network, shape):
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    program = read(network, example=x)
    check(program)
    with torch.no_grad():
        wanted = network.double()(x.double()).numpy()
    np.testing.assert_allclose(programs.evaluate(program, x.numpy()), wanted, atol=1e-5)
    return program


_VECTOR = {
    "relu": lambda x, w: x.relu(),
    "torch.relu": lambda x, w: torch.relu(x),
    "in place": lambda x, w: F.relu(x + 0.5, inplace=True),
    "relu_": lambda x, w: (x + 0.5).relu_(),
    "clamp": lambda x, w: x.clamp(min=0),
    "clamp_min": lambda x, w: x.clamp_min(0),
    "gelu": lambda x, w: F.gelu(x),
    "gelu_tanh": lambda x, w: F.gelu(x, approximate="tanh"),
    "sigmoid": lambda x, w: x.sigmoid(),
    "tanh": lambda x, w: torch.tanh(x),
    "softmax": lambda x, w: F.softmax(x, dim=-1),
    "softmax of a method": lambda x, w: x.softmax(1),
    "matmul": lambda x, w: x @ w,
    "torch.mm": torch.mm,
    "addmm": lambda x, w: torch.addmm(w[0], x, w, beta=2, alpha=3),
    "linear of a computed weight": lambda x, w: F.linear(x, w.abs() / w.sum(), w[1]),
    "add": lambda x, w: x + x.relu(),
    "add with alpha": lambda x, w: torch.add(x, x.relu(), alpha=3),
    "add a number": lambda x, w: 1.5 + x,
    "add by features": lambda x, w: x + w[2],
    "iadd": lambda x, w: _in_place(x.tanh()),
    "sum": lambda x, w: sum([x, x.relu(), x.tanh()]),
    "sub": lambda x, w: x - x.relu(),
    "sub with alpha": lambda x, w: torch.sub(x, x.relu(), alpha=2),
    "rsub": lambda x, w: 3 - x,
    "rsub by features": lambda x, w: w[0] - x,
    "torch.rsub": lambda x, w: torch.rsub(x, w[0], alpha=2),
    "mul": lambda x, w: x * 3,
    "rmul": lambda x, w: w[1] * x,
    "div": lambda x, w: (x / 255 - w[0]) / w[1].abs(),
    "neg": lambda x, w: -x,
    "cat": lambda x, w: torch.cat([x, x.relu()], dim=1),
    "cat of one": lambda x, w: torch.cat([x.relu()], dim=-1),
    "view": lambda x, w: x.relu().view(x.size(0), -1),
    "data": lambda x, w: x.relu().data.float().contiguous().detach(),
    "dropout": lambda x, w: F.dropout(x, 0.5, training=False) * 2,
    "flatten": lambda x, w: x.flatten(1).tanh(),
    "shapes": lambda x, w: x.relu() if x.shape[1] == 4 and x.ndim == 2 and len(x) else x,
    "constants": lambda x, w: x * (torch.arange(4).float() + torch.ones_like(w[0])),
    "nothing": lambda x, w: x,
}
_IMAGE = {
    "flatten": lambda x, w: x.flatten(1),
    "view": lambda x, w: x.view(x.shape[0], -1),
    "reshape": lambda x, w: x.reshape(len(x), 4 * 6 * 6),
    "mean": lambda x, w: x.mean((2, 3)),
    "mean with axes kept": lambda x, w: x.mean(dim=[-1, -2], keepdim=True),
    "squeeze": lambda x, w: (
        F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1)
        if x.ndim < 4
        else F.adaptive_avg_pool2d(x, 1).squeeze()
    ),
    "by channels": lambda x, w: x * w[0].view(-1, 1, 1) + w[1].reshape(1, 4, 1, 1),
    "softmax": lambda x, w: x.softmax(1),
    "softmax from behind": lambda x, w: x.softmax(-3),
    "cat": lambda x, w: torch.cat([x, x.relu()], 1),
    "conv2d": lambda x, w: F.conv2d(x, w.view(4, 4, 1, 1), w[0], stride=2),
    "conv2d same": lambda x, w: F.conv2d(x, w.view(1, 4, 2, 2), padding="same"),
    "max_pool2d": lambda x, w: F.max_pool2d(x, (3, 2), stride=2, padding=(1, 0)),
    "avg_pool2d": lambda x, w: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "adaptive_max_pool2d": lambda x, w: F.adaptive_max_pool2d(x, (2, 3)),
    "channels last": lambda x, w: x.contiguous(memory_format=torch.channels_last).flatten(1),
    "ceil_mode without effect": lambda x, w: F.max_pool2d(x, 2, ceil_mode=True),
}


def _in_place(x):
    x += 1
    x *= 2
    x -= 0.5
    x /= 3
    return x


@pytest.mark.filterwarnings("ignore:Using padding='same' with even")
@pytest.mark.parametrize("name", _VECTOR)
def test_functions_of_features(name):
    _agree(_Forward(_VECTOR[name]), (4,))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even")
@pytest.mark.parametrize("name", _IMAGE)
def test_functions_of_images(name):
    _agree(_Forward(_IMAGE[name]), (4, 6, 6))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even")
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stride": 2, "padding": 1},
        {"stride": (1, 3), "padding": (0, 2)},
        {"dilation": 2, "padding": 2},
        {"dilation": (1, 2), "padding": "same"},
        {"padding": "valid", "bias": False},
        {"padding": "same"},
    ],
)
@pytest.mark.parametrize("kernel", [1, 3, (2, 3), (4, 1)])
def test_convolutions(kernel, fields, groups):
    torch.manual_seed(0)
    network = nn.Conv2d(4, 8, kernel, groups=groups, **fields)
    (op,) = _agree(network, (4, 9, 8)).ops
    assert np.count_nonzero(op.weight) == network.weight.numel()


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(4,), (4, 3, 2)])
def test_batch_norm(shape, affine):
    torch.manual_seed(0)
    network = (nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d)(4, affine=affine)
    network.running_mean.normal_()
    network.running_var.uniform_(0.1, 2)
    for weight in network.parameters():
        nn.init.normal_(weight)
    network.eval()
    _agree(network, shape)


_NOT = {
    "silu": (lambda x, w: F.silu(x), "silu: no operation"),
    "item": (lambda x, w: x * x.max().item(), "max: no operation"),
    "if": (lambda x, w: x if x.sum() > 0 else -x, "sum: no operation"),
    "bool": (lambda x, w: x if x.reshape(-1)[0] else -x, "reshape"),
    "reciprocal": (lambda x, w: 1 / x, "quotient"),
    "product": (lambda x, w: x * x, "a product of two values"),
    "quotient": (lambda x, w: x / x, "quotient"),
    "softmax of rows": (lambda x, w: x.softmax(0), "softmax over axis 0"),
    "softmax of no axis": (lambda x, w: x.softmax(dim=0), "softmax over axis 0"),
    "cat of rows": (lambda x, w: torch.cat([x, x], 0)[:5], "row"),
    "cat with weights": (lambda x, w: torch.cat([x, w[:3]], 1), "mixes"),
    "integers": (lambda x, w: x.to(torch.int32), "torch.int32"),
    "transpose": (lambda x, w: x.T, "T: no operation"),
    "index": (lambda x, w: x[:, 0], "__getitem__"),
    "expand": (lambda x, w: x + torch.ones(2, 3, 4), "row"),
    "by rows": (lambda x, w: x + torch.arange(3.0)[:, None], "each pixel or row"),
    "hyper": (lambda x, w: F.linear(x, x), "weights depend"),
    "training dropout": (lambda x, w: F.dropout(x), "draws random numbers"),
    "random numbers": (lambda x, w: x + torch.rand(4), "draws random numbers"),
    "noise": (lambda x, w: x + torch.randn_like(x), "randn_like"),
    "clamp": (lambda x, w: x.clamp(-1, 1), "bounds"),
    "unflatten": (lambda x, w: x.view(-1, 2, 2), "makes"),
    "batch statistics": (
        lambda x, w: F.batch_norm(x, None, None, training=True),
        "by the rows of the batch",
    ),
    "a stale view": (lambda x, w: _stale(x.tanh()), "in place, through another view"),
}
_NOT_IMAGES = {
    "linear": (F.linear, "rows, features"),
    "mean": (lambda x, w: x.mean((1, 2, 3)), "mean"),
    "pad": (lambda x, w: F.pad(x, (1, 0)), "pad"),
    "adaptive": (lambda x, w: F.adaptive_avg_pool2d(x, 3), "multiples"),
    "ceil": (lambda x, w: F.max_pool2d(x, 3, ceil_mode=True), "ceil_mode"),
    "divisor": (lambda x, w: F.avg_pool2d(x, 2, divisor_override=3), "divisor"),
    "dilation": (lambda x, w: F.max_pool2d(x, 2, dilation=2), "dilation"),
    "indices": (
        lambda x, w: F.max_pool2d(x, 2, return_indices=True),
        "with_indices: no op",
    ),
    "by pixels": (lambda x, w: x * torch.arange(4.0), "pixel"),
    "half flat": (lambda x, w: x.flatten(2), "makes"),
}


def _stale(x):
    view = x.view(x.size(0), -1)
    view.relu_()
    return x + 1


@pytest.mark.parametrize("name", _NOT)
def test_functions_of_features_that_are_refused(name):
    function, reason = _NOT[name]
    with pytest.raises(InputError, match="forward of _Forward itself is not") as caught:
        read(_Forward(function), example=torch.zeros(1, 4))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", _NOT_IMAGES)
def test_functions_of_images_that_are_refused(name):
    function, reason = _NOT_IMAGES[name]
    with pytest.raises(InputError, match="forward of _Forward itself is not") as caught:
        read(_Forward(function), example=torch.zeros(1, 4, 4, 4))
    assert reason in str(caught.value)
