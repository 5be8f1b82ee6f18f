"""The lottery experiments: cells share their searches, pages tell what was planted in frames."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.command.experiments import load_paper
from secateurs.experiments.spec import key
from secateurs.experiments.store import Store
from secateurs.report.page import Figure, Section, Table, render

HOME = Path(__file__).parents[2] / "papers" / "lottery"
SCALES = ("smoke", "small", "paper")
T_2 = 4.302653
"""97.5% quantile of Student's t with 2 degrees of freedom."""


@pytest.fixture(scope="module")
def lth():
    return load_paper(HOME / "lth_figure_1.py")


@pytest.fixture(scope="module")
def equal():
    return load_paper(HOME / "at_equal_steps.py")


@pytest.fixture(scope="module")
def tune():
    return load_paper(HOME / "tune.py")


# ---- cells -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "n_cells"), [("lth", (32, 620, 1010)), ("equal", (42, 549, 1220)), ("tune", (10, 45))]
)
def test_every_run_is_a_cell_of_its_own(request, name, n_cells):
    paper = request.getfixturevalue(name)
    for scale, n in zip(SCALES, n_cells, strict=False):
        runs = paper.runs(scale)
        assert len({key(run.cell) for run in runs}) == len(runs) == n
        assert {run.cell.seed == run.cell.rows.split for run in runs} == {True}


def placed(runs):
    """Return the cells by data set, seed, arm and number of the round; dense ones are 0."""
    found, n = {}, {}
    for run in runs:
        where = run.cell.rows.dataset, run.cell.seed, run.arm
        n[where] = n.get(where, -1 + (not run.arm.startswith("dense"))) + 1
        found[(*where, n[where])] = run.cell
    return found


@pytest.mark.parametrize("scale", ["smoke", "small"])
def test_a_round_needs_the_round_before_which_is_a_run_of_the_same_file(lth, scale):
    cells = placed(lth.runs(scale))
    before = {arm: "ticket" for arm in lth.CONTROLS}
    n_checked = 0
    for (dataset, seed, arm, n), cell in cells.items():
        if n < 2:
            assert cell.round_before is None
        else:
            earlier = cells[dataset, seed, before.get(arm, arm), n - 1]
            assert key(cell.round_before) == key(earlier)
            n_checked += 1
        if arm in lth.CONTROLS:  # their search is the training of the dense network
            assert key(cell.search_cell) == key(cells[dataset, seed, "dense", 0].search_cell)
    assert n_checked == len([n for *_, n in cells if n > 1]) > 0


def test_three_seven_nine_and_fifteen_rounds_leave_what_the_paper_says(lth):
    cells = placed(lth.runs("small"))
    percent = {n: 100 / cells["mnist", 0, "ticket", n].config.compression for n in (3, 7, 9, 15)}
    assert {n: round(p, 1) for n, p in percent.items()} == {3: 51.3, 7: 21.1, 9: 13.5, 15: 3.6}
    for (dataset, seed, _, n), cell in cells.items():
        if n:
            ticket = cells[dataset, seed, "ticket", n]
            assert cell.config.compression == ticket.config.compression


def test_presets_are_the_recipes_of_three_papers_and_their_page_has_their_numbers(tickets):
    paper = load_paper(HOME / "presets.py")
    runs = paper.runs("small")
    assert len(runs) == 3 * 3 * 16
    pruned = [run for run in runs if run.cell.config.compression > 1]
    recipes = {(r.arm, r.cell.config.only, r.cell.config.scope) for r in pruned}
    assert recipes == {
        ("lth2019", ("*",), "halved_last"),
        ("open_lth", ("encoder.*",), "global"),
        ("zhou2019", ("*",), "halved_last"),
    }
    assert len({key(r.cell) for r in runs}) == 2 * 3 * 16  # at equal steps two are one
    ours = tickets[tickets["arm"].isin(["dense", "ticket"])].assign(arm="lth2019")
    _, numbers = paper.figure(ours)
    assert numbers.columns == ["arm", "100%", "51.3%", "21.1%", "13.5%", "7%", "3.6%"]
    ((name, *cells),) = numbers.rows
    dense = ours.loc[ours["config.compression"] == 1, "test.accuracy"]
    assert name == "lth2019"
    assert cells[0].mean == pytest.approx(100 * dense.mean())
    assert all(cell is not None for cell in cells)


def test_the_long_dense_network_trains_for_the_published_steps(lth, tickets):
    cells = placed(lth.runs("small"))
    for dataset in ("mnist", "fashion_mnist"):
        search = cells[dataset, 0, lth.LONG, 0].config.search
        assert search.steps == 50_000
        assert search != cells[dataset, 0, "dense", 0].config.search
    long = tickets[tickets["arm"] == "dense"].assign(arm=lth.LONG)
    long["early_stop.test_accuracy"] += 0.002
    found = facts(lth, pd.concat([tickets, long]))
    by_name = {name: cells[1].mean for name, cells in found.items() if lth.LONG in name}
    about = [0.8 - 0.2, 0.0 - 0.2]  # of test_facts_are_means_of_pairs_with_their_intervals
    assert list(by_name.values()) == pytest.approx(about, abs=1e-6)


def n_steps(cell):
    """Return what a cell trains in all: the search once a round, and the finetuning."""
    config = cell.config
    rounds = len(config.schedule(1 / config.compression)) if config.search.epochs else 0
    assert config.finetune.steps is not None
    return rounds * (config.search.steps or 0) + config.finetune.steps


@pytest.mark.parametrize("scale", SCALES)
def test_every_method_at_equal_density_trains_for_equally_many_steps(equal, scale):
    tasks = {(task.dataset, task.n_train): task.steps for task in equal.TASKS[scale]}
    seen = set()
    for run in equal.runs(scale):
        cell = run.cell
        steps = tasks[cell.rows.dataset, cell.rows.n_train]
        assert n_steps(cell) == steps, run.arm
        seen.add((run.arm, round(1 / cell.config.compression, 4)))
    assert seen == {("dense", 1)} | {(arm, d) for arm in equal.ARMS for d in equal.DENSITIES[scale]}


def test_rates_are_tried_on_seeds_that_nothing_is_reported_of(tune, equal, lth):
    tried = {run.cell.seed for scale in SCALES for run in tune.runs(scale)}
    told = {run.cell.seed for paper in (equal, lth) for run in paper.runs("paper")}
    assert tried.isdisjoint(told)
    assert {run.cell.config.compression for run in tune.runs("paper")} == {1}


# ---- made frames -------------------------------------------------------------------------------

SEEDS = (0, 1, 2)
DELTA = (-0.001, 0.0, 0.001)
"""By seed; the standard error of the mean is .001 / sqrt(3)."""


def row(arm, seed, percent, **values):
    found = {
        "arm": arm, "key": f"{arm}-{percent}-{seed}", "tried": 1, "rows.dataset": "mnist",
        "rows.split": seed, "seed": seed, "config.compression": 100 / percent,
        "size.density": percent / 100, "regime.weight_movement": 0.5,
        "regime.start_mask_overlap": 0.25, "layer_density.a.weight": percent / 200,
        "layer_density.b.weight": percent / 50 if percent < 50 else 1.0,
    }  # fmt: skip
    return found | values


def trained(end, *, early=None, step=1000, curve=(0, 500, 1000)):
    return {
        "test.accuracy": end, "validation.accuracy": end, "early_stop.step": step,
        "early_stop.test_accuracy": end if early is None else early, "curve.step": curve,
        "curve.validation_accuracy": tuple(end - 0.1 / (1 + s) for s in curve),
        "curve.validation_loss": tuple(1 / (1 + s) for s in curve),
    }  # fmt: skip


LEFT = (51.3, 21.1, 13.5, 6.96, 3.57)


@pytest.fixture
def tickets():
    """Return what Frankle & Carbin found; spreads over seeds are an eighth of the effects.

    The ticket stops after (.62, .61, .63) of the dense network's steps; the re-initialised one
    2.5, 2.51 and 2.52 times later than it.
    """
    rows = []
    for seed, delta in zip(SEEDS, DELTA, strict=True):
        level = 0.97 + 0.01 * seed  # seeds differ more than arms: only pairs tell
        rows.append(row("dense", seed, 100, **trained(level, step=10_000)))
        steps = {"ticket": 6200 + (0, -100, 100)[seed]}
        steps["re-initialised"] = steps["ticket"] * (2.50, 2.51, 2.52)[seed]
        for percent in LEFT:
            gain = {
                "ticket": {13.5: 0.008, 3.57: delta}.get(percent, 0.004),
                "re-initialised": -0.001 + delta / 4,
                "shuffled mask": -0.02 + delta,
                "rewound to step K": 0.006 + {13.5: 0.008, 3.57: delta}.get(percent, 0),
                "no rewind": 0.005,
            }
            for arm, more in gain.items():
                early = level + more + (delta / 2 if arm == "ticket" else 0)
                values = trained(level + more, early=early, step=steps.get(arm, 5000))
                rows.append(row(arm, seed, percent, **values))
    return pd.DataFrame(rows)


def titled(blocks, words):
    (block,) = [block for block in blocks if block.title.endswith(words)]
    return block


def facts(paper, frame):
    return {cells[0]: cells[1:] for cells in paper.facts(frame, "mnist").rows}


def about(value, mean, error, *, digits=6):
    assert value.mean == pytest.approx(mean, abs=10**-digits)
    assert value.error == pytest.approx(error, abs=10**-digits)


def test_facts_are_means_of_pairs_with_their_intervals(lth, tickets):
    found = facts(lth, tickets)
    earlier, later, fresh, above, back, *others = found.values()
    published = [38.0, 2.51, 0.5, 0.3, 0.0, *[None] * 6]
    assert [cells[0] for cells in found.values()] == published
    assert [cells[2] for cells in found.values()] == [3] * 11
    root = math.sqrt(3)

    about(earlier[1], 38.0, 1 / root)
    assert earlier[3] == f"+{38 - T_2 / root:.2f} to +{38 + T_2 / root:.2f}"
    about(later[1], 2.51, 0.01 / root)
    assert later[3] == f"+{2.51 - T_2 * 0.01 / root:.2f} to +{2.51 + T_2 * 0.01 / root:.2f}"
    about(fresh[1], 0.5, 0.025 / root)  # early: .004 + delta / 2, and -.001 + delta / 4
    about(above[1], 0.8, 0.05 / root)
    about(back[1], 0.0, 0.15 / root)
    assert [cells[4] for cells in (earlier, later, fresh, above, back)] == ["yes"] * 5

    fresh_end, shuffled, *rewound = others
    about(fresh_end[1], -0.1, 0.075 / root)
    about(shuffled[1], -2.0, 0.0)
    assert shuffled[3] == "−2.00 to −2.00"
    means = [cells[1].mean for cells in rewound]
    assert means == pytest.approx([0.6, 0.6, -0.3, 0.5], abs=1e-6)
    assert [cells[4] for cells in others] == [None] * 6


def test_what_disagrees_is_told(lth, tickets):
    ticket, fresh = (tickets["arm"] == arm for arm in ("ticket", "re-initialised"))
    at = {p: np.isclose(tickets["size.density"], p / 100) for p in (21.1, 13.5, 3.57)}
    early = "early_stop.test_accuracy"
    tickets.loc[fresh & at[21.1], early] += 0.01  # now half a point above the ticket
    tickets.loc[ticket & at[3.57], early] -= 0.004  # clearly below dense
    tickets.loc[ticket & at[13.5], early] += [-0.008, 0.0, 0.006]  # on both sides of dense
    tickets.loc[fresh & at[21.1], "early_stop.step"] = 3000.0  # before the ticket
    tickets.loc[ticket & at[21.1], "early_stop.step"] = [12_000.0, 12_500.0, 11_500.0]
    answers = [cells[4] for cells in facts(lth, tickets).values()]
    assert answers[:5] == ["no", "no", "no", "not resolved", "no"]


def test_one_seed_resolves_nothing(lth, tickets):
    blocks = lth.figure(tickets[tickets["rows.split"] == 1])
    cells = list({row[0]: row[1:] for row in titled(blocks, "facts").rows}.values())
    assert [one[4] for one in cells[:5]] == ["not resolved"] * 5
    assert [one[2:4] for one in cells] == [[1, None]] * 11
    assert cells[0][1].mean == pytest.approx(39)
    assert cells[0][1].error is None
    assert titled(blocks, "numbers").note.startswith("Mean ± standard error over 1 seed.")


def test_a_stop_at_the_start_has_no_ratio(lth, tickets):
    stops = (tickets["arm"] == "ticket") & (tickets["rows.split"] == 0)
    tickets.loc[stops, "early_stop.step"] = 0
    found = facts(lth, tickets)
    earlier, later, *_ = found.values()
    assert earlier[2] == later[2] == 2
    assert earlier[1].mean == pytest.approx(38)  # of .39 and .37


def test_numbers_stand_under_their_densities(lth, tickets):
    blocks = lth.figure(tickets)
    numbers, against = titled(blocks, "numbers"), titled(blocks, "minus dense")
    told = ["51.3%", "21.1%", "13.5%", "7%", "3.6%"]
    assert list(against.columns) == ["arm", *told]
    assert list(numbers.columns) == ["arm", "100%", *told]
    of = {cells[0]: cells[1:] for cells in numbers.rows}
    about(of["dense"][0], 98.0, 1 / math.sqrt(3))
    assert of["dense"][1:] == [None] * 5
    assert of["ticket"][0] is None
    assert of["ticket"][3].mean == pytest.approx(98.8)
    gains = {cells[0]: [cell.mean for cell in cells[1:]] for cells in against.rows}
    assert gains["ticket"] == pytest.approx([0.4, 0.4, 0.8, 0.4, 0.0], abs=1e-9)
    assert gains["no rewind"] == pytest.approx([0.5] * 5)
    assert "dense" not in gains
    for table in (numbers, against):
        assert table.note.startswith("Mean ± standard error over 3 seeds.")


def test_layers_and_regime_of_the_ticket_are_told(lth, tickets):
    table = titled(lth.figure(tickets), "layers of the ticket")
    assert list(table.columns) == ["mask", "a, %", "b, %", "movement", "overlap"]
    of = {cells[0]: [cell.mean for cell in cells[1:]] for cells in table.rows}
    assert list(of)[:2] == ["ticket, 51.3%", "ticket, 21.1%"]
    assert of["ticket, 21.1%"] == pytest.approx([10.55, 42.2, 0.5, 0.25])


def test_pictures_show_each_set_by_weights_left(lth, tickets):
    both = pd.concat([tickets, tickets.assign(**{"rows.dataset": "sklearn:digits"})])
    blocks = lth.figure(both)
    assert len(blocks) == 18
    names = [block.title for block in blocks]
    assert [name.partition(":")[0] for name in names] == ["mnist"] * 9 + ["digits"] * 9
    for block in blocks[:3]:
        assert isinstance(block, Figure)
        assert block.caption.startswith("Mean ± standard error over 3 seeds.")
        assert ">weights left, %<" in block.svg
        for arm in ("dense", "ticket", "shuffled mask"):
            assert f">{arm}<" in block.svg
    curves = blocks[3]
    assert ">ticket, 21.1%<" in curves.svg
    assert "re-initialised, 21.1%" in curves.alt
    assert "ticket, 7%" not in curves.alt
    assert "From step 500 on" in curves.caption  # of 0, 500 and 1000
    render("a page", [Section(title="all", blocks=blocks)])


def test_curves_begin_where_the_first_is_near_the_top(lth, tickets):
    steps, slow, fast = (0, 4, 20, 40), (0.1, 0.5, 0.8, 0.95), (0.1, 0.5, 0.93, 0.9)
    curves = [fast if arm == "ticket" else slow for arm in tickets["arm"]]
    tickets["curve.step"] = [steps] * len(tickets)
    tickets["curve.validation_accuracy"] = curves
    picture = titled(lth.figure(tickets), "curves")
    assert "From step 20 on" in picture.caption
    del tickets["curve.step"]
    assert not [block for block in lth.figure(tickets) if block.title.endswith("curves")]


def test_what_collapsed_is_named_and_not_drawn(lth, tickets):
    gone = (tickets["arm"] == "shuffled mask") & (tickets["size.density"] < 0.1)
    tickets.loc[gone, "test.accuracy"] = 0.1
    (picture,) = [b for b in lth.figure(tickets) if b.title.endswith("accuracy at the end")]
    assert "not drawn: 2 points of shuffled mask." in picture.caption
    assert ">shuffled mask<" in picture.svg  # where it has not
    others = titled(lth.figure(tickets), "accuracy at early stopping")
    assert "not drawn" not in others.caption


PARTS = {
    "random": 0.60, "magnitude at start": 0.70, "SNIP": 0.90, "GraSP": 0.80, "SynFlow": 0.80,
    "one-shot magnitude": 0.94, "one-shot, mask shuffled": 0.91, "in rounds": 0.95,
    "small start": 0.93, "IUNet": 0.96,
}  # fmt: skip


@pytest.fixture
def methods():
    """Return methods that are as good as `PARTS` says, and worse by 10% / density below .2.

    SynFlow is the best on validation images below a density of .03, where it is worse on test
    images than SNIP.
    """
    rows = []
    for seed, delta in zip(SEEDS, DELTA, strict=True):
        level = 0.01 * seed
        rows.append(row("dense", seed, 100, **trained(0.97 + level)))
        for percent in (50.0, 21.0, 13.0, 5.0, 2.0, 1.0):
            for arm, good in PARTS.items():
                end = good + level - (0.001 / percent if percent < 20 else 0)
                end += 4 * delta if arm == "in rounds" else 0
                found = row(arm, seed, percent, **trained(end))
                if arm == "SynFlow" and percent < 3:
                    found["validation.accuracy"] = 0.99
                rows.append(found)
    return pd.DataFrame(rows).assign(**{"rows.n_train": np.nan})


def contrasts(paper, frame):
    table = paper.contrasts(frame, "mnist")
    return {cells[0].partition(":")[0]: cells[1:] for cells in table.rows}, table.note


def test_contrasts_are_means_over_few_weights_paired_by_seed(equal, methods):
    found, note = contrasts(equal, methods)
    assert set(found) == {told.partition(":")[0] for told in equal.CONTRASTS}
    root, rounds = math.sqrt(3), found["in rounds - one-shot"]
    about(rounds[0], 1.0, 0.4 / root)
    assert rounds[1] == 3
    assert rounds[2] == f"+{1 - T_2 * 0.4 / root:.2f} to +{1 + T_2 * 0.4 / root:.2f}".replace(
        "+-", "−"
    ).replace("-", "−")
    exact = {
        "one-shot - the same shuffled": 3.0,
        "IUNet - small start": 3.0,
        "small start - one-shot": -1.0,
        "IUNet - one-shot": 2.0,
        # SNIP, .90, at 13% and 5%; SynFlow, .80, where validation images prefer it
        "one-shot - best at start": (4 + 4 + 14 + 14) / 4,
    }
    for told, mean in exact.items():
        about(found[told][0], mean, 0.0)
        assert found[told][1] == 3
    assert "6 times SNIP" in note
    assert "6 times SynFlow" in note


def test_above_thirteen_per_cent_nothing_counts(equal, methods):
    dense_enough = methods["size.density"] > 0.2
    before, _ = contrasts(equal, methods)
    methods.loc[dense_enough, "test.accuracy"] = 0.5
    after, _ = contrasts(equal, methods)
    assert after == before
    at_13 = np.isclose(methods["size.density"], 0.13) & (methods["arm"] == "IUNet")
    methods.loc[at_13, "test.accuracy"] -= 0.04
    after, _ = contrasts(equal, methods)
    assert after["IUNet - one-shot"][0].mean == pytest.approx(2 - 4 / 4)


def test_the_best_at_start_is_chosen_among_all_or_not_at_all(equal, methods):
    lacking = (methods["arm"] == "random") & (methods["rows.split"] == 2)
    found, note = contrasts(equal, methods[~lacking])
    assert found["one-shot - best at start"][1] == 2
    assert "4 times SNIP" in note
    assert note.startswith("Mean ± standard error over 2 to 3 seeds.")


def test_each_task_has_its_blocks(equal, methods):
    few = methods.assign(**{"rows.n_train": 1000})
    few["test.accuracy"] -= 0.1
    blocks = equal.figure(pd.concat([methods, few]))
    names = [block.title for block in blocks]
    assert [n.partition(":")[0] for n in names] == ["mnist"] * 5 + ["mnist, 1,000 images"] * 5
    numbers = [block for block in blocks if block.title.endswith("numbers")]
    assert list(numbers[0].columns) == ["arm", "100%", "50%", "21%", "13%", "5%", "2%", "1%"]
    for table, lower in zip(numbers, (0, 10), strict=True):
        of = {cells[0]: cells[1:] for cells in table.rows}
        assert of["IUNet"][1].mean == pytest.approx(97 - lower)
        assert of["dense"][0].mean == pytest.approx(98 - lower)
        assert list(of) == ["dense", *equal.ARMS]
    against = {cells[0]: cells[1:] for cells in blocks[2].rows}
    assert [one.mean for one in against["random"]] == pytest.approx([-34] * 6)
    about(against["dense"][0], 3.0, 0.0)
    layers = {cells[0]: cells[1:] for cells in blocks[4].rows}
    assert list(layers) == list(equal.ARMS)
    assert [cell.mean for cell in layers["SNIP"]] == pytest.approx([2.5, 10.0, 0.5, 0.25])


# ---- unfinished frames -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unfinished(lth, equal):
    """Return both papers with a frame of theirs: hypothesis draws of it what is finished."""
    frames = {
        paper: pd.DataFrame(
            row(arm, seed, percent, **trained(0.9 + 0.01 * seed, step=100 * (seed + 1)))
            for arm in arms
            for seed in SEEDS
            for percent in ([100] if arm == "dense" else left)
        )
        for paper, arms, left in (
            (lth, lth.ARMS, LEFT),
            (equal, ("dense", *equal.ARMS), (50, 13, 5, 1)),
        )
    }
    return {paper.__name__: (paper, frame) for paper, frame in frames.items()}


@given(data=st.data())
@settings(max_examples=15)
def test_whatever_is_finished_is_drawn(unfinished, data):
    paper, frame = unfinished[data.draw(st.sampled_from(sorted(unfinished)))]
    arms = data.draw(st.sets(st.sampled_from(sorted(frame["arm"].unique())), min_size=1))
    kept = frame[frame["arm"].isin(arms)]
    some = data.draw(st.lists(st.sampled_from(range(len(kept))), min_size=1, max_size=12))
    left = kept.iloc[sorted(set(some))]
    if data.draw(st.booleans()):  # nobody watched, or nothing was pruned
        left = left.dropna(axis=1, how="all").drop(columns=[c for c in left if "early" in c])
    blocks = paper.figure(left)
    assert {type(block) for block in blocks} <= {Figure, Table}
    (numbers,) = [block for block in blocks if block.title.endswith(": numbers")]
    told = sum(cell is not None for cells in numbers.rows for cell in cells[1:])
    assert told == len(left.drop_duplicates(["arm", "config.compression"]))


def test_a_set_whose_rounds_are_not_there_yet_has_no_column_for_them(lth, tickets):
    early = tickets[tickets["size.density"] > 0.3]
    blocks = lth.figure(early)
    assert list(titled(blocks, "numbers").columns) == ["arm", "100%", "51.3%"]
    cells = list(facts(lth, early).values())
    assert cells[0] == [38.0, None, 0, None, "no cells yet"]
    assert [one[2] for one in cells] == [0] * 11


# ---- the real thing ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lth_figure_1", "at_equal_steps", "tune", "presets"])
def test_smoke_writes_its_page(name, tmp_path):
    path, store = HOME / f"{name}.py", Store(tmp_path / "runs")
    arguments = ["paper", str(path), "--out", str(store.root), "--scale", "smoke", "--jobs", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "secateurs", *arguments],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert " 0 failed" in done.stdout
    page = (store.root / f"{name}-smoke.html").read_text()
    assert "smoke: not evidence" in page
    paper = load_paper(path)
    rows = [{"key": key(run.cell), "arm": run.arm, "tried": 1} for run in paper.runs("smoke")]
    frame = store.frame(rows)
    assert len(frame) == len(rows)
    blocks = paper.table(frame) if name == "tune" else paper.figure(frame)
    for block in blocks:
        assert block.title in page
    if name not in ("tune", "presets"):
        numbers = titled(blocks, "numbers")
        arms = paper.ARMS if "dense" in paper.ARMS else ("dense", *paper.ARMS)
        assert [cells[0] for cells in numbers.rows] == list(arms)
        assert "over 2 seeds." in numbers.note
