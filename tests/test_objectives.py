import math

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import losses

from reference import contrastive
from secateurs import objectives


def batch(seed, *, rows=24, width=8, classes=3):
    generator = torch.Generator().manual_seed(seed)
    h, h_view = torch.randn(2, rows, width, generator=generator, dtype=torch.float64)
    return h, h_view, torch.randint(classes, (rows,), generator=generator)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("seed", range(5))
def test_nce_equals_the_printed_formula(seed, temperature):
    h, h_view, y = batch(seed)
    expected = contrastive.nce(h, h_view, y, temperature)
    assert float(objectives.nce(h, h_view, y, temperature)) == pytest.approx(expected, rel=1e-12)


def own_views_against_other_classes(y):
    """Return PML's (anchor, positive, anchor, negative): own view, and views of other classes."""
    n = len(y)
    rows = torch.arange(n)
    anchors, negatives = (y[:, None] != y[None, :]).nonzero(as_tuple=True)
    return rows, rows + n, anchors, negatives + n


@pytest.mark.parametrize("seed", range(3))
def test_nce_equals_pml_with_explicit_pairs(seed):
    # PML's NT-Xent counts the positive in its denominator: its loss is log(1 + exp(nce))
    h, h_view, y = batch(seed)
    loss = losses.NTXentLoss(temperature=1.0)
    pairs = own_views_against_other_classes(y)
    both, labels = torch.cat([h, h_view]), torch.arange(2 * len(y))
    parts = loss.compute_loss(both, labels, pairs, both, labels)["loss"]["losses"]
    expected = parts.expm1().log().mean()
    assert float(objectives.nce(h, h_view, y)) == pytest.approx(float(expected), rel=1e-10)


def test_views_of_ones_own_class_are_not_negatives():
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    h_view = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    cosines = F.cosine_similarity(h[:, None], h_view[None, :], dim=2)
    loss = objectives.nce(h, h_view, torch.tensor([0, 0, 1]))
    by_hand = -cosines.diagonal().sum() + cosines[0, 2] + cosines[1, 2]
    by_hand = (by_hand + cosines[2, :2].exp().sum().log()) / 3
    torch.testing.assert_close(loss, by_hand)
    for one, other in zip(
        torch.autograd.grad(loss, (h, h_view), retain_graph=True),
        torch.autograd.grad(by_hand, (h, h_view)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_one_class_gives_zero_and_a_zero_gradient(rows):
    h, h_view, _ = batch(0, rows=rows)
    h, h_view = h.requires_grad_(), h_view.requires_grad_()
    loss = objectives.nce(h, h_view, torch.zeros(rows, dtype=torch.int64))
    loss.backward()
    assert float(loss.detach()) == 0
    assert (h.grad == 0).all()
    assert (h_view.grad == 0).all()


@pytest.mark.parametrize("name", sorted(objectives.CONTRASTIVE))
def test_gradients_are_finite_where_all_features_are_dead(name):
    h, h_view, y = batch(0)
    h, h_view = h.float(), h_view.float()
    h[:3] = 0
    h_view[2:5] = 0
    h, h_view = h.requires_grad_(), h_view.requires_grad_()
    loss = objectives.CONTRASTIVE[name](h, h_view, y, 1.0)
    loss.backward()
    assert loss.isfinite()
    assert h.grad.isfinite().all()
    assert h_view.grad.isfinite().all()


@pytest.mark.parametrize("name", sorted(objectives.CONTRASTIVE))
def test_only_directions_count(name):
    h, h_view, y = batch(1)
    one = objectives.CONTRASTIVE[name](h, h_view, y, 0.5)
    other = objectives.CONTRASTIVE[name](7 * h, h_view / 3, y, 0.5)
    assert float(one) == pytest.approx(float(other), rel=1e-12)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_supcon_equals_its_formula_and_pml(seed, temperature):
    h, h_view, y = batch(seed, rows=12)
    ours = float(objectives.supcon(h, h_view, y, temperature))
    oracle = losses.SupConLoss(temperature=temperature)
    pml = float(oracle(torch.cat([h, h_view]), torch.cat([y, y])))
    assert ours == pytest.approx(contrastive.supcon(h, h_view, y, temperature), rel=1e-10)
    assert ours == pytest.approx(pml, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_infonce_equals_its_formula_and_ignores_labels(seed, temperature):
    h, h_view, y = batch(seed)
    ours = float(objectives.infonce(h, h_view, y, temperature))
    assert ours == pytest.approx(contrastive.infonce(h, h_view, temperature), rel=1e-12)
    assert ours == float(objectives.infonce(h, h_view, torch.zeros_like(y), temperature))


def outcomes(name, seed=0, rows=20):
    """Return outputs and targets for one of the losses."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    if name == "mse":
        return logits[:, :1], torch.randn(rows, generator=generator, dtype=torch.float64)
    return logits, torch.randint(3, (rows,), generator=generator)


@pytest.mark.parametrize("name", sorted(objectives.LOSSES))
def test_a_weight_of_zero_equals_an_absent_row(name):
    loss, (outputs, y) = objectives.LOSSES[name], outcomes(name)
    weight = torch.rand(len(y), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight[[2, 5, 11]] = 0
    here = weight > 0
    whole, part = loss(outputs, y, weight), loss(outputs[here], y[here], weight[here])
    assert float(whole) == pytest.approx(float(part), rel=1e-12)


@pytest.mark.parametrize("name", sorted(objectives.LOSSES))
def test_equal_weights_equal_none(name):
    loss, (outputs, y) = objectives.LOSSES[name], outcomes(name)
    weight = torch.full((len(y),), 2.5, dtype=torch.float64)
    assert float(loss(outputs, y, weight)) == pytest.approx(float(loss(outputs, y)), rel=1e-12)


@pytest.mark.parametrize("name", sorted(objectives.LOSSES))
def test_a_weight_of_two_equals_the_row_twice(name):
    loss, (outputs, y) = objectives.LOSSES[name], outcomes(name)
    weight = torch.ones(len(y), dtype=torch.float64)
    weight[3] = 2
    twice = torch.cat([torch.arange(len(y)), torch.tensor([3])])
    expected = loss(outputs[twice], y[twice])
    assert float(loss(outputs, y, weight)) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("name", sorted(objectives.LOSSES))
def test_a_batch_in_which_no_row_counts_gives_zero(name):
    outputs, y = outcomes(name)
    outputs = outputs.clone().requires_grad_()
    loss = objectives.LOSSES[name](outputs, y, torch.zeros(len(y), dtype=torch.float64))
    loss.backward()
    assert float(loss.detach()) == 0
    assert (outputs.grad == 0).all()


def test_cross_entropy_equals_torch_and_a_hand_value():
    logits, y = outcomes("cross_entropy")
    assert float(objectives.cross_entropy(logits, y)) == pytest.approx(
        float(F.cross_entropy(logits, y)), rel=1e-12
    )
    two = torch.tensor([[0.0, math.log(3)]])
    assert float(objectives.cross_entropy(two, torch.tensor([1]))) == pytest.approx(math.log(4 / 3))


def test_mse_of_classes_is_about_centred_one_hot_targets():
    outputs, y = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 3
    by_hand = [
        sum((float(outputs[i, j]) - ((j == int(y[i])) - 1 / 3)) ** 2 for j in range(3)) / 3
        for i in range(5)
    ]
    assert float(objectives.mse(outputs, y)) == pytest.approx(sum(by_hand) / 5)


def test_hinge_stops_at_a_margin_of_one():
    logits = torch.tensor([[2.0, 0.9, 0.5], [2.0, 1.5, 0.0], [0.0, 3.0, 0.0]], requires_grad=True)
    y = torch.tensor([0, 0, 0])
    loss = objectives.hinge(logits, y)
    assert loss.item() == pytest.approx((0 + 0.5 + 4) / 3)
    (slope,) = torch.autograd.grad(loss, logits)
    expected = torch.tensor([[0.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [-1.0, 1.0, 0.0]]) / 3
    torch.testing.assert_close(slope, expected)


def test_mse_takes_one_or_many_targets():
    outputs, y = torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([[1.0, 0.0], [3.0, 3.0]])
    assert float(objectives.mse(outputs, y)) == 2
    assert float(objectives.mse(outputs[:, :1], y[:, 0])) == 0
    assert float(objectives.mse(outputs[:, 1:], y[:, 1])) == 4
