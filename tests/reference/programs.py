"""Random programs of every kind, and what torch makes of them in float64."""

import numpy as np
import torch
import torch.nn.functional as F

from secateurs.runtime.program import ACTIVATIONS, Op, Program, check

__all__ = ["evaluate", "program"]

_VECTOR = ("linear", "linear", "scale", "activation", "add", "concat", "mean")
_IMAGE = (*("conv2d", "max_pool", "avg_pool", "flatten"), *_VECTOR[2:], "conv2d")


def _weights(rng, *shape):
    """Weights with pruned entries, rows and columns, and at times none left."""
    weight = rng.normal(size=shape) * (rng.random(shape) < rng.choice([0, 0.1, 0.4, 1]))
    weight[rng.random(shape[0]) < rng.choice([0, 0.4])] = 0
    weight[:, rng.random(shape[1]) < rng.choice([0, 0.4])] = 0
    return weight.astype(np.float32)


def _bias(rng, n):
    return None if rng.random() < 0.3 else rng.normal(size=n).astype(np.float32)


def _op(rng, kind, shapes, source):
    """A random operation on a value."""
    shape = shapes[source]
    fields = {"activation": str(rng.choice(ACTIVATIONS)) if rng.random() < 0.3 else ""}
    inputs = (source,)
    made = shape
    if kind == "linear":
        made = (int(rng.integers(1, 7)),)
        fields |= {"weight": _weights(rng, *made, *shape), "bias": _bias(rng, made[0])}
    elif kind in ("conv2d", "max_pool", "avg_pool"):
        pads = (0, 0) if kind == "max_pool" else tuple(map(int, rng.integers(0, 3, 2)))
        kernel = tuple(int(rng.integers(1, n + 1)) for n in np.minimum(shape[1:], 3))
        if kind != "conv2d":
            pads = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
        stride = tuple(map(int, rng.integers(1, 3, 2)))
        size = [
            (n + 2 * p - k) // s + 1
            for n, k, s, p in zip(shape[1:], kernel, stride, pads, strict=True)
        ]
        made = (int(rng.integers(1, 5)) if kind == "conv2d" else shape[0], *size)
        if kind == "conv2d":
            weight = _weights(rng, made[0], shape[0], *kernel)
            fields |= {"weight": weight, "bias": _bias(rng, made[0])}
        else:
            fields = {"include_padding": bool(rng.random() < 0.5)}
        fields |= {"kernel": kernel, "stride": stride, "padding": pads}
    elif kind == "scale":
        weight = rng.normal(size=shape[0]) * (rng.random(shape[0]) < 0.8)
        weight = np.ones(shape[0]) if rng.random() < 0.2 else weight
        fields |= {"weight": weight.astype(np.float32), "bias": _bias(rng, shape[0])}
    elif kind == "flatten":
        made, fields = (int(np.prod(shape)),), {}
    elif kind != "activation":
        alike = [
            v
            for v, s in enumerate(shapes)
            if s == shape or (kind == "concat" and s[1:] == shape[1:])
        ]
        inputs = tuple(int(v) for v in rng.choice(alike, 2 if kind == "add" else 3))
        if kind == "concat":
            made = (sum(shapes[v][0] for v in inputs), *shape[1:])
        fields = fields if kind == "add" else {}
    return Op(kind=kind, inputs=inputs, shape=made, **fields)


def program(seed, *, n_ops=8, image=None):
    """A valid random program: a chain with branches of old values."""
    rng = np.random.default_rng(seed)
    is_image = rng.random() < 0.5 if image is None else image
    shapes = [tuple(map(int, rng.integers(1, 6, 3 if is_image else 1)))]
    ops = []
    for _ in range(n_ops):
        source = len(shapes) - 1 if rng.random() < 0.8 else int(rng.integers(len(shapes)))
        kinds = _VECTOR if len(shapes[source]) == 1 else _IMAGE
        ops.append(_op(rng, str(rng.choice(kinds)), shapes, source))
        shapes.append(ops[-1].shape)
    made = Program(input_shape=shapes[0], ops=tuple(ops))
    check(made)
    return made


def _activated(y, name):
    if name == "gelu":
        return F.gelu(y)
    if name == "gelu_tanh":
        return F.gelu(y, approximate="tanh")
    if name == "softmax":
        return y.softmax(1)
    return getattr(torch, name)(y) if name else y


def _channels(numbers, y):
    return torch.from_numpy(numbers).double().reshape(1, -1, *(1,) * (y.ndim - 2))


def evaluate(made, x):
    """What torch's own functions make of rows, in float64."""
    values = [torch.from_numpy(np.asarray(x)).double()]
    for op in made.ops:
        xs = [values[v] for v in op.inputs]
        y = xs[0]
        weight = None if op.weight is None else torch.from_numpy(op.weight).double()
        window = (op.kernel, op.stride, op.padding)
        if op.kind == "linear":
            y = y @ weight.T
        elif op.kind == "conv2d":
            y = F.conv2d(y, weight, stride=op.stride, padding=op.padding)
        elif op.kind == "scale":
            y = y * _channels(op.weight, y)
        elif op.kind == "max_pool":
            y = F.max_pool2d(y, *window)
        elif op.kind == "avg_pool":
            y = F.avg_pool2d(y, *window, count_include_pad=op.include_padding)
        elif op.kind == "flatten":
            y = y.flatten(1)
        elif op.kind == "add":
            y = xs[0] + xs[1]
        elif op.kind == "concat":
            y = torch.cat(xs, 1)
        elif op.kind == "mean":
            y = torch.stack(xs).mean(0)
        elif op.kind == "call":
            y = torch.from_numpy(op.function(y.float().numpy())).double()
        if op.bias is not None:
            y = y + _channels(op.bias, y)
        values.append(_activated(y, op.activation))
    return values[-1].numpy()
