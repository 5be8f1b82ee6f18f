import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.parallel import DataParallel
from torch.optim.swa_utils import AveragedModel

from secateurs import masks


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def made(seed=0):
    """Return a network with a BatchNorm and a mask of a third of its Linear weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    weights = {"0.weight": network[0].weight, "3.weight": network[3].weight}
    mask = {n: torch.rand(w.shape, generator=seeded(seed)) < 1 / 3 for n, w in weights.items()}
    return network, mask


def same_bits(one, other):
    """Tell -0.0 from 0.0 and one NaN from another, as torch.equal does not."""
    kind = {torch.float32: torch.int32, torch.int64: torch.int64}
    return all(
        torch.equal(one[name].view(kind[t.dtype]), t.view(kind[t.dtype]))
        for name, t in other.items()
    )


def copied(network):
    return {name: t.detach().clone() for name, t in network.state_dict().items()}


def test_apply_zeroes_the_pruned_weights_and_nothing_else():
    network = nn.Linear(6, 4)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    kept = torch.rand(4, 6, generator=seeded()) < 0.5
    masks.apply_(network, {"weight": kept})
    assert torch.equal(network.weight[kept], before["weight"][kept])
    assert (network.weight[~kept] == 0).all()
    assert torch.equal(network.bias, before["bias"])


def test_one_revived_weight_is_found():
    network, kept = nn.Linear(3, 2), torch.tensor([[True, False, True], [False, False, True]])
    mask = {"weight": kept}
    masks.apply_(network, mask)
    masks.check_held(dict(network.named_parameters()), mask)
    with torch.no_grad():
        network.weight[0, 1] = 1e-30
    with pytest.raises(AssertionError, match="1 pruned weights of weight are not zero"):
        masks.check_held(dict(network.named_parameters()), mask)


def test_pruned_weights_become_zero_whatever_they_were():
    network = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[torch.nan, torch.inf, -1.0, 2.0]]))
    masks.apply_(network, {"weight": torch.tensor([[False, False, False, True]])})
    assert same_bits({"w": network.weight.detach()}, {"w": torch.tensor([[0.0, 0.0, 0.0, 2.0]])})


@pytest.mark.parametrize(
    "wrap", [DataParallel, AveragedModel, partial(torch.compile, backend="eager")]
)
def test_masks_are_applied_through_wrappers(wrap):
    network, mask = made()
    wrapped = wrap(network)
    masks.apply_(wrapped, mask)
    masks.check_held(wrapped, mask)
    assert masks.density({n: w != 0 for n, w in masks.check(wrapped, mask).items()}) < 1


@pytest.mark.parametrize("way", ["apply_", "applied"])
def test_class_keys_and_copies_stay_as_they_are(way):
    network, mask = made()
    kind, keys, hooks = type(network), list(network.state_dict()), list(network[0].__dict__)
    if way == "apply_":
        masks.apply_(network, mask)
        twin = copy.deepcopy(network)
        state = network.state_dict()
    else:
        with masks.applied(network, mask):
            twin = copy.deepcopy(network)
            state = copied(network)
            assert list(network.state_dict()) == keys
    assert type(network) is type(twin) is kind
    assert type(network[0]) is nn.Linear
    assert list(network.state_dict()) == list(twin.state_dict()) == keys
    assert list(network[0].__dict__) == hooks
    assert not network[0]._forward_pre_hooks
    masks.check_held(twin, mask)
    fresh, _ = made(seed=1)
    fresh.load_state_dict(state, strict=True)
    masks.check_held(fresh, mask)
    x = torch.randn(5, 6, generator=seeded())
    assert torch.equal(fresh.eval()(x), twin.eval()(x))


@pytest.mark.parametrize("ends", ["well", "in an error"])
def test_leaving_applied_restores_every_bit(ends):
    network, mask = made()
    with torch.no_grad():  # a signed zero and a NaN are what a product with the mask would lose
        network[0].weight[~mask["0.weight"]] = torch.tensor([-0.0, torch.nan]).repeat(50)[
            : int((~mask["0.weight"]).sum())
        ]
    before = copied(network)
    try:
        with masks.applied(network, mask):
            masks.check_held(network, mask)
            assert not same_bits(before, copied(network))
            if ends == "in an error":
                raise KeyError
    except KeyError:
        pass
    assert same_bits(before, copied(network))


def test_kept_weights_changed_inside_applied_stay_changed():
    network, mask = made()
    before = copied(network)
    with masks.applied(network, mask), torch.no_grad():
        network[0].weight.add_(1)
    now, kept = network[0].weight.detach(), mask["0.weight"]
    assert torch.equal(now[kept], before["0.weight"][kept] + 1)
    assert torch.equal(now[~kept], before["0.weight"][~kept])


def test_an_empty_mask_changes_nothing():
    network, _ = made()
    before = copied(network)
    masks.apply_(network, {})
    with masks.applied(network, {}):
        assert same_bits(before, copied(network))
