import copy

import pytest
import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from secateurs import masks
from secateurs.errors import InputError
from secateurs.masks.matching import owners


class Named(nn.Module):
    """A plain network whose own parts are called as the wrappers call theirs."""

    def __init__(self):
        super().__init__()
        self.module = nn.Linear(3, 2)
        self.net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))

    def forward(self, x):
        return self.net(self.module(x))


@pytest.fixture
def process_group(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def enter_applied(network, mask):
    with masks.applied(network, mask):
        pass


def enter_hold(network, mask):
    with masks.hold(network, mask, torch.optim.SGD(network.parameters())):
        pass


USES = [
    masks.check,
    masks.apply_,
    masks.check_held,
    masks.export_torch_prune_,
    enter_applied,
    enter_hold,
]


def plain_names():
    return [name for name, _ in Named().named_parameters()]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda net: net,
        DataParallel,
        AveragedModel,
        lambda net: torch.compile(net, backend="eager"),
        lambda net: torch.compile(DataParallel(net), backend="eager"),
        lambda net: DataParallel(torch.compile(net, backend="eager")),
    ],
    ids=["plain", "DataParallel", "AveragedModel", "compiled", "compiled DP", "DP of compiled"],
)
def test_names_are_the_plain_ones_under_every_wrapper(wrap):
    wrapped = wrap(Named())
    assert list(owners(wrapped)) == plain_names()
    found = [getattr(*owner) for owner in owners(wrapped).values()]
    assert [id(p) for p in found] == [id(p) for p in wrapped.parameters()]


def test_names_are_the_plain_ones_under_distributed_data_parallel(process_group):
    assert list(owners(DistributedDataParallel(Named()))) == plain_names()


def test_a_part_may_be_wrapped_alone():
    network = Named()
    network.net = DataParallel(network.net)
    network.net.module[0] = torch.compile(network.net.module[0], backend="eager")
    assert "net.module.0._orig_mod.weight" in dict(network.named_parameters())
    assert list(owners(network)) == plain_names()


def test_both_names_of_a_tied_weight_are_found():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    assert {"0.weight", "1.weight"} <= set(owners(network))


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ({"weight": (2, 3)}, r"weight \(mask \(2, 3\), network none\)"),
        ({"0.weight": (3, 2)}, r"0\.weight \(mask \(3, 2\), network \(2, 3\)\)"),
        (
            {"0.weight": (2, 3), "1.weight": (4,), "a": ()},
            r"1\.weight \(mask \(4,\), network \(1, 2\)\), a \(mask \(\), network none\)",
        ),
        ({f"x.{i}": (1,) for i in range(9)}, r"x\.3 \(mask \(1,\), network none\) and 5 more"),
    ],
    ids=["name", "shape", "both", "many"],
)
@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_a_mask_of_another_network_is_refused_in_one_line(mask, words, use):
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    before = copy.deepcopy(network.state_dict())
    mask = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in mask.items()}
    with pytest.raises(InputError, match=words) as caught:
        use(network, mask)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[name], now) for name, now in network.state_dict().items())


def test_a_mask_may_name_some_of_the_weights():
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    found = masks.check(network, {"1.weight": torch.ones(1, 2, dtype=torch.bool)})
    assert list(found) == ["1.weight"]
    assert found["1.weight"] is network[1].weight
    assert masks.check(dict(network.named_parameters()), {}) == {}


@pytest.mark.parametrize("kind", [torch.float32, torch.uint8])
def test_a_mask_that_is_not_bool_is_refused(kind):
    with pytest.raises(InputError, match=r"a mask must be bool, got weight \(torch\."):
        masks.check(nn.Linear(3, 2), {"weight": torch.ones(2, 3, dtype=kind)})
