"""Cells and their keys: golden, one for equal runs, another for every other."""

from dataclasses import replace

import pytest

from secateurs.errors import InputError
from secateurs.experiments.spec import (
    PeerCell,
    ProbeCell,
    Rows,
    SearchCell,
    TicketCell,
    cell_from_json,
    key,
    needs,
    read_toml,
    title,
    with_needs,
)
from secateurs.experiments.typed import describe
from secateurs.optimizers import SGD
from secateurs.tickets import TicketConfig
from secateurs.training import PhaseConfig

ROWS = Rows(dataset="credit-g")
ILO = TicketConfig(search=PhaseConfig(optimizer=SGD(lr=1e-2), contrastive_weight=1.0))
CELL = TicketCell(rows=ROWS, config=ILO)

GOLDEN = {
    "ticket": (CELL, "a6175d91275af307"),
    "search": (CELL.search_cell, "97bb9b3569818522"),
    "dense": (TicketCell(rows=ROWS, config=replace(ILO, compression=1)), "08a066dbc97549d4"),
    "peer": (PeerCell(rows=ROWS, model="xgboost"), "4c58315a821ea9cb"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_keys_are_golden(name):
    """A change here makes every result that people have kept unknown to the software."""
    cell, golden = GOLDEN[name]
    assert key(cell) == golden


def test_every_cell_comes_back_from_its_json():
    for cell, golden in GOLDEN.values():
        assert cell_from_json(describe(cell)) == cell
        assert key(cell_from_json(describe(cell))) == golden


def test_whatever_decides_the_result_changes_the_key():
    changed = [
        replace(CELL, seed=1),
        replace(CELL, widths=(8,)),
        replace(CELL, corruption_rate=0.5),
        replace(CELL, class_weight="balanced"),
        replace(CELL, rows=replace(ROWS, split=1)),
        replace(CELL, rows=replace(ROWS, validation_folds=4)),
        replace(CELL, config=replace(ILO, compression=4)),
        replace(CELL, config=replace(ILO, control="shuffled")),
        replace(CELL, config=replace(ILO, init_scale=0.5)),
        replace(CELL, config=replace(ILO, finetune=replace(ILO.finetune, epochs=7))),
        replace(CELL, config=replace(ILO, finetune=replace(ILO.finetune, mixup=0.2))),
        replace(CELL, dropout=0.2),
        replace(CELL, skip=True),
    ]
    assert len({key(cell) for cell in [CELL, *changed]}) == len(changed) + 1


def test_equal_cells_have_equal_keys_however_their_numbers_are_written():
    one = replace(CELL, config=replace(ILO, compression=4, init_scale=1))
    other = replace(CELL, config=replace(ILO, compression=4.0, init_scale=1.0))
    assert describe(one) == describe(other)
    key.cache_clear()
    first = key(one)
    key.cache_clear()
    assert key(other) == first


def test_a_later_field_at_its_default_is_not_told():
    finetune = replace(ILO.finetune, mixup=0.2)
    later = {"n_tickets": 2, "dropout": 0.2, "skip": True}
    cell = replace(CELL, config=replace(ILO, finetune=finetune), **later)
    plain, told = describe(CELL), describe(cell)
    assert not later.keys() & plain.keys()
    assert "mixup" not in plain["config"]["finetune"]
    assert later.items() <= told.items()
    assert told["config"]["finetune"]["mixup"] == 0.2
    assert cell_from_json(told) == cell


def test_the_search_of_a_regularised_network_is_of_that_network():
    search = replace(CELL, dropout=0.2, skip=True).search_cell
    assert (search.dropout, search.skip) == (0.2, True)
    assert key(search) != key(CELL.search_cell)
    assert not {"dropout", "skip"} & describe(CELL.search_cell).keys()


def test_what_a_cell_needs_comes_before_it_however_deep():
    probe = ProbeCell(ticket=CELL)
    ensemble = replace(CELL, n_tickets=2)
    order = list(with_needs([probe, ensemble]).values())
    for cell in (probe, ensemble, CELL):
        assert all(order.index(needed) < order.index(cell) for needed in needs(cell))
    assert len(order) == 2 + 2 + 2  # two searches, two tickets, the probe and the ensemble
    # what only finished cells need is not to do
    assert list(with_needs([ensemble], without={key(m) for m in ensemble.members})) == [
        key(ensemble)
    ]


def test_a_search_is_shared_by_all_that_is_pruned_from_it():
    changes = [
        {"compression": 32.0},
        {"control": "shuffled"},
        {"rewind": "none"},
        {"rewind": "random"},
        {"finetune": replace(ILO.finetune, epochs=0)},
        {"compression": 1.0, "rewind": "none"},
    ]
    cells = [replace(CELL, config=replace(ILO, **change)) for change in changes]
    assert {needs(cell) for cell in cells} == {needs(CELL)}
    found = with_needs([CELL, *cells])
    assert len(found) == len(cells) + 2
    assert isinstance(next(iter(found.values())), SearchCell)


def test_a_rewind_to_a_step_needs_a_search_that_keeps_it():
    (search,) = needs(replace(CELL, config=replace(ILO, rewind="step:20")))
    assert search.keep_step == 20


def test_the_dense_network_is_one_cell_beside_any_search():
    dense = [
        TicketCell(rows=ROWS, config=replace(config, compression=1.0))
        for config in (
            ILO,
            TicketConfig(init_scale=0.1, criterion=ILO.criterion, control="top_start"),
            replace(ILO, scope="layer", min_per_layer=3, compression_of="model"),
        )
    ]
    assert len({key(cell) for cell in dense}) == 1
    assert needs(dense[0]) == ()


def test_views_that_no_objective_asks_for_are_no_part_of_a_cell():
    plain = replace(CELL, config=TicketConfig())
    assert key(plain) == key(replace(plain, corruption_rate=0.1))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"kind": "Cell"},
            "kind must be one of SearchCell, TicketCell, PeerCell, ProbeCell, got 'Cell'",
        ),
        ({}, "rows must be given; it has no default"),
        ({"rows": {}}, "rows.dataset must be given"),
        ({"rows": {"dataset": "a", "split": -1}}, "split must be at least 0, got -1"),
        ({"rows": {"dataset": "a", "test_folds": 1}}, "test_folds must be at least 2"),
        ({"rows": {"dataset": "a"}, "widths": [8, "8"]}, r"widths\[1\] must be an integer"),
        ([], "kind must be one of"),
    ],
)
def test_wrong_cells_are_refused(value, message):
    with pytest.raises(InputError, match=message):
        cell_from_json(value)


def test_titles_tell_cells_apart():
    assert title(CELL) == "credit-g split 0: ticket 512-512, r 8"
    assert title(CELL.search_cell) == "credit-g split 0: search 512-512, kappa 0.25"


TOML = """
widths = [16, 16]
[rows]
dataset = "sklearn:wine"
[config.search]
epochs = 3
[grid]
rows.split = [0, 1]
config.compression = [2, 8.0]
[arms.IUNet]
config.search.contrastive_weight = 1.0
[arms.OMP]
config.init_scale = 1.0
"""


@pytest.fixture
def toml(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text(TOML)
    return path


def test_a_file_is_the_product_of_its_grid_and_its_arms(toml):
    runs = read_toml(toml)
    assert [run.arm for run in runs] == ["IUNet"] * 4 + ["OMP"] * 4
    points = [(run.cell.rows.split, run.cell.config.compression) for run in runs[:4]]
    assert points == [(0, 2), (0, 8), (1, 2), (1, 8)]
    assert runs[0].cell.config.search.contrastive_weight == 1
    assert runs[4].cell.config.init_scale == 1
    assert all(run.cell.config.search.epochs == 3 for run in runs)
    assert len({key(run.cell) for run in runs}) == 8


def test_settings_replace_what_the_file_says(toml):
    settings = {"grid.rows.split": [7], "config.finetune.optimizer.lr": 0.5, "seed": 3}
    runs = read_toml(toml, settings)
    assert len(runs) == 4
    assert {run.cell.rows.split for run in runs} == {7}
    assert {run.cell.config.finetune.optimizer.lr for run in runs} == {0.5}
    assert {run.cell.seed for run in runs} == {3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"config.sarch.epochs": 3}, "unknown name 'sarch'; did you mean 'search'"),
        ({"config.search.epochs": "3"}, "config.search.epochs must be an integer, got '3'"),
        ({"grid.rows.split": 3}, "grid.rows.split must be a list of at least one value, got 3"),
        ({"grid.rows.split": []}, "grid.rows.split must be a list"),
        ({"widths.a": 3}, r"widths.a cannot be set: widths is \[16, 16\]"),
        ({"arms.IUNet": 3}, "arms.IUNet must be a table of names, got 3"),
    ],
)
def test_wrong_settings_are_refused_by_their_dotted_name(toml, settings, message):
    with pytest.raises(InputError, match=message):
        read_toml(toml, settings)


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_toml(tmp_path / "no.toml")
    (tmp_path / "bad.toml").write_text("a = ")
    with pytest.raises(InputError, match="must be TOML"):
        read_toml(tmp_path / "bad.toml")


def test_without_arms_the_file_names_the_line(tmp_path):
    path = tmp_path / "dense.toml"
    path.write_text('[rows]\ndataset = "a"\n[config]\ncompression = 1')
    (run,) = read_toml(path)
    assert run.arm == "dense"
