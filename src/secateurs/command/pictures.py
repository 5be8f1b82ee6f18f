"""DATA that is images: which words mean them, and what `fit`, `predict` and `evaluate` read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.command.targets import as_classes
from secateurs.data.image_files import ARCHIVES, has_published
from secateurs.data.image_folders import SUFFIXES, ImageFiles, read_image_files
from secateurs.data.images import IMAGE_SETS, Images, read_images
from secateurs.errors import InputError
from secateurs.image_classifier import ImageTicketClassifier

__all__ = ["Labelled", "asked_size", "is_images", "labelled", "named", "to_fit"]

_Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Images to train on, and those that their source holds back for testing.

    Args:
        name: of the set or folder.
        x: uint8 [rows, channels, height, width].
        y: [rows] names of classes.
        test: likewise, or None for a source without a test part.
    """

    name: str
    x: _Pixels
    y: NDArray[np.str_]
    test: tuple[_Pixels, NDArray[np.str_]] | None


def is_images(source: str) -> bool:
    """Return whether DATA means images: a known set, a folder, an archive, or arrays.

    >>> is_images("cifar10"), is_images("photos.npz"), is_images("table.csv")
    (True, True, False)
    """
    path = Path(source).expanduser()
    named = source in IMAGE_SETS or source.lower().endswith((".npz", *ARCHIVES, *SUFFIXES))
    return named or path.is_dir()


def _parts(images: Images) -> dict[str, tuple[_Pixels, NDArray[np.str_]]]:
    """Return images and names of classes by part, without parts that are empty."""
    names = np.array(images.classes)
    parts = {"train": (images.x_train, images.y_train), "test": (images.x_test, images.y_test)}
    return {part: (x, names[y]) for part, (x, y) in parts.items() if len(x)}


def to_fit(source: str, *, size: int | None) -> Labelled:
    """Read images to train on.

    Args:
        source: as `data.images.read_images` takes it.
        size: height and width to bring images to, or None.

    Raises:
        InputError: as there; or a class that is in the test part alone.

    >>> to_fit("sklearn:digits", size=None).x.shape
    (1438, 1, 8, 8)
    """
    images = read_images(source, size=size)
    parts = _parts(images)
    x, y = parts["train"]
    test = parts.get("test")
    if test is not None and len(new := np.setdiff1d(test[1], y)):
        raise InputError(
            f"classes for testing must be among those for training, got {str(new[0])!r} in "
            f"{source!r}; remove those images or train on some"
        )
    return Labelled(name=images.name, x=x, y=y, test=test)


def asked_size(model: ImageTicketClassifier) -> int | None:
    """Return the size that the model's images were brought to, None if they came as they were."""
    size = model.summary_.get("resized_to")
    return size if type(size) is int and (size, size) == model.image_shape_[1:] else None


def labelled(model: ImageTicketClassifier, source: str) -> tuple[str, _Pixels, NDArray[Any]]:
    """Return the images that a model is measured on: the test part, or all where there is none.

    Args:
        model: fitted.
        source: as `data.images.read_images` takes it.

    Returns:
        The part, its images and their labels as classes of the model.

    Raises:
        InputError: as `read_images`; or a class that the model does not know.
    """
    parts = _parts(read_images(source, size=asked_size(model)))
    part = "test" if "test" in parts else "train"
    x, y = parts[part]
    known = as_classes(y.tolist(), model.classes_, "folders must be named as the model's classes")
    return "test" if part == "test" else "all", x, known


def named(model: ImageTicketClassifier, source: str) -> tuple[list[str], _Pixels]:
    """Return new images with their names, without any use of labels.

    Of a folder that is every image below it, by its path in there; of a known set, its test part by
    number.

    Args:
        model: fitted.
        source: an image, a folder of images, or as `data.images.read_images` takes it.

    Raises:
        InputError: as `read_images`; or there are no images.
    """
    path, size = Path(source).expanduser(), asked_size(model)
    single = path.is_file() and path.suffix.lower() in SUFFIXES
    if single or (path.is_dir() and source not in IMAGE_SETS and not has_published(path)):
        files = [path] if single else _below(path)
        listed = ImageFiles(classes=("",), train=tuple((file, 0) for file in files), test=())
        x: Any = read_image_files(listed, size=size).arrays["x_train"]
        return [file.name if single else file.relative_to(path).as_posix() for file in files], x
    parts = _parts(read_images(source, size=size))
    x, _ = parts.get("test", parts["train"])
    return [str(i) for i in range(len(x))], x


def _below(folder: Path) -> list[Path]:
    """Return every image in a folder and its folders, in order; nothing that is hidden."""
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not found:
        raise InputError(
            f"a folder to predict must have images ({', '.join(SUFFIXES)}), and {str(folder)!r} "
            "has none; check the name"
        )
    return found
