"""The toy's page tells what was planted in its frame; its tests hold their level."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from secateurs.command.experiments import Options, load_paper, run_paper
from secateurs.experiments.spec import key
from secateurs.report.page import Figure, Section, Table, render

FILE = Path(__file__).parents[2] / "papers" / "lottery" / "toy.py"
ALPHAS = (0.05, 0.2, 1.0, 5.0, 25.0)
SEEDS = range(4)


@pytest.fixture(scope="module")
def toy():
    return load_paper(FILE)


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_every_run_is_a_cell_of_its_own_and_one_has_heatmaps(toy, scale):
    runs = toy.runs(scale)
    size = toy.SCALES[scale]
    assert len({key(run.cell) for run in runs}) == len(runs)
    assert len(runs) == size.seeds * 2 * (1 + len(size.widths))
    assert sum(run.cell.n_heatmap_rows > 0 for run in runs) == 1
    places = {(run.cell.rows.dataset, run.cell.rows.split) for run in runs}
    for arm in {run.arm for run in runs}:
        same = {(r.cell.rows.dataset, r.cell.rows.split) for r in runs if r.arm == arm}
        assert same == places


def test_a_larger_scale_has_the_cells_of_the_smaller(toy):
    small, paper = ({key(run.cell) for run in toy.runs(scale)} for scale in ("small", "paper"))
    assert small < paper


# ---- a planted frame ---------------------------------------------------------------------------

LEVELS = 2
FACTOR = {"ticket": 0.5, "no rewind": 0.5, "re-init": 2.0, "shuffled": 4.0, "top start": 6.0}
"""Ratio of the error to the dense one when rich; it is 1 at the laziest alpha."""


def planted(teacher, seed, noise=0.0):
    rng = np.random.default_rng(seed)
    records, followed, transfer = [], [], []
    for i, alpha in enumerate(ALPHAS):
        lazy = i / 4
        jitter = float(np.exp(0.01 * rng.normal()))
        dense = {
            "seed": seed, "alpha": alpha, "arm": "dense", "level": 0, "density": 1.0,
            "test_mse": 0.1 * (1 + i) * jitter, "movement": (1 + 0.1 * seed) / alpha,
            "kernel_distance": 0.1 / alpha, "deviation": 0.05 / alpha, "cka_start": 0.5 + lazy / 2,
            "overlap": 1.0, "relevant": 0.5, "cka_dense": 1.0, "h_start": 1.0, "h_end": 1.0,
            "dh_end": 1.0,
        }  # fmt: skip
        records.append(dense)
        for arm, factor in FACTOR.items():
            good = arm in ("ticket", "no rewind")
            change = (0.2 if good else -0.2) * (1 - lazy) * (1 + 0.01 * rng.normal())
            spread = noise * rng.normal() if arm == "shuffled" else 0.001 * rng.normal()
            pruned = dense | {
                "arm": arm, "test_mse": dense["test_mse"] * factor ** (1 - lazy) * np.exp(spread),
                "overlap": 0.2 + 0.75 * lazy + 0.001 * rng.normal(), "h_start": 0.5,
                "h_end": 0.5 + change, "dh_end": 0.5, "cka_dense": 0.9 if good else 0.5,
            }  # fmt: skip
            levels = range(1, LEVELS + 1)
            records += [pruned | {"level": level, "density": 0.5**level} for level in levels]
            for step in (0, 1, 10):
                dh = (0.7 if good else 0.05) + 0.001 * rng.normal()
                followed.append(
                    {"seed": seed, "alpha": alpha, "arm": arm, "step": step,
                     "dh": dh if step else None, "h": 0.5, "train_mse": 0.1}
                )  # fmt: skip
        for j, found in enumerate(ALPHAS):
            transfer.append(
                {"seed": seed, "alpha": alpha, "found": found,
                 "test_mse": float(np.exp(1.0 * j + 0.5 * i))}
            )  # fmt: skip
    return {
        "arm": "NTK readout", "rows.dataset": teacher, "rows.split": seed, "width": 64,
        "follow": LEVELS, "records": tuple(records), "followed": tuple(followed),
        "transfer": tuple(transfer),
    }  # fmt: skip


def frame(noise=0.0):
    teachers = ("sparse teacher", "dense teacher")
    return pd.DataFrame([planted(t, seed, noise) for t in teachers for seed in SEEDS])


@pytest.fixture(scope="module")
def found(toy):
    return toy.study(frame(), "sparse teacher")


def test_verdicts_are_those_of_the_planted_values(toy, found):
    rows = {row[0]: row for row in toy.toy_claims.verdicts(found, "sparse teacher").rows}
    told = {
        "weight movement falls in alpha": ("yes", 1.0),
        "mask at alpha 25: IoU with top |start|": ("yes", 0.95),
        "its IoU at alpha 0.05": ("yes", 0.2 / 0.95),
        "alpha 0.05: shuffled / ticket error above 3": ("yes", 8.0),
        "alpha 25: shuffled / ticket error is 1": ("yes", 1.0),
        "alpha 0.05: features of the ticket come nearer": ("yes", 0.2),
        "alpha 0.05: those of the shuffled": ("yes", -0.2),
        "alpha 25: ticket: neither": ("yes", 0.0),
        "transfer: the alpha that found": ("yes", (1 - 0.25) / 1.25),
        "transfer: found at 0.05 and trained at 25": ("yes", np.exp(4 * 0.5 - 4 * 1.0)),
        "deck 1: ticket error = dense error at alpha 0.05": ("no", 0.5),
        "deck 1: ticket error = dense error at alpha 25": ("yes", 1.0),
        "deck 3: no such dynamics of no rewind": ("no", 0.7),
        "deck 3: no such dynamics of re-init": ("yes", 0.05),
    }
    for begin, (verdict, value) in told.items():
        (row,) = [row for name, row in rows.items() if name.startswith(begin)]
        assert row[4] == verdict, row
        assert row[1].mean == pytest.approx(value, abs=0.01), row
        assert row[3] == len(SEEDS)


def test_one_seed_resolves_nothing(toy):
    alone = frame()
    alone = alone[alone["rows.split"] == 0]
    table = toy.toy_claims.verdicts(toy.study(alone, "sparse teacher"), "sparse teacher")
    assert {row[4] for row in table.rows} == {"not resolved"}
    assert {row[2] for row in table.rows} == {None}


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [((0.1, 0.2), "yes"), ((-0.2, -0.1), "no"), ((-0.1, 0.1), "not resolved")],
)
def test_a_side_is_taken_by_the_whole_interval(toy, interval, verdict):
    nothing = pd.Series(dtype=float)
    assert toy.toy_claims.Claim(told="", values=nothing, sign=1).verdict(*interval) == verdict
    other = {"yes": "no", "no": "yes"}.get(verdict, verdict)
    assert toy.toy_claims.Claim(told="", values=nothing, sign=-1).verdict(*interval) == other


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [((0.9, 1.2), "yes"), ((1.3, 2.0), "no"), ((0.5, 0.79), "no"), ((0.7, 1.1), "not resolved")],
)
def test_same_means_within_a_factor(toy, interval, verdict):
    claim = toy.toy_claims.Claim(
        told="", values=pd.Series(dtype=float), null=1.0, within=1.25, ratio=True
    )
    assert claim.verdict(*interval) == verdict


def test_shares_of_variance_are_those_of_a_two_way_table(toy):
    rng = np.random.default_rng(0)
    row, column = rng.normal(size=4), rng.normal(size=4)
    rest = rng.normal(size=(4, 4))
    rest -= rest.mean(0) + rest.mean(1, keepdims=True) - rest.mean()
    row, column = row - row.mean(), column - column.mean()
    table = row[:, None] + column + rest
    long = pd.DataFrame(
        [
            {"seed": 3, "found": i, "alpha": j, "test_mse": np.exp(table[i, j])}
            for i in range(4)
            for j in range(4)
        ]
    )
    parts = [4 * np.square(row).sum(), 4 * np.square(column).sum(), np.square(rest).sum()]
    assert toy.toy_claims.effects(long).loc[3].tolist() == pytest.approx(
        list(np.array(parts) / sum(parts))
    )


def test_a_dial_that_moves_with_the_width_is_told(toy):
    def at(width, seed, factor):
        row = planted("sparse teacher", seed) | {"width": width, "arm": f"mean field, {width}"}
        records = [r | {"movement": factor * r["movement"]} for r in row["records"]]
        return row | {"records": tuple(records)}

    cells = [at(*place) for seed in SEEDS for place in ((64, seed, 1.0), (256, seed, 0.5))]
    table, *pictures = toy.toy_page.widths(pd.DataFrame(cells), "sparse teacher")
    rows = {row[0]: row for row in table.rows}
    assert rows["weight movement"][1].mean == pytest.approx(0.5)
    assert rows["weight movement"][4] == "no"
    assert rows["kernel distance"][1].mean == pytest.approx(1.0)
    assert rows["kernel distance"][4] == "yes"
    assert rows["kernel distance"][5].mean == pytest.approx(0.0, abs=1e-9)
    assert len(pictures) == len(toy.toy_page.DIALS)
    assert toy.toy_page.widths(pd.DataFrame(cells[:1]), "sparse teacher") == []


# ---- uniformity --------------------------------------------------------------------------------


def test_a_messy_control_is_told_from_a_uniform_ticket(toy):
    messy = {t: toy.study(frame(noise=0.5), t) for t in ("sparse teacher", "dense teacher")}
    rows = {row[0]: row for row in toy.toy_claims.uniformity(messy).rows}
    assert rows["shuffled"][1] > 0.2
    assert rows["shuffled"][3] == pytest.approx(1 / 2**8)
    assert rows["shuffled"][5] == "yes"
    assert rows["no rewind"][5] == "not resolved"
    assert rows["ticket"][3] is None
    assert [rows[arm][6].mean for arm in ("ticket", "no rewind")] == pytest.approx([1.0, 1.0])
    assert rows["shuffled"][6].mean < 1
    assert rows["ticket"][8] is None
    assert rows["no rewind"][8] == "0.000 to 0.000"


def test_p_values_of_exchangeable_residuals_hold_their_level(toy):
    rng = np.random.default_rng(1)
    p = []
    for _ in range(300):
        a, b = np.square(rng.normal(size=(2, 6, 5))).sum(2)
        p.append(toy.toy_claims.swapped_p([(a, b)]))
    assert np.mean(p) == pytest.approx(0.5, abs=0.06)
    assert np.mean(np.array(p) <= 0.05) <= 0.09


def test_p_values_of_drawn_and_of_all_swaps_agree(toy, monkeypatch):
    rng = np.random.default_rng(2)
    ticket, control = rng.gamma(1.0, size=10), rng.gamma(1.6, size=10)
    whole = toy.toy_claims.swapped_p([(ticket, control)])
    monkeypatch.setattr(toy.toy_claims, "DRAWS", 1_000)
    assert toy.toy_claims.swapped_p([(ticket, control)]) == pytest.approx(whole, abs=0.05)
    assert toy.toy_claims.swapped_p([(control, ticket)]) == pytest.approx(1 - whole, abs=0.06)


# ---- the page ----------------------------------------------------------------------------------


def test_a_planted_frame_makes_a_page(toy):
    blocks = toy.figure(frame())
    titles = [block.title for block in blocks]
    assert titles[:2] == ["Sparse teacher: claims", "Dense teacher: claims"]
    assert any("trained at another" in t for t in titles)
    assert len(titles) == len(set(titles))
    assert "<svg" in render("Toy", [Section(title="All", blocks=blocks)])
    assert toy.figure(frame().iloc[:0]) == []


def test_the_smoke_scale_runs_and_has_sliders(toy, tmp_path, capsys):
    assert run_paper(FILE, tmp_path, "smoke", Options(jobs=1), splits=1)
    html = (tmp_path / "toy-smoke.html").read_text()
    assert "smoke: not evidence" in html
    for words in ("one dial for all widths", "Preactivations, sparse teacher", "Uniformity"):
        assert words in html
    assert html.count('type="range"') == 2
    assert "not resolved" in capsys.readouterr().out
    assert isinstance(toy.figure(frame())[0], Table)
    assert any(isinstance(block, Figure) for block in toy.figure(frame()))
