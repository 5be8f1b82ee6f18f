import hypothesis.strategies as st
import pytest
from hypothesis import given

from secateurs import schedules
from secateurs.errors import InputError

targets = st.floats(0.001, 1.0)


@given(density=targets, rounds=st.integers(1, 20))
def test_geometric_ends_exactly_at_the_target(density, rounds):
    densities = schedules.geometric(density, rounds=rounds)
    assert len(densities) == rounds
    assert densities[-1] == density


@given(density=targets, rounds=st.integers(2, 20))
def test_every_round_keeps_the_same_share_of_what_is_left(density, rounds):
    before, shares = 1.0, []
    for after in schedules.geometric(density, rounds=rounds):
        shares.append(after / before)
        before = after
    assert shares == pytest.approx([density ** (1 / rounds)] * rounds)


@given(density=targets)
def test_one_round_is_one_shot(density):
    assert schedules.geometric(density, rounds=1) == schedules.one_shot(density) == (density,)


def test_twenty_percent_a_round_gives_the_lottery_densities():
    densities = schedules.geometric(0.8**3, rounds=3)
    assert densities == pytest.approx([0.8, 0.64, 0.512])


@pytest.mark.parametrize("rounds", [0, -1])
def test_less_than_one_round_is_refused(rounds):
    with pytest.raises(InputError, match=f"rounds must be at least 1, got {rounds}"):
        schedules.geometric(0.5, rounds=rounds)
