import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given

from reference import scarf
from secateurs import preparation
from secateurs.data.views import corruption, of_columns
from secateurs.errors import InputError

GROUPS = [(0, 1), (1, 4), (4, 5), (5, 7), (7, 8)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def table(rows, *, seed=0):
    """Return rows of distinct numbers in one-column groups, one-hot codes in the others."""
    generator = seeded(seed)
    parts = []
    for start, stop in GROUPS:
        if stop - start == 1:
            parts.append(torch.randn(rows, 1, generator=generator))
        else:
            codes = torch.randint(stop - start, (rows,), generator=generator)
            parts.append(torch.eye(stop - start)[codes])
    return torch.cat(parts, dim=1)


@given(
    spans=st.lists(st.integers(1, 3), min_size=1, max_size=8),
    rate=st.sampled_from([0.0, 0.1, 0.29, 0.5, 0.6, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_exactly_floor_of_rate_times_columns_are_replaced_as_a_whole(spans, rate, seed):
    stops = np.cumsum(spans).tolist()
    groups = list(zip([0, *stops], stops, strict=False))
    reference, x = torch.zeros(5, stops[-1]), torch.ones(6, stops[-1])
    changed = corruption(reference, groups, rate=rate)(x, seeded(seed)) == 0
    n_columns = round(rate * 100) * len(groups) // 100
    for row in changed:
        touched = [row[start:stop] for start, stop in groups]
        assert sum(bool(column.any()) for column in touched) == n_columns
        assert all(bool(column.all()) == bool(column.any()) for column in touched)


@pytest.mark.parametrize("rate", [0.2, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_equals_its_slow_twin(rate, seed):
    reference, x = table(30, seed=seed), table(20, seed=seed + 100)
    fast = corruption(reference, GROUPS, rate=rate)(x, seeded(seed))
    slow = scarf.corrupt(x, reference, GROUPS, rate=rate, generator=seeded(seed))
    assert torch.equal(fast, slow)


def test_values_come_from_the_same_column_of_the_training_rows():
    reference = torch.arange(40.0).view(10, 4)
    groups = [(i, i + 1) for i in range(4)]
    out = corruption(reference, groups, rate=1.0)(torch.full((200, 4), -1.0), seeded())
    for i in range(4):
        assert set(out[:, i].tolist()) == set(reference[:, i].tolist())
    # each column draws a row of its own
    rows = (out / 4).floor()
    assert (rows[:, 0] != rows[:, 1]).float().mean() > 0.8


def test_one_hot_groups_stay_one_hot():
    reference, x = table(30), table(50, seed=1)
    out = corruption(reference, GROUPS, rate=0.6)(x, seeded())
    assert (out[:, 1:4].sum(1) == 1).all()
    assert (out[:, 5:7].sum(1) == 1).all()


def test_replaced_values_follow_the_columns_training_distribution():
    counts = torch.tensor([50, 25, 15, 9, 1])
    values = torch.repeat_interleave(torch.arange(5.0), counts)
    reference = torch.stack([values, values.flip(0)], dim=1)
    view = corruption(reference, [(0, 1), (1, 2)], rate=0.5)
    out = view(torch.full((20_000, 2), -1.0), seeded())
    for column in out.T:
        drawn = column[column >= 0].long().bincount(minlength=5)
        expected = counts / counts.sum() * int(drawn.sum())
        assert scipy.stats.chisquare(drawn.numpy(), expected.double().numpy()).pvalue > 1e-3


def test_every_column_is_replaced_equally_often():
    groups = [(i, i + 1) for i in range(5)]
    out = corruption(torch.zeros(3, 5), groups, rate=0.6)(torch.ones(20_000, 5), seeded())
    share = (out == 0).double().mean(0)
    assert ((share - 0.6).abs() < 0.015).all()  # 4 standard deviations


def test_rate_0_is_the_identity():
    x = table(20)
    assert torch.equal(corruption(table(9, seed=1), GROUPS, rate=0.0)(x, seeded()), x)


def test_rate_1_leaves_nothing():
    x = torch.full((20, 8), torch.nan)
    assert corruption(table(9), GROUPS, rate=1.0)(x, seeded()).isfinite().all()


def test_the_input_is_not_modified_and_the_draw_is_the_generators():
    x, reference, state = table(20), table(30, seed=1), torch.get_rng_state()
    before = x.clone()
    view = corruption(reference, GROUPS)
    one, same, other = (view(x, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), 60])
def test_rates_out_of_range_are_refused(rate):
    with pytest.raises(InputError, match=r"corruption_rate must be in \[0, 1\]"):
        corruption(table(3), GROUPS, rate=rate)


@pytest.mark.parametrize(
    "groups", [[(0, 1)], [(0, 4), (5, 8)], [(0, 5), (4, 8)], [(1, 8)], [(4, 8), (0, 4)], []]
)
def test_groups_that_do_not_tile_the_width_are_refused(groups):
    with pytest.raises(InputError, match="groups must tile the width 8"):
        corruption(table(3), groups)


PREPARED = {
    "format": 1,
    "columns": [
        {"name": "age", "kind": "numeric", "median": 30.0, "mean": 40.0, "scale": 10.0},
        {"name": "job", "kind": "categorical", "categories": ["clerk", "miner"]},
        {"name": "fax", "kind": "dropped"},
        {"name": "pay", "kind": "numeric", "median": 0.0, "mean": 0.0, "scale": 2.0},
    ],
}


def people():
    columns = {
        "age": np.array([20.0, 50.0, 60.0]),
        "job": np.array(["clerk", "miner", "clerk"], dtype=object),
        "pay": np.array([2.0, 4.0, 8.0]),
    }
    return torch.from_numpy(preparation.encode(PREPARED, columns))


def test_a_dict_of_views_changes_its_columns_in_their_own_units():
    def other_job(values, rng):
        assert set(values) == {"clerk", "miner"}
        return np.where(values == "clerk", "miner", "clerk").astype(object)

    view = of_columns(PREPARED, {"age": lambda values, rng: values + 10, "job": other_job})
    out = view(people(), seeded())
    torch.testing.assert_close(out[:, 0], people()[:, 0] + 1)
    assert torch.equal(out[:, 1:3], people()[:, [2, 1]])
    assert torch.equal(out[:, 3], people()[:, 3])


def test_one_callable_sees_and_returns_all_columns():
    def swap(columns, rng):
        assert set(columns) == {"age", "job", "pay"}
        return columns | {"pay": columns["age"] / 10, "age": columns["pay"] * 10}

    out = of_columns(PREPARED, swap)(people(), seeded())
    torch.testing.assert_close(out[:, 3], torch.tensor([1.0, 2.5, 3.0]))
    torch.testing.assert_close(out[:, 0], torch.tensor([-2.0, 0.0, 4.0]))


def test_users_draws_come_from_the_stream():
    view = of_columns(PREPARED, {"pay": lambda values, rng: values + rng.normal(size=len(values))})
    one, same, other = (view(people(), seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    generator = seeded(1)
    assert not torch.equal(view(people(), generator), view(people(), generator))


@pytest.mark.parametrize("views", [{"agee": lambda v, rng: v}, {"fax": lambda v, rng: v}])
def test_unknown_columns_list_the_valid_ones(views):
    with pytest.raises(InputError, match=r"unknown columns: '(agee|fax)'; .* age, job, pay"):
        of_columns(PREPARED, views)


def test_what_is_not_callable_is_refused():
    with pytest.raises(InputError, match="a callable or a dict of callables"):
        of_columns(PREPARED, {"age": 3})
