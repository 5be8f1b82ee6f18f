"""Where kept weights are, as a probe keeps it: levels of maps, radius, the CNN's fields."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from secateurs.experiments.image_structure import LEVELS, TOP_UNITS, image_structure
from secateurs.experiments.spec import ImageRows, TicketCell
from secateurs.experiments.trained import blank
from secateurs.measures.locality import locality, matched_locality, reading_radius
from secateurs.measures.weight_maps import first_layer_maps, logit_maps
from secateurs.networks.init import initialise_, prunable
from secateurs.networks.toeplitz import receptive_field_mask
from secateurs.seeds import stream

SHAPE = (1, 8, 8)
VIS = TicketCell(
    rows=ImageRows(dataset="sklearn:digits", raw=True), network="mlp_vis", widths=(1,), seed=5
)
LENET = replace(VIS, network="lenet_300_100", widths=(20, 10))
FIRST = "encoder.1.weight"


def made(cell, *, shape=SHAPE, density=0.3):
    """Return a network of a cell and a mask of it, which it is set by."""
    network = blank(cell.network, shape, 3, widths=cell.widths, raw=True).to_empty(device="cpu")
    initialise_(network, generator=stream(0, "init"))
    draws = torch.Generator().manual_seed(0)
    mask = {}
    for name, weight in prunable(network, only="encoder.*").items():
        mask[name] = torch.rand(weight.shape, generator=draws) < density
        weight.data *= mask[name]
    return network, mask


@pytest.mark.parametrize("cell", [VIS, LENET], ids=lambda cell: cell.network)
def test_maps_are_whole_numbers_whose_largest_is_the_top_level(cell):
    network, mask = made(cell)
    maps = image_structure(cell, network, mask, SHAPE)["maps"]
    assert np.shape(maps["logits"]) == (3, 1, 8, 8)
    assert np.shape(maps["units"]) == (TOP_UNITS, 1, 8, 8)
    exact = {
        "logits": logit_maps(network, shape=SHAPE),
        "units": first_layer_maps(network, shape=SHAPE, top=TOP_UNITS).maps,
    }
    for name, told in maps.items():
        levels = np.array(told)
        assert levels.dtype.kind == "i"
        assert levels.max() == LEVELS
        assert levels.min() >= 0
        scaled = LEVELS * exact[name].numpy() / float(exact[name].max())
        assert np.abs(levels - scaled).max() <= 0.5
    assert json.loads(json.dumps(maps)) == maps


def test_what_is_pruned_is_dark():
    network, mask = made(VIS)
    units = first_layer_maps(network, shape=SHAPE, top=TOP_UNITS).units
    levels = np.array(image_structure(VIS, network, mask, SHAPE)["maps"]["units"])
    kept = mask[FIRST][units].view(-1, *SHAPE).numpy()
    assert not levels[~kept].any()
    assert levels[kept].mean() > LEVELS / 10


@pytest.mark.parametrize("cell", [VIS, LENET], ids=lambda cell: cell.network)
def test_the_radius_is_of_masks_or_of_weights(cell):
    network, mask = made(cell)
    found = image_structure(cell, network, mask, SHAPE)["radius"]
    weight = dict(network.named_parameters())[FIRST].detach()
    for by, of in (("count", mask[FIRST]), ("magnitude", weight)):
        expected = reading_radius(of, channels=1, size=8, by=by)
        assert found[by] == {
            name: getattr(expected, name) for name in ("radius", "uniform", "pooled")
        }
    assert found["count"]["radius"] != found["magnitude"]["radius"]
    with torch.no_grad():  # sizes are nothing to a count
        network.get_parameter(FIRST)[:, 0] *= 7
    other = image_structure(cell, network, mask, SHAPE)["radius"]
    assert other["count"] == found["count"]
    assert other["magnitude"] != found["magnitude"]


def test_weights_inside_the_cnns_fields_are_all_local():
    network, _ = made(VIS)
    fields = receptive_field_mask(network)
    found = image_structure(VIS, network, fields, SHAPE)
    assert found["locality"]["total"]["share"] == 1
    assert found["locality"]["total"]["lift"] > 2
    assert found["matched_locality"][FIRST]["share"] == 1


def test_locality_is_that_of_the_measures_with_the_cells_own_draws():
    network, mask = made(VIS)
    found = image_structure(VIS, network, mask, SHAPE)
    by_hand = locality(mask, receptive_field_mask(network))
    matched = matched_locality(mask, alpha=1, size=8, channels=1, generator=stream(5, "locality"))
    assert set(found["locality"]) == {*mask, "total"}
    for kind, expected in (("locality", by_hand), ("matched_locality", matched)):
        assert found[kind].keys() == expected.keys()
        for name, one in expected.items():
            assert found[kind][name] == pytest.approx(asdict(one), nan_ok=True)
    assert abs(found["locality"]["total"]["lift"] - 1) < 0.2  # a random mask
    other = image_structure(replace(VIS, seed=6), network, mask, SHAPE)
    assert other["matched_locality"][FIRST]["chance"] != found["matched_locality"][FIRST]["chance"]


def test_a_lenet_has_no_fields():
    network, mask = made(LENET)
    assert set(image_structure(LENET, network, mask, SHAPE)) == {"radius", "maps"}


@pytest.mark.parametrize("name", ["cnn", "resnet18", "resnet18_cifar"])
def test_networks_that_convolve_have_no_such_structure(name):
    cell = replace(VIS, network=name, widths=(4,))
    network, mask = made(cell)
    assert image_structure(cell, network, mask, SHAPE) == {}


def test_images_that_are_not_square_have_maps_and_no_radius():
    shape = (2, 4, 6)
    network, mask = made(LENET, shape=shape)
    found = image_structure(LENET, network, mask, shape)
    assert set(found) == {"maps"}
    assert np.shape(found["maps"]["logits"]) == (3, *shape)


def test_a_mask_that_keeps_nothing_has_dark_maps():
    network, mask = made(VIS, density=0.0)
    found = image_structure(VIS, network, mask, SHAPE)
    for levels in found["maps"].values():
        assert not np.any(levels)
    assert np.isnan(found["radius"]["count"]["radius"])
    assert np.isnan(found["locality"]["total"]["share"])
