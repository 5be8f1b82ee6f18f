"""Read labelled images from the files of MNIST, CIFAR and SVHN as they are published."""

import functools
import gzip
import io
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import scipy.io
from numpy.typing import NDArray

from secateurs.data.class_names import CLASS_NAMES
from secateurs.data.image_arrays import ARRAYS, UNREADABLE, Found, damaged
from secateurs.data.plain_pickle import plain_dict
from secateurs.errors import InputError

__all__ = ["ARCHIVES", "PUBLISHED", "has_published", "read_published"]

ARCHIVES = (".tar.gz", ".tgz")
"""Endings of archives, which are read without being unpacked."""

# LeCun's idx files: the number that each opens with says its type and dimensions.
_IDX = {
    "train-images-idx3-ubyte": 2051,
    "train-labels-idx1-ubyte": 2049,
    "t10k-images-idx3-ubyte": 2051,
    "t10k-labels-idx1-ubyte": 2049,
}
_SVHN = ("train_32x32.mat", "test_32x32.mat")
_CIFAR_PIXELS = 3 * 32 * 32
_LARGEST = 2**30  # bytes of a file in an archive; the largest published one is 155 MB


@dataclass(frozen=True, kw_only=True)
class _Files:
    """Files of one folder or archive, by name."""

    where: str
    names: frozenset[str]
    load: Callable[[str], bytes]

    def stored(self, name: str) -> str | None:
        return next((one for one in (name, f"{name}.gz") if one in self.names), None)

    def path(self, name: str) -> str:
        return f"{self.where}/{self.stored(name)}"

    def read(self, name: str, kind: str) -> bytes:
        stored = self.stored(name)
        assert stored is not None
        try:
            content = self.load(stored)
            return content if stored == name else gzip.decompress(content)
        except UNREADABLE as err:
            raise damaged(self.path(name), kind, err) from err


@dataclass(frozen=True, kw_only=True)
class _Format:
    """Files that belong together."""

    title: str
    needs: tuple[str, ...]
    read: Callable[[_Files], Found]


def has_published(folder: Path) -> bool:
    """Return whether a folder has files of a known set, perhaps not all of them.

    >>> has_published(Path("/nowhere"))
    False
    """
    return _format_of(_in_folder(folder)) is not None


def read_published(*paths: Path) -> Found:
    """Read the published files of a set: a folder of them, an archive, or the files.

    These are the four idx files of MNIST and of sets like it, CIFAR-10's and CIFAR-100's "python"
    and "binary" versions, and the two cropped .mat files of SVHN, whose digit 0 is stored as 10.
    A file FILE may be FILE.gz. CIFAR-100 has its 100 fine labels. The pickles of CIFAR's "python"
    version are never unpickled; see `plain_pickle`.

    Args:
        *paths: one folder, one .tar.gz or .tgz, or all files.

    Raises:
        InputError: files that lack, that are damaged, or that hold something else.
    """
    first = paths[0]
    if first.is_dir():
        files = _in_folder(first)
    elif first.name.lower().endswith(ARCHIVES):
        files = _in_archive(first)
    else:
        files = _of_paths(paths, str(first.parent))
    kind = _format_of(files)
    if kind is None:
        raise InputError(f"{PUBLISHED} are read, and {files.where!r} has none; put all files there")
    for name in kind.needs:
        if files.stored(name) is None:
            raise InputError(
                f"{kind.title} needs {name} or {name}.gz, and {files.where!r} has neither; put all"
                " published files there"
            )
    return kind.read(files)


def _format_of(files: _Files) -> _Format | None:
    return next((one for one in _FORMATS if any(map(files.stored, one.needs))), None)


def _of_paths(paths: Iterable[Path], where: str) -> _Files:
    by_name = {path.name: path for path in paths if path.is_file()}
    return _Files(
        where=where, names=frozenset(by_name), load=lambda name: by_name[name].read_bytes()
    )


def _in_folder(folder: Path) -> _Files:
    return _of_paths(folder.iterdir() if folder.is_dir() else (), str(folder))


def _in_archive(path: Path) -> _Files:
    contents: dict[str, bytes] = {}
    wanted = {name for one in _FORMATS for name in one.needs}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if not member.isreg() or member.issparse() or name not in wanted:
                    continue
                if member.size > _LARGEST:
                    raise ValueError(f"{name} has {member.size} bytes")
                opened = archive.extractfile(member)
                contents[name] = opened.read() if opened else b""
    except (*UNREADABLE, tarfile.TarError) as err:
        raise damaged(path, "a .tar.gz", err) from err
    return _Files(where=str(path), names=frozenset(contents), load=contents.__getitem__)


def _read_idx(files: _Files) -> Found:
    arrays: dict[str, NDArray[np.generic]] = {}
    for key, (name, magic) in zip(ARRAYS, _IDX.items(), strict=True):
        content = files.read(name, "idx")
        try:
            header = np.frombuffer(content, dtype=">u4", count=1 + magic % 256).tolist()
            if header[0] != magic:
                raise ValueError(f"it opens with {header[0]}, not {magic}")
            values = np.frombuffer(content, dtype=np.uint8, offset=4 * len(header))
            arrays[key] = values.reshape(header[1:])
        except ValueError as err:
            raise damaged(files.path(name), "idx", err) from err
    return Found(arrays=arrays)


def _read_svhn(files: _Files) -> Found:
    arrays: dict[str, NDArray[np.generic]] = {}
    for part, name in zip(("train", "test"), _SVHN, strict=True):
        content, path = files.read(name, ".mat"), files.path(name)
        try:
            found = scipy.io.loadmat(io.BytesIO(content), variable_names=["X", "y"])
        except Exception as err:  # SciPy raises whatever its parts do
            raise damaged(path, ".mat", err) from err
        x, y = np.asarray(found.get("X")), np.asarray(found.get("y"))
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[2] != 3 or y.size != x.shape[3]:
            raise InputError(
                f"X must be uint8 [height, width, 3, rows] and y have a label for each row, got"
                f" {x.dtype} {x.shape} and {y.shape} in {path!r}; fetch the cropped digits"
            )
        labels = y.ravel()
        if y.dtype.kind not in "iuf" or not np.isin(labels, np.arange(1, 11)).all():
            raise InputError(f"labels of SVHN are 1..10, got others in {path!r}; fetch it again")
        arrays[f"x_{part}"] = np.ascontiguousarray(x.transpose(3, 2, 0, 1))
        arrays[f"y_{part}"] = labels.astype(np.int64) % 10
    return Found(arrays=arrays, classes=tuple("0123456789"))


def _read_cifar(files: _Files, *, of: str, train: tuple[str, ...], test: str, batch: str) -> Found:
    """Read the batches of CIFAR-10 or CIFAR-100; `batch` says which of its two versions."""
    classes = CLASS_NAMES[of]
    read = {"python": _python_batch, "binary": _binary_batch}[batch]
    arrays: dict[str, NDArray[np.generic]] = {}
    for part, names in (("train", train), ("test", (test,))):
        pieces = [read(files, name, len(classes)) for name in names]
        x, y = (np.concatenate([piece[i] for piece in pieces]) for i in range(2))
        arrays[f"x_{part}"], arrays[f"y_{part}"] = x.reshape(-1, 3, 32, 32), y
    return Found(arrays=arrays, classes=classes)


def _python_batch(
    files: _Files, name: str, n_classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    path, key = files.path(name), "labels" if n_classes == 10 else "fine_labels"
    batch = plain_dict(files.read(name, "a batch"), where=path)
    x, y = batch.get("data"), batch.get(key)
    if isinstance(y, np.ndarray):
        y = y.tolist()
    if not isinstance(x, np.ndarray) or not isinstance(y, list):
        raise InputError(
            f"a CIFAR batch has an array 'data' and a list {key!r}, but {path!r} has"
            f" {', '.join(map(repr, batch))[:200] or 'nothing'}; fetch the published file"
        )
    if x.ndim != 2 or x.shape[1] != _CIFAR_PIXELS or not x.size or len(y) != len(x):
        raise InputError(
            f"a CIFAR batch has {_CIFAR_PIXELS} bytes and a label for each image, got"
            f" {x.shape} and {len(y)} labels in {path!r}; fetch the published file"
        )
    if odd := [one for one in y if type(one) is not int or not 0 <= one < n_classes]:
        raise _label(odd[0], n_classes, path)
    return x, np.array(y, dtype=np.int64)


def _binary_batch(
    files: _Files, name: str, n_classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    path, n_labels = files.path(name), 1 if n_classes == 10 else 2  # coarse and fine
    content = np.frombuffer(files.read(name, "a batch"), dtype=np.uint8)
    n_bytes = n_labels + _CIFAR_PIXELS
    if not content.size or content.size % n_bytes:
        raise InputError(
            f"a binary CIFAR batch has {n_bytes} bytes for each image, got {content.size} in all in"
            f" {path!r}; it is cut off or is something else: fetch it again"
        )
    rows = content.reshape(-1, n_bytes)
    y = rows[:, n_labels - 1].astype(np.int64)
    if y.max() >= n_classes:
        raise _label(int(y.max()), n_classes, path)
    return rows[:, n_labels:], y


def _label(odd: object, n_classes: int, path: str) -> InputError:
    shown = str(odd)[:20] if isinstance(odd, int) else type(odd).__name__
    return InputError(
        f"labels must be whole numbers in 0..{n_classes - 1}, got {shown} in {path!r};"
        " fetch the published file"
    )


_TEN = tuple(f"data_batch_{i}" for i in range(1, 6))
_FORMATS = (
    _Format(title="a set of idx files", needs=tuple(_IDX), read=_read_idx),
    _Format(
        title="CIFAR-10",
        needs=(*_TEN, "test_batch"),
        read=functools.partial(
            _read_cifar, of="cifar10", train=_TEN, test="test_batch", batch="python"
        ),
    ),
    _Format(
        title="CIFAR-10",
        needs=(*(f"{name}.bin" for name in _TEN), "test_batch.bin"),
        read=functools.partial(
            _read_cifar,
            of="cifar10",
            train=tuple(f"{name}.bin" for name in _TEN),
            test="test_batch.bin",
            batch="binary",
        ),
    ),
    _Format(
        title="CIFAR-100",
        needs=("train", "test"),
        read=functools.partial(
            _read_cifar, of="cifar100", train=("train",), test="test", batch="python"
        ),
    ),
    _Format(
        title="CIFAR-100",
        needs=("train.bin", "test.bin"),
        read=functools.partial(
            _read_cifar, of="cifar100", train=("train.bin",), test="test.bin", batch="binary"
        ),
    ),
    _Format(title="SVHN", needs=_SVHN, read=_read_svhn),
)
PUBLISHED = "MNIST's idx files, CIFAR's batches (python or binary) and SVHN's cropped .mat files"
"""What `read_published` reads, in words."""
