import gzip
import os
import pickle
import shutil

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from secateurs.data.images import (
    IMAGE_SETS,
    choose,
    normalised,
    read_images,
    statistics,
)
from secateurs.data.tables import data_root
from secateurs.errors import InputError

KEYS = ("x_train", "y_train", "x_test", "y_test")
IDX = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


def arrays(*, seed=0, shape=(4, 5), **others):
    rng = np.random.default_rng(seed)
    made = {
        "x_train": rng.integers(0, 256, (9, *shape), dtype=np.uint8),
        "y_train": rng.integers(0, 3, 9, dtype=np.uint8),
        "x_test": rng.integers(0, 256, (6, *shape), dtype=np.uint8),
        "y_test": rng.integers(0, 3, 6, dtype=np.uint8),
    }
    return made | others


def write_npz(path, **others):
    np.savez_compressed(path, **arrays(**others))
    return path


def write_idx(folder, made, *, packed):
    folder.mkdir(exist_ok=True)
    for key in KEYS:
        content = bytes([0, 0, 8, made[key].ndim])
        content += b"".join(n.to_bytes(4, "big") for n in made[key].shape)
        content += made[key].tobytes()
        name = IDX[key] + ".gz" * packed
        (folder / name).write_bytes(gzip.compress(content) if packed else content)
    return folder


def same(images, made):
    for key in KEYS:
        got, expected = getattr(images, key), made[key]
        if key.startswith("x"):
            assert got.dtype == np.uint8
            np.testing.assert_array_equal(got, expected[:, None])
        else:
            assert got.dtype == np.int64
            np.testing.assert_array_equal(got, expected)


def refuse(source, words):
    with pytest.raises(InputError, match=words) as caught:
        read_images(source)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


# --- reading ------------------------------------------------------------------------------------


def test_npz_and_idx_files_hold_the_same_images(tmp_path):
    made = arrays()
    sources = [
        write_npz(tmp_path / "toy.npz"),
        write_idx(tmp_path / "plain", made, packed=False),
        write_idx(tmp_path / "packed", made, packed=True),
    ]
    digests = set()
    for source in sources:
        images = read_images(source)
        same(images, made)
        same(read_images(str(source)), made)
        assert images.name == source.stem
        digests.add(images.digest)
    assert len(digests) == 1


def test_channels_are_kept(tmp_path):
    images = read_images(write_npz(tmp_path / "toy.npz", shape=(3, 4, 5)))
    np.testing.assert_array_equal(images.x_train, arrays(shape=(3, 4, 5))["x_train"])


@pytest.mark.parametrize("name", IMAGE_SETS)
@pytest.mark.parametrize("folder", ["vision", "."])
def test_named_sets_lie_under_the_data_root(tmp_path, monkeypatch, name, folder):
    monkeypatch.setenv("SECATEURS_DATA", str(tmp_path))
    (tmp_path / "vision").mkdir()
    refuse(name, rf"{name} is not in '.*/vision' or .*{name}.npz, .*nothing is downloaded: put")
    write_npz(tmp_path / folder / f"{name}.npz")
    images = read_images(name)
    assert images.name == name
    same(images, arrays())


def coded(x):
    """Return the residuals that shared data are stored as, byte by byte."""
    x = x.astype(int).transpose(1, 0, 2, 3)
    x = np.stack([x[0] - x[1], x[1], x[2] - x[1]])
    for axis in (2, 3):
        x = np.diff(x, axis=axis, prepend=0)
    return (x % 256).astype(np.uint8)


def write_halves(folder, made, name="cifar10"):
    paths = []
    for part in range(2):
        halves = {k: v[: len(v) // 2] if part == 0 else v[len(v) // 2 :] for k, v in made.items()}
        for key in ("x_train", "x_test"):
            halves[f"{key}_res"] = coded(halves.pop(key))
        paths.append(folder / f"{name}.part{part}.npz")
        np.savez(paths[-1], test_jpeg=np.zeros(3), **halves)
    return paths


@pytest.mark.parametrize("folder", ["vision", "."])
def test_coded_halves_are_decoded_and_joined(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("SECATEURS_DATA", str(tmp_path))
    (tmp_path / "vision").mkdir()
    made = arrays(shape=(3, 6, 5))
    whole = read_images(write_npz(tmp_path / "whole.npz", shape=(3, 6, 5)))
    first, second = write_halves(tmp_path / folder, made)
    images = read_images("cifar10")
    assert (images.name, images.digest) == ("cifar10", whole.digest)
    assert images.x_train.flags.c_contiguous
    np.testing.assert_array_equal(images.x_train, made["x_train"])
    np.testing.assert_array_equal(read_images(second).x_test, made["x_test"][3:])
    assert read_images(first).name == "cifar10.part0"
    np.savez(second, **arrays())
    refuse("cifar10", r"halves of a set must be alike, but x_train is \(9, 4, 5\)")
    second.unlink()
    refuse("cifar10", "it may be cifar10.npz, cifar10.part0.npz with cifar10.part1.npz, cifar-10-b")


@pytest.mark.parametrize("bad", [np.zeros((9, 3, 4, 5), dtype=np.uint8), np.zeros((3, 9, 4, 5))])
def test_coded_images_that_are_not_are_refused(tmp_path, bad):
    made = arrays()
    np.savez(tmp_path / "toy.npz", x_train_res=bad, **{k: made[k] for k in KEYS[1:]})
    refuse(tmp_path / "toy.npz", "coded images must be uint8 .3, rows, height, width.")


def test_cifar10_as_stored_has_the_published_figures():
    if not (data_root() / "vision" / "cifar10.part1.npz").is_file():
        pytest.skip("needs SECATEURS_DATA with vision/cifar10.part0.npz and part1")
    images = read_images("cifar10")
    assert images.x_train.shape[1:] == images.x_test.shape[1:] == (3, 32, 32)
    assert np.bincount(images.y_train).tolist() == [5000] * 10
    assert np.bincount(images.y_test).tolist() == [1000] * 10
    mean, std = statistics(images.x_train)
    np.testing.assert_allclose(mean, [0.49140, 0.48216, 0.44653], atol=5e-6)
    np.testing.assert_allclose(std, [0.24703, 0.24349, 0.26159], atol=5e-6)


@pytest.mark.parametrize("key", KEYS)
def test_the_digest_tells_every_array(tmp_path, key):
    before = read_images(write_npz(tmp_path / "a.npz"))
    changed = arrays()[key].copy()
    changed.flat[-1] ^= 1
    after = read_images(write_npz(tmp_path / "b.npz", **{key: changed}))
    assert len(before.digest) == 16
    assert before.digest != after.digest


def test_digits_need_no_file():
    images = read_images("sklearn:digits")
    assert images.x_train.shape[1:] == (1, 8, 8)
    assert len(images.x_train) + len(images.x_test) == 1797
    assert (images.x_train.min(), images.x_train.max()) == (0, 255)
    n_train, n_test = np.bincount(images.y_train), np.bincount(images.y_test)
    assert n_test.tolist() == [round(n / 5) for n in n_train + n_test]
    assert read_images("sklearn:digits") is images


def test_a_file_is_read_once_until_it_changes_and_cannot_be_altered_in_memory(tmp_path):
    path = write_npz(tmp_path / "toy.npz")
    images = read_images(path)
    assert read_images(str(path)) is images
    with pytest.raises(ValueError, match="read-only"):
        images.x_train[0] = 0
    write_npz(path, seed=1)
    os.utime(path, (1, 1))  # a coarse clock may give both files one time
    same(read_images(path), arrays(seed=1))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere.npz", "there is no 'nowhere.npz'"),
        (
            "fashion",
            "images are mnist, fashion_mnist, cifar10, .*, sklearn:digits, .*there is no 'fashion'",
        ),
        ("sklearn:iris", "there is no 'sklearn:iris'"),
        ("images.png", "got 'images.png', so name its folder or convert it"),
        ("empty", "has a folder for each class or .* '.*empty' has neither"),
    ],
)
def test_bad_sources(tmp_path, monkeypatch, source, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images.png").touch()
    (tmp_path / "empty").mkdir()
    refuse(source, words)


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"x_train": np.zeros((9, 4, 5))}, "x_train must be uint8, 0..255, got float64"),
        ({"x_test": np.zeros((6, 4, 5), dtype=np.int8)}, "x_test must be uint8.* got int8"),
        ({"x_train": np.zeros((9, 20), dtype=np.uint8)}, r"x_train must be .*shape \(9, 20\)"),
        (
            {"x_test": np.zeros((6, 8, 8, 3), dtype=np.uint8)},
            r"x_test must be .*shape \(6, 8, 8, 3\)",
        ),
        ({"x_train": np.zeros((9, 0, 5), dtype=np.uint8)}, r"got shape \(9, 0, 5\)"),
        ({"x_test": np.zeros((6, 5, 4), dtype=np.uint8)}, r"one shape, got .*4, 5\), \(1, 5, 4\)"),
        ({"x_test": np.zeros((5, 4, 5), dtype=np.uint8)}, r"shape \(6,\) for 5 images"),
        ({"y_train": np.zeros((9, 1), dtype=np.uint8)}, r"one label .*shape \(9, 1\)"),
        ({"y_train": np.arange(9) - 1}, "y_train must be whole numbers from 0, got -1"),
        ({"y_test": np.zeros(6)}, "y_test must be whole numbers from 0, got float64"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, others, words):
    refuse(write_npz(tmp_path / "toy.npz", **others), words)


def test_an_npz_that_lacks_arrays_lists_what_it_has(tmp_path):
    np.savez(tmp_path / "toy.npz", x_train=np.zeros(3), images=np.zeros(3))
    refuse(tmp_path / "toy.npz", "lacks y_train, x_test, y_test and has 'x_train', 'images'")


def test_pickled_arrays_are_refused(tmp_path):
    write_npz(tmp_path / "toy.npz", y_test=np.array([None] * 6, dtype=object))
    refuse(tmp_path / "toy.npz", "cannot be read as .npz .*allow_pickle")


def test_files_that_are_something_else(tmp_path):
    path = tmp_path / "toy.npz"
    for content in (b"", b"PK\3\4", pickle.dumps([1]), np.random.default_rng(0).bytes(3000)):
        path.write_bytes(content)
        refuse(path, "toy.npz' cannot be read as .npz")
    np.save(tmp_path / "bare.npy", np.zeros(3))
    refuse((tmp_path / "bare.npy").rename(path), "cannot be read as .npz")


def test_damaged_npz_files_are_refused_or_unharmed(tmp_path):
    path = write_npz(tmp_path / "toy.npz")
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for share in (0.1, 0.5, 0.99):
        path.write_bytes(content[: int(len(content) * share)])
        refuse(path, "cannot be read as .npz")
    refused = 0
    for place in rng.integers(len(content), size=200):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            images = read_images(path)
        except InputError:
            refused += 1
        else:
            same(images, arrays())  # dates and the like carry no data
    assert refused > 50


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("key", KEYS)
def test_damaged_idx_files_are_named(tmp_path, key, packed):
    folder = write_idx(tmp_path / "toy", arrays(), packed=packed)
    path = folder / (IDX[key] + ".gz" * packed)
    content = path.read_bytes()
    for damaged in (b"", content[:6], content[:-1], b"\1" + content[1:]):
        path.write_bytes(damaged)
        refuse(folder, f"{path.name}' cannot be read as idx")
    path.unlink()
    refuse(folder, f"needs {IDX[key]} or {IDX[key]}.gz")


def test_images_in_the_place_of_labels_are_told_by_their_magic_number(tmp_path):
    folder = write_idx(tmp_path / "toy", arrays(), packed=False)
    shutil.copy(folder / IDX["x_train"], folder / IDX["y_train"])
    refuse(folder, r"train-labels-idx1-ubyte' .*opens with 2051, not 2049")


# --- scaling ------------------------------------------------------------------------------------


def test_scaling_equals_the_formulas():
    x = arrays(shape=(3, 4, 5))["x_train"]
    mean, std = statistics(x)
    np.testing.assert_allclose(mean, (x / 255).mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, (x / 255).std(axis=(0, 2, 3)), rtol=1e-12)
    out = normalised(x, mean, std)
    assert out.dtype == np.float32
    expected = (x / 255 - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-7)


def test_statistics_over_many_blocks():
    x = np.random.default_rng(0).integers(0, 256, (2500, 1, 2, 2), dtype=np.uint8)
    mean, std = statistics(x)
    assert (mean[0], std[0]) == pytest.approx(((x / 255).mean(), (x / 255).std()), rel=1e-12)


def test_scaled_images_are_tensors_without_a_warning():
    images = read_images("sklearn:digits")
    out = normalised(images.x_test, *statistics(images.x_train))
    assert torch.from_numpy(out).shape == images.x_test.shape


@pytest.mark.parametrize(("mean", "std"), [([0.1], [0.0]), ([0.1, 0.1], [1, 1]), ([0.1], [np.nan])])
def test_deviations_that_do_not_fit_are_refused(mean, std):
    with pytest.raises(InputError, match="each of 1 channels needs a mean and a positive"):
        normalised(arrays()["x_train"][:, None], np.array(mean), np.array(std))


# --- choosing rows ------------------------------------------------------------------------------


@st.composite
def choices(draw):
    counts = draw(st.lists(st.integers(1, 30), min_size=1, max_size=6))
    y = np.repeat(np.arange(len(counts)), counts)
    np.random.default_rng(draw(st.integers(0, 99))).shuffle(y)
    n_validation = draw(st.integers(0, len(y) - 1))
    n_train = draw(st.integers(1, len(y) - n_validation))
    return y, n_validation, n_train, draw(st.integers(0, 2**40))


def nearest(counts, n):
    """Return whether no move of one row between classes would bring n rows nearer to the shares."""

    def off(taken):
        return sum((t - n * c / sum(counts)) ** 2 / c for t, c in zip(taken, counts, strict=True))

    def holds(taken):
        moves = [
            taken - np.eye(len(counts), dtype=int)[a] + np.eye(len(counts), dtype=int)[b]
            for a in range(len(counts))
            for b in range(len(counts))
        ]
        return all(off(taken) <= off(move) + 1e-9 for move in moves)

    return holds


@given(choices())
def test_chosen_rows_are_disjoint_exact_and_stratified(choice):
    y, n_validation, n_train, seed = choice
    train, validation = choose(y, n_validation=n_validation, n_train=n_train, seed=seed)
    assert (len(train), len(validation)) == (n_train, n_validation)
    assert len(set(train) | set(validation)) == n_train + n_validation
    n_classes = y.max() + 1
    all_rows, held = np.bincount(y), np.bincount(y[validation], minlength=n_classes)
    assert nearest(all_rows, n_validation)(held)
    rest = all_rows - held
    left = np.flatnonzero(rest)  # a class may be spent
    taken = np.bincount(y[train], minlength=n_classes)
    assert nearest(rest[left], n_train)(taken[left])


@given(choices())
def test_smaller_choices_are_nested_in_larger_ones(choice):
    y, n_validation, n_train, seed = choice
    train, validation = choose(y, n_validation=n_validation, n_train=n_train, seed=seed)
    everything, same_validation = choose(y, n_validation=n_validation, n_train=None, seed=seed)
    assert np.array_equal(validation, same_validation)
    assert np.array_equal(np.setdiff1d(np.arange(len(y)), validation), everything)
    for n in range(1, n_train):
        smaller, _ = choose(y, n_validation=n_validation, n_train=n, seed=seed)
        assert set(smaller) < set(train)


def test_equal_classes_are_chosen_equally_to_within_one_row():
    y = np.repeat(np.arange(10), 600)
    for n in (1, 1000, 1005):
        train, validation = choose(y, n_validation=500, n_train=n, seed=3)
        assert (np.bincount(y[validation]) == 50).all()
        counts = np.bincount(y[train], minlength=10)
        assert counts.max() - counts.min() <= 1


def test_rows_are_drawn_uniformly_and_by_the_seed_only():
    y, state = np.repeat([0, 1], 10), np.random.get_state()[1].copy()  # noqa: NPY002
    counts = np.zeros((2, 20))
    for seed in range(2000):
        for count, rows in zip(
            counts, choose(y, n_validation=4, n_train=8, seed=seed), strict=True
        ):
            count[rows] += 1
    # 4 standard deviations of shares of 8 and of 4 rows in 20
    assert (abs(counts[0] / 2000 - 0.4) < 0.044).all()
    assert (abs(counts[1] / 2000 - 0.2) < 0.036).all()
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    again = [choose(y, n_validation=4, n_train=8, seed=7)[0] for _ in range(2)]
    assert np.array_equal(*again)


@pytest.mark.parametrize(
    ("n_validation", "n_train"), [(-1, None), (10, None), (0, 0), (0, 11), (5, 6), (11, None)]
)
def test_more_rows_than_there_are_are_refused(n_validation, n_train):
    with pytest.raises(InputError, match=f"the 10 rows, got {n_validation} and {n_train}"):
        choose(np.zeros(10, dtype=np.int64), n_validation=n_validation, n_train=n_train, seed=0)
