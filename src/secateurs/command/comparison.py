"""What the asked model is worth: trivial, linear, dense and pruned models on unseen rows."""

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich import box
from rich.table import Table
from sklearn.base import clone
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import train_test_split

from secateurs import parameters
from secateurs.checkpoint import write_atomic
from secateurs.data.image_folders import resized
from secateurs.data.images import statistics
from secateurs.data.prepare import encode_frame, fit_preparation
from secateurs.errors import InputError
from secateurs.estimator import TicketClassifier, TicketRegressor
from secateurs.image_classifier import ImageTicketClassifier
from secateurs.measures.quality import classification, regression
from secateurs.networks.dense import MLP_TAB
from secateurs.seeds import derive

__all__ = [
    "COLUMNS",
    "HELD_OUT",
    "Comparison",
    "Estimator",
    "Row",
    "Rows",
    "compare",
    "folder_bytes",
    "hold_out",
    "network_folder",
    "row_hashes",
    "table",
    "widths_title",
]

HELD_OUT = 0.2

Estimator = TicketClassifier | TicketRegressor | ImageTicketClassifier
Rows = pd.DataFrame | NDArray[np.uint8]
"""A table's features, or images [rows, channels, height, width]."""

_LINEAR_SIZE = 32  # larger images are brought to this size for the linear model


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model of a comparison.

    Args:
        model: its name, with the hidden widths of a network.
        scores: measured on the held-out rows; see `secateurs.measures.quality`.
        parameters_kept: numbers that a prediction needs, every member of an ensemble counted.
        bytes: of the saved model folder; of the bare numbers for the models of scikit-learn.
        seconds: of fitting.
    """

    model: str
    scores: dict[str, float]
    parameters_kept: int
    bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Rows of models, how many table rows they were measured on, and how many of those leak.

    `rows_seen` counts the held-out rows whose features also occur among the training rows.
    """

    rows_trained: int
    rows_held_out: int
    rows_seen: int
    models: Sequence[Row]

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps(asdict(self), indent=1)


def row_hashes(X: Rows) -> NDArray[np.uint64]:
    """Return [rows] a hash of each row of a table, missing values included, or of each image.

    >>> a, b, c = row_hashes(pd.DataFrame({"x": [1.0, None, 1.0], "y": ["u", "v", "u"]}))
    >>> bool(a == c), bool(a == b)
    (True, False)
    """
    if isinstance(X, np.ndarray):
        digests = [hashlib.blake2b(x.tobytes(), digest_size=8).digest() for x in X]
        return np.frombuffer(b"".join(digests), dtype=np.uint64)
    try:
        hashes = pd.util.hash_pandas_object(X, index=False)
    except TypeError:  # cells such as lists: refused later on, with a better message
        hashes = pd.util.hash_pandas_object(X.astype(str), index=False)
    return hashes.to_numpy().astype(np.uint64, copy=False)


def hold_out(
    y: NDArray[Any], *, stratify: bool, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the positions of the training rows and of the held-out fifth, each in order.

    Args:
        y: [rows] target.
        stratify: whether classes keep their shares on both sides.
        seed: of the draw.

    Raises:
        InputError: too few rows, or classes too small for both sides.

    >>> train, held = hold_out(np.array([0, 1] * 10), stratify=True, seed=0)
    >>> len(train), len(held)
    (16, 4)
    """
    if stratify:
        try:
            classes, counts = np.unique(y, return_counts=True)
        except TypeError as err:
            raise InputError("labels must be of one type, got several; convert them") from err
        if len(classes) < 2:
            raise InputError(
                f"a classifier needs at least 2 classes, got one class: {classes.tolist()[0]!r}"
            )
        if counts.min() < 3:  # two to train on, and perhaps one to measure on
            raise InputError(
                f"a comparison holds out a fifth of the rows and needs at least 3 of every class, "
                f"got {counts.min()} of class {classes.tolist()[counts.argmin()]!r}; merge it with "
                "another class, drop it, or leave the comparison out"
            )
    try:
        train, held = train_test_split(
            np.arange(len(y)),
            test_size=HELD_OUT,
            stratify=y if stratify else None,
            random_state=derive(seed, "held-out") % 2**32,
        )
    except ValueError as err:
        raise InputError(
            f"a comparison must hold out a fifth of the rows, but {len(y)} rows are too few "
            f"({' '.join(str(err).split())}); leave the comparison out"
        ) from err
    return np.sort(train), np.sort(held)


def widths_title(widths: Sequence[int]) -> str:
    """Return hidden widths as people write them.

    >>> widths_title([512, 512, 512]), widths_title([64, 32])
    ('3x512', '64-32')
    """
    if len(set(widths)) == 1:
        return f"{len(widths)}x{widths[0]}"
    return "-".join(map(str, widths))


def folder_bytes(folder: Path) -> int:
    """Return what the files below `folder` hold together."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _scores(model: Any, X: Any, y: NDArray[Any]) -> dict[str, float]:
    if hasattr(model, "predict_proba"):
        return classification(y, np.asarray(model.predict_proba(X), np.float64), model.classes_)
    return regression(y, model.predict(X))


class _Models:
    """The phases of one comparison; each returns a row."""

    def __init__(
        self,
        estimator: Estimator,
        train: tuple[Rows, NDArray[Any]],
        held: tuple[Rows, NDArray[Any]],
        folder: Path,
    ) -> None:
        self.estimator, self.train, self.held, self.folder = estimator, train, held, folder
        self.classifies = not isinstance(estimator, TicketRegressor)

    def ticket(self) -> Row:
        """Return the asked model's row."""
        return self._network(_kind(self.estimator), self.estimator.compression)

    def dense(self) -> Row:
        """Return the row of the same network without pruning."""
        return self._network("dense", 1)

    def mlp_tab(self) -> Row:
        """Return the row of the paper's network without pruning, by the asked recipe."""
        return self._network("dense MLP_TAB", 1, widths=MLP_TAB)

    def _network(self, kind: str, compression: Any, **changes: Any) -> Row:
        folder = _folder_of(kind, self.folder)
        model = clone(self.estimator)
        model.set_params(compression=compression, checkpoint_dir=folder, **changes)
        model.fit(*self.train)
        model.save(folder / "model")
        network = model.summary_.get("network") or widths_title(model.summary_["widths"])
        title = f"{kind} {network}"
        if model.compression_ > 1:
            title += f", r={model.compression_:g}"
        # A resumed fit took longer than its last session; its epochs know their own seconds.
        seconds = max(model.summary_["seconds"], float(model.history_["seconds"].sum()))
        return Row(
            model=title,
            scores=_scores(model, *self.held),
            parameters_kept=model.n_parameters_kept_,
            bytes=folder_bytes(folder / "model"),
            seconds=seconds,
        )

    def linear(self) -> Row:
        """Return the row of logistic regression (of ridge regression for numbers)."""
        begin = time.monotonic()
        X, y = self.train
        if isinstance(X, np.ndarray):
            x, held, several = *_flat(X, self.held[0]), 100
        else:
            preparation = fit_preparation(X)
            x, held = encode_frame(preparation, X), encode_frame(preparation, self.held[0])
            several = 1000
        if self.classifies:
            weight = self.estimator.get_params().get("class_weight")
            model = LogisticRegression(max_iter=several, class_weight=weight)
        else:
            model = RidgeCV(alphas=np.logspace(-3, 3, 13))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # near enough for a baseline
            model.fit(x, y)
        seconds = time.monotonic() - begin
        numbers = [np.asarray(model.coef_), np.asarray(model.intercept_)]
        return Row(
            model="logistic regression" if self.classifies else "ridge regression",
            scores=_scores(model, held, self.held[1]),
            parameters_kept=sum(n.size for n in numbers),
            bytes=sum(n.nbytes for n in numbers),
            seconds=seconds,
        )

    def trivial(self) -> Row:
        """Return the row of the majority class (of the mean for numbers)."""
        begin = time.monotonic()
        X, y = self.train
        model = DummyClassifier(strategy="prior") if self.classifies else DummyRegressor()
        model.fit(np.zeros((len(X), 1)), y)
        numbers = model.class_prior_ if self.classifies else model.constant_
        return Row(
            model="majority class" if self.classifies else "mean",
            scores=_scores(model, np.zeros((len(self.held[1]), 1)), self.held[1]),
            parameters_kept=numbers.size,
            bytes=numbers.nbytes,
            seconds=time.monotonic() - begin,
        )


def _kind(estimator: Estimator) -> str:
    """Return what the asked model is called."""
    if estimator.compression == 1:
        return "dense"
    return "IUNet" if estimator.get_params().get("contrastive_weight") else "ticket"


def _folder_of(kind: str, folder: Path) -> Path:
    return folder / f"compare-{kind.replace(' ', '-')}"


def network_folder(estimator: Estimator, folder: Path) -> Path:
    """Return where a comparison in `folder` leaves the checkpoints of the asked model.

    >>> network_folder(TicketClassifier(), Path("m.partial")).name
    'compare-IUNet'
    """
    return _folder_of(_kind(estimator), folder)


def _flat(train: NDArray[np.uint8], held: Rows) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return standardised pixels as features; large images are made smaller first."""
    mean, std = (values[:, None, None].astype(np.float32) for values in statistics(train))
    std[std == 0] = 1

    def flat(x: NDArray[np.uint8]) -> NDArray[np.float32]:
        if max(x.shape[2:]) > _LINEAR_SIZE:
            x = resized(x, size=_LINEAR_SIZE)
        values: NDArray[np.float32] = (x.astype(np.float32) / np.float32(255) - mean) / std
        return values.reshape(len(x), -1)

    return flat(train), flat(np.asarray(held))


def _once(path: Path, phase: Callable[[], Row]) -> Row:
    """Return the row that is in `path`, or run the phase and leave its row there."""
    if path.exists():
        return Row(**json.loads(path.read_bytes()))
    row = phase()
    content = json.dumps(asdict(row))

    def write(temporary: Path) -> None:
        temporary.write_text(content, encoding="utf-8")

    write_atomic(path, write)
    return row


def compare(
    estimator: Estimator,
    X: Rows,
    y: NDArray[Any],
    *,
    folder: Path,
    held_out: tuple[Rows, NDArray[Any]] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Train trivial, linear, dense and asked models on 80% of the rows; measure them on the rest.

    Every phase leaves checkpoints and its row in `folder`, so that the same call with the same
    folder continues after a kill.

    Args:
        estimator: the asked model, not fitted and never modified; its `random_state` is an
            integer, which also draws the held-out rows (stratified by class).
        X: [rows, columns] features, or images.
        y: [rows] target.
        held_out: rows of their own to measure on, and their targets: then all others train.
        folder: of these data and settings alone; take another one for others.
        say: called with a line before each phase.

    Raises:
        InputError: data or parameters that cannot be used, before anything is trained.

    >>> import tempfile
    >>> from sklearn.datasets import load_iris
    >>> small = {"widths": (8, 8), "search_epochs": 1, "finetune_epochs": 2, "random_state": 0}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = compare(
    ...         TicketClassifier(**small), *load_iris(return_X_y=True, as_frame=True),
    ...         folder=Path(folder),
    ...     )
    >>> [row.model for row in found.models]
    ['majority class', 'logistic regression', 'dense 2x8', 'IUNet 2x8, r=8']
    """
    seed = estimator.random_state
    if not isinstance(seed, (int, np.integer)):
        raise InputError(f"a comparison needs an integer random_state, got {seed!r}")
    images = isinstance(estimator, ImageTicketClassifier)
    if isinstance(estimator, ImageTicketClassifier):
        estimator.check()
    else:
        parameters.check(estimator.get_params(deep=False))
    y = np.asarray(y)
    train = (X, y)
    if held_out is None:
        stratify = not isinstance(estimator, TicketRegressor)
        train, held_out = (
            (_taken(X, rows), y[rows]) for rows in hold_out(y, stratify=stratify, seed=int(seed))
        )
    seen = int(np.isin(row_hashes(held_out[0]), row_hashes(train[0])).sum())
    models = _Models(estimator, train, held_out, folder)
    # The asked model goes first: it refuses bad data and parameters before anything is trained.
    phases = {"ticket": models.ticket, "dense": models.dense}
    if estimator.compression == 1:
        del phases["ticket"]  # the asked model is the dense one
    if not images and estimator.widths is None and estimator.preset != "paper":
        phases["mlp_tab"] = models.mlp_tab
    phases |= {"linear": models.linear, "trivial": models.trivial}
    rows = []
    for i, (name, phase) in enumerate(phases.items(), start=1):
        of = len(train[1]) + len(held_out[1])
        say(f"compare {i}/{len(phases)}: {name} on {len(train[1]):,} of {of:,} rows")
        rows.append(_once(folder / f"compare-{name}.json", phase))
    return Comparison(
        rows_trained=len(train[1]),
        rows_held_out=len(held_out[1]),
        rows_seen=seen,
        models=rows[::-1],
    )


def _taken(X: Rows, rows: NDArray[np.intp]) -> Rows:
    return X.iloc[rows] if isinstance(X, pd.DataFrame) else X[rows]


COLUMNS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced\naccuracy",
    "log_loss": "log-loss",
    "r2": "R²",
    "rmse": "RMSE",
    "mae": "MAE",
}


def table(comparison: Comparison) -> Table:
    """Return the comparison as a table for `rich` to print.

    >>> row = Row(model="mean", scores={"r2": 0.0}, parameters_kept=1, bytes=8, seconds=0.0)
    >>> found = Comparison(rows_trained=8, rows_held_out=2, rows_seen=0, models=[row])
    >>> [column.header for column in table(found).columns]
    ['model', 'R²', 'parameters\\nkept', 'bytes', 'seconds']
    """
    names = [name for name in COLUMNS if name in comparison.models[0].scores]
    drawn = Table(
        title=f"{comparison.rows_held_out:,} held-out rows, "
        f"{comparison.rows_trained:,} training rows",
        title_justify="left",
        box=box.SIMPLE_HEAD,  # narrow: fits a terminal of 80 characters
        padding=0,
    )
    drawn.add_column("model", no_wrap=True)
    for header in [*(COLUMNS[name] for name in names), "parameters\nkept", "bytes", "seconds"]:
        drawn.add_column(header, justify="right")
    for row in comparison.models:
        drawn.add_row(
            row.model,
            *(f"{row.scores[name]:.3f}" for name in names),
            f"{row.parameters_kept:,}",
            f"{row.bytes:,}",
            f"{row.seconds:.1f}",
        )
    return drawn
