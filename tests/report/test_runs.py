"""The page of a store: everything of every plan, from real tiny cells."""

import re
from dataclasses import replace

import pytest

from secateurs.errors import InputError
from secateurs.experiments.arms import arm
from secateurs.experiments.run import run
from secateurs.experiments.spec import PeerCell, Rows, Run, TicketCell, key
from secateurs.experiments.store import Plan, Store
from secateurs.optimizers import SGD
from secateurs.report.runs import page, store_page
from secateurs.tickets import TicketConfig
from secateurs.training import PhaseConfig

IUNET = TicketConfig(
    search=PhaseConfig(epochs=3, optimizer=SGD(lr=0.05), contrastive_weight=1.0),
    finetune=PhaseConfig(epochs=7),
)


def cell(name, split, compression=8.0):
    config = arm(name, replace(IUNET, compression=compression))
    rows = Rows(dataset="sklearn:wine", split=split, validation_folds=4)
    return TicketCell(rows=rows, config=config, widths=(16, 16), seed=split)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("runs"))
    runs = [
        Run(cell=cell(name, split), arm=name)
        for name in ("dense", "IUNet", "no-ILO")
        for split in range(2)
    ]
    peer = PeerCell(rows=Rows(dataset="sklearn:wine", validation_folds=4))
    bad = PeerCell(rows=Rows(dataset="sklearn:nothing"))
    runs += [Run(cell=peer, arm="majority"), Run(cell=bad, arm="<b>broken")]
    store.write_plan(
        Plan(
            name="arms",
            title="Arms & arms",
            claim="A claim.",
            runs=runs,
            baseline="dense",
            published={("sklearn:wine", "IUNet"): 12.34},
            command="secateurs run arms.toml",
            stamp="smoke: not evidence",
        )
    )
    grid = [
        Run(cell=cell("IUNet", split, r), arm="IUNet")
        for split in range(2)
        for r in (2.0, 4.0, 8.0)
    ]
    grid += [Run(cell=cell("dense", split), arm="dense") for split in range(2)]
    store.write_plan(Plan(name="grid", title="Grid", runs=grid, baseline="dense"))
    summary = run([one.cell for one in [*runs, *grid]], store, device="cpu")
    assert list(summary.failed) == [key(bad)]
    return store


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


def test_all_plans_make_one_page(store):
    text = store_page(store)
    assert "Against compression" in text
    assert "A claim." in text
    assert "smoke: not evidence" in text
    assert store_page(store) == text


def test_a_plan_of_which_nothing_is_finished_still_has_a_page(tmp_path):
    store = Store(tmp_path)
    runs = [Run(cell=cell("dense", 0), arm="dense")]
    store.write_plan(Plan(name="later", title="Later", runs=runs))
    assert "0 of 1" in store_page(store)


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(InputError, match="must be a folder that `secateurs run`"):
        store_page(Store(tmp_path))
