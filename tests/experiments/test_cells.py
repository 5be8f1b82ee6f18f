"""What cells compute: the same as the method by hand."""

import json
import subprocess
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from secateurs import masks, schedules
from secateurs.checkpoint import unnest
from secateurs.data.batches import epoch_batches
from secateurs.data.image_views import IMAGE_VIEWS, simclr
from secateurs.data.images import read_images
from secateurs.data.views import compose, corruption, pixel_corruption, shift
from secateurs.errors import InputError
from secateurs.experiments.arms import arm, beta_lasso
from secateurs.experiments.cells import _watched_epochs, execute
from secateurs.experiments.rows import prepare
from secateurs.experiments.spec import (
    ImageRows,
    PeerCell,
    Rows,
    TicketCell,
    cell_from_json,
    key,
    needs,
    with_needs,
)
from secateurs.experiments.store import Store
from secateurs.experiments.trained import probabilities, trained
from secateurs.experiments.typed import describe
from secateurs.measures.quality import classification, probabilistic
from secateurs.networks.conv import CNN, MLPVis, mlp_vis_widths
from secateurs.networks.init import initialise_
from secateurs.networks.lenet import LeNet300100
from secateurs.networks.pixels import Normalise
from secateurs.networks.resnet import ResNet18
from secateurs.objectives import nce
from secateurs.optimizers import SGD, AdamW
from secateurs.preparation import groups
from secateurs.seeds import stream
from secateurs.tabular import start_network
from secateurs.tickets import TicketConfig, find_ticket
from secateurs.training import PhaseConfig, outputs

ROWS = Rows(dataset="sklearn:wine", validation_folds=4)
IUNET = TicketConfig(
    search=PhaseConfig(epochs=3, optimizer=SGD(lr=0.05), contrastive_weight=1.0, batch_size=32),
    finetune=PhaseConfig(epochs=7, optimizer=AdamW(), batch_size=32),
    compression=4.0,
)
CELL = TicketCell(rows=ROWS, config=IUNET, widths=(16, 16), seed=3)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def finish(store, *cells):
    for name, cell in with_needs(cells).items():
        status = execute(cell, store.root, device="cpu")
        assert status in ("done", "already"), (store.error(name) or {}).get("traceback")
    return [store.result(key(cell)) for cell in cells]


# --- cells ---------------------------------------------------------------------------------------


def test_a_ticket_cell_is_find_ticket_to_the_bit(store):
    (result,) = finish(store, CELL)
    prepared = prepare(ROWS)
    network = start_network(13, 3, (16, 16), seed=3)
    view = corruption(prepared.data.train[0], groups(prepared.preparation), rate=0.6)
    ticket = find_ticket(network, prepared.data, IUNET, seed=3, view=view, device="cpu")
    found, kept = trained(store, key(CELL))
    assert masks.iou(kept, ticket.mask) == 1
    for name, tensor in ticket.network.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    x, y = prepared.test
    proba = outputs(ticket.network, x).double().softmax(1).numpy()
    prior = np.bincount(prepared.data.train[1].numpy()) / len(prepared.data.train[1])
    scores = (
        classification(y.numpy(), proba, np.arange(3)),
        probabilistic(y.numpy(), proba, np.arange(3), prior),
    )
    assert result["test"] == scores[0] | scores[1]
    assert np.allclose(probabilities(store, key(CELL))["test"], proba, atol=1e-7)
    assert len(store.history(key(CELL))) == 7
    (search,) = needs(CELL)
    assert len(store.history(key(search))) == 3
    state = unnest(store.tensors(key(search))[0], "state")
    assert torch.equal(state["encoder.0.weight"], ticket.searched.state["encoder.0.weight"])


def test_results_say_what_they_cost_and_of_what_they_came(store):
    (result,) = finish(store, CELL)
    (search,) = needs(CELL)
    searching = store.result(key(search))
    weights = 13 * 16 + 16 * 16 + 16 * 3
    assert searching["flops"] == 3 * 2 * 2 * weights * 106 * 3
    assert result["flops"] == 3 * 2 * weights * 106 * 7
    assert result["flops_with_search"] == result["flops"] + searching["flops"]
    assert result["size"]["density"] == 0.25
    assert 0 < result["regime"]["weight_movement"] < 10
    assert 0 <= result["regime"]["start_mask_overlap"] <= 1
    assert set(result["layer_density"]) == {"encoder.0.weight", "encoder.3.weight"}
    assert {"torch", "numpy", "secateurs", "python"} <= set(result["versions"])
    assert result["peak_memory"] > 2**20
    assert result["seconds"] > 0
    assert result["device"] == "cpu"
    assert len(result["data"]) == 16
    history = store.history(key(search))
    assert {"weight_movement", "start_mask_overlap", "histogram", "contrastive"} <= set(history)
    assert sum(history["histogram"].iloc[-1]) == 13 * 16 + 16 * 16


def test_long_searches_are_measured_at_log_spaced_epochs(store):
    longer = replace(CELL.search_cell, search=replace(IUNET.search, epochs=40))
    finish(store, longer)
    history = store.history(key(longer))
    seen = history.loc[history["histogram"].notna(), "epoch"].tolist()
    assert seen == [1, 2, 3, 4, 5, 6, 7, 9, 12, 15, 18, 23, 28, 36, 40]
    assert history["weight_movement"].notna().sum() == len(seen)
    assert history["loss"].notna().all()
    result = store.result(key(longer))
    assert result["regime"]["weight_movement"] == history["weight_movement"].iloc[-1]


def test_one_search_serves_all_that_reads_it(store):
    names = ("IUNet", "shuffled mask", "untrained ticket", "no rewind", "no-prune", "dense")
    cells = [replace(CELL, config=arm(name, IUNET)) for name in names]
    results = dict(zip(names, finish(store, *cells), strict=True))
    assert len(store.keys()) == len(names) + 1
    assert results["dense"]["regime"]["weight_movement"] is None
    assert results["dense"]["flops_with_search"] == results["dense"]["flops"]
    assert results["untrained ticket"]["flops"] == 0
    moved = {results[n]["regime"]["weight_movement"] for n in ("IUNet", "shuffled mask")}
    assert len(moved) == 1
    assert results["shuffled mask"]["layer_density"] == results["IUNet"]["layer_density"]


def test_an_untrained_ticket_has_statistics_of_its_own_weights(store):
    untrained = replace(CELL, config=arm("untrained ticket", IUNET))
    finish(store, untrained)
    network, _ = trained(store, key(untrained))
    x = prepare(ROWS).data.train[0]
    before = x @ network.get_parameter("encoder.0.weight").T
    mean = network.get_buffer("encoder.1.running_mean")
    # the mean over shuffled batches of 32, 32, 32 and 10 rows
    order = epoch_batches(len(x), 32, generator=stream(0, "statistics"))
    batches = torch.stack([before[rows].mean(0) for rows in order]).mean(0)
    assert torch.allclose(mean, batches, atol=1e-6)


def test_an_ensemble_is_the_mean_of_its_members_and_costs_what_they_cost(store):
    ensemble = replace(CELL, n_tickets=3)
    assert ensemble.members[0] == CELL
    assert len({member.seed for member in ensemble.members}) == 3
    (result,) = finish(store, ensemble)
    told = [probabilities(store, key(member))["test"] for member in ensemble.members]
    assert not np.allclose(told[0], told[1], atol=1e-3)
    assert np.allclose(probabilities(store, key(ensemble))["test"], np.mean(told, 0), atol=1e-7)
    y = prepare(ROWS).test[1].numpy()
    hit = (np.mean(told, 0).argmax(1) == y).mean()
    assert result["test"]["accuracy"] == pytest.approx(hit)
    of_members = [store.result(key(member)) for member in ensemble.members]
    for name in ("bytes", "parameters_kept"):
        assert result["size"][name] == sum(one["size"][name] for one in of_members)
    assert result["size"]["density"] == of_members[0]["size"]["density"]


def test_bytes_are_those_of_the_packed_network_every_snapshot_counted(store):
    finetune = replace(CELL.config.finetune, epochs=7)
    several = replace(CELL, config=replace(CELL.config, finetune=replace(finetune, snapshots=3)))
    one = replace(CELL, config=replace(CELL.config, finetune=finetune))
    single, tripled = (finish(store, cell)[0]["size"]["bytes"] for cell in (one, several))
    tensors, _ = store.tensors(key(one))
    packed = {n: t.numel() * t.element_size() for n, t in tensors.items() if "proba" not in n}
    masks_alone = sum(n for name, n in packed.items() if name.startswith("mask"))
    assert single == sum(packed.values())
    assert tripled == 3 * (single - masks_alone) + masks_alone


def test_beta_lasso_runs_as_a_cell(store):
    cell = replace(CELL, config=beta_lasso(IUNET, l1=2e-3))
    (result,) = finish(store, cell)
    assert 0 < result["size"]["density"] < 1


def test_weights_balance_the_cross_entropy(store):
    plain, balanced = (replace(CELL, class_weight=w) for w in (None, "balanced"))
    one, two = finish(store, plain, balanced)
    assert one["test"]["log_loss"] != two["test"]["log_loss"]


@pytest.mark.parametrize("model", ["majority", "logistic_regression"])
def test_peers_see_the_same_rows(store, model):
    (result,) = finish(store, PeerCell(rows=ROWS, model=model))
    prepared = prepare(ROWS)
    (x, y), (x_test, y_test) = prepared.data.train, prepared.test
    if model == "majority":
        most = int(y.bincount().argmax())
        assert result["test"]["accuracy"] == float((y_test == most).double().mean())
        assert result["test"]["n_classes_predicted"] == 1
    else:
        fitted = LogisticRegression(max_iter=5000).fit(x.numpy(), y.numpy())
        assert result["test"]["accuracy"] == fitted.score(x_test.numpy(), y_test.numpy())
    assert "validation" in result


def test_xgboost_takes_the_table_as_it_is(store):
    pytest.importorskip("xgboost", reason="needs secateurs[tabular]")
    (result,) = finish(store, PeerCell(rows=ROWS, model="xgboost"))
    assert result["test"]["accuracy"] > 0.8


# --- running -------------------------------------------------------------------------------------


def test_what_is_finished_is_not_computed_again(store):
    cell = PeerCell(rows=ROWS)
    assert execute(cell, store.root) == "done"
    before = (store.folder(key(cell)) / "DONE").stat().st_mtime_ns
    assert execute(cell, store.root) == "already"
    assert (store.folder(key(cell)) / "DONE").stat().st_mtime_ns == before


def test_a_cell_that_another_holds_is_busy(store):
    cell = PeerCell(rows=ROWS)
    with store.claim(key(cell)):
        assert execute(cell, store.root) == "busy"
    assert execute(cell, store.root) == "done"


def test_a_failing_cell_leaves_its_traceback_and_may_be_tried_again(store, tmp_path, monkeypatch):
    cell = PeerCell(rows=Rows(dataset="toy"))
    monkeypatch.setenv("SECATEURS_DATA", str(tmp_path))
    assert execute(cell, store.root) == "failed"
    error = store.error(key(cell))
    assert error["error"].startswith("InputError: 'toy' must be a table of the data root")
    assert "Traceback (most recent call last)" in error["traceback"]
    (tmp_path / "tabular").mkdir()
    frame = pd.DataFrame({"a": range(40), "target": ["no", "yes"] * 20})
    frame.to_parquet(tmp_path / "tabular" / "toy.parquet")
    assert execute(cell, store.root) == "done"
    assert store.error(key(cell)) is None


def test_a_ticket_without_its_search_is_a_mistake_of_whoever_runs_it(store):
    with pytest.raises(InputError, match=r"needs sklearn:wine split 0: search .* not finished"):
        execute(CELL, store.root)


def test_an_interrupted_cell_continues_from_its_checkpoint(store, monkeypatch):
    (search,) = needs(CELL)
    monkeypatch.setattr("secateurs.training.CHECKPOINT_SECONDS", 0.0)
    calls = []

    def die(*_args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return [0] * 60

    monkeypatch.setattr("secateurs.experiments.cells.weight_histogram", die)
    with pytest.raises(KeyboardInterrupt):
        execute(search, store.root)
    assert not store.finished(key(search))
    assert list(store.checkpoint(key(search)).iterdir())
    monkeypatch.undo()
    assert execute(search, store.root) == "done"
    assert not store.checkpoint(key(search)).exists()
    resumed, _ = store.tensors(key(search))
    other = Store(store.root / "other")
    execute(search, other.root)
    plain, _ = other.tensors(key(search))
    assert all(torch.equal(resumed[name], plain[name]) for name in plain)
    histograms = store.history(key(search))["histogram"]
    assert [sum(h) for h in histograms] == [0, 0, 13 * 16 + 16 * 16]


def test_results_do_not_depend_on_the_number_of_threads(store):
    torch.set_num_threads(2)
    finish(store, CELL)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    other = Store(store.root / "other")
    finish(other, CELL)
    one, two = store.tensors(key(CELL))[0], other.tensors(key(CELL))[0]
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_source_is_told_by_its_revision(store):
    (result,) = finish(store, PeerCell(rows=ROWS))
    told = subprocess.run(
        ["git", "rev-parse", "--is-inside-work-tree"], capture_output=True, text=True, check=False
    )
    assert (result["git"] is not None) == (told.stdout.strip() == "true")
    assert json.dumps(result)


# --- images --------------------------------------------------------------------------------------

IMAGES = ImageRows(dataset="mnist", n_validation=100, n_train=100, split=7)


@pytest.fixture
def three_digits(tmp_path_factory, monkeypatch):
    """Let "mnist" be three classes of sklearn's digits: ten would cost seconds of ROC curves."""
    root = tmp_path_factory.getbasetemp() / "three_digits"
    if not root.exists():
        images = read_images("sklearn:digits")
        arrays = {}
        for part in ("train", "test"):
            x, y = getattr(images, f"x_{part}"), getattr(images, f"y_{part}")
            arrays |= {f"x_{part}": x[y < 3], f"y_{part}": y[y < 3]}
        (root / "vision").mkdir(parents=True)
        np.savez(root / "vision" / "mnist.npz", **arrays)
    monkeypatch.setenv("SECATEURS_DATA", str(root))


ADAM = PhaseConfig(steps=7, batch_size=30, optimizer=AdamW(lr=5e-3, schedule="constant"))
LOTTERY = TicketConfig(
    search=ADAM, finetune=ADAM, init_scale=1.0, scope="halved_last", only=("*",), compression=4
)
LENET = TicketCell(rows=IMAGES, config=LOTTERY, widths=(20, 10), network="lenet_300_100", seed=3)
WEIGHTS = 64 * 20 + 20 * 10 + 10 * 3


def lenet(**changes):
    return replace(LENET, config=replace(LOTTERY, **changes))


def by_hand(cell):
    """Return what `find_ticket` finds with the settings of a cell of images, in one go."""
    prepared = prepare(cell.rows)
    network = LeNet300100(64, 3, widths=cell.widths)
    initialise_(network, generator=stream(cell.seed, "init"))
    view = None
    if cell.shift or cell.corruption_rate:
        view = compose(
            shift(cell.shift, fill=prepared.background),
            pixel_corruption(prepared.data.train[0], rate=cell.corruption_rate),
        )
    return find_ticket(network, prepared.data, cell.config, seed=cell.seed, view=view, device="cpu")


def assert_is(store, cell, ticket):
    """Check a finished cell against a ticket, to the bit."""
    network, mask = trained(store, key(cell))
    assert mask.keys() == ticket.mask.keys()
    for name, kept in ticket.mask.items():
        assert torch.equal(mask[name], kept), name
    for name, tensor in ticket.network.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name
    x, y = prepare(cell.rows).test
    told = probabilities(store, key(cell))["test"]
    assert np.allclose(told, outputs(ticket.network, x).softmax(1).numpy(), atol=1e-6)
    accuracy = (outputs(ticket.network, x).argmax(1) == y).double().mean()
    assert store.result(key(cell))["test"]["accuracy"] == pytest.approx(float(accuracy))


ROUNDS = (0.8, 0.5, 0.25)
CHAINED = replace(LOTTERY, schedule=partial(schedules.listed, densities=ROUNDS))


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": schedules.one_shot},
        {},
        {"rewind": "none"},
        {"rewind": "random", "control": "shuffled"},
        {"rewind": "step:2"},
        {"rewind": "lr:5"},
        {"rewind": "scaled_start", "init_scale": 0.5, "control": "reversed"},
        {"control": "shuffled_globally", "finetune": replace(ADAM, steps=9)},
        {"control": "top_start", "scope": "global"},
        {"search": replace(ADAM, contrastive_weight=1.0), "only": None},
        {"search": replace(ADAM, optimizer=SGD(lr=0.01, encoder_lr=0.1))},
        {"schedule": partial(schedules.exponential, rounds=2)},
    ],
    ids=lambda changes: ", ".join(changes) or "listed",
)
@pytest.mark.usefixtures("three_digits")
def test_a_cell_of_images_in_a_chain_is_find_ticket_in_one_go_to_the_bit(store, changes):
    config = replace(CHAINED, **changes)
    cell = replace(LENET, config=config, shift=1, corruption_rate=0.1)
    (result,) = finish(store, cell)
    rounds = len(config.schedule(0.25))
    assert len(store.keys()) == 1 + rounds
    assert_is(store, cell, by_hand(cell))
    assert result["size"]["density"] == pytest.approx(0.25, abs=1e-3)
    assert result["size"]["parameters"] == WEIGHTS + 20 + 10 + 3
    assert set(result["layer_density"]) == set(by_hand(cell).mask)
    assert len(result["data"]) == 16


@pytest.mark.parametrize(
    ("criterion", "changes"),
    [
        ("snip", {}),
        ({"name": "grasp", "temperature": 100.0}, {"scored_rows": 50}),
        ("synflow", {"schedule": {"name": "exponential", "rounds": 20}}),
        ("wanda", {"scope": "output"}),
        ("random", {"control": "reversed"}),
    ],
)
@pytest.mark.usefixtures("three_digits")
def test_pruning_at_the_start_needs_no_search(store, criterion, changes):
    """Written in JSON, as a file would say it."""
    told = describe(lenet(search=PhaseConfig(epochs=0)))
    told["config"] |= {"criterion": criterion, **changes}
    cell = cell_from_json(json.loads(json.dumps(told)))
    assert needs(cell) == ()
    (result,) = finish(store, cell)
    assert store.keys() == [key(cell)]
    assert_is(store, cell, by_hand(cell))
    assert result["flops_with_search"] == result["flops"] > 0
    assert result["regime"] == {"weight_movement": None, "start_mask_overlap": None}
    assert result["early_stop"]["step"] in result["curve"]["step"]


@pytest.mark.usefixtures("three_digits")
def test_costs_add_up_over_rounds(store):
    finetune = replace(ADAM, steps=None, epochs=3)
    chained = replace(LENET, config=replace(CHAINED, finetune=finetune))
    (result,) = finish(store, chained)
    search, *rounds = (store.result(key(cell)) for cell in with_needs([chained]).values())
    # 4 batches of 30, 30, 30 and 10 rows an epoch: seven steps see 100 and 90
    step = 3 * 2 * WEIGHTS
    assert [one["flops"] for one in (search, *rounds)] == [step * n for n in (190, 190, 190, 300)]
    totals = [one["flops_with_search"] for one in rounds]
    assert totals == [step * n for n in (380, 570, 870)]
    assert result["flops_with_search"] == step * 870
    seconds = [one["fit_seconds"] for one in (search, *rounds)]
    assert seconds == sorted(seconds)
    assert all(one["regime"]["weight_movement"] > 0 for one in rounds)


@pytest.mark.usefixtures("three_digits")
def test_rounds_within_one_cell_cost_what_they_cost(store):
    """What `compression_of="model"` keeps of the weights is not known before, and no chain."""
    cell = lenet(
        compression_of="model", compression=2, schedule=partial(schedules.linear, rounds=3)
    )
    assert cell.round_before is None
    (result,) = finish(store, cell)
    assert len(store.keys()) == 2
    assert_is(store, cell, by_hand(cell))
    assert result["flops"] == 3 * 2 * WEIGHTS * 190 * 3
    assert result["flops_with_search"] == 3 * 2 * WEIGHTS * 190 * 4


@pytest.mark.parametrize("rewind", ["step:5", "lr:5"])
@pytest.mark.usefixtures("three_digits")
def test_a_late_rewind_costs_what_is_left(store, rewind):
    (result,) = finish(store, lenet(rewind=rewind))
    assert result["flops"] == 3 * 2 * WEIGHTS * 60  # two steps of the second epoch
    assert result["flops_with_search"] == 3 * 2 * WEIGHTS * (60 + 190)


@pytest.mark.usefixtures("three_digits")
def test_a_dense_network_is_its_search_and_costs_no_more(store):
    phase = replace(ADAM, steps=230)
    nothing = replace(ADAM, steps=None, epochs=0)
    dense = lenet(compression=1, rewind="none", search=phase, finetune=nothing)
    (result,) = finish(store, dense)
    (search,) = needs(dense)
    searching = store.result(key(search))
    assert result["flops"] == 0
    assert result["flops_with_search"] == searching["flops"] > 0
    assert result["curve"] == searching["curve"]
    assert result["early_stop"] == searching["early_stop"]
    assert result["curve"]["step"] == [0, 100, 200, 230]
    network, mask = trained(store, key(dense))
    state = unnest(store.tensors(key(search))[0], "state")
    assert all(torch.equal(network.state_dict()[name], t) for name, t in state.items())
    assert masks.density(mask) == 1

    curve = searching["curve"]
    losses = curve["validation_loss"]
    at = losses.index(min(losses))
    assert result["early_stop"]["step"] == curve["step"][at]
    assert result["early_stop"]["validation_accuracy"] == curve["validation_accuracy"][at]
    x, y = prepare(IMAGES).data.validation
    accuracy = (outputs(network, x).argmax(1) == y).double().mean()
    assert curve["validation_accuracy"][-1] == pytest.approx(float(accuracy))
    assert result["validation"]["accuracy"] == pytest.approx(float(accuracy))
    loss = torch.nn.functional.cross_entropy(outputs(network, x), y)
    assert losses[-1] == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize(("n_train", "lr", "overfits"), [(12, 0.1, True), (40, 0.02, False)])
@pytest.mark.usefixtures("three_digits")
def test_early_stopping_tells_the_test_accuracy_of_its_own_step(store, n_train, lr, overfits):
    optimizer = AdamW(lr=lr, weight_decay=0.0, schedule="constant")
    phase = replace(ADAM, steps=230, batch_size=10, optimizer=optimizer)
    cell = replace(lenet(finetune=phase), rows=replace(IMAGES, n_train=n_train))
    (result,) = finish(store, cell)
    stop = result["early_stop"]
    assert result["curve"]["step"] == [0, 100, 200, 230]
    assert stop["validation_loss"] == min(result["curve"]["validation_loss"])
    length = {"steps": stop["step"]} if stop["step"] else {"steps": None, "epochs": 0}
    stopped = replace(cell, config=replace(cell.config, finetune=replace(phase, **length)))
    x, y = prepare(cell.rows).test
    accuracy = (outputs(by_hand(stopped).network, x).argmax(1) == y).double().mean()
    assert stop["test_accuracy"] == pytest.approx(float(accuracy))
    if overfits:  # from the first step on
        assert stop["step"] == 0
        assert stop["test_accuracy"] < result["test"]["accuracy"] - 0.2


@pytest.mark.usefixtures("three_digits")
def test_a_ticket_that_was_not_trained_has_no_curve_of_its_own_or_its_search(store):
    nothing = replace(ADAM, steps=None, epochs=0)
    untrained, table = finish(store, lenet(finetune=nothing), CELL)
    assert "early_stop" not in untrained
    assert "early_stop" not in table


@pytest.mark.usefixtures("three_digits")
def test_a_round_moves_from_where_its_training_began(store):
    """At a learning rate of nothing no round moves, however small the search was scaled."""
    still = replace(ADAM, optimizer=SGD(lr=1e-30))
    for rewind in ("start", "scaled_start", "none"):
        config = replace(CHAINED, search=still, finetune=still, init_scale=0.25, rewind=rewind)
        (result,) = finish(store, replace(LENET, config=config))
        assert result["regime"]["weight_movement"] == pytest.approx(0, abs=1e-6)


@pytest.mark.usefixtures("three_digits")
def test_arms_know_phases_by_steps(store):
    config = replace(IUNET, search=replace(IUNET.search, steps=10), finetune=replace(ADAM, steps=8))
    config = replace(config, search=replace(config.search, batch_size=30))
    untrained = replace(CELL, config=arm("untrained ticket", config))
    assert finish(store, untrained)[0]["flops"] == 0
    dense = arm("dense, equal steps", config)
    assert (dense.finetune.steps, dense.finetune.n_steps(106)) == (18, 18)
    rounds = replace(config, schedule=partial(schedules.exponential, rounds=3))
    assert arm("dense, equal steps", rounds).finetune.steps == 38
    mixed = replace(config, finetune=replace(ADAM, steps=None, epochs=3))
    with pytest.raises(
        InputError, match="both must be in epochs or both in steps, got steps 10 and None"
    ):
        arm("dense, equal steps", mixed)
    at_start = replace(config, search=PhaseConfig(epochs=0, batch_size=30))
    assert arm("dense, equal steps", at_start).finetune.steps == 8


@pytest.mark.usefixtures("three_digits")
def test_weights_and_no_validation_images_do_no_harm(store):
    rows = replace(IMAGES, n_validation=0, n_train=40)  # one class has a row more
    plain = replace(lenet(), rows=rows)
    one, two = finish(store, plain, replace(plain, class_weight="balanced"))
    assert "validation" not in one
    assert "curve" not in one
    assert one["test"]["log_loss"] != two["test"]["log_loss"]


@pytest.mark.usefixtures("three_digits")
def test_an_ensemble_of_images_is_the_mean_of_its_members(store):
    ensemble = replace(LENET, config=CHAINED, n_tickets=2)
    (result,) = finish(store, ensemble)
    told = [probabilities(store, key(member))["test"] for member in ensemble.members]
    assert np.allclose(probabilities(store, key(ensemble))["test"], np.mean(told, 0), atol=1e-7)
    spent = [store.result(key(member))["flops_with_search"] for member in ensemble.members]
    assert result["flops_with_search"] == sum(spent) == 2 * 4 * 3 * 2 * WEIGHTS * 190


@pytest.mark.usefixtures("three_digits")
def test_a_ticket_without_the_round_before_it_is_a_mistake_of_whoever_runs_it(store):
    chained = replace(LENET, config=CHAINED)
    assert execute(chained.search_cell, store.root, device="cpu") == "done"
    with pytest.raises(InputError, match=r"needs mnist split 7: ticket .*r 2, which is"):
        execute(chained, store.root, device="cpu")


# --- raw images ----------------------------------------------------------------------------------

RAW = replace(IMAGES, raw=True, n_train=90)
ILO = PhaseConfig(epochs=5, batch_size=30, optimizer=SGD(lr=0.02), contrastive_weight=1.0)
SHORT = replace(ILO, epochs=1)
FINETUNE = PhaseConfig(epochs=1, batch_size=30, optimizer=SGD(lr=0.02))
VIS = TicketCell(
    rows=RAW,
    config=TicketConfig(search=ILO, finetune=FINETUNE, compression=4),
    network="mlp_vis",
    widths=(1,),
    view="simclr",
    seed=3,
)
GAP = ("training_contrastive", "validation_contrastive")


def of_network(name, **changes):
    """Return the cell of another network, searched for one epoch."""
    config = replace(VIS.config, search=SHORT, **changes)
    widths = {"mlp_vis": (1,), "cnn": (1,), "lenet_300_100": (20, 10)}.get(name, (4,))
    return replace(VIS, network=name, widths=widths, config=config)


def raw_network(cell):
    """Return the start of a cell of raw images, put together by hand."""
    normalise = Normalise(*prepare(cell.rows).pixels)
    shape = {"channels": 1, "n_outputs": 3, "normalise": normalise}
    network = {
        "mlp_vis": lambda: MLPVis(1, size=8, **shape),
        "cnn": lambda: CNN(1, size=8, **shape),
        "resnet18": lambda: ResNet18(width=4, stem="imagenet", **shape),
        "resnet18_cifar": lambda: ResNet18(width=4, stem="cifar", **shape),
        "lenet_300_100": lambda: LeNet300100(64, 3, widths=(20, 10), normalise=normalise),
    }[cell.network]()
    initialise_(network, generator=stream(cell.seed, "init"))
    return network


@pytest.fixture(scope="module")
def raw_store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("raw"))


BF16 = {"finetune": replace(FINETUNE, precision="bf16")}
TWO_ROUNDS = {"schedule": partial(schedules.exponential, rounds=2)}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mlp_vis", {}),
        ("cnn", {}),
        ("resnet18", {}),
        ("resnet18_cifar", {}),
        ("lenet_300_100", {}),
        ("mlp_vis", BF16),
        ("cnn", TWO_ROUNDS),
    ],
    ids=["mlp_vis", "cnn", "resnet18", "resnet18_cifar", "lenet", "bf16", "two rounds"],
)
@pytest.mark.usefixtures("three_digits")
def test_a_cell_of_raw_images_is_find_ticket_to_the_bit(raw_store, name, changes):
    cell = of_network(name, **changes)
    (result,) = finish(raw_store, cell)
    prepared = prepare(RAW)
    ticket = find_ticket(
        raw_network(cell), prepared.data, cell.config, seed=3, view=simclr(), device="cpu"
    )
    assert_is(raw_store, cell, ticket)
    assert result["size"]["density"] == pytest.approx(0.25, abs=2e-3)
    network, _ = trained(raw_store, key(cell))
    (pixels,) = [module for module in network.modules() if isinstance(module, Normalise)]
    mean, std = prepared.pixels
    assert pixels.mean.flatten().tolist() == pytest.approx(mean)
    assert pixels.std.flatten().tolist() == pytest.approx(std)
    _, meta = raw_store.tensors(key(cell))
    assert (meta["inputs"], meta["raw"], meta["network"]) == ([1, 8, 8], True, name)
    assert meta["n_inputs"] == 64


@pytest.mark.usefixtures("three_digits")
def test_what_raw_images_cost(raw_store):
    cell = of_network("mlp_vis")
    (result,) = finish(raw_store, cell)
    sizes = (64, *mlp_vis_widths(1, 8), 3)
    weights = sum(a * b for a, b in pairwise(sizes))
    assert result["size"]["parameters"] == weights + 2 * sum(sizes[1:-1]) + 3
    assert result["flops"] == 3 * 2 * weights * 90
    assert result["flops_with_search"] == 3 * result["flops"]


@pytest.mark.usefixtures("three_digits")
def test_a_search_of_raw_images_is_told_by_epoch(raw_store):
    search = VIS.search_cell
    (result,) = finish(raw_store, search)
    epochs = result["epochs"]
    names = {"epoch", "loss", "contrastive", "validation_loss", "weight_movement", "histogram"}
    assert set(epochs) == names | set(GAP)
    assert epochs["epoch"] == [1, 2, 3, 4, 5]
    n_weights = sum(p.numel() for n, p in raw_network(VIS).named_parameters() if _is_weight(n, p))
    assert [sum(counts) for counts in epochs["histogram"]] == [n_weights] * 5
    assert len({tuple(counts) for counts in epochs["histogram"]}) == 5
    assert all(moved > 0 for moved in epochs["weight_movement"])
    for name in GAP:
        told = [value is not None for value in epochs[name]]
        assert told == [True, True, False, True, True]
    history = raw_store.history(key(search))
    for name in ("loss", "contrastive", "validation_loss"):
        assert epochs[name] == history[name].tolist()
    assert result["regime"]["weight_movement"] == epochs["weight_movement"][-1]
    frame = raw_store.frame([{"key": key(search)}])
    assert frame["epochs.histogram"].iloc[0] == tuple(epochs["histogram"])


def _is_weight(name, parameter):
    return name.startswith("encoder.") and parameter.ndim > 1


@pytest.mark.usefixtures("three_digits")
def test_the_contrastive_gap_is_of_equal_batches_in_evaluation(raw_store):
    search = VIS.search_cell
    (result,) = finish(raw_store, search)
    network, data = raw_network(VIS), prepare(RAW).data
    network.load_state_dict(unnest(raw_store.tensors(key(search))[0], "state"))
    network.eval()
    for side, (x, y) in (("training", data.train), ("validation", data.validation)):
        order = torch.randperm(len(x), generator=stream(3, "gap", side))
        seen = simclr()(x[order], stream(3, "gap", side, "view"))
        terms = []
        with torch.no_grad():
            for i in range(0, len(x) - 29, 30):
                rows = order[i : i + 30]
                pair = (network.encoder(part) for part in (x[rows], seen[i : i + 30]))
                terms.append(float(nce(*pair, y[rows])))
        assert len(terms) == 3
        assert result["epochs"][f"{side}_contrastive"][-1] == pytest.approx(np.mean(terms))
    first, *_, last = result["epochs"]["training_contrastive"]
    assert last < first


@pytest.mark.parametrize(("n_validation", "told"), [(0, False), (29, False), (30, True)])
@pytest.mark.usefixtures("three_digits")
def test_fewer_validation_images_than_a_batch_have_no_contrastive_term(store, n_validation, told):
    cell = replace(of_network("cnn"), rows=replace(RAW, n_validation=n_validation))
    (result,) = finish(store, cell.search_cell)
    assert result["epochs"]["training_contrastive"][0] > 0
    assert ("validation_contrastive" in result["epochs"]) == told


@pytest.mark.usefixtures("three_digits")
def test_without_a_contrastive_term_no_view_is_drawn(store, raw_store, monkeypatch):
    def nothing():
        raise AssertionError("a view was asked for")

    plain = of_network("mlp_vis")
    plain = replace(plain, config=replace(plain.config, search=replace(FINETUNE, epochs=2)))
    finish(raw_store, plain)
    for name in IMAGE_VIEWS:
        monkeypatch.setitem(IMAGE_VIEWS, name, nothing)
    finish(store, plain)
    one, other = (at.result(key(plain.search_cell))["epochs"] for at in (raw_store, store))
    assert one == other
    assert not {"contrastive", *GAP} & set(one)
    assert execute(of_network("mlp_vis").search_cell, store.root) == "failed"
    assert "a view was asked for" in store.error(key(of_network("mlp_vis").search_cell))["error"]


@pytest.mark.usefixtures("three_digits")
def test_what_is_seen_decides_the_search(raw_store):
    searches = [replace(of_network("mlp_vis"), view=view).search_cell for view in IMAGE_VIEWS]
    plain = of_network("mlp_vis")
    plain = replace(plain, config=arm("no-ILO", plain.config)).search_cell
    finish(raw_store, *searches, plain)
    states = {
        key(search): unnest(raw_store.tensors(key(search))[0], "state")["encoder.1.weight"]
        for search in (*searches, plain)
    }
    assert len(states) == len(IMAGE_VIEWS) + 1
    first, *others = states.values()
    # of one channel colours do nothing but brighten, and grayscale changes nothing
    assert all(not torch.equal(first, other) for other in others)


def test_only_searches_of_raw_images_are_told_by_epoch(store):
    (result,) = finish(store, CELL.search_cell)
    assert "epochs" not in result


@pytest.mark.parametrize(
    ("epochs", "watched"),
    [(0, {0}), (1, {1}), (2, {1, 2}), (16, {1, 2, 4, 8, 16}), (30, {1, 2, 4, 8, 16, 30})],
)
def test_epochs_of_images_are_watched_at_powers_of_two_and_at_the_end(epochs, watched):
    assert _watched_epochs(epochs, ratio=2) == watched


@given(epochs=st.integers(1, 500), ratio=st.sampled_from([1.25, 1.5, 2]))
def test_watched_epochs_are_dense_at_first_and_never_farther_apart_than_the_ratio(epochs, ratio):
    watched = sorted(_watched_epochs(epochs, ratio=ratio))
    assert watched[0] == 1
    assert watched[-1] == epochs
    assert all(b <= ratio * a + 1 for a, b in pairwise(watched))
    assert len(watched) <= 3 + np.log(epochs) / np.log(ratio)
