"""IUNet for people with a table: scikit-learn estimators that find a ticket and predict with it."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import Tags, compute_class_weight
from sklearn.utils.validation import (
    check_is_fitted,
    validate_data,
)
from torch import Tensor

from secateurs import masks, objectives, parameters, recipes, validation
from secateurs.data.batches import Data
from secateurs.data.prepare import encode_frame, fit_preparation, to_frame
from secateurs.data.views import ColumnViews, View, corruption, of_columns
from secateurs.device import Precision
from secateurs.ensemble import Members, find_ensemble
from secateurs.errors import InputError
from secateurs.fitted import (
    FittedTickets,
    is_pair,
    softmax,
    split,
    warn_of_collapse,
    whole_program,
    whole_seed,
)
from secateurs.measures.quality import classification
from secateurs.optimizers import SGD, AdamW
from secateurs.preparation import feature_names, groups, input_names, width
from secateurs.progress import PhaseProgress
from secateurs.recipes import Recipe
from secateurs.runtime.engine import compile as compile_network
from secateurs.runtime.predictors import TableEngine
from secateurs.runtime.program import Program
from secateurs.tickets import Ticket, TicketConfig
from secateurs.training import PhaseConfig
from secateurs.validation import ArrayLike

__all__ = [
    "AUTO_COMPRESSIONS",
    "AUTO_VAL_FRACTION",
    "Criterion",
    "TicketClassifier",
    "TicketRegressor",
]

AUTO_COMPRESSIONS = (2.0, 4.0, 8.0, 16.0, 32.0)
AUTO_VAL_FRACTION = 0.2

Criterion = str | Callable[..., masks.Scores]


def _is_frame(X: object) -> bool:
    return hasattr(X, "__dataframe__") or hasattr(X, "__arrow_c_stream__")


class _TicketEstimator(FittedTickets):
    """What the classifier and the regressor share: reading tables, fitting, saving."""

    _contrastive = False

    def __init__(
        self,
        compression: float | Literal["auto"] = 8,
        *,
        preset: str | None = None,
        init_scale: float = 0.25,
        criterion: Criterion = "magnitude",
        rewind: str = "start",
        widths: Sequence[int] | None = None,
        search_epochs: int | None = None,
        search_lr: float | None = None,
        finetune_epochs: int | None = None,
        finetune_lr: float = 1e-3,
        weight_decay: float = 1e-2,
        batch_size: int | None = None,
        snapshots: int = 1,
        n_tickets: int = 1,
        n_jobs: int | None = None,
        regime: str | float | None = None,
        val_fraction: float = 0.0,
        precision: Precision = "fp32",
        device: str | None = None,
        time_limit: float | None = None,
        checkpoint_dir: str | Path | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.compression = compression
        self.preset = preset
        self.init_scale = init_scale
        self.criterion = criterion
        self.rewind = rewind
        self.widths = widths
        self.search_epochs = search_epochs
        self.search_lr = search_lr
        self.finetune_epochs = finetune_epochs
        self.finetune_lr = finetune_lr
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.snapshots = snapshots
        self.n_tickets = n_tickets
        self.n_jobs = n_jobs
        self.regime = regime
        self.val_fraction = val_fraction
        self.precision = precision
        self.device = device
        self.time_limit = time_limit
        self.checkpoint_dir = checkpoint_dir
        self.random_state = random_state
        self.verbose = verbose

    def _recipe(self, n_rows: int) -> Recipe:
        names = ("widths", "search_epochs", "search_lr", "finetune_epochs", "batch_size")
        given = {name: getattr(self, name) for name in (*names, "init_scale")}
        if given["widths"] is not None:
            given["widths"] = parameters.widths(given["widths"])
        regime = parameters.plain(self.regime)
        return recipes.resolve(n_rows, preset=self.preset, regime=regime, given=given)

    def _config(self, recipe: Recipe, loss: objectives.Loss) -> TicketConfig:
        """Return the configuration at the lowest compression."""
        common: dict[str, Any] = {
            "batch_size": recipe.batch_size,
            "loss": loss,
            "precision": self.precision,
        }
        return TicketConfig(
            search=PhaseConfig(
                epochs=recipe.search_epochs,
                optimizer=SGD(lr=recipe.search_lr),
                contrastive_weight=self.contrastive_weight if self._contrastive else 0.0,
                temperature=self.temperature if self._contrastive else 1.0,
                **common,
            ),
            finetune=PhaseConfig(
                epochs=recipe.finetune_epochs,
                optimizer=AdamW(lr=self.finetune_lr, weight_decay=self.weight_decay),
                snapshots=self.snapshots,
                **common,
            ),
            compression=1,
            criterion=parameters.criterion(self.criterion),
            rewind=self.rewind,
            init_scale=recipe.init_scale,
            movement=recipe.movement,
        )

    def _read(self, X: ArrayLike, *, reset: bool) -> Any:
        """Validate X and return it as something `encode_frame` takes."""
        if reset:
            self.__dict__.pop("members_", None)  # a failed fit must not leave half of two models
        if not _is_frame(X):
            if isinstance(X, (list, tuple)):
                X = np.array(X, dtype=object)  # rows of numbers and words stay what they are
            with validation.refusing():
                return validate_data(
                    self, X, reset=reset, dtype=None, ensure_all_finite="allow-nan"
                )
        frame = to_frame(X)
        if reset and len(frame) == 0:
            raise InputError("a table needs at least one row, got 0 rows; check how it was read")
        if not reset:
            names = input_names(self.preparation_)
            if set(names) <= set(frame.columns) and len(names) == len(frame.columns):
                frame = frame[names]  # another order is fine
            else:
                encode_frame(self.preparation_, frame.iloc[:0])  # raises, naming the columns
        with validation.refusing():
            return validate_data(self, frame, reset=reset, skip_check_array=True)

    def _encode(self, X: ArrayLike) -> Tensor:
        read = self._read(X, reset=False)
        return torch.from_numpy(encode_frame(self.preparation_, read))

    def _view(self) -> Callable[[Tensor], View] | None:
        """Return what makes the view from the encoded training rows."""
        if not self._contrastive or not self.contrastive_weight:
            return None
        if self.views is not None:
            own = of_columns(self.preparation_, self.views)
            return lambda _: own
        spans, rate = groups(self.preparation_), self.corruption_rate
        return partial(corruption, groups=spans, rate=rate)

    def _fit(
        self,
        X: Any,
        y: Tensor,
        n_outputs: int,
        weight: NDArray[np.float64] | None,
        watched: tuple[ArrayLike, Tensor] | None,
        strata: NDArray[Any] | None,
        loss: objectives.Loss,
    ) -> Self:
        """Fit on validated rows whose targets are tensors."""
        begin = time.monotonic()
        auto = self.compression == "auto"
        seed = whole_seed(self.random_state)
        fraction = self.val_fraction or (AUTO_VAL_FRACTION if auto else 0.0)
        rows, held = split(len(y), strata, 0.0 if watched is not None else fraction, seed=seed)
        frame = to_frame(X)
        self.preparation_ = fit_preparation(frame.iloc[rows])
        x = torch.from_numpy(encode_frame(self.preparation_, frame.iloc[rows]))
        pair = None
        if watched is not None:
            pair = (self._encode(watched[0]), watched[1])
        elif len(held):
            x_held = torch.from_numpy(encode_frame(self.preparation_, frame.iloc[held]))
            pair = (x_held, y[held])
        row_weight = None if weight is None else validation.relative(weight[rows])
        data = Data(train=(x, y[rows]), validation=pair, weight=row_weight)

        recipe = self._recipe(len(rows))
        members = Members(
            n_outputs=n_outputs,
            widths=recipe.widths,
            config=self._config(recipe, loss),
            view=self._view(),
            seed=seed,
            device=self.device,
            checkpoint_dir=None if self.checkpoint_dir is None else Path(self.checkpoint_dir),
        )
        with PhaseProgress() if self.verbose else nullcontext() as progress:
            tickets, chosen, errors = find_ensemble(
                members,
                data,
                AUTO_COMPRESSIONS if auto else (float(self.compression),),
                n_tickets=self.n_tickets,
                n_jobs=self.n_jobs,
                deadline=math.inf if self.time_limit is None else begin + self.time_limit,
                progress=progress,
            )
        if auto:
            self.validation_errors_ = errors
        self._keep(tickets, chosen, recipe, len(rows), time.monotonic() - begin)
        return self

    def _keep(
        self, tickets: list[Ticket], chosen: float, recipe: Recipe, n_rows: int, seconds: float
    ) -> None:
        """Set the fitted attributes."""
        self._keep_tickets(
            tickets,
            compression=chosen,
            snapshots=self.snapshots,
            init_scale=recipe.init_scale,
            about={
                "rows": n_rows,
                "columns": len(feature_names(self.preparation_)),
                "inputs": width(self.preparation_),
                "widths": list(recipe.widths),
            },
            recipe={
                "batch_size": recipe.batch_size,
                "search_lr": recipe.search_lr,
                "regime_asked": parameters.plain(self.regime),
            },
            seconds=seconds,
        )
        asked = self.regime == "lazy" or (recipe.movement or math.inf) <= recipes.LAZY_MOVEMENT
        self._tell_regime(
            silent=asked or not recipe.search_epochs,
            remedy="regime='auto' or more search_epochs",
        )
        self._tell_limit()

    def _outputs(self, X: ArrayLike) -> list[NDArray[np.float64]]:
        """Return the outputs of every member, each [rows, outputs]."""
        check_is_fitted(self)
        return self._member_outputs(self._encode(X))

    def compile(self, precision: str = "fp32", *, tune: bool = True) -> TableEngine:
        """Return what predicts the same from the kept weights alone, fast on a CPU.

        All members are one engine; see `secateurs.runtime`. Its `save` writes one file that
        predicts without torch. Probabilities and numbers equal the estimator's up to rounding.

        Args:
            precision: of the weights: "fp32", or "bf16" or "int8", which change predictions.
            tune: whether to time the kernels on this processor and take the fastest.

        Raises:
            InputError: an unknown precision.

        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True, as_frame=True)
        >>> clf = TicketClassifier(widths=(16,), search_epochs=2, finetune_epochs=7, random_state=0)
        >>> fast = clf.fit(X, y).compile()
        >>> bool(np.abs(fast.predict_proba(X) - clf.predict_proba(X)).max() < 1e-5)
        True
        """
        classes = getattr(self, "classes_", None)
        return TableEngine(
            compile_network(self.to_program(), precision=precision, tune=tune),
            preparation=self.preparation_,
            classes=classes,
            target=self._target(),
        )

    def to_program(self) -> Program:
        """Return what all members make of encoded rows, as arrays; see `secateurs.runtime`.

        That is their mean probabilities, or numbers of a standardised target.
        """
        check_is_fitted(self)
        example = torch.zeros(1, width(self.preparation_))
        return whole_program(self, example, softmax=hasattr(self, "classes_"))

    def _target(self) -> tuple[float, float] | None:
        """Return mean and scale of a target that is a number."""
        return None

    def _description(self) -> dict[str, Any]:
        return super()._description() | {
            "preparation": self.preparation_,
            "feature_names_in": list(map(str, getattr(self, "feature_names_in_", []))),
        }

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.non_deterministic = False
        return tags


def _rows(X: Any, rows: NDArray[np.intp]) -> Any:
    if len(rows) == len(X):
        return X
    return X.iloc[rows] if isinstance(X, pd.DataFrame) else X[rows]


class TicketClassifier(ClassifierMixin, _TicketEstimator):  # type: ignore[misc]
    """A classifier for tables: a wide network pruned to the structure the invariances reveal.

    IUNet: the network is searched with cross-entropy plus a contrastive term over corrupted views
    (ILO) from small initial weights (PIS), pruned once by magnitude, put back to its initial
    weights and finetuned. Tables come as they are: numbers, categories, strings, booleans, missing
    values.

    Args:
        compression: r; 1/r of the encoder's weights are kept. 1 is the dense network, "auto" the
            smallest of 2, 4, ..., 32 within one standard error on validation rows (20% are held
            out for it unless `val_fraction` or `X_val` say otherwise).
        preset: "paper" is MLP_TAB (9 layers of 512) with the paper's recipe, whatever the table's
            size; it fills the parameters below that are None. Set `snapshots=3` for its ensemble.
        init_scale: kappa, the factor on the initial weights during the search (PIS).
        contrastive_weight: lambda of the contrastive term; 0 searches by cross-entropy alone.
        corruption_rate: c, the share of columns that a view replaces (SCARF).
        temperature: of the contrastive term.
        criterion: "magnitude", "snip", "synflow", ... (all of `criteria.CRITERIA`), or a callable;
            with `search_epochs=0` it prunes at initialisation.
        rewind: "start", "scaled_start", "step:K", "none" or "random".
        widths: hidden layer sizes.
        search_epochs, search_lr: of the search phase (SGD, Nesterov momentum).
        finetune_epochs: 105 (cosine cycles of 15, 30 and 60), fewer on large tables.
        finetune_lr, weight_decay: of the finetuning phase (AdamW).
        batch_size: 128, more on large tables.
        snapshots: 1 keeps the final network; 3 also those at the ends of the two earlier cycles.
        n_tickets: networks that are found from different seeds and averaged. 6 at compression 8, 9
            at 16 or 12 at 32 take about the bytes of one dense network.
        n_jobs: how many of the tickets are trained at once, in processes of one thread; None is 1,
            -1 as many as there are cores. It does not change the result. A GPU is used by one.
        views: None is SCARF; or your own invariances on original columns: a callable
            (columns, rng) -> columns, or a dict of callables (values, rng) -> values by column.
        regime: "rich" or "lazy" sets init_scale and search_lr together. A number is how far the
            search is to move the weights, relative to their size at its start, and "auto" the
            target that the tuning sets chose: short pilots find the rate (docs/design/0003).
        class_weight: None, "balanced" or a dict; weights the cross-entropy only.
        val_fraction: stratified share held out and watched (see `history_`).
        precision: "fp32" or "bf16".
        device: "cpu", "cuda", ...; None picks.
        time_limit: seconds after which training stops at the end of an epoch.
        checkpoint_dir: folder from which an interrupted fit continues.
        random_state: int, RandomState or None.
        verbose: 0 is silent, 1 shows a line for each phase.

    Attributes:
        classes_: labels, in the order of `predict_proba`'s columns.
        summary_: dict of sizes, epochs and regime (how far the weights moved).
        history_: DataFrame with one row an epoch.
        density_, n_parameters_kept_: kept share of the prunable weights, parameters that remain.
        compression_: r as used. preparation_, members_, masks_: what predicts.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> clf = TicketClassifier(widths=(32, 32), search_epochs=5, finetune_epochs=14, random_state=0)
    >>> clf.fit(X, y).predict_proba(X).shape
    (150, 3)
    >>> clf.density_
    0.125
    """

    _contrastive = True

    def __init__(
        self,
        compression: float | Literal["auto"] = 8,
        *,
        preset: str | None = None,
        init_scale: float = 0.25,
        contrastive_weight: float = 1.0,
        corruption_rate: float = 0.6,
        temperature: float = 1.0,
        criterion: Criterion = "magnitude",
        rewind: str = "start",
        widths: Sequence[int] | None = None,
        search_epochs: int | None = None,
        search_lr: float | None = None,
        finetune_epochs: int | None = None,
        finetune_lr: float = 1e-3,
        weight_decay: float = 1e-2,
        batch_size: int | None = None,
        snapshots: int = 1,
        n_tickets: int = 1,
        n_jobs: int | None = None,
        views: ColumnViews | None = None,
        regime: str | float | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        val_fraction: float = 0.0,
        precision: Precision = "fp32",
        device: str | None = None,
        time_limit: float | None = None,
        checkpoint_dir: str | Path | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            compression,
            preset=preset,
            init_scale=init_scale,
            criterion=criterion,
            rewind=rewind,
            widths=widths,
            search_epochs=search_epochs,
            search_lr=search_lr,
            finetune_epochs=finetune_epochs,
            finetune_lr=finetune_lr,
            weight_decay=weight_decay,
            batch_size=batch_size,
            snapshots=snapshots,
            n_tickets=n_tickets,
            n_jobs=n_jobs,
            regime=regime,
            val_fraction=val_fraction,
            precision=precision,
            device=device,
            time_limit=time_limit,
            checkpoint_dir=checkpoint_dir,
            random_state=random_state,
            verbose=verbose,
        )
        self.contrastive_weight = contrastive_weight
        self.corruption_rate = corruption_rate
        self.temperature = temperature
        self.views = views
        self.class_weight = class_weight

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike = None,
        X_val: ArrayLike = None,
        y_val: ArrayLike = None,
    ) -> Self:
        """Find a ticket for the table.

        Args:
            X: [rows, columns] DataFrame (pandas, polars, Arrow) or array; missing values allowed.
            y: [rows] labels.
            sample_weight: [rows] weights of the cross-entropy; a row of weight 0 is left out.
            X_val: rows to watch, never trained on.
            y_val: their labels.

        Raises:
            InputError: data or parameters that cannot be used; a ValueError.
        """
        parameters.check(self.get_params(deep=False))
        X = self._read(X, reset=True)
        y = validation.labels(y, len(X), "y")
        weight, rows = validation.kept_rows(sample_weight, X)
        X, y = _rows(X, rows), y[rows]
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(
                "a classifier needs at least 2 classes, got one class: "
                f"{parameters.plain(self.classes_[0])!r}"
            )
        if self.class_weight is not None:
            by_row = self._class_weights(y)[codes]
            weight = by_row if weight is None else weight * by_row
        watched = None
        if is_pair(X_val, y_val):
            seen = validation.labels(y_val, len(X_val), "y_val")
            unknown = np.setdiff1d(seen, self.classes_)
            if len(unknown):
                raise InputError(f"y_val must have the classes of y, got also {list(unknown)[:5]}")
            watched = (X_val, torch.from_numpy(np.searchsorted(self.classes_, seen)))
        self._fit(
            X,
            torch.from_numpy(codes.astype(np.int64)),
            len(self.classes_),
            weight,
            watched,
            codes,
            objectives.cross_entropy,
        )
        self._warn_of_collapse(X, y)
        return self

    def _class_weights(self, y: NDArray[Any]) -> NDArray[np.float64]:
        """Return [classes] factors on the cross-entropy."""
        given = self.class_weight
        if isinstance(given, Mapping) and not all(
            isinstance(value, (int, float, np.number)) and 0 < value < math.inf
            for value in given.values()
        ):
            raise InputError(f"class_weight must hold positive numbers by class, got {given!r}")
        with validation.refusing():
            weights: NDArray[np.float64] = compute_class_weight(given, classes=self.classes_, y=y)
        return weights

    def _warn_of_collapse(self, X: Any, y: NDArray[Any]) -> None:
        scores = classification(y, self.predict_proba(X), self.classes_)
        self.summary_["n_classes_predicted"] = scores["n_classes_predicted"]
        if scores["n_classes_predicted"] == 1:
            warn_of_collapse(
                self.predict(_rows(X, np.arange(1)))[0],
                len(self.classes_),
                rows="training row",
                remedy="class_weight='balanced', more epochs or a lower compression",
            )

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return [rows, classes] probabilities in the order of `classes_`: the members' mean.

        With `class_weight` they are those of the weighted problem, not of the table's class shares.
        """
        mean: NDArray[np.float64] = np.mean([softmax(out) for out in self._outputs(X)], axis=0)
        return mean

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return [rows] the most probable label."""
        proba = self.predict_proba(X)
        labels: NDArray[Any] = self.classes_[proba.argmax(1)]
        return labels

    def _description(self) -> dict[str, Any]:
        return super()._description() | {
            "classes": {"dtype": self.classes_.dtype.str, "values": self.classes_.tolist()}
        }


class TicketRegressor(RegressorMixin, _TicketEstimator):  # type: ignore[misc]
    """A regressor for tables, like `TicketClassifier`: searched and finetuned by squared error.

    There is no contrastive term: it needs classes. The target is standardised inside. Parameters
    as for `TicketClassifier`, less those of the contrastive term and of classes.

    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = TicketRegressor(widths=(32, 32), search_epochs=5, finetune_epochs=14, random_state=0)
    >>> reg.fit(X, y).predict(X).shape
    (442,)
    """

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike = None,
        X_val: ArrayLike = None,
        y_val: ArrayLike = None,
    ) -> Self:
        """Find a ticket for the table. Arguments as for `TicketClassifier.fit`; y is numeric."""
        parameters.check(self.get_params(deep=False))
        X = self._read(X, reset=True)
        target = validation.numbers(y, len(X), "y")
        weight, rows = validation.kept_rows(sample_weight, X)
        X, target = _rows(X, rows), target[rows]
        if len(target) < 2:
            raise InputError("training needs at least 2 rows, got 1 sample; collect more rows")
        self.target_mean_, self.target_scale_ = float(target.mean()), float(target.std())
        if not self.target_scale_ > 0:
            raise InputError(
                f"a regression target must vary, got the constant {target[0]:g} in {len(target)} "
                "rows; there is nothing to learn"
            )
        watched = None
        if is_pair(X_val, y_val):
            watched = (X_val, self._standardised(validation.numbers(y_val, len(X_val), "y_val")))
        return self._fit(X, self._standardised(target), 1, weight, watched, None, objectives.mse)

    def _target(self) -> tuple[float, float]:
        return self.target_mean_, self.target_scale_

    def _standardised(self, target: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy((target - self.target_mean_) / self.target_scale_).float()

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return [rows] predictions in the target's units: the members' mean."""
        mean: NDArray[np.float64] = np.mean([out[:, 0] for out in self._outputs(X)], axis=0)
        predicted: NDArray[np.float64] = mean * self.target_scale_ + self.target_mean_
        return predicted

    def _description(self) -> dict[str, Any]:
        return super()._description() | {
            "target": {"mean": self.target_mean_, "scale": self.target_scale_}
        }
