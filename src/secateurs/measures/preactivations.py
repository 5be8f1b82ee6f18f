"""Preactivation matrices [probes, units] of a layer: those of a ticket against a dense network's.

Masks keep positions, so that neurons of equal index correspond in all arms that share the initial
weights: ticket, shuffled mask, no rewind. Where the weights were drawn again, neurons are matched.
The correlation of H is ruled by the shared start and by the density; that of dH = H(t) - H(0) is
about what was learnt (method, section 5).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.masks.matching import owners
from secateurs.measures.representation import cka, column_centred

__all__ = ["Comparison", "compare", "dead_units", "matched_step", "preactivations"]

_ROWS = 1024  # of a forward pass: bounds the memory
_CONVOLUTIONS = nn.Conv1d, nn.Conv2d, nn.Conv3d


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How alike one layer of two networks is on the same probes; no value is ever NaN.

    A correlation is 0 where one side does not vary, as dH does not at the start.

    Args:
        h_correlation: corr(vec H, vec H_reference), both column-centred, over the pairs.
        dh_correlation: the same of H(t) - H(0), each from its own start; None without starts.
        cka: debiased CKA of all live neurons of either side, which needs no pairs.
        matched_correlation: mean |corr| over the pairs of the best one-to-one match.
        chance: mean of `matched_correlation` with permuted probes; None without a generator.
        chance_high: its 95th percentile.
        n_pairs: pairs in `h_correlation` and `dh_correlation`.
        n_dead: neurons left out because they do not vary over the probes.
        n_dead_reference: those of the reference.
    """

    h_correlation: float
    dh_correlation: float | None
    cka: float
    matched_correlation: float
    chance: float | None
    chance_high: float | None
    n_pairs: int
    n_dead: int
    n_dead_reference: int


def _layers(network: nn.Module, wanted: Collection[str] | None) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {
        name.removesuffix(".weight"): owner
        for name, (owner, attribute) in owners(network).items()
        if attribute == "weight" and isinstance(owner, (nn.Linear, *_CONVOLUTIONS))
    }
    unknown = sorted(set(wanted or ()) - set(found))
    if unknown or not found:
        raise InputError(
            f"layers must be Linear or convolutional ones of this network, got {unknown or 'none'};"
            f" it has {', '.join(found) or 'none'}"
        )
    return found if wanted is None else {name: found[name] for name in found if name in wanted}


def _units(output: Tensor, layer: nn.Module, places: str) -> Tensor:
    """Return [rows, units] of [rows, channels, places] or [rows, places, units]."""
    if output.ndim == 2:
        return output
    if places == "flat":
        return output.flatten(1)
    first = 2 if isinstance(layer, _CONVOLUTIONS) else 1
    return output.mean(tuple(range(first, first + output.ndim - 2)))


@torch.no_grad()
def preactivations(
    network: nn.Module,
    x: Tensor,
    *,
    layers: Collection[str] | None = None,
    places: Literal["mean", "flat"] = "mean",
) -> dict[str, Tensor]:
    """Return the outputs of every Linear and convolutional layer on the probes, in eval mode.

    Each is [probes, units], by the name of the layer's weight without ".weight"; the output layer
    is among them. A channel of a convolution is one unit, as it is one row of the mask: its mean
    over the places. Where the values themselves count, as for `unchanged_activations`, every
    place is a unit with places="flat", in the order of [channels, ...].

    Args:
        network: any module, plain or wrapped; it is left as it was.
        x: [probes, ...] the fixed probe set, the same for all networks that are compared.
        layers: names of those that are wanted; None is every layer that `network(x)` runs.
        places: what becomes of the places of a convolution (or of a sequence).

    Raises:
        InputError: unknown layers, a wanted layer that does not run, one that runs more than once,
            or no probes.

    >>> network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> {name: tuple(h.shape) for name, h in preactivations(network, torch.ones(5, 3)).items()}
    {'0': (5, 8), '2': (5, 2)}
    """
    if places not in ("mean", "flat"):
        raise InputError(
            f"places must be 'mean' or 'flat', got {places!r}; 'mean' fits the rows of a mask"
        )
    if not len(x):
        raise InputError("there must be at least one probe, got an empty x; pass rows")
    found = _layers(network, layers)
    parts: dict[str, list[Tensor]] = {name: [] for name in found}

    def keep(name: str) -> Any:
        return lambda layer, _, output: parts[name].append(_units(output, layer, places))

    plain = getattr(network, "_orig_mod", network)  # compiled code would not call the hooks
    before = [(module, module.training) for module in plain.modules()]
    handles = [layer.register_forward_hook(keep(name)) for name, layer in found.items()]
    try:
        plain.eval()
        for rows in x.split(_ROWS):
            plain(rows)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in before:
            module.training = training
    told = {name: torch.cat(h) for name, h in parts.items() if h}
    odd = [name for name, h in told.items() if len(h) != len(x)]
    odd += [] if layers is None else [name for name in found if name not in told]
    if odd:
        raise InputError(
            f"a layer must run once and give a row for each of {len(x)} probes, {odd[0]!r} gave "
            f"{len(told.get(odd[0], ()))}; pass the layers= that do"
        )
    return told


def dead_units(mask: Tensor) -> Tensor:
    """Return [units] of bools: which units keep none of their inputs, and so are constant.

    Args:
        mask: [units, ...] of bools, that of one layer's weight.

    Raises:
        InputError: not a mask of a layer.

    >>> dead_units(torch.tensor([[True, False], [False, False]])).tolist()
    [False, True]
    """
    if mask.ndim < 2 or mask.dtype != torch.bool:
        raise InputError(
            f"mask must be [units, ...] of bools, got {tuple(mask.shape)} of {mask.dtype}; "
            "pass the mask of one layer's weight"
        )
    return ~mask.flatten(1).any(1)


def _correlation(one: Tensor, other: Tensor) -> float:
    """Return the correlation of two column-centred matrices, 0 where either is all 0."""
    scales = [float(h.abs().amax()) if h.numel() else 0.0 for h in (one, other)]
    if not all(scales):
        return 0.0
    one, other = one / scales[0], other / scales[1]
    found = float((one * other).sum() / (one.norm() * other.norm()))
    return min(max(found, -1.0), 1.0)


def _unit_columns(h: Tensor) -> Tensor:
    """Return the columns, none of which is all 0, over their norms."""
    h = h / h.abs().amax(0)
    norms: Tensor = h.norm(dim=0)
    return h / norms


def _match(one: Tensor, other: Tensor) -> tuple[NDArray[np.intp], NDArray[np.intp], float]:
    """Return the pairs of columns of largest total |corr|, and its mean, 0 if there is no pair."""
    alike = (one.T @ other).abs().clamp_max(1).numpy()
    rows, columns = linear_sum_assignment(alike, maximize=True)
    return rows, columns, float(alike[rows, columns].mean()) if len(rows) else 0.0


def _moved(h: Tensor, start: Tensor | None) -> Tensor | None:
    """Return dH, column-centred; what rounding of H alone moves is 0."""
    if start is None:
        return None
    if start.shape != h.shape:
        raise InputError(
            f"a start must have the shape of its H, got {tuple(start.shape)} and {tuple(h.shape)}; "
            "record both on the same probes"
        )
    return column_centred(h - start, size=torch.maximum(h.abs().amax(0), start.abs().amax(0)))


def _live(centred: Tensor, dead: Tensor | None) -> Tensor:
    varies = centred.any(0)
    if dead is None:
        return varies
    if dead.dtype != torch.bool or dead.shape != varies.shape:
        raise InputError(
            f"dead must be one bool for each of {len(varies)} units, got {tuple(dead.shape)} of "
            f"{dead.dtype}; pass dead_units(mask[name])"
        )
    return varies & ~dead.cpu()


def _check(
    h: Tensor, reference: Tensor, starts: tuple[Tensor | None, Tensor | None], matched: str
) -> None:
    if matched not in ("index", "hungarian"):
        raise InputError(
            f"matched must be 'index' or 'hungarian', got {matched!r}; 'index' needs one start"
        )
    if h.ndim != 2 or reference.ndim != 2 or len(h) != len(reference):
        raise InputError(
            "preactivations must be [probes, units] of the same probes, got "
            f"{tuple(h.shape)} and {tuple(reference.shape)}; record both on the same probes"
        )
    if matched == "index" and h.shape != reference.shape:
        raise InputError(
            f"neurons of equal index need equal widths, got {h.shape[1]} and {reference.shape[1]}; "
            "pass matched='hungarian'"
        )
    if (starts[0] is None) != (starts[1] is None):
        raise InputError("start and reference_start must come together, got one; pass both or none")


def compare(
    h: Tensor,
    reference: Tensor,
    *,
    start: Tensor | None = None,
    reference_start: Tensor | None = None,
    dead: Tensor | None = None,
    reference_dead: Tensor | None = None,
    matched: Literal["index", "hungarian"] = "index",
    generator: torch.Generator | None = None,
    draws: int = 20,
) -> Comparison:
    """Return how alike a layer of an arm and of the reference, such as the dense network, is.

    Dead neurons are constant: they are left out and counted. Besides those that `dead` names,
    all that do not vary over the probes beyond rounding are (all their inputs may be dead).

    Best matches find much in noise, and `chance` is that: the match of permuted probes. As with
    `cka_floor`, networks drawn independently see the same inputs and are above it. So compare
    those too: `compare(...).matched_correlation` of two initialisations is the better floor.

    Args:
        h: [probes, units] preactivations H(t) of the arm.
        reference: [probes, units] those of the reference, on the same probes.
        start: H(0) of the arm, with its own mask on its own initial weights.
        reference_start: H(0) of the reference.
        dead: [units] of bools, as `dead_units` of the arm's mask.
        reference_dead: those of the reference.
        matched: the pairs of `h_correlation` and `dh_correlation`: neurons of equal "index", live
            in both; or "hungarian", the pairs of largest total |corr| of H (signs stay as they
            are: a ReLU neuron and its negative differ).
        generator: on the CPU, of the permutations; None leaves out `chance`.
        draws: how many permutations, at least 1.

    Raises:
        InputError: shapes that do not fit, fewer than 4 probes, one start without the other,
            values that are not finite, no draw, or an unknown `matched`.

    >>> h = torch.randn(100, 6, generator=torch.Generator().manual_seed(0))
    >>> found = compare(h.flip(1), h, matched="index")
    >>> round(found.matched_correlation, 6), abs(found.h_correlation) < 0.2
    (1.0, True)
    """
    _check(h, reference, (start, reference_start), matched)
    if draws < 1:
        raise InputError(f"draws must be at least 1, got {draws}; 20 give a mean")
    arm, other = column_centred(h), column_centred(reference)
    moved = _moved(h, start), _moved(reference, reference_start)
    live, live_other = _live(arm, dead), _live(other, reference_dead)
    units, units_other = (
        _unit_columns(a[:, kept]) for a, kept in ((arm, live), (other, live_other))
    )
    rows, columns, matched_correlation = _match(units, units_other)
    if matched == "index":
        pairs = pairs_other = (live & live_other).nonzero()[:, 0]
    else:
        pairs = live.nonzero()[:, 0][torch.from_numpy(rows)]
        pairs_other = live_other.nonzero()[:, 0][torch.from_numpy(columns)]
    chance = [
        _match(units[torch.randperm(len(units), generator=generator)], units_other)[2]
        for _ in range(draws if generator is not None else 0)
    ]
    d_arm, d_other = moved
    return Comparison(
        h_correlation=_correlation(arm[:, pairs], other[:, pairs_other]),
        dh_correlation=None
        if d_arm is None or d_other is None
        else _correlation(d_arm[:, pairs], d_other[:, pairs_other]),
        cka=cka(h[:, live.to(h.device)], reference[:, live_other.to(reference.device)]),
        matched_correlation=matched_correlation,
        chance=float(np.mean(chance)) if chance else None,
        chance_high=float(np.quantile(chance, 0.95)) if chance else None,
        n_pairs=len(pairs),
        n_dead=int((~live).sum()),
        n_dead_reference=int((~live_other).sum()),
    )


def matched_step(losses_a: Sequence[float], losses_b: Sequence[float]) -> list[int]:
    """Return for each checkpoint of A the one of B whose training loss is nearest.

    Arms learn at different speeds, and cross-entropy never finishes: compare them at the same
    training loss, not at the same step. Of equally near ones the first counts. Where the losses
    of B end above one of A, its last and best still counts: look at both losses.

    Args:
        losses_a: training loss at each checkpoint of A.
        losses_b: that at each of B.

    Raises:
        InputError: losses that are not finite, or no checkpoint of B.

    >>> matched_step([2.0, 1.0, 0.1], [2.0, 1.5, 1.1, 0.7])
    [0, 2, 3]
    """
    a, b = (np.asarray(losses, dtype=np.float64) for losses in (losses_a, losses_b))
    if (
        a.ndim != 1
        or b.ndim != 1
        or not len(b)
        or not (np.isfinite(a).all() and np.isfinite(b).all())
    ):
        raise InputError(
            f"losses must be finite, one for each checkpoint, got {len(a)} and {len(b)} with "
            f"{int((~np.isfinite(a)).sum() + (~np.isfinite(b)).sum())} that are not; "
            "leave diverged checkpoints out"
        )
    nearest: list[int] = np.abs(a[:, None] - b[None, :]).argmin(1).tolist()
    return nearest
