"""Estimates grow with the work and never stop a run."""

from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
import torch

from secateurs.experiments import cost, peers
from secateurs.experiments.arms import arm
from secateurs.experiments.cost import estimate
from secateurs.experiments.spec import (
    ImageRows,
    PeerCell,
    ProbeCell,
    Rows,
    TicketCell,
    needs,
    with_needs,
)
from secateurs.schedules import exponential
from secateurs.tickets import TicketConfig
from secateurs.training import PhaseConfig

ROWS = Rows(dataset="sklearn:wine")
IUNET = TicketConfig(search=PhaseConfig(epochs=3), finetune=PhaseConfig(epochs=7))
CELL = TicketCell(rows=ROWS, config=IUNET, widths=(16, 16))


def test_an_estimate_grows_with_the_work():
    dense = replace(CELL, config=arm("dense", IUNET))
    longer = replace(dense, config=replace(dense.config, finetune=PhaseConfig(epochs=70)))
    (search,) = needs(CELL)
    assert 0 < estimate(dense) < estimate(longer)
    assert estimate(search) > 0
    assert estimate(PeerCell(rows=ROWS)) < estimate(dense)
    assert estimate(PeerCell(rows=Rows(dataset="sklearn:nothing"))) == 0


@pytest.mark.parametrize("model", peers.PEERS)
def test_a_peer_costs_more_on_more_rows(model):
    small, large = (
        PeerCell(rows=Rows(dataset=name), model=model)
        for name in ("sklearn:wine", "sklearn:digits")
    )
    assert 0 < estimate(small) < estimate(large)


def test_the_number_of_classes_counts_where_each_has_an_output():
    names = ("sklearn:breast_cancer", "sklearn:wine", "sklearn:digits")
    assert [cost._n_outputs(Rows(dataset=name)) for name in names] == [1, 3, 10]
    unnamed = Rows(dataset="sklearn:wine", target="nothing")
    assert cost._n_outputs(unnamed) == 1


def test_a_target_that_cannot_be_counted_stops_nothing(tmp_path):
    path = tmp_path / "lists.parquet"
    pd.DataFrame({"a": range(9), "target": [[1, 2]] * 9}).to_parquet(path)
    assert estimate(PeerCell(rows=Rows(dataset=str(path)), model="catboost")) > 0


# Core-seconds of one fit each, by training rows, columns and classes (one output for two).
MEASURED = {
    (800, 20, 1): {"random_forest": 0.11, "xgboost": 0.05, "catboost": 3.7, "realmlp": 5.8},
    (676, 18, 4): {"random_forest": 0.13, "xgboost": 0.08, "catboost": 2.4, "realmlp": 6.2},
    (2556, 36, 1): {"xgboost": 0.08, "catboost": 3.0, "realmlp": 17.9, "tabnet": 5.4},
    (4099, 20, 1): {"random_forest": 0.82, "catboost": 3.4, "realmlp": 38.1, "tabnet": 4.1},
    (1601, 216, 10): {"xgboost": 1.2, "catboost": 125.6, "realmlp": 33.5, "tabnet": 6.7},
    (5000, 14, 1): {"random_forest": 0.48, "xgboost": 0.11, "catboost": 8.8, "tabnet": 5.5},
    (20000, 6, 3): {"random_forest": 1.34, "xgboost": 0.44, "catboost": 4.6, "tabnet": 26.5},
}


def test_peers_are_estimated_as_they_were_measured():
    for shape, seconds in MEASURED.items():
        for model, taken in seconds.items():
            ratio = cost._PEER_SECONDS[model](*shape) / taken
            assert 1 / 3 < ratio < 3, (shape, model, ratio)


def images(*, n_train=None, n_validation=100, **phases):
    """Return a ticket cell of LeNet on digits, of phases with so many steps."""
    config = TicketConfig(**{name: PhaseConfig(steps=steps) for name, steps in phases.items()})
    rows = ImageRows(dataset="sklearn:digits", n_train=n_train, n_validation=n_validation)
    return TicketCell(rows=rows, config=config, network="lenet_300_100", widths=(20, 10))


def test_images_are_estimated_by_steps():
    cell = images(search=300, finetune=600)
    of_search = estimate(cell.search_cell)
    assert estimate(cell) == pytest.approx(2 * of_search)
    assert 0 < of_search < 60
    # steps are steps, however many images there are
    assert estimate(images(search=300, finetune=600, n_train=200)) == estimate(cell)
    untrained = replace(cell, config=replace(cell.config, finetune=PhaseConfig(epochs=0)))
    assert 0 < estimate(untrained) < of_search
    ilo = replace(cell.config, search=PhaseConfig(steps=300, contrastive_weight=1.0))
    assert estimate(replace(cell, config=ilo).search_cell) == pytest.approx(2 * of_search)


def test_epochs_of_images_are_of_those_that_are_trained_on():
    assert cost._shape(images().rows) == (1338, (1, 8, 8))
    assert cost._shape(images(n_train=200).rows) == (200, (1, 8, 8))
    by_epochs = replace(images(), config=TicketConfig(finetune=PhaseConfig(epochs=7)))
    fewer = replace(by_epochs, rows=replace(by_epochs.rows, n_train=128))
    assert estimate(by_epochs) == pytest.approx(11 * estimate(fewer))  # batches of 128


def test_images_that_are_not_there_and_probes_of_images_stop_nothing():
    cell = images(finetune=10)
    assert estimate(replace(cell, rows=ImageRows(dataset="sklearn:no"))) == 0
    assert estimate(ProbeCell(ticket=cell)) > 0
    chain = replace(cell.config, schedule=partial(exponential, rounds=3))
    assert all(estimate(one) > 0 for one in with_needs([replace(cell, config=chain)]).values())


@pytest.fixture
def no_memory_is_zero():
    """Let torch fill what nobody wrote with NaN."""
    torch.use_deterministic_algorithms(True)
    cost._step_seconds.cache_clear()
    yield
    torch.use_deterministic_algorithms(False)
    cost._step_seconds.cache_clear()


@pytest.mark.parametrize(
    "network", ["mlp_vis", "cnn", "resnet18", "resnet18_cifar", "lenet_300_100"]
)
@pytest.mark.usefixtures("no_memory_is_zero")
def test_raw_images_are_estimated_whatever_is_in_memory(network):
    rows = ImageRows(dataset="sklearn:digits", n_train=200, n_validation=100, raw=True)
    widths = (20, 10) if network == "lenet_300_100" else (1,)
    search = PhaseConfig(steps=30, contrastive_weight=1.0)
    config = TicketConfig(search=search, finetune=PhaseConfig(steps=60))
    cell = TicketCell(rows=rows, config=config, network=network, widths=widths, view="simclr")
    of_search = estimate(cell.search_cell)
    assert 0 < of_search < 60
    assert estimate(cell) == pytest.approx(of_search)  # twice the steps, and no second pass
    assert estimate(ProbeCell(ticket=cell)) > 0
