"""The stand-in for MLP+C draws, chooses on validation rows, and hands its regularisers to IUNet."""

from pathlib import Path

import pandas as pd
import pytest

from secateurs.command.experiments import load_paper
from secateurs.experiments.run import run
from secateurs.experiments.spec import key
from secateurs.experiments.store import Store
from secateurs.experiments.trained import trained
from secateurs.networks.dense import Dropout
from secateurs.optimizers import AdamW

FILE = Path(__file__).parents[2] / "benchmarks" / "tabular" / "cocktail.py"


@pytest.fixture(scope="module")
def paper():
    return load_paper(FILE)


def framed(paper, scale, score):
    """Return the frame of finished runs whose validation score is `score(arm, dataset, split)`."""
    rows = [
        {
            "arm": one.arm,
            "rows.dataset": one.cell.rows.dataset,
            "rows.split": one.cell.rows.split,
            f"validation.{paper.VALUE}": (
                score(one.arm, one.cell.rows.dataset, one.cell.rows.split)
                if one.cell.rows.validation_folds
                else None
            ),
        }
        for one in paper.runs(scale)
    ]
    return pd.DataFrame(rows)


def test_thirty_draws_of_which_the_first_is_the_dense_network_as_it_is(paper):
    drawn = paper.cocktails()
    assert drawn == paper.cocktails()
    assert len(drawn) == len({one.name for one in drawn}) == 30
    assert all(1e-5 <= one.weight_decay <= 1e-1 for one in drawn)
    assert {one.skip for one in drawn} == {False, True}
    assert {one.dropout for one in drawn} == {0, 0.1, 0.2, 0.4, 0.6}
    assert {one.mixup for one in drawn} == {0, 0.1, 0.2, 0.4, 1}
    runs = paper.runs("small")
    first = [one for one in runs if one.arm == f"choosing: {drawn[0].name}"]
    dense = paper.study.choosing("small", ["dense"], splits=1)
    assert [key(one.cell) for one in first] == [key(one.cell) for one in dense]
    assert len(runs) == 4 * (30 + 2)


def test_every_draw_reaches_its_cell(paper):
    by_arm = {one.arm: one.cell for one in paper.runs("small")}
    for one in paper.cocktails():
        cell = by_arm[f"choosing: {one.name}"]
        finetune = cell.config.finetune
        assert cell.rows.validation_folds == 4
        assert cell.search_cell is None
        assert isinstance(finetune.optimizer, AdamW)
        told = (finetune.optimizer.weight_decay, cell.dropout, cell.skip, finetune.mixup)
        assert told == (one.weight_decay, one.dropout, one.skip, one.mixup)


def test_each_split_gets_what_its_own_validation_rows_chose(paper):
    drawn = paper.cocktails()
    favourite = {}

    def score(arm, dataset, split):
        mine = favourite.setdefault((dataset, split), drawn[len(favourite) + 3])
        return 0.9 if arm == f"choosing: {mine.name}" else 0.5

    runs = paper.then(framed(paper, "small", score), "small")
    assert len(runs) == 2 * len(favourite) == 8
    assert {one.tried for one in runs} == {30}
    for one in runs:
        mine, cell = favourite[one.cell.rows.dataset, one.cell.rows.split], one.cell
        assert cell.rows.validation_folds == 0
        assert (cell.dropout, cell.skip) == (mine.dropout, mine.skip)
        assert cell.config.finetune.mixup == mine.mixup
        assert cell.config.finetune.optimizer.weight_decay == mine.weight_decay
        ticket = one.arm == paper.ON_TOP
        assert cell.config.compression == (8 if ticket else 1)
        assert (cell.search_cell is not None) == ticket
        if ticket:
            assert (cell.search_cell.dropout, cell.search_cell.skip) == (mine.dropout, mine.skip)
            assert cell.search_cell.search.mixup == 0
            assert cell.search_cell.search.contrastive_weight == 1


def test_of_equal_draws_the_network_as_it_is_wins(paper):
    runs = paper.then(framed(paper, "small", lambda *_: 0.5), "small")
    tested = {key(one.cell) for one in paper.runs("small") if not one.cell.rows.validation_folds}
    assert {key(one.cell) for one in runs} == tested


def test_the_chosen_ones_run_and_are_shown(paper, tmp_path):
    first = [one for one in paper.runs("smoke") if one.cell.rows.dataset == "sklearn:wine"]
    store, last = Store(tmp_path), paper.cocktails(3)[-1]
    run([one.cell for one in first], store, device="cpu")

    def frame(runs):
        rows = [{"key": key(one.cell), "arm": one.arm, "tried": one.tried} for one in runs]
        return store.frame(rows)

    finished = frame(first)
    finished.loc[finished["arm"] == f"choosing: {last.name}", f"validation.{paper.VALUE}"] = 2.0
    more = paper.then(finished, "smoke")
    assert [one.arm for one in more] == [paper.COCKTAIL, paper.ON_TOP]
    assert not run([one.cell for one in more], store, device="cpu").failed
    for one in more:
        network, _ = trained(store, key(one.cell))
        assert [m.p for m in network.modules() if isinstance(m, Dropout)] == [last.dropout] * 2
    blocks = paper.table(frame([*first, *more]))
    titles = [block.title for block in blocks]
    assert titles[0] == "Regularisers and pruning"
    assert titles[-1] == "What validation rows chose"
    assert len(blocks[0].rows) == len(paper.ENDPOINTS)
    # of a run that is under way there is less to show
    assert paper.table(finished.iloc[2:])[-1].title == titles[-1]
