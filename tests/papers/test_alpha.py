"""The experiments along alpha: what is run, and pages that tell what was planted in frames."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from secateurs.cli import main
from secateurs.command.experiments import load_paper
from secateurs.experiments.spec import SearchCell, key, with_needs
from secateurs.report.page import Figure, Scrubber, Section, render

HOME = Path(__file__).parents[2] / "papers" / "lottery"


@pytest.fixture(scope="module")
def paper():
    return load_paper(HOME / "alpha_mnist.py")


@pytest.fixture(scope="module")
def tune():
    return load_paper(HOME / "alpha_tune.py")


@pytest.fixture(scope="module")
def dynamics():
    return load_paper(HOME / "alpha_dynamics.py")


# ---- what is run -------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_every_run_is_a_cell_of_its_own(paper, tune, dynamics, scale):
    for one in (paper, tune):
        runs = one.runs(scale)
        assert len({key(run.cell) for run in runs}) == len(runs)
    runs = dynamics.runs(scale)  # a rate that was chosen may be the one rate
    assert len({key(run.cell) for run in runs}) < len(runs)
    assert len({(run.arm, run.cell.rows) for run in runs}) == len(runs)


def spent(cell):
    """Return the steps of all trainings that a ticket comes from, its own included."""
    whole = with_needs([cell])
    phases = [c.search if isinstance(c, SearchCell) else c.config.finetune for c in whole.values()]
    return sum(phase.n_steps(1_000) for phase in phases if phase.epochs)


def test_at_the_primary_density_all_arms_have_had_equal_steps(paper):
    runs = [r for r in paper.runs("small") if r.cell.rows.dataset == "fashion_mnist"]
    primary = paper.alpha_recipe.densities("small", paper.PRIMARY)[-1]
    at = [r for r in runs if r.cell.config.compression == pytest.approx(1 / primary)]
    at += [r for r in runs if r.arm == "dense, equal steps"]
    assert {r.arm.split(",")[0] for r in at} >= {*paper.RIVALS, *paper.CONTROLS, "ticket", "dense"}
    assert {spent(r.cell) for r in at} == {7 * 3_000}
    assert round(100 * primary, 1) == 4.7


def test_masks_are_found_at_one_alpha_and_trained_at_another(paper):
    runs = [r for r in paper.runs("small") if r.arm.startswith("found at")]
    pairs = {(r.cell.config.search.alpha, r.cell.config.finetune.alpha) for r in runs}
    assert pairs == {(a, b) for a in paper.ALPHAS for b in paper.ALPHAS if a != b}
    for run in runs:
        found = run.cell.round_before.config
        assert found.finetune.alpha == found.search.alpha == run.cell.config.search.alpha


def test_rates_were_tried_and_follow_the_rule(paper, tune):
    recipe = paper.alpha_recipe
    for chosen in recipe.CHOSEN.values():
        assert set(chosen) == set(recipe.REGIMES)
        assert set(chosen.values()) <= set(recipe.RATES)
    assert recipe.phase("small", 1 / 16, 0.1).optimizer.lr == pytest.approx(0.1 / 16 ** (4 / 3))
    assert recipe.phase("small", 16.0, 0.1).optimizer.lr == 0.1
    tried = {run.cell.seed for run in tune.runs("small")}
    assert tried.isdisjoint({run.cell.seed for run in paper.runs("small")})
    assert {run.cell.config.compression for run in tune.runs("small")} == {1}


# ---- made frames -------------------------------------------------------------------------------

SEEDS, DELTA = (0, 1, 2), (-0.001, 0.0, 0.001)


def row(arm, seed, compression, accuracy, validation=None):
    return {
        "arm": arm, "key": f"{arm}-{compression}-{seed}", "tried": 4, "rows.dataset": "mnist",
        "rows.n_train": 1_000, "rows.split": seed, "seed": seed, "config.compression": compression,
        "test.accuracy": accuracy, "validation.accuracy": validation or accuracy,
        "regime.weight_movement": 0.5, "regime.start_mask_overlap": 0.25,
    }  # fmt: skip


@pytest.fixture(scope="module")
def planted(paper):
    """Rows decide who finds; validation prefers alpha 1, test images alpha 1/4."""
    name, kept = paper.alpha_recipe.name, paper.alpha_recipe.densities("small", 8)
    rows = []
    for seed, delta in zip(SEEDS, DELTA, strict=True):
        level = 0.88 + 0.01 * seed
        rows += [row(f"dense, {name(a)}", seed, 1.0, level + 0.02) for a in paper.REGIMES]
        rows += [row("LTH", seed, 1 / d, level + 0.003 * np.log2(d)) for d in kept]
        r = 1 / kept[paper.PRIMARY - 1]
        for other in paper.OTHERS:
            gain = 0.004 if other == "SynFlow" else -0.01
            rows.append(row(other, seed, r, level + gain, level + gain))
        for i, found in enumerate(paper.ALPHAS):
            told = name(found)
            own = level + {0.25: 0.02, 1.0: 0.01}.get(found, -0.03 * i) + delta
            preferred = level + {0.25: 0.01, 1.0: 0.02}.get(found, -0.03 * i)
            rows.append(row(f"ticket, {told}", seed, r, own, preferred))
            for control in (*paper.CONTROLS, "no rewind"):
                gap = 0.05 if found < 1 else 0.0
                rows.append(row(f"{control}, {told}", seed, r, own - gap))
            for trained in paper.ALPHAS:
                if trained != found:
                    arm = f"found at {told}, trained at {name(trained)}"
                    rows.append(row(arm, seed, r, own))
    return pd.DataFrame(rows)


def test_the_headline_chooses_alpha_by_validation_images(paper, planted):
    found = {cells[0]: cells[1:] for cells in paper.headline(planted, "m").rows}
    r = 1 / paper.alpha_recipe.densities("small", paper.PRIMARY)[-1]
    lth = -0.3 * np.log2(r)
    tuned = found[f"{paper.TUNED} - LTH"]
    assert tuned[0].mean == pytest.approx(1.0 - lth)  # alpha 1, though 1/4 tests better
    assert tuned[0].error == pytest.approx(0.1 / np.sqrt(3))
    assert tuned[1] == 3
    assert tuned[3] == "above"
    best = found[f"{paper.TUNED} - {paper.BEST}"]
    assert best[0].mean == pytest.approx(1.0 - 0.4)  # SynFlow
    assert best[3] == "above"
    assert found["ticket, alpha 16 - LTH"][3] == "below"
    note = paper.headline(planted, "m").note
    assert "3 times ticket, alpha 1" in note
    assert "3 times SynFlow" in note


def test_one_seed_resolves_nothing(paper, planted):
    one = planted[planted["rows.split"] == 0]
    assert {cells[4] for cells in paper.headline(one, "m").rows} <= {"not resolved", None}


def test_gaps_to_controls_are_told_by_alpha(paper, planted):
    found = {cells[0]: cells[1:] for cells in paper.controls(planted, "m").rows}
    for alpha in paper.ALPHAS:
        gaps = found[paper.alpha_recipe.name(alpha)][:4]
        assert [gap.mean for gap in gaps] == pytest.approx([5.0 if alpha < 1 else 0.0] * 4)


def test_who_finds_and_who_trains_are_told_apart(paper, planted):
    figure, table = paper.transfer(planted, "m")
    assert isinstance(figure, Figure)
    rows = {cells[0]: cells[1].mean for cells in table.rows}
    assert rows["variance by the alpha that found the mask, %"] == pytest.approx(100)
    assert rows["variance by the alpha that trains, %"] == pytest.approx(0, abs=1e-9)
    assert (
        paper.transfer(planted[planted["arm"] != "found at alpha 1, trained at alpha 4"], "m") == []
    )


def test_the_smallest_share_within_half_a_point_is_found(paper, planted):
    found = {cells[0]: cells[1] for cells in paper.kept_within(planted, "m").rows}
    assert found["ticket, alpha 1/4"].mean == pytest.approx(
        100 * paper.alpha_recipe.densities("small", paper.PRIMARY)[-1]
    )
    assert found["ticket, alpha 16"].mean == 100


@pytest.mark.parametrize("part", ["whole", "no cell", "dense only", "one seed"])
def test_pages_are_drawn_of_whatever_is_there(paper, planted, part):
    frame = {
        "whole": planted,
        "no cell": planted.iloc[:0],
        "dense only": planted[planted["arm"].str.startswith("dense")],
        "one seed": planted[planted["rows.split"] == 1],
    }[part]
    blocks = list(paper.figure(frame))
    assert len(blocks) > 5 or part in ("no cell", "dense only")
    assert not any(isinstance(block, Scrubber) for block in blocks)
    render(title="t", sections=[Section(title="s", blocks=blocks)])


@pytest.mark.slow
def test_the_dials_are_run_and_turn(dynamics, tmp_path, capsys):
    command = ["paper", str(HOME / "alpha_dynamics.py"), "--out", str(tmp_path)]
    assert main([*command, "--scale", "smoke", "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    line = next(one for one in printed.splitlines() if one.startswith("weight movement"))
    assert line.endswith("2 of 2")
    page = (tmp_path / "alpha_dynamics-smoke.html").read_text()
    assert all(dial.name in page for dial in dynamics.DIALS)
