from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from secateurs import schedules
from secateurs.errors import InputError

targets = st.floats(0.001, 1.0)
IN_ROUNDS = [schedules.exponential, schedules.linear, schedules.cubic]


@pytest.mark.parametrize("schedule", IN_ROUNDS)
@given(density=targets, rounds=st.integers(1, 20))
def test_rounds_fall_and_end_exactly_at_the_target(schedule, density, rounds):
    densities = schedule(density, rounds=rounds)
    assert len(densities) == rounds
    assert densities[-1] == density
    assert all(0 < d <= 1 for d in densities)
    assert list(densities) == sorted(densities, reverse=True)


@pytest.mark.parametrize("schedule", IN_ROUNDS)
@given(density=targets)
def test_one_round_is_one_shot(schedule, density):
    assert schedule(density, rounds=1) == schedules.one_shot(density) == (density,)


@given(density=targets, rounds=st.integers(2, 20))
def test_exponential_keeps_the_same_share_of_what_is_left_in_every_round(density, rounds):
    before, shares = 1.0, []
    for after in schedules.exponential(density, rounds=rounds):
        shares.append(after / before)
        before = after
    assert shares == pytest.approx([density ** (1 / rounds)] * rounds)


@given(density=targets, rounds=st.integers(2, 20))
def test_linear_prunes_equally_many_in_every_round(density, rounds):
    densities = (1.0, *schedules.linear(density, rounds=rounds))
    pruned = [one - other for one, other in pairwise(densities)]
    assert pruned == pytest.approx([(1 - density) / rounds] * rounds, abs=1e-12)


def test_cubic_is_that_of_zhu_and_gupta():
    # s_t = s_f + (0 - s_f) (1 - t/n)^3, with s = 1 - density
    sparse = [0.9 - 0.9 * (1 - t / 4) ** 3 for t in range(1, 5)]
    assert schedules.cubic(0.1, rounds=4) == pytest.approx([1 - s for s in sparse])


@pytest.mark.parametrize(
    ("rounds", "percent"), [(3, 51.3), (7, 21.1), (9, 13.5), (15, 3.6), (16, 2.9)]
)
def test_lenets_lottery_rounds_are_the_published_ones(rounds, percent):
    # LeNet-300-100: 265,200 weights lose 20% a round, the 1,000 of the last layer 10%
    share = 1_000 / 266_200
    target = (265_200 * 0.8**rounds + 1_000 * 0.9**rounds) / 266_200
    densities = schedules.geometric(target, last_share=share)
    assert len(densities) == rounds
    assert round(100 * densities[-1], 1) == percent
    assert densities[0] == pytest.approx((265_200 * 0.8 + 1_000 * 0.9) / 266_200)


@given(density=targets, rate=st.floats(0.05, 0.9))
def test_geometric_prunes_the_same_share_until_the_target(density, rate):
    densities = schedules.geometric(density, rate=rate)
    assert densities[-1] == density
    assert list(densities[:-1]) == pytest.approx(
        [(1 - rate) ** i for i in range(1, len(densities))]
    )
    assert density <= (1 - rate) ** (len(densities) - 1) * (1 + 1e-5)
    assert density > (1 - rate) ** len(densities) * (1 - 1e-5)


def test_listed_is_taken_as_it_is_and_must_end_at_the_target():
    assert schedules.listed(1 / (1 / 0.3), densities=(0.8, 0.3)) == (0.8, 0.3)
    with pytest.raises(InputError, match=r"must be the target, got 0\.3 and 0\.2"):
        schedules.listed(0.2, densities=(0.8, 0.3))


@pytest.mark.parametrize("densities", [(), (0.5, 0.5), (0.3, 0.5), (1.5, 0.5), (0.5, 0.0)])
def test_listed_densities_that_do_not_fall_are_refused(densities):
    with pytest.raises(InputError, match=r"densities must fall within \(0, 1\], got \["):
        schedules.listed(0.5, densities=densities)


@pytest.mark.parametrize("schedule", IN_ROUNDS)
@pytest.mark.parametrize("rounds", [0, -1])
def test_less_than_one_round_is_refused(schedule, rounds):
    with pytest.raises(InputError, match=f"rounds must be at least 1, got {rounds}"):
        schedule(0.5, rounds=rounds)


@pytest.mark.parametrize("schedule", [*IN_ROUNDS, schedules.geometric])
@pytest.mark.parametrize("density", [0, -0.1, 1.1, float("nan")])
def test_a_density_out_of_range_is_refused(schedule, density):
    arguments = {} if schedule is schedules.geometric else {"rounds": 2}
    with pytest.raises(InputError, match=r"density must be in \(0, 1\], got"):
        schedule(density, **arguments)


@pytest.mark.parametrize("settings", [{"rate": 0}, {"rate": 1}, {"last_share": 1}])
def test_rates_out_of_range_are_refused(settings):
    with pytest.raises(InputError, match=r"rate must be in \(0, 1\) and last_share in"):
        schedules.geometric(0.5, **settings)
