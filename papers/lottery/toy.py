"""Students and teachers: what lazy and rich training do to tickets, where the answer is known.

A student of one hidden layer learns four ReLU neurons that look at few inputs or at all of them;
alpha sets its regime. Tickets and controls of eight rounds at five alphas; masks that one alpha
found, trained at another; widths under the mean-field readout.

secateurs paper papers/lottery/toy.py --out runs/regime --scale small
"""

import base64
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import page
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from secateurs.experiments.spec import Run, StudentArm, StudentTeacherCell, TaskRows
from secateurs.measures import statistics
from secateurs.report import figures, heatmaps
from secateurs.report.page import Axis, Block, Cell, Figure, Scrubber, Table, Value
from secateurs.report.tables import DATASET

TITLE = "Students and teachers, lazy to rich"
CLAIM = (
    "Rich training finds masks and lazy training cannot: what alpha does to tickets, controls and "
    "features, with what was claimed of it and what was measured."
)
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = "explained"

FULL = "NTK readout"
TEACHERS = ("sparse teacher", "dense teacher")
DENSE, TICKET, OWN, FRESH, SHUFFLED, TOP = (
    "dense", "ticket", "no rewind", "re-init", "shuffled", "top start",
)  # fmt: skip
CONTROLS = (OWN, FRESH, SHUFFLED, TOP)
FEW: tuple[StudentArm, ...] = ("ticket", "shuffled", "top start")
ORDER = (DENSE, TICKET, *CONTROLS)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is run: rounds and the followed one, of the study of arms; widths of the other."""

    seeds: int
    steps: int = 2_000
    width: int = 64
    widths: tuple[int, ...] = (64, 256, 1024)
    rounds: int = 8
    follow: int = 6
    n_train: int = 384
    n_test: int = 512
    n_heatmap_rows: int = 32


SCALES = {
    # shows that everything runs, proves nothing
    "smoke": Scale(
        seeds=2, steps=30, width=8, widths=(8, 16), rounds=3, follow=2, n_train=48, n_test=64,
        n_heatmap_rows=6,
    ),
    "small": Scale(seeds=5),
    "paper": Scale(seeds=10),
}  # fmt: skip


def runs(scale: str) -> list[Run]:
    """Return the study of arms and the one of widths, a cell for each teacher and seed."""
    found = []
    size = SCALES[scale]
    for seed, teacher in itertools.product(range(size.seeds), TEACHERS):
        rows = TaskRows(
            dataset=teacher, split=seed, n_train=size.n_train, n_test=size.n_test
        )  # fmt: skip
        shown = size.n_heatmap_rows if (seed, teacher) == (0, TEACHERS[0]) else 0
        whole = StudentTeacherCell(
            rows=rows, width=size.width, steps=size.steps, rounds=size.rounds, follow=size.follow,
            n_heatmap_rows=shown,
        )  # fmt: skip
        found.append(Run(cell=whole, arm=FULL))
        for width in size.widths:
            cell = StudentTeacherCell(
                rows=rows, width=width, readout="mean_field", steps=size.steps, arms=FEW, rounds=3,
                kept=0.5, follow=0,
            )  # fmt: skip
            found.append(Run(cell=cell, arm=f"mean field, width {width}"))
    return found


# ---- what is in a frame ------------------------------------------------------------------------


def listed(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the records of all cells below each other, with their teacher and width."""
    parts = [
        pd.DataFrame(list(row[column])).assign(teacher=row[DATASET], width=row["width"])
        for row in frame.to_dict("records")
        if isinstance(row.get(column), tuple) and row[column]
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the study of arms left of one teacher.

    Args:
        records: of every arm, level, alpha and seed.
        level: the followed one.
        followed: records over its steps.
        transfer: records of masks found at one alpha and trained at another.
    """

    records: pd.DataFrame
    level: int
    followed: pd.DataFrame
    transfer: pd.DataFrame

    @property
    def alphas(self) -> list[float]:
        """Ascending: the first is the richest."""
        return sorted(self.records["alpha"].unique())

    @property
    def density(self) -> float:
        """Of the followed level."""
        at = self.records.loc[self.records["level"] == self.level, "density"]
        return float(at.iloc[0])

    def seen(self, arm: str, column: str, alpha: float) -> pd.Series:
        """Return a column of an arm at the followed level, or of the dense student, by seed."""
        rows = self.records
        level = 0 if arm == DENSE else self.level
        rows = rows[(rows["arm"] == arm) & (rows["level"] == level) & (rows["alpha"] == alpha)]
        values: pd.Series = rows.set_index("seed")[column].astype(float)
        return values

    def log_ratio(self, arm: str, other: str, alpha: float) -> pd.Series:
        """Return the log of the ratio of two arms' test errors, by seed."""
        one, two = (self.seen(name, "test_mse", alpha) for name in (arm, other))
        return (np.log(one) - np.log(two)).dropna()

    def over_time(self, arm: str, column: str, alpha: float) -> pd.Series:
        """Return the mean of a column over log-spaced steps after the first, by seed."""
        rows = self.followed
        rows = rows[(rows["arm"] == arm) & (rows["alpha"] == alpha) & (rows["step"] > 0)]
        return rows.groupby("seed")[column].mean().dropna()


def study(frame: pd.DataFrame, teacher: str) -> Found | None:
    """Return the study of arms of one teacher; None if no cell is finished."""
    part = frame[(frame["arm"] == FULL) & (frame[DATASET] == teacher)]
    if part.empty:
        return None
    return Found(
        records=listed(part, "records"),
        level=int(part["follow"].iloc[0]),
        followed=listed(part, "followed"),
        transfer=listed(part, "transfer"),
    )


# ---- claims ------------------------------------------------------------------------------------


def _ends(low: float, high: float) -> str:
    """Return an interval in words, with as many digits as a narrow one needs."""
    digits = 2 if high - low >= 0.02 else 3
    return f"{low:z.{digits}f} to {high:z.{digits}f}".replace("-", "−")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement and one value a seed.

    Args:
        told: what was claimed.
        values: by seed; of ratios their logarithms.
        null: what it is held against, as shown.
        sign: +1 or -1 claims more or less than `null`.
        within: claims to be as near to `null` as this instead: a difference, of a ratio a factor.
        ratio: whether the values are logarithms of ratios.
    """

    told: str
    values: pd.Series
    null: float = 0.0
    sign: int = 0
    within: float | None = None
    ratio: bool = False

    def row(self) -> list[Cell]:
        """Return claim, value, interval, seeds and verdict."""
        found = page.contrast(self.values)
        if found is None:
            return [self.told, None, None, 0, "no cells yet"]
        undo: Callable[[float], float] = np.exp if self.ratio else float
        low, high = undo(found.low), undo(found.high)
        known = not np.isnan(low)
        words = _ends(low, high) if known else None
        verdict = self.verdict(low, high) if known else "not resolved"
        return [self.told, Value(undo(found.mean)), words, found.n, verdict]

    def verdict(self, low: float, high: float) -> str:
        """Return yes, no or not resolved of an interval, as `VERDICT` says."""
        if self.within is not None:
            least, most = self.null - self.within, self.null + self.within
            if self.ratio:
                least, most = self.null / self.within, self.null * self.within
            inside, outside = least < low and high < most, high < least or most < low
        else:
            above, below = low > self.null, high < self.null
            inside, outside = (above, below) if self.sign > 0 else (below, above)
        return "yes" if inside else "no" if outside else "not resolved"


VERDICT = (
    "Value: mean over seeds, of ratios the geometric one, with its 95% t interval over seeds, not "
    "adjusted for the number of claims. Verdict: yes if the whole interval is on the claimed side, "
    "or as near as claimed; no if all of it is on the other side, or farther; else not resolved. "
    "How many seeds there are says how little an interval can exclude."
)

SAME = 1.25
"""Errors that differ by less than this factor count as the same."""
FLAT, NONE = 0.05, 0.1
"""Correlations that change by less count as flat, and smaller ones as none."""


def monotone(found: Found, column: str, *, rises: bool) -> pd.Series:
    """Return Spearman's correlation of a measure of the dense student with alpha, by seed."""
    told = {alpha: found.seen(DENSE, column, alpha) for alpha in found.alphas}
    wide = pd.DataFrame(told)
    sign = 1 if rises else -1
    return pd.Series(
        {seed: sign * float(stats.spearmanr(wide.columns, row)[0]) for seed, row in wide.iterrows()}
    )


def effects(transfer: pd.DataFrame) -> pd.DataFrame:
    """Return shares of the variance of log error by seed: of the row, the column, and the rest.

    Two-way analysis of variance without repeats: rows are the alpha that found the mask, columns
    the alpha that trained it.
    """
    found = {}
    for seed, part in transfer.groupby("seed"):
        table = np.log(part.pivot_table(index="found", columns="alpha", values="test_mse"))
        values = table.to_numpy()
        by_row, by_column = values.mean(1, keepdims=True), values.mean(0, keepdims=True)
        whole = np.square(values - values.mean()).sum()
        shares = [
            np.square(by - values.mean()).sum() * values.size / by.size / whole
            for by in (by_row, by_column)
        ]
        found[seed] = [*shares, 1 - sum(shares)]
    return pd.DataFrame.from_dict(found, orient="index", columns=["found", "trained", "rest"])


def crossed(transfer: pd.DataFrame, rich: float, lazy: float) -> pd.Series:
    """Return the log ratio of errors, found rich and trained lazily to the other way round."""
    table = transfer.pivot_table(index="seed", columns=["found", "alpha"], values="test_mse")
    return np.log(table[rich, lazy]) - np.log(table[lazy, rich])


def claims(found: Found) -> list[Claim]:
    """Return what was claimed of one teacher, with the measured values."""
    rich, lazy = found.alphas[0], found.alphas[-1]
    one = min(found.alphas, key=lambda alpha: abs(np.log(alpha)))

    def rise(arm: str, alpha: float) -> pd.Series:
        return found.seen(arm, "h_end", alpha) - found.seen(arm, "h_start", alpha)

    def more(column: str, control: str) -> pd.Series:
        return found.seen(TICKET, column, rich) - found.seen(control, column, rich)

    def in_time(control: str) -> pd.Series:
        return found.over_time(TICKET, "dh", rich) - found.over_time(control, "dh", rich)

    dials = {
        "movement": ("weight movement falls", False),
        "kernel_distance": ("kernel distance falls", False),
        "deviation": ("deviation from the linearised student falls", False),
        "cka_start": ("CKA of features with those at the start rises", True),
    }
    whole = [
        Claim(told=f"{told} in alpha: rank correlation above .9", sign=1, null=0.9,
              values=monotone(found, column, rises=rises))
        for column, (told, rises) in dials.items()
    ]  # fmt: skip
    overlap = {alpha: found.seen(TICKET, "overlap", alpha) for alpha in (rich, lazy)}
    whole += [
        Claim(told=f"mask at alpha {lazy:g}: IoU with top |start| above .9", null=0.9, sign=1,
              values=overlap[lazy]),
        Claim(told=f"its IoU at alpha {rich:g} is below half of that: ratio", null=0.5, sign=-1,
              values=np.log(overlap[rich]) - np.log(overlap[lazy]), ratio=True),
        Claim(told=f"alpha {rich:g}: shuffled / ticket error above 3", null=3.0, sign=1,
              values=found.log_ratio(SHUFFLED, TICKET, rich), ratio=True),
        *(
            Claim(told=f"alpha {lazy:g}: {arm} / ticket error is 1", null=1.0, within=SAME,
                  values=found.log_ratio(arm, TICKET, lazy), ratio=True)
            for arm in (SHUFFLED, FRESH, TOP)
        ),
        Claim(told=f"alpha {rich:g}: features of the ticket come nearer to the dense ones: change "
              "of Hcorr", sign=1, values=rise(TICKET, rich)),
        Claim(told=f"alpha {rich:g}: those of the shuffled mask move away", sign=-1,
              values=rise(SHUFFLED, rich)),
        *(
            Claim(told=f"alpha {lazy:g}: {arm}: neither", within=FLAT, values=rise(arm, lazy))
            for arm in (TICKET, SHUFFLED)
        ),
        Claim(told="transfer: the alpha that found a mask matters more than the one that trains "
              "it: share of variance, found - trained", sign=1,
              values=effects(found.transfer).pipe(lambda s: s["found"] - s["trained"])),
        Claim(told=f"transfer: found at {rich:g} and trained at {lazy:g} beats the reverse: ratio "
              "of errors below 1", null=1.0, sign=-1, ratio=True,
              values=crossed(found.transfer, rich, lazy)),
        *(
            Claim(told=f"deck 1: ticket error = dense error at alpha {alpha:g}: ratio", null=1.0,
                  within=SAME, values=found.log_ratio(TICKET, DENSE, alpha), ratio=True)
            for alpha in dict.fromkeys((rich, one, lazy))
        ),
        *(
            Claim(told=f"deck 2: final features of the ticket are nearer to the dense ones than "
                  f"those of {arm}: {word}, alpha {rich:g}", sign=1, values=more(column, arm))
            for column, word in (("cka_dense", "CKA"), ("h_end", "Hcorr"))
            for arm in (OWN, FRESH, SHUFFLED)
        ),
        *(
            Claim(told=f"deck 3: so are their dynamics: mean dHcorr over log steps, ticket - {arm}",
                  sign=1, values=in_time(arm))
            for arm in (OWN, FRESH, SHUFFLED)
        ),
        *(
            Claim(told=f"deck 3: no such dynamics of {arm}: mean dHcorr below {NONE:g}", null=NONE,
                  sign=-1, values=found.over_time(arm, "dh", rich))
            for arm in (OWN, FRESH)
        ),
    ]  # fmt: skip
    return whole


def verdicts(found: Found, teacher: str) -> Table:
    """Return what was claimed and what was measured."""
    return Table(
        title=f"{teacher.capitalize()}: claims",
        columns=["claim", "measured", "95% interval", "seeds", "verdict"],
        rows=[claim.row() for claim in claims(found)],
        note=f"At density {found.density:.3f}. {VERDICT}",
    )


# ---- uniformity --------------------------------------------------------------------------------

DRAWS = 20_000


def residuals(found: Found, arm: str) -> pd.DataFrame:
    """Return log error of an arm after regression on the dense student's, [seeds, alphas]."""
    y, x = (
        np.log(pd.DataFrame({alpha: found.seen(a, "test_mse", alpha) for alpha in found.alphas}))
        for a in (arm, DENSE)
    )
    slope, start = np.polyfit(x.to_numpy().ravel(), y.to_numpy().ravel(), 1)
    return y - slope * x - start


def swapped_p(pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> float:
    """Return how often residuals of a ticket and a control, swapped by seed, differ as much.

    The null: with the line of each arm taken out, which arm a seed's residuals are of does not
    matter. The statistic is the log ratio of squares, control to ticket, summed over teachers. All
    swaps are counted if there are few, else `DRAWS` of them; one-sided: the ticket's are smaller.

    Args:
        pairs: squared residuals by seed, of the ticket and of the control, one pair a teacher.
    """
    n = sum(len(one) for one, _ in pairs)
    if 2**n <= DRAWS:
        swaps = np.array(list(itertools.product([False, True], repeat=n)))
    else:
        swaps = np.random.default_rng(0).random((DRAWS, n)) < 0.5
        swaps[0] = False
    total, at = np.zeros(len(swaps)), 0
    for ticket, control in pairs:
        own = swaps[:, at : at + len(ticket)]
        at += len(ticket)
        one = np.where(own, control, ticket).sum(1)
        total += np.log(np.where(own, ticket, control).sum(1)) - np.log(one)
    return float(np.mean(total >= total[0] - 1e-12))  # the first swaps nothing


def taus(found: Found, arm: str) -> pd.Series:
    """Return Kendall's tau of an arm's error and the dense student's over alpha, by seed."""
    one, other = (
        pd.DataFrame({alpha: found.seen(a, "test_mse", alpha) for alpha in found.alphas})
        for a in (arm, DENSE)
    )
    told = {s: float(stats.kendalltau(one.loc[s], other.loc[s])[0]) for s in one.index}
    return pd.Series(told)


def uniformity(studies: dict[str, Found]) -> Table:
    """Return how uniformly alpha acts on tickets and on controls, with a test by permutation."""
    left = {(t, arm): residuals(f, arm) for t, f in studies.items() for arm in (TICKET, *CONTROLS)}
    squares = {name: np.square(values).sum(axis=1).to_numpy() for name, values in left.items()}
    p = [swapped_p([(squares[t, TICKET], squares[t, arm]) for t in studies]) for arm in CONTROLS]
    rows: list[list[Cell]] = []
    adjusted = [None, *statistics.holm(p)]
    for arm, told, held in zip((TICKET, *CONTROLS), [None, *p], adjusted, strict=True):
        spread = [
            float(np.sqrt(np.square(left[t, arm].to_numpy()).sum() / (left[t, arm].size - 2)))
            for t in studies
        ]
        tau = [page.contrast(taus(f, arm)) for f in studies.values()]
        verdict = None
        if told is not None and held is not None:
            verdict = "yes" if held < 0.05 else "no" if told > 0.95 else "not resolved"
        shown = [one and one.value(scale=1.0) for one in tau]
        more = page.contrast(pd.concat([taus(f, TICKET) - taus(f, arm) for f in studies.values()]))
        words = None
        if arm != TICKET and more is not None and not np.isnan(more.low):
            words = _ends(more.low, more.high)
        rows.append([arm, *spread, told, held, verdict, *shown, words])
    return Table(
        title="Uniformity: alpha acts alike on tickets, messily on controls",
        columns=["arm", *(f"U, {t.split()[0]}" for t in studies), "p", "p, Holm",
                 "ticket more uniform", *(f"tau, {t.split()[0]}" for t in studies),
                 "tau, ticket - arm"],
        rows=rows,
        note="U: s.d. of log test error around its line on the dense student's, over "
        "alphas and seeds; 0 is one rule for all, and a course that is bent counts as spread. p: "
        "one-sided, residuals of ticket and control swapped by seed, both teachers together; Holm "
        "over the controls. Yes below .05 adjusted, no if p is above .95. Tau: Kendall's, of both "
        "errors over alpha, mean ± standard error over seeds; 1 is the same order. Its difference: "
        "95% t interval over the seeds of both teachers.",
    )  # fmt: skip


# ---- pictures ----------------------------------------------------------------------------------


def _curves(
    rows: pd.DataFrame, x: str, y: str, *, by: str, title: str, ylabel: str, caption: str,
    logy: bool = False, order: Sequence[str] | None = None,
) -> list[Block]:  # fmt: skip
    """Return a picture of y over the decimal logarithm of x; none of nothing."""
    told = f"log10 {x}"
    shown = rows.assign(**{told: np.log10(rows[x].astype(float))})[[told, y, by]].dropna()
    if shown.empty:
        return []
    svg = figures.curves(shown, x=told, y=y, by=by, ylabel=ylabel, logy=logy, order=order)
    names = ", ".join(map(str, shown[by].unique()))
    alt = f"{ylabel} against the logarithm of {x}: {names}."
    n = rows["seed"].nunique()
    caption = f"Mean ± standard error over {n} seed{'s' * (n != 1)}. {caption}"
    return [Figure(title=title, svg=svg, alt=alt, caption=caption)]


def ratios(found: Found, teacher: str) -> Table:
    """Return test errors as ratios to the dense student's, arms by alphas."""
    rows: list[list[Cell]] = []
    for arm in (TICKET, *CONTROLS):
        told = [page.contrast(found.log_ratio(arm, DENSE, alpha)) for alpha in found.alphas]
        rows.append([arm, *(one and Value(np.exp(one.mean)) for one in told)])
    dense = [page.contrast(found.seen(DENSE, "test_mse", alpha)) for alpha in found.alphas]
    errors: list[Cell] = [one and one.value(scale=1.0, digits=3) for one in dense]
    return Table(
        title=f"{teacher.capitalize()}: test error as a ratio to the dense student's",
        columns=["arm", *(f"alpha {alpha:g}" for alpha in found.alphas)],
        rows=[*rows, ["dense, mean squared error", *errors]],
        note=f"Geometric means over seeds at density {found.density:.3f}; mean ± standard error of "
        "the dense student's error, where 1 explains nothing.",
    )


def features(found: Found, teacher: str) -> Table:
    """Return how like the dense student's the features are, arms by alphas."""
    rows: list[list[Cell]] = []
    for column, word in (
        ("h_start", "Hcorr at the start"), ("h_end", "Hcorr at the end"),
        ("dh_end", "dHcorr at the end"), ("cka_dense", "CKA at the end"),
        ("overlap", "IoU with top |start|"), ("relevant", "weights on relevant inputs"),
    ):  # fmt: skip
        for arm in (TICKET, *CONTROLS):
            told = [page.contrast(found.seen(arm, column, alpha)) for alpha in found.alphas]
            rows.append([f"{word}, {arm}", *(one and one.value(scale=1.0) for one in told)])
    return Table(
        title=f"{teacher.capitalize()}: features beside the dense student's",
        columns=["measure", *(f"alpha {alpha:g}" for alpha in found.alphas)],
        rows=rows,
        note=f"At density {found.density:.3f}. Hcorr: correlation of the preactivations of equal "
        "units on 256 test rows, each unit centred, units without inputs left out; dHcorr: of "
        "their changes from m w0, for no rewind too, which starts elsewhere. CKA is debiased.",
    )


def transferred(found: Found, teacher: str) -> list[Block]:
    """Return the matrix of masks found at one alpha and trained at another."""
    if found.transfer.empty:
        return []
    table = found.transfer.pivot_table(index="found", columns="alpha", values="test_mse")
    names = [f"{alpha:g}" for alpha in table.columns]
    svg = heatmaps.matrix(
        table.to_numpy(), rows=names, columns=names, log=True,
        ylabel="alpha that found the mask", xlabel="alpha that trains it, rewound",
    )  # fmt: skip
    shares = 100 * effects(found.transfer).mean()
    caption = (
        f"Mean test error of the ticket at density {found.density:.3f}. Of the variance of its "
        f"logarithm {shares['found']:.0f}% is between rows, {shares['trained']:.0f}% between "
        f"columns, {shares['rest']:.0f}% neither."
    )
    title = f"{teacher.capitalize()}: masks found at one alpha, trained at another"
    alt = "Test error by the alpha that found the mask and the alpha that trained it."
    return [Figure(title=title, svg=svg, alt=alt, caption=caption)]


def pictures(found: Found, teacher: str) -> list[Block]:
    """Return errors and features of one teacher."""
    name, records = teacher.capitalize(), found.records
    rich, lazy = found.alphas[0], found.alphas[-1]
    at = records[records["level"].isin([0, found.level])]
    where = f"Density {found.density:.3f}."
    blocks: list[Block] = _curves(
        at, "alpha", "test_mse", by="arm", title=f"{name}: error", logy=True, order=ORDER,
        ylabel="test error", caption=where,
    )  # fmt: skip
    blocks += _curves(
        at[at["arm"].isin([TICKET, OWN, SHUFFLED])], "alpha", "overlap", by="arm", order=ORDER,
        title=f"{name}: masks and the start", ylabel="IoU with top |start|", caption=where,
    )  # fmt: skip
    for alpha in (rich, lazy):
        rows = records[records["alpha"] == alpha]
        svg = figures.accuracy_by_compression(
            rows.assign(error=np.log10(rows["test_mse"]), compression=1 / rows["density"]),
            value="error", ylabel="log10 test error", order=ORDER, percent_left=True,
        )  # fmt: skip
        blocks.append(
            Figure(
                title=f"{name}: error by density, alpha {alpha:g}",
                svg=svg,
                alt=f"Test error against the share of weights left at alpha {alpha:g}, by arm.",
            )
        )
    if len(found.followed):
        later = found.followed[found.followed["step"] > 0]
        for alpha, column, word in (
            (rich, "h", "Hcorr"), (rich, "dh", "dHcorr"), (lazy, "h", "Hcorr"),
            (lazy, "dh", "dHcorr"),
        ):  # fmt: skip
            part = later[(later["alpha"] == alpha) & (later["arm"] != DENSE)]
            blocks += _curves(
                part, "step", column, by="arm", ylabel=f"{word} with the dense student",
                title=f"{name}: {word} in time, alpha {alpha:g}", order=ORDER, caption=where,
            )  # fmt: skip
    return [*blocks, *transferred(found, teacher)]


def preactivations(frame: pd.DataFrame) -> list[Block]:
    """Return heatmaps of one seed, with sliders over alpha and time."""
    if "heatmaps.scale" not in frame:
        return []
    row = frame[frame["heatmaps.scale"].notna()].iloc[0]
    shape = tuple(int(n) for n in row["heatmaps.shape"])

    def told(arm: str) -> NDArray[np.float64]:
        whole = np.frombuffer(base64.b64decode(row[f"heatmaps.arms.{arm}"]), dtype=np.int8)
        values = whole.reshape(shape).astype(float)
        return np.where(values == -128, np.nan, values * row["heatmaps.scale"] / 127)

    names = [a for a in ORDER if a != TOP and isinstance(row.get(f"heatmaps.arms.{a}"), str)]
    titles = {FRESH: "re-init, matched"}
    svg = heatmaps.heatmaps(
        {titles.get(arm, arm): told(arm) for arm in names}, limit=row["heatmaps.scale"],
        ylabel="probe, by y", xlabel="hidden unit, by the dense student's clusters",
    )  # fmt: skip
    axes = (
        Axis("alpha", [f"{alpha:g}" for alpha in row["alphas"]]),
        Axis("step", [f"{step:,}" for step in row["heatmaps.steps"]]),
    )
    return [
        Scrubber(
            title=f"Preactivations, {row[DATASET]}",
            frames_svg=svg,
            axes=axes,
            alt="Preactivations of the dense student, its ticket and controls, probes by units.",
            caption=f"Seed {row['rows.split']}, {shape[2]} test rows by {shape[3]} units at the "
            "followed density. Units are in the order of a clustering of the dense student's at "
            "the end, at each alpha; those of re-init are matched to them by |correlation|. Grey: "
            "all inputs are pruned.",
        )
    ]


# ---- widths ------------------------------------------------------------------------------------

DIALS = {
    "movement": "weight movement", "kernel_distance": "kernel distance",
    "deviation": "deviation from linear", "overlap": "IoU of the ticket with top |start|",
    "ratio": "ticket / dense test error",
}  # fmt: skip


def by_width(records: pd.DataFrame) -> pd.DataFrame:
    """Return measures of the dense student and the last ticket by width, alpha and seed."""
    keys = ["width", "alpha", "seed"]
    dense = records[records["level"] == 0].set_index(keys)
    last = records["level"] == records["level"].max()
    ticket = records[last & (records["arm"] == TICKET)].set_index(keys)
    whole = dense[["movement", "kernel_distance", "deviation"]].astype(float)
    return whole.assign(
        overlap=ticket["overlap"].astype(float), ratio=ticket["test_mse"] / dense["test_mse"]
    ).reset_index()


def shares_of_width(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return shares of the variance of a measure's logarithm, by seed."""
    long = table.rename(columns={"width": "found"}).assign(test_mse=table[column])
    found = effects(long[["found", "alpha", "seed", "test_mse"]])
    return found.rename(columns={"found": "width", "trained": "alpha"})


def widest_to_narrowest(table: pd.DataFrame, column: str) -> pd.Series:
    """Return the log ratio of a measure, widest to narrowest, mean over alphas, by seed."""
    logs = np.log(table[column]).groupby([table["seed"], table["width"]]).mean().unstack()
    return logs[logs.columns.max()] - logs[logs.columns.min()]


def widths(frame: pd.DataFrame, teacher: str) -> list[Block]:
    """Return whether one alpha means the same at all widths with the mean-field readout."""
    part = frame[(frame["arm"] != FULL) & (frame[DATASET] == teacher)]
    records = listed(part, "records")
    if records.empty:
        return []
    table = by_width(records)
    complete = table.groupby("seed")["width"].nunique() == table["width"].nunique()
    table = table[table["seed"].isin(complete.index[complete])]
    if table.empty or table["width"].nunique() < 2:
        return []
    rows: list[list[Cell]] = []
    name = teacher.capitalize()
    blocks: list[Block] = []
    for column, told in DIALS.items():
        shares = shares_of_width(table, column)
        claim = Claim(
            told=told, values=widest_to_narrowest(table, column), null=1.0, within=SAME, ratio=True
        )
        both = [page.contrast(shares[name]) for name in ("width", "alpha")]
        by = [np.exp(np.log(part[column]).mean()) for _, part in table.groupby("width")]
        parts = [share and share.value(scale=1.0) for share in both]
        rows.append([*claim.row(), *parts, *map(float, by)])
        blocks += _curves(
            table.assign(width=[f"width {w}" for w in table["width"]]), "alpha", column,
            by="width", title=f"{name}: {told} by width", ylabel=told, logy=column != "overlap",
            caption="Mean-field readout, 50% a round, density .125 of tickets.",
        )  # fmt: skip
    return [
        Table(
            title=f"{name}: one dial for all widths, mean-field readout",
            columns=["the same at all widths", "widest / narrowest", "95% interval", "seeds",
                     "verdict", "width's share", "alpha's share",
                     *(f"mean, {w}" for w in sorted(table["width"].unique()))],
            rows=rows,
            note=f"{VERDICT} Claimed: as near as a factor of {SAME:g}, mean over alphas. Shares of "
            "the variance of the measure's logarithm over widths and alphas, by seed; the rest is "
            "their interaction. Geometric means over alphas.",
        ),
        *blocks,
    ]  # fmt: skip


# ---- the page ----------------------------------------------------------------------------------


def dial(studies: dict[str, Found]) -> list[Block]:
    """Return the measures of the dense student against alpha."""
    blocks: list[Block] = []
    whole = pd.concat([f.records[f.records["arm"] == DENSE] for f in studies.values()])
    for column, told in {**DIALS, "cka_start": "CKA of features, start and end"}.items():
        if column in whole and column != "overlap":
            blocks += _curves(
                whole, "alpha", column, by="teacher", title=f"The dial: {told}", ylabel=told,
                logy=column != "cka_start", caption="Dense students.",
            )  # fmt: skip
    return blocks


def figure(frame: pd.DataFrame) -> Sequence[Block]:
    """Return claims with verdicts, uniformity, numbers, and pictures of both teachers."""
    found = {teacher: study(frame, teacher) for teacher in TEACHERS}
    studies = {teacher: one for teacher, one in found.items() if one is not None}
    blocks: list[Block] = [verdicts(one, teacher) for teacher, one in studies.items()]
    if studies:
        blocks += [uniformity(studies), *dial(studies)]
    for teacher, one in studies.items():
        blocks += [ratios(one, teacher), features(one, teacher), *pictures(one, teacher)]
    blocks += preactivations(frame)
    for teacher in TEACHERS:
        blocks += widths(frame, teacher)
    return blocks
