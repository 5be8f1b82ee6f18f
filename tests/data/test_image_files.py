import contextlib
import gzip
import io
import pickle
import tarfile

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings

from secateurs.data.class_names import CLASS_NAMES
from secateurs.data.images import read_images
from secateurs.errors import InputError

KEYS = ("x_train", "y_train", "x_test", "y_test")
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))


def made(n_classes, *, n_train=10, n_test=4):
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (n_train, 3, 32, 32), dtype=np.uint8),
        "y_train": np.append(rng.integers(0, n_classes, n_train - 1), n_classes - 1),
        "x_test": rng.integers(0, 256, (n_test, 3, 32, 32), dtype=np.uint8),
        "y_test": rng.integers(0, n_classes, n_test),
    }


def same(images, arrays):
    for key in KEYS:
        got = getattr(images, key)
        assert got.dtype == (np.uint8 if key.startswith("x") else np.int64)
        assert got.flags.c_contiguous
        np.testing.assert_array_equal(got, arrays[key])


def cifar10_files(arrays, *, binary=False, protocol=2):
    """Return the files of CIFAR-10, by name, with two training images in each batch."""
    files = {}
    batches = [
        (name, arrays["x_train"][2 * i : 2 * i + 2], arrays["y_train"][2 * i : 2 * i + 2])
        for i, name in enumerate(TRAIN)
    ]
    for name, x, y in [*batches, ("test_batch", arrays["x_test"], arrays["y_test"])]:
        flat = x.reshape(len(x), -1)
        if binary:
            rows = np.concatenate([y[:, None].astype(np.uint8), flat], axis=1)
            files[f"{name}.bin"] = rows.tobytes()
        else:
            batch = {b"batch_label": b"a", b"labels": y.tolist(), b"data": flat}
            files[name] = pickle.dumps(batch, protocol=protocol)
    return files


def cifar100_files(arrays, *, binary=False):
    files = {}
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        flat = x.reshape(len(x), -1)
        if binary:
            labels = np.stack([y // 5, y], axis=1).astype(np.uint8)
            files[f"{part}.bin"] = np.concatenate([labels, flat], axis=1).tobytes()
        else:
            coarse = (y // 5).tolist()
            batch = {"coarse_labels": coarse, "fine_labels": y.tolist(), "data": flat}
            files[part] = pickle.dumps(batch, protocol=2)
    return files


def svhn_files(arrays):
    files = {}
    for part in ("train", "test"):
        y = arrays[f"y_{part}"]
        opened = io.BytesIO()
        scipy.io.savemat(
            opened,
            {
                "X": arrays[f"x_{part}"].transpose(2, 3, 1, 0),
                "y": np.where(y == 0, 10, y)[:, None].astype(np.uint8),
            },
            do_compression=True,
        )
        files[f"{part}_32x32.mat"] = opened.getvalue()
    return files


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def write_tar(path, folder, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def refuse(source, words):
    with pytest.raises(InputError, match=words) as caught:
        read_images(source)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


# --- whole sets ---------------------------------------------------------------------------------

SETS = {
    "cifar-10-batches-py": ("cifar10", cifar10_files),
    "cifar-10-batches-bin": ("cifar10", lambda arrays: cifar10_files(arrays, binary=True)),
    "cifar-100-python": ("cifar100", cifar100_files),
    "cifar-100-binary": ("cifar100", lambda arrays: cifar100_files(arrays, binary=True)),
    "SVHN": ("svhn", svhn_files),
}
CLASSES = {**CLASS_NAMES, "svhn": tuple("0123456789")}


@pytest.mark.parametrize("published", SETS)
@pytest.mark.parametrize("root", ["vision", "."])
def test_sets_are_read_as_published_by_name_by_folder_and_packed(
    tmp_path, monkeypatch, published, root
):
    monkeypatch.setenv("SECATEURS_DATA", str(tmp_path))
    name, maker = SETS[published]
    arrays = made(len(CLASSES[name]))
    folder = write(tmp_path / root / published, maker(arrays))
    for source in (name, folder, str(folder)):
        images = read_images(source)
        same(images, arrays)
        assert images.classes == CLASSES[name]
        assert images.name == (name if source == name else published)
    packed = write_tar(tmp_path / "set.tar.gz", published, maker(arrays))
    again = read_images(packed)
    assert (again.name, again.digest, again.classes) == ("set", images.digest, images.classes)


@pytest.mark.parametrize("protocol", range(6))
def test_batches_of_any_protocol(tmp_path, protocol):
    arrays = made(10)
    same(read_images(write(tmp_path / "a", cifar10_files(arrays, protocol=protocol))), arrays)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("kind", ["python", "binary"])
def test_published_archives_are_found_by_name(tmp_path, monkeypatch, name, kind):
    monkeypatch.setenv("SECATEURS_DATA", str(tmp_path))
    maker = {"cifar10": cifar10_files, "cifar100": cifar100_files}[name]
    arrays, dashed = made(len(CLASSES[name])), name.replace("cifar", "cifar-")
    files = maker(arrays, binary=kind == "binary")
    write_tar(tmp_path / f"{dashed}-{kind}.tar.gz", "x", files)
    same(read_images(name), arrays)


def test_svhn_is_found_without_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("SECATEURS_DATA", str(tmp_path))
    arrays = made(10)
    write(tmp_path / "vision", svhn_files(arrays))
    images = read_images("svhn")
    same(images, arrays)
    assert images.name == "svhn"


def test_an_npz_goes_before_published_files_and_takes_the_names_of_the_set(tmp_path, monkeypatch):
    monkeypatch.setenv("SECATEURS_DATA", str(tmp_path))
    arrays = made(10)
    write(tmp_path / "vision" / "cifar-10-batches-py", cifar10_files(arrays))
    arrays["x_test"] = arrays["x_test"][::-1]
    np.savez(tmp_path / "vision" / "cifar10.npz", **arrays)
    images = read_images("cifar10")
    same(images, arrays)
    assert images.classes == CLASS_NAMES["cifar10"]


def test_class_names_are_the_published_ones():
    assert len(set(CLASS_NAMES["cifar100"])) == 100
    assert list(CLASS_NAMES["cifar100"]) == sorted(CLASS_NAMES["cifar100"])
    assert {len(CLASS_NAMES[name]) for name in ("cifar10", "fashion_mnist")} == {10}


def test_sets_without_names_name_their_labels(tmp_path):
    arrays = made(3)
    np.savez(tmp_path / "toy.npz", **arrays)
    assert read_images(tmp_path / "toy.npz").classes == ("0", "1", "2")
    np.savez(tmp_path / "cifar10.npz", **arrays | {"y_test": np.array([0, 1, 2, 12])})
    assert read_images(tmp_path / "cifar10.npz").classes == tuple(map(str, range(13)))
    np.savez(tmp_path / "toy.npz", **arrays | {"y_train": arrays["y_train"] + 2**40})
    refuse(tmp_path / "toy.npz", "y_train must be below 65,536")


# --- what lacks or is damaged -------------------------------------------------------------------


@pytest.mark.parametrize("published", SETS)
def test_what_lacks_is_named(tmp_path, published):
    _, maker = SETS[published]
    files = maker(made(10))
    for name in files:
        folder = write(tmp_path / "set", files)
        (folder / name).unlink()
        refuse(folder, f"needs {name} or {name}.gz, and '.*/set' has neither")
    lacking = dict(list(files.items())[1:])
    refuse(write_tar(tmp_path / "a.tgz", "x", lacking), "needs .*a.tgz' has neither")


@pytest.mark.parametrize("published", SETS)
def test_what_is_damaged_is_named(tmp_path, published):
    _, maker = SETS[published]
    files = maker(made(10))
    for name, content in files.items():
        for damaged in (b"", content[:-1], content[: len(content) // 2 - 7], b"\x00" * 999):
            refuse(write(tmp_path / "set", files | {name: damaged}), f"{name}'")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": [3, 10]}, r"in 0..9, got 10 in '.*data_batch_2'"),
        ({"labels": [-1, 1]}, r"in 0..9, got -1"),
        ({"labels": [True, 1]}, "in 0..9, got True"),
        ({"labels": [None, 1]}, "in 0..9, got NoneType"),
        ({"labels": ["1", 1]}, "in 0..9, got str"),
        ({"labels": [10**400, 1]}, r"in 0..9, got 1000000000"),
        ({"labels": [1]}, r"got \(2, 3072\) and 1 labels in '.*data_batch_2'"),
        ({"labels": "12"}, "has 'labels', 'data'"),
        ({"data": [1, 2]}, "has 'labels', 'data'"),
        ({"data": np.zeros((2, 3071), np.uint8)}, r"got \(2, 3071\)"),
        ({"data": np.zeros(6144, np.uint8)}, r"got \(6144,\)"),
        ({"data": np.zeros((0, 3072), np.uint8), "labels": []}, r"got \(0, 3072\)"),
        ({"data": np.zeros((2, 3072))}, "data_batch_2' has an array of the type 'f8'"),
    ],
)
def test_batches_that_do_not_fit_are_named(tmp_path, change, words):
    files = cifar10_files(made(10))
    batch = {"labels": [1, 2], "data": np.zeros((2, 3072), np.uint8)} | change
    files["data_batch_2"] = pickle.dumps(batch)
    refuse(write(tmp_path / "set", files), words)


def test_labels_may_be_an_array(tmp_path):
    files = cifar10_files(made(10))
    batch = {"labels": np.array([1, 2], np.uint8), "data": np.zeros((2, 3072), np.uint8)}
    files["data_batch_2"] = pickle.dumps(batch)
    assert read_images(write(tmp_path / "set", files)).y_train[2:4].tolist() == [1, 2]


def test_coarse_labels_alone_are_not_enough(tmp_path):
    files = cifar100_files(made(100))
    batch = {"coarse_labels": [1], "data": np.zeros((1, 3072), np.uint8)}
    files["test"] = pickle.dumps(batch)
    refuse(write(tmp_path / "set", files), "a list 'fine_labels', but '.*/test' has 'coarse_label")


def test_labels_of_binary_batches_are_checked(tmp_path):
    files = cifar10_files(made(10), binary=True)
    files["data_batch_3.bin"] = b"\x0a" + files["data_batch_3.bin"][1:]
    refuse(write(tmp_path / "set", files), r"in 0..9, got 10 in '.*data_batch_3.bin'")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": np.array([[0], [1]])}, "labels of SVHN are 1..10"),
        ({"y": np.array([[1], [11]])}, "labels of SVHN are 1..10"),
        ({"y": np.array([[1.5], [1]])}, "labels of SVHN are 1..10"),
        ({"y": np.array([["a"], ["b"]])}, "labels of SVHN are 1..10"),
        ({"y": np.array([[1]])}, r"got uint8 \(32, 32, 3, 2\) and \(1, 1\)"),
        ({"X": np.zeros((32, 32, 3, 2))}, "got float64"),
        ({"X": np.zeros((2, 32, 32, 3), np.uint8)}, r"got uint8 \(2, 32, 32, 3\)"),
        ({"X": np.array(["a"])}, "got <U1"),
    ],
)
def test_mat_files_that_do_not_fit_are_named(tmp_path, change, words):
    files, opened = svhn_files(made(10)), io.BytesIO()
    whole = {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[1], [10]])}
    scipy.io.savemat(opened, whole | change)
    files["test_32x32.mat"] = opened.getvalue()
    refuse(write(tmp_path / "set", files), words)
    opened = io.BytesIO()
    scipy.io.savemat(opened, {"other": np.zeros(3)})
    files["test_32x32.mat"] = opened.getvalue()
    refuse(write(tmp_path / "set", files), "X must be uint8 .* got object .*test_32x32.mat'")


def test_archives_that_are_something_else(tmp_path):
    path = write_tar(tmp_path / "set.tar.gz", "x", cifar10_files(made(10)))
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"PK\3\4" * 99):
        path.write_bytes(damaged)
        refuse(path, "set.tar.gz' cannot be read as a .tar.gz")
    refuse(write_tar(path, "x", {"readme.txt": b"x"}), r"are read, and '.*set.tar.gz' has none")


def test_members_of_archives_that_are_no_plain_files_are_passed_over(tmp_path):
    path, files = tmp_path / "set.tar.gz", cifar10_files(made(10))
    with tarfile.open(path, "w:gz") as archive:
        for name in files:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
            archive.addfile(info)
    refuse(path, "are read, and .* has none")
    huge = tarfile.TarInfo("test_batch")
    huge.size = 2**40
    path.write_bytes(gzip.compress(huge.tobuf()))
    refuse(path, "test_batch has 1099511627776 bytes")


def test_one_file_of_a_set_is_not_the_set(tmp_path):
    folder = write(tmp_path, svhn_files(made(10)))
    refuse(folder / "train_32x32.mat", "name its folder or convert it")


FUZZED = {
    "data_batch_1": cifar10_files(made(10)),
    "data_batch_1.bin": cifar10_files(made(10), binary=True),
    "train": cifar100_files(made(100)),
}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    root = tmp_path_factory.mktemp("scratch")
    return {name: write(root / name, files) for name, files in FUZZED.items()}


@st.composite
def damaged(draw):
    name = draw(st.sampled_from(list(FUZZED)))
    content = bytearray(FUZZED[name][name])
    for _ in range(draw(st.integers(1, 3))):
        near = draw(st.integers(0, 400))  # within the pixels, damage only makes other pixels
        place = draw(st.sampled_from([near, len(content) - 1 - near])) % len(content)
        if draw(st.booleans()):
            content[place] = draw(st.integers(0, 255))
        else:
            content[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return name, bytes(content)


@settings(max_examples=80)
@given(damaged())
def test_damaged_batches_are_refused_or_valid(scratch, one):
    name, content = one
    n_classes = 100 if name == "train" else 10
    folder = write(scratch[name], {name: content})
    with contextlib.suppress(InputError):
        images = read_images(folder)
        assert images.x_train.shape[1:] == (3, 32, 32)
        assert len(images.x_train) == len(images.y_train) > 0
        assert 0 <= images.y_train.min() <= images.y_train.max() < n_classes == len(images.classes)
