"""What was claimed of tickets along alpha, as tests: `toy.py` shows the verdicts."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import page
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from toy_found import CONTROLS, DENSE, FRESH, OWN, SHUFFLED, TICKET, TOP, Found

from secateurs.measures import statistics
from secateurs.report import paired
from secateurs.report.page import Cell, Table, Value


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
        found = paired.contrast(self.values)
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

    Rows are the alpha that found the mask, columns the alpha that trained it.
    """
    found = {}
    for seed, part in transfer.groupby("seed"):
        table = part.pivot_table(index="found", columns="alpha", values="test_mse")
        found[seed] = page.two_way(np.log(table.to_numpy()))
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
        tau = [paired.contrast(taus(f, arm)) for f in studies.values()]
        verdict = None
        if told is not None and held is not None:
            verdict = "yes" if held < 0.05 else "no" if told > 0.95 else "not resolved"
        shown = [one and one.value(scale=1.0) for one in tau]
        more = paired.contrast(
            pd.concat([taus(f, TICKET) - taus(f, arm) for f in studies.values()])
        )
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
