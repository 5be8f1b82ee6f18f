"""The page of a store: everything of every plan, from real tiny cells."""

import json
import re

import pandas as pd
import pytest

from secateurs.command.experiments import write_report
from secateurs.errors import InputError
from secateurs.experiments.spec import PeerCell, Rows, Run, key
from secateurs.experiments.store import Outcome, Plan, Store
from secateurs.report.runs import page, store_page


def test_the_page_of_a_plan_has_it_all(store):
    text = page(store, store.plans()[0])
    assert "<h1>Arms &amp; arms</h1>" in re.sub(r"<h1[^>]*>", "<h1>", text)
    for words in (
        "A claim.",
        "smoke: not evidence",
        "published 12.34",
        "Weight movement",
        "Mask overlap with the start",
        "Histogram of |w| over the search",
        "Density by layer",
        "First layer of IUNet",
        "secateurs run arms.toml",
        "core-hours",
        "7 of 8",
        "bundled sets are",
        "&lt;b&gt;broken",
    ):
        assert words in text, words
    assert "<b>broken" not in text
    assert len(text) < 500_000


def test_a_grid_of_compressions_is_drawn_as_lines(store):
    text = page(store, store.plans()[1])
    assert "Against compression" in text
    for r in (2, 4, 8):
        assert f"Arms at r = {r}" in text
    assert "Arms at r = 1<" not in text  # the dense network alone
    # pictures of one run show the compression next to 8, not the first that was asked for
    assert "First layer of IUNet" in text
    assert "wine, split 0, r = 8" in text


def test_all_plans_make_one_page(store):
    text = store_page(store)
    assert "Against compression" in text
    assert "A claim." in text
    assert "smoke: not evidence" in text
    assert store_page(store) == text


def test_a_plan_of_which_nothing_is_finished_still_has_a_page(tmp_path):
    store = Store(tmp_path)
    runs = [Run(cell=PeerCell(rows=Rows(dataset="sklearn:wine")), arm="majority")]
    store.write_plan(Plan(name="later", title="Later", runs=runs))
    assert "0 of 1" in store_page(store)


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(InputError, match="must be a folder that `secateurs run`"):
        store_page(Store(tmp_path))


RECORDS = [{"arm": "ticket", "alpha": 0.05, "error": 0.08}, {"arm": "dense", "alpha": 25.0}]


def foreign(store, name="0123456789abcdef", **result):
    """Put a finished cell into a store whose kind nothing here knows."""
    folder = store.folder(name)
    folder.mkdir(parents=True)
    folder.joinpath("spec.json").write_text(json.dumps({"kind": "StudentTeacherCell", "width": 64}))
    folder.joinpath("result.json").write_text(json.dumps(result))
    folder.joinpath("DONE").touch()
    return {"key": name, "arm": "toy", "tried": 1}


def planned(store, *runs, name="toy"):
    """Write a plan of such cells, which have no class to be planned by."""
    store.write_plan(Plan(name=name, title="Toy", runs=[]))
    path = store.root / "plans" / f"{name}.json"
    plan = json.loads(path.read_text())
    path.write_text(json.dumps({**plan, "runs": list(runs)}))


@pytest.mark.parametrize("result", [{}, {"records": RECORDS}, {"test": {"error": 0.1}, "flops": 9}])
def test_cells_of_an_unknown_kind_are_counted_and_listed(tmp_path, result):
    store = Store(tmp_path)
    planned(store, foreign(store, **result))
    text = store_page(store)
    assert "No finished cell of this plan has test.balanced_accuracy." in text
    assert "1 of 1" in text
    assert "0123456789abcdef" in text
    assert page(store, store.plans()[0], blocks=[]).count("<table") == 1  # with blocks of its own
    write_report(tmp_path, tmp_path / "cells.csv")
    assert pd.read_csv(tmp_path / "cells.csv")["kind"].tolist() == ["StudentTeacherCell"]


def test_beside_cells_of_an_unknown_kind_all_others_stay_as_they_are(tmp_path):
    store = Store(tmp_path)
    cell = PeerCell(rows=Rows(dataset="sklearn:wine"))
    store.write(cell, Outcome(result={"test": {"balanced_accuracy": 0.4375}, "seconds": 1.0}))
    mine = {"key": key(cell), "arm": "majority", "tried": 1}
    planned(store, mine, name="plain")
    planned(store, foreign(store, records=RECORDS), mine, name="mixed")
    mixed, plain = (page(store, plan) for plan in store.plans())
    assert plain.count("43.75") == mixed.count("43.75") == 6
    (results,) = re.findall("Arms over all data sets</h3>.*?</table>", mixed, re.S)
    assert "majority" in results
    assert "toy" not in results
