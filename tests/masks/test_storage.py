import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from safetensors.torch import save_file

from secateurs import checkpoint, masks
from secateurs.errors import InputError


@st.composite
def some_masks(draw):
    shapes = draw(st.lists(st.lists(st.integers(1, 7), max_size=3), min_size=1, max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return {
        f"layer.{i}": torch.rand(shape, generator=generator) < 0.5 for i, shape in enumerate(shapes)
    }


@given(mask=some_masks())
def test_packing_is_undone_by_unpacking(mask):
    packed = masks.pack(mask)
    assert all(packed[name].numel() == (kept.numel() + 7) // 8 for name, kept in mask.items())
    back = masks.unpack(packed, {name: tuple(kept.shape) for name, kept in mask.items()})
    assert all(torch.equal(back[name], kept) for name, kept in mask.items())


@pytest.mark.parametrize(
    "bits",
    [
        torch.zeros(1, dtype=torch.uint8),
        torch.zeros(3, dtype=torch.uint8),
        torch.zeros(2, 1, dtype=torch.uint8),
        torch.zeros(2, dtype=torch.int64),
    ],
    ids=["short", "long", "matrix", "wrong type"],
)
def test_bits_that_do_not_fit_the_shape_are_refused(bits):
    with pytest.raises(InputError, match="packed mask of w must be 2 bytes"):
        masks.unpack({"w": bits}, {"w": (3, 3)})


@given(mask=some_masks())
def test_loading_undoes_saving(mask, tmp_path_factory):
    path = tmp_path_factory.mktemp("mask") / "mask.safetensors"
    masks.save(path, mask)
    back = masks.load(str(path))
    assert list(back) == list(mask)
    assert all(torch.equal(back[name], kept) for name, kept in mask.items())
    assert all(back[name].shape == kept.shape for name, kept in mask.items())


def test_a_file_has_a_bit_for_each_weight(tmp_path):
    mask = {"w": torch.rand(1000, 800, generator=torch.Generator().manual_seed(0)) < 0.5}
    masks.save(tmp_path / "mask.safetensors", mask)
    assert 100_000 <= (tmp_path / "mask.safetensors").stat().st_size < 100_500


def test_a_transposed_mask_is_saved_as_it_reads(tmp_path):
    kept = (torch.arange(12).reshape(3, 4) % 5 == 0).t()
    masks.save(tmp_path / "m", {"w": kept})
    assert torch.equal(masks.load(tmp_path / "m")["w"], kept)


def test_a_mask_that_is_not_bool_is_not_saved(tmp_path):
    with pytest.raises(InputError, match="a mask must be bool"):
        masks.save(tmp_path / "m", {"w": torch.ones(3)})
    assert not list(tmp_path.iterdir())


BITS = {"w": torch.zeros(2, dtype=torch.uint8)}


@pytest.mark.parametrize(
    ("tensors", "shapes", "words"),
    [
        (BITS, {"w": [3, -3]}, "positive whole numbers"),
        (BITS, {"w": [-3, -3]}, "positive whole numbers"),
        (BITS, {"w": [9, 0]}, "positive whole numbers"),
        (BITS, {"w": [9.0]}, "positive whole numbers"),
        (BITS, {"w": [True, 9]}, "positive whole numbers"),
        (BITS, {"w": ["9"]}, "positive whole numbers"),
        (BITS, {"w": [10**15]}, "must be 125000000000000 bytes"),
        (BITS, {"w": [2**64, 2**64]}, "bytes for shape"),
        (BITS, {"w": [3]}, "must be 1 bytes"),
        ({"w": torch.zeros(9)}, {"w": [3, 3]}, r"got \(9,\) of torch.float32"),
        (BITS, {"v": [9]}, "do not match"),
        (BITS, {"w": [9], "v": [9]}, "do not match"),
        (BITS | {"v": BITS["w"]}, {"w": [9]}, "do not match"),
        (BITS, {"w": 9}, "do not match"),
        (BITS, [["w", 9]], "do not match"),
        (BITS, None, "do not match"),
    ],
    ids=str,
)
def test_hostile_files_are_refused_in_one_line(tmp_path, tensors, shapes, words):
    path = tmp_path / "mask.safetensors"
    checkpoint.save(path, tensors, {"mask": shapes})
    with pytest.raises(InputError, match=words) as caught:
        masks.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated", "noise", "empty", "foreign", "folder", "missing"])
def test_damaged_and_foreign_files_are_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "mask.safetensors"
    masks.save(path, {"w": torch.ones(100, 100, dtype=torch.bool)})
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "foreign":
        save_file({"w": torch.zeros(2)}, path)
    elif damage != "missing":
        path.write_bytes({"truncated": whole[:-100], "noise": b"\x93" * 900, "empty": b""}[damage])
    with pytest.raises(InputError, match=r"mask\.safetensors must be") as caught:
        masks.load(path)
    assert "\n" not in str(caught.value)


def test_other_files_of_ours_are_not_masks(tmp_path):
    checkpoint.save(tmp_path / "m", {"w": torch.zeros(3)}, {"epoch": 3})
    with pytest.raises(InputError, match=r"must be a mask written by masks\.save"):
        masks.load(tmp_path / "m")
