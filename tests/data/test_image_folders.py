import os
import re

import numpy as np
import pytest
from PIL import Image

from secateurs.data.image_folders import SUFFIXES, image_files, resized
from secateurs.data.images import for_testing, read_images
from secateurs.errors import InputError


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, x, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = x if isinstance(x, Image.Image) else Image.fromarray(x)
    image.save(path, **options)
    return path


def folder_of(root, *, shape=(5, 4, 3), parts=("train", "test"), classes=("cat", "dog"), n=3):
    """Write n images of each class; return them by path within the folder."""
    made = {}
    for part in parts:
        for name in classes:
            for i in range(n if part == "train" else 2):
                path = "/".join(filter(None, (part, name, f"{i}.png")))
                made[path] = pixels(*shape, seed=len(made))
                save(root / path, made[path])
    return made


def refuse(source, words, **options):
    with pytest.raises(InputError, match=words) as caught:
        read_images(source, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800


# --- what is read -------------------------------------------------------------------------------


def test_a_folder_with_both_parts(tmp_path):
    made = folder_of(tmp_path / "pets")
    images = read_images(tmp_path / "pets")
    assert (images.name, images.classes) == ("pets", ("cat", "dog"))
    assert images.y_train.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.y_test.tolist() == [0, 0, 1, 1]
    x = np.concatenate([images.x_train, images.x_test])
    np.testing.assert_array_equal(x, np.stack(list(made.values())).transpose(0, 3, 1, 2))
    assert for_testing(images)[0] is images.x_test


def test_a_folder_of_classes_alone_has_no_test_part(tmp_path):
    folder_of(tmp_path / "pets", shape=(5, 4), parts=("",), n=2)
    images = read_images(tmp_path / "pets")
    assert images.x_train.shape == (4, 1, 5, 4)
    assert images.x_test.shape == (0, 1, 5, 4)
    assert images.y_test.shape == (0,)
    assert (images.x_test.dtype, images.y_test.dtype) == (np.uint8, np.int64)
    with pytest.raises(InputError, match="a test part is needed and 'pets' has none; put"):
        for_testing(images)


def test_the_name_is_that_of_the_folder_however_it_is_told(tmp_path, monkeypatch):
    folder_of(tmp_path / "real", n=1)
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path / "real")
    assert [read_images(one).name for one in (".", tmp_path / "linked")] == ["real", "linked"]


def test_train_may_be_a_class(tmp_path):
    folder_of(tmp_path, parts=("",), classes=("train", "car"))
    assert read_images(tmp_path).classes == ("car", "train")


def test_train_without_test_has_no_test_part(tmp_path):
    folder_of(tmp_path, parts=("train",))
    assert len(read_images(tmp_path).x_test) == 0


def test_a_class_may_lack_for_testing_and_labels_stay(tmp_path):
    folder_of(tmp_path, parts=("train",), classes=("ant", "cat", "dog"))
    folder_of(tmp_path, parts=("test",), classes=("dog",))
    images = read_images(tmp_path)
    assert (images.classes, images.y_test.tolist()) == (("ant", "cat", "dog"), [2, 2])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10", "9", "2", "02"], ("02", "2", "9", "10")),
        (["10", "9", "a"], ("10", "9", "a")),
        (["b", "A", "\u00e9 f"], ("A", "b", "\u00e9 f")),
    ],
)
def test_classes_are_sorted_by_number_or_name(tmp_path, names, expected):
    folder_of(tmp_path, parts=("",), classes=names, n=1)
    assert read_images(tmp_path).classes == expected


def test_hidden_and_other_files_are_passed_over(tmp_path):
    folder_of(tmp_path)
    before = read_images(tmp_path)
    for path in ("train/cat/.0.png", "train/cat/notes.txt", "readme.md", ".git/x", "train/.a/b"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("no image")
    (tmp_path / "train/cat/gone.png").symlink_to("nowhere.png")
    assert read_images(tmp_path).digest == before.digest


def test_images_are_read_anew_when_they_or_their_names_change(tmp_path):
    folder_of(tmp_path)
    before = read_images(tmp_path)
    assert read_images(tmp_path) is before
    (tmp_path / "train" / "cat").rename(tmp_path / "train" / "cow")
    (tmp_path / "test" / "cat").rename(tmp_path / "test" / "cow")
    after = read_images(tmp_path)
    assert (after.classes, after.digest) == (("cow", "dog"), before.digest)
    path = save(tmp_path / "train/cow/0.png", pixels(5, 4, 3, seed=99))
    os.utime(path, (1, 1))
    assert read_images(tmp_path).digest != before.digest


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("change", [str, str.upper])
def test_formats(tmp_path, suffix, change):
    x, options = np.repeat(pixels(1, 1, 3), 8, axis=0).repeat(8, axis=1), {}
    if suffix == ".pgm":
        x = x[..., 0]
    if suffix == ".webp":
        options = {"lossless": True}
    name = "jpeg" if suffix.startswith(".j") else None
    path = save(tmp_path / "a" / f"0{suffix}", x, format=name, **options)
    path.rename(path.with_name(change(path.name)))
    got = read_images(tmp_path).x_train[0]
    expected = x[None] if x.ndim == 2 else x.transpose(2, 0, 1)
    assert got.shape == expected.shape
    assert abs(got.astype(int) - expected).max() <= (3 if name else 0)


def test_grey_is_one_channel_and_all_else_is_rgb(tmp_path):
    x = pixels(6, 5, 3)
    grey, alpha = Image.fromarray(x[..., 0]), pixels(6, 5, seed=1)
    palette = Image.fromarray(pixels(6, 5) % 4, mode=None)
    palette.putpalette(list(range(12)))
    rgba = Image.fromarray(np.dstack([x, alpha]))
    with_alpha = Image.merge("LA", [grey, Image.fromarray(alpha)])
    bits = Image.fromarray(((x[..., 0] > 127) * 255).astype(np.uint8)).convert("1")
    indexed = np.asarray(palette)[None] * 3 + np.arange(3)[:, None, None]
    for name, image, expected, options in [
        ("L", grey, x[None, ..., 0], {}),
        ("LA", with_alpha, x[None, ..., 0], {}),
        ("1", bits, (x[None, ..., 0] > 127) * 255, {}),
        ("RGB", Image.fromarray(x), x.transpose(2, 0, 1), {}),
        ("RGBA", rgba, x.transpose(2, 0, 1), {}),
        ("P", palette, indexed, {}),
        ("P clear", palette, indexed, {"transparency": bytes([0, 9, 255, 3])}),
    ]:
        save(tmp_path / name / "class" / "0.png", image, **options)
        got = read_images(tmp_path / name)
        np.testing.assert_array_equal(got.x_train[0], expected, err_msg=name)


# --- sizes --------------------------------------------------------------------------------------


def test_images_of_several_sizes_are_resized_when_asked(tmp_path):
    a, b = pixels(9, 12, 3), pixels(6, 6, 3, seed=1)
    save(tmp_path / "a" / "0.png", a)
    save(tmp_path / "b" / "0.png", b)
    refuse(tmp_path, r"one size and channel count, got .*; pass a size, such as size=(9|6),")
    images = read_images(tmp_path, size=6)
    assert images.x_train.shape == (2, 3, 6, 6)
    np.testing.assert_array_equal(images.x_train[1], b.transpose(2, 0, 1))
    np.testing.assert_array_equal(images.x_train[0], resized(a.transpose(2, 0, 1)[None], size=6)[0])
    assert read_images(tmp_path, size=7).x_train.shape == (2, 3, 7, 7)


def test_halving_is_near_the_antialiased_mean_and_a_plain_image_stays():
    x = pixels(3, 2, 64, 64)
    out = resized(x, size=1)
    assert abs(out.ravel() - x.mean(axis=(2, 3)).ravel()).max() < 12  # a triangle, not a box
    assert resized(x, size=64) is x
    flat = np.full((2, 4, 5, 9), 200, dtype=np.uint8)
    assert (resized(flat, size=3) == 200).all()
    ramp = np.arange(0, 256, 4, dtype=np.uint8)[None, None, None].repeat(64, axis=2)
    halved = resized(ramp, size=32)[0, 0]
    np.testing.assert_allclose(halved[:, 1:-1], np.tile(np.arange(10, 243, 8), (32, 1)), atol=1)


def test_any_source_is_resized(tmp_path):
    digits = read_images("sklearn:digits", size=16)
    assert digits.x_train.shape[1:] == digits.x_test.shape[1:] == (1, 16, 16)
    assert digits.digest != read_images("sklearn:digits").digest
    same = read_images("sklearn:digits", size=8)
    assert same.digest == read_images("sklearn:digits").digest


@pytest.mark.parametrize("size", [0, -3, 4096])
def test_sizes_out_of_range_are_refused(size):
    refuse("sklearn:digits", f"size must be in 1..1024 pixels, got {size}", size=size)


def test_the_first_odd_file_is_named_with_its_size_and_the_others(tmp_path):
    folder_of(tmp_path)
    save(tmp_path / "train" / "cat" / "1.png", pixels(7, 4, 3))
    save(tmp_path / "test" / "dog" / "1.png", pixels(8, 4, 3))
    refuse(
        tmp_path,
        r"got 7 x 4 with 3 channels in '.*train/cat/1.png' and 5 x 4 with 3 channels in 8 others;"
        r" pass a size, such as size=5,",
    )


@pytest.mark.parametrize("options", [{}, {"size": 4}])
def test_grey_among_rgb_is_named(tmp_path, options):
    folder_of(tmp_path)
    save(tmp_path / "test" / "dog" / "1.png", pixels(5, 4))
    refuse(tmp_path, r"with 1 channel in '.*test/dog/1.png' .*; convert all to grey", **options)


# --- what is refused ----------------------------------------------------------------------------


def test_images_of_more_than_8_bits_are_named(tmp_path):
    save(tmp_path / "a" / "0.png", Image.fromarray(np.full((4, 4), 700, dtype=np.uint16)))
    refuse(tmp_path, r"mode I;16 in '.*a/0.png'; convert")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".bmp", ".tif", ".webp"])
def test_damaged_images_are_named(tmp_path, suffix):
    folder_of(tmp_path, shape=(40, 40, 3), n=1)
    path = save(tmp_path / "train" / "cat" / f"bad{suffix}", pixels(40, 40, 3))
    content = path.read_bytes()
    named = rf"'{re.escape(str(path))}' cannot be read as an image \(.*damaged"
    for damaged in (b"", content[:3], content[: len(content) // 2], b"no image" * 99):
        path.write_bytes(damaged)
        refuse(tmp_path, named)
    path.write_bytes(content)
    assert len(read_images(tmp_path).x_train) == 3


def test_a_png_with_another_checksum_is_named(tmp_path):
    path = save(tmp_path / "a" / "0.png", pixels(30, 30, 3))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    refuse(tmp_path, "a/0.png' cannot be read as an image")


def test_only_plain_formats_are_read(tmp_path):
    save(tmp_path / "a" / "0.png", pixels(4, 4, 3), format="PCX")
    refuse(tmp_path, "a/0.png' cannot be read as an image")


def test_images_too_large_for_memory_are_refused(tmp_path, monkeypatch):
    folder_of(tmp_path, n=1)

    def no_memory(*_, **__):
        raise MemoryError

    monkeypatch.setattr(np, "empty", no_memory)
    refuse(tmp_path, "2 images of 5 x 4 with 3 channels do not fit into memory; pass a small")


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ([], "a folder for each class or the files of a known set, and '.*/set' has neither"),
        (["a.txt"], "has neither"),
        ([".hidden/0.png"], "has neither"),
        (["0.png"], "'.*set/0.png' outside of any; move"),
        (["a/0.png", "0.png"], "'.*set/0.png' outside of any; move"),
        (["a/"], "each class needs images .* '.*set/a' has none and 0 other files"),
        (["a/0.png", "b/x.txt", "b/y.txt"], "'.*set/b' has none and 2 other files"),
        (["a/0.png", "a/deep/1.png"], "holds images only, got the folder '.*set/a/deep'"),
        (["set/train/a/0.png", "set/test/a/0.png"], "got the folder .* or name '.*set/set' itself"),
        (["train/a/0.png", "val/a/0.png"], "has no other, got 'val' in .*; rename it to test"),
        (["test/a/0.png"], "has test/ without train/"),
        (["test/a/0.png", "train/"], "'.*set/train' has neither"),
        (["train/a/0.png", "test/"], "'.*set/test' has neither"),
        (["train/a/0.png", "test/b/0.png"], "among those for training, a, got 'b' in '.*test'"),
        (["train/a/0.png", "test/a/x.txt"], "'.*set/test/a' has none and 1 other files"),
        (["train/a/0.png", "train/0.png"], "'.*set/train/0.png' outside of any"),
        (["train/a/0.png", "0.png"], "'.*set/0.png' outside of any"),
    ],
)
def test_folders_that_do_not_fit_say_where(tmp_path, paths, words):
    (tmp_path / "set").mkdir()
    for path in paths:
        whole = tmp_path / "set" / path
        if path.endswith("/"):
            whole.mkdir(parents=True)
        elif path.endswith(".png"):
            save(whole, pixels(2, 2, 3))
        else:
            whole.parent.mkdir(parents=True, exist_ok=True)
            whole.write_text("text")
    refuse(tmp_path / "set", words)
    with pytest.raises(InputError, match=words):
        image_files(tmp_path / "set")
