"""Splits do not leak: partitions by groups, preparations of training rows only."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from secateurs.data.images import read_images
from secateurs.errors import InputError
from secateurs.experiments.rows import prepare, split
from secateurs.experiments.spec import ImageRows, Rows
from secateurs.networks.pixels import Normalise

ROWS = Rows(dataset="sklearn:wine", validation_folds=4)


@given(st.integers(0, 50), st.integers(2, 6), st.sampled_from([0, 2, 4]))
def test_a_split_is_a_partition_by_groups_of_identical_rows(seed, test_folds, validation_folds):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"a": rng.integers(0, 8, 120), "b": rng.integers(0, 8, 120)})
    y = rng.integers(0, 3, 120)
    rows = Rows(dataset="", split=seed, test_folds=test_folds, validation_folds=validation_folds)
    sides = split(X, y, rows)
    assert sorted(np.concatenate(sides)) == list(range(120))
    groups = [set(map(tuple, X.iloc[side].to_numpy())) for side in sides]
    assert len(set.union(*groups)) == sum(map(len, groups))
    assert bool(len(sides[1])) == bool(validation_folds)


def test_a_split_keeps_the_shares_of_rows_and_classes():
    X = pd.DataFrame({"a": np.arange(1000)})
    y = np.repeat([0, 1, 2], [700, 250, 50])
    train, held, test = split(X, y, Rows(dataset="", validation_folds=4))
    for side, n in ((train, 600), (held, 200), (test, 200)):
        assert len(side) == n
        np.testing.assert_allclose(np.bincount(y[side]) / n, [0.7, 0.25, 0.05], atol=0.01)


def test_a_class_smaller_than_the_folds_is_split_without_a_word():
    X, y = pd.DataFrame({"a": range(42)}), np.repeat([0, 1, 2], [20, 20, 2])
    sides = split(X, y, Rows(dataset="", validation_folds=4))
    assert sum(map(len, sides)) == 42
    with pytest.raises(InputError, match="cannot be split into 5 stratified folds"):
        split(X.iloc[-2:], y[-2:], Rows(dataset="few"))


def test_splits_differ_by_their_seed_and_by_nothing_else():
    X, y = pd.DataFrame({"a": range(100)}), np.arange(100) % 2
    one, same, other = (
        split(X, y, Rows(dataset=d, split=s)) for d, s in (("", 0), ("x", 0), ("", 1))
    )
    assert np.array_equal(one[2], same[2])
    assert not np.array_equal(one[2], other[2])


def test_the_preparation_sees_training_rows_only():
    prepared = prepare(ROWS)
    x = prepared.data.train[0]
    assert torch.allclose(x.mean(0), torch.zeros(x.shape[1]), atol=1e-5)
    assert not torch.allclose(prepared.test[0].mean(0), torch.zeros(x.shape[1]), atol=1e-3)
    assert [len(x), len(prepared.data.validation[0]), len(prepared.test[0])] == [106, 36, 36]
    assert prepared.seen == 0


def test_a_table_of_the_data_root_is_read_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "tabular").mkdir()
    frame = pd.DataFrame({"a": [0.0, 1.0] * 20, "b": range(40), "target": ["no", "yes"] * 20})
    frame.to_parquet(tmp_path / "tabular" / "toy.parquet")
    monkeypatch.setenv("SECATEURS_DATA", str(tmp_path))
    prepared = prepare(Rows(dataset="toy"))
    assert prepared.classes.tolist() == ["no", "yes"]
    frame.assign(target=[0.5, 1.25] * 20).to_parquet(tmp_path / "tabular" / "numbers.parquet")
    with pytest.raises(InputError, match="experiments are about classes"):
        prepare(Rows(dataset="numbers"))


# --- images --------------------------------------------------------------------------------------

DIGITS = ImageRows(dataset="sklearn:digits", n_validation=100, n_train=200)


def images_of(part):
    """Return the images of a part as the tuples of their pixels."""
    return [x.numpy().tobytes() for x in part[0]]


def test_images_are_normalised_by_their_training_rows_only():
    prepared = prepare(DIGITS)
    x = prepared.data.train[0].double()
    assert x.shape == (200, 1, 8, 8)
    assert prepared.data.train[0].dtype == torch.float32
    assert prepared.data.train[1].dtype == torch.int64
    assert float(x.mean()) == pytest.approx(0, abs=1e-6)
    assert float(x.std(correction=0)) == pytest.approx(1, abs=1e-6)
    for other in (prepared.data.validation[0], prepared.test[0]):
        assert abs(float(other.mean())) > 1e-4
    # the darkest pixel of all is what an empty one has become
    assert prepared.background == pytest.approx(float(x.min()), rel=1e-6)
    raw = read_images("sklearn:digits")
    assert (raw.x_test == 0).any()
    empty = torch.from_numpy(raw.x_test == 0)
    assert set(prepared.test[0][empty].tolist()) == {float(x.min())}
    assert prepared.digest == raw.digest


def test_images_are_drawn_without_overlap_and_the_test_images_are_the_sets_own():
    prepared, raw = prepare(DIGITS), read_images("sklearn:digits")
    train, held = images_of(prepared.data.train), images_of(prepared.data.validation)
    assert (len(train), len(held)) == (200, 100)
    assert not set(train) & set(held)
    assert len(set(train)) == 200
    for seed in (0, 1):
        other = prepare(replace(DIGITS, split=seed, n_train=50))
        assert other.test[1].tolist() == raw.y_test.tolist()
        assert other.test[0].shape == raw.x_test.shape
    assert np.bincount(prepared.data.train[1]).tolist() == pytest.approx([20] * 10, abs=1)
    assert np.bincount(prepared.data.validation[1]).tolist() == pytest.approx([10] * 10, abs=1)
    assert prepared.classes.tolist() == list(range(10))
    assert prepared.preparation is None
    assert prepared.raw is None
    assert prepared.seen == 0


def whitened(image):
    """Return what is left of an image without its shift and scale, as bytes."""
    low, high = image.min(), image.max()
    return np.rint((image - low) / (high - low) * 255).astype(np.uint8).tobytes()


def test_fewer_training_images_are_some_of_more_and_validation_is_the_same():
    """Compared without shift and scale: the fewer are normalised by their own statistics."""
    known, before, held = {}, None, None
    for i, image in enumerate(read_images("sklearn:digits").x_train.astype(np.float64)):
        known.setdefault(whitened(image), []).append(i)
    for n in (None, 400, 100, 20):
        data = prepare(replace(DIGITS, n_train=n)).data
        assert len(data.train[0]) == (1338 if n is None else n)
        chosen, watched = (
            {i for image in part[0].double().numpy() for i in known[whitened(image)]}
            for part in (data.train, data.validation)
        )
        assert not watched & chosen
        assert before is None or (chosen < before and watched == held)
        before, held = chosen, watched


def test_splits_of_images_differ():
    one, other = (prepare(replace(DIGITS, split=seed)) for seed in (0, 1))
    assert set(images_of(one.data.train)) != set(images_of(other.data.train))
    assert one.digest == other.digest


def test_without_validation_images_there_is_no_validation():
    prepared = prepare(replace(DIGITS, n_validation=0, n_train=None))
    assert prepared.data.validation is None
    assert len(prepared.data.train[0]) == 1438


def test_labels_become_codes_of_the_classes_there_are(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.array([1, 3, 7])
    arrays = {}
    for part, n in (("train", 60), ("test", 12)):
        arrays[f"x_{part}"] = rng.integers(0, 256, (n, 3, 4, 5), dtype=np.uint8)
        arrays[f"y_{part}"] = labels[np.arange(n) % 3]
    np.savez(tmp_path / "odd.npz", **arrays)
    prepared = prepare(ImageRows(dataset=str(tmp_path / "odd.npz"), n_validation=15))
    assert prepared.classes.tolist() == [1, 3, 7]
    assert prepared.test[1].tolist() == [0, 1, 2] * 4
    for part in (prepared.data.train, prepared.data.validation):
        assert set(part[1].tolist()) == {0, 1, 2}
    x = prepared.data.train[0]
    assert x.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_more_images_than_there_are_cannot_be_asked_for():
    with pytest.raises(InputError, match="at most the 1438 rows, got 1000 and 1000"):
        prepare(replace(DIGITS, n_validation=1_000, n_train=1_000))
    with pytest.raises(InputError, match="there is no 'sklearn:no'"):
        prepare(replace(DIGITS, dataset="sklearn:no"))


RAW = replace(DIGITS, raw=True)


def test_raw_images_stay_what_they_were():
    prepared, raw = prepare(RAW), read_images("sklearn:digits")
    known = {image.tobytes() for image in raw.x_train}
    for part in (prepared.data.train, prepared.data.validation, prepared.test):
        assert part[0].dtype == torch.uint8
        assert part[1].dtype == torch.int64
    for part in (prepared.data.train, prepared.data.validation):
        assert set(images_of(part)) <= known
    assert np.array_equal(prepared.test[0].numpy(), raw.x_test)
    assert prepared.digest == raw.digest
    assert prepared.preparation is None


@pytest.mark.parametrize("split", [0, 1])
def test_a_network_normalises_raw_images_as_the_others_were(split):
    """The same draw of images, so that `Normalise` of `pixels` gives the normalised ones."""
    raw, other = (prepare(replace(DIGITS, split=split, raw=told)) for told in (True, False))
    assert other.pixels is None
    normalise = Normalise(*raw.pixels)
    for one, expected in (
        (raw.data.train, other.data.train),
        (raw.data.validation, other.data.validation),
        (raw.test, other.test),
    ):
        assert torch.equal(one[1], expected[1])
        assert torch.allclose(normalise(one[0]), expected[0], atol=1e-5)


def test_pixels_are_the_training_images_statistics_by_channel(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (40, 3, 4, 4), dtype=np.uint8) // np.array([1, 2, 4])[:, None, None]
    y = np.arange(40) % 2
    path = tmp_path / "colours.npz"
    np.savez(
        path, x_train=x.astype(np.uint8), y_train=y, x_test=x[:4].astype(np.uint8), y_test=y[:4]
    )
    prepared = prepare(ImageRows(dataset=str(path), n_validation=20, raw=True))
    mean, std = prepared.pixels
    train = prepared.data.train[0].double() / 255
    assert mean == pytest.approx(train.mean((0, 2, 3)).tolist())
    assert std == pytest.approx(train.std((0, 2, 3), correction=0).tolist())
    assert mean[0] > 1.5 * mean[1] > 2 * mean[2]
    whole = prepare(ImageRows(dataset=str(path), n_validation=0, raw=True)).pixels
    assert whole[0] != mean  # the watched images have no part in them


def test_images_that_the_test_shares_with_the_training_are_counted(tmp_path):
    x = np.arange(12 * 4, dtype=np.uint8).reshape(12, 1, 2, 2)
    y = np.arange(12) % 2
    path = tmp_path / "twins.npz"
    np.savez(path, x_train=x[:8], y_train=y[:8], x_test=x[[0, 9, 10, 11]], y_test=y[[0, 9, 10, 11]])
    for raw in (True, False):
        assert prepare(ImageRows(dataset=str(path), n_validation=0, raw=raw)).seen == 0.25


def test_a_folder_of_images_without_a_test_part_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        folder = tmp_path / "train" / name
        folder.mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    rows = ImageRows(dataset=str(tmp_path), n_validation=4, raw=True)
    with pytest.raises(InputError, match="a test part is needed") as err:
        prepare(rows)
    assert "has none; put images that nothing is chosen on at test/CLASS" in str(err.value)
    assert "\n" not in str(err.value)
    (tmp_path / "test").mkdir()
    for name in ("cat", "dog"):
        shutil.copytree(tmp_path / "train" / name, tmp_path / "test" / name)
    prepare.cache_clear()
    assert len(prepare(rows).test[0]) == 12
