"""The slow and obvious twin of the runtime: a program in float64, one loop after another."""

import math

import numpy as np

INF = float("inf")
erf = np.vectorize(math.erf, otypes=[np.float64])


def activate(name, x):
    """x [rows, channels, ...] after an activation; softmax over the channels."""
    with np.errstate(all="ignore"):
        if name == "relu":
            return np.maximum(x, 0)
        if name == "gelu":
            return 0.5 * x * (1 + erf(x / math.sqrt(2)))
        if name == "gelu_tanh":
            return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        if name == "sigmoid":
            return 1 / (1 + np.exp(-x))
        if name == "tanh":
            return np.tanh(x)
        if name == "softmax":
            e = np.exp(x - x.max(1, keepdims=True))
            return e / e.sum(1, keepdims=True)
        return x


def linear(x, weight):
    """Products only of the weights that are kept."""
    y = np.zeros((len(x), len(weight)))
    for i, j in zip(*np.nonzero(weight), strict=True):
        y[:, i] += weight[i, j] * x[:, j]
    return y


def windows(x, op, outside):
    """Each output pixel and what its window sees: [rows, channels, kernel, kernel]."""
    (py, px), (sy, sx), (ky, kx) = op.padding, op.stride, op.kernel
    padded = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)), constant_values=outside)
    for y in range(op.shape[1]):
        for z in range(op.shape[2]):
            yield y, z, padded[:, :, y * sy : y * sy + ky, z * sx : z * sx + kx]


def step(op, inputs):
    """What one operation makes of its inputs."""
    x = inputs[0]
    rows = len(x)
    y = np.zeros((rows, *op.shape))
    column = (slice(None), *([None] * (x.ndim - 2)))
    if op.kind == "linear":
        y = linear(x, op.weight.astype(np.float64))
    elif op.kind == "conv2d":
        weight = op.weight.astype(np.float64).reshape(len(op.weight), -1)
        for i, j, window in windows(x, op, 0):
            y[:, :, i, j] = linear(window.reshape(rows, weight.shape[1]), weight)
    elif op.kind == "max_pool":
        for i, j, window in windows(x, op, -INF):
            y[:, :, i, j] = window.max((2, 3))
    elif op.kind == "avg_pool":
        inside = windows(np.ones((1, *x.shape[1:])), op, 0)
        for (i, j, window), (_, _, ones) in zip(windows(x, op, 0), inside, strict=True):
            size = math.prod(op.kernel) if op.include_padding else ones[0, 0].sum()
            y[:, :, i, j] = window.sum((2, 3)) / size
    elif op.kind == "scale":
        y = x * op.weight.astype(np.float64)[column]
    elif op.kind == "add":
        y = inputs[0] + inputs[1]
    elif op.kind == "concat":
        y = np.concatenate(inputs, axis=1)
    elif op.kind == "mean":
        y = sum(inputs) / len(inputs)
    else:
        y = x.reshape(rows, *op.shape)
    if op.bias is not None:
        y = y + op.bias.astype(np.float64)[(slice(None), *([None] * (y.ndim - 2)))]
    return activate(op.activation, y)


def run(program, x):
    """The outputs [rows, *output_shape] of a program, in float64."""
    values = [x.astype(np.float64)]
    for op in program.ops:
        values.append(step(op, [values[i] for i in op.inputs]))
    return values[-1]
