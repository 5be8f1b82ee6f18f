"""A file holds what was written, is small, and is refused where it is not one."""

import hashlib
import json
import os
import re
import stat
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.mutations import joined, mutations, parts
from secateurs.errors import InputError
from secateurs.runtime.precision import PRECISIONS, rounded
from secateurs.runtime.program import Op, Program, check
from secateurs.runtime.storage import Stored, dump, parse, read, write


def masked(rng, shape, density):
    weight = rng.standard_normal(shape).astype(np.float32)
    weight[rng.random(shape) >= density] = 0
    return weight


def linear(rng, n_in, n_out, density, **more):
    bias = rng.standard_normal(n_out).astype(np.float32)
    return Op(
        kind="linear", shape=(n_out,), weight=masked(rng, (n_out, n_in), density), bias=bias, **more
    )


def chain(rng, widths, density):
    ops = [
        linear(rng, a, b, density, inputs=(i,), activation="relu")
        for i, (a, b) in enumerate(pairwise(widths))
    ]
    return Program(input_shape=(widths[0],), ops=tuple(ops))


def images(rng, density=0.2):
    """A small residual network with an operation of almost every kind."""
    conv = Op(
        kind="conv2d", inputs=(0,), shape=(4, 6, 6), weight=masked(rng, (4, 2, 3, 3), density),
        kernel=(3, 3), padding=(1, 1), activation="relu", name="stem",
    )  # fmt: skip
    again = Op(
        kind="conv2d", inputs=(1,), shape=(4, 6, 6), weight=masked(rng, (4, 4, 1, 1), density),
        bias=np.arange(4, dtype=np.float32),
    )  # fmt: skip
    scale = Op(kind="scale", inputs=(2,), shape=(4, 6, 6), weight=np.full(4, 2, np.float32))
    added = Op(kind="add", inputs=(1, 3), shape=(4, 6, 6), activation="relu")
    pool = {"kernel": (2, 2), "stride": (2, 2), "shape": (4, 3, 3)}
    one = Op(kind="max_pool", inputs=(4,), **pool)
    two = Op(kind="avg_pool", inputs=(4,), include_padding=False, **pool)
    both = Op(kind="concat", inputs=(5, 6), shape=(8, 3, 3))
    flat = Op(kind="flatten", inputs=(7,), shape=(72,))
    out = linear(rng, 72, 3, density, inputs=(8,), activation="softmax")
    return Program(
        input_shape=(2, 6, 6), ops=(conv, again, scale, added, one, two, both, flat, out)
    )


def same(program, other):
    assert program.input_shape == other.input_shape
    assert len(program.ops) == len(other.ops)
    for op, twin in zip(program.ops, other.ops, strict=True):
        for name in ("kind", "inputs", "shape", "activation", "name", "kernel", "stride"):
            assert getattr(op, name) == getattr(twin, name)
        assert (op.padding, op.include_padding) == (twin.padding, twin.include_padding)
        for name in ("weight", "bias"):
            ours, theirs = getattr(op, name), getattr(twin, name)
            assert (ours is None) == (theirs is None)
            if ours is not None:
                np.testing.assert_array_equal(ours, theirs)
                assert theirs.dtype == np.float32


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([0, 0.02, 0.1, 0.5, 1]),
    st.sampled_from(PRECISIONS),
)
def test_what_is_read_is_what_was_written(seed, n_in, n_out, density, precision):
    program = rounded(chain(np.random.default_rng(seed), (n_in, n_out, 3), density), precision)
    stored = Stored(
        program=program, precision=precision, kinds={1: {0: "sell"}, 32: {}}, about={"a": [1, "é"]}
    )
    blob = dump(stored)
    found = parse(blob)
    same(program, found.program)
    assert (found.precision, found.kinds, found.about) == (precision, stored.kinds, stored.about)
    assert found.n_bytes == len(blob)
    assert dump(found) == blob  # what was rounded once is not rounded again


def test_every_kind_of_operation_comes_back():
    program = images(np.random.default_rng(0))
    check(program)
    same(program, parse(dump(Stored(program=program))).program)


@pytest.mark.parametrize(
    ("density", "form"), [(1, "dense"), (0.5, "bits"), (0.125, "bits"), (0.02, "columns")]
)
def test_the_smallest_form_is_taken(density, form):
    blob = dump(Stored(program=chain(np.random.default_rng(0), (256, 256), density)))
    assert json.loads(parts(blob)[0])["ops"][0]["weight"]["form"] == form


def test_rows_of_more_columns_than_uint16_holds():
    weight = np.zeros((2, 70_000), np.float32)
    weight[1, 69_999] = 3
    op = Op(kind="linear", inputs=(0,), shape=(2,), weight=weight)
    program = Program(input_shape=(70_000,), ops=(op,))
    same(program, parse(dump(Stored(program=program))).program)


def test_odd_values_are_kept_as_they_are():
    weight = np.array([[np.nan, np.inf, 1e-45, -np.inf, 0, 0, 0, 0] * 8], np.float32)
    program = Program(
        input_shape=(64,), ops=(Op(kind="linear", inputs=(0,), shape=(1,), weight=weight),)
    )
    same(program, parse(dump(Stored(program=program))).program)


@pytest.mark.parametrize("r", [2, 4, 8, 16, 50])
@pytest.mark.parametrize("widths", [(28, *[512] * 9, 2), (784, 300, 100, 10)])
def test_files_are_small(r, widths):
    rng = np.random.default_rng(0)
    program = chain(rng, widths, 1 / r)
    n = sum(op.weight.size for op in program.ops)
    kept = sum(np.count_nonzero(op.weight) for op in program.ops)
    allowed = 1.2 * (4 * kept + n / 8)
    assert len(dump(Stored(program=program))) <= allowed


def test_lower_precisions_are_smaller():
    program = chain(np.random.default_rng(0), (256, 256, 10), 0.25)
    sizes = {
        precision: len(dump(Stored(program=rounded(program, precision), precision=precision)))
        for precision in PRECISIONS
    }
    assert sizes["int8"] < 0.65 * sizes["bf16"]
    assert sizes["bf16"] < 0.6 * sizes["fp32"]


def test_a_mapped_file_shares_its_pages(tmp_path):
    program = chain(np.random.default_rng(0), (64, 64), 1)
    write(tmp_path / "net.secateurs", dump(Stored(program=program)))
    found = read(tmp_path / "net.secateurs").program.ops[0]
    assert not found.weight.flags.writeable
    base = found.weight
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap)
    assert found.bias.ctypes.data % 64 == 0


def test_an_older_file_is_replaced_in_one_step(tmp_path):
    path = tmp_path / "net"
    write(path, b"old")
    write(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["net"]
    with pytest.raises(InputError, match="cannot write"):
        write(tmp_path / "no" / "net", b"new")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        write(tmp_path / "folder", b"new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "net"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(InputError, match="cannot write"):
        write(tmp_path / "net", b"new")


def test_parts_left_to_torch_are_not_stored():
    op = Op(kind="call", inputs=(0,), shape=(2,), function=lambda x: x, name="odd")
    with pytest.raises(InputError, match="left to torch cannot be stored, got odd"):
        dump(Stored(program=Program(input_shape=(2,), ops=(op,))))


def test_what_is_no_json_is_not_stored():
    program = chain(np.random.default_rng(0), (2, 2), 1)
    for about in ({"a": object()}, {"a": float("nan")}):
        with pytest.raises(InputError, match="must be JSON"):
            dump(Stored(program=program, about=about))


def with_header(change, *, data=None):
    blob = dump(Stored(program=chain(np.random.default_rng(0), (64, 16), 0.1)))
    header, old = json.loads(parts(blob)[0]), parts(blob)[1]
    change(header)
    return joined(header, old if data is None else data)


def weight_of(header):
    return header["ops"][0]["weight"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda h: h.update(input_shape=[63]), "operations do not fit"),
        (lambda h: h.update(input_shape=[2**25]), "not in"),
        (lambda h: h.update(ops=[]), "no operations"),
        (lambda h: h.update(extra=1), "not ours"),
        (lambda h: h.update(precision="fp8"), "no such precision"),
        (lambda h: h.update(precision="int8"), "another precision"),
        (lambda h: h["ops"][0].update(kind="call"), "left to torch"),
        (lambda h: h["ops"][0].update(shape=[True]), "not in"),
        (lambda h: h["ops"][0].update(padding=[0, 2**20]), "not in"),
        (lambda h: h["ops"][0].update(activation="exp"), "do not fit"),
        (lambda h: weight_of(h).update(kept=weight_of(h)["kept"] + 1), "count|early|more data"),
        (lambda h: weight_of(h).update(kept=2**20), "not in"),
        (lambda h: weight_of(h).update(shape=[2**31 - 1, 2**31 - 1]), "too large"),
        (lambda h: weight_of(h).update(shape=[2**20, 2**15]), "count|early|memory"),
        (lambda h: weight_of(h).update(form="csr"), "no such form"),
        (lambda h: h.update(kinds={"32": {"7": "rows32"}}), "no such operation"),
    ],
)
def test_headers_that_lie_are_refused(change, reason):
    with pytest.raises(InputError, match=reason) as caught:
        parse(with_header(change))
    assert "\n" not in str(caught.value)


def test_little_data_cannot_ask_for_much_memory():
    def change(header):
        header["input_shape"] = [2**16]
        header["ops"][0].update(shape=[2**12], bias=False)
        weight_of(header).update(shape=[2**12, 2**16], form="columns", kept=0)

    with pytest.raises(InputError, match="far more memory than it has data"):
        parse(with_header(change, data=bytes(4 * 2**12)))


def test_a_changed_weight_is_found_where_asked():
    blob = dump(Stored(program=chain(np.random.default_rng(0), (64, 16), 1)))
    damaged = bytearray(blob)
    damaged[-70] ^= 1
    with pytest.raises(InputError, match="do not match their checksum"):
        parse(bytes(damaged))
    parse(bytes(damaged), verify=False)


@pytest.mark.parametrize("cut", [0, 1, 63, 64, 200, -1])
def test_truncated_files_are_refused(cut, tmp_path):
    blob = dump(Stored(program=chain(np.random.default_rng(0), (64, 16), 0.1)))
    (tmp_path / "net").write_bytes(blob[:cut])
    with pytest.raises(InputError, match="must be a file that"):
        read(tmp_path / "net")


def test_other_files_and_versions_are_refused(tmp_path):
    blob = bytearray(dump(Stored(program=chain(np.random.default_rng(0), (4, 4), 1))))
    with pytest.raises(InputError, match="begins with something else"):
        parse(b"x" + bytes(blob[1:]))
    blob[8] = 9
    with pytest.raises(InputError, match="its format is 9 and this version reads 1"):
        parse(bytes(blob))
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match=re.escape(f"{path}")):
            read(path)


def hostile_files(n, *, seed):
    """Return how many of n files were refused, and those that were not."""
    rng = np.random.default_rng(seed)
    programs = [chain(rng, (7, 16, 3), d) for d in (0.1, 0.4, 1)] + [images(rng)]
    programs.append(rounded(programs[1], "int8"))
    blobs = [dump(Stored(program=p, kinds={1: {0: "sell"}})) for p in programs[:4]]
    blobs.append(dump(Stored(program=programs[4], precision="int8")))
    taken, told = [], []
    for i, source in enumerate(mutations(blob, rng) for blob in blobs):
        for j in range(n // len(blobs)):
            blob = next(source)
            try:
                taken.append(parse(blob, verify=bool((i + j) % 2)))
            except InputError as err:
                told.append(str(err))
    assert not any("\n" in one for one in told)
    return len(told), taken


def assert_in_bounds(found):
    check(found.program)
    for op in found.program.ops:
        if op.weight is not None:
            assert op.weight.dtype == np.float32
            assert op.weight.flags.c_contiguous


def test_mutated_files_are_refused_or_in_bounds():
    refused, taken = hostile_files(3000, seed=0)
    assert refused > 1500  # otherwise the mutations are no damage
    assert len(taken) > 30  # nor are they nothing but
    for found in taken:
        assert_in_bounds(found)


@pytest.mark.slow
def test_many_mutated_files_are_refused_or_in_bounds():
    for found in hostile_files(40_000, seed=1)[1]:
        assert_in_bounds(found)


def test_the_checksum_of_the_data_is_of_the_data():
    blob = dump(Stored(program=chain(np.random.default_rng(0), (4, 4), 1)))
    header, data = parts(blob)
    assert json.loads(header)["sha256"] == hashlib.sha256(data).hexdigest()
