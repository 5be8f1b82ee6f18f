"""From a store's tidy frame to tables: what is chosen on validation, means, paired differences."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from secateurs.errors import InputError
from secateurs.measures import statistics
from secateurs.report.page import Cell, Table, Value

__all__ = [
    "DATASET",
    "SPLIT",
    "SUMMARY_COLUMNS",
    "EndpointSpec",
    "arms_by_dataset",
    "arms_summary",
    "choose_arm",
    "chosen",
    "endpoints",
    "mean_of_sets",
    "regime_by_dataset",
    "reported_text",
]

DATASET, SPLIT = "rows.dataset", "rows.split"


def chosen(frame: pd.DataFrame, value: str, *, by: Sequence[str] = ()) -> pd.DataFrame:
    """Return one row for each arm, data set and split: the best on validation rows.

    An arm that has several configurations there, such as the strengths of beta-Lasso, is
    represented by the one whose `validation.VALUE` is highest; test rows choose nothing. Column
    `tried` tells among how many, at least as many as the plan says.

    Args:
        frame: of `Store.frame` with a plan's runs.
        value: such as "balanced_accuracy".
        by: further columns within which to choose, such as "config.compression".

    Raises:
        InputError: several configurations and no validation rows to choose on, or no column of
            the arm, data set, split or seed.

    >>> frame = pd.DataFrame({
    ...     "arm": "a", "tried": 1, "rows.dataset": "d", "rows.split": 0, "seed": 0,
    ...     "validation.accuracy": [0.5, 0.7], "test.accuracy": [0.9, 0.6]})
    >>> chosen(frame, "accuracy")[["test.accuracy", "tried"]].values.tolist()
    [[0.6, 2.0]]
    """
    group = ["arm", DATASET, SPLIT, "seed", *by]
    lacking = [name for name in group if name not in frame]
    if lacking:
        raise InputError(
            f"cells must have the columns {', '.join(group)}, these lack {', '.join(lacking)}; "
            "leave cells of other kinds out"
        )
    counts = frame.groupby(group, dropna=False)["arm"].transform("size")
    if (counts == 1).all():
        return frame
    score = f"validation.{value}"
    several = frame[counts > 1]
    if score not in frame or several[score].isna().any():
        raise InputError(
            f"arm {several['arm'].iloc[0]!r} has several configurations on one split, and choosing "
            "needs validation rows; set rows.validation_folds"
        )
    best = frame.assign(tried=np.maximum(frame["tried"], counts)).reset_index(drop=True)
    order = best[score].fillna(-np.inf)
    first = order.groupby([best[name] for name in group], dropna=False).idxmax()
    return best.loc[sorted(first)]


def choose_arm(
    validation: pd.DataFrame,
    test: pd.DataFrame,
    *,
    arms: Sequence[str],
    value: str,
    name: str,
    unpaired: Literal["refuse", "drop"] = "refuse",
) -> pd.DataFrame:
    """Return the test rows of the best of several arms, chosen anew on every split, as one arm.

    On each data set and split it is the arm whose `validation.VALUE`, the mean over seeds, is
    highest, of equal ones the first of `arms`; test rows choose nothing. Validation and test may
    come from different cells: those that choose leave some training rows out to choose on.
    Column `arm` is then `name`, `tried` the number of arms, and `chosen_arm` the arm that it was.

    Args:
        validation: of `Store.frame`, with the arms' validation values.
        test: of `Store.frame`, with the arms' rows to return; the same names of arms.
        arms: the candidates.
        value: such as "balanced_accuracy".
        name: of the combined arm.
        unpaired: what to do with a split of `test` on which a candidate lacks a test row or a
            finite validation value: "refuse" it, or "drop" the whole split.

    Raises:
        InputError: no candidate, several configurations of one on a split, no validation values,
            or candidates missing on a split that is not to be dropped.

    >>> watched = pd.DataFrame({
    ...     "arm": ["a", "b"], "rows.dataset": "d", "rows.split": 0, "seed": 0,
    ...     "validation.accuracy": [0.5, 0.7]})
    >>> tested = watched.assign(**{"test.accuracy": [0.9, 0.6], "tried": 1})
    >>> best = choose_arm(watched, tested, arms=["a", "b"], value="accuracy", name="best of 2")
    >>> best[["arm", "chosen_arm", "test.accuracy", "tried"]].values.tolist()
    [['best of 2', 'b', 0.6, 2]]
    """
    arms = list(dict.fromkeys(arms))
    if not arms or unpaired not in ("refuse", "drop"):
        raise InputError(
            f"choose_arm needs an arm to choose and unpaired 'refuse' or 'drop', got {len(arms)} "
            f"arms and {unpaired!r}"
        )
    score = f"validation.{value}"
    if score not in validation:
        raise InputError(
            f"choosing among {', '.join(arms)} needs {score}; set rows.validation_folds in the "
            "cells that choose"
        )
    watched, tested = (frame[frame["arm"].isin(arms)] for frame in (validation, test))
    for frame in (watched, tested):
        several = frame.duplicated(["arm", DATASET, SPLIT, "seed"])
        if several.any():
            raise InputError(
                f"arm {frame.loc[several, 'arm'].iloc[0]!r} has several configurations on one "
                "split; name each as an arm of its own"
            )
    keys = [DATASET, SPLIT]
    present = tested.groupby([*keys, "arm"]).size().unstack("arm").reindex(columns=arms)
    scores = watched.groupby([*keys, "arm"])[score].mean().unstack("arm")
    found = scores.reindex(index=present.index, columns=arms).to_numpy(np.float64, copy=True)
    found[~np.isfinite(found) | present.isna().to_numpy()] = np.nan
    lacking = np.isnan(found)
    whole = ~lacking.any(axis=1)
    if not whole.all() and unpaired == "refuse":
        at = int(np.flatnonzero(~whole)[0])
        dataset, split = present.index[at]
        raise InputError(
            f"every candidate needs a validation value and a test row on each split, but "
            f"{int((~whole).sum())} of {len(whole)} lack some, the first data set {dataset}, split "
            f"{split}, of {', '.join(np.array(arms)[lacking[at]])}; finish those runs, or pass "
            "unpaired='drop'"
        )
    best = pd.DataFrame(index=present.index[whole])
    best["chosen_arm"] = np.array(arms, dtype=object)[found[whole].argmax(axis=1)]
    rows = tested.drop(columns="chosen_arm", errors="ignore").merge(best.reset_index(), on=keys)
    mine: pd.DataFrame = rows[rows["arm"] == rows["chosen_arm"]]
    return mine.assign(arm=name, tried=len(arms)).reset_index(drop=True)


def _having(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the frame if it has a column of values: cells of some kinds measure something else."""
    if column not in frame:
        raise InputError(f"a table of {column} needs cells that measure it, got none")
    return frame


def _percent(mean: float, error: float | None, note: str = "") -> Value:
    scaled = None if error is None or not np.isfinite(error) else 100 * error
    return Value(100 * mean, error=scaled, note=note)


def _name(dataset: str) -> str:
    return dataset.removeprefix("sklearn:")


def arms_by_dataset(
    frame: pd.DataFrame,
    value: str,
    *,
    arms: Sequence[str],
    title: str,
    side: str = "test",
    published: Mapping[tuple[str, str], float] | None = None,
    command: str = "",
) -> Table:
    """Return one row a data set and one column an arm: mean ± standard error over splits, in %.

    Args:
        frame: of `Store.frame`.
        value: a share, such as "balanced_accuracy".
        arms: the columns, in order; arms without a finished cell stay empty.
        title: of the table.
        side: "test" or "validation".
        published: percentages by (data set, arm), shown below our own.
        command: that reproduces it.

    Raises:
        InputError: no column of the value, or whatever `chosen` refuses.
    """
    column = f"{side}.{value}"
    best = chosen(_having(frame, column), value)
    published = published or {}
    rows: list[list[Cell]] = []
    for dataset in best[DATASET].unique():
        row: list[Cell] = [_name(dataset)]
        for arm in arms:
            cells = best[(best[DATASET] == dataset) & (best["arm"] == arm)]
            values = cells.groupby(SPLIT)[column].mean()
            told = published.get((dataset, arm))
            note = "" if told is None else f"published {told:.2f}"
            row.append(_percent(values.mean(), values.sem(), note) if len(values) else None)
        rows.append(row)
    splits = best.groupby([DATASET, "arm"])[SPLIT].nunique()
    return Table(
        title=title,
        columns=["data set", *arms],
        rows=rows,
        note=f"{value.replace('_', ' ').capitalize()} in %, mean ± standard error over "
        f"{_range(splits.min(), splits.max())} paired splits, {side} rows. The standard error is "
        "that of the splits, which share rows: it says nothing about other data sets.",
        command=command,
    )


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def mean_of_sets(frame: pd.DataFrame, column: str, *, geometric: bool = False) -> float | None:
    """Return the mean over data sets of the data sets' means; None where nothing was measured.

    Args:
        frame: of `Store.frame`, one arm's rows.
        column: of numbers; missing ones are left out.
        geometric: for sizes and times, which differ by factors: the data sets' means are
            multiplied and not added. All must then be above 0, or the mean is None.

    >>> frame = pd.DataFrame({"rows.dataset": list("aab"), "size.bytes": [10, 30, 2000]})
    >>> mean_of_sets(frame, "size.bytes"), round(mean_of_sets(frame, "size.bytes", geometric=True))
    (1010.0, 200)
    """
    if column not in frame or frame[column].isna().all():
        return None
    means = frame.groupby(DATASET)[column].mean().dropna()
    if not geometric:
        return float(means.mean())
    return float(np.exp(np.log(means).mean())) if (means > 0).all() else None


def _test_share(frame: pd.DataFrame) -> float:
    """Return n_test / (n_test + n_train) of the cells, the largest where they differ.

    Without the folds in the frame it is that of the 60/20/20 protocol.
    """
    folds = ["rows.test_folds", "rows.validation_folds"]
    if frame.empty or not set(folds) <= set(frame.columns):
        return 0.25
    test = 1 / frame[folds[0]].astype(np.float64)
    watched = frame[folds[1]].astype(np.float64)
    train = (1 - test) * (1 - np.where(watched > 0, 1 / watched.where(watched > 0), 0))
    return float((test / (test + train)).max())


@dataclass(frozen=True, kw_only=True)
class _Column:
    """A further column of `arms_summary`: what it is read from, and how it is shown."""

    source: str
    show: Callable[[float], Cell] = float
    geometric: bool = False
    note: str = ""


_COLUMNS = {
    "accuracy": _Column(source="{side}.accuracy", show=lambda mean: Value(100 * mean)),
    "balanced accuracy": _Column(
        source="{side}.balanced_accuracy", show=lambda mean: Value(100 * mean)
    ),
    "ROC-AUC": _Column(source="{side}.roc_auc"),
    "log-loss": _Column(source="{side}.log_loss"),
    "calibration error": _Column(source="{side}.calibration_error"),
    "density": _Column(source="size.density"),
    "kept": _Column(source="size.parameters_kept", show=round, note="Kept: parameters."),
    "bytes": _Column(
        source="size.bytes",
        show=round,
        geometric=True,
        note="Bytes: geometric mean over data sets.",
    ),
    "movement": _Column(source="regime.weight_movement"),
    "overlap": _Column(source="regime.start_mask_overlap"),
    "CPU s": _Column(
        source="cpu_seconds",
        note="CPU seconds are the cell's own: a search is counted once, with its own cell.",
    ),
    "fit CPU s": _Column(
        source="fit_seconds", note="Fit CPU seconds hold the search that a ticket is pruned from."
    ),
    "ms per 1,000 rows": _Column(
        source="predict_seconds",
        show=lambda mean: 1e3 * mean,
        geometric=True,
        note="Milliseconds per 1,000 rows predicted: one thread, geometric mean over data sets.",
    ),
}

SUMMARY_COLUMNS = tuple(_COLUMNS)
"""Further columns that `arms_summary` can show."""

_USUAL = ("accuracy", "log-loss", "density", "kept", "movement", "overlap", "CPU s")


def arms_summary(
    frame: pd.DataFrame,
    value: str,
    *,
    arms: Sequence[str],
    baseline: str,
    title: str,
    side: str = "test",
    columns: Sequence[str] = _USUAL,
    command: str = "",
) -> Table:
    """Return one row an arm: its mean over data sets, and what it gains on the baseline.

    Differences are paired by split; standard errors are those over data sets, or over splits by
    the corrected resampled t where there is but one (`secateurs.measures.statistics`). p is
    adjusted over all arms of the table: they are one family.

    Args:
        frame: of `Store.frame`.
        value: a share, such as "balanced_accuracy".
        arms: the rows, in order.
        baseline: the arm of the differences.
        title: of the table.
        side: "test" or "validation".
        columns: further ones, of `SUMMARY_COLUMNS`, in order.
        command: that reproduces it.

    Raises:
        InputError: an unknown column, no column of the value, or whatever `chosen` and
            `statistics.compare` refuse.
    """
    unknown = [name for name in columns if name not in _COLUMNS]
    if unknown:
        raise InputError(
            f"columns must be among {', '.join(SUMMARY_COLUMNS)}, got {', '.join(unknown)}"
        )
    column = f"{side}.{value}"
    best = chosen(_having(frame, column), value)
    present = [arm for arm in arms if arm in set(best["arm"])]
    seeds = best.groupby(["arm", DATASET, SPLIT])[column].mean().reset_index()
    against: dict[str, Any] = {}
    of_one_set: dict[str, Any] = {}
    others = [arm for arm in present if arm != baseline]
    paired = set(best.loc[best["arm"] == baseline, DATASET])
    others = [a for a in others if paired & set(best.loc[best["arm"] == a, DATASET])]
    if baseline in present and others:
        family, by_dataset = statistics.compare_family(
            seeds,
            baseline=baseline,
            value=column,
            arms=others,
            dataset=DATASET,
            split=SPLIT,
            test_share=_test_share(best),
            unpaired="drop",
        )
        against = {row["arm"]: row for row in family.to_dict("records")}
        if len(paired) == 1:
            of_one_set = {row["arm"]: row for row in by_dataset.to_dict("records")}

    def gain(arm: str) -> list[Cell]:
        row = against.get(arm)
        if row is None:
            return [None, None, None]
        one = of_one_set.get(arm)
        error = row["standard_error"] if one is None else one["standard_error"]
        p = row["holm_p"] if one is None else one["holm_p"]
        record = f"{row['wins']}/{row['ties']}/{row['losses']}"
        return [_percent(row["difference"], error), record, _number(p)]

    rows: list[list[Cell]] = []
    for arm in present:
        cells = best[best["arm"] == arm]
        mean = statistics.mean_over_datasets(cells[column], cells[DATASET])
        row: list[Cell] = [arm, _percent(mean.mean, mean.standard_error), *gain(arm)]
        for extra in map(_COLUMNS.__getitem__, columns):
            source = extra.source.format(side=side)
            found = mean_of_sets(cells, source, geometric=extra.geometric)
            row.append(None if found is None else extra.show(found))
        rows.append([*row, int(cells["tried"].max())])
    n_sets = best[DATASET].nunique()
    splits = best.groupby([DATASET, "arm"])[SPLIT].nunique()
    word = value.replace("_", " ")
    over = "data sets" if n_sets > 1 else "splits (corrected resampled t)"
    return Table(
        title=title,
        columns=[
            "arm",
            f"{word} %",
            f"minus {baseline}",
            "w/t/l",
            "p (Holm)",
            *columns,
            "tried",
        ],
        rows=rows,
        note=f"{n_sets} data set{'s' * (n_sets != 1)}, {_range(splits.min(), splits.max())} paired "
        f"splits of each, {side} rows. Mean ± standard error over data sets; differences are "
        f"paired by split, with the standard error over {over}; p of "
        + ("Wilcoxon's signed ranks" if n_sets > 1 else "the corrected t")
        + ", adjusted over the arms. W/t/l: data sets won, tied, lost. "
        + "".join(f"{_COLUMNS[name].note} " for name in columns if _COLUMNS[name].note)
        + "Tried: among how many configurations validation rows chose.",
        command=command,
    )


@dataclass(frozen=True, kw_only=True)
class EndpointSpec:
    """One row of `endpoints`.

    Args:
        name: what it is called, such as "paper".
        arm: whose gain it is.
        baseline: what is subtracted.
        margin: how much worse is still no loss, as a share: .005 is half a point; 0 asks whether
            the arm is better.
    """

    name: str
    arm: str
    baseline: str
    margin: float = 0.0


def endpoints(
    frame: pd.DataFrame,
    value: str,
    specs: Sequence[EndpointSpec],
    *,
    title: str,
    side: str = "test",
    level: float = 0.95,
    holm: bool = False,
    command: str = "",
) -> Table:
    """Return one row an endpoint: its difference, both intervals, the verdict, and every data set.

    Differences are arm - baseline in points, paired by split; see `statistics.endpoint`. An
    endpoint without a common split yet has an empty row.

    Args:
        frame: of `Store.frame`.
        value: a share of which more is better, such as "balanced_accuracy".
        specs: the rows, in order.
        title: of the table.
        side: "test" or "validation".
        level: of the intervals.
        holm: whether p is adjusted over the rows: for a family of secondary endpoints, and not
            for those that were named beforehand. Their verdicts are then read from adjusted p.
        command: that reproduces it.

    Raises:
        InputError: no endpoint, no column of the value, or whatever `chosen` and
            `statistics.endpoint` refuse.
    """
    if not specs:
        raise InputError("endpoints needs an endpoint, got none; pass EndpointSpec(...)")
    column = f"{side}.{value}"
    best = chosen(_having(frame, column), value)
    means = best.groupby(["arm", DATASET, SPLIT])[column].mean().reset_index()
    found: list[statistics.Endpoint | None] = [
        statistics.endpoint(
            means,
            arm=spec.arm,
            baseline=spec.baseline,
            value=column,
            margin=spec.margin,
            level=level,
            dataset=DATASET,
            split=SPLIT,
            test_share=_test_share(best[best["arm"].isin([spec.arm, spec.baseline])]),
            unpaired="drop",
        )
        if _paired(means.dropna(), spec)
        else None
        for spec in specs
    ]
    told = [one for one in found if one is not None]
    p = np.array([float("nan") if one is None else one.p for one in found])
    if holm:
        p = statistics.holm(p)
    with_pairs = {name for one in told for name in one.comparison.per_dataset["dataset"]}
    sets = [name for name in best[DATASET].unique() if name in with_pairs]
    percent = f"{100 * level:g}%"
    return Table(
        title=title,
        columns=[
            "endpoint",
            "arm",
            "minus",
            "margin",
            "difference",
            "verdict",
            f"{percent} over data sets",
            f"{percent} on these sets",
            "p (Holm)" if holm else "p",
            *map(_name, sets),
        ],
        rows=[
            [
                *(spec.name, spec.arm, spec.baseline, 100 * spec.margin),
                *_outcome(one, its_p, sets, alpha=1 - level if holm else None),
            ]
            for spec, one, its_p in zip(specs, found, p, strict=True)
        ],
        note=_endpoints_note(value, side, told, level=level, holm=holm),
        command=command,
    )


def _paired(means: pd.DataFrame, spec: EndpointSpec) -> bool:
    """Return whether both arms have a value on a common split."""
    one, other = (
        set(means.loc[means["arm"] == arm, [DATASET, SPLIT]].itertuples(index=False, name=None))
        for arm in (spec.arm, spec.baseline)
    )
    return bool(one & other)


def _outcome(
    found: statistics.Endpoint | None, p: float, sets: Sequence[str], *, alpha: float | None
) -> Sequence[Cell]:
    """Return the cells of an endpoint from its difference on; without `alpha` p is not adjusted."""
    if found is None:
        return [None, "no cells yet", None, None, None, *(None for _ in sets)]
    difference, error = found.comparison.difference, found.comparison.standard_error
    by_set = {
        row["dataset"]: _percent(row["difference"], row["standard_error"])
        for row in found.comparison.per_dataset.to_dict("records")
    }
    return [
        _percent(difference, error),
        found.verdict if alpha is None or p < alpha else "not shown",
        _span(found.over_datasets),
        _span(found.within_datasets),
        _number(p),
        *(by_set.get(name) for name in sets),
    ]


def _endpoints_note(
    value: str, side: str, told: Sequence[statistics.Endpoint], *, level: float, holm: bool
) -> str:
    """Return what the columns of `endpoints` mean, and how far the data sets carry them."""
    parts = [
        f"Differences of {value.replace('_', ' ')} in points, {side} rows, paired by split. "
        "Difference: mean ± standard error over data sets. Over data sets: Student's t over the "
        "data sets' differences, what the verdict is read from. On these sets: the data sets "
        "taken as given, resplits by the corrected resampled t (Nadeau and Bengio 2003). Met: the "
        "interval lies above minus the margin (at margin 0: the arm is better); inferior: below "
        f"it; p: two-sided, of a difference of minus the margin, below {1 - level:.2g} where the "
        "interval leaves it out"
        + (", then adjusted over the rows (Holm), which verdicts have to pass." if holm else ".")
    ]
    numbers = [one.comparison.n_datasets for one in told]
    if any(one.too_few for one in told):
        n = min(numbers)
        parts.append(
            f"Too few data sets for a test without assumptions ({n}, and it takes "
            f"{statistics.ENOUGH_DATASETS} to reach .05 by signed ranks): "
            + (
                "one data set says nothing of others."
                if n == 1
                else "the interval over them holds as far as their differences are normal."
            )
        )
    if left_out := sum(one.comparison.n_unpaired for one in told):
        parts.append(f"Splits that one of two arms lacks are left out: {left_out:,}.")
    return " ".join(parts)


def _span(interval: statistics.Interval) -> str | None:
    if not np.isfinite(interval.standard_error):
        return None
    low, high = (f"{100 * end:+z.2f}".replace("-", "−") for end in (interval.low, interval.high))
    return f"{low} to {high}"


def regime_by_dataset(
    frame: pd.DataFrame, *, arms: Sequence[str], title: str, command: str = ""
) -> Table:
    """Return one row a data set and pruned arm: how far its search moved, and accuracy for it.

    Args:
        frame: of `Store.frame`.
        arms: in order; those that are not pruned or not searched are left out.
        title: of the table.
        command: that reproduces it.
    """
    moved, overlap = "regime.weight_movement", "regime.start_mask_overlap"
    needed = {"size.density", moved, overlap, "test.accuracy", DATASET}
    if not needed <= set(frame.columns):  # no cell of them searched
        frame = pd.DataFrame(columns=[*needed, "arm"], dtype=np.float64)
    pruned = frame[(frame["size.density"] < 1) & frame[moved].notna()]
    means = pruned.groupby([DATASET, "arm"])[[moved, overlap, "test.accuracy"]].mean()
    rows: list[list[Cell]] = [
        [
            f"{_name(dataset)}, {arm}",
            Value(float(means.loc[(dataset, arm), moved])),
            Value(float(means.loc[(dataset, arm), overlap])),
            Value(100 * float(means.loc[(dataset, arm), "test.accuracy"]), digits=1),
        ]
        for dataset in frame[DATASET].unique()
        for arm in arms
        if (dataset, arm) in means.index
    ]
    return Table(
        title=title,
        columns=["data set, arm", "movement", "overlap", "accuracy %"],
        rows=rows,
        note="Means over splits. Movement is |w - start| / |start| from the scaled start; overlap "
        "is the IoU of the mask with that of the largest initial weights: 1 is lazy.",
        command=command,
    )


def _number(value: float) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 4)


def reported_text(table: Table) -> str:
    """Return a table as plain text for a terminal.

    >>> print(reported_text(Table(title="t", columns=["arm", "%"], rows=[["a", Value(50.0)]])))
    arm      %
    a    50.00
    """

    def text(cell: Cell) -> str:
        if cell is None:
            return ""
        if isinstance(cell, Value):
            if not np.isfinite(cell.mean):
                return ""
            error = "" if cell.error is None else f" ± {cell.error:.{cell.digits}f}"
            note = f" ({cell.note})" if cell.note else ""
            return f"{cell.mean:.{cell.digits}f}{error}{note}"
        if isinstance(cell, int):
            return f"{cell:,}"
        return f"{cell:.3g}" if isinstance(cell, float) else cell

    lines = [list(table.columns), *([text(cell) for cell in row] for row in table.rows)]
    sizes = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(size) if i == 0 else cell.rjust(size)
            for i, (cell, size) in enumerate(zip(line, sizes, strict=True))
        ).rstrip()
        for line in lines
    )
