"""Read labelled images from .npz files and published idx files; scale them; choose rows of them."""

import functools
import gzip
import hashlib
import lzma
import os
import zipfile
import zlib
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sklearn.datasets
from numpy.typing import NDArray

from secateurs.data.tables import data_root
from secateurs.errors import InputError
from secateurs.seeds import derive

__all__ = ["IMAGE_SETS", "Images", "choose", "normalised", "read_images", "statistics"]

IMAGE_SETS = ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn")
"""Sets that are looked for by name: `vision/NAME.npz`, else `NAME.npz`, under `data_root()`; a set
of two halves is NAME.part0.npz and NAME.part1.npz."""

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
# Lossless residuals, which compress better than the images.
_CODED = {"x_train": "x_train_res", "x_test": "x_test_res"}
# As published by LeCun: the file's name and the number that it opens with.
_IDX = {
    "x_train": ("train-images-idx3-ubyte", 2051),
    "y_train": ("train-labels-idx1-ubyte", 2049),
    "x_test": ("t10k-images-idx3-ubyte", 2051),
    "y_test": ("t10k-labels-idx1-ubyte", 2049),
}
_SOURCES = (
    f"{', '.join(IMAGE_SETS)}, sklearn:digits, .npz files with {', '.join(_ARRAYS)}, and folders"
    " with the four idx files"
)
# What NumPy and the decompressors raise on bytes that are not what the name says.
_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    MemoryError,
    SyntaxError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)

_Arrays = dict[str, NDArray[np.generic]]
_Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """Labelled images as they were read; the arrays are read-only, since reads share them.

    Attributes:
        name: of the set, or of the file or folder.
        x_train: uint8 [rows, channels, height, width]; x_test likewise.
        y_train: int64 [rows], classes from 0; y_test likewise.
        digest: 16 hex digits of the SHA-256 of the four arrays.

    >>> read_images("sklearn:digits").name
    'digits'
    """

    name: str
    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]
    digest: str


def read_images(source: str | Path) -> Images:
    """Read images from a named set, an .npz file, a folder of idx files, or `sklearn:digits`.

    An .npz file holds x_train, y_train, x_test and y_test: images uint8 [rows, height, width] or
    [rows, channels, height, width], labels whole numbers [rows]. A folder holds the four files
    train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
    t10k-labels-idx1-ubyte, each with or without .gz. `sklearn:digits` is scikit-learn's 1,797
    digits of 8 x 8, its values 0..16 brought to 0..255, the last fifth of each class for testing.
    The two sets read last are kept.

    Raises:
        InputError: a source that is unknown, absent, damaged, or not labelled uint8 images.

    >>> images = read_images("sklearn:digits")
    >>> images.x_train.shape, images.x_test.shape, int(images.x_train.max())
    ((1438, 1, 8, 8), (359, 1, 8, 8), 255)
    """
    text = os.fspath(source)
    if text == "sklearn:digits":
        return _read("digits", (), text)
    if text in IMAGE_SETS:
        name, paths = text, _named(text)
    else:
        path = Path(text).expanduser()
        name, paths = path.name if path.is_dir() else path.stem, (path,)
    for path in paths:
        if not path.exists():
            raise InputError(f"images are {_SOURCES}; there is no {text!r}, so check the name")
        if not path.is_dir() and path.suffix.lower() != ".npz":
            raise InputError(f"images are {_SOURCES}; got {text!r}, so convert it to .npz")
    files = [
        file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])
    ]
    stats = [file.stat() for file in files]
    changed = tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in stats)
    return _read(name, changed, *(str(path.absolute()) for path in paths))


def _named(name: str) -> tuple[Path, ...]:
    root = data_root()
    for folder in (root / "vision", root):
        whole, *parts = (folder / f"{name}{end}.npz" for end in ("", ".part0", ".part1"))
        if whole.is_file():
            return (whole,)
        if all(part.is_file() for part in parts):
            return tuple(parts)
    raise InputError(
        f"{name} must be a file {str(root / 'vision' / f'{name}.npz')!r} and there is none; put it"
        " there, or set SECATEURS_DATA to the folder that has vision/"
    )


@functools.lru_cache(maxsize=2)
def _read(name: str, changed: Hashable, *sources: str) -> Images:  # what was written anew is read
    source, path = sources[0], Path(sources[0])
    if source == "sklearn:digits":
        arrays = _digits()
    elif path.is_dir():
        arrays = {key: _idx(path, *_IDX[key]) for key in _ARRAYS}
    else:
        arrays = _npz(path)
        for other in map(Path, sources[1:]):
            arrays = _joined(arrays, _npz(other), other)
    return _checked(name, source, arrays)


def _digits() -> _Arrays:
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    x = np.rint(x.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    test = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        test[rows[len(rows) - round(len(rows) / 5) :]] = True
    return {"x_train": x[~test], "y_train": y[~test], "x_test": x[test], "y_test": y[test]}


def _npz(path: Path) -> _Arrays:
    try:
        # NumPy leaves a file open that it opened itself and could not read.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            names = list(file.files)
            wanted = [name for name in (*_ARRAYS, *_CODED.values()) if name in names]
            arrays = {name: file[name] for name in wanted}
    # `AttributeError` and `TypeError`: one bare array, which is no context
    except (*_UNREADABLE, AttributeError, TypeError) as err:
        raise _damaged(path, ".npz", err) from err
    for plain, coded in _CODED.items():
        if plain not in arrays and coded in arrays:
            arrays[plain] = _decoded(arrays.pop(coded), path)
    if lacking := [name for name in _ARRAYS if name not in arrays]:
        raise InputError(
            f"an .npz of images needs {', '.join(_ARRAYS)}, but {str(path)!r} lacks"
            f" {', '.join(lacking)} and has {', '.join(map(repr, names))[:200] or 'none'};"
            " save it with those"
        )
    return arrays


def _joined(first: _Arrays, second: _Arrays, path: Path) -> _Arrays:
    for key in _ARRAYS:
        shapes = first[key].shape[1:], second[key].shape[1:]
        if shapes[0] != shapes[1] or not first[key].ndim or not second[key].ndim:
            raise InputError(
                f"halves of a set must be alike, but {key} is {second[key].shape} in {str(path)!r}"
                f" and {first[key].shape} in the first; write both again"
            )
    return {key: np.concatenate([first[key], second[key]]) for key in _ARRAYS}


def _decoded(residuals: NDArray[np.generic], path: Path) -> NDArray[np.uint8]:
    """Return the images whose differences along rows and columns these are, R and B less G."""
    if residuals.dtype != np.uint8 or residuals.ndim != 4 or len(residuals) != 3:
        raise InputError(
            f"coded images must be uint8 [3, rows, height, width], got {residuals.dtype}"
            f" {residuals.shape} in {str(path)!r}; write the file again"
        )
    x = np.cumsum(np.cumsum(residuals, axis=2, dtype=np.uint8), axis=3, dtype=np.uint8)
    x[0] += x[1]
    x[2] += x[1]
    return np.ascontiguousarray(x.swapaxes(0, 1))


def _idx(folder: Path, name: str, magic: int) -> NDArray[np.uint8]:
    plain, packed = folder / name, folder / f"{name}.gz"
    path = plain if plain.is_file() else packed
    if not path.is_file():
        raise InputError(
            f"a folder of images needs {name} or {packed.name}, and {str(folder)!r} has neither;"
            " put the four published files there"
        )
    try:
        content = path.read_bytes() if path == plain else gzip.decompress(path.read_bytes())
        n_dimensions = magic % 256
        header = np.frombuffer(content, dtype=">u4", count=1 + n_dimensions).tolist()
        if header[0] != magic:
            raise ValueError(f"it opens with {header[0]}, not {magic}")
        values = np.frombuffer(content, dtype=np.uint8, offset=4 * len(header))
        return values.reshape(header[1:])
    except _UNREADABLE as err:
        raise _damaged(path, "idx", err) from err


def _damaged(path: Path, kind: str, err: Exception) -> InputError:
    reason = " ".join(str(err).split())[:120] or type(err).__name__
    return InputError(
        f"{str(path)!r} cannot be read as {kind} ({reason}); it is damaged or is something else:"
        " fetch or write it again"
    )


def _checked(name: str, source: str, arrays: _Arrays) -> Images:
    for part in ("train", "test"):
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
        arrays[f"x_{part}"] = x if x.ndim == 4 else x[:, None]
        arrays[f"y_{part}"] = y.astype(np.int64)
    train, test = arrays["x_train"].shape[1:], arrays["x_test"].shape[1:]
    if train != test:
        raise _unfit("training and test images must have one shape", f"{train}, {test}", source)
    sha = hashlib.sha256()
    for key in _ARRAYS:
        arrays[key] = np.ascontiguousarray(arrays[key])
        arrays[key].setflags(write=False)
        sha.update(f"{key} {arrays[key].shape} ".encode())
        sha.update(arrays[key].data)
    return Images(name=name, digest=sha.hexdigest()[:16], **arrays)  # type: ignore[arg-type]


def _unfit(rule: str, got: str, source: str) -> InputError:
    return InputError(f"{rule}, got {got} in {source!r}; convert the arrays and save them again")


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
