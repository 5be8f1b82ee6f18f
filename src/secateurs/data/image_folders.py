"""Read images out of one folder for each class; bring images to one size."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from secateurs.data.image_arrays import Found, damaged
from secateurs.errors import InputError

__all__ = ["SUFFIXES", "ImageFiles", "image_files", "read_image_files", "resized"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""Endings, in capitals too, of the files that are read as images."""

# Other formats of Pillow would start other programs.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# Pillow's modes of 8 bits or fewer, and the mode that they become.
_MODES = {
    **dict.fromkeys(("1", "L", "LA"), "L"),
    **dict.fromkeys(("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"), "RGB"),
}
_CHANNELS = {"L": 1, "RGB": 3}

_Shape = tuple[int, int, int]
_Labelled = tuple[tuple[Path, int], ...]


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """The image files of a folder, by part.

    Attributes:
        classes: names of the folders, sorted; by number if all are numbers.
        train: files with their labels, which count the classes from 0.
        test: likewise; empty where the folder has no test part.

    >>> ImageFiles(classes=("cat", "dog"), train=((Path("cat/a.png"), 0),), test=()).classes
    ('cat', 'dog')
    """

    classes: tuple[str, ...]
    train: _Labelled
    test: _Labelled


def image_files(folder: Path) -> ImageFiles:
    """List the images of FOLDER/train/CLASS and FOLDER/test/CLASS, or of FOLDER/CLASS alone.

    Hidden files and files of other endings than `SUFFIXES` are passed over. The test part may lack.

    Args:
        folder: the folder.

    Raises:
        InputError: there are no classes; a class has no images, or folders; images or folders lie
            where they would not be read; a class for testing is not one for training.
    """
    inside = _folders(folder)
    parts = {part.name: part for part in inside if part.name in ("train", "test")}
    if not any(map(_folders, parts.values())):
        classes, train = _classes(folder, names=None)
        return ImageFiles(classes=classes, train=train, test=())
    if others := [one.name for one in inside if one.name not in parts]:
        raise InputError(
            f"a folder with train/ and test/ has no other, got {others[0]!r} in {str(folder)!r};"
            " rename it to test, or move it away"
        )
    if "train" not in parts:
        raise InputError(f"{str(folder)!r} has test/ without train/; put training images there")
    _no_images(folder)
    classes, train = _classes(parts["train"], names=None)
    test = _classes(parts["test"], names=classes)[1] if "test" in parts else ()
    return ImageFiles(classes=classes, train=train, test=test)


def _seen(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    return sorted(p for p in folder.iterdir() if not p.name.startswith(".") and wanted(p))


def _folders(folder: Path) -> list[Path]:
    return _seen(folder, Path.is_dir)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _no_images(folder: Path) -> None:
    if loose := _seen(folder, _is_image):
        raise InputError(
            f"images lie in one folder for each class, got {str(loose[0])!r} outside of any; move"
            " it into the folder of its class"
        )


def _classes(folder: Path, *, names: tuple[str, ...] | None) -> tuple[tuple[str, ...], _Labelled]:
    """Return the names of the classes and the labelled files; labels are places in `names`."""
    _no_images(folder)
    inside = {one.name: one for one in _folders(folder)}
    if not inside:
        raise InputError(
            "a folder of images has a folder for each class or the files of a known set, and"
            f" {str(folder)!r} has neither; put images at CLASS/*.png, or at train/CLASS/*.png and"
            " test/CLASS/*.png"
        )
    if all(name.isdecimal() for name in inside):
        found = tuple(sorted(inside, key=lambda name: (int(name), name)))
    else:
        found = tuple(inside)
    if names and (unknown := [name for name in found if name not in names]):
        raise InputError(
            f"classes for testing must be among those for training, {', '.join(names)[:200]}, got"
            f" {unknown[0]!r} in {str(folder)!r}; rename or remove it"
        )
    files = []
    for name in found:
        if deeper := _folders(inside[name]):
            raise InputError(
                f"the folder of a class holds images only, got the folder {str(deeper[0])!r};"
                f" move its images up, or name {str(inside[name])!r} itself"
            )
        images = _seen(inside[name], _is_image)
        if not images:
            n_others = len(_seen(inside[name], Path.is_file))
            raise InputError(
                f"each class needs images ({', '.join(SUFFIXES)}), and {str(inside[name])!r} has"
                f" none and {n_others} other files; put some there or remove the folder"
            )
        files += [(path, (names or found).index(name)) for path in images]
    return found, tuple(files)


def read_image_files(files: ImageFiles, *, size: int | None = None) -> Found:
    """Return the images of a folder: grey ones with 1 channel, coloured ones with 3.

    Palettes, CMYK and transparency become RGB; what is transparent is not blended. Of several
    frames the first is read. Rotations that a camera has noted are not applied.

    Args:
        files: of `image_files`.
        size: height and width to bring every image to, as `resized` does; None leaves them.

    Raises:
        InputError: a file that is damaged or of more than 8 bits; images of several sizes or
            channel counts.
    """
    everything = [path for path, _ in (*files.train, *files.test)]
    shape = _one_shape([(path, _shape(path, size)) for path in everything], resizable=not size)
    arrays: dict[str, NDArray[np.generic]] = {}
    for part, members in (("train", files.train), ("test", files.test)):
        if not members:
            continue
        try:
            x = np.empty((len(members), *shape), dtype=np.uint8)
        except MemoryError as err:
            raise InputError(
                f"{len(members)} images of {_words(shape)} do not fit into memory; pass a small"
                " size, such as size=32, to resize all"
            ) from err
        for row, (path, _) in zip(x, members, strict=True):
            row[:] = _pixels(path, shape, size)
        arrays[f"x_{part}"] = x
        arrays[f"y_{part}"] = np.array([label for _, label in members], dtype=np.int64)
    return Found(arrays=arrays, classes=files.classes)


def _words(shape: _Shape) -> str:
    channels, height, width = shape
    return f"{height} x {width} with {channels} channel{'s' * (channels > 1)}"


def _shape(path: Path, size: int | None) -> _Shape:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            mode, (width, height) = image.mode, image.size
    except Exception as err:  # Pillow raises whatever its parts do
        raise damaged(path, "an image", err) from err
    if mode not in _MODES:
        raise InputError(
            f"images have 8 bits for each channel, got Pillow's mode {mode} in {str(path)!r};"
            " convert it to grey or RGB of 8 bits"
        )
    return _CHANNELS[_MODES[mode]], size or height, size or width


def _one_shape(shapes: list[tuple[Path, _Shape]], *, resizable: bool) -> _Shape:
    usual, n_usual = Counter(shape for _, shape in shapes).most_common(1)[0]
    odd = next(((path, shape) for path, shape in shapes if shape != usual), None)
    if odd is None:
        return usual
    path, shape = odd
    remedy = "convert all to grey or all to RGB"
    if shape[0] == usual[0] and resizable:
        remedy = f"pass a size, such as size={usual[1]}, to resize all"
    raise InputError(
        f"images must have one size and channel count, got {_words(shape)} in {str(path)!r} and"
        f" {_words(usual)} in {n_usual} others; {remedy}"
    )


def _pixels(path: Path, shape: _Shape, size: int | None) -> NDArray[np.uint8]:
    mode = {1: "L", 3: "RGB"}[shape[0]]
    try:
        with Image.open(path, formats=_FORMATS) as opened:
            # Pillow warns of a palette's transparency that is lost in one step
            image = opened.convert("RGBA") if opened.mode in ("P", "PA") else opened
            image = image.convert(mode)
            if size:
                image = image.resize((size, size), Image.Resampling.BILINEAR)
            x = np.asarray(image)
        return x[None] if shape[0] == 1 else x.transpose(2, 0, 1)
    except Exception as err:  # as above
        raise damaged(path, "an image", err) from err


def resized(x: NDArray[np.uint8], *, size: int) -> NDArray[np.uint8]:
    """Return images of size x size pixels, bilinear and antialiased as Pillow does it.

    Args:
        x: uint8 [rows, channels, height, width]; height and width are not kept in proportion.
        size: of the result, 1 or more.

    >>> x = np.full((1, 3, 4, 6), 7, dtype=np.uint8)
    >>> resized(x, size=2).shape, int(resized(x, size=2).max())
    ((1, 3, 2, 2), 7)
    """
    if x.shape[2:] == (size, size):
        return x
    out = np.empty((*x.shape[:2], size, size), dtype=np.uint8)
    for row, made in zip(x.reshape(-1, *x.shape[2:]), out.reshape(-1, size, size), strict=True):
        made[:] = Image.fromarray(row).resize((size, size), Image.Resampling.BILINEAR)
    return out
