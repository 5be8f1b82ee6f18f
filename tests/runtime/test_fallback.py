import sys
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import programs
from secateurs.errors import FallbackWarning, InputError
from secateurs.runtime import fallback
from secateurs.runtime.program import KINDS, Op, Program

_HERE = [name for name in fallback.BACKENDS if name == "numpy" or find_spec(name)]


def _linear(weight, bias=None):
    weight = np.asarray(weight, np.float32)
    op = Op(kind="linear", inputs=(0,), shape=weight.shape[:1], weight=weight, bias=bias)
    return Program(input_shape=weight.shape[1:], ops=(op,))


def _close(made, wanted):
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-4 * (1 + np.abs(wanted).max()))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from(_HERE), st.integers(1, 5))
def test_programs_are_run_as_torch_runs_them(seed, kind, n_rows):
    program = programs.program(seed)
    x = np.random.default_rng(seed).normal(size=(n_rows, *program.input_shape)).astype(np.float32)
    _close(fallback.runner(program, kind=kind)(x), programs.evaluate(program, x))


def test_the_random_programs_are_of_every_kind():
    seen = {op.kind for seed in range(60) for op in programs.program(seed).ops}
    assert seen == set(KINDS) - {"call"}


@pytest.mark.parametrize("kind", _HERE)
@pytest.mark.parametrize("density", [0, 0.02, 1])
def test_products_of_any_density(kind, density):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(70, 50)) * (rng.random((70, 50)) < density)
    weight[3] = 0
    x = rng.normal(size=(9, 50))
    made = fallback.runner(_linear(weight), kind=kind)(x)
    np.testing.assert_allclose(made, x @ weight.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [name for name in _HERE if name != "numpy"])
def test_pruned_weights_are_absent_and_others_hand_on_nan(kind):
    weight = np.zeros((20, 20), np.float32)
    weight[0, 0] = weight[1, 1] = 2
    x = np.zeros((1, 20), np.float32)
    x[0, 0], x[0, 5] = np.nan, np.inf
    made = fallback.runner(_linear(weight), kind=kind)(x)[0]
    assert np.isnan(made[0])
    assert made[1:].tolist() == [0] * 19


def test_many_rows_run_in_tiles_and_give_the_same(monkeypatch):
    program = programs.program(3, image=True)
    x = np.random.default_rng(0).normal(size=(7, *program.input_shape))
    whole = fallback.run(program, x)
    monkeypatch.setattr(fallback, "_SCRATCH", 1)
    assert np.abs(fallback.run(program, x) - whole).max() < 1e-5
    assert fallback._tile(program) == 1


@pytest.mark.parametrize("image", [False, True])
def test_no_rows_and_odd_arrays(image):
    program = programs.program(5, image=image)
    assert fallback.run(program, np.empty((0, *program.input_shape))).shape == (
        0,
        *program.output_shape,
    )
    x = np.random.default_rng(0).integers(0, 9, (4, *program.input_shape)).astype(np.uint8)
    wanted = fallback.run(program, x.astype(np.float64))
    for odd in (x, np.asfortranarray(x), np.repeat(x, 2, axis=0)[::2]):
        assert np.array_equal(fallback.run(program, odd), wanted)


def test_the_input_is_left_alone():
    op = Op(kind="activation", inputs=(0,), shape=(3,), activation="relu")
    x = -np.ones((2, 3), np.float32)
    made = fallback.run(Program(input_shape=(3,), ops=(op,)), x)
    made += 5
    assert (x == -1).all()


def test_a_part_left_to_torch_is_called_with_rows_first():
    seen = []

    def function(x):
        seen.append(x.shape)
        assert x.flags.c_contiguous
        return 2 * x

    op = Op(kind="call", inputs=(0,), shape=(2, 3, 4), function=function)
    x = np.random.default_rng(0).normal(size=(5, 2, 3, 4)).astype(np.float32)
    assert np.array_equal(fallback.run(Program(input_shape=(2, 3, 4), ops=(op,)), x), 2 * x)
    assert seen == [(5, 2, 3, 4)]


@pytest.mark.parametrize("shape", [(), (3,), (2, 4), (2, 3, 1)])
def test_rows_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match=r"rows must be of shape \(3,\)"):
        fallback.run(_linear(np.ones((1, 3))), np.zeros(shape))


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match="numba, scipy, numpy"):
        fallback.runner(_linear(np.ones((1, 3))), kind="mkl")


def test_what_is_installed_is_chosen_once(monkeypatch):
    for installed in (("numba", "scipy"), ("scipy",), ()):
        fallback.backend.cache_clear()
        monkeypatch.setattr(
            fallback, "find_spec", lambda name, here=installed: name in here or None
        )
        assert fallback.backend() == (*installed, "numpy")[0]
    monkeypatch.undo()
    fallback.backend.cache_clear()
    assert fallback.backend() in _HERE


def test_it_is_said_once():
    fallback.announce.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            fallback.announce("it was not built")
    assert [one.category for one in caught] == [FallbackWarning]
    assert "it was not built" in str(caught[0].message)


def test_dense_programs_need_numpy_alone(monkeypatch):
    for name in ("scipy", "numba", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    assert fallback.runner(_linear(np.ones((2, 3))))(np.ones((1, 3))).tolist() == [[3, 3]]
