import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateurs import masks
from secateurs.errors import InputError
from secateurs.measures import regime


def test_movement_by_hand():
    start = {"a": torch.tensor([3.0]), "b": torch.tensor([0.0, 4.0]), "other": torch.ones(2)}
    end = {"a": torch.tensor([3.0]), "b": torch.tensor([0.0, 7.0]), "other": torch.zeros(2)}
    assert regime.weight_movement(start, end, ["a", "b"]) == pytest.approx(3 / 5)
    assert regime.weight_movement(start, end, ["a"]) == 0
    assert regime.weight_movement(start, end, (name for name in ["a", "b"])) == pytest.approx(0.6)


def test_movement_of_tiny_and_huge_weights_is_the_same():
    start, end = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    one, tiny, huge = (
        regime.weight_movement({"w": start * s}, {"w": end * s}, ["w"]) for s in (1, 1e-25, 1e25)
    )
    assert tiny == pytest.approx(one, rel=1e-5)
    assert huge == pytest.approx(one, rel=1e-5)


def starts(seed):
    generator = torch.Generator().manual_seed(seed)
    # layers of different scale: the overlap is per layer, not global
    return {"a": torch.randn(100, 50, generator=generator), "b": torch.randn(50, 100) * 0.01}


def test_the_mask_of_the_start_overlaps_by_1_and_its_opposite_by_0():
    start = starts(0)
    magnitudes = {name: w.abs() for name, w in start.items()}
    mask = masks.keep_top(magnitudes, 0.2, scope="layer")
    assert regime.start_mask_overlap(start, mask) == 1
    worst = {name: -score for name, score in magnitudes.items()}
    assert regime.start_mask_overlap(start, masks.keep_top(worst, 0.2, scope="layer")) == 0


def test_an_independent_mask_overlaps_by_chance():
    start = starts(0)
    other = {name: w.abs() for name, w in starts(1).items()}
    overlap = regime.start_mask_overlap(start, masks.keep_top(other, 0.2, scope="layer"))
    assert overlap == pytest.approx(0.2 / 1.8, abs=0.02)


def test_an_empty_layer_is_no_error():
    start = {"a": torch.tensor([1.0, 2.0]), "b": torch.ones(2)}
    mask = {"a": torch.tensor([False, True]), "b": torch.zeros(2, dtype=torch.bool)}
    assert regime.start_mask_overlap(start, mask) == 1


def test_a_histogram_counts_every_weight_once_in_its_bin():
    weights = [10 ** (torch.rand(3, 50) * 8 - 6), -(10 ** (torch.rand(40) * 8 - 6)), torch.zeros(7)]
    flat = np.abs(np.concatenate([w.numpy().ravel() for w in weights]).astype(np.float64))
    clipped = np.clip(flat, regime.HISTOGRAM_EDGES[0], regime.HISTOGRAM_EDGES[-1] * (1 - 1e-9))
    twin, _ = np.histogram(clipped, regime.HISTOGRAM_EDGES)
    counts = regime.weight_histogram(weights)
    assert sum(counts) == 197
    # weights within rounding of an edge may fall on either side
    assert np.abs(np.cumsum(counts) - np.cumsum(twin)).max() <= 1


def test_movement_by_layer_is_that_of_each_layer():
    start, end = starts(0), starts(1)
    found = regime.movement_by_layer(start, end, ["b", "a"])
    assert list(found) == ["b", "a"]
    for name in start:
        assert found[name] == pytest.approx(regime.weight_movement(start, end, [name]))


def test_movement_by_layer_looks_at_kept_weights_alone():
    start, end = starts(0), starts(1)
    mask = {"a": torch.rand(100, 50, generator=torch.Generator().manual_seed(2)) < 0.3}
    found = regime.movement_by_layer(start, end, ["a", "b"], mask=mask)
    zeroed = [{**state, "a": state["a"] * mask["a"]} for state in (start, end)]
    assert found["a"] == pytest.approx(regime.weight_movement(*zeroed, ["a"]))
    assert found["b"] == pytest.approx(regime.weight_movement(start, end, ["b"]))
    noisy = {**end, "a": torch.where(mask["a"], end["a"], 1e6)}  # what pruned weights hold
    assert regime.movement_by_layer(start, noisy, ["a"], mask=mask)["a"] == found["a"]


def test_movement_by_layer_of_nothing_and_from_nothing():
    zeros, ones = {"w": torch.zeros(3)}, {"w": torch.ones(3)}
    none = {"w": torch.zeros(3, dtype=torch.bool)}
    assert regime.movement_by_layer(ones, zeros, ["w"], mask=none) == {"w": 0}
    assert regime.movement_by_layer(zeros, zeros, ["w"]) == {"w": 0}
    assert regime.movement_by_layer(zeros, ones, ["w"]) == {"w": float("inf")}
    with pytest.raises(InputError, match="fit the network"):
        regime.movement_by_layer(ones, zeros, ["w"], mask={"w": torch.ones(2) > 0})
    with pytest.raises(InputError, match="must be bool"):
        regime.movement_by_layer(ones, zeros, ["w"], mask={"w": torch.ones(3)})


@given(last=st.integers(0, 10**9), n=st.integers(2, 60))
def test_steps_are_distinct_and_as_many_as_asked(last, n):
    steps = regime.log_spaced(last, n)
    assert len(steps) == min(n, last + 1)
    assert (steps[0], steps[-1]) == (0, last)
    gaps = np.diff(steps)
    assert (gaps > 0).all()


def test_steps_are_one_by_one_at_first_and_then_of_equal_ratios():
    steps = np.array(regime.log_spaced(10**6, 60))
    assert steps[:6].tolist() == [0, 1, 2, 3, 4, 5]
    late = steps[steps > 100]
    ratios = late[1:] / late[:-1]
    assert len(late) > 20
    assert ratios.max() / ratios.min() < 1.02


@pytest.mark.parametrize(("last", "n"), [(-1, 5), (5, 1)])
def test_steps_that_cannot_be_are_refused(last, n):
    with pytest.raises(InputError, match="last >= 0 and n >= 2"):
        regime.log_spaced(last, n)
