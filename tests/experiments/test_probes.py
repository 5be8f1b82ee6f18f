"""What a probe tells of a ticket: each part again by hand, and what has no meaning left out."""

import copy
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from reference import invariance as slow
from secateurs import masks
from secateurs.checkpoint import unnest
from secateurs.data.image_views import IMAGE_VIEWS
from secateurs.data.views import corruption
from secateurs.errors import InputError
from secateurs.experiments import probes
from secateurs.experiments.arms import arm
from secateurs.experiments.cells import execute
from secateurs.experiments.cost import estimate
from secateurs.experiments.image_structure import image_structure
from secateurs.experiments.rows import prepare
from secateurs.experiments.spec import (
    ImageRows,
    ProbeCell,
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
from secateurs.measures.coupling import coupling
from secateurs.measures.invariance import under_view
from secateurs.networks.conv import MLPVis
from secateurs.networks.init import initialise_
from secateurs.networks.pixels import Normalise
from secateurs.optimizers import SGD, AdamW
from secateurs.preparation import groups
from secateurs.schedules import exponential
from secateurs.seeds import stream
from secateurs.tabular import start_network
from secateurs.tickets import TicketConfig
from secateurs.training import PhaseConfig, reestimate_statistics_

ROWS = Rows(dataset="sklearn:wine")
IUNET = TicketConfig(
    search=PhaseConfig(epochs=3, optimizer=SGD(lr=0.05), contrastive_weight=1.0, batch_size=32),
    finetune=PhaseConfig(epochs=7, optimizer=AdamW(), batch_size=32),
    compression=4.0,
)
CELL = TicketCell(rows=ROWS, config=IUNET, widths=(16, 16), seed=3, corruption_rate=0.4)
NETWORKS = ("start", "searched", "untrained", "trained")
MEASURES = {"ratio", "different", "own", "consistency", "majority_share", "kappa"}


def finish(store, *cells):
    for name, cell in with_needs(cells).items():
        status = execute(cell, store.root, device="cpu")
        assert status in ("done", "already"), (store.error(name) or {}).get("traceback")
    return [store.result(key(cell)) for cell in cells]


def probed(name):
    """Return the probe of an arm."""
    return ProbeCell(ticket=replace(CELL, config=arm(name, IUNET)))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def result(store):
    return finish(store, ProbeCell(ticket=CELL))[0]


@pytest.fixture(scope="module")
def networks(store, result):
    """The networks that the probe is about, put together by hand, and the mask."""
    prepared = prepare(ROWS)
    x = prepared.data.train[0]
    x = x[torch.randperm(len(x), generator=stream(3, "probe", "training rows"))]
    ticket, mask = trained(store, key(CELL))
    start = start_network(13, 3, (16, 16), seed=3)
    searched = copy.deepcopy(start)
    (search,) = needs(CELL)
    searched.load_state_dict(unnest(store.tensors(key(search))[0], "state"))
    untrained = copy.deepcopy(start)
    masks.apply_(untrained, mask)
    for network in (start, untrained):
        reestimate_statistics_(network, x, batch_size=32)
    return dict(zip(NETWORKS, (start, searched, untrained, ticket), strict=True)), mask, x


def seen(network, rate=0.4):
    prepared = prepare(ROWS)
    x = prepared.test[0]
    x = x[torch.randperm(len(x), generator=stream(3, "probe", "test rows"))]
    view = corruption(prepared.data.train[0], groups(prepared.preparation), rate=rate)
    draws = stream(3, "probe", "view")
    return under_view(network, x, view, generator=draws, n_views=probes.VIEWS)


# --- invariance ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_is_measured_under_the_cells_own_view(result, networks, name):
    found = result["invariance"][name]
    assert set(found) == MEASURES
    assert found == pytest.approx(seen(networks[0][name]))
    assert result["corruption_rate"] == 0.4


def test_the_networks_differ(result):
    ratios = {result["invariance"][name]["ratio"] for name in NETWORKS}
    assert len(ratios) == 4


def test_fresh_weights_under_the_mask(result, networks):
    _, mask, x = networks
    every = []
    for i in range(probes.FRESH):
        network = start_network(13, 3, (16, 16), seed=0)
        initialise_(network, generator=stream(3, "probe", "fresh", i))
        masks.apply_(network, mask)
        reestimate_statistics_(network, x, batch_size=32)
        every.append(seen(network))
    fresh = result["invariance"]["fresh"]
    for name in MEASURES:
        values = [one[name] for one in every]
        assert len(set(values)) > 1
        assert fresh["mean"][name] == pytest.approx(np.mean(values))
        assert fresh["std"][name] == pytest.approx(np.std(values, ddof=1))


def test_arms_that_share_a_search_share_its_networks(store, result):
    shuffled, untrained = finish(store, probed("shuffled mask"), probed("untrained ticket"))
    for part in ("invariance", "coupling"):
        for name in ("start", "searched"):
            assert shuffled[part][name] == result[part][name]
            assert untrained[part][name] == result[part][name]
    assert shuffled["invariance"]["untrained"] != result["invariance"]["untrained"]
    assert shuffled["invariance"]["fresh"] != result["invariance"]["fresh"]
    assert untrained["invariance"]["untrained"] == result["invariance"]["untrained"]
    assert untrained["invariance"]["trained"] != result["invariance"]["trained"]


def test_tickets_trained_without_views_are_measured_under_the_usual_one(store, networks):
    cell = probed("no-ILO")
    assert cell.ticket.corruption_rate == 0
    (result,) = finish(store, cell)
    assert result["corruption_rate"] == 0.6
    assert result["invariance"]["start"] == pytest.approx(seen(networks[0]["start"], rate=0.6))


# --- coupling, regime ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["start", "searched", "trained"])
def test_coupling_is_that_of_all_weights_before_pruning_and_of_the_kept_ones_after(
    result, networks, name
):
    every, mask, x = networks
    y = prepare(ROWS).data.train[1]
    y = y[torch.randperm(len(y), generator=stream(3, "probe", "training rows"))]
    kept = mask if name == "trained" else masks.ones(mask)
    by_hand = coupling(every[name], x, y, kept, generator=stream(3, "probe", "weights"))
    found = result["coupling"][name]
    assert found["loss"] == pytest.approx(by_hand["loss"])
    assert found["increase"] == pytest.approx(by_hand["increase"])
    assert found["change"] == pytest.approx(by_hand["change"])
    assert found["layers"].keys() == mask.keys()
    for layer, of_layer in found["layers"].items():
        assert of_layer == pytest.approx(by_hand["layers"][layer])


def test_losses_are_weighted_as_in_training(store, networks):
    balanced = ProbeCell(ticket=replace(CELL, class_weight="balanced"))
    (result,) = finish(store, balanced)
    network, (x, y) = networks[0]["start"], prepare(ROWS).data.train
    with torch.no_grad():
        told = network.eval()(x).log_softmax(1)[torch.arange(len(y)), y].double()
    by_class = [float(-told[y == c].mean()) for c in range(3)]
    assert result["coupling"]["start"]["loss"] == pytest.approx(np.mean(by_class), rel=1e-5)


def test_layers_move_and_overlap_one_by_one(store, result, networks):
    every, mask, _ = networks
    start, searched = every["start"].state_dict(), every["searched"].state_dict()
    for name, kept in mask.items():
        scaled = 0.25 * start[name].double()
        moved = float((searched[name] - scaled).norm() / scaled.norm())
        assert result["regime"]["layer_movement"][name] == pytest.approx(moved, rel=1e-5)
        sizes = start[name].abs().flatten()
        top = torch.zeros_like(sizes, dtype=torch.bool)
        top[sizes.argsort(descending=True)[: int(kept.sum())]] = True
        both, either = top & kept.flatten(), top | kept.flatten()
        overlap = int(both.sum()) / int(either.sum())
        assert result["regime"]["layer_start_mask_overlap"][name] == pytest.approx(overlap)
    whole = store.result(key(CELL))["regime"]["weight_movement"]
    assert min(result["regime"]["layer_movement"].values()) < whole
    assert max(result["regime"]["layer_movement"].values()) > whole


# --- rare rows -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "n_neighbours"), [(0.1, 10), (0.25, 1), (0.5, 99), (1.0, 3)])
def test_rare_rows_are_far_from_the_training_rows(share, n_neighbours):
    generator = torch.Generator().manual_seed(0)
    train, test = torch.randn(60, 4, generator=generator), torch.randn(41, 4, generator=generator)
    test[7:9] = 50.0
    rare = probes.rare_rows(train, test, share=share, n_neighbours=n_neighbours)
    assert set(np.flatnonzero(rare)) == slow.rare_rows(train, test, share, n_neighbours)
    assert rare[7]
    assert rare[8]


def test_one_row_is_rare_at_least_and_ties_go_to_the_first():
    rare = probes.rare_rows(torch.zeros(5, 2), torch.zeros(3, 2))
    assert rare.tolist() == [True, False, False]


def test_accuracy_on_rare_rows_and_on_the_rest_make_up_the_whole(store, result):
    prepared = prepare(ROWS)
    y = prepared.test[1].numpy()
    hit = probabilities(store, key(CELL))["test"].argmax(1) == y
    rare = probes.rare_rows(prepared.data.train[0], prepared.test[0])
    found = result["rare"]
    assert found["rows"] == rare.sum() == 4
    assert found["accuracy"] == hit[rare].mean()
    assert found["rest_accuracy"] == hit[~rare].mean()
    accuracy = store.result(key(CELL))["test"]["accuracy"]
    mean = (4 * found["accuracy"] + 32 * found["rest_accuracy"]) / 36
    assert mean == pytest.approx(accuracy)


# --- what has no meaning -------------------------------------------------------------------------


def test_a_dense_network_has_no_search_and_no_mask(store, result):
    (dense,) = finish(store, probed("dense"))
    assert set(dense["invariance"]) == {"start", "trained", "fresh"}
    assert set(dense["coupling"]) == {"start", "trained"}
    assert dense["regime"] == {}
    assert set(dense["rare"]) == {"rows", "accuracy", "rest_accuracy"}
    assert dense["rare"]["rows"] == result["rare"]["rows"]


def test_a_searched_network_without_a_mask(store):
    (found,) = finish(store, probed("no-prune"))
    assert set(found["invariance"]) == {"start", "searched", "trained", "fresh"}
    assert set(found["regime"]) == {"layer_movement"}


def test_pruning_at_initialisation_has_a_mask_and_no_search(store):
    search = replace(IUNET.search, epochs=0, contrastive_weight=0.0)
    (found,) = finish(store, ProbeCell(ticket=replace(CELL, config=replace(IUNET, search=search))))
    assert set(found["invariance"]) == {"start", "untrained", "trained", "fresh"}
    # of the largest weights at the start; over all layers, and that is how they overlap
    assert set(found["regime"]["layer_start_mask_overlap"].values()) == {1.0}
    assert set(found["regime"]) == {"layer_start_mask_overlap"}


def test_what_is_no_number_is_none(store):
    """At a rate that corrupts no column a view changes nothing, and no ratio is finite."""
    (found,) = finish(store, ProbeCell(ticket=replace(CELL, corruption_rate=0.05)))
    for name in NETWORKS:
        assert found["invariance"][name]["ratio"] is None
        assert found["invariance"][name]["consistency"] == 1
    assert found["invariance"]["fresh"]["mean"]["ratio"] is None
    assert json.dumps(found, allow_nan=False)


def test_an_ensemble_is_refused(store):
    cell = ProbeCell(ticket=replace(CELL, n_tickets=2))
    for needed in with_needs([cell]).values():
        status = execute(needed, store.root, device="cpu")
    assert status == "failed"
    assert "probe the members of the ensemble" in store.error(key(cell))["error"]
    store.forget(key(cell))


# --- as a cell -----------------------------------------------------------------------------------


def test_a_probe_is_a_cell_like_any_other(store, result, tmp_path):
    cell = ProbeCell(ticket=CELL)
    assert cell_from_json(describe(cell)) == cell
    other = Store(tmp_path)
    again = finish(other, cell)[0]
    for part in ("invariance", "coupling", "regime", "rare"):
        assert again[part] == result[part]
    frame = other.frame([{"key": key(cell)}])
    assert frame["invariance.fresh.std.kappa"].iloc[0] > 0
    assert frame["coupling.searched.layers.encoder.3.weight.change"].notna().all()
    assert frame["ticket.rows.dataset"].tolist() == ["sklearn:wine"]


@pytest.mark.usefixtures("result")
def test_large_tables_are_sampled(store, monkeypatch):
    for name, rows in (("VIEW_ROWS", 20), ("STATISTICS_ROWS", 70), ("COUPLING_ROWS", 50)):
        monkeypatch.setattr(probes, name, rows)
    cell = ProbeCell(ticket=CELL)
    found = probes.probe(cell, store).result
    assert found["invariance"]["trained"]["majority_share"] * 20 % 1 == 0
    whole = finish(store, cell)[0]
    assert found["coupling"]["trained"]["loss"] != whole["coupling"]["trained"]["loss"]
    assert found["invariance"]["start"] != whole["invariance"]["start"]
    assert found["rare"] == whole["rare"]


def test_a_probe_costs_more_for_wider_networks_and_less_than_without_end():
    both = (replace(CELL, widths=widths) for widths in ((16,), (512,) * 4))
    narrow, wide = (ProbeCell(ticket=ticket) for ticket in both)
    assert 0 < estimate(narrow) < estimate(wide) < 600
    assert estimate(replace(narrow, ticket=replace(CELL, rows=Rows(dataset="sklearn:no")))) == 0


def test_tickets_of_normalised_images_are_refused(tmp_path):
    rows = ImageRows(dataset="sklearn:digits", n_validation=50, n_train=60)
    phase = PhaseConfig(steps=2)
    config = TicketConfig(search=PhaseConfig(epochs=0), finetune=phase)
    ticket = TicketCell(rows=rows, config=config, network="lenet_300_100", widths=(8, 5))
    cell, other = ProbeCell(ticket=ticket), Store(tmp_path)
    assert execute(ticket, other.root, device="cpu") == "done"
    assert execute(cell, other.root, device="cpu") == "failed"
    told = (
        "InputError: a probe looks into tickets of tables or raw images, got sklearn:digits split 0"
    )
    assert other.error(key(cell))["error"].startswith(told)
    assert cell_from_json(describe(cell)) == cell


def test_a_ticket_of_several_rounds_is_probed_beside_its_search(store):
    """What the search left is dense, and is shared with a ticket of one round."""
    rounds = replace(IUNET, compression=8.0, schedule=partial(exponential, rounds=2))
    once, several = finish(
        store,
        *(
            ProbeCell(ticket=replace(CELL, config=config))
            for config in (replace(IUNET, compression=8.0), rounds)
        ),
    )
    for part in ("invariance", "coupling"):
        for name in ("start", "searched"):
            assert several[part][name] == once[part][name]
        assert several[part]["trained"] != once[part]["trained"]
    assert several["regime"]["layer_movement"] == once["regime"]["layer_movement"]


# --- raw images ----------------------------------------------------------------------------------

RAW = ImageRows(dataset="sklearn:digits", n_validation=0, n_train=150, raw=True)
PHASE = PhaseConfig(epochs=1, optimizer=SGD(lr=0.05))
SEARCH = replace(PHASE, contrastive_weight=1.0)
VIS = TicketCell(
    rows=RAW,
    config=TicketConfig(search=SEARCH, finetune=PHASE, compression=4.0),
    network="mlp_vis",
    widths=(1,),
    view="simclr",
    seed=3,
)
LENET = replace(VIS, network="lenet_300_100", widths=(20, 10))
CNN_1 = replace(VIS, network="cnn")


@pytest.fixture(scope="module")
def seen_images(store):
    """Probes of three networks' tickets."""
    cells = (VIS, LENET, CNN_1)
    results = finish(store, *(ProbeCell(ticket=cell) for cell in cells))
    return {cell.network: result for cell, result in zip(cells, results, strict=True)}


@pytest.fixture(scope="module")
def vis_networks(store, seen_images):
    """The networks that the probe of MLP_VIS is about, by hand, its mask and the images."""
    prepared = prepare(RAW)
    x = prepared.data.train[0]
    x = x[torch.randperm(len(x), generator=stream(3, "probe", "training rows"))]
    start = MLPVis(1, size=8, channels=1, normalise=Normalise(*prepared.pixels))
    initialise_(start, generator=stream(3, "init"))
    ticket, mask = trained(store, key(VIS))
    searched, untrained = copy.deepcopy(start), copy.deepcopy(start)
    (search,) = needs(VIS)
    searched.load_state_dict(unnest(store.tensors(key(search))[0], "state"))
    masks.apply_(untrained, mask)
    for network in (start, untrained):
        reestimate_statistics_(network, x, batch_size=128)
    return dict(zip(NETWORKS, (start, searched, untrained, ticket), strict=True)), mask, x


def seen_through(network, transform):
    x = prepare(RAW).test[0]
    x = x[torch.randperm(len(x), generator=stream(3, "probe", "test rows"))]
    draws = stream(3, "probe", "view", transform)
    return under_view(network, x, IMAGE_VIEWS[transform](), generator=draws)


@pytest.mark.parametrize("network", ["mlp_vis", "lenet_300_100", "cnn"])
def test_a_probe_of_images_has_each_transform_and_no_measures_of_tables(seen_images, network):
    found = seen_images[network]
    assert set(found["invariance"]) == set(probes.TRANSFORMS)
    for of_transform in found["invariance"].values():
        assert set(of_transform) == {*NETWORKS, "fresh"}
        for name in NETWORKS:
            assert set(of_transform[name]) == MEASURES
        for kind in ("mean", "std"):
            assert set(of_transform["fresh"][kind]) == MEASURES
    assert not {"coupling", "rare", "corruption_rate"} & set(found)
    assert set(found["regime"]) == {"layer_movement", "layer_start_mask_overlap"}


@pytest.mark.parametrize("transform", ["crop", "flip", "colour"])
@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_of_images_is_measured_under_each_transform(
    seen_images, vis_networks, name, transform
):
    found = seen_images["mlp_vis"]["invariance"][transform][name]
    assert found == pytest.approx(seen_through(vis_networks[0][name], transform), rel=1e-4)


def test_transforms_and_networks_of_images_differ(seen_images):
    crop = seen_images["mlp_vis"]["invariance"]["crop"]
    assert len({crop[name]["ratio"] for name in NETWORKS}) == 4
    trained_one = [seen_images["mlp_vis"]["invariance"][t]["trained"]["ratio"]
                   for t in ("crop", "flip", "colour")]  # fmt: skip
    assert len(set(trained_one)) == 3


def test_a_transform_that_changes_nothing_is_not_seen_at_all(seen_images):
    """Digits are grey."""
    for found in seen_images.values():
        gray = found["invariance"]["grayscale"]
        for name in NETWORKS:
            assert gray[name]["consistency"] == 1
            assert gray[name]["own"] == 0
            assert gray[name]["ratio"] is None  # nothing to divide by
        assert gray["fresh"]["mean"]["consistency"] == 1
        assert gray["fresh"]["std"]["consistency"] == 0


def test_fresh_weights_of_images_have_a_spread(seen_images, vis_networks):
    _, mask, x = vis_networks
    every = []
    for i in range(probes.FRESH):
        network = MLPVis(1, size=8, channels=1, normalise=Normalise(*prepare(RAW).pixels))
        initialise_(network, generator=stream(3, "probe", "fresh", i))
        masks.apply_(network, mask)
        reestimate_statistics_(network, x, batch_size=128)
        every.append(seen_through(network, "crop"))
    fresh = seen_images["mlp_vis"]["invariance"]["crop"]["fresh"]
    for name in MEASURES:
        values = [one[name] for one in every]
        assert len(set(values)) > 1
        assert fresh["mean"][name] == pytest.approx(np.mean(values), rel=1e-4)
        assert fresh["std"][name] == pytest.approx(np.std(values, ddof=1), rel=1e-3)


def test_identical_networks_of_images_have_the_same_measures(store, seen_images):
    dense, shuffled = finish(
        store,
        *(
            ProbeCell(ticket=replace(VIS, config=arm(name, VIS.config)))
            for name in ("dense", "shuffled mask")
        ),
    )
    for transform in probes.TRANSFORMS:
        of = seen_images["mlp_vis"]["invariance"][transform]
        assert set(dense["invariance"][transform]) == {"start", "trained", "fresh"}
        assert dense["invariance"][transform]["start"] == of["start"]
        for name in ("start", "searched"):
            assert shuffled["invariance"][transform][name] == of[name]
    assert dense["regime"] == {}
    one, other = (found["invariance"]["crop"] for found in (shuffled, seen_images["mlp_vis"]))
    assert one["untrained"] != other["untrained"]
    assert one["fresh"] != other["fresh"]


def test_structure_is_that_of_the_trained_ticket(store, seen_images):
    for cell in (VIS, LENET):
        network, mask = trained(store, key(cell))
        expected = probes._told(image_structure(cell, network, mask, (1, 8, 8)))
        found = seen_images[cell.network]
        for name, part in expected.items():
            assert found[name] == part
        assert np.shape(found["maps"]["logits"]) == (10, 1, 8, 8)
        assert np.shape(found["maps"]["units"]) == (16, 1, 8, 8)
    assert {"locality", "matched_locality"} <= set(seen_images["mlp_vis"])
    assert not {"locality", "matched_locality"} & set(seen_images["lenet_300_100"])
    assert set(seen_images["cnn"]) & {"radius", "maps", "locality", "matched_locality"} == set()


def test_a_probe_of_images_is_a_row_of_a_frame(store, seen_images):
    probe = ProbeCell(ticket=VIS)
    assert cell_from_json(describe(probe)) == probe
    frame = store.frame([{"key": key(probe), "arm": "IUNet"}])
    assert frame["ticket.rows.dataset"].tolist() == ["sklearn:digits"]
    assert frame["ticket.network"].tolist() == ["mlp_vis"]
    assert frame["ticket.rows.split"].tolist() == [0]
    assert frame["invariance.crop.fresh.std.kappa"].iloc[0] > 0
    assert np.shape(frame["maps.logits"].iloc[0]) == (10, 1, 8, 8)
    shares = frame["locality.encoder.1.weight.share"].iloc[0]
    assert 0 < shares == seen_images["mlp_vis"]["locality"]["encoder.1.weight"]["share"]


def test_an_ensemble_of_images_is_refused(store):
    with pytest.raises(InputError, match="probe the members of the ensemble"):
        probes.probe(ProbeCell(ticket=replace(VIS, n_tickets=2)), store)


def test_what_is_no_number_is_told_as_none_and_maps_are_left():
    maps = [[0, 255], [3, 4]]
    told = {"a": {"maps": maps, "b": float("nan"), "c": float("-inf")}, "d": 0.5, "e": True}
    found = probes._told(told)
    assert found == {"a": {"maps": maps, "b": None, "c": None}, "d": 0.5, "e": True}
    assert found["a"]["maps"] is maps
