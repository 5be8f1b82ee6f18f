"""The study on tables: tiers share cells, choose on validation rows only, run from nothing."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from secateurs.cli import main
from secateurs.command.experiments import load_paper
from secateurs.experiments.spec import ProbeCell, TicketCell, key, needs
from secateurs.experiments.store import Store

FOLDER = Path(__file__).parents[2] / "benchmarks" / "tabular"
TIERS = ("tune", "core", "paper_parent", "ensembles", "curve", "large", "mechanism", "movement",
         "verdict")  # fmt: skip


@pytest.fixture(scope="module")
def design():
    sys.path.insert(0, str(FOLDER))
    try:
        import design

        yield design
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("design", None)


def cells(tier, scale="small"):
    return load_paper(FOLDER / f"{tier}.py").runs(scale)


@pytest.mark.parametrize("tier", TIERS)
def test_every_cell_of_an_arm_is_asked_for_once(tier):
    runs = cells(tier)
    assert runs
    asked = [(run.arm, key(run.cell)) for run in runs]
    assert len(set(asked)) == len(asked)


def test_tuning_and_reporting_share_no_rows(design):
    tuned = {(run.cell.rows.dataset, run.cell.rows.split) for run in cells("tune")}
    told = {(run.cell.rows.dataset, run.cell.rows.split) for run in cells("verdict")}
    assert {dataset for dataset, _ in tuned}.isdisjoint(dataset for dataset, _ in told)
    assert {split for _, split in tuned}.isdisjoint(split for _, split in told)
    assert all(run.cell.rows.validation_folds for run in cells("tune"))


def test_what_chooses_leaves_the_test_rows_of_its_split_alone(design):
    """Test folds are cut first, from the same seed: validation rows come out of the other 80%."""
    runs = {run.arm: run.cell for run in reversed(cells("verdict"))}
    for name in design.DENSE:
        chosen, tested = runs[f"choosing: {name}"], runs[name]
        assert chosen.rows.validation_folds == 4
        assert tested.rows.validation_folds == 0
        assert (chosen.config, chosen.widths) == (tested.config, tested.widths)
        assert chosen.rows.test_folds == tested.rows.test_folds


def test_arms_share_the_search_of_iunet(design):
    known = design.methods()
    search = {
        name: design.cell(one.parent, "kr-vs-kp", 0, one.config).search_cell
        for name, one in known.items()
    }
    for name in ("shuffled mask", "re-initialised", "no rewind", "IUNet, r = 32", "no-prune"):
        assert search[name] == search["IUNet"], name
    assert search["dense"] is None
    ensemble = design.cell("default", "kr-vs-kp", 0, known["5 tickets"].config, n_tickets=5)
    assert ensemble.members[0].search_cell == search["IUNet"]


def test_the_ticket_of_the_study_is_the_default(design):
    from secateurs.recipes import PRESETS

    recipe, chosen = PRESETS["default"], design.CHOSEN["default"]
    assert chosen.search == (recipe.search_lr, recipe.search_epochs)
    assert design.PARENTS["default"] == recipe.widths


def test_large_tables_get_the_epochs_and_batches_of_the_recipe(design):
    config = design.methods()["IUNet"].config
    large = design.cell("default", "adult", 0, config).config
    assert (large.search.batch_size, large.finetune.batch_size) == (1024, 1024)
    assert large.finetune.epochs < 105
    small = design.cell("default", "kr-vs-kp", 0, config).config
    assert small == config


def test_the_best_dense_network_is_chosen_among_those_that_a_split_has(design):
    sys.path.insert(0, str(FOLDER))
    try:
        import study
    finally:
        sys.path.remove(str(FOLDER))
    value = design.VALUE
    cells = {  # (arm, split): validation, test
        ("dense", 0): (0.5, 0.9),
        ("dense 2x128", 0): (0.6, 0.7),
        ("9x512 dense", 0): (0.7, 0.6),
        ("dense", 1): (0.5, 0.9),
        ("dense 2x128", 1): (0.6, 0.7),
    }
    common = {"rows.dataset": "d", "seed": 0, "tried": 1}
    frame = pd.DataFrame(
        row
        for (arm, split), (validation, test) in cells.items()
        for row in (
            {"arm": f"choosing: {arm}", "rows.split": split, f"validation.{value}": validation,
             f"test.{value}": 0.0, **common},
            {"arm": arm, "rows.split": split, f"test.{value}": test, **common},
        )
    )  # fmt: skip
    best = pd.concat(study.best_dense(frame)).sort_values("rows.split")
    assert best["chosen_arm"].tolist() == ["9x512 dense", "dense 2x128"]
    assert best[f"test.{value}"].tolist() == [0.6, 0.7]
    assert best["tried"].tolist() == [3, 2]
    assert set(best["arm"]) == {study.BEST}


def movement_frame(gain, moved):
    """Cells of two searches: accuracy .5 + .1 ln(movement); ILO moves further and adds `gain`."""
    rows = []
    for dataset in ("d", "e"):
        for lr in load_paper(FOLDER / "movement.py").RATES:
            for arm, factor, more in (("no-ILO", 1.0, 0.0), ("IUNet", moved, gain)):
                movement = 10 * lr * factor
                value = 0.5 + 0.1 * np.log(movement) + more
                rows.append({"arm": f"{arm}, search lr {lr:g}", "rows.dataset": dataset,
                             "rows.split": 0, "regime.weight_movement": movement,
                             "test.corrected_balanced_accuracy": value})  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("gain", [0.0, 0.02])
def test_what_only_moves_further_gains_nothing_at_matched_movement(gain):
    movement = load_paper(FOLDER / "movement.py")
    frame = movement_frame(gain, moved=1.5)
    cells = movement.matched(frame)
    assert len(cells) == 2 * len(movement.RATES)
    assert np.allclose(cells["at its rate"], 0.1 * np.log(1.5) + gain)
    # the fastest moves further than the search without ILO ever does
    assert cells["at its movement"].isna().sum() == 2
    assert np.allclose(cells["at its movement"].dropna(), gain)
    (told,) = movement.table(frame)
    row = dict(zip(told.columns, told.rows[-1], strict=True))
    assert row["search lr"] == "all"
    assert row["gain at equal movement"].mean == pytest.approx(100 * gain, abs=1e-9)
    assert row["cells matched"] == 2 * len(movement.RATES) - 2


def test_probes_ask_for_their_tickets():
    runs = cells("mechanism")
    tickets = {key(run.cell) for run in runs if isinstance(run.cell, TicketCell)}
    probes = [run.cell for run in runs if isinstance(run.cell, ProbeCell)]
    assert probes
    assert all(key(needs(probe)[0]) in tickets for probe in probes)


@pytest.mark.slow
def test_core_and_mechanism_run_at_smoke_scale(tmp_path, capsys):
    for tier in ("core", "mechanism", "verdict"):
        command = ["paper", str(FOLDER / f"{tier}.py"), "--out", str(tmp_path)]
        code = main([*command, "--scale", "smoke", "--jobs", "1"])
        told = capsys.readouterr()
        # the models of [peers] may not be installed here: their cells fail, all others do not
        failed = [line for line in told.err.splitlines() if "failed: " in line]
        assert all("secateurs[peers]" in line for line in failed)
        assert code == (3 if failed else 0)
        assert (tmp_path / f"{tier}-smoke.html").stat().st_size > 10_000
        if tier == "core":
            assert "best dense" in told.out
            assert "Primary endpoints" in told.out
        if tier == "mechanism":
            assert "Invariance ratio" in told.out
            assert "Recall of the worst and of the best class" in told.out
    assert len(Store(tmp_path).keys()) > 60
