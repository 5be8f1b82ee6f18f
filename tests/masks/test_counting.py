import pytest
import torch

from secateurs import masks
from secateurs.errors import InputError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def half(seed=0):
    scores = {
        "a": torch.rand(20, 10, generator=seeded(seed)),
        "b": torch.rand(10, 20, generator=seeded(seed + 1)),
    }
    return masks.keep_top(scores, 0.5)


def test_overlap_is_1_for_equal_and_0_for_disjoint_masks():
    mask = half()
    opposite = {name: ~kept for name, kept in mask.items()}
    assert masks.iou(mask, mask) == 1
    assert masks.iou(mask, opposite) == 0
    assert masks.iou(mask, masks.ones(mask)) == masks.density(mask) == 0.5


def test_overlap_of_independent_masks_is_d_over_2_minus_d():
    scores = [{"w": torch.rand(200, 200, generator=seeded(s))} for s in (1, 2)]
    one, other = (masks.keep_top(s, 0.2) for s in scores)
    assert masks.iou(one, other) == pytest.approx(0.2 / 1.8, abs=0.01)


def test_overlap_of_masks_of_different_weights_is_refused():
    mask = half()
    with pytest.raises(InputError, match=r"b \(one \(10, 20\), other none\)"):
        masks.iou(mask, {"a": mask["a"]})


def test_a_report_has_a_row_for_each_layer_and_the_total_last():
    mask = {"a": torch.tensor([[True, False], [False, False]]), "b": torch.tensor([True, True])}
    assert masks.report(mask) == [
        {"layer": "a", "shape": (2, 2), "kept": 1, "total": 4, "density": 0.25},
        {"layer": "b", "shape": (2,), "kept": 2, "total": 2, "density": 1.0},
        {"layer": "total", "shape": None, "kept": 3, "total": 6, "density": 0.5},
    ]
    assert masks.report(half())[-1]["density"] == masks.density(half())
