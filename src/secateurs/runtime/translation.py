"""Calls of torch functions as operations of a program: one small function for each of them.

They have the arguments of the torch function that they stand for, behind the `Site` of the call.
What a call makes is known already when it is translated, so that shapes need no arithmetic here.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PASSED", "RANDOM", "TRANSLATIONS", "Site", "UnsupportedError"]

_Float64s: TypeAlias = NDArray[np.float64]


class UnsupportedError(Exception):
    """A call that no operation of a program stands for; says why."""


class Site(Protocol):
    """One call of a torch function, and where its operations go."""

    result: "Tensor"

    def find(self, tensor: object) -> int | None:
        """Return the value that a tensor is, or None where it does not depend on the input."""

    def shape(self, value: int) -> tuple[int, ...]:
        """Return the shape of a value, without the batch axis."""

    def emit(self, kind: str, inputs: Sequence[int], **fields: Any) -> int:
        """Add an operation, of the shape of the call's result unless told; return its value."""


def _value(at: Site, tensor: object) -> int:
    """Return the value that a tensor is, where it has to depend on the input."""
    found = at.find(tensor)
    if found is None:
        raise UnsupportedError("it mixes what depends on the network's input with what does not")
    return found


def _constant(at: Site, tensor: Any) -> _Float64s:
    """Return a weight as float64; it must not depend on the input."""
    if at.find(tensor) is not None:
        raise UnsupportedError("its weights depend on the input of the network")
    found: _Float64s = tensor.detach().cpu().double().numpy()
    return found


def _pair(value: Any) -> tuple[int, int]:
    """Return (y, x) of an integer or of one or two of them."""
    values = (value,) if isinstance(value, int) else tuple(value)
    y, x = values * 2 if len(values) == 1 else values
    return int(y), int(x)


def _rank(at: Site, value: int, rank: int) -> None:
    if len(at.shape(value)) != rank:
        wanted = "[rows, features]" if rank == 1 else "[rows, channels, height, width]"
        raise UnsupportedError(f"it reads [rows, {_axes(at, value)}], not {wanted}")


def _axes(at: Site, value: int) -> str:
    return ", ".join(map(str, at.shape(value)))


def _same(at: Site, input: Any, *_: Any, **__: Any) -> int:
    value = _value(at, input)
    if not at.result.is_floating_point():
        raise UnsupportedError(f"it makes {at.result.dtype} of the network's floats")
    if tuple(at.result.shape[1:]) != at.shape(value):
        raise UnsupportedError("it changes the shape")
    return value


def _reshape(at: Site, input: Any, *_: Any, **__: Any) -> int:
    value = _value(at, input)
    old, new = at.shape(value), tuple(at.result.shape[1:])
    if old == new:
        return value
    if len(new) == 1 and len(old) == 3:
        return at.emit("flatten", [value])
    raise UnsupportedError(
        f"it makes [rows, {', '.join(map(str, new))}] of [rows, {_axes(at, value)}]"
    )


def _flattened(at: Site, input: Any, weight: _Float64s, bias: _Float64s | None) -> int:
    value = _value(at, input)
    _rank(at, value, 1)
    return at.emit("linear", [value], weight=weight, bias=bias)


def _linear(at: Site, input: Any, weight: Any, bias: Any = None) -> int:
    return _flattened(
        at, input, _constant(at, weight), None if bias is None else _constant(at, bias)
    )


def _matmul(at: Site, input: Any, other: Any, **_: Any) -> int:
    weight = _constant(at, other)
    if weight.ndim != 2:
        raise UnsupportedError(f"it multiplies by an array of {weight.ndim} axes")
    return _flattened(at, input, weight.T, None)


def _addmm(at: Site, input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> int:
    weight, bias = _constant(at, mat2).T, _constant(at, input)
    bias = np.broadcast_to(bias, (1, len(weight))) if bias.ndim < 2 or len(bias) == 1 else bias
    if len(bias) != 1:
        raise UnsupportedError("it adds other numbers to each row")
    return _flattened(at, mat1, weight * alpha, bias[0] * beta)


def _ungrouped(weight: _Float64s, groups: int) -> _Float64s:
    """Return the weight of a convolution that reads all channels, zero outside of its group."""
    n_out, n_in = weight.shape[0] // groups, weight.shape[1]
    whole = np.zeros((weight.shape[0], n_in * groups, *weight.shape[2:]))
    for g in range(groups):
        rows = slice(g * n_out, (g + 1) * n_out)
        whole[rows, g * n_in : (g + 1) * n_in] = weight[rows]
    return whole


def _dilated(weight: _Float64s, dilation: tuple[int, int]) -> _Float64s:
    """Return the kernel with the zeros between its taps written out."""
    sizes = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    whole = np.zeros((*weight.shape[:2], *sizes))
    whole[:, :, :: dilation[0], :: dilation[1]] = weight
    return whole


def _conv2d(
    at: Site,
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> int:
    value = _value(at, input)
    _rank(at, value, 3)
    kernel = _dilated(_ungrouped(_constant(at, weight), groups), _pair(dilation))
    if padding == "same":
        # An even kernel is padded by one more behind than in front: the kernel gets a zero tap
        # in front instead.
        odd = [(0, 0), (0, 0), *((1 - k % 2, 0) for k in kernel.shape[2:])]
        kernel = np.pad(kernel, odd)
        padding = (kernel.shape[2] // 2, kernel.shape[3] // 2)
    return at.emit(
        "conv2d",
        [value],
        weight=kernel,
        bias=None if bias is None else _constant(at, bias),
        stride=_pair(stride),
        padding=(0, 0) if padding == "valid" else _pair(padding),
        kernel=kernel.shape[2:],
    )


def _batch_norm(
    at: Site,
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: Any = False,
    momentum: Any = 0.1,
    eps: float = 1e-5,
) -> int:
    value = _value(at, input)
    if training or running_mean is None or running_var is None:
        raise UnsupportedError("it normalises by the rows of the batch, also in evaluation")
    factor = 1 / np.sqrt(_constant(at, running_var) + eps)
    if weight is not None:
        factor = factor * _constant(at, weight)
    offset = -_constant(at, running_mean) * factor
    if bias is not None:
        offset = offset + _constant(at, bias)
    return at.emit("scale", [value], weight=factor, bias=offset)


def _activation(name: str) -> Callable[..., int]:
    def translate(at: Site, input: Any, *_: Any, **__: Any) -> int:
        return at.emit("activation", [_value(at, input)], activation=name)

    return translate


def _gelu(at: Site, input: Any, *, approximate: str = "none") -> int:
    name = "gelu" if approximate == "none" else "gelu_tanh"
    return at.emit("activation", [_value(at, input)], activation=name)


def _clamp(at: Site, input: Any, min: Any = None, max: Any = None) -> int:
    bound = None if min is None or max is not None else float(min)
    if bound != 0:
        raise UnsupportedError("bounds other than min=0 alone")
    return at.emit("activation", [_value(at, input)], activation="relu")


def _softmax(at: Site, input: Any, dim: int | None = None, *_: Any, **__: Any) -> int:
    if dim is None or dim % at.result.ndim != 1:
        raise UnsupportedError(f"a softmax over axis {dim}, not 1")
    return at.emit("activation", [_value(at, input)], activation="softmax")


def _pool(
    at: Site, kind: str, input: Any, size: Any, stride: Any, padding: Any, **more: Any
) -> int:
    value = _value(at, input)
    _rank(at, value, 3)
    kernel = _pair(size)
    step = kernel if stride is None or stride in ((), []) else _pair(stride)
    pads = _pair(padding)
    spans = zip(at.shape(value)[1:], at.result.shape[2:], kernel, step, pads, strict=True)
    if any((n + 2 * pad - k) // s + 1 != made for n, made, k, s, pad in spans):
        raise UnsupportedError("its windows reach over the edge (ceil_mode)")
    return at.emit(kind, [value], kernel=kernel, stride=step, padding=pads, **more)


def _max_pool(
    at: Site,
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: Any = False,
    return_indices: Any = False,
) -> int:
    if _pair(dilation) != (1, 1):
        raise UnsupportedError(f"dilation {dilation}")
    return _pool(at, "max_pool", input, kernel_size, stride, padding)


def _avg_pool(
    at: Site,
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: Any = False,
    count_include_pad: Any = True,
    divisor_override: Any = None,
) -> int:
    if divisor_override is not None:
        raise UnsupportedError("a divisor of its own")
    return _pool(
        at, "avg_pool", input, kernel_size, stride, padding, include_padding=bool(count_include_pad)
    )


def _adaptive(kind: str) -> Callable[..., int]:
    def translate(at: Site, input: Any, *_: Any, **__: Any) -> int:
        value = _value(at, input)
        _rank(at, value, 3)
        sizes = list(zip(at.shape(value)[1:], at.result.shape[2:], strict=True))
        if any(n % made for n, made in sizes):
            raise UnsupportedError("the image's sizes are no multiples of the pooled ones")
        kernel = tuple(n // made for n, made in sizes)
        return _pool(at, kind, input, kernel, kernel, 0)

    return translate


def _mean(at: Site, input: Any, dim: Any = None, keepdim: Any = False, **_: Any) -> int:
    value = _value(at, input)
    _rank(at, value, 3)
    axes = [] if dim is None else [dim] if isinstance(dim, int) else list(dim)
    if sorted(axis % 4 for axis in axes) != [2, 3]:
        raise UnsupportedError("a mean over other axes than height and width")
    channels, *size = at.shape(value)
    made = at.emit("avg_pool", [value], shape=(channels, 1, 1), kernel=size, stride=size)
    return made if keepdim else at.emit("flatten", [made])


def _cat(at: Site, tensors: Any, dim: int = 0) -> int:
    if dim % at.result.ndim != 1:
        raise UnsupportedError(f"tensors side by side along axis {dim}, not 1")
    values = [_value(at, tensor) for tensor in tensors]
    return at.emit("concat", values) if len(values) > 1 else values[0]


def _by_channel(at: Site, number: Any, shape: tuple[int, ...]) -> _Float64s:
    """Return [channels] numbers of what is broadcast over a batch of values of a shape."""
    import torch

    n_rows = len(at.result)
    whole = torch.as_tensor(number, dtype=torch.float64).detach().cpu()
    try:
        spread = whole.broadcast_to((n_rows, *shape)).reshape(n_rows, shape[0], -1)
    except RuntimeError:
        raise UnsupportedError(f"an array of shape {tuple(whole.shape)} on {shape}") from None
    if not bool((spread == spread[:1, :, :1]).all()):
        raise UnsupportedError("other numbers for each pixel or row")
    found: _Float64s = spread[0, :, 0].numpy()
    return found


def _affine(at: Site, value: int, factor: Any, offset: Any) -> int:
    """Return value * factor + offset, both numbers or arrays that are broadcast."""
    shape = at.shape(value)
    if tuple(at.result.shape[1:]) != shape:
        raise UnsupportedError("it changes the shape")
    weight, bias = (_by_channel(at, number, shape) for number in (factor, offset))
    if (weight == 1).all() and (bias == 0).all():
        return value
    return at.emit("scale", [value], weight=weight, bias=bias)


def _add(at: Site, input: Any, other: Any, *, alpha: float = 1) -> int:
    one, two = at.find(input), at.find(other)
    if one is None:
        assert two is not None
        return _affine(at, two, alpha, input)
    if two is None:
        return _affine(at, one, 1, other * alpha)
    if at.shape(one) != at.shape(two):
        raise UnsupportedError(f"values of shapes {at.shape(one)} and {at.shape(two)}")
    return at.emit("add", [one, _affine(at, two, alpha, 0)])


def _sub(at: Site, input: Any, other: Any, *, alpha: float = 1) -> int:
    return _add(at, input, other, alpha=-alpha)


def _mul(at: Site, input: Any, other: Any) -> int:
    one, two = at.find(input), at.find(other)
    if one is not None and two is not None:
        raise UnsupportedError("a product of two values")
    if one is None:
        assert two is not None
        return _affine(at, two, input, 0)
    return _affine(at, one, other, 0)


def _div(at: Site, input: Any, other: Any, *, rounding_mode: str | None = None) -> int:
    if at.find(other) is not None or rounding_mode is not None:
        raise UnsupportedError("a quotient by a value, or a rounded one")
    import torch

    by = torch.as_tensor(other, dtype=torch.float64)
    return _affine(at, _value(at, input), 1 / by, 0)


def _flipped(translate: Callable[..., int]) -> Callable[..., int]:
    return lambda at, input, other, **more: translate(at, other, input, **more)


def _neg(at: Site, input: Any) -> int:
    return _affine(at, _value(at, input), -1, 0)


def _off(at: Site, input: Any, p: float = 0.5, training: Any = True, inplace: Any = False) -> int:
    if training and p:
        raise UnsupportedError("it draws random numbers, also in evaluation")
    return _value(at, input)


TRANSLATIONS: dict[str, Callable[..., int]] = {
    "linear": _linear,
    "matmul": _matmul,
    "mm": _matmul,
    "__matmul__": _matmul,
    "addmm": _addmm,
    "conv2d": _conv2d,
    "batch_norm": _batch_norm,
    "relu": _activation("relu"),
    "sigmoid": _activation("sigmoid"),
    "tanh": _activation("tanh"),
    "gelu": _gelu,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "softmax": _softmax,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool2d": _adaptive("avg_pool"),
    "adaptive_max_pool2d": _adaptive("max_pool"),
    "mean": _mean,
    "cat": _cat,
    "concat": _cat,
    "concatenate": _cat,
    "add": _add,
    "__add__": _add,
    "__radd__": _add,
    "__iadd__": _add,
    "sub": _sub,
    "subtract": _sub,
    "__sub__": _sub,
    "__isub__": _sub,
    "__rsub__": _flipped(_sub),
    "rsub": _flipped(_sub),
    "mul": _mul,
    "multiply": _mul,
    "__mul__": _mul,
    "__rmul__": _mul,
    "__imul__": _mul,
    "div": _div,
    "divide": _div,
    "true_divide": _div,
    "__truediv__": _div,
    "__itruediv__": _div,
    "__rtruediv__": _flipped(_div),
    "__rdiv__": _flipped(_div),
    "neg": _neg,
    "__neg__": _neg,
    **dict.fromkeys(
        ("dropout", "dropout1d", "dropout2d", "alpha_dropout", "feature_alpha_dropout"), _off
    ),
    **dict.fromkeys(("flatten", "view", "reshape", "squeeze", "unsqueeze", "view_as"), _reshape),
    **dict.fromkeys(
        (
            "clone",
            "contiguous",
            "cpu",
            "cuda",
            "data",
            "detach",
            "double",
            "float",
            "positive",
            "requires_grad",
            "to",
            "type",
            "type_as",
        ),
        _same,
    ),
}
"""By the name of the torch function or method, without the underscore of in-place ones."""

PASSED = frozenset(
    {"__format__", "__hash__", "__len__", "__repr__", "device", "dim", "dtype", "element_size"}
    | {"get_device", "grad_fn", "has_names", "is_complex", "is_contiguous", "is_cuda"}
    | {"is_floating_point", "is_leaf", "is_meta", "is_quantized", "is_sparse", "itemsize"}
    | {"layout", "names", "ndim", "ndimension", "nelement", "numel", "requires_grad", "shape"}
    | {"size", "storage_offset", "stride"}
)
"""What may be asked of a value: its numbers do not matter."""

RANDOM = frozenset(
    {"bernoulli", "dropout", "exponential", "multinomial", "normal", "poisson", "rand"}
    | {"rand_like", "randint", "randint_like", "randn", "randn_like", "randperm", "uniform"}
)
"""What draws random numbers, whether or not from a value."""
