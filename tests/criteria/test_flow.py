import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from reference import criteria as slow
from secateurs import criteria, masks
from secateurs.errors import InputError
from secateurs.networks.conv import MLPVis
from secateurs.networks.pixels import Normalise


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def linears(*sizes, bias=False, seed=0):
    """Return a ReLU network in torch's own start."""
    network = nn.Sequential()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for n_in, n_out in pairwise(sizes):
            network.append(nn.Linear(n_in, n_out, bias=bias)).append(nn.ReLU())
    return network[:-1]


def deep(n_hidden, *, seed=0):
    return linears(784, *[512] * n_hidden, 10, seed=seed)


def pruned_in_rounds(network, density, n_rounds):
    """Return the mask after rounds at density ** (i / n), each on the network masked so far."""
    mask, example = None, torch.empty(1, network[0].in_features)
    for i in range(1, n_rounds + 1):
        scores = criteria.synflow(network, example)
        mask = masks.keep_top(scores, density ** (i / n_rounds), within=mask, allow_empty=True)
        masks.apply_(network, mask)
    return list(masks.kept_per_layer(mask).values())


def trained(network, x):
    """Return the network after a few steps: biases and BatchNorm are anything but neutral."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        (network(x) - 1).square().mean().backward()
        optimizer.step()
    return network


def images(n_dims, side=8):
    return torch.randn(6, 3, *[side] * n_dims, generator=seeded())


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body, self.head = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x):
        h = self.stem(x).relu()
        return self.head((h + self.body(h)).relu())


CONSERVING = {
    "linear": (lambda: linears(7, 6, 5, 4), torch.randn(6, 7, generator=seeded())),
    "biases": (lambda: linears(7, 6, 5, bias=True), torch.randn(6, 7, generator=seeded())),
    "batchnorm": (
        lambda: nn.Sequential(
            nn.Linear(7, 6), nn.BatchNorm1d(6, eps=0.1), nn.ReLU(), nn.Dropout(), nn.Linear(6, 3)
        ),
        torch.randn(6, 7, generator=seeded()),
    ),
    "batchnorm without statistics": (
        lambda: nn.Sequential(
            nn.Linear(7, 6),
            nn.BatchNorm1d(6, affine=False, track_running_stats=False),
            nn.ReLU(),
            nn.Linear(6, 3),
        ),
        torch.randn(6, 7, generator=seeded()),
    ),
    "conv1d": (
        lambda: nn.Sequential(
            nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)
        ),
        images(1),
    ),
    "conv2d": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 4, 3, padding="same", groups=2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 2),
        ),
        images(2),
    ),
    "conv3d": (
        lambda: nn.Sequential(
            nn.Conv3d(3, 4, 3, dilation=2), nn.BatchNorm3d(4), nn.ReLU(), nn.Flatten()
        ).append(nn.Linear(256, 2)),
        images(3),
    ),
}


@pytest.mark.parametrize("case", CONSERVING)
def test_every_layer_has_the_same_sum_of_scores(case):
    make, x = CONSERVING[case]
    network = trained(make(), x)
    sums = [float(score.sum()) for score in criteria.synflow(network, x).values()]
    assert len(sums) >= 2
    assert sums[0] > 0
    assert sums == pytest.approx([sums[0]] * len(sums), rel=1e-12)


def test_the_whole_flow_is_shared_between_the_branches_of_a_residual_network():
    scores = criteria.synflow(Residual(), torch.empty(1, 6))
    stem, body, head = (float(score.sum()) for score in scores.values())
    assert stem == pytest.approx(head, rel=1e-12)
    assert 0 < body < head


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_sums_over_all_paths(seed):
    network = linears(4, 3, 5, 2, bias=True, seed=seed)
    scores = criteria.synflow(network, torch.full((9, 4), torch.nan))  # only the shape counts
    twins = slow.synflow([layer.weight.detach() for layer in network[::2]])
    for score, twin in zip(scores.values(), twins, strict=True):
        assert score.dtype == torch.float64
        torch.testing.assert_close(score, twin, rtol=1e-12, atol=0)


def test_signs_biases_and_batchnorm_do_not_matter():
    make, x = CONSERVING["batchnorm"]
    network = trained(make(), x)
    plain = copy.deepcopy(network)
    plain[1] = nn.Identity()
    with torch.no_grad():
        plain[0].bias.zero_()
        plain[0].weight.neg_()
    expected = criteria.synflow(plain, x)
    for name, score in criteria.synflow(network, x).items():
        assert torch.equal(score, expected[name])


def test_a_forward_of_ones_own_on_a_batchnorm_stays():
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    network[1].forward = own = lambda x: x * 2
    criteria.synflow(network, torch.empty(1, 4))
    assert network[1].forward is own
    del network[1].forward
    criteria.synflow(network, torch.empty(1, 4))
    assert "forward" not in network[1].__dict__


def test_forty_layers_overflow_float32_but_not_the_scores():
    network, x = deep(40), torch.empty(1, 784)
    with torch.no_grad():
        h = torch.ones(1, 784)
        for layer in network[::2]:
            h = h @ layer.weight.abs().T
    assert not h.isfinite().all()
    sums = [float(score.sum()) for score in criteria.synflow(network, x).values()]
    assert sums == pytest.approx([sums[0]] * 41, rel=1e-9)


# --- pruning in rounds; the reference numbers are one seed's --------------------------------------


@pytest.mark.parametrize(
    ("density", "expected"), [(1e-3, [129, 37, 100]), (1e-4, [9, 8, 10])], ids=["1e3", "1e4"]
)
def test_kept_weights_of_lenet_after_100_rounds(make_lenet, density, expected):
    kept = [pruned_in_rounds(make_lenet(seed), density, 100) for seed in range(5)]
    assert {sum(layers) for layers in kept} == {round(266200 * density)}
    means = torch.tensor(kept, dtype=torch.float64).mean(0)
    assert means.tolist() == pytest.approx(expected, rel=0.15)


def test_no_layer_of_lenet_collapses_down_to_one_weight_each(make_lenet):
    for seed in range(2):
        assert pruned_in_rounds(make_lenet(seed), 3 / 266200, 100) == [1, 1, 1]


def test_a_single_round_collapses_where_many_do_not():
    assert pruned_in_rounds(deep(9), 1e-3, 1)[:-1] == [0] * 9
    assert min(pruned_in_rounds(deep(9), 1e-3, 10)) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("density", "expected"),
    [
        (1e-2, [3327, 2100, 2713, 2398, 2608, 2503, 2584, 2334, 2875, 1595]),
        (1e-3, [357, 158, *[None] * 7, 263]),
    ],
    ids=["1e2", "1e3"],
)
def test_kept_weights_of_nine_layers_of_512_after_100_rounds(density, expected):
    kept = [pruned_in_rounds(deep(9, seed=seed), density, 100) for seed in range(3)]
    means = torch.tensor(kept, dtype=torch.float64).mean(0).tolist()
    for mean, reference in zip(means, expected, strict=True):
        assert reference is None or mean == pytest.approx(reference, rel=0.15)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("example", "got"), [(torch.tensor(1.0), "a number"), ((1, 784), "tuple")], ids=["0d", "shape"]
)
def test_an_example_must_be_a_batch(example, got):
    with pytest.raises(InputError, match=f"example must be a batch of inputs.*got {got}"):
        criteria.synflow(nn.Linear(2, 1), example)


class Forked(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.used(x)


class Pair(Forked):
    def forward(self, x):
        return self.used(x), self.unused(x)


def test_outputs_that_do_not_depend_on_a_weight_name_it():
    with pytest.raises(InputError, match=r"outputs must depend.*but not on unused\.weight; "):
        criteria.synflow(Forked(), torch.empty(1, 4))
    assert list(criteria.synflow(Forked(), torch.empty(1, 4), only="used*")) == ["used.weight"]


def test_outputs_must_be_one_tensor():
    with pytest.raises(InputError, match="must return one tensor, got tuple"):
        criteria.synflow(Pair(), torch.empty(1, 4))


def test_flows_that_overflow_float64_are_refused():
    network = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))
    with torch.no_grad():
        for layer in network:
            layer.weight.fill_(1e38)
    scores = criteria.synflow(network, torch.empty(1, 4))
    assert all(score.isfinite().all() for score in scores.values())
    network.extend([nn.Linear(4, 4) for _ in range(6)])
    with torch.no_grad():
        for layer in network:
            layer.weight.fill_(1e38)
    with pytest.raises(InputError, match=r"infinity in 0\.weight"):
        criteria.synflow(network, torch.empty(1, 4))


def test_what_normalises_pixels_is_left_out():
    """Else an image of ones is dark, the first ReLU silences it, and every score is 0."""
    plain = MLPVis(1, size=8)
    pixels = MLPVis(1, size=8, normalise=Normalise([0.5] * 3, [0.25] * 3))
    pixels.load_state_dict(plain.state_dict(), strict=False)
    example = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    found, expected = (criteria.synflow(net, example, only="encoder*") for net in (pixels, plain))
    assert all((found[name] == expected[name]).all() for name in expected)
    assert all(bool((scores > 0).any()) for scores in found.values())
    assert pixels(example).isfinite().all()
