"""Tiles cover a batch at the least cost; kernels are those that were fastest."""

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateurs.runtime import native, pack, tuning
from secateurs.runtime.program import Op, Program
from secateurs.runtime.tuning import TILES, cover, density, fastest, is_block, layer_kinds

compiled_only = pytest.mark.skipif(native.load() is None, reason="the kernels were not built")

costs_of = st.fixed_dictionaries({n: st.floats(0.1, 100) for n in TILES})


def cost_of(tiles, costs, n_threads=1):
    return sum(math.ceil(math.ceil(rows / n) / n_threads) * costs[n] for n, rows in tiles)


def slow_cover(rows, costs, n_threads=1):
    """The least cost over all ways to take whole tiles of each size, by trying all of them."""
    best = np.inf
    for n, cost in costs.items():
        whole = rows // n
        rest = slow_cover(rows - whole * n, costs, n_threads) if whole and rows % n else 0
        if whole:
            best = min(best, -(-whole // n_threads) * cost + rest)
        if rows % n:
            best = min(best, -(-(whole + 1) // n_threads) * cost)
    return best


@given(st.integers(1, 300), costs_of, st.integers(1, 4))
def test_covers_have_all_rows_and_the_least_cost(rows, costs, n_threads):
    tiles = cover(rows, costs, n_threads=n_threads)
    assert sum(size for _, size in tiles) == rows
    assert all(size % n == 0 for n, size in tiles[:-1])  # only the last tile is padded
    assert cost_of(tiles, costs, n_threads) == pytest.approx(slow_cover(rows, costs, n_threads))


def test_no_rows_need_no_tiles():
    assert cover(0, {1: 1.0}) == []


def test_equal_costs_make_one_call():
    assert cover(48, {16: 1.0, 32: 2.0}) == [(16, 48)]


def test_threads_want_as_many_tiles():
    costs = {1: 1.0, 16: 4.0, 32: 6.0, 64: 10.0}
    assert cover(64, costs) == [(64, 64)]
    assert cover(64, costs, n_threads=2) == [(32, 64)]


def test_the_fastest_is_found_and_the_slow_one_called_less():
    calls = {"slow": 0, "quick": 0}

    def call(name, seconds):
        calls[name] += 1
        time.sleep(seconds)

    least = fastest(
        {"slow": lambda: call("slow", 2e-2), "quick": lambda: call("quick", 1e-3)}, seconds=0.5
    )
    assert 1e-3 <= least["quick"] < 1e-2 <= least["slow"]
    assert calls["slow"] <= 2 < calls["quick"]


def test_nobody_is_given_up_unless_asked():
    calls = {"slow": 0, "quick": 0}

    def call(name, seconds):
        calls[name] += 1
        time.sleep(seconds)

    timers = {"slow": lambda: call("slow", 5e-3), "quick": lambda: call("quick", 0)}
    fastest(timers, seconds=0.05, within=np.inf)
    assert calls["slow"] == calls["quick"] >= 2


def test_blocks_are_named():
    assert is_block("rows:128")
    assert not any(
        map(is_block, ("rows", "rows:", "rows:x", "rows:3", "sell:128", "rows:10000000"))
    )


def layers(*densities):
    rng = np.random.default_rng(0)
    ops = []
    for i, share in enumerate(densities):
        weight = rng.standard_normal((256, 256)).astype(np.float32)
        weight[rng.random(weight.shape) >= share] = 0
        ops.append(Op(kind="linear", inputs=(i,), shape=(256,), weight=weight))
    return Program(input_shape=(256,), ops=tuple(ops))


@compiled_only
@pytest.mark.parametrize("precision", pack.PRECISIONS)
@pytest.mark.parametrize("quickest", ["dense", "rows:128", "rows"])
def test_the_kernel_that_was_fastest_is_taken(precision, quickest, monkeypatch):
    def told(candidates, **_):
        for call in candidates.values():
            call()  # it does run
        return {name: 1.0 if name == quickest else 2.0 for name in candidates}

    monkeypatch.setattr(tuning, "fastest", told)
    found = layer_kinds(layers(1), sizes=(16, 64), library=native.load(), precision=precision)
    assert found == {16: {0: quickest}, 64: {0: quickest}}


@compiled_only
def test_a_kernel_in_use_is_kept_where_another_is_hardly_faster(monkeypatch):
    times = iter([{"rows": 1.0, "dense": 2.0}, {"rows": 1.02, "dense": 1.0}, {"dense": 0.9}])

    def told(candidates, **_):
        return dict.fromkeys(candidates, 1.1) | next(times)

    monkeypatch.setattr(tuning, "fastest", told)
    found = layer_kinds(layers(1), sizes=(16, 32, 64), library=native.load(), precision="fp32")
    assert found == {16: {0: "rows"}, 32: {0: "rows"}, 64: {0: "dense"}}


@compiled_only
def test_thin_layers_are_not_tried_dense():
    found = layer_kinds(layers(0.05), sizes=TILES, library=native.load(), precision="fp32")
    assert {found[n][0].partition(":")[0] for n in TILES} <= {"rows", "sell"}
    assert density(layers(0.05).ops[0]) < 0.1


@compiled_only
def test_layers_alike_are_measured_once(monkeypatch):
    n_packed = []
    own = pack.pack
    monkeypatch.setattr(pack, "pack", lambda *a, **k: n_packed.append(1) or own(*a, **k))
    found = layer_kinds(
        layers(0.125, 0.125, 0.125), sizes=(32,), library=native.load(), precision="fp32"
    )
    assert len(set(found[32].values())) == 1
    assert len(n_packed) == len({*native.kinds(n=32, isa=native.isa()), "rows:128"})
