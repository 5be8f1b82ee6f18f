"""The best dense path that torch has in this process, for an engine to measure itself against.

Only where torch is loaded already: nothing here imports it. Linear layers are packed by oneDNN, as
torch.compile packs them; images are channels-last.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from secateurs.runtime.program import Floats, Op, Program

__all__ = ["n_torch_threads", "torch_runner"]

_Step = Callable[[Sequence[Any]], Any]


def n_torch_threads() -> int:
    """Return how many threads torch computes with; 0 where it is not loaded.

    >>> n_torch_threads() >= 0
    True
    """
    torch = cast(Any, sys.modules.get("torch"))
    return 0 if torch is None else int(torch.get_num_threads())


def _activation(torch: Any, name: str) -> Callable[[Any], Any]:
    gelu = torch.nn.functional.gelu
    known: dict[str, Callable[[Any], Any]] = {
        "": lambda x: x,
        "relu": torch.relu_,
        "gelu": gelu,
        "gelu_tanh": lambda x: gelu(x, approximate="tanh"),
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "softmax": lambda x: torch.softmax(x, 1),
    }
    return known[name]


def _packed(torch: Any, op: Op, weight: Any, bias: Any) -> _Step | None:
    """Return a layer as oneDNN packs it, relu fused; None where this torch cannot."""
    fused = op.activation if op.activation in ("", "relu") else ""
    after = _activation(torch, "" if fused == op.activation else op.activation)
    post = fused or "none"
    options: tuple[Any, ...] = ()
    # private operations: torch.compile's own, which another version may name otherwise
    try:
        ops = torch.ops.mkldnn
        if op.kind == "linear":
            ready = ops._reorder_linear_weight(weight, None)
            call = ops._linear_pointwise
        else:
            options = (op.padding, op.stride, (1, 1), 1)
            ready = ops._reorder_convolution_weight(weight, *options, None)
            call = ops._convolution_pointwise
        example = torch.zeros(1, weight.shape[1], *op.kernel if op.kind == "conv2d" else ())
        call(example, ready, bias, *options, post, [], "")
    except (RuntimeError, AttributeError, TypeError):
        return None
    return lambda v: after(call(v[0], ready, bias, *options, post, [], ""))


def _layer(torch: Any, op: Op, *, packed: bool) -> _Step:
    """Return a linear layer or convolution with its activation."""
    weight = torch.from_numpy(np.array(op.weight))
    bias = None if op.bias is None else torch.from_numpy(np.array(op.bias))
    found = _packed(torch, op, weight, bias) if packed else None
    if found is not None:
        return found
    functional, act = torch.nn.functional, _activation(torch, op.activation)
    if op.kind == "linear":
        return lambda v: act(functional.linear(v[0], weight, bias))
    weight = weight.to(memory_format=torch.channels_last)
    return lambda v: act(functional.conv2d(v[0], weight, bias, op.stride, op.padding))


def _step(torch: Any, op: Op, shape: tuple[int, ...], *, packed: bool) -> _Step:
    """Return an operation as a function of the values that it reads; the first has `shape`."""
    functional = torch.nn.functional
    act = _activation(torch, op.activation)
    if op.kind in ("linear", "conv2d"):
        return _layer(torch, op, packed=packed)
    if op.kind == "scale":
        size = (-1, *[1] * (len(shape) - 1))
        weight = torch.from_numpy(np.array(op.weight)).view(size)
        bias = torch.zeros(1) if op.bias is None else torch.from_numpy(np.array(op.bias)).view(size)
        return lambda v: act(v[0] * weight + bias)
    if op.kind == "activation":
        return (lambda v: torch.relu(v[0])) if op.activation == "relu" else lambda v: act(v[0])
    window = (op.kernel, op.stride, op.padding)
    if op.kind == "max_pool":
        return lambda v: functional.max_pool2d(v[0], *window)
    if op.kind == "avg_pool":
        return lambda v: functional.avg_pool2d(v[0], *window, False, op.include_padding)
    if op.kind == "flatten":
        return lambda v: v[0].flatten(1)
    if op.kind == "add":
        return lambda v: act(v[0] + v[1])
    if op.kind == "concat":
        return lambda v: torch.cat(list(v), 1)
    return lambda v: sum(v[1:], v[0]) / len(v)


def torch_runner(program: Program, *, packed: bool = True) -> Callable[[Floats], Floats] | None:
    """Return what runs a program densely: float32 [rows, inputs] in, [rows, outputs] out.

    Args:
        program: without parts of kind call.
        packed: whether oneDNN packs the weights, which is faster for all but single rows.

    Returns:
        None where torch is not loaded, or cannot run it.

    >>> op = Op(kind="activation", inputs=(0,), shape=(2,), activation="relu")
    >>> run = torch_runner(Program(input_shape=(2,), ops=(op,)))
    >>> run is None or float(run(np.array([[-1, 2]], np.float32))[0, 1]) == 2
    True
    """
    torch = cast(Any, sys.modules.get("torch"))
    if torch is None or any(op.kind == "call" for op in program.ops):
        return None
    steps = [_step(torch, op, program.shape(op.inputs[0]), packed=packed) for op in program.ops]
    last = {value: i for i, op in enumerate(program.ops) for value in op.inputs}
    shape, n_outputs = program.input_shape, int(np.prod(program.output_shape))

    def run(x: Floats) -> Floats:
        x = x if x.flags.writeable else x.copy()  # torch warns of others, though it only reads
        with torch.inference_mode():
            first = torch.from_numpy(x).view(len(x), *shape)
            if len(shape) == 3:
                first = first.contiguous(memory_format=torch.channels_last)
            values: list[Any] = [first]
            for i, (op, step) in enumerate(zip(program.ops, steps, strict=True)):
                values.append(step([values[value] for value in op.inputs]))
                for value in op.inputs:
                    if last[value] == i:
                        values[value] = None
            made: Floats = values[-1].reshape(len(x), n_outputs).contiguous().numpy()
            return made

    try:
        run(np.zeros((2, int(np.prod(shape))), np.float32))
    except (RuntimeError, TypeError):
        return None
    return run
