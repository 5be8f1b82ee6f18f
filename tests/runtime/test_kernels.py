"""Each kernel of each instruction set against sums in float64."""

import ctypes
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import packed as slow
from secateurs.errors import InputError
from secateurs.runtime import building, native
from secateurs.runtime import pack as packing
from secateurs.runtime.pack import pack
from secateurs.runtime.precision import PRECISIONS

BEST = native.load()
pytestmark = pytest.mark.skipif(
    BEST is None, reason="the kernels are not built: python -m secateurs.runtime.building"
)
HERE = native.ISAS[: BEST.library.secateurs_best_variant() + 1] if BEST else native.ISAS[:1]
TILES = (1, 16, 32, 48, 64, 80, 128)


def drawn(n_rows, n_cols, n, *, density, seed):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((n_rows, n_cols)).astype(np.float32)
    weight[rng.random(weight.shape) >= density] = 0
    bias = rng.standard_normal(n_rows).astype(np.float32)
    return weight, bias, rng.standard_normal((n_cols, n)).astype(np.float32)


def agrees(y, expected, size, n_terms):
    """Within the bound on float32 sums in any order, with gradual underflow."""
    bound = (n_terms + 8) * (2.0**-23 * size + 2.0**-149)
    finite = np.isfinite(expected)
    with np.errstate(invalid="ignore"):
        close = np.abs(y - expected) <= bound
    same = np.where(finite, close, (y == expected) | (np.isnan(y) & np.isnan(expected)))
    return same.all()


def every_kind(n, isa):
    for kind in native.kinds(n=n, isa=isa):
        yield kind, None
    yield "rows", 1
    yield "rows", 40


def check(isa, weight, bias, x, *, activation="relu", precisions=PRECISIONS):
    library = native.load(isa=isa)
    for kind, block in every_kind(x.shape[1], isa):
        for precision in precisions:
            packed = pack(
                *(weight, bias),
                kind=kind,
                block=block,
                activation=activation,
                precision=precision,
            )
            read, stored = slow.unpack(packed)
            with np.errstate(invalid="ignore"):
                expected, size = slow.linear(read, stored, bias, x, activation=activation)
            y = native.linear(packed, x, native=library)
            assert agrees(y, expected, size, x.shape[0]), (isa, kind, block, precision)


@pytest.mark.parametrize("isa", HERE)
@settings(max_examples=40)
@given(
    n_rows=st.integers(0, 140),
    n_cols=st.integers(0, 100),
    n=st.sampled_from(TILES),
    density=st.sampled_from([0.0, 0.02, 0.125, 0.5, 1.0]),
    activation=st.sampled_from(["", "relu"]),
    seed=st.integers(0, 2**16),
)
def test_every_kernel_sums_what_is_stored(isa, n_rows, n_cols, n, density, activation, seed):
    weight, bias, x = drawn(n_rows, n_cols, n, density=density, seed=seed)
    precision = PRECISIONS[seed % 3]
    check(isa, weight, bias, x, activation=activation, precisions=(precision,))


@pytest.mark.parametrize("isa", HERE)
@pytest.mark.parametrize("n", [1, 32])
def test_more_columns_than_sixteen_bits_have(isa, n):
    weight, bias, x = drawn(3, 66_000, n, density=0.001, seed=0)
    weight[2, 65_999] = 1
    library = native.load(isa=isa)
    for kind in native.kinds(n=n, isa=isa):
        packed = pack(weight, bias, kind=kind)
        y = native.linear(packed, x, native=library)
        np.testing.assert_allclose(y, weight.astype(float) @ x + bias[:, None], atol=1e-4)


@pytest.mark.parametrize("isa", HERE)
@pytest.mark.parametrize("n", [1, 16, 64])
def test_bands_of_rows_start_and_end_their_own_sums(isa, n, monkeypatch):
    monkeypatch.setattr(packing, "_BAND", 50)
    check(isa, *drawn(140, 90, n, density=0.1, seed=6))
    long = pack(drawn(140, 90, n, density=0.1, seed=6)[0], kind="rows", block=40)
    assert (long.n_blocks, long.n_per_band) == (9, 3)


@pytest.mark.parametrize("isa", HERE)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_rows_longer_than_what_is_widened_at_once(isa, precision):
    weight, bias, x = drawn(3, 2600, 16, density=1.0, seed=7)
    weight[1, 5:] = 0
    read, stored = slow.unpack(pack(weight, kind="rows", precision=precision))
    expected, size = slow.linear(read, stored, bias, x, activation="")
    packed = pack(weight, bias, kind="rows", precision=precision)
    y = native.linear(packed, x, native=native.load(isa=isa))
    assert agrees(y, expected, size, 2600)


@pytest.mark.parametrize("isa", HERE)
@settings(max_examples=30)
@given(
    n=st.sampled_from([1, 16, 64]),
    bad=st.lists(
        st.sampled_from([np.nan, np.inf, -np.inf, 1e-42, -1e-45, 1e18, -1e33, 0.0]),
        min_size=1,
        max_size=6,
    ),
    in_weight=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_odd_numbers_come_through_and_stay_where_they_are(isa, n, bad, in_weight, seed):
    weight, bias, x = drawn(70, 90, n, density=0.1, seed=seed)
    rng = np.random.default_rng(seed)
    for value in bad:
        if in_weight:
            weight[rng.integers(70), rng.integers(90)] = value
        else:
            x[rng.integers(90), rng.integers(n)] = value
    precisions = PRECISIONS[:1] if in_weight else PRECISIONS
    with np.errstate(over="ignore", invalid="ignore"):
        check(isa, weight, bias, x, activation=("", "relu")[seed % 2], precisions=precisions)


@pytest.mark.parametrize("isa", HERE)
def test_an_infinity_reaches_only_rows_that_read_it(isa):
    weight, bias, x = drawn(130, 130, 1, density=0.1, seed=1)
    for column in (0, 31, 62, 129):
        x[:] = 1
        x[column] = np.inf
        for kind in {"rows", "sell"} & set(native.kinds(n=1, isa=isa)):
            y = native.linear(pack(weight, bias, kind=kind), x, native=native.load(isa=isa))
            np.testing.assert_array_equal(np.isfinite(y[:, 0]), weight[:, column] == 0)


@pytest.mark.parametrize("isa", HERE)
@pytest.mark.parametrize("n", [1, 16])
def test_what_is_too_large_becomes_infinite(isa, n):
    weight, x = np.array([[3e38, 1], [-3e38, 1]], np.float32), np.full((2, n), 10, np.float32)
    for kind in native.kinds(n=n, isa=isa):
        y = native.linear(pack(weight, kind=kind), x, native=native.load(isa=isa))
        assert (y[0] == np.inf).all(), kind
        assert (y[1] == -np.inf).all(), kind


@pytest.mark.parametrize("isa", HERE)
def test_denormals_are_not_flushed(isa):
    weight = np.full((1, 1), 2.0**-20, np.float32)
    x = np.full((1, 16), 2.0**-125, np.float32)
    for tile in (x, x[:, :1]):
        for kind in native.kinds(n=tile.shape[1], isa=isa):
            y = native.linear(pack(weight, kind=kind), tile, native=native.load(isa=isa))
            assert (y == 2.0**-145).all(), kind


@pytest.mark.parametrize("isa", HERE)
@pytest.mark.parametrize("n", TILES)
def test_nothing_is_written_beside_the_output(isa, n):
    weight, bias, x = drawn(67, 45, n, density=0.3, seed=2)
    library = native.load(isa=isa)
    call = library.function("secateurs_linear")
    for kind, block in every_kind(n, isa):
        layer = native.struct(pack(weight, bias, kind=kind, block=block))
        around = np.full(67 * n + 256, 7, np.float32)
        at = around.ctypes.data + 4 * 128
        assert call(ctypes.byref(layer), x.ctypes.data, at, n, None) == 0
        assert (around[:128] == 7).all(), kind
        assert (around[-128:] == 7).all(), kind
        assert (around[128:-128] != 7).all(), kind


@pytest.mark.parametrize("isa", HERE)
def test_layers_in_a_chain_give_what_they_give_alone(isa):
    library = native.load(isa=isa)
    weights = [drawn(*shape, 32, density=0.3, seed=3)[:2] for shape in ((40, 20), (30, 40))]
    layers = [pack(w, b, kind="rows", activation="relu") for w, b in weights]
    a = np.zeros((40, 32), np.float32)
    a[:20] = x = drawn(1, 20, 32, density=1, seed=4)[2]
    b = np.zeros((40, 32), np.float32)
    structs = [native.struct(layer) for layer in layers]
    pointers = (ctypes.c_void_p * 2)(*(ctypes.addressof(s) for s in structs))
    chain = library.function("secateurs_chain")
    arguments = (ctypes.c_void_p(a.ctypes.data), ctypes.c_void_p(b.ctypes.data))
    assert chain(pointers, 2, *arguments, ctypes.c_int64(32), 1) == 0
    alone = native.linear(layers[1], native.linear(layers[0], x, native=library), native=library)
    np.testing.assert_array_equal(a[:30], alone)


@pytest.mark.parametrize("isa", HERE)
def test_a_kernel_that_is_not_there_says_so(isa):
    library = native.load(isa=isa)
    x = np.zeros((4, 16), np.float32)
    for kind in ("sell", "dense1"):
        with pytest.raises(InputError, match="kind must be one of"):
            native.linear(pack(np.eye(4, dtype="f"), kind=kind), x, native=library)
    with pytest.raises(InputError, match="kind must be one of"):
        native.linear(pack(np.eye(4, dtype="f"), kind="dense"), x[:, :1], native=library)
    with pytest.raises(InputError, match="a tile must be"):
        native.linear(pack(np.eye(4, dtype="f"), kind="rows"), x[:, :7], native=library)


def test_the_instruction_set_can_be_asked_for(monkeypatch):
    native.load.cache_clear()
    monkeypatch.setenv("SECATEURS_ISA", "portable")
    assert native.isa() == "portable"
    native.load.cache_clear()
    monkeypatch.setenv("SECATEURS_ISA", "sse9")
    with pytest.raises(InputError, match="unset SECATEURS_ISA"):
        native.load()
    native.load.cache_clear()


def test_a_library_that_is_missing_or_is_none_loads_as_none(tmp_path):
    assert native.load(path=tmp_path / "_kernels.so") is None
    (tmp_path / "not_one.so").write_text("no library")
    assert native.load(path=tmp_path / "not_one.so") is None


@pytest.mark.skipif(building.compiler() is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("sources", ["", "0" * 16])
def test_a_library_of_other_sources_is_not_used(sources, tmp_path):
    code = tmp_path / "other.cpp"
    code.write_text(
        f'extern "C" const char* secateurs_sources() {{ return "{sources}"; }}\n'
        'extern "C" int secateurs_best_variant() { return 0; }\n'
    )
    library = tmp_path / "other.so"
    command = [*building.compiler(), "-shared", "-fPIC", str(code), "-o", str(library)]
    subprocess.run(command, check=True)
    assert native.load(path=library) is None
