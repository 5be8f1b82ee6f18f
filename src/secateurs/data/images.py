"""Read labelled images by name or from files and folders; scale them; choose rows of them."""

import functools
import hashlib
import os
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sklearn.datasets
from numpy.typing import NDArray

from secateurs.data.class_names import CLASS_NAMES
from secateurs.data.image_arrays import ARRAYS, Found, joined, read_npz
from secateurs.data.image_files import ARCHIVES, PUBLISHED, has_published, read_published
from secateurs.data.image_folders import image_files, read_image_files, resized
from secateurs.data.tables import data_root
from secateurs.errors import InputError
from secateurs.seeds import derive

__all__ = [
    "IMAGE_SETS",
    "Images",
    "choose",
    "for_testing",
    "normalised",
    "read_images",
    "statistics",
]

IMAGE_SETS = ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn")
"""Sets that are looked for by name in `data_root()`/vision and in `data_root()`: as NAME.npz, as
halves NAME.part0.npz and NAME.part1.npz, then as published."""

# Where the published files of a set lie together, as published or as other libraries put them.
_PUBLISHED_AT = {
    "mnist": (("mnist",), ("MNIST/raw",)),
    "fashion_mnist": (("fashion_mnist",), ("fashion-mnist",), ("FashionMNIST/raw",)),
    "cifar10": (
        ("cifar-10-batches-py",),
        ("cifar-10-batches-bin",),
        ("cifar-10-python.tar.gz",),
        ("cifar-10-binary.tar.gz",),
    ),
    "cifar100": (
        ("cifar-100-python",),
        ("cifar-100-binary",),
        ("cifar-100-python.tar.gz",),
        ("cifar-100-binary.tar.gz",),
    ),
    "svhn": (("svhn",), ("SVHN",), ("train_32x32.mat", "test_32x32.mat")),
}
_SOURCES = (
    f"{', '.join(IMAGE_SETS)}, sklearn:digits, .npz files with {', '.join(ARRAYS)}, folders or"
    f" {' or '.join(ARCHIVES)} with {PUBLISHED}, and folders with a folder of images for each class"
)
_MOST_CLASSES = 65_536

_Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """Labelled images as they were read; the arrays are read-only, since reads share them.

    Attributes:
        name: of the set, or of the file or folder.
        x_train: uint8 [rows, channels, height, width]; x_test likewise.
        y_train: int64 [rows], classes from 0; y_test likewise. A folder may have no images for
            testing: then x_test and y_test have 0 rows; see `for_testing`.
        classes: their names by label; the labels as text where the source has no names.
        digest: 16 hex digits of the SHA-256 of the four arrays.

    >>> read_images("sklearn:digits").name
    'digits'
    """

    name: str
    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]
    classes: tuple[str, ...]
    digest: str


def read_images(source: str | Path, *, size: int | None = None) -> Images:
    """Read images from a named set, a file, a folder, or `sklearn:digits`.

    An .npz file holds x_train, y_train, x_test and y_test: images uint8 [rows, height, width] or
    [rows, channels, height, width], labels whole numbers [rows]. MNIST's four idx files, CIFAR's
    batches and SVHN's two .mat files are read from the folder that has them, CIFAR's also from the
    published .tar.gz; CIFAR-100 has its fine labels. A folder of images has train/CLASS/*.png and
    test/CLASS/*.png, or CLASS/*.png alone and then no test part. `sklearn:digits` is scikit-learn's
    1,797 digits of 8 x 8, its values 0..16 brought to 0..255, the last fifth of each class for
    testing. Nothing is downloaded. The two sets read last are kept.

    Args:
        source: one of `IMAGE_SETS`, a path, or sklearn:digits.
        size: height and width to bring every image to, see `image_folders.resized`; None leaves
            them, and then all must have one size.

    Raises:
        InputError: a source that is unknown, absent, damaged, or not labelled uint8 images.

    >>> images = read_images("sklearn:digits")
    >>> images.x_train.shape, images.x_test.shape, int(images.x_train.max())
    ((1438, 1, 8, 8), (359, 1, 8, 8), 255)
    """
    if size is not None and not 1 <= size <= 1024:
        raise InputError(f"size must be in 1..1024 pixels, got {size}; leave it out to keep sizes")
    text = os.fspath(source)
    if text == "sklearn:digits":
        return _read("digits", (), size, text)
    try:
        paths = _named(text) if text in IMAGE_SETS else (Path(text).expanduser(),)
        name = text if text in IMAGE_SETS else _stem(paths[0])
        changed = tuple(_fingerprint(text, paths))
    except OSError as err:
        raise InputError(
            f"{text!r} cannot be looked into ({err.strerror}); check the name and its permissions"
        ) from err
    return _read(name, changed, size, *(str(path.absolute()) for path in paths))


def _named(name: str) -> tuple[Path, ...]:
    root = data_root()
    ways = ((f"{name}.npz",), (f"{name}.part0.npz", f"{name}.part1.npz"), *_PUBLISHED_AT[name])
    for folder in (root / "vision", root):
        for way in ways:
            if all((folder / one).exists() for one in way):
                return tuple(folder / one for one in way)
    listed = ", ".join(" with ".join(way) for way in ways)
    raise InputError(
        f"{name} is not in {str(root / 'vision')!r} or {str(root)!r}, where it may be {listed};"
        " nothing is downloaded: put one of them there, or set SECATEURS_DATA to the folder that"
        " has vision/"
    )


def _is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVES)


def _stem(path: Path) -> str:
    if path.is_dir():
        return path.absolute().name
    ending = next((one for one in ARCHIVES if path.name.lower().endswith(one)), path.suffix)
    return path.name[: len(path.name) - len(ending)]


def _fingerprint(text: str, paths: tuple[Path, ...]) -> Iterable[Hashable]:
    """Yield what changes when a source does; refuse what is no source."""
    for path in paths:
        if not path.exists():
            raise InputError(f"images are {_SOURCES}; there is no {text!r}, so check the name")
        if path.is_dir() and has_published(path):
            files = sorted(one for one in path.iterdir() if one.is_file())
        elif path.is_dir():
            listed = image_files(path)
            files = [file for file, _ in (*listed.train, *listed.test)]
        elif len(paths) > 1 or path.suffix.lower() == ".npz" or _is_archive(path):
            files = [path]
        else:
            raise InputError(
                f"images are {_SOURCES}; got {text!r}, so name its folder or convert it to .npz"
            )
        for file in files:
            stat = file.stat()
            yield str(file), stat.st_ino, stat.st_mtime_ns, stat.st_size


@functools.lru_cache(maxsize=2)
def _read(name: str, changed: Hashable, size: int | None, *sources: str) -> Images:
    """Read the sources; what was written anew is read anew."""
    paths = [Path(source) for source in sources]
    if sources[0] == "sklearn:digits":
        found = _digits()
    elif paths[0].suffix.lower() == ".npz":
        found = read_npz(paths[0])
        for other in paths[1:]:
            found = joined(found, read_npz(other), other)
    elif paths[0].is_dir() and not has_published(paths[0]):
        found = read_image_files(image_files(paths[0]), size=size)
    else:
        found = read_published(*paths)
    return _checked(name, sources[0], found, size)


def _digits() -> Found:
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    x = np.rint(x.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    test = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        test[rows[len(rows) - round(len(rows) / 5) :]] = True
    arrays = {"x_train": x[~test], "y_train": y[~test], "x_test": x[test], "y_test": y[test]}
    return Found(arrays=arrays)


def _checked(name: str, source: str, found: Found, size: int | None) -> Images:
    arrays = dict(found.arrays)
    for part in ("train", "test") if "x_test" in arrays else ("train",):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if x.dtype != np.uint8:
            raise _unfit(f"x_{part} must be uint8, 0..255", str(x.dtype), source)
        if x.ndim not in (3, 4) or not x.size or (x.ndim == 4 and x.shape[1] > 4):
            rule = f"x_{part} must be [rows, height, width] or [rows, channels, height, width]"
            raise _unfit(rule, f"shape {x.shape}", source)
        if y.ndim != 1 or len(y) != len(x):
            shapes = f"shape {y.shape} for {len(x)} images"
            raise _unfit(f"y_{part} must have one label for each image", shapes, source)
        if not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
            got = str(y.dtype) if y.dtype.kind not in "iu" else str(y.min())
            raise _unfit(f"y_{part} must be whole numbers from 0", got, source)
        if y.max() >= _MOST_CLASSES:
            raise _unfit(f"y_{part} must be below {_MOST_CLASSES:,}", str(y.max()), source)
        x = x if x.ndim == 4 else x[:, None]
        arrays[f"x_{part}"] = x if size is None else resized(x.astype(np.uint8), size=size)
        arrays[f"y_{part}"] = y.astype(np.int64)
    if "x_test" not in arrays:
        arrays |= {"x_test": arrays["x_train"][:0], "y_test": arrays["y_train"][:0]}
    train, test = arrays["x_train"].shape[1:], arrays["x_test"].shape[1:]
    if train != test:
        raise _unfit("training and test images must have one shape", f"{train}, {test}", source)
    sha = hashlib.sha256()
    for key in ARRAYS:
        arrays[key] = np.ascontiguousarray(arrays[key])
        arrays[key].setflags(write=False)
        sha.update(f"{key} {arrays[key].shape} ".encode())
        sha.update(arrays[key].data)
    n_classes = 1 + int(max(arrays[key].max() for key in ("y_train", "y_test") if len(arrays[key])))
    names = found.classes or CLASS_NAMES.get(name.partition(".part")[0], ())
    if len(names) < n_classes:  # a file that has only the name of a known set
        names = tuple(str(label) for label in range(n_classes))
    digest = sha.hexdigest()[:16]
    return Images(name=name, classes=names, digest=digest, **arrays)  # type: ignore[arg-type]


def _unfit(rule: str, got: str, source: str) -> InputError:
    return InputError(f"{rule}, got {got} in {source!r}; convert the arrays and save them again")


def for_testing(images: Images) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images for testing and their labels.

    Raises:
        InputError: there are none, as in a folder without test/.

    >>> for_testing(read_images("sklearn:digits"))[0].shape
    (359, 1, 8, 8)
    """
    if not len(images.x_test):
        raise InputError(
            f"a test part is needed and {images.name!r} has none; put images that nothing is"
            " chosen on at test/CLASS/*.png beside train/CLASS/*.png"
        )
    return images.x_test, images.y_test


def statistics(x: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and the standard deviation of x / 255 in each channel: float64 [channels].

    Args:
        x: uint8 [rows, channels, height, width]; take the training images.

    >>> mean, std = statistics(np.array([0, 255], dtype=np.uint8).reshape(2, 1, 1, 1))
    >>> float(mean[0]), float(std[0])
    (0.5, 0.5)
    """
    counts = np.zeros((x.shape[1], 256), dtype=np.int64)
    for start in range(0, len(x), 1024):  # bincount makes int64 of what it counts
        for channel in range(x.shape[1]):
            block = x[start : start + 1024, channel]
            counts[channel] += np.bincount(block.ravel(), minlength=256)
    share, value = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = share @ value
    return mean, np.sqrt((share * (value - mean[:, None]) ** 2).sum(axis=1))


def normalised(
    x: NDArray[np.uint8], mean: NDArray[np.float64], std: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return (x / 255 - mean) / std as float32, with the mean and deviation of each channel.

    Args:
        x: uint8 [rows, channels, height, width].
        mean: [channels], of `statistics`.
        std: [channels], of `statistics`.

    Raises:
        InputError: a deviation that is not positive, or not one for each channel.

    >>> x = np.array([[0, 255]], dtype=np.uint8).reshape(1, 1, 1, 2)
    >>> normalised(x, np.array([0.5]), np.array([0.25])).ravel()
    array([-2.,  2.], dtype=float32)
    """
    mean, std = np.asarray(mean, dtype=np.float64), np.asarray(std, dtype=np.float64)
    if mean.shape != (x.shape[1],) or std.shape != mean.shape or not (std > 0).all():
        raise InputError(
            f"each of {x.shape[1]} channels needs a mean and a positive deviation, got"
            f" {mean.tolist()} and {std.tolist()}; leave out channels that are constant"
        )
    table = ((np.arange(256) / 255 - mean[:, None]) / std[:, None]).astype(np.float32)
    out = np.empty(x.shape, dtype=np.float32)
    for channel, values in enumerate(table):
        out[:, channel] = values[x[:, channel]]
    return out


def choose(
    y: NDArray[np.int64], *, n_validation: int, n_train: int | None, seed: int
) -> tuple[_Rows, _Rows]:
    """Return the training rows and the validation rows, drawn at random, stratified by class.

    The counts of the classes are as near to their shares as whole numbers allow: no move of one
    row between two classes would lessen sum_c (count_c - share_c * n)^2 / share_c (Webster's rule;
    largest remainders are not nested). With the same seed and n_validation, a smaller n_train is
    a subset of a larger one.

    Args:
        y: int64 [rows] classes.
        n_validation: number of validation rows, 0 or more.
        n_train: number of training rows out of the others, 1 or more; None is all of them.
        seed: of the draw.

    Returns:
        Two ascending index arrays without a common row.

    Raises:
        InputError: more rows than there are, or fewer than those bounds.

    >>> train, validation = choose(np.arange(100) % 4, n_validation=20, n_train=40, seed=0)
    >>> np.bincount(train % 4).tolist(), np.bincount(validation % 4).tolist()
    ([10, 10, 10, 10], [5, 5, 5, 5])
    """
    wanted = 1 if n_train is None else n_train
    if n_validation < 0 or wanted < 1 or n_validation + wanted > len(y):
        raise InputError(
            f"n_validation must be at least 0, n_train at least 1 and both together at most the"
            f" {len(y)} rows, got {n_validation} and {n_train}; ask for fewer"
        )
    validation = _stratified(y, seed=derive(seed, "validation"))[:n_validation]
    rest = np.setdiff1d(np.arange(len(y)), validation)
    train = rest[_stratified(y[rest], seed=derive(seed, "train"))[:n_train]]
    return np.sort(train), np.sort(validation)


def _stratified(y: NDArray[np.int64], *, seed: int) -> _Rows:
    """Return all rows in an order of which every beginning is stratified."""
    rng = np.random.default_rng(seed)
    _, of_class, counts = np.unique(y, return_inverse=True, return_counts=True)
    shuffled = rng.permutation(len(y))
    grouped = shuffled[np.argsort(of_class[shuffled], kind="stable")]
    place = np.concatenate([(np.arange(n) + 0.5) / n for n in counts])
    return grouped[np.lexsort((rng.permutation(len(counts))[of_class[grouped]], place))]
