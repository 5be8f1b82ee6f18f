"""Packed layers say what the weight says: read back one number at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import packed as slow
from secateurs.errors import InputError
from secateurs.runtime import pack as packing
from secateurs.runtime.pack import KINDS, Sparse, pack, sparse
from secateurs.runtime.precision import PRECISIONS


def drawn(n_rows, n_cols, *, density, seed):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((n_rows, n_cols)).astype(np.float32)
    # Rows of very different density, as trained masks have them.
    keep = density * rng.uniform(0, 2, (n_rows, 1)) if density < 1 else 1.0
    return np.where(rng.random((n_rows, n_cols)) < keep, weight, np.float32(0))


shapes = {
    "n_rows": st.integers(0, 150),
    "n_cols": st.integers(0, 100),
    "density": st.sampled_from([0.0, 0.03, 0.2, 1.0]),
    "seed": st.integers(0, 2**16),
}


@given(**shapes, kind=st.sampled_from(KINDS), block=st.sampled_from([None, 1, 7, 64]))
def test_a_packed_layer_reads_back_as_its_weight(n_rows, n_cols, density, seed, kind, block):
    weight = drawn(n_rows, n_cols, density=density, seed=seed)
    packed = pack(weight, kind=kind, block=block if kind == "rows" else None)
    back, stored = slow.unpack(packed)
    np.testing.assert_array_equal(back, weight)
    if kind in ("rows", "sell"):
        np.testing.assert_array_equal(stored, weight != 0)
    assert packed.n_kept == np.count_nonzero(weight)


@given(**shapes, kind=st.sampled_from(KINDS))
def test_bf16_keeps_eight_bits(n_rows, n_cols, density, seed, kind):
    weight = drawn(n_rows, n_cols, density=density, seed=seed)
    back, _ = slow.unpack(pack(weight, kind=kind, precision="bf16"))
    assert (np.abs(back - weight) <= np.abs(weight) * 2.0**-8).all()


@given(**shapes, kind=st.sampled_from(KINDS))
def test_int8_errs_by_half_a_step_of_its_row(n_rows, n_cols, density, seed, kind):
    weight = drawn(n_rows, n_cols, density=density, seed=seed)
    back, _ = slow.unpack(pack(weight, kind=kind, precision="int8"))
    step = np.abs(weight).max(axis=1, initial=0, keepdims=True) / 127
    assert (np.abs(back - weight) <= 0.5001 * step).all()


def test_bf16_rounds_to_the_nearest_and_ties_to_even():
    bits = [0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x7F800000, 0xFF800000, 0x7F800001]
    weight = np.array([bits], np.uint32).view(np.float32)
    packed = pack(weight, kind="dense", precision="bf16").values.reshape(-1, 12)[:, 0]
    assert [hex(v) for v in packed[:6]] == [
        *("0x3f80", "0x3f82", "0x3f81", "0x3f80"),
        *("0x7f80", "0xff80"),
    ]
    assert np.isnan(np.uint32(int(packed[6]) << 16).view(np.float32))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_kept_packs_as_the_whole_weight_does(kind, precision):
    weight = drawn(70, 90, density=0.2, seed=1)
    bias = np.arange(70, dtype=np.float32)
    kept = sparse(weight)
    again = Sparse(
        values=kept.values,
        columns=kept.columns.astype(np.uint16),
        counts=kept.counts.astype(np.uint16),
        n_cols=90,
    )
    one = pack(weight, bias, kind=kind, precision=precision)
    two = pack(again, bias, kind=kind, precision=precision)
    for name in ("values", "indices", "starts", "counts", "order", "bias"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)


def test_more_columns_than_sixteen_bits_have():
    weight = np.zeros((3, 70_000), np.float32)
    weight[1, 69_999], weight[2, 65_536] = 2, 3
    packed = pack(weight, kind="rows")
    assert packed.indices.dtype == np.uint32
    assert set(packed.indices.tolist()) == {69_999, 65_536}
    assert pack(weight[:, :65_536], kind="rows").indices.dtype == np.uint16


def test_rows_are_sorted_by_their_weights_so_that_the_predictor_knows():
    weight = drawn(90, 60, density=0.3, seed=2)
    packed = pack(weight, kind="rows", block=20)
    for start, end in zip(packed.starts, packed.starts[1:], strict=False):
        assert (np.diff(packed.counts[start:end]) <= 0).all()


def test_bands_hold_every_row_once_in_their_first_and_last_block(monkeypatch):
    monkeypatch.setattr(packing, "_BAND", 32)
    weight = drawn(100, 60, density=0.05, seed=8)
    packed = pack(weight, kind="rows", block=20)
    assert (packed.n_blocks, packed.n_per_band) == (12, 3)
    np.testing.assert_array_equal(slow.unpack(packed)[0], weight)
    for block in range(12):
        rows = packed.order[packed.starts[block] : packed.starts[block + 1]]
        band = range(block // 3 * 32, min(100, block // 3 * 32 + 32))
        assert set(rows) <= set(band)
        assert block % 3 == 1 or sorted(rows) == list(band)


def test_sell_stores_less_than_twice_what_is_kept_at_an_eighth():
    weight = drawn(512, 512, density=1.0, seed=3) * (
        np.random.default_rng(4).random((512, 512)) < 0.125
    )
    packed = pack(weight, kind="sell")
    assert packed.n_bytes < 1.85 * 4 * packed.n_kept


def test_arrays_stand_where_whole_cache_lines_begin():
    packed = pack(drawn(40, 40, density=0.5, seed=5), kind="sell")
    assert packed.values.ctypes.data % 64 == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "csr"}, "kind must be one of"),
        ({"precision": "fp16"}, "precision must be one of"),
        ({"activation": "gelu"}, "activation must be one of"),
        ({"block": 0}, "block must be positive"),
        ({"bias": np.zeros(3, np.float32)}, r"a bias must be \[2\]"),
        ({"weight": np.zeros(4, np.float32)}, r"a weight must be \[out, in\]"),
        ({"weight": np.full((2, 2), np.nan, "f"), "precision": "int8"}, "finite"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(change, said):
    arguments = {"weight": np.eye(2, dtype=np.float32), "kind": "rows"} | change
    with pytest.raises(InputError, match=said) as caught:
        pack(arguments.pop("weight"), arguments.pop("bias", None), **arguments)
    assert "\n" not in str(caught.value)
