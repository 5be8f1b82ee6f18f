"""IUNet for people with images: a scikit-learn estimator over arrays of them."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from secateurs import masks, objectives, parameters, recipes, validation
from secateurs.data.batches import Data
from secateurs.data.image_views import IMAGE_VIEWS
from secateurs.data.images import statistics
from secateurs.data.views import View
from secateurs.device import Precision
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
from secateurs.networks.image_network import ImageNetwork
from secateurs.optimizers import SGD
from secateurs.progress import PhaseProgress
from secateurs.recipes import ImageRecipe
from secateurs.runtime.engine import compile as compile_network
from secateurs.runtime.predictors import ImageEngine
from secateurs.runtime.program import Program
from secateurs.seeds import derive
from secateurs.tickets import TicketConfig, find_ticket
from secateurs.training import PhaseConfig
from secateurs.validation import ArrayLike

__all__ = ["ImageTicketClassifier"]

_LOOKED_AT = 4096  # training images that the warning of a collapse looks at


class ImageTicketClassifier(ClassifierMixin, FittedTickets):  # type: ignore[misc]
    """A classifier for images: a wide network pruned to the structure the invariances reveal.

    IUNet as in `TicketClassifier`, with SimCLR's views and SGD in both phases. Images are whole
    numbers in 0..255 of one size: [rows, height, width], [rows, channels, height, width] or
    [rows, height, width, channels]. They are normalised inside the network.

    Args:
        compression: r; 1/r of the encoder's weights are kept. 1 is the dense network.
        network: "cnn" (the paper's, eight convolutions), "mlp_vis" (the fully connected network
            that contains it), "resnet18" (with a 3 x 3 stem below 64 pixels) or "lenet_300_100".
        width: alpha of "cnn" (8 by default) and "mlp_vis" (2), the channels behind the stem of
            "resnet18" (64); "lenet_300_100" has none.
        view: what leaves the class of an image alone: a name of `data.image_views.IMAGE_VIEWS`
            ("simclr": crop, flip, colours, grey) or a callable (x, generator) -> x' on batches.
            SimCLR's flips change what digits and letters say: take "crop" for these. None is for
            `contrastive_weight=0`.
        init_scale: kappa, the factor on the initial weights during the search (PIS).
        contrastive_weight: lambda of the contrastive term; 0 searches by cross-entropy alone.
        criterion: "magnitude", "snip", ... (all of `criteria.CRITERIA`), or a callable.
        rewind: "start", "scaled_start", "step:K", "none" or "random".
        search_epochs, search_lr: of the search phase; None is `recipes.IMAGES`.
        finetune_epochs, finetune_lr: of the finetuning phase, whose rate falls along a cosine.
        batch_size: images a step.
        val_fraction: stratified share held out and watched (see `history_`).
        precision: "fp32" or "bf16".
        device: "cpu", "cuda", ...; None picks.
        time_limit: seconds after which training stops at the end of an epoch.
        checkpoint_dir: folder from which an interrupted fit continues.
        random_state: int, RandomState or None.
        verbose: 0 is silent, 1 shows a line for each phase.

    Attributes:
        classes_: labels, in the order of `predict_proba`'s columns.
        image_shape_: (channels, height, width) of the images; n_features_in_ is their product.
        summary_, history_, density_, n_parameters_kept_, compression_, members_, masks_: as those
            of `TicketClassifier`.

    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits()
    >>> X = (digits.images * 255 / 16).astype("uint8")
    >>> clf = ImageTicketClassifier(
    ...     width=2, view="crop", search_epochs=2, finetune_epochs=4, random_state=0
    ... )
    >>> clf.fit(X[:1000], digits.target[:1000]).predict_proba(X[1000:1010]).shape
    (10, 10)
    >>> clf.image_shape_, round(clf.density_, 3)
    ((1, 8, 8), 0.125)
    """

    def __init__(
        self,
        compression: float = 8,
        *,
        network: str = "cnn",
        width: int | None = None,
        view: str | View | None = "simclr",
        init_scale: float = 0.25,
        contrastive_weight: float = 1.0,
        criterion: str | Callable[..., masks.Scores] = "magnitude",
        rewind: str = "start",
        search_epochs: int | None = None,
        search_lr: float | None = None,
        finetune_epochs: int | None = None,
        finetune_lr: float | None = None,
        batch_size: int = 128,
        val_fraction: float = 0.0,
        precision: Precision = "fp32",
        device: str | None = None,
        time_limit: float | None = None,
        checkpoint_dir: str | Path | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.compression = compression
        self.network = network
        self.width = width
        self.view = view
        self.init_scale = init_scale
        self.contrastive_weight = contrastive_weight
        self.criterion = criterion
        self.rewind = rewind
        self.search_epochs = search_epochs
        self.search_lr = search_lr
        self.finetune_epochs = finetune_epochs
        self.finetune_lr = finetune_lr
        self.batch_size = batch_size
        self.val_fraction = val_fraction
        self.precision = precision
        self.device = device
        self.time_limit = time_limit
        self.checkpoint_dir = checkpoint_dir
        self.random_state = random_state
        self.verbose = verbose

    def check(self) -> None:
        """Refuse parameters that cannot work; `fit` begins with it.

        Raises:
            InputError: the first that breaks its rule.

        >>> ImageTicketClassifier(view=None).check()
        Traceback (most recent call last):
        secateurs.errors.InputError: view must be ... got None; set contrastive_weight=0 for none
        """
        given = self.get_params(deep=False)
        if given["compression"] == "auto":
            raise InputError(
                "compression must be a number of at least 1 (1 keeps everything) for images, got "
                "'auto'; compare several on validation images"
            )
        if self.batch_size is None:
            raise InputError("batch_size must be an integer of at least 2, got None; 128 is usual")
        if self.finetune_lr is None:
            del given["finetune_lr"]
        parameters.check(given)
        ImageNetwork(kind=self.network, width=self._width(), shape=(1, 1, 1), n_outputs=1)
        self._view()

    def _width(self) -> int | None:
        return None if self.width is None else int(self.width)

    def _view(self) -> View | None:
        if callable(self.view):
            return self.view if self.contrastive_weight else None
        if self.view is None and not self.contrastive_weight:
            return None
        if not isinstance(self.view, str) or self.view not in IMAGE_VIEWS:
            raise InputError(
                f"view must be a callable or one of {', '.join(IMAGE_VIEWS)}, got {self.view!r}; "
                "set contrastive_weight=0 for none"
            )
        return IMAGE_VIEWS[self.view]() if self.contrastive_weight else None

    def _recipe(self) -> ImageRecipe:
        names = ("search_epochs", "search_lr", "finetune_epochs", "finetune_lr")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return replace(recipes.IMAGES, **given)

    def _config(self, recipe: ImageRecipe) -> TicketConfig:
        common: dict[str, Any] = {"batch_size": self.batch_size, "precision": self.precision}
        return TicketConfig(
            search=PhaseConfig(
                epochs=recipe.search_epochs,
                optimizer=SGD(lr=recipe.search_lr),
                loss=objectives.cross_entropy,
                contrastive_weight=self.contrastive_weight,
                **common,
            ),
            finetune=PhaseConfig(
                epochs=recipe.finetune_epochs,
                optimizer=SGD(lr=recipe.finetune_lr, schedule="cosine"),
                loss=objectives.cross_entropy,
                **common,
            ),
            compression=self.compression,
            criterion=parameters.criterion(self.criterion),
            rewind=self.rewind,
            init_scale=self.init_scale,
        )

    def _read(self, X: ArrayLike, name: str = "X") -> Tensor:
        """Return images of the fitted shape as a tensor."""
        x = validation.images(X, name)
        where = "" if name == "X" else f" in {name}"
        if x.shape[1:] != self.image_shape_:
            raise InputError(
                f"images must be {_size(self.image_shape_)} as those of training, got "
                f"{_size(x.shape[1:])}{where}; resize or convert them"
            )
        return torch.from_numpy(x)

    def fit(
        self, X: ArrayLike, y: ArrayLike, X_val: ArrayLike = None, y_val: ArrayLike = None
    ) -> Self:
        """Find a ticket for the images.

        Args:
            X: whole numbers in 0..255, [rows, height, width], [rows, channels, height, width] or
                [rows, height, width, channels].
            y: [rows] labels.
            X_val: images to watch, never trained on.
            y_val: their labels.

        Raises:
            InputError: images, labels or parameters that cannot be used; a ValueError.
        """
        self.check()
        self.__dict__.pop("members_", None)  # a failed fit must not leave half of two models
        x = validation.images(X, "X")
        y = validation.labels(y, len(x), "y")
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(
                "a classifier needs at least 2 classes, got one class: "
                f"{parameters.plain(self.classes_[0])!r}"
            )
        _, channels, height, width = x.shape
        self.image_shape_ = (channels, height, width)
        self.n_features_in_ = channels * height * width
        watched = None
        if is_pair(X_val, y_val):
            x_val = self._read(X_val, "X_val")
            seen = validation.labels(y_val, len(x_val), "y_val")
            unknown = np.setdiff1d(seen, self.classes_)
            if len(unknown):
                raise InputError(f"y_val must have the classes of y, got also {list(unknown)[:5]}")
            watched = (x_val, torch.from_numpy(np.searchsorted(self.classes_, seen)))
        self._fit(x, codes.astype(np.int64), watched)
        self._warn_of_collapse(x)
        return self

    def _fit(
        self, x: NDArray[np.uint8], codes: NDArray[np.int64], watched: tuple[Tensor, Tensor] | None
    ) -> None:
        """Fit on images whose classes are numbered."""
        begin = time.monotonic()
        seed = whole_seed(self.random_state)
        fraction = 0.0 if watched is not None else self.val_fraction
        rows, held = split(len(x), codes, fraction, seed=seed)
        network = ImageNetwork(
            kind=self.network,
            width=self._width(),
            shape=self.image_shape_,
            n_outputs=len(self.classes_),
        )
        recipe = self._recipe()
        config = self._config(recipe)
        if len(held):
            watched = (torch.from_numpy(x[held]), torch.from_numpy(codes[held]))
            x, codes = x[rows], codes[rows]
        start = network.start(*statistics(x), seed=derive(seed, "ticket", 0))
        with PhaseProgress() if self.verbose else nullcontext() as progress:
            ticket = find_ticket(
                start,
                Data(train=(torch.from_numpy(x), torch.from_numpy(codes)), validation=watched),
                config,
                seed=derive(seed, "ticket", 0),
                view=self._view(),
                device=self.device,
                checkpoint_dir=None if self.checkpoint_dir is None else Path(self.checkpoint_dir),
                progress=progress,
                time_limit=self.time_limit,
            )
        self._keep(ticket, network, recipe, len(x), time.monotonic() - begin)

    def _keep(
        self, ticket: Any, network: ImageNetwork, recipe: ImageRecipe, n_rows: int, seconds: float
    ) -> None:
        """Set the fitted attributes."""
        self.network_ = network
        named = self.view if isinstance(self.view, str) else getattr(self.view, "__name__", "own")
        self._keep_tickets(
            [ticket],
            compression=float(self.compression),
            snapshots=1,
            init_scale=self.init_scale,
            about={
                "rows": n_rows,
                "shape": list(self.image_shape_),
                "network": network.title,
            },
            recipe={
                "view": named if self.contrastive_weight else None,
                "batch_size": self.batch_size,
                "search_lr": recipe.search_lr,
                "finetune_lr": recipe.finetune_lr,
            },
            seconds=seconds,
        )
        self._tell_regime(
            silent=not recipe.search_epochs, remedy="a higher search_lr or more search_epochs"
        )
        self._tell_limit()

    def _warn_of_collapse(self, x: NDArray[np.uint8]) -> None:
        some = np.linspace(0, len(x) - 1, min(len(x), _LOOKED_AT)).astype(np.intp)
        predicted = np.unique(self.predict(x[some]))
        self.summary_["n_classes_predicted"] = len(predicted)
        if len(predicted) == 1:
            warn_of_collapse(
                parameters.plain(predicted[0]),
                len(self.classes_),
                rows=f"training image of {len(some):,}" if len(some) < len(x) else "training image",
                remedy="more epochs, another learning rate or a lower compression",
            )

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return [rows, classes] probabilities in the order of `classes_`.

        Raises:
            InputError: images of another size or channel count.
        """
        check_is_fitted(self)
        mean: NDArray[np.float64] = np.mean(
            [softmax(out) for out in self._member_outputs(self._read(X))], axis=0
        )
        return mean

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return [rows] the most probable label."""
        proba = self.predict_proba(X)
        labels: NDArray[Any] = self.classes_[proba.argmax(1)]
        return labels

    def compile(self, precision: str = "fp32", *, tune: bool = True) -> ImageEngine:
        """Return what predicts the same from the kept weights alone, fast on a CPU.

        See `secateurs.runtime`; its `save` writes one file that predicts without torch.

        Args:
            precision: of the weights of linear layers: "fp32", or "bf16" or "int8", which change
                predictions.
            tune: whether to time the kernels on this processor and take the fastest.

        Raises:
            InputError: an unknown precision.
        """
        engine = compile_network(self.to_program(), precision=precision, tune=tune)
        return ImageEngine(engine, classes=self.classes_)

    def to_program(self) -> Program:
        """Return what predicts probabilities of images, as arrays; see `secateurs.runtime`."""
        check_is_fitted(self)
        example = torch.zeros(1, *self.image_shape_, dtype=torch.uint8)
        return whole_program(self, example, softmax=True)

    def _network(self) -> ImageNetwork:
        return self.network_

    def _description(self) -> dict[str, Any]:
        return super()._description() | {
            "classes": {"dtype": self.classes_.dtype.str, "values": self.classes_.tolist()}
        }

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.non_deterministic = False
        return tags


def _size(shape: tuple[int, ...]) -> str:
    """Return an image's shape as people say it."""
    channels, height, width = shape
    return f"{height} x {width} with {channels} channel{'s' * (channels != 1)}"
