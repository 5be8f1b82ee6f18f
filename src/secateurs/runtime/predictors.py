"""Engines that take what a fitted estimator takes: tables with names, or images; NumPy only."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError
from secateurs.preparation import (
    Columns,
    Preparation,
    canonical,
    check,
    encode,
    input_names,
    width,
)
from secateurs.runtime.engine import Engine

__all__ = ["ImageEngine", "TableEngine", "load", "restored"]

_MOST_CLASSES = 2**20


class _Predictor:
    """What predicts classes by name, or numbers in their own units.

    Args:
        engine: makes probabilities, or standardised numbers.
        classes: [outputs] labels, or None for numbers.
        target: (mean, scale) of the numbers.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        classes: NDArray[Any] | None = None,
        target: tuple[float, float] | None = None,
    ) -> None:
        n_outputs = engine.output_shape
        if n_outputs != ((len(classes),) if classes is not None else (1,)):
            raise InputError(
                f"a model of {'numbers' if classes is None else f'{len(classes)} classes'} has "
                f"as many outputs, got an engine of {n_outputs}; compile the estimator again"
            )
        self.engine = engine
        self.classes_ = classes
        self.target = target

    def _inputs(self, X: Any) -> NDArray[Any]:
        raise NotImplementedError

    def about(self) -> dict[str, Any]:
        """Return what a file says of it besides the network."""
        about: dict[str, Any] = {}
        if self.classes_ is not None:
            about["classes"] = {"dtype": self.classes_.dtype.str, "values": self.classes_.tolist()}
        if self.target is not None:
            about["target"] = {"mean": self.target[0], "scale": self.target[1]}
        return about

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return [rows, classes] probabilities, as the estimator does.

        Raises:
            InputError: rows that the estimator could not take, or a model of numbers.
        """
        if self.classes_ is None:
            raise InputError("a model of numbers has no probabilities; call predict")
        found: NDArray[np.float64] = self.engine(self._inputs(X)).astype(np.float64)
        return found

    def predict(self, X: Any) -> NDArray[Any]:
        """Return [rows] the most probable label, or a number in the target's units.

        Raises:
            InputError: rows that the estimator could not take.
        """
        if self.classes_ is not None:
            labels: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(1)]
            return labels
        found: NDArray[np.float64] = self.engine(self._inputs(X))[:, 0].astype(np.float64)
        if self.target is not None:
            found = found * self.target[1] + self.target[0]
        return found

    def to_bytes(self) -> bytes:
        """Return what `save` writes."""
        return self.engine.to_bytes(about=self.about())

    def save(self, path: str | Path) -> None:
        """Write one file that predicts for the same rows without torch; see `Engine.save`.

        Raises:
            InputError: not writable, or the disk is full; an older file is intact.
        """
        self.engine.save(path, about=self.about())

    def report(self, *, rows: int = 64) -> Any:
        """Return what `Engine.report` does of the network."""
        return self.engine.report(rows=rows)

    def __repr__(self) -> str:
        what = "numbers" if self.classes_ is None else f"{len(self.classes_)} classes"
        return f"{type(self).__name__}({what}, {self.engine!r})"


class TableEngine(_Predictor):
    """Predicts for rows of a table, which may have strings and missing values.

    Args:
        engine: of the encoded rows.
        preparation: what each column is; see `secateurs.preparation`.
        classes: [outputs] labels, or None for numbers.
        target: (mean, scale) of the numbers.

    >>> from secateurs.runtime.engine import compile
    >>> from secateurs.runtime.program import Op, Program
    >>> op = Op(kind="linear", inputs=(0,), shape=(1,), weight=np.ones((1, 1), np.float32))
    >>> age = {"name": "age", "kind": "numeric", "median": 30.0, "mean": 40.0, "scale": 10.0}
    >>> model = TableEngine(
    ...     compile(Program(input_shape=(1,), ops=(op,)), tune=False),
    ...     preparation={"format": 1, "columns": [age]},
    ...     target=(5.0, 2.0),
    ... )
    >>> model.predict({"age": [50, None]})
    array([7., 3.])
    """

    def __init__(
        self,
        engine: Engine,
        *,
        preparation: Preparation,
        classes: NDArray[Any] | None = None,
        target: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(engine, classes=classes, target=target)
        self.preparation = preparation
        if engine.input_shape != (width(preparation),):
            raise InputError(
                f"a table of {width(preparation)} encoded columns needs an engine of as "
                f"many inputs, got {engine.input_shape}; compile the estimator again"
            )

    def about(self) -> dict[str, Any]:
        """Return what a file says of it besides the network."""
        return super().about() | {"preparation": self.preparation}

    def _inputs(self, X: Any) -> NDArray[np.float32]:
        return encode(self.preparation, _columns(self.preparation, X))


class ImageEngine(_Predictor):
    """Predicts for images, whole numbers in 0..255.

    Args:
        engine: of images [channels, height, width].
        classes: [outputs] labels.
        target: None.
    """

    def about(self) -> dict[str, Any]:
        """Return what a file says of it besides the network."""
        return super().about() | {"images": True}

    def _inputs(self, X: Any) -> NDArray[Any]:
        x = np.asarray(X)
        shape = self.engine.input_shape
        if x.ndim == 3:
            x = x[:, None]
        elif x.ndim == 4 and x.shape[1] > 4:
            x = np.moveaxis(x, 3, 1)
        if x.ndim != 4 or x.shape[1:] != shape:
            channels, height, width = shape
            raise InputError(
                f"images must be [rows, {channels}, {height}, {width}] or [rows, {height}, "
                f"{width}{f', {channels}' * (channels > 1)}] as those of training, got shape "
                f"{np.shape(X)}; resize or convert them"
            )
        if x.dtype != np.uint8 and (
            x.dtype.kind not in "iu" or (x.size and (x.min() < 0 or x.max() > 255))
        ):
            raise InputError(
                f"images must be whole numbers in 0..255, got {x.dtype}; scale them and convert "
                "them by .astype('uint8')"
            )
        return x


# --- tables without pandas -----------------------------------------------------------------------


def _columns(preparation: Preparation, X: Any) -> Columns:
    """Return the columns of a dict of arrays, a frame of any library, or a 2-d array."""
    names = input_names(preparation)
    if isinstance(X, Mapping):
        given = {str(name): X[name] for name in X}
    elif hasattr(X, "column_names"):  # Arrow
        given = {str(name): X[name] for name in X.column_names}
    elif hasattr(X, "columns"):  # pandas and polars
        given = {str(name): X[name] for name in X.columns}
    else:
        array = np.array(X, dtype=object) if isinstance(X, list | tuple) else np.asarray(X)
        if array.ndim != 2 or array.shape[1] != len(names):
            raise InputError(
                f"a table must have the {len(names)} columns of the training table, got "
                f"{type(X).__name__} of shape {array.shape}; pass a dict from names to arrays, a "
                "frame or a 2-d array"
            )
        given = dict(zip(names, array.T, strict=True))
    columns: Columns = {}
    for column in preparation["columns"]:
        name = column["name"]
        if column["kind"] == "dropped" or name not in given:  # `encode` says which is absent
            continue
        cells = _cells(given[name])
        columns[name] = _numbers(name, cells) if column["kind"] == "numeric" else cells
    return columns


def _cells(values: Any) -> NDArray[Any]:
    """Return a column as an array; a list of mixed cells keeps what they are."""
    if isinstance(values, list | tuple):
        cells = np.empty(len(values), dtype=object)
        cells[:] = values
        return cells
    array = np.asarray(values)
    if isinstance(values, np.ma.MaskedArray):
        hidden = np.ma.getmaskarray(values)
        array = array.astype(object)
        array[hidden] = None
    return array


def _numbers(name: str, cells: NDArray[Any]) -> NDArray[np.float64]:
    """Return cells as float64, NaN for missing ones; numbers may be strings that all parse."""
    if cells.dtype.kind in "fiub":
        return cells.astype(np.float64)
    if cells.dtype.kind not in "OUT":
        raise InputError(
            f"column {name!r} was numeric in training, got {cells.dtype}; convert it to numbers"
        )
    numbers = np.empty(len(cells), np.float64)
    for row, cell in enumerate(cells.tolist()):
        try:
            missing = cell is None or canonical(cell) is None
            numbers[row] = math.nan if missing else float(cell)
        except OverflowError:
            numbers[row] = math.inf
        except (TypeError, ValueError):
            raise InputError(
                f"column {name!r} was numeric in training, got {str(cell)[:40]!r}; convert it to "
                "numbers, with missing values left empty"
            ) from None
    return numbers


# --- files ---------------------------------------------------------------------------------------


def _must(condition: bool, otherwise: str) -> None:  # noqa: FBT001
    if not condition:
        raise InputError(f"{otherwise}; save the model again")


def _classes(told: Any, n_outputs: int) -> NDArray[Any]:
    _must(
        type(told) is dict and set(told) == {"dtype", "values"} and type(told["values"]) is list,
        "a file's classes are a type and values",
    )
    values = told["values"]
    _must(len(values) == n_outputs <= _MOST_CLASSES, "a file has one class for each output")
    _must(
        all(type(value) in (str, int, float, bool) for value in values),
        "a file's classes are words, numbers or yes and no",
    )
    try:
        dtype = np.dtype(str(told["dtype"]))
        small = dtype.itemsize * len(values) < 2**28
        _must(dtype.kind in "biufUO" and small, "a file's classes have no type")
        classes = np.array(values, dtype=dtype)
        _must(
            classes.tolist() == values and len(set(values)) == len(values),
            "a file's classes differ from each other and fit their type",
        )
    except InputError:
        raise
    except (TypeError, ValueError, OverflowError) as err:
        raise InputError(
            f"a file's classes fit their type, got others ({err}); save it again"
        ) from err
    return classes


def _target(told: Any) -> tuple[float, float]:
    _must(
        type(told) is dict
        and set(told) == {"mean", "scale"}
        and all(type(value) in (int, float) and abs(value) < 1e300 for value in told.values())
        and told["scale"] > 0,
        "a file's target is a finite mean and a positive scale",
    )
    return float(told["mean"]), float(told["scale"])


def restored(engine: Engine, about: Mapping[str, Any]) -> Engine | TableEngine | ImageEngine:
    """Return what a file holds: the engine itself, or one that takes tables or images.

    Args:
        engine: as it was read.
        about: what the file says besides, not trusted.

    Raises:
        InputError: it says what cannot be.

    >>> from secateurs.runtime.engine import compile
    >>> from secateurs.runtime.program import Op, Program
    >>> op = Op(kind="activation", inputs=(0,), shape=(2,), activation="relu")
    >>> engine = compile(Program(input_shape=(2,), ops=(op,)), tune=False)
    >>> restored(engine, {}) is engine
    True
    """
    if not about:
        return engine
    _must(
        set(about) <= {"preparation", "classes", "target", "images"}
        and len({"preparation", "images"} & set(about)) == 1,
        "a file is of a network, a table or images",
    )
    _must(len(engine.output_shape) == 1, "a file's model has one row of outputs")
    classes = _classes(about["classes"], engine.output_shape[0]) if "classes" in about else None
    if "images" in about:
        _must(len(engine.input_shape) == 3 and classes is not None, "images have classes")
        return ImageEngine(engine, classes=classes)
    target = _target(about["target"]) if "target" in about else None
    checked = check(about["preparation"])
    return TableEngine(engine, preparation=checked, classes=classes, target=target)


def load(
    path: str | Path, *, verify: bool = True, tune: bool = True
) -> Engine | TableEngine | ImageEngine:
    """Return the engine that `save` wrote, with predict methods if it was an estimator's.

    The file is mapped: processes that load it share its pages. Nothing in it is trusted: sizes,
    counts and shapes are checked before anything runs.

    Args:
        path: of the file.
        verify: whether to compare the checksum of its weights, too.
        tune: whether to measure the kernels here, or to use those that the file names.

    Raises:
        InputError: what is wrong with the file.
    """
    engine, about = Engine.read(path, verify=verify, tune=tune)
    try:
        return restored(engine, about)
    except InputError as err:
        raise InputError(f"{path}: {err}") from err
