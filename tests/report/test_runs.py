"""The page of a store: everything of every plan, from real tiny cells."""

import re

import pytest

from secateurs.errors import InputError
from secateurs.experiments.spec import PeerCell, Rows, Run
from secateurs.experiments.store import Plan, Store
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
