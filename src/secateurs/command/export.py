"""A model as one file for other machines: the runtime's own format, or ONNX; checked before."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from secateurs.command.comparison import Estimator
from secateurs.errors import InputError
from secateurs.estimator import TicketRegressor
from secateurs.image_classifier import ImageTicketClassifier
from secateurs.preparation import Preparation, canonical, decode, groups, input_names, width
from secateurs.runtime.compact import compact
from secateurs.runtime.engine import Engine
from secateurs.runtime.export import to_onnx
from secateurs.runtime.predictors import restored
from secateurs.runtime.program import Op, Program
from secateurs.runtime.storage import write

__all__ = ["FORMATS", "Exported", "example_columns", "export"]

FORMATS = ("onnx", "runtime")

_ROWS = 256
_NEAR = 1e-5  # that outputs of full precision may differ by
_MANY_DIGITS = 16  # deviations that a column's mean may be away from 0 for float32 to hold it


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Args:
        n_bytes: of the file.
        difference: largest, between the file's outputs and the model's.
        rows: random rows on which they were compared.
    """

    n_bytes: int
    difference: float
    rows: int


def example_columns(preparation: Preparation, rows: int, *, seed: int = 0) -> dict[str, Any]:
    """Return random columns of a table: usual values, missing ones, and unknown categories.

    Args:
        preparation: of the table.
        rows: how many.
        seed: of the draws.

    >>> preparation = {"format": 1, "columns": [
    ...     {"name": "job", "kind": "categorical", "categories": ["a", "b"]}]}
    >>> sorted(set(example_columns(preparation, 100)["job"]), key=str)
    [None, 'a', 'b']
    """
    rng = np.random.default_rng(seed)
    encoded = np.zeros((rows, width(preparation)))
    spans = groups(preparation)
    kept = [column for column in preparation["columns"] if column["kind"] != "dropped"]
    for column, (start, stop) in zip(kept, spans, strict=True):
        if column["kind"] == "numeric":
            encoded[:, start] = rng.standard_normal(rows)
        else:
            level = rng.integers(0, stop - start + 1, rows)  # the last one is unknown
            known = np.flatnonzero(level < stop - start)
            encoded[known, start + level[known]] = 1
    columns: dict[str, Any] = dict(decode(preparation, encoded))
    for column in kept:
        if column["kind"] == "numeric":
            # what float32 holds, so that files with inputs of that type get the same numbers
            values = columns[column["name"]].astype(np.float32).astype(np.float64)
            values[rng.random(rows) < 0.1] = np.nan
            columns[column["name"]] = values
    return columns


def _outputs(model: Estimator, X: Any) -> NDArray[np.float64]:
    """Return [rows, outputs] of the model itself."""
    if isinstance(model, TicketRegressor):
        return model.predict(X)[:, None]
    return model.predict_proba(X)


def _frame(model: Any, columns: Mapping[str, Any]) -> Any:
    """Return columns as a table that the model takes, with those that it drops."""
    rows = len(next(iter(columns.values())))
    names = input_names(model.preparation_)
    frame = pd.DataFrame({name: columns.get(name, np.full(rows, np.nan)) for name in names})
    return frame if hasattr(model, "feature_names_in_") else frame.to_numpy(dtype=object)


def _as_onnx(model: Estimator) -> tuple[bytes, Callable[[Any], NDArray[np.float64]]]:
    """Return a model as ONNX, and what runs it by ONNX Runtime on columns or images."""
    try:
        import onnxruntime
    except ImportError as err:
        raise InputError(
            "an ONNX file is checked by onnxruntime, which is absent; pip install secateurs[onnx]"
        ) from err
    program = model.to_program()
    labels = None
    if isinstance(model, TicketRegressor):
        mean, scale = model.target_mean_, model.target_scale_
        put_back = Op(
            kind="scale",
            inputs=(len(program.ops),),
            shape=(1,),
            weight=np.array([scale], np.float32),
            bias=np.array([mean], np.float32),
        )
        program = Program(input_shape=program.input_shape, ops=(*program.ops, put_back))
    else:
        labels = model.classes_.tolist()
    program = compact(program)
    if isinstance(model, ImageTicketClassifier):
        blob = to_onnx(program, labels=labels).SerializeToString()
    else:
        precise = any(
            max(abs(column["mean"]), abs(column["median"])) > _MANY_DIGITS * column["scale"]
            for column in model.preparation_["columns"]
            if column["kind"] == "numeric"
        )
        blob = to_onnx(
            program,
            labels=labels,
            preparation=model.preparation_,
            numbers="float64" if precise else "float32",
        ).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(blob, options, providers=["CPUExecutionProvider"])
    types = {"tensor(float)": np.float32, "tensor(double)": np.float64}

    def run(rows: Any) -> NDArray[np.float64]:
        if not isinstance(rows, Mapping):
            rows = {"x": rows.astype(np.float32)}
        feeds = {}
        for wanted in session.get_inputs():
            values = rows[wanted.name]
            if wanted.type == "tensor(string)":
                values = np.array([canonical(v) or "" for v in values], dtype=object)
            else:
                values = values.astype(types[wanted.type])
            feeds[wanted.name] = values[:, None] if values.ndim == 1 else values
        first: NDArray[Any] = session.run(None, feeds)[0]
        return first.astype(np.float64)

    return blob, run


def _as_runtime(
    model: Estimator, precision: str
) -> tuple[bytes, Callable[[Any], NDArray[np.float64]]]:
    """Return a model as the runtime's file, and what runs it as it is read back."""
    made = model.compile(precision)
    blob = made.to_bytes()
    engine, about = Engine.from_bytes(blob), made.about()
    read = restored(engine, about)
    assert not isinstance(read, Engine)
    if isinstance(model, TicketRegressor):
        return blob, lambda rows: read.predict(rows)[:, None]
    return blob, read.predict_proba


def export(model: Estimator, path: Path, *, format: str, precision: str = "fp32") -> Exported:
    """Write a model as one file; it appears once its outputs were those of the model.

    Args:
        model: fitted.
        path: of the file; an older one is replaced.
        format: one of `FORMATS`.
        precision: of the weights in the runtime's format: "fp32", "bf16" or "int8".

    Raises:
        InputError: outputs that differ, a package that is missing, or a file that cannot be
            written.
    """
    if format == "onnx" and precision != "fp32":
        raise InputError(
            f"--precision is for --format runtime, got {precision} beside onnx; leave it out"
        )
    blob, run = _as_onnx(model) if format == "onnx" else _as_runtime(model, precision)
    if isinstance(model, ImageTicketClassifier):
        rng = np.random.default_rng(0)
        given: Any = rng.integers(0, 256, (_ROWS, *model.image_shape_), dtype=np.uint8)
        own = given
    else:
        given = example_columns(model.preparation_, _ROWS)
        own = _frame(model, given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = _outputs(model, own)
    difference = float(np.abs(run(given) - wanted).max())
    unit = 1.0
    if isinstance(model, TicketRegressor):
        unit = max(model.target_scale_, abs(model.target_mean_))
    if precision == "fp32" and not difference <= _NEAR * unit:
        raise InputError(
            f"the file must predict as the model does, but differs by {difference:.2g}; this is "
            f"a bug or a broken {format} library: nothing was written"
        )
    write(path, blob)
    return Exported(n_bytes=len(blob), difference=difference, rows=_ROWS)
