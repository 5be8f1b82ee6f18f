import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given

from reference import scarf
from reference import shift as slow_shift
from secateurs import preparation
from secateurs.data.views import compose, corruption, of_columns, pixel_corruption, shift
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


# --- images -------------------------------------------------------------------------------------


def pictures(n, *, channels=1, height=5, width=6, seed=0):
    return torch.randn(n, channels, height, width, generator=seeded(seed))


def moves_of(out, *, pixels):
    """Return (down, right) of each image that was all zeros but for a 1 in the middle."""
    places = out[:, 0].flatten(1).argmax(1)
    middle = out.shape[-1] // 2
    moves = torch.stack([places // out.shape[-1], places % out.shape[-1]], dim=1) - middle
    assert (moves.abs() <= pixels).all()
    return moves


def dots(n, *, side=7):
    x = torch.zeros(n, 1, side, side)
    x[..., side // 2, side // 2] = 1
    return x


@given(
    pixels=st.integers(0, 4),
    channels=st.integers(1, 3),
    fill=st.sampled_from([0.0, -0.42]),
    seed=st.integers(0, 2**31),
)
def test_shift_equals_its_slow_twin(pixels, channels, fill, seed):
    x = pictures(3, channels=channels, seed=seed)
    fast = shift(pixels, fill=fill)(x, seeded(seed))
    slow = slow_shift.move(x, pixels=pixels, fill=fill, generator=seeded(seed))
    assert torch.equal(fast, slow)


@pytest.mark.parametrize("pixels", [1, 2, 3])
def test_every_shift_is_equally_likely(pixels):
    n_moves = 2 * pixels + 1
    counts = np.zeros(n_moves**2)
    view, x = shift(pixels), dots(100)
    for seed in range(100):
        down, right = (moves_of(view(x, seeded(seed)), pixels=pixels) + pixels).T
        counts += (down * n_moves + right).bincount(minlength=n_moves**2).numpy()
    assert counts.sum() == 10_000
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_each_image_of_a_batch_is_moved_on_its_own():
    moves = moves_of(shift(3)(dots(500), seeded()), pixels=3).double()
    assert len({tuple(move) for move in moves.tolist()}) == 49
    correlations = (
        torch.corrcoef(moves.T)[0, 1],  # down and right
        torch.corrcoef(torch.stack([moves[:-1, 0], moves[1:, 0]]))[0, 1],  # neighbours
    )
    assert all(abs(float(one)) < 0.18 for one in correlations)  # 4 standard deviations


def test_shift_by_0_and_pixel_rate_0_are_the_identity():
    x = pictures(4, channels=2)
    assert torch.equal(shift(0)(x, seeded()), x)
    assert torch.equal(pixel_corruption(x + 1, rate=0.0)(x, seeded()), x)


@given(
    rate=st.sampled_from([0.0, 0.1, 0.29, 0.6, 1.0]),
    channels=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
def test_exactly_floor_of_rate_times_pixels_are_replaced_in_all_channels(rate, channels, seed):
    reference = pictures(7, channels=channels).zero_()
    x = torch.ones_like(pictures(3, channels=channels))
    changed = pixel_corruption(reference, rate=rate)(x, seeded(seed)) == 0
    assert torch.equal(changed.all(1), changed.any(1))
    assert changed[:, 0].sum((1, 2)).tolist() == [round(rate * 100) * 30 // 100] * 3


@pytest.mark.parametrize("channels", [1, 3])
def test_corrupted_pixels_have_the_values_of_their_own_place(channels):
    reference = torch.arange(8.0).view(8, 1, 1, 1) * 1000 + torch.arange(channels * 30).view(
        channels, 5, 6
    )
    x = torch.full((400, channels, 5, 6), -1.0)
    out = pixel_corruption(reference, rate=1.0)(x, seeded())
    assert torch.equal(out % 1000, (reference[:1] % 1000).expand_as(out))
    images = (out // 1000)[:, 0].long()
    # each image and each pixel draws a training image of its own, uniformly
    assert scipy.stats.chisquare(images.flatten().bincount(minlength=8)).pvalue > 1e-3
    same_row = (images[:, 0, 0] == images[:, 4, 5]).double().mean()
    same_pixel = (images[:-1] == images[1:]).double().mean()
    assert abs(float(same_row) - 1 / 8) < 0.07
    assert abs(float(same_pixel) - 1 / 8) < 0.015


def test_pixels_are_chosen_equally_often_and_apart_from_each_other():
    x = torch.ones(6000, 1, 5, 6)
    changed = pixel_corruption(torch.zeros(3, 1, 5, 6), rate=0.5)(x, seeded()) == 0
    share = changed.double().mean(0)
    assert ((share - 0.5).abs() < 0.026).all()  # 4 standard deviations
    assert len({tuple(row) for row in changed.flatten(1).tolist()}) > 5900


def test_composed_views_follow_each_other_on_one_generator():
    x, reference = pictures(4), pictures(9, seed=1)
    one, two = shift(2, fill=-1.0), pixel_corruption(reference, rate=0.3)
    generator = seeded(5)
    expected = two(one(x, generator), generator)
    assert torch.equal(compose(one, two)(x, seeded(5)), expected)
    assert not torch.equal(compose(two, one)(x, seeded(5)), expected)
    assert compose()(x, seeded()) is x


@pytest.mark.parametrize("make", [lambda: shift(2), lambda: pixel_corruption(REFERENCE, rate=0.5)])
def test_views_of_images_leave_their_input_and_draw_from_the_generator_only(make):
    x, state = pictures(5), torch.get_rng_state()
    before, view = x.clone(), make()
    one, same, other = (view(x, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert (one.shape, one.dtype) == (x.shape, x.dtype)
    assert view(x.double(), seeded()).dtype == torch.float64


REFERENCE = pictures(6, seed=3)


def test_impossible_shifts_are_refused():
    with pytest.raises(InputError, match="pixels must be 0 or more, got -1"):
        shift(-1)
    with pytest.raises(InputError, match="below the sides of the image, 5 x 6, got 5"):
        shift(5)(pictures(2), seeded())


@pytest.mark.parametrize("view", [shift(1), pixel_corruption(REFERENCE, rate=0.5)])
@pytest.mark.parametrize("shape", [(2, 30), (2, 5, 6), (1, 2, 1, 5, 6)])
def test_batches_that_are_not_of_images_are_refused(view, shape):
    with pytest.raises(InputError, match=r"needs \[rows, channels, height, width\], got shape"):
        view(torch.zeros(shape), seeded())


def test_images_of_another_shape_than_the_reference_are_refused():
    view = pixel_corruption(REFERENCE, rate=0.5)
    with pytest.raises(InputError, match=r"reference's shape \(1, 5, 6\), got \(1, 6, 5\)"):
        view(torch.zeros(2, 1, 6, 5), seeded())


def test_a_reference_that_is_not_of_images_is_refused():
    with pytest.raises(InputError, match="got shape \\(6, 30\\)"):
        pixel_corruption(REFERENCE.flatten(1), rate=0.5)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_pixel_rates_out_of_range_are_refused(rate):
    with pytest.raises(InputError, match=r"must be in \[0, 1\], got"):
        pixel_corruption(REFERENCE, rate=rate)
