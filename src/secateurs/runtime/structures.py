"""The structures of images.inc: a plan's steps as the C code reads them."""

import ctypes
import math
from collections.abc import MutableMapping
from typing import Any

import numpy as np

from secateurs.runtime import convolution
from secateurs.runtime.lowering import Step, Value, alive
from secateurs.runtime.native import struct as linear_struct
from secateurs.runtime.pack import Packed, pack
from secateurs.runtime.program import ACTIVATIONS

__all__ = ["PlanStruct", "StepStruct", "fill", "scratch", "view"]

_STEPS = (
    "linear",
    "conv2d",
    "scale",
    "activation",
    "max_pool",
    "avg_pool",
    "copy",
    "add",
    "concat",
    "mean",
    "gather",
)


class _View(ctypes.Structure):
    _fields_ = (("at", ctypes.c_int64), ("plane", ctypes.c_int64), ("pitch", ctypes.c_int64))


class _Gather(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("n_phases", "rows", "columns", "stride_y")),
        ("stride_x", ctypes.c_int32),
        ("n_vectors", ctypes.c_int32),
        ("starts", ctypes.c_void_p),
        ("masks", ctypes.c_void_p),
    )


class StepStruct(ctypes.Structure):
    """`struct Step`."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("kind", "activation", "n_inputs")),
        ("include_padding", ctypes.c_int32),
        *((name, ctypes.c_int32) for name in ("channels", "height", "width")),
        *((name, ctypes.c_int32) for name in ("in_channels", "in_height", "in_width")),
        *((name, ctypes.c_int32) for name in ("kernel_y", "kernel_x", "stride_y", "stride_x")),
        *((name, ctypes.c_int32) for name in ("padding_y", "padding_x")),
        ("out", _View),
        ("guard", ctypes.c_int64),
        ("tail", ctypes.c_int64),
        ("inputs", ctypes.c_void_p),
        ("input_channels", ctypes.c_void_p),
        ("data", ctypes.c_void_p),
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
    )


class PlanStruct(ctypes.Structure):
    """`struct Plan`."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("n", "n_steps")),
        *((name, ctypes.c_int64) for name in ("arena", "scratch")),
        *((name, ctypes.c_int32) for name in ("in_channels", "in_height", "in_width")),
        *((name, ctypes.c_int32) for name in ("out_channels", "out_height", "out_width")),
        ("input", _View),
        ("output", _View),
        ("in_guard", ctypes.c_int64),
        ("in_tail", ctypes.c_int64),
        ("steps", ctypes.c_void_p),
    )


def scratch(step: Step) -> int:
    """Return the floats that pooling needs for one sample: rows of output and input, and more."""
    if not step.kind.endswith("_pool"):
        return 0
    op = step.geometry
    beyond = op.kernel[1] + (op.stride[1] + 2) * 16
    return step.out.shape[2] + step.image[2] + 2 * op.padding[1] + beyond


def view(value: Value) -> _View:
    return _View(at=value.at, plane=value.known.plane, pitch=value.known.pitch)


def fill(
    row: StepStruct,
    step: Step,
    *,
    kind: str,
    n: int,
    isa: str,
    precision: str,
    store: MutableMapping[Any, Any],
    keep: list[Any],
) -> int:
    """Fill one row of the table; return the bytes of its packed weights."""
    inputs = (_View * len(step.inputs))(*(view(value) for value in step.inputs))
    channels = np.array([value.shape[0] for value in step.inputs], np.int32)
    keep.extend((inputs, channels))
    op, source, out = step.geometry, step.inputs[0], step.out
    row.kind = _STEPS.index(step.kind)
    row.activation = ACTIVATIONS.index(step.activation)
    row.n_inputs, row.include_padding = len(inputs), int(op.include_padding)
    row.channels, row.height, row.width = out.shape
    row.channels *= max(1, out.phases)
    row.in_channels, row.in_height, row.in_width = source.shape
    (row.kernel_y, row.kernel_x), (row.stride_y, row.stride_x) = op.kernel, op.stride
    row.padding_y, row.padding_x = op.padding
    row.out, row.guard, row.tail = view(out), out.known.guard, out.known.tail
    row.inputs, row.input_channels = ctypes.addressof(inputs), channels.ctypes.data
    n_bytes = 0
    if step.kind == "linear":
        layer = _layer(step, kind=kind, precision=precision, store=store)
        n_bytes = layer.n_bytes
        keep.append(linear_struct(layer))
        row.data = ctypes.addressof(keep[-1])
    elif step.kind == "conv2d":
        conv, n_bytes = _conv(step, kind=kind, n=n, isa=isa, store=store)
        keep.append(conv)
        row.data = ctypes.addressof(conv)
    elif step.kind == "gather":
        keep.append(_phases(step, lanes=convolution.LANES[isa]))
        row.data = ctypes.addressof(keep[-1])
    elif step.kind == "scale":
        assert step.weight is not None
        arrays = [
            np.ascontiguousarray(a, dtype=np.float32)
            for a in (step.weight, step.bias)
            if a is not None
        ]
        keep.append(arrays)
        row.weight = arrays[0].ctypes.data
        row.bias = arrays[1].ctypes.data if len(arrays) > 1 else None
    _flatten(row, step, n=n)
    return n_bytes


def _flatten(row: StepStruct, step: Step, *, n: int) -> None:
    """Let a step run over long rows, where nothing stands between short ones."""
    values = (*step.inputs, step.out)
    pixelwise = step.kind in ("activation", "add", "mean", "linear")
    if (
        pixelwise
        and step.activation != "softmax"
        and all(
            value.known.guard < 0 and value.known.plane == n * math.prod(value.shape[1:])
            for value in values
        )
    ):
        row.channels, row.height, row.width = 1, 1, math.prod(step.out.shape)
    elif n > 1 and step.kind in ("scale", "activation", "add", "mean", "concat"):
        row.height, row.width = 1, row.height * row.width


def _layer(step: Step, *, kind: str, precision: str, store: MutableMapping[Any, Any]) -> Packed:
    assert step.weight is not None
    key = (step.op, kind, precision)
    if key not in store:
        name, _, block = kind.partition(":")
        store[key] = pack(
            step.weight,
            step.bias,
            kind=name,
            activation="relu" if step.activation == "relu" else "",
            precision=precision,
            block=int(block) if block else None,
        )
    layer: Packed = store[key]
    return layer


def _conv(
    step: Step, *, kind: str, n: int, isa: str, store: MutableMapping[Any, Any]
) -> tuple[convolution.Conv, int]:
    key = (step.op, kind, n == 1)
    if key not in store:
        store[key] = convolution.pack_conv(step, kind=kind, n=n, isa=isa)
    packed = store[key]
    where = convolution.positions(step, n=n, isa=isa, kind=kind)
    return convolution.struct(step, packed, where, unit=n), packed.n_bytes


def _phases(step: Step, *, lanes: int) -> _Gather:
    op, source, out = step.geometry, step.inputs[0], step.out
    starts = []
    for axis, alive_taps in enumerate(alive(op, source.shape)):
        stride, padding = op.stride[axis], op.padding[axis]
        if out.by_tap:
            starts.append([k - padding for k in alive_taps])
            continue
        at = [((k - padding) % stride, (k - padding) // stride) for k in range(op.kernel[axis])]
        first = min(pixel for _, pixel in at)
        starts.append([first * stride + phase for phase in sorted({a for a, _ in at})])
    pairs = np.array([(y, x) for y in starts[0] for x in starts[1]], np.int32)
    pitch = out.known.pitch
    masks = None
    if out.by_tap and op.stride == (1, 1) and source.known.pitch == pitch:
        # Each plane is the input, moved: whole vectors, and zeros where it is not the image.
        pixels = np.arange(-(-out.shape[1] * pitch // lanes) * lanes)
        y, x = pixels // pitch, pixels % pitch
        inside = (x < out.shape[2]) & (y < out.shape[1])
        for axis, places in ((1, y + pairs[:, :1]), (2, x + pairs[:, 1:])):
            inside = inside & (places >= 0) & (places < source.shape[axis])
        masks = np.where(inside, -1, 0).astype(np.int32)
    gather = _Gather(
        n_phases=len(pairs),
        rows=out.shape[1],
        columns=out.shape[2],
        stride_y=op.stride[0],
        stride_x=op.stride[1],
        n_vectors=0 if masks is None else masks.shape[1] // lanes,
        starts=pairs.ctypes.data,
        masks=None if masks is None else masks.ctypes.data,
    )
    gather.keep = (pairs, masks)
    return gather
