"""Rounded weights are what their precision holds, and rounding them again changes nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateurs.errors import InputError
from secateurs.runtime.precision import PRECISIONS, from_bf16, is_kept, rounded, to_bf16, to_int8
from secateurs.runtime.program import Op, Program


def layer(weight, kind="linear"):
    shapes = ((1,), (len(weight),)) if kind == "scale" else ((weight.shape[1],), weight.shape[:1])
    op = Op(kind=kind, inputs=(0,), shape=shapes[1], weight=weight)
    return Program(input_shape=shapes[0], ops=(op,))


def weights(seed, *, scale=1.0):
    rng = np.random.default_rng(seed)
    weight = (rng.standard_normal((9, 33)) * scale * 10.0 ** rng.integers(-3, 4, (9, 1))).astype(
        "f4"
    )
    weight[rng.random(weight.shape) < 0.5] = 0
    weight[4] = 0
    return weight


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-40, 1e-30, 1.0, 1e30]))
def test_rounding_twice_is_rounding_once(seed, scale):
    weight = weights(seed, scale=scale)
    for precision in PRECISIONS:
        once = rounded(layer(weight), precision)
        twice = rounded(once, precision)
        np.testing.assert_array_equal(twice.ops[0].weight, once.ops[0].weight)
        assert not once.ops[0].weight[weight == 0].any()  # what was pruned stays pruned


@given(st.integers(0, 2**32 - 1))
def test_errors_are_half_a_step(seed):
    weight = weights(seed)
    near = rounded(layer(weight), "bf16").ops[0].weight
    assert (np.abs(near - weight) <= np.abs(weight) * 2**-8).all()
    near = rounded(layer(weight), "int8").ops[0].weight
    steps = np.abs(weight).max(axis=1, keepdims=True) / 127
    assert (np.abs(near - weight) <= 0.5001 * steps).all()


def test_bf16_rounds_as_torch_does():
    values = np.random.default_rng(0).integers(0, 2**32, 10_000, dtype=np.uint32).view(np.float32)
    found = from_bf16(to_bf16(values))
    np.testing.assert_array_equal(found, torch.from_numpy(values).bfloat16().float().numpy())


def test_int8_has_a_scale_for_each_row():
    whole, scales = to_int8(np.array([[1, -2, 0], [100, 0, 50], [0, 0, 0]], np.float32))
    np.testing.assert_array_equal(whole, [[64, -127, 0], [127, 0, 64], [0, 0, 0]])
    np.testing.assert_allclose(scales, [2 / 127, 100 / 127, 0], rtol=1e-6)


def test_negative_zeros_are_pruned():
    for stored in (np.array([-0.0], np.float32), to_bf16(np.array([-0.0], np.float32))):
        assert not is_kept(stored).any()
    assert is_kept(np.array([np.nan, -1], np.float32)).all()
    assert is_kept(to_bf16(np.array([np.nan, -1], np.float32))).all()


def test_other_operations_keep_their_weights():
    program = layer(np.array([1.001], np.float32), kind="scale")
    assert rounded(program, "int8").ops[0] is program.ops[0]


def test_what_cannot_be_rounded_is_refused():
    with pytest.raises(InputError, match="precision must be one of fp32, bf16, int8, got 'fp16'"):
        rounded(layer(np.ones((1, 1), np.float32)), "fp16")
    for odd in (np.nan, np.inf):
        with pytest.raises(InputError, match="int8 weights must be finite"):
            rounded(layer(np.full((1, 1), odd, np.float32)), "int8")
