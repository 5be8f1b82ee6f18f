"""A report counts what is multiplied and read, and its table can be read."""

import numpy as np
import pytest

from reference.programs import program
from secateurs.errors import InputError
from secateurs.runtime import native, net, report
from secateurs.runtime.engine import Engine, compile
from secateurs.runtime.program import Op, Program

compiled_only = pytest.mark.skipif(native.load() is None, reason="the kernels were not built")


def layers(share):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((256, 128)).astype(np.float32)
    weight[rng.random(weight.shape) >= share] = 0
    op = Op(kind="linear", inputs=(0,), shape=(256,), weight=weight, name="encoder.0")
    return Program(input_shape=(128,), ops=(op,)), int(np.count_nonzero(weight))


@compiled_only
@pytest.mark.parametrize("rows", [1, 32])
def test_rows_say_what_a_layer_costs(rows):
    whole, kept = layers(0.1)
    (row,) = Engine(whole, tune=False).report(rows=rows)
    assert row["name"] == "encoder.0"
    assert row["shape"] == "256x128"
    assert row["density"] == kept / (256 * 128)
    assert row["kernel"] in native.kinds(n=rows, isa=native.isa())
    assert row["bytes"] >= 4 * kept
    assert row["gflops"] == pytest.approx(2 * kept * rows / row["us"] / 1e3)
    assert row["limit"] in ("fma", "L1", "L2", "L3")
    assert row["share"] > 0


@compiled_only
def test_dense_kernels_multiply_all():
    whole, _ = layers(0.1)
    (row,) = Engine(whole, kinds={16: {0: "dense"}}, tune=False).report(rows=16)
    assert row["kernel"] == "dense"
    assert row["gflops"] == pytest.approx(2 * 256 * 128 * 16 / row["us"] / 1e3)
    assert row["limit"] == "fma"


def test_products_on_padding_are_none():
    weight = np.ones((1, 1, 3, 3), np.float32)
    op = Op(
        kind="conv2d", inputs=(0,), shape=(1, 4, 5), weight=weight, kernel=(3, 3), padding=(1, 1)
    )
    image = np.pad(np.ones((4, 5)), 1)
    counted = sum(int(image[y : y + 3, x : x + 3].sum()) for y in range(4) for x in range(5))
    assert report._products(op, (1, 4, 5), whole=False) == counted
    op.weight[0, 0, 0] = 0
    assert report._products(op, (1, 4, 5), whole=False) < counted
    assert report._products(op, (1, 4, 5), whole=True) == counted


@compiled_only
def test_peaks_are_in_order():
    found = report.peaks(native.load())
    assert set(found) == {"fma", "L1", "L2", "L3"}
    assert 1e9 < found["L3"] < 1.2 * found["L1"]
    assert 1e9 < found["fma"] < 1e13


@pytest.mark.parametrize("backend", ["kernels", "fallback"])
@pytest.mark.parametrize("seed", range(4))
def test_any_program_has_a_table(seed, backend, monkeypatch):
    if backend == "fallback":
        monkeypatch.setattr(net.native, "load", lambda: None)
    elif native.load() is None:
        pytest.skip("the kernels were not built")
    engine = compile(program(seed), tune=False)
    found = engine.report(rows=5)
    lines = repr(found).splitlines()
    assert len(lines) == len(found) + 2
    assert lines[0].split() == list(report.COLUMNS)
    assert f"{found.tile} samples on one thread" in lines[-1]
    assert len({len(line.split()) for line in lines[:-1] if line}) == 1


@pytest.mark.parametrize("rows", [0, -1, 1.5, True])
def test_rows_are_a_positive_number(rows):
    with pytest.raises(InputError, match="rows must be a positive number"):
        Engine(layers(0.1)[0], tune=False).report(rows=rows)
