"""What every criterion promises, whatever it computes."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune

from secateurs import criteria, masks
from secateurs.errors import InputError

NAMES = sorted(criteria.CRITERIA)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Restless(nn.Module):
    """Nested, convolutional, and its forward pass draws and writes even in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(2, 6, 3, stride=2, padding=1, groups=2),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Sequential(nn.Conv2d(6, 4, 1, bias=False), nn.BatchNorm2d(4, affine=False)),
            nn.Flatten(),
        )
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(16, 3)
        self.gain = nn.Parameter(torch.ones(16))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        h = F.dropout(self.drop(self.trunk(x)), 0.01, training=True)
        return self.head(h.relu() * self.gain)


def restless():
    """Return one in the midst of things: trained a step, partly frozen, modules in both modes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Restless()
        network(images()).square().mean().backward()
    network.trunk[0].weight.requires_grad_(False)
    network.trunk[3][1].eval()
    return network


def images():
    return torch.randn(6, 2, 4, 4, generator=seeded())


def everything(network):
    """Return copies of all that a criterion could leave changed."""
    parameters = dict(network.named_parameters())
    return {
        "tensors": {name: t.clone() for name, t in network.state_dict().items()},
        "grads": {n: None if p.grad is None else p.grad.clone() for n, p in parameters.items()},
        "same": [id(p) for p in parameters.values()]
        + [id(p.grad) for p in parameters.values()]
        + [id(b) for b in network.buffers()],
        "flags": [p.requires_grad for p in parameters.values()],
        "modes": [module.training for module in network.modules()],
        "attributes": [sorted(module.__dict__) for module in network.modules()],
        "hooks": [len(module._forward_pre_hooks) for module in network.modules()],
        "random": torch.get_rng_state(),
    }


def assert_same(one, other):
    for kind in ("tensors", "grads"):
        for name, tensor in one[kind].items():
            both_none = tensor is None and other[kind][name] is None
            assert both_none or torch.equal(tensor, other[kind][name]), name
    for kind in ("same", "flags", "modes", "attributes", "hooks"):
        assert one[kind] == other[kind], kind
    assert torch.equal(one["random"], other["random"])


def test_names_are_the_functions_names_and_public():
    assert all(function.__name__ == name for name, function in criteria.CRITERIA.items())
    functions = {n for n in criteria.__all__ if inspect.isfunction(getattr(criteria, n))}
    assert functions == set(criteria.CRITERIA)


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_plain_finite_tensors_shaped_like_the_weights(scored, name):
    network = restless()
    scores = scored(name, network, images())
    assert list(scores) == ["trunk.0.weight", "trunk.3.0.weight", "head.weight"]
    for layer, score in scores.items():
        weight = network.get_parameter(layer)
        assert score.shape == weight.shape
        assert score.device == weight.device
        assert not score.requires_grad
        assert score.isfinite().all()
        assert score.untyped_storage().data_ptr() != weight.untyped_storage().data_ptr()
        assert score.unique().numel() > 2
    mask = masks.keep_top(scores, 0.5, scope="layer")
    assert list(masks.kept_per_layer(mask).values()) == [27, 12, 24]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_network_is_left_exactly_as_found(scored, name, device, dtype):
    network = restless().to(device, dtype)
    before = everything(network)
    scores = scored(name, network, images().to(dtype))  # rows on the CPU
    assert_same(before, everything(network))
    assert all(score.device.type == device for score in scores.values())


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_cuda_scores_are_those_of_the_cpu(scored, name):
    network, x = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2)), images().flatten(1)
    x = x[:, :16]
    here = scored(name, network, x)
    there = scored(name, network.cuda(), x)
    for layer, score in here.items():
        torch.testing.assert_close(there[layer].cpu(), score, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("random", "wanda", "synflow")])
def test_a_failure_leaves_the_network_as_found_too(scored, name):
    network = restless()
    with torch.no_grad():
        network.head.weight[0, 0] = torch.nan
    before = everything(network)
    del before["tensors"]["head.weight"]  # NaN equals nothing
    with pytest.raises(InputError, match="NaN"):
        scored(name, network, images())
    assert_same(before, everything(network))


@pytest.mark.parametrize("name", ["wanda", "synflow", "snip", "grasp"])
def test_a_forward_pass_that_fails_leaves_the_network_as_found(scored, name):
    network = restless()
    before = everything(network)
    with pytest.raises(RuntimeError):
        scored(name, network, images()[:, :, :1, :1].expand(-1, 5, -1, -1))
    assert_same(before, everything(network))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("context", [torch.no_grad, lambda: torch.autocast("cpu")])
def test_the_callers_context_and_frozen_weights_change_no_score(scored, name, context):
    network = restless()
    scores = scored(name, network, images())
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    network.train(not network.training)
    with context():
        again = scored(name, network, images())
    for layer, score in scores.items():
        assert torch.equal(again[layer], score)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("convolution", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_convolutions_of_every_dimension(scored, name, convolution):
    n_dims = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}[convolution]
    network = nn.Sequential(convolution(2, 4, 3, padding="same"), nn.ReLU(), nn.Flatten())
    network.append(nn.Linear(4 * 3**n_dims, 2))
    scores = scored(name, network, torch.randn(4, 2, *[3] * n_dims, generator=seeded()))
    assert scores["0.weight"].shape == (4, 2, *[3] * n_dims)
    assert (scores["0.weight"] != 0).any()


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["encoder.0.weight", "encoder.3.weight", "decoder.weight"]),
        ({"only": "encoder*"}, ["encoder.0.weight", "encoder.3.weight"]),
        ({"except_": "decoder*"}, ["encoder.0.weight", "encoder.3.weight"]),
        ({"only": ["encoder.0.*", "dec*"]}, ["encoder.0.weight", "decoder.weight"]),
        ({"only": "encoder*", "except_": ["*.0.*"]}, ["encoder.3.weight"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", NAMES)
def test_patterns_choose_the_weights(scored, make_network, data, name, options, names):
    scores = scored(name, make_network(), *data.train, **options)
    assert list(scores) == names
    assert all(scores[n].shape == make_network().get_parameter(n).shape for n in names)


# --- refusals -------------------------------------------------------------------------------------


def tied():
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    network[2].weight = network[0].weight
    return network


def pruned_by_torch():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    prune.l1_unstructured(network[1], "weight", amount=0.5)
    return network


def broken(value):
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    with torch.no_grad():
        network[0].weight.abs_()  # so that what meets the value is not negative
        network[0].bias.fill_(1.0)
        network[1].weight[0, 0] = value
    return network


REFUSED = {
    "nothing": (nn.ReLU, "no Linear or Conv weight matches.*this network has none"),
    "tied": (tied, r"2\.weight and 0\.weight are the same tensor"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(2)), "0 is lazy .*run one batch first"),
    "pruned": (pruned_by_torch, r"1\.weight is computed.*masks\.import_torch_prune_"),
    "parametrised": (
        lambda: nn.Sequential(parametrizations.orthogonal(nn.Linear(3, 3))),
        r"0\.weight is computed from others; .*remove_parametrizations",
    ),
    "complex": (lambda: nn.Linear(3, 2, dtype=torch.complex64), "weight is torch.complex64"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", REFUSED)
def test_weights_that_no_mask_by_name_can_hold_are_refused(scored, name, case):
    make, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as caught:
        scored(name, make(), torch.ones(2, 3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "random"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_scores_that_are_no_numbers_name_their_layers(scored, name, value):
    with pytest.raises(InputError, match=r"finite numbers, got NaN or infinity in .*1\.weight"):
        scored(name, broken(value), torch.ones(2, 3))


def test_a_pattern_that_matches_nothing_lists_the_names(make_network):
    with pytest.raises(InputError, match=r"only='head\*'.*this network has encoder\.0\.weight"):
        criteria.magnitude(make_network(), only="head*")
