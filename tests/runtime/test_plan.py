"""Whole programs by the compiled kernels against loops in float64."""

import ctypes
import functools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import program as twin
from secateurs.errors import InputError
from secateurs.runtime import native as natives
from secateurs.runtime.plan import choices, plan, run, time_steps
from secateurs.runtime.program import ACTIVATIONS, Op, Program, check

NAN, INF = float("nan"), float("inf")


@functools.cache
def _isas():
    library = natives.load(isa="portable")
    return () if library is None else natives.ISAS[: library.library.secateurs_best_variant() + 1]


needs_library = pytest.mark.skipif(
    not _isas(), reason="the kernels are not built: python -m secateurs.runtime.building"
)
isas = pytest.mark.parametrize("isa", _isas() or ["portable"])


def _pair(draw, low, high):
    return (draw(st.integers(low, high)), draw(st.integers(low, high)))


class _Builder:
    """A random program: operations on what is there so far."""

    def __init__(self, draw, shape):
        self.draw, self.shapes, self.ops = draw, [shape], []
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def weight(self, *shape):
        kept = self.rng.random(shape) < self.draw(st.sampled_from([0, 0.05, 0.3, 1]))
        weight = self.rng.standard_normal(shape) * kept
        weight[self.rng.random(len(weight)) < 0.2] = 0
        return weight.astype(np.float32)

    def bias(self, n):
        return self.rng.standard_normal(n).astype(np.float32) if self.draw(st.booleans()) else None

    def add(self, kind, inputs, shape, **settings):
        self.ops.append(Op(kind=kind, inputs=inputs, shape=shape, **settings))
        self.shapes.append(shape)
        return len(self.shapes) - 1

    def windows(self, value, kernel, stride, padding):
        return tuple(
            (n + 2 * p - k) // s + 1
            for n, k, s, p in zip(self.shapes[value][1:], kernel, stride, padding, strict=True)
        )

    def conv(self, value, *, n_out, kernel, stride, padding, activation=""):
        shape = (n_out, *self.windows(value, kernel, stride, padding))
        weight = self.weight(n_out, self.shapes[value][0], *kernel)
        where = {"kernel": kernel, "stride": stride, "padding": padding}
        return self.add(
            "conv2d",
            (value,),
            shape,
            weight=weight,
            bias=self.bias(n_out),
            activation=activation,
            **where,
        )

    def any(self, value):
        """Add one operation on a value."""
        shape = self.shapes[value]
        image = len(shape) == 3
        kinds = ["scale", "activation", "add", "mean", "concat"]
        kinds += ["conv2d", "conv2d", "residual", "max_pool", "avg_pool"] if image else ["linear"]
        if image and self.draw(st.integers(0, 5)) == 0:
            kinds = ["flatten"]
        kind = self.draw(st.sampled_from(kinds))
        activation = self.draw(st.sampled_from(ACTIVATIONS))
        if kind == "linear":
            n_out = self.draw(st.integers(1, 20))
            weight = self.weight(n_out, shape[0])
            return self.add(
                kind,
                (value,),
                (n_out,),
                weight=weight,
                bias=self.bias(n_out),
                activation=activation,
            )
        if kind == "conv2d":
            kernel, stride = _pair(self.draw, 1, 5), _pair(self.draw, 1, 3)
            padding = _pair(self.draw, 0, 3)
            if min(n + 2 * p - k for n, p, k in zip(shape[1:], padding, kernel, strict=True)) < 0:
                return value
            n_out = self.draw(st.integers(1, 9))
            return self.conv(
                value,
                n_out=n_out,
                kernel=kernel,
                stride=stride,
                padding=padding,
                activation=activation,
            )
        if kind == "residual":
            made = self.conv(value, n_out=shape[0], kernel=(3, 3), stride=(1, 1), padding=(1, 1))
            inputs = self.draw(st.permutations([value, made]))
            return self.add("add", tuple(inputs), shape, activation=activation)
        if kind in ("max_pool", "avg_pool"):
            kernel, stride = _pair(self.draw, 1, 3), _pair(self.draw, 1, 2)
            padding = tuple(self.draw(st.integers(0, k // 2)) for k in kernel)
            if min(n + 2 * p - k for n, p, k in zip(shape[1:], padding, kernel, strict=True)) < 0:
                return value
            out = (shape[0], *self.windows(value, kernel, stride, padding))
            return self.add(
                kind,
                (value,),
                out,
                kernel=kernel,
                stride=stride,
                padding=padding,
                include_padding=self.draw(st.booleans()),
            )
        if kind == "flatten":
            return self.add(kind, (value,), (int(np.prod(shape)),))
        if kind == "scale":
            weight = self.rng.standard_normal(shape[0]).astype(np.float32)
            return self.add(
                kind,
                (value,),
                shape,
                weight=weight,
                bias=self.bias(shape[0]),
                activation=activation,
            )
        if kind == "activation":
            return self.add(kind, (value,), shape, activation=activation)
        alike = [
            v for v, s in enumerate(self.shapes) if s[1:] == shape[1:] and len(s) == len(shape)
        ]
        if kind == "concat":
            other = self.draw(st.sampled_from(alike))
            both = (shape[0] + self.shapes[other][0], *shape[1:])
            return self.add(kind, (value, other), both)
        same = [v for v in alike if self.shapes[v] == shape]
        inputs = (value, self.draw(st.sampled_from(same)))
        return self.add(kind, inputs, shape, activation=activation if kind == "add" else "")


@st.composite
def programs(draw, max_size=9):
    size = st.integers(1, max_size)
    image = draw(st.booleans())
    shape = (
        (draw(st.integers(1, 5)), draw(size), draw(size)) if image else (draw(st.integers(1, 40)),)
    )
    builder = _Builder(draw, shape)
    value = 0
    for _ in range(draw(st.integers(1, 7))):
        value = builder.any(value)
    if not builder.ops:
        builder.add("activation", (0,), shape, activation="relu")
    program = Program(input_shape=shape, ops=tuple(builder.ops))
    check(program)
    return program


def _close(y, expected):
    # Sums of products grow through a program: tolerance goes with the largest value.
    finite = expected[np.isfinite(expected)]
    largest = 1 + (np.abs(finite).max() if finite.size else 0)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(y, expected, rtol=1e-3, atol=2e-5 * largest)


@needs_library
@settings(max_examples=60, deadline=None)
@given(data=st.data(), program=programs())
def test_random_programs_compute_what_their_loops_do(data, program):
    isa = data.draw(st.sampled_from(_isas()))
    n = data.draw(st.sampled_from([1, 16, 32, 48, 64]))
    rows = data.draw(st.sampled_from([0, 1, 2, n - 1, n, n + 1]))
    kinds = {
        i: data.draw(st.sampled_from(valid))
        for i, valid in enumerate(choices(program, n=n, isa=isa))
        if valid and data.draw(st.booleans())
    }
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    x = rng.standard_normal((rows, *program.input_shape)).astype(np.float32)
    made = plan(program, n=n, native=natives.load(isa=isa), kinds=kinds)
    expected = twin.run(program, x)
    _close(run(made, x, n_threads=data.draw(st.integers(1, 3))), expected)


def _conv_program(shape, *, n_out, kernel, stride, padding, density, seed=0, activation="relu"):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((n_out, shape[0], kernel, kernel)).astype(np.float32)
    weight *= rng.random(weight.shape) < density
    weight[0] = 0
    size = [(n + 2 * padding - kernel) // stride + 1 for n in shape[1:]]
    op = Op(
        kind="conv2d",
        inputs=(0,),
        shape=(n_out, *size),
        weight=weight,
        bias=rng.standard_normal(n_out).astype(np.float32),
        activation=activation,
        stride=(stride, stride),
        padding=(padding, padding),
        kernel=(kernel, kernel),
    )
    return Program(input_shape=shape, ops=(op,))


@needs_library
@isas
@pytest.mark.parametrize("n", [1, 16, 64])
@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding"),
    [
        ((3, 12, 20), 3, 1, 1),
        ((40, 8, 8), 3, 1, 1),  # several parts
        ((130, 4, 4), 3, 1, 1),
        ((5, 9, 7), 3, 2, 1),
        ((3, 17, 17), 7, 2, 3),
        ((4, 6, 5), 5, 1, 0),
        ((4, 6, 5), 5, 1, 3),
        ((6, 1, 1), 3, 1, 1),
        ((6, 1, 1), 3, 1, 3),
        ((6, 2, 2), 3, 1, 1),
        ((6, 2, 2), 3, 2, 1),
        ((6, 4, 4), 3, 3, 2),
        ((7, 5, 5), 1, 1, 0),
        ((7, 5, 5), 1, 2, 0),
        ((7, 5, 5), 5, 1, 0),
    ],
)
def test_convolutions_of_every_kind(isa, n, shape, kernel, stride, padding):
    program = _conv_program(
        shape, n_out=9, kernel=kernel, stride=stride, padding=padding, density=0.3
    )
    x = np.random.default_rng(1).standard_normal((n + 1, *shape)).astype(np.float32)
    expected = twin.run(program, x)
    native = natives.load(isa=isa)
    for kind in choices(program, n=n, isa=isa)[0]:
        _close(run(plan(program, n=n, native=native, kinds={0: kind}), x), expected)


@needs_library
def test_what_n_shares_is_packed_once():
    program = _conv_program((3, 8, 8), n_out=5, kernel=3, stride=1, padding=1, density=0.3)
    native = natives.load()
    packed = {}
    for n in (16, 32, 64):
        plan(program, n=n, native=native, packed=packed)
    assert len(packed) == 1
    x = np.random.default_rng(0).standard_normal((70, 3, 8, 8)).astype(np.float32)
    made = [plan(program, n=n, native=native, packed=packed) for n in (1, 16, 32, 64)]
    assert len(packed) == 2
    for each in made:
        _close(run(each, x), twin.run(program, x))


@needs_library
@isas
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("n", [1, 16])
def test_what_is_not_finite_comes_through_kept_weights_only(isa, n, bad):
    program = _conv_program(
        (2, 6, 6), n_out=4, kernel=3, stride=1, padding=1, density=0.3, activation=""
    )
    x = np.random.default_rng(0).standard_normal((3, 2, 6, 6)).astype(np.float32)
    x[1, 0, 2, 3] = bad
    made = plan(program, n=n, native=natives.load(isa=isa), kinds={0: "sparse"})
    y, expected = run(made, x), twin.run(program, x)
    assert not np.isfinite(expected).all()
    assert np.isfinite(expected[1]).any()
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@needs_library
@isas
@pytest.mark.parametrize("n", [1, 16])
@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name])
def test_activations_at_their_ends(isa, n, name):
    ends = [0.0, -0.0, 1e-40, 1e-8, 0.5, 0.625, 3.9, 4.1, 9.0, 20.0, 87.0, 90.0, 110.0, 1e30, INF]
    points = np.array([*ends, *(-x for x in ends), NAN, *np.linspace(-12, 12, 501)], np.float32)
    # Two features, so that softmax has something to weigh.
    x = np.stack([points, np.full_like(points, 0.25)], axis=1)
    op = Op(kind="activation", inputs=(0,), shape=(2,), activation=name)
    program = Program(input_shape=(2,), ops=(op,))
    y = run(plan(program, n=n, native=natives.load(isa=isa)), x)
    expected = twin.run(program, x)
    np.testing.assert_allclose(y, expected, rtol=2e-6, atol=1e-6)


@needs_library
@isas
def test_max_pool_keeps_nan_and_infinity(isa):
    op = Op(
        kind="max_pool", inputs=(0,), shape=(1, 3, 3), kernel=(3, 3), stride=(2, 2), padding=(1, 1)
    )
    program = Program(input_shape=(1, 5, 5), ops=(op,))
    x = np.random.default_rng(0).standard_normal((20, 1, 5, 5)).astype(np.float32)
    x[0, 0, 0, 0], x[1, 0, 4, 4], x[2] = NAN, INF, -INF
    for n in (1, 16):
        made = plan(program, n=n, native=natives.load(isa=isa))
        np.testing.assert_array_equal(run(made, x), twin.run(program, x).astype(np.float32))


@needs_library
@settings(max_examples=40, deadline=None)
@given(data=st.data(), program=programs())
def test_nothing_is_touched_outside_of_the_tile_and_the_output(data, program):
    isa = data.draw(st.sampled_from(_isas()))
    n = data.draw(st.sampled_from([1, 16, 32]))
    native = natives.load(isa=isa)
    made = plan(program, n=n, native=native)
    rows = data.draw(st.integers(1, n))
    guard = 4096
    x = np.random.default_rng(0).standard_normal((rows, *program.input_shape)).astype(np.float32)
    # What a tile holds at first must not matter, and around it nothing may change.
    arena = np.full(made.n_floats + 2 * guard + 16, NAN, np.float32)
    shift = -(arena.ctypes.data // 4 + guard) % 16
    y = np.full(rows * int(np.prod(program.output_shape)) + 2 * guard, 7, np.float32)
    call = native.function("secateurs_run_tile")
    call.restype = None
    call(
        ctypes.c_void_p(made.address),
        ctypes.c_void_p(x.ctypes.data),
        ctypes.c_int64(rows),
        ctypes.c_void_p(y.ctypes.data + 4 * guard),
        ctypes.c_void_p(arena.ctypes.data + 4 * (guard + shift)),
    )
    assert np.isnan(arena[: guard + shift]).all()
    assert np.isnan(arena[guard + shift + made.n_floats :]).all()
    assert (y[:guard] == 7).all()
    assert (y[-guard:] == 7).all()
    _close(y[guard:-guard].reshape(rows, *program.output_shape), twin.run(program, x))


@needs_library
def test_threads_share_a_plan_and_agree_to_the_bit():
    program = _conv_program((4, 9, 9), n_out=6, kernel=3, stride=1, padding=1, density=0.4)
    x = np.random.default_rng(0).standard_normal((150, 4, 9, 9)).astype(np.float32)
    made = plan(program, n=16, native=natives.load())
    alone = run(made, x)
    found = {}

    def work(name):
        found[name] = [run(made, x, n_threads=2) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(np.array_equal(y, alone) for ys in found.values() for y in ys)


@needs_library
def test_results_do_not_depend_on_the_rows_beside():
    program = _conv_program((4, 9, 9), n_out=6, kernel=3, stride=1, padding=1, density=0.4)
    x = np.random.default_rng(0).standard_normal((40, 4, 9, 9)).astype(np.float32)
    made = plan(program, n=16, native=natives.load())
    both = run(made, x)
    assert np.array_equal(run(made, x[37:]), both[37:])


@needs_library
def test_values_share_memory_when_their_time_is_over():
    ops = tuple(
        Op(kind="activation", inputs=(i,), shape=(100,), activation="relu") for i in range(20)
    )
    many, two = (
        plan(Program(input_shape=(100,), ops=ops[:k]), n=16, native=natives.load()) for k in (20, 2)
    )
    assert many.n_floats == two.n_floats


@needs_library
def test_taps_that_only_meet_padding_are_dropped():
    native = natives.load()
    one = _conv_program((8, 1, 1), n_out=8, kernel=3, stride=1, padding=1, density=1)
    made = plan(one, n=1, native=native, kinds={0: "rows"})
    assert made.n_bytes < 8 * 8 * 6 + 8 * 20
    strip = _conv_program((8, 9, 1), n_out=8, kernel=3, stride=1, padding=1, density=1)
    middle = np.count_nonzero(strip.ops[0].weight[:, :, :, 1])
    for n in (1, 16):
        packed = {}
        plan(strip, n=n, native=native, kinds={0: "sparse"}, packed=packed)
        (weights,) = packed.values()
        assert len(weights.values) == middle


@needs_library
@pytest.mark.parametrize("n", [1, 16])
def test_a_convolution_of_the_whole_image_keeps_its_weights(n):
    """It runs as a linear layer, whose weights would be rounded."""
    program = _conv_program((4, 2, 2), n_out=6, kernel=2, stride=1, padding=0, density=1)
    native = natives.load()
    x = np.random.default_rng(0).standard_normal((16, 4, 2, 2), np.float32)
    whole, rounded = (
        run(plan(program, n=n, native=native, precision=precision), x)
        for precision in ("fp32", "int8")
    )
    np.testing.assert_array_equal(rounded, whole)


@needs_library
def test_steps_are_timed():
    program = _conv_program((4, 9, 9), n_out=6, kernel=3, stride=2, padding=1, density=0.4)
    made = plan(program, n=1, native=natives.load())
    times = time_steps(made, np.zeros((1, 4, 9, 9), np.float32))
    assert times.shape == (2,)
    assert made.ops == (0, 0)
    assert (times >= 0).all()


@needs_library
def test_errors_name_the_rule():
    program = _conv_program((4, 9, 9), n_out=6, kernel=3, stride=2, padding=1, density=0.4)
    native = natives.load()
    with pytest.raises(InputError, match="n must be 1 or a multiple of 16, got 8"):
        plan(program, n=8, native=native)
    with pytest.raises(InputError, match=r"operation 0 runs as one of .* got 'sell'"):
        plan(program, n=16, native=native, kinds={0: "sell"})
    made = plan(program, n=16, native=native)
    with pytest.raises(InputError, match=r"x must be \[rows, 4, 9, 9\], got \[4, 9, 9\]"):
        run(made, np.zeros((4, 9, 9), np.float32))
    left = Op(kind="call", inputs=(0,), shape=(2,), function=np.asarray, name="odd")
    with pytest.raises(InputError, match="left to torch"):
        plan(Program(input_shape=(2,), ops=(left,)), n=16, native=native)
