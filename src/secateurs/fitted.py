"""What the estimators share once their rows are tensors: members, summary, warnings, saving."""

import copy
import html
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from secateurs import device as devices
from secateurs import masks, model_directory, parameters, recipes
from secateurs.errors import CollapseWarning, InputError, RegimeWarning, TimeLimitWarning
from secateurs.masks import Mask
from secateurs.measures.size import n_parameters_kept
from secateurs.runtime.program import Program
from secateurs.runtime.reading import ensemble, read
from secateurs.seeds import derive
from secateurs.tabular import sizes, training
from secateurs.tickets import Ticket
from secateurs.training import outputs

__all__ = [
    "FittedTickets",
    "is_pair",
    "softmax",
    "split",
    "warn_of_collapse",
    "whole_program",
    "whole_seed",
]


def whole_seed(random_state: Any) -> int:
    """Return the integer that all random streams of a fit come from.

    >>> whole_seed(7)
    7
    """
    if isinstance(random_state, (int, np.integer)):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def is_pair(X_val: Any, y_val: Any) -> bool:
    """Return whether there are validation rows.

    Raises:
        InputError: rows without targets, or targets without rows.

    >>> is_pair(None, None)
    False
    """
    if (X_val is None) != (y_val is None):
        raise InputError("X_val and y_val need each other; pass both or neither")
    return X_val is not None


def split(
    n: int, strata: NDArray[Any] | None, fraction: float, *, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the training rows and those held out for validation, each in order.

    Args:
        n: number of rows.
        strata: [n] classes that keep their shares on both sides, or None.
        fraction: held out; 0 holds out none.
        seed: of the draw.

    Raises:
        InputError: too few rows, or classes too small for both sides.

    >>> train, held = split(10, None, 0.2, seed=0)
    >>> len(train), len(held)
    (8, 2)
    """
    rows = np.arange(n)
    if not fraction:
        return rows, rows[:0]
    try:
        train, held = train_test_split(
            rows, test_size=fraction, stratify=strata, random_state=derive(seed, "val") % 2**32
        )
    except ValueError as err:
        raise InputError(
            f"val_fraction={fraction:g} cannot be split off {n} rows with every class on both "
            f"sides ({err}); change it or pass X_val, y_val"
        ) from err
    return np.sort(train), np.sort(held)


def softmax(out: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return [rows, classes] probabilities of logits.

    >>> softmax(np.array([[0.0, 0.0]]))
    array([[0.5, 0.5]])
    """
    raised = np.exp(out - out.max(1, keepdims=True))
    normal: NDArray[np.float64] = raised / raised.sum(1, keepdims=True)
    return normal


def whole_program(
    estimator: "FittedTickets",
    example: Tensor,
    *,
    softmax: bool,
    target: tuple[float, float] | None = None,
) -> Program:
    """Return what all members make of one input: the mean of their outputs.

    Args:
        estimator: fitted.
        example: rows as the networks take them.
        softmax: whether the members' probabilities are averaged, not their outputs.
        target: (mean, scale) of a standardised target, which the output is put back to.
    """
    check_is_fitted(estimator)
    programs = [
        read(network, mask, example)
        for network, mask in zip(estimator.members_, estimator.masks_, strict=True)
    ]
    return ensemble(programs, softmax=softmax, target=target)


def warn_of_collapse(label: Any, n_classes: int, *, rows: str, remedy: str) -> None:
    """Warn that one class is all that is predicted.

    Args:
        label: of that class.
        n_classes: there are.
        rows: such as "training row".
        remedy: what to try.
    """
    warnings.warn(
        f"every {rows} is predicted as {label!r}, one of {n_classes} classes; try {remedy}",
        CollapseWarning,
        stacklevel=4,
    )


class FittedTickets(BaseEstimator):  # type: ignore[misc]
    """An estimator whose model is members with masks; `_description` says the rest of it.

    What subclasses have: parameters `random_state`, `device`, `time_limit`, ..., and a `fit` that
    ends in `_keep_tickets`.
    """

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "members_")

    def _keep_tickets(
        self,
        tickets: Sequence[Ticket],
        *,
        compression: float,
        snapshots: int,
        init_scale: float,
        about: Mapping[str, Any],
        recipe: Mapping[str, Any],
        seconds: float,
    ) -> None:
        """Set the fitted attributes.

        Args:
            tickets: found; each gives its last `snapshots` networks.
            compression: r as used.
            snapshots: see there.
            init_scale: of the search.
            about: what the summary says of the rows and the network, first.
            recipe: what it says of the settings.
            seconds: of the whole fit.
        """
        self.compression_ = compression
        self.members_: list[Any] = []
        self.masks_: list[Mask] = []
        rows = []
        for i, ticket in enumerate(tickets):
            mask = {name: kept.cpu() for name, kept in ticket.mask.items()}
            for state in ticket.snapshots[-snapshots:]:
                network = copy.deepcopy(ticket.network).cpu()
                network.load_state_dict(state)
                self.members_.append(network.eval().requires_grad_(requires_grad=False))
                self.masks_.append(mask)
            rows += [{"ticket": i, **row} for row in ticket.history]
        self.history_ = pd.DataFrame(rows)
        self.density_ = masks.density(self.masks_[0])
        self.n_parameters_kept_ = sum(map(n_parameters_kept, self.members_, self.masks_))
        self.summary_: dict[str, Any] = {
            **about,
            "compression": compression,
            "density": self.density_,
            **sizes(self.members_, self.masks_),
            **recipe,
            **training(tickets, init_scale),
            "regime": None,
            "seconds": seconds,
        }

    def _tell_regime(self, *, silent: bool, remedy: str) -> None:
        """Name the regime of the search, and warn of one that stayed lazy and was not to.

        Args:
            silent: the search was to stay lazy, or there was none.
            remedy: what to try.
        """
        moved = self.summary_["weight_movement"]
        if moved is None:
            return
        self.summary_["regime"] = recipes.regime_of(moved)
        if self.summary_["regime"] == "lazy" and not silent:
            warnings.warn(
                f"the search stayed lazy: its weights moved by {moved:.2g} of their size, so that "
                f"the mask is mostly that of the initial weights; try {remedy}",
                RegimeWarning,
                stacklevel=5,
            )

    def _tell_limit(self) -> None:
        """Warn of a training that the time limit ended."""
        if not self.summary_["complete"]:
            warnings.warn(
                f"the time limit of {self.time_limit:g} s ended training early: "
                f"{self.summary_['search_epochs']} search and {self.summary_['finetune_epochs']} "
                "finetuning epochs ran; raise time_limit for the full recipe",
                TimeLimitWarning,
                stacklevel=5,
            )

    def _member_outputs(self, x: Tensor) -> list[NDArray[np.float64]]:
        """Return the outputs of every member, each [rows, outputs]."""
        where = devices.pick(self.device)
        moved, results = x.to(where), []
        with devices.arithmetic("fp32", where):
            for network in self.members_:
                out = outputs(network.to(where), moved)
                results.append(out.double().cpu().numpy())
                network.cpu()  # so that a pickle opens on a machine without this device
        return results

    def _description(self) -> dict[str, Any]:
        """Return what the model folder says besides the network."""
        return {
            "estimator": type(self).__name__,
            "parameters": parameters.to_json(self.get_params(deep=False)),
            "summary": self.summary_,
        }

    def _network(self) -> Any:
        """Return what all members are: one of them, or its description."""
        return self.members_[0]

    def save(self, path: str | Path) -> None:
        """Write the model as a folder: safetensors weights, bit-packed masks, JSON.

        Callables among the parameters are not needed to predict and not saved.

        Raises:
            InputError: not writable, disk full, or `path` is something that is not a model; an
                older model there is intact.
        """
        check_is_fitted(self)
        history = {
            str(name): [None if pd.isna(v) else v for v in column.tolist()]
            for name, column in self.history_.items()
        }
        model_directory.write(
            Path(path),
            self._description(),
            history,
            self.members_,
            self.masks_,
            network=self._network(),
        )

    def _html_repr(self) -> str:
        drawn: str = super()._html_repr()
        if not hasattr(self, "members_"):
            return drawn
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(key.replace('_', ' '))}</th>"
            f"<td>{html.escape(_show(value))}</td></tr>"
            for key, value in self.summary_.items()
        )
        return f"{drawn}<table><caption>fitted</caption>{cells}</table>"


def _show(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else f"{value}"
