"""Damaged and hostile versions of a runtime file, without end."""

import copy
import hashlib
import json

import numpy as np

PREFIX = 64
HOSTILE = [
    None, True, False, -1, 0, 1, 2, 3, 5, 16, 255, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32,
    2**40, 2**63, 10**400, 0.5, -0.0, 1e308, "", "linear", "conv2d", "call", "flatten", "bits",
    "columns", "dense", "int8", "relu", "softmax", "\ud800", "x" * 5000, [], [0], [1], [0, 0],
    [2**31, 2**31], [1, 1, 1, 1], [[[[]]]], {}, {"form": "bits"},
]  # fmt: skip


def parts(blob):
    """Return header and data."""
    length = int.from_bytes(blob[12:16], "little")
    return blob[PREFIX : PREFIX + length], blob[-(-(PREFIX + length) // 64) * 64 :]


def joined(header, data, *, honest=True):
    """Return a file of a header and data, with the right checksums of both if honest."""
    if honest and isinstance(header, dict):
        header = {**header, "sha256": hashlib.sha256(data).hexdigest()}
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    start = -(-(PREFIX + len(raw)) // 64) * 64
    prefix = b"SECATEUR" + (1).to_bytes(4, "little") + len(raw).to_bytes(4, "little")
    prefix += hashlib.sha256(raw).digest() + (start + len(data)).to_bytes(8, "little") + bytes(8)
    return prefix + raw + bytes(start - PREFIX - len(raw)) + data


def _leaves(value, path=()):
    yield path
    children = value.items() if isinstance(value, dict) else ()
    children = enumerate(value) if isinstance(value, list) else children
    for key, child in children:
        yield from _leaves(child, (*path, key))


def _changed(header, rng):
    """Return a header one entry of which is another: hostile, near, doubled, moved or gone."""
    header = copy.deepcopy(header)
    paths = list(_leaves(header))[1:]
    path = paths[rng.integers(len(paths))]
    place = header
    for key in path[:-1]:
        place = place[key]
    old, how = place[path[-1]], rng.integers(5)
    if how == 0 and type(old) is int:
        place[path[-1]] = old + int(rng.choice([-64, -16, -1, 1, 2, 16, 64]))
    elif how == 1:
        del place[path[-1]]
    elif how == 2 and isinstance(place, list):
        place.append(copy.deepcopy(old))
    elif how == 3:
        other = paths[rng.integers(len(paths))]
        source = header
        try:
            for key in other:
                source = source[key]
            place[path[-1]] = copy.deepcopy(source)
        except (KeyError, IndexError, TypeError):
            place[path[-1]] = None
    else:
        place[path[-1]] = HOSTILE[rng.integers(len(HOSTILE))]
    return header


def _flipped(raw, rng):
    raw = bytearray(raw)
    for _ in range(int(rng.integers(1, 9)) if raw else 0):
        raw[rng.integers(len(raw))] ^= 1 << int(rng.integers(8))
    return bytes(raw)


def _spliced(raw, rng):
    a, b = np.sort(rng.integers(0, len(raw) + 1, 2))
    c, d = np.sort(rng.integers(0, len(raw) + 1, 2))
    return raw[:a] + raw[c:d][: 2**20] + raw[b:]


def mutations(blob, rng):
    """Yield files made from `blob` by `rng`; most of them have right checksums.

    Args:
        blob: a file.
        rng: a NumPy generator.
    """
    raw, data = parts(blob)
    header = json.loads(raw)
    while True:
        kind = int(rng.integers(10))
        if kind == 0:
            yield _flipped(blob, rng)
        elif kind == 1:
            yield blob[: int(rng.integers(len(blob)))]
        elif kind == 2:
            yield _spliced(blob, rng)
        elif kind == 3:  # damage that its writer did not see, or that verify=False does not
            yield joined(header, _flipped(data, rng))
        elif kind == 4:
            yield joined(raw, _flipped(data, rng))
        elif kind == 5:
            yield joined(header, _spliced(data, rng))
        elif kind == 6:
            yield joined(_flipped(raw, rng), data)
        elif kind == 7:
            yield joined(b"[" * 100_000 if rng.integers(20) == 0 else _spliced(raw, rng), data)
        else:
            changed = header
            for _ in range(int(rng.integers(1, 4))):
                changed = _changed(changed, rng)
            yield joined(changed, data)
