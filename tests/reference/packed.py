"""What a packed layer says, read back one number at a time, and what it makes of a tile."""

import numpy as np


def number(packed, i):
    """Value i of `values` as a float, before any scale."""
    if packed.precision == "bf16":
        return float(np.uint32(int(packed.values[i]) << 16).view(np.float32))
    return float(packed.values[i])


def scale(packed, row):
    if packed.scales is None:
        return 1.0
    place = list(packed.order).index(row) if packed.kind == "sell" else row
    return float(packed.scales[place])


def _slabs(packed, weight, size):
    for row in range(packed.n_rows):
        for column in range(packed.n_cols):
            at = ((row // size) * packed.n_cols + column) * size + row % size
            weight[row, column] = number(packed, at) * scale(packed, row)


def _rows(packed, weight, stored):
    at = 0
    for block in range(packed.n_blocks):
        for entry in range(packed.starts[block], packed.starts[block + 1]):
            row = packed.order[entry]
            for _ in range(packed.counts[entry]):
                column = packed.indices[at]
                weight[row, column] = number(packed, at) * scale(packed, row)
                assert not stored[row, column]
                stored[row, column] = True
                at += 1
    assert at == packed.n_kept


def _sell(packed, weight, stored):
    size = {"fp32": 4, "bf16": 2, "int8": 1}[packed.precision]
    data, at, block = packed.values, 0, 0
    runs = packed.counts.reshape(-1, 5)
    for slab in range(packed.n_blocks):
        for run in range(packed.starts[slab], packed.starts[slab + 1]):
            for _ in range(runs[run, 0]):
                first = packed.indices[block]
                block += 1
                row_at = {int(place): row for row, place in enumerate(data[at : at + 64])}
                assert len(row_at) == 64
                at += 64
                for group in range(4):
                    for step in range(runs[run, 1 + group]):
                        if step % 6 == 0:
                            word = data[at : at + 64].view(np.uint32)
                            at += 64
                        for lane in range(16):
                            column = int(word[lane]) >> (5 * (step % 6)) & 31
                            here = slice(at + lane * size, at + (lane + 1) * size)
                            kind = {4: np.float32, 2: np.uint16, 1: np.int8}[size]
                            bits = data[here].copy().view(kind)[0]
                            if column == 31:
                                assert bits == 0
                                continue
                            row = packed.order[slab * 64 + row_at[16 * group + lane]]
                            value = np.uint32(int(bits) << 16).view("f4") if size == 2 else bits
                            weight[row, first + column] = float(value) * scale(packed, row)
                            assert not stored[row, first + column]
                            stored[row, first + column] = True
                        at += 16 * size
    assert at == len(data)


def unpack(packed):
    """The weight [out, in] in float64, and which of it is stored."""
    weight = np.zeros((packed.n_rows, packed.n_cols))
    stored = np.zeros(weight.shape, bool)
    if packed.kind == "rows":
        _rows(packed, weight, stored)
    elif packed.kind == "sell":
        _sell(packed, weight, stored)
    else:
        _slabs(packed, weight, 12 if packed.kind == "dense" else 64)
        stored[:] = True
    return weight, stored


def linear(weight, stored, bias, x, *, activation):
    """Output [rows, n] and, for each of its numbers, the sum of what was added, without signs.

    Only what is stored takes part: 0 * inf arises where a zero is stored, and nowhere else.
    """
    n_rows, n = len(weight), x.shape[1]
    y, size = np.zeros((n_rows, n)), np.zeros((n_rows, n))
    for row in range(n_rows):
        columns = np.flatnonzero(stored[row])
        products = weight[row, columns, None] * x[columns].astype(float)
        y[row] = products.sum(axis=0) + bias[row]
        size[row] = np.abs(products).sum(axis=0) + abs(bias[row])
    if activation == "relu":
        y = np.where(y < 0, 0.0, y)  # NaN stays
    return y, size
