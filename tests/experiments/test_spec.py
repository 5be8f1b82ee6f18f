"""Cells and their keys: golden, one for equal runs, another for every other."""

import json
from dataclasses import fields, replace
from functools import partial
from typing import get_args

import pytest

from secateurs import criteria, schedules
from secateurs.data.image_views import IMAGE_VIEWS
from secateurs.descriptions import LATER
from secateurs.errors import InputError
from secateurs.experiments.spec import (
    ImageRows,
    PeerCell,
    ProbeCell,
    Rows,
    SearchCell,
    TicketCell,
    ViewName,
    cell_from_json,
    key,
    needs,
    title,
    with_needs,
)
from secateurs.experiments.typed import describe
from secateurs.optimizers import SGD, AdamW, BetaLasso
from secateurs.tickets import TicketConfig
from secateurs.training import PhaseConfig

ROWS = Rows(dataset="credit-g")
ILO = TicketConfig(search=PhaseConfig(optimizer=SGD(lr=1e-2), contrastive_weight=1.0))
CELL = TicketCell(rows=ROWS, config=ILO)
LATE = replace(ILO, rewind="step:20")
ENCODER_LR = PhaseConfig(optimizer=SGD(lr=1e-2, encoder_lr=0.5))
LASSO = replace(
    ILO,
    init_scale=1.0,
    search=PhaseConfig(optimizer=BetaLasso(l1=1e-4)),
    compression=1.0,
    rewind="none",
)

GOLDEN = {
    "ticket": (CELL, "a6175d91275af307"),
    "search": (CELL.search_cell, "97bb9b3569818522"),
    "dense": (TicketCell(rows=ROWS, config=replace(ILO, compression=1)), "08a066dbc97549d4"),
    "peer": (PeerCell(rows=ROWS, model="xgboost"), "4c58315a821ea9cb"),
    "probe": (ProbeCell(ticket=CELL), "586ab52bcbf4cdc0"),
    "ensemble": (replace(CELL, dropout=0.2, skip=True, n_tickets=2), "1b2365becc86f5b2"),
    "late": (replace(CELL, config=LATE), "704770d7b05a8654"),
    "late search": (replace(CELL, config=LATE).search_cell, "487655cbf0988307"),
    "control": (
        replace(CELL, config=replace(ILO, control="top_start", scope="layer")),
        "b1eaee4e0b69b450",
    ),
    "no prune": (
        replace(CELL, config=replace(ILO, compression=1, rewind="none")),
        "27631e7fa0c36028",
    ),
    "beta-Lasso": (replace(CELL, config=LASSO), "d6266f739818c74b"),
    "beta-Lasso's search": (replace(CELL, config=LASSO).search_cell, "dc1168437affdd01"),
    "encoder_lr": (SearchCell(rows=ROWS, search=ENCODER_LR), "0839ac92a4745a3d"),
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
            "kind must be one of SearchCell, .*, StudentTeacherCell, got 'Cell'",
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


# --- images ----------------------------------------------------------------------------------


IMAGES = ImageRows(dataset="sklearn:digits", n_validation=100, n_train=200)
ADAM = PhaseConfig(steps=60, batch_size=60, optimizer=AdamW(schedule="constant"))
ROUNDS = (0.8, 0.6, 0.4)


def in_rounds(densities, **changes):
    """Return a ticket whose rounds end at these densities, as the lottery papers train it."""
    schedule = partial(schedules.listed, densities=densities)
    config = TicketConfig(
        search=ADAM, finetune=ADAM, init_scale=1.0, scope="halved_last", only=("*",),
        compression=1 / densities[-1], schedule=schedule,
    )  # fmt: skip
    return replace(config, **changes)


LENET = TicketCell(
    rows=IMAGES, config=in_rounds(ROUNDS), widths=(30, 10), network="lenet_300_100", seed=3
)


def test_an_image_cell_comes_back_from_its_json():
    ilo = replace(ADAM, contrastive_weight=1.0)
    at_start = PhaseConfig(epochs=0)
    cells = [
        LENET,
        LENET.search_cell,
        LENET.round_before,
        replace(LENET, config=in_rounds(ROUNDS, search=ilo), shift=2, corruption_rate=0.1),
        replace(LENET, config=in_rounds(ROUNDS, control="shuffled_globally", scored_rows=7)),
        replace(LENET, config=in_rounds(ROUNDS, control="reversed", rewind="lr:20")),
        replace(LENET, rows=replace(IMAGES, n_train=None)),
        replace(LENET, config=in_rounds(ROUNDS, search=at_start, criterion=criteria.snip)),
        replace(LENET, config=in_rounds(ROUNDS, search=ENCODER_LR)).search_cell,
    ]
    for cell in cells:
        told = describe(cell)
        assert describe(cell_from_json(told)) == told
        assert key(cell_from_json(told)) == key(cell)
    assert len({key(cell) for cell in cells}) == len(cells)
    told = describe(LENET)
    assert told["rows"]["kind"] == "ImageRows"
    assert told["config"]["schedule"] == {"name": "listed", "densities": [0.8, 0.6, 0.4]}
    assert told["config"]["only"] == ["*"]
    assert told["config"]["search"]["steps"] == 60
    assert told["network"] == "lenet_300_100"


def test_rows_without_a_kind_are_those_of_a_table():
    assert cell_from_json({"rows": {"dataset": "mnist"}}).rows == Rows(dataset="mnist")
    images = {"kind": "ImageRows", "dataset": "mnist"}
    cell = cell_from_json({"rows": images, "network": "lenet_300_100", "widths": [300, 100]})
    assert cell.rows == ImageRows(dataset="mnist", n_validation=5_000)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"rows": {"kind": "Table", "dataset": "a"}},
         "rows.kind must be one of Rows, ImageRows, got 'Table'"),
        ({"rows": {"kind": "ImageRows", "dataset": "a", "test_folds": 3}},
         "unknown name 'test_folds'; rows has dataset, split, n_validation, n_train"),
        ({"rows": {"dataset": "a", "n_train": 3}}, "unknown name 'n_train'"),
        ({"rows": {"kind": "ImageRows", "dataset": "a", "n_train": 1}},
         "n_train at least 2 or null, got 0, 5000 and 1"),
        ({"rows": {"kind": "ImageRows", "dataset": "a", "n_train": 0}}, "got 0, 5000 and 0"),
        ({"rows": {"kind": "ImageRows", "dataset": "a", "n_validation": -1}}, "got 0, -1 and None"),
        ({"rows": {"kind": "ImageRows", "dataset": "a", "split": -1}}, "got -1, 5000 and None"),
        ({"kind": "PeerCell", "rows": {"kind": "ImageRows", "dataset": "a"}},
         "rows.kind must be 'Rows', got 'ImageRows'"),
        ({"rows": {"dataset": "a"}, "network": "resnet"}, "network must be one of 'mlp', 'lenet_"),
        ({"rows": {"dataset": "a"}, "network": "lenet_300_100", "dropout": 0.5},
         "dropout and skip are the MLP's, got 0.5 and False for lenet_300_100; leave them"),
        ({"rows": {"dataset": "a"}, "network": "lenet_300_100", "skip": True},
         "got 0 and True for lenet_300_100"),
        ({"rows": {"kind": "ImageRows", "dataset": "a"}},
         "images need a network of images, got 'mlp' for a; set network to 'lenet_300_100'"),
        ({"rows": {"dataset": "a"}, "shift": 2},
         "shift is of normalised images, by 0 or more pixels, got 2"),
        ({"rows": {"kind": "ImageRows", "dataset": "a"}, "network": "lenet_300_100", "shift": -1},
         "shift is of normalised images, by 0 or more pixels, got -1"),
        ({"rows": {"dataset": "a"}, "config": {"schedule": {"name": "listed", "densities": 0.5}}},
         "config.schedule.densities must be a list, got 0.5"),
        ({"rows": {"dataset": "a"}, "config": {"criterion": "snap"}},
         "config.criterion must be one of magnitude, .*snip, grasp"),
        ({"rows": {"dataset": "a"}, "config": {"rewind": "lr:3"}}, "finetune must equal search"),
    ],
)  # fmt: skip
def test_wrong_cells_of_images_are_refused(value, message):
    with pytest.raises(InputError, match=message) as err:
        cell_from_json(value)
    assert "\n" not in str(err.value)


def test_no_field_that_came_later_is_told_at_its_default():
    for cls, told in (
        (TicketCell, describe(CELL)),
        (SearchCell, describe(CELL.search_cell)),
        (TicketConfig, describe(TicketConfig())),
        (PhaseConfig, describe(PhaseConfig())),
    ):
        later = {f.name for f in fields(cls) if f.metadata == LATER}
        assert not later & told.keys()
    later = {f.name for cls in (TicketCell, SearchCell, TicketConfig, PhaseConfig)
             for f in fields(cls) if f.metadata == LATER}  # fmt: skip
    assert {"network", "shift", "only", "scored_rows", "steps"} <= later
    assert not {"network", "shift", "only", "scored_rows", "steps"} & set(str(describe(CELL)))


def test_whatever_decides_an_image_cell_changes_its_key():
    ilo = in_rounds(ROUNDS, search=replace(ADAM, contrastive_weight=1.0))
    base = replace(LENET, config=ilo, shift=1)
    changed = [
        base,
        LENET,
        replace(base, shift=2),
        replace(base, corruption_rate=0.1),
        replace(base, rows=replace(IMAGES, n_train=None)),
        replace(base, rows=replace(IMAGES, n_train=300)),
        replace(base, rows=replace(IMAGES, n_validation=99)),
        replace(base, rows=replace(IMAGES, split=1)),
        replace(base, config=replace(ilo, only=None)),
        replace(base, config=replace(ilo, scored_rows=99)),
        replace(base, config=replace(ilo, control="reversed")),
        replace(base, config=replace(ilo, finetune=replace(ADAM, steps=59))),
        replace(base, rows=ROWS, shift=0),
        replace(base, rows=ROWS, shift=0, network="mlp"),
    ]
    assert len({key(cell) for cell in changed}) == len(changed)


def test_views_of_images_count_where_a_contrastive_term_does():
    plain, shifted = LENET, replace(LENET, shift=2, corruption_rate=0.1)
    assert (shifted.shift, shifted.corruption_rate) == (0, 0)
    assert key(shifted) == key(plain)
    ilo = replace(ADAM, contrastive_weight=1.0)
    for phase in ("search", "finetune"):
        config = in_rounds(ROUNDS, **{phase: ilo})
        cell = replace(LENET, config=config, shift=2, corruption_rate=0.1)
        assert (cell.shift, cell.corruption_rate) == (2, 0.1)
        search = cell.search_cell
        expected = (2, 0.1) if phase == "search" else (0, 0)
        assert (search.shift, search.corruption_rate) == expected
    # the round before a contrastive finetuning has none of it, and no view
    assert cell.round_before.shift == 0
    assert key(cell.round_before) == key(replace(LENET, config=in_rounds(ROUNDS[:-1])))


# --- chains of rounds ------------------------------------------------------------------------


@pytest.mark.parametrize("rewind", ["start", "scaled_start", "step:20", "none", "lr:20", "random"])
@pytest.mark.parametrize("control", ["none", "shuffled", "reversed"])
def test_the_round_before_is_the_ticket_of_one_round_less(rewind, control):
    changes = {"rewind": rewind, "control": control}
    whole = replace(LENET, config=in_rounds(ROUNDS, **changes))
    less = {
        "rewind": "start" if rewind == "random" else rewind,
        "control": "reversed" if control == "reversed" else "none",
    }
    two = replace(LENET, config=in_rounds(ROUNDS[:2], **less))
    one = replace(LENET, config=in_rounds(ROUNDS[:1], **less))
    assert key(whole.round_before) == key(two)
    assert key(two.round_before) == key(one)
    assert one.round_before is None
    assert list(map(key, needs(whole))) == [key(whole.search_cell), key(two)]
    assert needs(one) == (one.search_cell,)
    order = list(with_needs([whole]).values())
    assert [key(cell) for cell in order] == [key(c) for c in (one.search_cell, one, two, whole)]


def test_the_chain_of_a_schedule_with_a_formula_is_that_of_its_densities():
    formula = partial(schedules.exponential, rounds=3)
    cell = replace(LENET, config=in_rounds((1 / 8,), schedule=formula))
    densities = formula(1 / 8)
    assert key(cell.round_before) == key(replace(LENET, config=in_rounds(densities[:2])))
    assert len(with_needs([cell])) == 4


def test_what_ends_a_round_does_not_reach_the_round_before():
    finetune = replace(ADAM, steps=500, optimizer=AdamW(lr=0.5))
    cells = [
        replace(LENET, config=in_rounds(ROUNDS, **changes))
        for changes in (
            {}, {"control": "shuffled"}, {"control": "top_start"}, {"finetune": finetune},
            {"rewind": "random"}, {"control": "shuffled_globally"},
        )
    ]  # fmt: skip
    assert len({key(cell) for cell in cells}) == len(cells)
    assert len({key(cell.round_before) for cell in cells}) == 1
    assert key(replace(cells[0], seed=4).round_before) != key(cells[0].round_before)


@pytest.mark.parametrize(
    "cell",
    [
        replace(LENET, config=in_rounds(ROUNDS, compression_of="model")),
        replace(LENET, n_tickets=2),
        replace(LENET, config=in_rounds(ROUNDS, search=PhaseConfig(epochs=0))),
        replace(LENET, config=in_rounds((0.5,))),
        replace(LENET, config=in_rounds((0.5,), compression=1, schedule=schedules.one_shot)),
        CELL,
    ],
    ids=["of the model", "ensemble", "no search", "one round", "dense", "one shot"],
)
def test_where_there_is_no_chain_there_is_no_round_before(cell):
    assert cell.round_before is None


def test_members_of_an_ensemble_have_chains_of_their_own():
    ensemble = replace(LENET, n_tickets=2)
    assert all(member.round_before is not None for member in ensemble.members)
    assert len(with_needs([ensemble])) == 2 * 4 + 1


# --- what is pruned, dense networks ------------------------------------------------------------


def test_a_search_is_told_what_is_pruned_where_its_optimizer_asks():
    assert LENET.search_cell.only is None  # Adam treats all weights alike
    for optimizer in (SGD(encoder_lr=0.5), BetaLasso()):
        phase = PhaseConfig(optimizer=optimizer)
        config = TicketConfig(search=phase, init_scale=1.0, only=("*",), rewind="none")
        cell = replace(LENET, config=config)
        assert cell.search_cell.only == ("*",)
        assert cell_from_json(describe(cell.search_cell)) == cell.search_cell
        assert key(cell.search_cell) != key(
            replace(cell, config=replace(config, only=None)).search_cell
        )
        assert replace(cell, config=replace(config, compression=1.0)).config.only == ("*",)
    dense = replace(LENET, config=in_rounds(ROUNDS, compression=1.0, rewind="none"))
    assert dense.config.only is None


def test_a_dense_network_with_earlier_learning_rates_owes_its_search():
    dense = in_rounds(ROUNDS, compression=1.0, rewind="lr:20")
    cell = replace(LENET, config=dense)
    assert cell.config.search == ADAM
    assert needs(cell) == (cell.search_cell,)


# --- raw images ----------------------------------------------------------------------------------

RAW = ImageRows(dataset="sklearn:digits", n_validation=100, n_train=200, raw=True)
SEEN = PhaseConfig(epochs=1, contrastive_weight=1.0)
VIS = TicketCell(
    rows=RAW, config=TicketConfig(search=SEEN), network="mlp_vis", widths=(1,), view="simclr"
)
UNSEEN = TicketConfig()

GOLDEN_RAW = {
    "ticket": (VIS, "4181fe2c0a4a3aa8"),
    "search": (VIS.search_cell, "e6901522df71d3f2"),
    "dense": (replace(VIS, config=replace(UNSEEN, compression=1.0)), "77e4c97c26703101"),
    "resnet": (
        replace(VIS, network="resnet18_cifar", widths=(4,), view="crop"),
        "d9858d4e9f9b734f",
    ),
    "lenet": (replace(VIS, network="lenet_300_100", widths=(20, 10)), "f1b231e0f72994cf"),
    "probe": (ProbeCell(ticket=VIS), "82706ddbc9e1922c"),
    "normalised": (LENET, "27a494930480b39f"),
}


@pytest.mark.parametrize("name", GOLDEN_RAW)
def test_keys_of_cells_of_images_are_golden(name):
    cell, golden = GOLDEN_RAW[name]
    assert key(cell) == golden


def test_a_cell_of_raw_images_comes_back_from_its_json():
    for cell, golden in GOLDEN_RAW.values():
        told = json.loads(json.dumps(describe(cell)))
        assert describe(cell_from_json(told)) == told
        assert key(cell_from_json(told)) == golden
    assert cell_from_json(describe(VIS)) == VIS
    told = describe(VIS)
    assert told["rows"]["raw"] is True
    assert (told["view"], told["network"], told["widths"]) == ("simclr", "mlp_vis", [1])


def test_what_raw_images_added_is_not_told_of_other_cells():
    later = {f.name for cls in (ImageRows, TicketCell, SearchCell)
             for f in fields(cls) if f.metadata == LATER}  # fmt: skip
    assert {"raw", "view"} <= later
    for cell in (LENET, LENET.search_cell, CELL, CELL.search_cell):
        told = describe(cell)
        assert "view" not in told
        assert "raw" not in told["rows"]


def test_whatever_decides_a_cell_of_raw_images_changes_its_key():
    cells = [
        VIS,
        replace(VIS, view="crop"),
        replace(VIS, network="cnn"),
        replace(VIS, network="resnet18"),
        replace(VIS, network="resnet18_cifar"),
        replace(VIS, widths=(2,)),
        replace(VIS, rows=replace(RAW, n_train=199)),
        replace(VIS, network="lenet_300_100", widths=(20, 10)),
        replace(VIS, network="lenet_300_100", widths=(20, 10), view=None, rows=IMAGES),
    ]
    for part in (lambda cell: cell, lambda cell: cell.search_cell):
        assert len({key(part(cell)) for cell in cells}) == len(cells)


def test_a_search_is_of_the_tickets_view_and_images():
    search = VIS.search_cell
    assert (search.view, search.rows, search.network) == ("simclr", RAW, "mlp_vis")
    other = replace(VIS, config=replace(VIS.config, compression=32.0, control="shuffled"))
    assert other.search_cell == search


# what no objective draws is no part of a cell
@pytest.mark.parametrize("view", ["simclr", "crop", None])
def test_a_view_that_no_objective_asks_for_is_dropped(view):
    cell = replace(VIS, config=UNSEEN, view=view)
    assert cell.view is None
    assert (cell.corruption_rate, cell.shift) == (0, 0)
    assert key(cell) == key(replace(VIS, config=UNSEEN, corruption_rate=0.3))
    assert cell.search_cell.view is None
    assert key(cell.search_cell) == key(replace(cell.search_cell, view=view, corruption_rate=0.3))


def test_a_named_view_leaves_no_rate_of_another_one():
    assert (VIS.corruption_rate, VIS.shift) == (0, 0)
    assert key(VIS) == key(replace(VIS, corruption_rate=0.3))
    assert key(VIS.search_cell) == key(replace(VIS.search_cell, corruption_rate=0.3, shift=2))


def test_a_view_of_the_finetuning_alone_is_not_that_of_the_search():
    cell = replace(VIS, config=TicketConfig(finetune=SEEN))
    assert cell.view == "simclr"
    assert cell.search_cell.view is None
    plain = replace(VIS, config=UNSEEN)
    assert key(cell.search_cell) == key(plain.search_cell)


def test_the_dense_network_of_images_is_one_cell_beside_any_search():
    dense = {key(replace(VIS, view=view, config=replace(config, compression=1.0)))
             for view in ("simclr", "flip") for config in (VIS.config, UNSEEN)}  # fmt: skip
    assert len(dense) == 1


IMAGE = {"kind": "ImageRows", "dataset": "a"}
CONTRASTS = {"search": {"contrastive_weight": 1.0}}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"rows": IMAGE | {"raw": True}, "network": "mlp"},
         "images need a network of images, got 'mlp' for a; .* or to 'cnn' and widths to one"),
        ({"rows": IMAGE, "network": "cnn", "widths": [1]},
         r"cnn takes images as they are and one width, got \(1,\) for a; set rows.raw to true"),
        ({"rows": IMAGE | {"raw": True}, "network": "mlp_vis", "widths": [1, 2]},
         r"mlp_vis takes images as they are and one width, got \(1, 2\) for a"),
        ({"rows": {"dataset": "a"}, "network": "resnet18", "widths": [4]},
         r"resnet18 takes images as they are and one width, got \(4,\) for a"),
        ({"rows": IMAGE | {"raw": True}, "network": "lenet_300_100", "shift": 1},
         "shift is of normalised images, by 0 or more pixels, got 1 for a; set it to 0, or name"),
        ({"rows": IMAGE | {"raw": True}, "network": "cnn", "widths": [1], "config": CONTRASTS},
         "needs a named view of raw images, and no other rows have one, got view=None for a; set"),
        ({"rows": IMAGE, "network": "lenet_300_100", "view": "crop", "config": CONTRASTS},
         "no other rows have one, got view='crop' for a"),
        ({"rows": {"dataset": "a"}, "view": "crop", "config": CONTRASTS}, "got view='crop' for a"),
        ({"rows": {"dataset": "a"}, "view": "crop",
          "config": {"finetune": {"contrastive_weight": 0.5}}}, "got view='crop' for a"),
        ({"rows": IMAGE | {"raw": True}, "network": "cnn", "widths": [1], "view": "shear"},
         "view must be one of 'simclr', 'crop', 'flip', 'colour', 'grayscale'"),
        ({"rows": IMAGE | {"raw": True}, "network": "cnn", "widths": [1], "skip": True},
         "dropout and skip are the MLP's, got 0 and True for cnn"),
        ({"rows": IMAGE | {"raw": 1}, "network": "cnn", "widths": [1]}, "rows.raw must be"),
    ],
)  # fmt: skip
def test_wrong_cells_of_raw_images_are_refused(value, message):
    with pytest.raises(InputError, match=message) as err:
        cell_from_json(value)
    assert "\n" not in str(err.value)


def test_views_named_in_cells_are_those_there_are():
    assert set(get_args(ViewName)) == set(IMAGE_VIEWS)


def test_titles_tell_networks_of_one_width_apart():
    names = ("mlp_vis", "cnn", "resnet18", "resnet18_cifar")
    cells = [replace(VIS, network=name) for name in names]
    assert title(cells[0]) == "sklearn:digits split 0: ticket mlp_vis 1, r 8"
    assert title(cells[1].search_cell) == "sklearn:digits split 0: search cnn 1, kappa 0.25"
    assert len({title(cell) for cell in cells}) == 4
    assert title(ProbeCell(ticket=cells[1])).endswith("ticket cnn 1, r 8, probed")
    assert title(LENET) == "sklearn:digits split 0: ticket 30-10, r 2.5"
    assert title(replace(CELL, widths=(8,))) == "credit-g split 0: ticket 8, r 8"
