"""Batches and losses: what the criteria of derivatives share."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from secateurs import criteria, objectives
from secateurs.criteria.scoring import finite
from secateurs.errors import InputError

OF_BATCHES = ["gradient", "snip", "grasp", "grasp_abs"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(n=100, *, width=5, classes=3, seed=0):
    x = torch.randn(n, width, generator=seeded(seed), dtype=torch.float64)
    return x, torch.randint(classes, (n,), generator=seeded(seed))


def tanh_network(seed=0, *, scale=1.0):
    """Return a float64 network of 5, 4, 4 and 3 units with biases."""
    sizes = ((5, 4), (4, 4), (4, 3))
    network = nn.Sequential()
    for n_in, n_out in sizes:
        network.append(nn.Linear(n_in, n_out, dtype=torch.float64)).append(nn.Tanh())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=seeded(seed)) * scale)
    return network[:-1]


@pytest.mark.parametrize("sizes", [(10,) * 10, (37, 1, 62), (99, 1)])
@pytest.mark.parametrize("name", OF_BATCHES)
def test_how_rows_are_cut_into_batches_does_not_matter(scored, name, sizes):
    network, (x, y) = tanh_network(), rows(100)
    whole = scored(name, network, x, y)
    batches = list(zip(x.split(sizes), y.split(sizes), strict=True))
    for layer, score in criteria.CRITERIA[name](network, batches).items():
        torch.testing.assert_close(score, whole[layer], rtol=1e-9, atol=1e-18)


@pytest.mark.parametrize("name", OF_BATCHES)
def test_a_dataloader_gives_the_scores_of_a_list(scored, name):
    network, (x, y) = tanh_network(), rows(30)
    loader = DataLoader(TensorDataset(x, y), batch_size=7, shuffle=True)
    state = torch.get_rng_state()
    for layer, score in criteria.CRITERIA[name](network, loader).items():
        torch.testing.assert_close(score, scored(name, network, x, y)[layer])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", OF_BATCHES)
def test_memory_does_not_grow_with_the_number_of_batches(name):
    alive, most = [], []

    def loss(outputs, y):
        alive.append(weakref.ref(outputs))
        most.append(sum(ref() is not None for ref in alive))
        return F.cross_entropy(outputs, y)

    criteria.CRITERIA[name](tanh_network(), [rows(4)] * 20, loss=loss)
    assert len(most) >= 20
    assert max(most) <= 2


def test_a_generator_is_enough_for_one_pass():
    network, batch = tanh_network(), rows()
    scores = criteria.snip(network, (b for b in [batch]))
    whole = criteria.snip(network, [batch])
    assert all(torch.equal(scores[name], whole[name]) for name in whole)


class Experts(nn.Module):
    """Two layers; which of them a batch meets is told by the sign of its first value."""

    def __init__(self):
        super().__init__()
        self.plus, self.minus = nn.Linear(5, 3).double(), nn.Linear(5, 3).double()

    def forward(self, x):
        return (self.plus if x[0, 0] > 0 else self.minus)(x)


@pytest.mark.parametrize("name", OF_BATCHES)
@pytest.mark.parametrize("order", [1, -1])
def test_a_batch_that_does_not_meet_a_weight_counts_as_zero(scored, name, order):
    network, (x, y) = Experts(), rows(10)
    first = torch.ones(10, 1, dtype=torch.float64)
    plus, minus = (torch.cat([sign * first, x[:, 1:]], 1) for sign in (1, -1))
    scores = criteria.CRITERIA[name](network, [(plus, y), (minus, y)][::order])
    alone = scored(name, network.plus, plus, y)["weight"]
    # g and, for GraSP, the second mean too are halved
    factor = 4 if "grasp" in name else 2
    torch.testing.assert_close(scores["plus.weight"] * factor, alone)


@pytest.mark.parametrize("name", ["gradient", "snip"])
def test_losses_of_two_arguments_all_work(name):
    network, batch = tanh_network(), rows()
    losses = [objectives.cross_entropy, F.cross_entropy, nn.CrossEntropyLoss()]
    one, *others = [criteria.CRITERIA[name](network, [batch], loss=loss) for loss in losses]
    for other in others:
        for layer, score in one.items():
            torch.testing.assert_close(other[layer], score)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], r"at least one pair \(x, y\), got none"),
        (iter([]), r"at least one pair"),
        (rows(4), r"must be a pair \(x, y\), got Tensor; .*one batch as \[\(x, y\)\]"),
        ([(*rows(4), None)], r"must be a pair \(x, y\), got tuple"),
        ([rows(0)], "must have rows, got one with none"),
    ],
    ids=["none", "used up", "bare pair", "triple", "no rows"],
)
@pytest.mark.parametrize("name", ["gradient", "snip", "wanda"])
def test_batches_that_are_none_are_refused(name, batches, message):
    with pytest.raises(InputError, match=message):
        criteria.CRITERIA[name](tanh_network(), batches)


@pytest.mark.parametrize("name", OF_BATCHES)
@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda o, y: F.cross_entropy(o, y, reduction="none"), r"got \(100,\)"),
        (lambda o, y: F.cross_entropy(o, y).item(), r"got float; .*do not call \.item"),
        (lambda o, y: o.detach().mean(), r"not on 0\.weight, 2\.weight, 4\.weight"),
        (lambda o, y: o.mean() * torch.inf, r"NaN or infinity in .*4\.weight"),
    ],
    ids=["per row", "number", "detached", "infinite"],
)
def test_losses_that_give_no_scores_are_refused(name, loss, message):
    with pytest.raises(InputError, match=message):
        criteria.CRITERIA[name](tanh_network(), [rows()], loss=loss)


@pytest.mark.parametrize("name", OF_BATCHES)
def test_a_loss_that_does_not_depend_on_a_weight_names_it(name):
    network = tanh_network()
    network.append(nn.Identity())
    network[5].unused = nn.Linear(2, 2)
    with pytest.raises(InputError, match=r"must depend.*but not on 5\.unused\.weight; "):
        criteria.CRITERIA[name](network, [rows()])
    assert list(criteria.CRITERIA[name](network, [rows()], except_="5.*")) == [
        "0.weight",
        "2.weight",
        "4.weight",
    ]


def test_scores_whose_sum_overflows_are_finite_all_the_same():
    large = {"w": torch.full((2,), 3e38)}
    assert finite(large) is large
