import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reference import locality as slow
from secateurs import masks
from secateurs.errors import InputError
from secateurs.measures import locality as measures
from secateurs.measures.locality import TOTAL, locality, matched_locality, reading_radius
from secateurs.networks.conv import MLPVis, cnn_layers
from secateurs.networks.toeplitz import receptive_field_mask

LAST = "encoder.25.weight"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def fields_of(alpha=1, size=12, channels=3):
    with torch.device("meta"):
        network = MLPVis(alpha, size=size, channels=channels)
    return receptive_field_mask(network)


def renamed(mask, seed=0):
    """Return the mask of the same function with the units of each hidden layer in another order."""
    generator, order, found = seeded(seed), None, {}
    for name, kept in mask.items():
        columns = slice(None) if order is None else order
        order = torch.randperm(len(kept), generator=generator)
        found[name] = kept[:, columns][order]
    return found


def shuffled_but(kept_share, fields, seed=0):
    """Return masks with that share of the fields, and as many weights anywhere."""
    generator, found = seeded(seed), {}
    for name, field in fields.items():
        inside = field & (torch.rand(field.shape, generator=generator) < kept_share)
        anywhere = masks.shuffle({"w": inside}, generator=generator)["w"]
        found[name] = inside | anywhere
    return found


# ---- the fields of the CNN -----------------------------------------------------------------------


def test_a_mask_that_is_the_fields_is_inside_as_far_as_can_be():
    fields = fields_of()
    found = locality(fields, fields)
    for name, field in fields.items():
        row, chance = found[name], float(field.double().mean())
        assert (row.share, row.kept, row.inside) == (1.0, int(field.sum()), int(field.sum()))
        assert row.chance == pytest.approx(chance)
        assert row.comparable == (chance < 1)
        if row.comparable:
            assert row.lift == pytest.approx(1 / chance)
            assert row.z > 20
    assert found[TOTAL].share == 1.0
    assert found[TOTAL].kept == sum(int(f.sum()) for f in fields.values() if not f.all())
    # from 2 x 2 to 2 x 2 or to 1 x 1 a window holds everything, as in the dense layer
    assert [name for name, row in found.items() if not row.comparable] == list(fields)[-3:]


def test_the_opposite_of_the_fields_is_outside():
    fields = fields_of()
    found = locality({name: ~field for name, field in fields.items()}, fields)
    assert found["encoder.1.weight"].share == found["encoder.1.weight"].lift == 0.0
    assert found[TOTAL].z < -20


def test_shuffled_masks_are_at_chance_and_z_is_a_standard_score():
    fields = fields_of(size=6)
    first = {"encoder.1.weight": fields["encoder.1.weight"]}
    zs, lifts = [], []
    for seed in range(200):
        row = locality(masks.shuffle(first, generator=seeded(seed)), first)["encoder.1.weight"]
        zs.append(row.z)
        lifts.append(row.lift)
    assert np.mean(lifts) == pytest.approx(1, abs=0.02)
    assert np.mean(zs) == pytest.approx(0, abs=0.25)
    assert np.std(zs) == pytest.approx(1, abs=0.2)


def test_the_total_of_shuffled_masks_is_at_chance_whatever_each_layer_keeps():
    fields = fields_of()
    # The end of the network keeps most, which are inside there more often by chance alone.
    mask = {
        name: torch.rand(field.shape, generator=seeded(i)) < 0.1 * i
        for i, (name, field) in enumerate(fields.items())
    }
    shuffles = [masks.shuffle(mask, generator=seeded(seed)) for seed in range(50)]
    totals = [locality(one, fields)[TOTAL] for one in shuffles]
    assert np.mean([total.lift for total in totals]) == pytest.approx(1, abs=0.01)
    assert np.std([total.z for total in totals]) == pytest.approx(1, abs=0.25)
    some = [field for field in fields.values() if not field.all()]
    naive = sum(int(field.sum()) for field in some) / sum(field.numel() for field in some)
    assert totals[0].chance > 1.5 * naive


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 10**6))
def test_its_numbers_are_those_of_the_hypergeometric_law(total, n_field, n_kept, seed):
    n_field, n_kept = min(n_field, total), min(n_kept, total)
    order = torch.randperm(total, generator=seeded(seed))
    field, keep = torch.zeros(2, 1, total, dtype=torch.bool)
    field[0, :n_field], keep[0, order[:n_kept]] = True, True
    row = locality({"w": keep}, {"w": field})["w"]
    law = stats.hypergeom(total, n_field, n_kept)
    assert row.inside == int((keep & field).sum())
    assert row.comparable == (0 < n_field < total)
    if row.comparable and 0 < n_kept < total:
        assert row.z == pytest.approx((row.inside - law.mean()) / law.std())
        assert row.lift * law.mean() == pytest.approx(row.inside)
    else:
        assert math.isnan(row.z)


def test_a_layer_whose_field_is_everything_says_so_and_is_not_in_the_total():
    fields = fields_of()
    row = locality(fields, fields)[LAST]
    assert not row.comparable
    assert (row.share, row.chance) == (1.0, 1.0)
    assert math.isnan(row.lift)
    assert math.isnan(row.z)
    only = {LAST: fields[LAST]}
    assert not locality(only, only)[TOTAL].comparable


def test_an_empty_layer_has_no_share():
    fields = fields_of(size=4)
    nothing = {name: torch.zeros_like(field) for name, field in fields.items()}
    for row in locality(nothing, fields).values():
        assert (row.kept, row.inside) == (0, 0)
        assert math.isnan(row.share)
        assert math.isnan(row.lift)
        assert math.isnan(row.z)


def test_masks_of_other_weights_are_refused():
    fields = fields_of(size=4)
    with pytest.raises(InputError, match="mask and fields must be of the same weights"):
        locality({"w": torch.ones(2, 2, dtype=torch.bool)}, fields)
    with pytest.raises(InputError, match="must be bool"):
        locality({name: field.float() for name, field in fields.items()}, fields)


# ---- the fields, wherever a unit has its own -----------------------------------------------------


def matched(mask, *, alpha=1, size=12, channels=3, seed=0, **options):
    return matched_locality(
        mask, alpha=alpha, size=size, channels=channels, generator=seeded(seed), **options
    )


def test_another_order_of_hidden_units_hides_a_cnn_from_one_and_not_from_the_other():
    fields = fields_of()
    hidden = renamed(fields)
    assert locality(fields, fields)[TOTAL].lift > 5
    assert locality(hidden, fields)[TOTAL].lift == pytest.approx(1, abs=0.1)
    for name, row in list(matched(hidden).items())[:4]:
        assert row.share > 0.99, name
        assert row.lift > 1.8, name
        assert row.z > 10, name


def test_it_is_exactly_the_fields_that_are_found_in_the_first_layer():
    found = matched(renamed(fields_of()))["encoder.1.weight"]
    assert found.inside == found.kept == int(fields_of()["encoder.1.weight"].sum())


@pytest.mark.parametrize("density", [0.02, 0.3, 0.9])
def test_random_masks_are_at_chance(density):
    mask = {
        name: torch.rand(field.shape, generator=seeded(i)) < density
        for i, (name, field) in enumerate(fields_of().items())
    }
    for name, row in matched(mask, n_shuffles=8).items():
        assert row.lift == pytest.approx(1, abs=0.12), name


def test_units_of_many_sizes_that_all_prefer_the_middle_are_at_chance():
    size, generator = 12, seeded(5)
    pixels = measures._grid(size)
    middle = torch.exp(-(pixels - 5.5).square().sum(1) / 12).repeat(3)
    units = torch.rand(size**2, 1, generator=generator) ** 2
    fields = fields_of()
    first = torch.rand(len(units), 3 * size**2, generator=generator) < 0.4 * units * middle
    row = matched({**fields, "encoder.1.weight": first}, n_shuffles=8)["encoder.1.weight"]
    assert row.lift == pytest.approx(1, abs=0.1)
    shuffled = masks.shuffle({"w": first}, generator=generator)["w"]
    anywhere = matched({**fields, "encoder.1.weight": shuffled})["encoder.1.weight"]
    assert row.share > 1.2 * anywhere.share  # which a plain shuffle would have called local


def test_locality_between_nothing_and_all_is_told_as_such():
    fields = fields_of()
    lifts = [
        matched(renamed(shuffled_but(share, fields)))["encoder.1.weight"].lift
        for share in (0.1, 0.4, 1.0)
    ]
    assert 1.2 < lifts[0] < lifts[1] < lifts[2]


@pytest.mark.parametrize(("size", "stride"), [(5, 1), (5, 2), (6, 2)])
@pytest.mark.parametrize("density", [0.05, 0.4])
def test_the_best_field_is_that_of_the_slow_twin(size, stride, density):
    places = torch.arange(size**2).repeat(2)
    kept = torch.rand(12, len(places), generator=seeded(size)) < density
    fields = measures.position_fields(size, stride)
    inside, where = measures._matched(kept, places, fields, size, stride)
    twin = slow.best_inside(kept.tolist(), places.tolist(), size, stride)
    for unit, windows in enumerate(twin):
        excess, counted = windows[int(where[unit])]
        assert excess == pytest.approx(max(excess for excess, _ in windows), abs=1e-5)
        assert int(inside[unit]) == counted


def test_among_equally_good_fields_the_nearest_is_chosen():
    kept = torch.eye(49, dtype=torch.bool)  # a pixel each: none is read more often than others
    fields = measures.position_fields(7, 1)
    _, where = measures._matched(kept, torch.arange(49), fields, 7, 1)
    assert int(where[24]) == 24  # of the nine windows that hold the middle


def test_a_position_that_many_units_share_does_not_draw_all_others_to_it():
    mask = {
        name: torch.rand(field.shape, generator=seeded(i)) < 0.2
        for i, (name, field) in enumerate(fields_of(2, size=16).items())
    }
    found = matched(mask, alpha=2, size=16)
    assert found["encoder.7.weight"].share < 0.5
    assert found["encoder.10.weight"].share < 0.5


def test_redrawn_masks_keep_what_units_read_and_how_often_inputs_are_read():
    frequency = torch.linspace(0, 0.5, 60) ** 2
    frequency[-1] = 1.0
    kept = torch.rand(4000, 60, generator=seeded(1)) < frequency
    new = measures._redrawn(kept, seeded(2))
    assert torch.equal(new.sum(1), kept.sum(1))
    assert not new[:, 0].any()
    assert new[:, -1].all()
    before, after = kept.double().mean(0), new.double().mean(0)
    torch.testing.assert_close(after, before, atol=0.04, rtol=0.1)
    pairs = torch.corrcoef(new[:, 20:59].double().T).fill_diagonal_(0)
    assert float(pairs.abs().max()) < 0.12


def test_units_that_read_nothing_are_not_counted_as_inputs():
    fields = fields_of()
    mask = {name: field.clone() for name, field in fields.items()}
    mask["encoder.1.weight"][:72] = False
    found = matched(mask)
    assert found["encoder.4.weight"].kept == int(fields["encoder.4.weight"][:, 72:].sum())
    mask["encoder.1.weight"][:] = False
    nothing = matched(mask)["encoder.4.weight"]
    assert nothing.kept == 0
    assert math.isnan(nothing.share)


def test_the_same_generator_gives_the_same_chance():
    mask = shuffled_but(0.3, fields_of(size=6))
    assert matched(mask, size=6) == matched(mask, size=6)
    one, other = matched(mask, size=6), matched(mask, size=6, seed=1)
    assert one["encoder.1.weight"].share == other["encoder.1.weight"].share
    assert one["encoder.1.weight"].chance != other["encoder.1.weight"].chance


def test_the_dense_layer_is_left_out():
    assert list(matched(fields_of(size=6), size=6)) == list(fields_of(size=6))[:-1]
    assert len(cnn_layers(1)) == 8


def test_masks_of_other_networks_are_refused():
    with pytest.raises(InputError, match=r"alpha 2, size 12 and 3 channels.*got \[\(144, 432\)"):
        matched(fields_of(), alpha=2)
    with pytest.raises(InputError, match="n_shuffles must be at least 1, got 0"):
        matched(fields_of(), n_shuffles=0)


# ---- no CNN at all -------------------------------------------------------------------------------


@given(st.integers(1, 3), st.integers(2, 5), st.integers(0, 10**6), st.sampled_from([0.1, 0.5, 1]))
def test_the_radius_is_that_of_the_slow_twin(channels, size, seed, density):
    shape = (4, channels * size**2)
    weight = torch.randn(shape, generator=seeded(seed), dtype=torch.float64)
    weight[torch.rand(shape, generator=seeded(seed + 1)) >= density] = 0
    for by, values in (("magnitude", weight), ("count", weight != 0)):
        found = reading_radius(weight, channels=channels, size=size, by=by)
        for unit, row in enumerate(values):
            if int(weight[unit].count_nonzero()) < 2:
                assert math.isnan(found.radii[unit])
            else:
                expected = slow.radius_squared(row, channels, size)
                assert float(found.radii[unit]) ** 2 == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("by", ["count", "magnitude"])
@pytest.mark.parametrize("density", [0.01, 0.3])
def test_randomly_placed_weights_have_the_uniform_radius(by, density):
    channels, size = 3, 10
    weight = torch.randn(3000, channels * size**2, generator=seeded(0)).exp()  # of many sizes
    weight[torch.rand(weight.shape, generator=seeded(1)) >= density] = 0
    found = reading_radius(weight, channels=channels, size=size, by=by)
    assert found.radius == pytest.approx(found.uniform, rel=0.03)
    assert found.pooled == pytest.approx(found.uniform, rel=0.01)


def test_a_mask_of_everything_has_exactly_the_uniform_radius():
    found = reading_radius(torch.ones(3, 2 * 49), channels=2, size=7)
    assert found.radii.tolist() == pytest.approx([found.uniform] * 3)
    # a variance of (n^2 - 1) / 12 in each direction
    assert found.uniform**2 == pytest.approx(2 * (7**2 - 1) / 12 * 98 / 97)


def test_the_fields_of_the_cnn_are_read_from_near():
    fields = fields_of(size=16)
    found = reading_radius(fields["encoder.1.weight"], channels=3, size=16)
    inner = found.radii.view(16, 16)[1:-1, 1:-1]
    assert inner.flatten().tolist() == pytest.approx([(4 / 3 * 27 / 26) ** 0.5] * inner.numel())
    assert found.radius < 0.2 * found.pooled
    assert found.pooled == pytest.approx(found.uniform, rel=0.1)
    order = torch.randperm(256, generator=seeded())
    again = reading_radius(fields["encoder.1.weight"][order], channels=3, size=16)
    assert again.radius == pytest.approx(found.radius)


def test_units_that_all_prefer_the_middle_read_no_neighbourhood_of_their_own():
    size = 16
    near = torch.exp(-(measures._grid(size) - 7.5).square().sum(1) / 10).repeat(3)
    mask = torch.rand(2000, len(near), generator=seeded(3)) < 0.3 * near
    found = reading_radius(mask, channels=3, size=size)
    assert found.radius < 0.6 * found.uniform
    assert found.radius == pytest.approx(found.pooled, rel=0.05)


def test_units_that_read_fewer_than_two_pixels_are_left_out():
    weight = torch.zeros(3, 9)
    weight[1, 4] = 1.0
    assert math.isnan(reading_radius(weight, channels=1, size=3).radius)
    assert math.isnan(reading_radius(weight, channels=1, size=3).pooled)
    weight[2, [0, 2]] = 1.0
    found = reading_radius(weight, channels=1, size=3)
    assert found.radius == pytest.approx(2**0.5)
    assert torch.isnan(found.radii).tolist() == [True, True, False]


def test_magnitudes_count_where_they_are_asked_for():
    weight = torch.zeros(1, 25)
    weight[0, [0, 1, 24]] = torch.tensor([1.0, 1.0, 1e-6])
    count = reading_radius(weight, channels=1, size=5)
    magnitude = reading_radius(weight, channels=1, size=5, by="magnitude")
    assert magnitude.radius == pytest.approx(0.5**0.5, rel=1e-3)
    assert count.radius > 3 * magnitude.radius


@pytest.mark.parametrize(
    ("shape", "by", "told"),
    [
        ((2, 48), "count", r"\[units, 1 \* 4 \* 4\], got shape \(2, 48\)"),
        ((16,), "count", "got shape"),
        ((2, 16), "weight", "by must be 'magnitude' or 'count', got 'weight'"),
    ],
)
def test_weights_that_do_not_fit_are_refused(shape, by, told):
    with pytest.raises(InputError, match=told) as caught:
        reading_radius(torch.ones(shape), channels=1, size=4, by=by)
    assert "\n" not in str(caught.value)
