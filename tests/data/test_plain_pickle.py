import collections
import contextlib
import os
import pickle
import time

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from secateurs.data.plain_pickle import plain_dict
from secateurs.errors import InputError

BATCH = {
    b"batch_label": b"training batch 1 of 5",
    b"labels": [6, 9, 255, 256, 65536, -1, 2**40],
    b"data": np.arange(60, dtype=np.uint8).reshape(5, 12),
    b"filenames": [b"leptodactylus_pentadactylus_s_000004.png", b"\xff'\"\\\n"],
    "meta": {"text": "snow\u2603 line\nand \\u0041", "flags": (True, False, None)},
    "nothing": [b"", "", (), [], {}],
}


def python2(batch, *, protocol):
    """Return the bytes that Python 2 would write, of str, int, list and array."""

    def text(value):
        if protocol == 0:
            return b"S" + repr(value)[1:].encode() + b"\n"
        if len(value) < 256:
            return b"U" + bytes([len(value)]) + value
        return b"T" + len(value).to_bytes(4, "little") + value

    def number(value):
        return b"I%d\n" % value if protocol == 0 else b"J" + value.to_bytes(4, "little")

    def sequence(values):
        return b"(" + b"".join(values) + b"t"

    def array(x):
        kind = b"cnumpy\ndtype\n" + sequence([text(b"u1"), number(0), number(1)]) + b"R"
        state = [number(3), text(b"|"), b"N", b"N", b"N", number(0), number(0), number(0)]
        kind += sequence(state) + b"b"
        new = sequence([b"cnumpy\nndarray\n", sequence([number(0)]), text(b"b")])
        new = b"cnumpy.core.multiarray\n_reconstruct\np7\n" + new + b"R"
        parts = [number(1), sequence(map(number, x.shape)), kind, number(0), text(x.tobytes())]
        return new + sequence(parts) + b"b"

    out = b"\x80\x02}q\x01(" if protocol else b"(dp0\n"
    for key, value in batch.items():
        if isinstance(value, np.ndarray):
            made = array(value)
        elif isinstance(value, list):
            items = [number(v) if isinstance(v, int) else text(v) for v in value]
            made = b"](" + b"".join(items) + b"e" if protocol else b"(l" + b"a".join([*items, b""])
        else:
            made = text(value)
        out += text(key) + made + (b"" if protocol else b"s")
    return out + (b"u." if protocol else b".")


def same(got, expected):
    assert list(got) == [key.decode() if isinstance(key, bytes) else key for key in expected]
    for one, other in zip(got.values(), expected.values(), strict=True):
        if isinstance(other, np.ndarray):
            assert one.dtype == np.uint8
            assert one.shape == other.shape
            np.testing.assert_array_equal(one, other)
        else:
            assert one == other
            assert type(one) is type(other)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("change", [np.ascontiguousarray, np.asfortranarray, lambda x: x[:0]])
def test_what_pickle_writes_is_read_as_pickle_reads_it(protocol, change):
    batch = BATCH | {b"data": change(BATCH[b"data"])}
    same(plain_dict(pickle.dumps(batch, protocol=protocol), where="batch"), batch)


@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
@pytest.mark.parametrize("protocol", [4, 5])
def test_arrays_are_known_by_the_names_of_old_and_new_numpy(module, protocol):
    content = pickle.dumps(BATCH, protocol=protocol)
    old = b"numpy._core" if b"numpy._core" in content else b"numpy.core"
    length, name = len(module) - len(old), module.encode()
    place = content.index(old) - 1  # SHORT_BINUNICODE's length of the whole name
    content = content[:place] + bytes([content[place] + length]) + content[place + 1 :]
    content = content.replace(old, name, 1)
    frame = content.index(b"\x95")
    same(plain_dict(content[:frame] + content[frame + 9 :], where="batch"), BATCH)


@pytest.mark.parametrize("protocol", [0, 2])
@pytest.mark.parametrize("n_rows", [2, 40])
def test_batches_of_python_2_are_read_as_pickle_reads_them(protocol, n_rows):
    rng = np.random.default_rng(0)
    batch = {
        b"data": rng.integers(0, 256, (n_rows, 12), dtype=np.uint8),
        b"labels": rng.integers(0, 10, n_rows).tolist(),
        b"filenames": [b"a'b.png", b'c"d.png', bytes(range(256))],
    }
    content = python2(batch, protocol=protocol)
    read = pickle.loads(content, encoding="bytes")
    same({key.decode(): value for key, value in read.items()}, batch)
    same(plain_dict(content, where="batch"), batch)


class Runs:
    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Runs(), r"the name '(posix|nt|os).mkdir'"),
        (print, r"the name '(__builtin__|builtins).print'"),
        (collections.OrderedDict(), "the name 'collections.OrderedDict'"),
        ({1, 2}, r"the (name '(__builtin__|builtins).set'|opcode b'\\x8f')"),
        (0.5, "the opcode b'(F|G)'"),
        (np.zeros(3), "an array of the type 'f8'"),
        (np.zeros(3, dtype=np.int64), "an array of the type 'i8'"),
        (np.array([None]), "an array of the type 'O8'"),
        (np.float32(1), r"the name 'numpy.*scalar'"),
        (np.zeros(2, dtype="u1,u1"), "an array of the type 'V2'"),
    ],
)
def test_anything_else_is_named_and_not_run(tmp_path, monkeypatch, protocol, value, words):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({"data": value}, protocol=protocol)
    with pytest.raises(InputError, match=rf"'a/batch' has {words}.*fetch the published") as caught:
        plain_dict(content, where="a/batch")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        b"(S'made-by-a-pickle'\nios\nmkdir\n.",  # INST
        b"cos\nmkdir\n(S'made-by-a-pickle'\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93.",
        b"\x80\x02cnumpy\nndarray\n)\x81.",  # NEWOBJ
        b"P1\n.",
        b"\x82\x01.",  # an extension
        b"cnumpy\nload\n(S'x'\ntR.",
    ],
)
def test_other_ways_to_call_are_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="nothing of it was run"):
        plain_dict(content, where="batch")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "ends too early"),
        (b"\x80\x02}", "ends too early"),
        (b"}U\x05ab.", "ends too early"),
        (b"}S'a'", "ends too early"),
        (b"T\xff\xff\xff\xff.", "ends too early"),
        (b"\x8e" + b"\xff" * 8, "ends too early"),
        (b"\x80\x09}.", "protocol 9"),
        (b"K\x05.", "no dictionary but int"),
        (b"].", "no dictionary but list"),
        (b".", "values are lacking"),
        (b"(.", "values are lacking"),
        (b"}K\x01K\x02s.", "a key that is no text"),
        (b"}(U\x01au.", "a key that is no text"),
        (b"U\x01aU\x01bs.", "a dict is lacking"),
        (b"K\x01U\x01aU\x01bs.", "a dict is lacking"),
        (b"K\x01a.", "a list is lacking"),
        (b"}h\x03.", "3"),
        (b"Sabc\n.", "a string that is not quoted"),
        (b"S'a\n.", "a string that is not quoted"),
        (b"S'\n.", "a string that is not quoted"),
        (b"S'\\d'\n.", "an escape that"),
        (b"I12x\n.", "invalid literal"),
        (b"}U\x01acnumpy\ndtype\ns.", "name in the place of a value"),
        (b"cnumpy\ndtype\n)R.", "range"),
        (b"cnumpy\ndtype\n(]tR.", "list in the place of a name"),
        (b"]]\x93.", "list in the place of a name"),
        (b"KK)R.", "a call of int"),
    ],
)
def test_damaged_pickles_say_what_is_wrong(content, words):
    with pytest.raises(InputError, match=rf"'batch' cannot be read as a pickle \(.*{words}"):
        plain_dict(content, where="batch")


@pytest.mark.parametrize("shape", [(6,), (2, 2), (-1, -5), (2**70, 0), (5.0,), [5], (1,) * 40])
def test_shapes_that_do_not_fit_their_bytes_are_refused(shape):
    content = pickle.dumps({"data": np.zeros(5, dtype=np.uint8)}, protocol=2)
    before = pickle.dumps((5,), protocol=2)[2:-1].replace(b"q\x00", b"")
    assert content.count(before) == 1
    after = pickle.dumps(shape, protocol=2)[2:-1]
    with pytest.raises(InputError):
        plain_dict(content.replace(before, after), where="batch")


def test_a_list_of_itself_and_shared_lists_cost_nothing():
    itself = []
    itself.append(itself)
    found = plain_dict(pickle.dumps({"labels": itself}), where="batch")
    assert found["labels"][0] is found["labels"]
    laughs = b"]" + b"q\x00]h\x00ah\x00a" * 100  # 2^100 members, if they were visited
    before = time.process_time()
    assert len(plain_dict(laughs + b"q\x00}U\x01ah\x00s.", where="batch")["a"]) == 2
    with pytest.raises(InputError, match="no dictionary but list"):
        plain_dict(laughs + b".", where="batch")
    with pytest.raises(InputError, match="list in the place of a name"):
        plain_dict(laughs + b"q\x00h\x00\x93.", where="batch")
    assert time.process_time() - before < 1


STREAMS = [pickle.dumps(BATCH, protocol=protocol) for protocol in range(6)]
STREAMS += [
    python2({b"labels": [1, 2], b"data": BATCH[b"data"]}, protocol=protocol) for protocol in (0, 2)
]


@st.composite
def damaged(draw):
    content = bytearray(draw(st.sampled_from(STREAMS)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content) - 1))
        kind = draw(st.sampled_from(["set", "flip", "cut", "drop", "insert", "copy"]))
        if kind == "set":
            content[place] = draw(st.integers(0, 255))
        elif kind == "flip":
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del content[max(1, place) :]
        elif kind == "drop":
            del content[place : place + draw(st.integers(1, 9))]
            content = content or bytearray(b".")
        elif kind == "insert":
            content[place:place] = draw(st.binary(min_size=1, max_size=9))
        else:
            content[place:place] = content[: draw(st.integers(1, 40))]
    return bytes(content)


@settings(max_examples=400)
@given(damaged())
def test_damaged_pickles_are_refused_or_plain(content):
    try:
        found = plain_dict(content, where="batch")
    except InputError as err:
        assert "\n" not in str(err)  # noqa: PT017
        return
    for key, value in found.items():
        assert type(key) is str
        assert type(value) in (int, bool, str, bytes, list, tuple, dict, type(None), np.ndarray)


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_plain(content):
    with contextlib.suppress(InputError):
        assert isinstance(plain_dict(b"}" + content, where="batch"), dict)
