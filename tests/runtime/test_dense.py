"""Torch's dense path equals the slow twin, packed by oneDNN or not, and needs torch loaded."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reference.programs import evaluate, program
from secateurs.runtime.dense import n_torch_threads, torch_runner
from secateurs.runtime.program import Op, Program


@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.booleans())
def test_random_programs_equal_their_slow_twins(seed, rows, packed):
    whole = program(seed)
    x = np.random.default_rng(seed).standard_normal((rows, *whole.input_shape)).astype(np.float32)
    before = x.copy()
    found = torch_runner(whole, packed=packed)(x.reshape(rows, int(np.prod(x.shape[1:]))))
    wanted = evaluate(whole, x).reshape(rows, int(np.prod(whole.output_shape)))
    bound = 1e-4 * max(1, np.abs(wanted).max(initial=0))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=bound)
    np.testing.assert_array_equal(x, before)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="a torch without oneDNN")
@pytest.mark.parametrize("kind", ["linear", "conv2d"])
def test_this_torch_packs(kind, monkeypatch):
    """Without this, a renamed private operation would quietly make our rival slower."""

    def refuse(*_, **__):
        raise AssertionError("not packed")

    monkeypatch.setattr(torch.nn.functional, kind, refuse)
    weight = np.ones((2, 3, 1, 1) if kind == "conv2d" else (2, 3), np.float32)
    shapes = ((3, 4, 4), (2, 4, 4)) if kind == "conv2d" else ((3,), (2,))
    op = Op(kind=kind, inputs=(0,), shape=shapes[1], weight=weight, activation="relu")
    run = torch_runner(Program(input_shape=shapes[0], ops=(op,)))
    assert run is not None
    assert (run(np.ones((2, int(np.prod(shapes[0]))), np.float32)) == 3).all()


def test_arrays_that_cannot_be_written_are_read():
    op = Op(kind="activation", inputs=(0,), shape=(2,), activation="relu")
    x = np.array([[-1, 2]], np.float32)
    x.flags.writeable = False
    run = torch_runner(Program(input_shape=(2,), ops=(op,)))
    np.testing.assert_array_equal(run(x), [[0, 2]])


def test_without_torch_there_is_none(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    op = Op(kind="activation", inputs=(0,), shape=(2,), activation="relu")
    assert torch_runner(Program(input_shape=(2,), ops=(op,))) is None
    assert n_torch_threads() == 0


def test_parts_left_to_torch_have_none():
    op = Op(kind="call", inputs=(0,), shape=(2,), function=lambda x: x)
    assert torch_runner(Program(input_shape=(2,), ops=(op,))) is None
