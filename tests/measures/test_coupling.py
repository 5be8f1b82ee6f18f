"""Removing a weight is setting it to zero, whatever the network; and what ranks say of it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from reference import removal as slow
from secateurs import masks
from secateurs.errors import InputError
from secateurs.measures.coupling import coupling, removal_losses, sample
from secateurs.networks.init import initialise_, prunable, weights
from secateurs.training import reestimate_statistics_


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def cross_entropy(outputs, y):
    return F.cross_entropy(outputs, y, reduction="none")


def squared(outputs, y):
    return (outputs[:, 0] - y).square()


def assert_equal_to_twin(network, x, y, positions=None, **settings):
    if positions is None:
        positions = {name: torch.arange(w.numel()) for name, w in weights(network).items()}
    fast, loss = removal_losses(network, x, y, positions, **settings)
    twin, whole = slow.removal_losses(
        network, x, y, positions, settings.get("loss", cross_entropy), settings.get("weight")
    )
    assert loss == pytest.approx(whole, rel=1e-12)
    assert fast.keys() == positions.keys()
    for name, increases in fast.items():
        assert increases.tolist() == pytest.approx(twin[name], rel=1e-7, abs=1e-13), name
    return fast


# --- one weight less -----------------------------------------------------------------------------


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_every_weight_of_an_mlp_alone(make_network, data, density):
    network, (x, y) = make_network(widths=(8, 7, 6)), data.train
    scores = {name: w.detach().abs() for name, w in prunable(network, only="encoder.*").items()}
    masks.apply_(network, masks.keep_top(scores, density))
    reestimate_statistics_(network, x, batch_size=32)
    found = assert_equal_to_twin(network, x, y)
    assert set(found) == {"encoder.0.weight", "encoder.3.weight", "encoder.6.weight",
                          "decoder.weight"}  # fmt: skip
    assert all(one.abs().max() > 1e-4 for one in found.values())


def test_more_rows_than_a_pass_holds(make_network, data, monkeypatch):
    network, (x, y) = make_network(), data.train
    positions = {"encoder.3.weight": torch.tensor([200, 3, 3, 77, 0])}
    whole, _ = removal_losses(network, x, y, positions)
    monkeypatch.setattr("secateurs.measures.coupling._PAIRS", 10)
    parts, _ = removal_losses(network, x, y, positions)
    assert torch.allclose(parts["encoder.3.weight"], whole["encoder.3.weight"], atol=1e-14)


def test_rows_count_by_their_weight(make_network, data):
    network, (x, y) = make_network(), data.train
    weight = torch.rand(len(x), generator=seeded())
    chosen = {"encoder.0.weight": torch.arange(40)}
    assert_equal_to_twin(network, x, y, chosen, weight=weight)
    first = (torch.arange(len(x)) < 5).float()
    some, loss = removal_losses(network, x, y, chosen, weight=first)
    same, of_five = removal_losses(network, x[:5], y[:5], chosen)
    assert torch.allclose(some["encoder.0.weight"], same["encoder.0.weight"], atol=1e-12)
    assert loss == pytest.approx(of_five)


def test_a_silent_neuron_and_a_silent_input_change_nothing_at_all(make_network, data):
    network, (x, y) = make_network(widths=(16, 9, 5)), data.train
    with torch.no_grad():
        network.encoder[1].bias[3] = -1e3  # neuron 3 never passes its ReLU
    into = {"encoder.0.weight": 3 * 6 + torch.arange(6)}
    out_of = {"encoder.3.weight": torch.arange(9) * 16 + 3}
    increases = assert_equal_to_twin(network, x, y, into | out_of)
    assert all(not one.any() for one in increases.values())


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Conv1d(4, 6, 3, groups=2, padding=2, dilation=2, stride=2),
        lambda: nn.Conv2d(4, 4, (3, 2), stride=(2, 1), padding=(1, 0), bias=False),
        lambda: nn.Conv2d(4, 8, 3, groups=4, padding="same", padding_mode="reflect"),
        lambda: nn.Conv2d(4, 2, 4, padding="same", padding_mode="circular"),
        lambda: nn.Conv3d(4, 3, 2, dilation=(1, 2, 1), padding=1, padding_mode="replicate"),
    ],
    ids=["1d grouped dilated", "2d strided", "2d depthwise reflected", "2d circular", "3d"],
)
def test_every_weight_of_a_convolution_alone(layer):
    conv = layer()
    size = (7, 6, 5)[: len(conv.kernel_size)]
    x = torch.randn(5, 4, *size, generator=seeded())
    inside = nn.Sequential(conv, nn.ReLU(inplace=True), nn.Dropout(), nn.Flatten())
    network = nn.Sequential(inside, nn.Linear(inside(x).shape[1], 3))
    initialise_(network, generator=seeded())
    assert_equal_to_twin(network, x, torch.tensor([0, 1, 2, 1, 0]))


class Branching(nn.Module):
    """Encoder and decoder, and something in between that no chain shows; works in place."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 5), nn.ReLU(inplace=True))
        self.decoder = nn.Linear(5, 3)

    def forward(self, x):
        return self.decoder(2 * self.encoder(x) + x[:, :5])


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(2, 4)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.embed(x.view(len(x), 3, 2)).relu().flatten(1))


@pytest.mark.parametrize("make", [Branching, Tokens])
def test_networks_that_are_no_chain(make, data):
    network, (x, y) = make(), data.train
    initialise_(network, generator=seeded())
    before = x.clone()
    assert_equal_to_twin(network, x, y)
    assert torch.equal(x, before)


def test_other_losses(make_network, data):
    network, (x, _) = make_network(n_outputs=1), data.train
    assert_equal_to_twin(network, x, x[:, 0], loss=squared)


@pytest.mark.slow
def test_the_papers_depth():
    from secateurs.tabular import start_network

    network = start_network(20, 3, (64,) * 9, seed=0)
    x = torch.randn(200, 20, generator=seeded())
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()
    reestimate_statistics_(network, x, batch_size=64)
    mask = masks.ones(prunable(network, only="encoder.*"))
    drawn, _ = sample(mask, 300, generator=seeded())
    assert_equal_to_twin(network, x, y, drawn)


def test_the_network_is_left_as_it_was(make_network, data):
    network, (x, y) = make_network(), data.train
    network.train()
    before = copy.deepcopy(network.state_dict())
    mask = masks.ones(prunable(network, only="encoder.*"))
    coupling(network, x, y, mask, generator=seeded(), n_weights=20)
    assert network.training
    assert network.encoder[1].training
    assert all(torch.equal(network.state_dict()[name], t) for name, t in before.items())
    assert all(t.dtype == before[name].dtype for name, t in network.state_dict().items())
    assert not network.encoder[0]._forward_hooks


@pytest.mark.parametrize(
    ("positions", "rule"),
    [
        ({"encoder.1.weight": torch.tensor([0])}, "encoder.1.weight"),
        ({"encoder.0.weight": torch.tensor([96])}, r"\[0, 96\), got 96"),
        ({"encoder.0.weight": torch.tensor([-1])}, "got -1"),
    ],
    ids=["BatchNorm", "beyond", "negative"],
)
def test_positions_that_are_not_there_are_refused(make_network, data, positions, rule):
    with pytest.raises(InputError, match=rule):
        removal_losses(make_network(), *data.train, positions)


def test_rows_without_targets_are_refused(make_network, data):
    x, y = data.train
    for rows, targets in ((x[:0], y[:0]), (x, y[:3])):
        with pytest.raises(InputError, match="as many targets as rows"):
            removal_losses(make_network(), rows, targets, {})


# --- the sample ----------------------------------------------------------------------------------


def test_a_sample_has_kept_weights_only_each_once():
    generator = seeded()
    mask = {"a": torch.rand(30, 20, generator=generator) < 0.2, "b": torch.ones(5, 3).bool()}
    mask["c"] = torch.zeros(4, 4).bool()
    drawn, further = sample(mask, 60, min_per_layer=10, generator=generator)
    assert sum(map(len, drawn.values())) == 60
    for name in mask:
        both = torch.cat([drawn[name], further[name]])
        assert len(both) == len(both.unique())
        assert mask[name].flatten()[both].all()
        assert len(both) >= min(10, int(mask[name].sum()))
        assert not len(further[name]) or len(both) == 10
    everything, none = sample(mask, 10_000, generator=generator)
    assert {n: len(part) for n, part in everything.items()} == masks.kept_per_layer(mask)
    assert not any(map(len, none.values()))


def test_every_kept_weight_is_equally_likely():
    mask = {"a": torch.ones(6, 5).bool(), "b": torch.ones(10, 1).bool()}
    counts = {name: torch.zeros(kept.numel()) for name, kept in mask.items()}
    for seed in range(600):
        drawn, _ = sample(mask, 10, min_per_layer=8, generator=seeded(seed))
        for name, part in drawn.items():
            counts[name][part] += 1
    seen = torch.cat(list(counts.values()))  # 150 each; not quite chi-square: without replacement
    assert stats.chisquare(seen.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("settings", [{"n_weights": 0}, {"n_weights": 5, "min_per_layer": -1}])
def test_sizes_of_a_sample_that_cannot_be_are_refused(settings):
    with pytest.raises(InputError, match="n_weights must be at least 1"):
        sample({"a": torch.ones(2, 2).bool()}, generator=seeded(), **settings)


# --- coupling ------------------------------------------------------------------------------------


def linear(values):
    network = nn.Linear(len(values), 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([values]))
    return network


VALUES = [0.5, -2.0, 1.0, -0.1, 3.0]


@pytest.mark.parametrize(
    ("targets", "increase"),
    [
        (VALUES, 1),  # least squares: without w the loss is larger by w^2 / 5
        ([0.0] * 5, -1),  # every weight does harm: without w it is smaller by w^2 / 5
    ],
    ids=["optimum", "harm"],
)
def test_coupling_where_it_is_known(targets, increase):
    mask, y = masks.ones({"weight": torch.zeros(1, 5)}), torch.tensor(targets)
    found = coupling(linear(VALUES), torch.eye(5), y, mask, generator=seeded(), loss=squared)
    assert found["increase"] == pytest.approx(increase)
    assert found["change"] == pytest.approx(1)
    assert found["layers"]["weight"] == {name: found[name] for name in ("increase", "change")}
    assert found["loss"] == pytest.approx(float((torch.tensor(VALUES) - y).square().mean()))


def test_inputs_of_unlike_size_uncouple():
    mask = masks.ones({"weight": torch.zeros(1, 5)})
    x = torch.diag(torch.tensor([1 / w**2 for w in VALUES]))  # removal costs (w / w^2)^2
    found = coupling(
        linear(VALUES), x, x @ torch.tensor(VALUES), mask, generator=seeded(), loss=squared
    )
    assert found["increase"] == pytest.approx(-1)


def test_where_nothing_varies_there_is_no_correlation():
    mask = masks.ones({"weight": torch.zeros(1, 5)})
    found = coupling(linear([1.0] * 5), torch.eye(5), torch.arange(5.0), mask,
                     generator=seeded(), loss=squared)  # fmt: skip
    assert torch.tensor(found["increase"]).isnan()


def test_correlations_are_those_of_the_sample(make_network, data):
    network, (x, y) = make_network(), data.train
    scores = {name: w.detach().abs() for name, w in prunable(network, only="encoder.*").items()}
    mask = masks.keep_top(scores, 0.7)
    found = coupling(network, x, y, mask, generator=seeded(5), n_weights=30, min_per_layer=12)
    drawn, further = sample(mask, 30, min_per_layer=12, generator=seeded(5))
    assert len(further["encoder.0.weight"]) > 0
    assert not len(further["encoder.3.weight"])
    twin = slow.removal_losses(network, x, y, drawn, cross_entropy)[0]
    more = slow.removal_losses(network, x, y, further, cross_entropy)[0]

    def spearman(parts, change):
        sizes = [float(scores[name].flatten()[i]) for name, part, _ in parts for i in part]
        values = [abs(v) if change else v for _, _, increases in parts for v in increases]
        return stats.spearmanr(sizes, values).statistic

    everywhere = [(name, drawn[name], twin[name]) for name in mask]
    assert found["increase"] == pytest.approx(spearman(everywhere, change=False))
    assert found["change"] == pytest.approx(spearman(everywhere, change=True))
    for name in mask:
        layer = [(name, drawn[name], twin[name]), (name, further[name], more[name])]
        assert found["layers"][name]["increase"] == pytest.approx(spearman(layer, change=False))
        assert found["layers"][name]["change"] == pytest.approx(spearman(layer, change=True))
