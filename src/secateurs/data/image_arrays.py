"""Read labelled images from .npz files, as they are or as lossless residuals."""

import lzma
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError

__all__ = ["ARRAYS", "UNREADABLE", "Found", "damaged", "joined", "read_npz"]

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
UNREADABLE = (
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
"""What NumPy and the decompressors raise on bytes that are not what the name says."""

# Lossless residuals, which compress better than the images.
_CODED = {"x_train": "x_train_res", "x_test": "x_test_res"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """Arrays as they were read, not yet checked.

    Attributes:
        arrays: those of `ARRAYS`, perhaps without the two for testing.
        classes: names by label; None where the source has none.

    >>> Found(arrays={}, classes=("cat", "dog")).classes
    ('cat', 'dog')
    """

    arrays: dict[str, NDArray[np.generic]]
    classes: tuple[str, ...] | None = None


def damaged(path: str | Path, kind: str, err: Exception) -> InputError:
    """Return the error that names a file that cannot be read as what it should be.

    >>> damaged("a.npz", ".npz", ValueError("no zip"))
    InputError("'a.npz' cannot be read as .npz (no zip); it is damaged ...")
    """
    reason = " ".join(str(err).split())[:120] or type(err).__name__
    return InputError(
        f"{str(path)!r} cannot be read as {kind} ({reason}); it is damaged or is something else:"
        " fetch or write it again"
    )


def read_npz(path: Path) -> Found:
    """Return the four arrays of an .npz file.

    Images may be coded, as x_train_res and x_test_res: uint8 [3, rows, height, width], where red
    and blue are less green, then differences are taken along rows and along columns, modulo 256.

    Raises:
        InputError: it is damaged, lacks arrays, or its coded images are not.
    """
    try:
        # NumPy leaves a file open that it opened itself and could not read.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            names = list(file.files)
            wanted = [name for name in (*ARRAYS, *_CODED.values()) if name in names]
            arrays = {name: file[name] for name in wanted}
    # `AttributeError` and `TypeError`: one bare array, which is no context
    except (*UNREADABLE, AttributeError, TypeError) as err:
        raise damaged(path, ".npz", err) from err
    for plain, coded in _CODED.items():
        if plain not in arrays and coded in arrays:
            arrays[plain] = _decoded(arrays.pop(coded), path)
    if lacking := [name for name in ARRAYS if name not in arrays]:
        raise InputError(
            f"an .npz of images needs {', '.join(ARRAYS)}, but {str(path)!r} lacks"
            f" {', '.join(lacking)} and has {', '.join(map(repr, names))[:200] or 'none'};"
            " save it with those"
        )
    return Found(arrays=arrays)


def joined(first: Found, second: Found, path: Path) -> Found:
    """Return the rows of one half of a set and then those of the other.

    Args:
        first: one half.
        second: the other half.
        path: of the other half, for errors.

    Raises:
        InputError: images of different shapes.

    >>> half = Found(arrays={name: np.zeros((2, 3)) for name in ARRAYS})
    >>> joined(half, half, Path("b.npz")).arrays["x_test"].shape
    (4, 3)
    """
    for key in ARRAYS:
        one, other = first.arrays[key], second.arrays[key]
        if not one.ndim or not other.ndim or one.shape[1:] != other.shape[1:]:
            raise InputError(
                f"halves of a set must be alike, but {key} is {other.shape} in {str(path)!r}"
                f" and {one.shape} in the first; write both again"
            )
    return Found(
        arrays={key: np.concatenate([first.arrays[key], second.arrays[key]]) for key in ARRAYS}
    )


def _decoded(residuals: NDArray[np.generic], path: Path) -> NDArray[np.uint8]:
    if residuals.dtype != np.uint8 or residuals.ndim != 4 or len(residuals) != 3:
        raise InputError(
            f"coded images must be uint8 [3, rows, height, width], got {residuals.dtype}"
            f" {residuals.shape} in {str(path)!r}; write the file again"
        )
    x = np.cumsum(np.cumsum(residuals, axis=2, dtype=np.uint8), axis=3, dtype=np.uint8)
    x[0] += x[1]
    x[2] += x[1]
    return np.ascontiguousarray(x.swapaxes(0, 1))
