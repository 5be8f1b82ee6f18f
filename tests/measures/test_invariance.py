"""Limiting cases of invariance, the slow twin of its distances, and a module's measures by hand."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from sklearn.metrics import cohen_kappa_score
from torch import nn

from reference import invariance as slow
from secateurs import objectives
from secateurs.data.views import corruption
from secateurs.errors import InputError
from secateurs.measures.invariance import (
    consistency,
    contrastive_loss,
    distances,
    invariance_ratio,
    represent,
    under_view,
)
from secateurs.training import reestimate_statistics_


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# --- the ratio -----------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**31),
    n=st.integers(2, 7),
    n_features=st.integers(1, 4),
    n_views=st.integers(1, 3),
    scale=st.sampled_from([1e-30, 1.0, 1e30]),
)
def test_distances_are_those_of_all_pairs(seed, n, n_features, n_views, scale):
    """Neurons are silent at random, of some rows all."""
    generator = seeded(seed)
    h = torch.randn(n, n_features, generator=generator).relu()
    h_view = torch.randn(n_views * n, n_features, generator=generator).relu()
    twin = slow.distances(h, h_view)
    assert distances(h * scale, h_view * scale) == pytest.approx(twin, rel=1e-6, abs=1e-12)


def test_representations_of_unlike_length_and_equal_direction_are_alike():
    h = torch.randn(20, 6, generator=seeded()).relu()
    lengths = 10 ** (4 * torch.rand(20, 1, generator=seeded()) - 2)
    different, own = distances(h, h * lengths)
    assert own == 0
    assert different == pytest.approx(distances(h * lengths, h)[0])


def test_a_view_that_changes_nothing_has_an_infinite_ratio():
    h = torch.randn(20, 6, generator=seeded())
    assert invariance_ratio(h, h) == float("inf")


def test_a_view_that_leaves_nothing_has_a_ratio_of_1():
    h = torch.randn(2_000, 30, generator=seeded()).relu()
    others = torch.randn(2_000, 30, generator=seeded(1)).relu()
    assert invariance_ratio(h, others) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_collapsed_representation_has_no_ratio(dtype):
    same = torch.rand(7, generator=seeded(), dtype=dtype)
    h = torch.stack([same] * 9)
    for one in (torch.zeros(9, 7, dtype=dtype), h, h * (1 + torch.finfo(dtype).eps)):
        assert distances(one, h if one.any() else one) == (0, 0)
        assert np.isnan(invariance_ratio(one, one))
    little = h.clone()
    little[0, 0] += 300 * torch.finfo(dtype).eps
    assert distances(h, little)[1] > 0


def test_the_ratio_falls_with_noise():
    h = torch.randn(200, 10, generator=seeded())
    noise = torch.randn(200, 10, generator=seeded(1))
    ratios = [invariance_ratio(h, h + size * noise) for size in (0.1, 0.3, 1.0, 3.0)]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] > 50 > 2 > ratios[-1]


@pytest.mark.parametrize(
    ("h", "h_view"),
    [((1, 3), (1, 3)), ((4, 3), (5, 3)), ((4, 3), (4, 2)), ((4, 3), (0, 3))],
    ids=["one row", "no multiple", "features", "no views"],
)
def test_representations_that_do_not_fit_are_refused(h, h_view):
    with pytest.raises(InputError, match="at least 2 inputs"):
        invariance_ratio(torch.ones(h), torch.ones(h_view))


# --- consistency ---------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**31), n=st.integers(1, 30), n_classes=st.integers(1, 5))
def test_kappa_is_cohens(seed, n, n_classes):
    one, other = torch.randint(n_classes, (2, n), generator=seeded(seed))
    found = consistency(one, other)
    same = [a == b for a, b in zip(one.tolist(), other.tolist(), strict=True)]
    assert found["consistency"] == sum(same) / n
    most = max(one.tolist().count(c) for c in range(n_classes))
    assert found["majority_share"] == most / n
    if len(set(one.tolist())) == 1 or len(set(other.tolist())) == 1:
        assert found["kappa"] == 0  # a constant prediction agrees no better than chance
    else:
        twin = cohen_kappa_score(one.numpy(), other.numpy())
        assert found["kappa"] == pytest.approx(twin, abs=1e-12)


def test_what_a_label_is_called_does_not_matter():
    one, other = torch.randint(3, (2, 40), generator=seeded())
    codes = torch.tensor([-7, 900, 3])
    assert consistency(codes[one], codes[other]) == consistency(one, other)
    assert consistency(one, one)["kappa"] == 1


@pytest.mark.parametrize(("one", "other"), [((0,), (0,)), ((3,), (4,)), ((3, 2), (3, 2))])
def test_labels_that_do_not_fit_are_refused(one, other):
    with pytest.raises(InputError, match=r"labels must be \[rows\]"):
        consistency(torch.zeros(one), torch.zeros(other))


# --- modules -------------------------------------------------------------------------------------


def test_representations_are_those_of_the_encoder_in_evaluation(make_network, data, monkeypatch):
    network, (x, _) = make_network(), data.train
    reestimate_statistics_(network, x, batch_size=32)
    network.eval()
    h, outputs = network.encoder(x), network(x)
    network.train()
    network.encoder[1].eval()  # somebody froze it
    monkeypatch.setattr("secateurs.measures.invariance._ROWS", 40)
    for found, expected in zip(represent(network, x), (h, outputs), strict=True):
        assert torch.allclose(found, expected, atol=1e-6)
        assert not found.requires_grad
    assert network.training
    assert network.encoder[4].training
    assert not network.encoder[1].training
    assert not network.encoder._forward_hooks
    assert (h >= 0).all()


def test_images_are_represented_too():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    h, outputs = represent(network, torch.ones(5, 3, 8, 8), encoder="0")
    assert h.shape == (5, 4 * 6 * 6)
    assert outputs.shape == (5, 2)


def test_a_missing_encoder_is_named():
    with pytest.raises(InputError, match=r"submodule 'encoder' .* submodules: 0, 1"):
        represent(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.ones(2, 2))


def test_a_modules_measures_by_hand(make_network, data):
    network, (x, _) = make_network(), data.train
    reestimate_statistics_(network, x, batch_size=32)
    network.eval()
    view = corruption(x, [(i, i + 1) for i in range(6)], rate=0.5)
    found = under_view(network, x, view, generator=seeded(4), n_views=3)
    generator = seeded(4)
    seen = [view(x, generator) for _ in range(3)]
    with torch.no_grad():
        h = network.encoder(x)
        one = network(x).argmax(1)
        h_view = torch.cat([network.encoder(part) for part in seen])
        other = torch.cat([network(part).argmax(1) for part in seen])
    different, own = distances(h, h_view)
    assert found["different"] == pytest.approx(different)
    assert found["own"] == pytest.approx(own)
    assert found["ratio"] == pytest.approx(different / own)
    expected = consistency(torch.cat([one] * 3), other)
    assert {name: found[name] for name in expected} == expected
    assert 0.1 < found["kappa"] < found["consistency"] < 1
    assert under_view(network, x, view, generator=seeded(4), n_views=3) == found


def test_a_network_that_does_not_read_what_the_view_changes(make_network, data):
    network, (x, _) = make_network(), data.train
    with torch.no_grad():
        network.encoder[0].weight[:, :3] = 0
    reestimate_statistics_(network, x, batch_size=32)

    def view(x, generator):
        drawn = torch.randn(x.shape, generator=generator)
        return torch.where(torch.arange(6) < 3, drawn, x)

    found = under_view(network, x, view, generator=seeded())
    assert found["own"] == 0
    assert found["ratio"] == float("inf")
    assert found["consistency"] == found["kappa"] == 1


def test_a_constant_network_is_consistent_and_nothing_else(make_network, data):
    network, (x, _) = make_network(), data.train
    with torch.no_grad():
        network.decoder.weight.zero_()
    found = under_view(network, x, lambda x, _: -x, generator=seeded())
    assert found["consistency"] == found["majority_share"] == 1
    assert found["kappa"] == 0
    assert 0 < found["ratio"] < 10  # its representation is not constant


def test_what_is_no_classifier_is_refused(make_network, data):
    x = data.train[0]
    with pytest.raises(InputError, match="at least 2 classes"):
        under_view(make_network(n_outputs=1), x, lambda x, _: x, generator=seeded())
    with pytest.raises(InputError, match="n_views must be at least 1, got 0"):
        under_view(make_network(), x, lambda x, _: x, generator=seeded(), n_views=0)


# --- the contrastive term ------------------------------------------------------------------------


def shifted(x, generator):
    return x + torch.randn(x.shape, generator=generator)


def test_the_contrastive_loss_is_that_of_whole_batches_in_evaluation(make_network, data):
    network, (x, y) = make_network(), data.train
    reestimate_statistics_(network, x, batch_size=32)
    network.train()
    n, view = 64, shifted(x, seeded(5))
    for size in (16, 32, 64):
        found = contrastive_loss(
            network, x[:n], y[:n], shifted, generator=seeded(5), batch_size=size, temperature=0.5
        )
        with torch.no_grad():
            network.eval()
            h, seen = (network.encoder(part[:n]) for part in (x, shifted(x[:n], seeded(5))))
            network.train()
        by_hand = [
            objectives.nce(h[i : i + size], seen[i : i + size], y[i : i + size], 0.5)
            for i in range(0, n, size)
        ]
        assert found == pytest.approx(float(torch.stack(by_hand).mean()), rel=1e-5)
    assert not torch.equal(view[:n], x[:n])
    assert network.training


def test_negatives_are_those_of_a_batch(make_network, data):
    network, (x, y) = make_network(), data.train
    told = [
        contrastive_loss(network, x[:64], y[:64], shifted, generator=seeded(), batch_size=size)
        for size in (16, 32, 64)
    ]
    assert told == sorted(told)  # the log of a sum over more of them
    assert told[0] < told[1] - 0.3 < told[2] - 0.6


@pytest.mark.parametrize("left", [1, 2, 15])
def test_a_batch_that_is_not_full_is_left_out(make_network, data, left):
    network, (x, y) = make_network(), data.train

    def of(rows):
        # the view of a row does not depend on how many there are
        return contrastive_loss(
            network, x[:rows], y[:rows], lambda x, _: x + 1, generator=seeded(), batch_size=16
        )

    assert of(32 + left) == pytest.approx(of(32), rel=1e-6)
    assert of(48) != pytest.approx(of(32), rel=1e-6)


def test_another_term_and_its_temperature_are_the_ones_asked_for(make_network, data):
    network, (x, y) = make_network(), data.train
    h, _ = represent(network, x[:32])
    seen, _ = represent(network, shifted(x[:32], seeded()))
    for term in (objectives.supcon, objectives.infonce):
        found = contrastive_loss(
            network, x[:32], y[:32], shifted, generator=seeded(), contrastive=term,
            temperature=0.2, batch_size=32,
        )  # fmt: skip
        assert found == pytest.approx(float(term(h, seen, y[:32], 0.2)), rel=1e-5)


@pytest.mark.parametrize("n", [0, 1, 31])
def test_fewer_rows_than_a_batch_have_no_contrastive_loss(make_network, data, n):
    x, y = data.train
    with pytest.raises(
        InputError, match=f"at least one batch of 32 rows, got {n}; pass more rows or a smaller"
    ):
        contrastive_loss(make_network(), x[:n], y[:n], shifted, generator=seeded(), batch_size=32)


def test_a_contrastive_loss_needs_the_encoder(make_network, data):
    x, y = data.train
    with pytest.raises(InputError, match="submodule 'body'"):
        contrastive_loss(
            make_network(), x, y, shifted, generator=seeded(), batch_size=16, encoder="body"
        )
