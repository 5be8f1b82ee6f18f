import copy

import pytest
import torch
from torch import nn
from torch.nn.parallel import DataParallel
from torch.nn.utils import prune

from secateurs import masks
from secateurs.errors import InputError


def made(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4)
        )


def pruned_by_torch(seed=0):
    network = made(seed)
    prune.l1_unstructured(network[0], "weight", amount=0.5)
    prune.random_unstructured(network[4], "weight", amount=0.25)
    return network


def test_import_makes_the_network_plain_and_keeps_its_function():
    network, x = pruned_by_torch(), torch.randn(5, 1, 4, 4)
    stored = {"0.weight": network[0].weight_mask == 1, "4.weight": network[4].weight_mask == 1}
    before = network.eval()(x)
    mask = masks.import_torch_prune_(network)
    assert torch.equal(network(x), before)
    assert all(torch.equal(mask[name], kept) for name, kept in stored.items())
    assert list(mask) == list(stored)
    assert masks.kept_per_layer(mask) == {"0.weight": 6, "4.weight": 81}
    masks.check_held(network, mask)
    assert set(network.state_dict()) == set(made().state_dict())
    assert not network[0]._forward_pre_hooks
    made(seed=1).load_state_dict(network.state_dict(), strict=True)
    assert torch.equal(copy.deepcopy(network)(x), before)  # torch's own pruned networks cannot


def test_an_optimizer_keeps_its_parameters_through_an_import():
    network = pruned_by_torch()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    masks.import_torch_prune_(network)
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == set(
        map(id, network.parameters())
    )


def test_export_and_import_undo_each_other():
    network, weights = made(), ("0.weight", "4.weight")
    mask = {n: torch.rand(network.get_parameter(n).shape) < 0.5 for n in weights}
    masks.apply_(network, mask)
    before = copy.deepcopy(network.state_dict())
    masks.export_torch_prune_(network, mask)
    assert prune.is_pruned(network)
    assert {"0.weight_orig", "0.weight_mask"} <= set(network.state_dict())
    back = masks.import_torch_prune_(network)
    assert masks.iou(mask, back) == 1
    assert set(network.state_dict()) == set(before)
    assert all(torch.equal(before[name], now) for name, now in network.state_dict().items())


def test_an_exported_mask_holds_in_training():
    network, x = made(), torch.randn(8, 1, 4, 4)
    mask = {"4.weight": torch.rand(4, 27) < 0.5}
    masks.export_torch_prune_(network, mask)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        network(x).square().sum().backward()
        optimizer.step()
    network(x)
    assert (network[4].weight[~mask["4.weight"]] == 0).all()


def test_a_split_checkpoint_loads_into_a_plain_network():
    network, x = pruned_by_torch(), torch.randn(5, 1, 4, 4)
    state = network.state_dict()
    names = list(state)
    plain, mask = masks.split_torch_prune(state)
    fresh = made(seed=1)
    fresh.load_state_dict(plain, strict=True)
    assert torch.equal(fresh.eval()(x), network.eval()(x))
    assert list(state) == names
    assert masks.iou(mask, masks.import_torch_prune_(network)) == 1
    masks.check_held(plain, mask)


def test_other_parameters_pruned_by_torch_are_carried_under_their_names():
    network = made()
    prune.random_unstructured(network[4], "bias", amount=2)
    prune.random_unstructured(network[1], "weight", amount=1)
    plain, split = masks.split_torch_prune(network.state_dict())
    mask = masks.import_torch_prune_(network)
    assert masks.kept_per_layer(mask) == {"1.weight": 2, "4.bias": 2}
    assert masks.iou(mask, split) == 1
    assert set(plain) == set(made().state_dict())
    masks.check_held(network, mask)
    masks.export_torch_prune_(network, mask)
    assert {"1.weight_mask", "4.bias_mask"} <= set(network.state_dict())


def test_repeated_pruning_is_one_mask():
    layer = nn.Linear(10, 10)
    for _ in range(2):
        prune.l1_unstructured(layer, "weight", amount=0.2)  # of what is left
    assert masks.count(masks.import_torch_prune_(layer)) == 64


def test_names_are_plain_through_a_wrapper():
    network = DataParallel(pruned_by_torch())
    assert list(masks.import_torch_prune_(network)) == ["0.weight", "4.weight"]
    masks.export_torch_prune_(network, {"0.weight": torch.ones(3, 1, 2, 2, dtype=torch.bool)})
    assert prune.is_pruned(network.module[0])


def test_names_that_only_look_pruned_are_passed_through():
    state = {"a_orig": torch.ones(2), "b_mask": torch.ones(2), "c_orig": torch.ones(2)}
    state["c_mask"] = torch.tensor([1.0, 0.0])
    plain, mask = masks.split_torch_prune(state)
    assert list(plain) == ["a_orig", "b_mask", "c"]
    assert list(mask) == ["c"]
    assert plain["c"].tolist() == [1, 0]


def test_nothing_pruned_is_refused():
    with pytest.raises(InputError, match=r"must be pruned by torch\.nn\.utils\.prune"):
        masks.import_torch_prune_(made())
    with pytest.raises(InputError, match=r"must be pruned by torch\.nn\.utils\.prune"):
        masks.split_torch_prune(made().state_dict())


@pytest.mark.parametrize("stored", [torch.tensor([0.5, 1.0]), torch.ones(3), torch.ones(0)])
def test_masks_that_are_not_of_0_and_1_or_of_another_shape_are_refused(stored):
    with pytest.raises(InputError, match="w_mask must be of 0 and 1 and shaped like w_orig"):
        masks.split_torch_prune({"w_orig": torch.ones(2), "w_mask": stored})


def test_a_refused_import_leaves_the_network_as_it_is():
    layer = nn.Linear(2, 1)
    prune.custom_from_mask(layer, "weight", torch.tensor([[0.5, 1.0]]))
    with pytest.raises(InputError, match="weight_mask must be of 0 and 1"):
        masks.import_torch_prune_(layer)
    assert prune.is_pruned(layer)
