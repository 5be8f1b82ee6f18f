import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reference import representation as twins
from secateurs.errors import InputError
from secateurs.measures import representation
from secateurs.seeds import stream


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=stream(seed, "test"), dtype=torch.float64)


def rotation(n, seed=0):
    return torch.linalg.qr(draw(n, n, seed=seed))[0]


@pytest.mark.parametrize("n", [4, 5, 7])
@pytest.mark.parametrize("debiased", [True, False])
def test_cka_is_that_of_the_sums_over_all_tuples(n, debiased):
    a, b = draw(n, 3), draw(n, 2, seed=1) + draw(n, 3)[:, :2]
    twin = twins.cka(a.tolist(), b.tolist(), twins.hsic_1 if debiased else twins.hsic_0)
    assert representation.cka(a, b, debiased=debiased) == pytest.approx(twin, abs=1e-10)


@pytest.mark.parametrize("debiased", [True, False])
def test_rotations_shifts_and_scale_do_not_count(debiased):
    a, b = draw(40, 6), draw(40, 6) + draw(40, 6, seed=1)
    moved = 1e-3 * (b @ rotation(6)) + 5
    one = representation.cka(a, b, debiased=debiased)
    assert 0.3 < one < 0.9
    assert representation.cka(a, moved, debiased=debiased) == pytest.approx(one, abs=1e-9)
    assert representation.cka(moved, b, debiased=debiased) == pytest.approx(1)
    assert representation.cka(b, a, debiased=debiased) == pytest.approx(one)


def test_debiasing_takes_out_what_many_units_give():
    pairs = [(draw(32, 256, seed=2 * i), draw(32, 256, seed=2 * i + 1)) for i in range(40)]
    debiased = np.array([representation.cka(a, b) for a, b in pairs])
    biased = np.array([representation.cka(a, b, debiased=False) for a, b in pairs])
    assert abs(debiased.mean()) < 3 * debiased.std() / math.sqrt(40) + 1e-3
    assert biased.min() > 0.8


extreme = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6),
    elements=st.one_of(
        st.sampled_from([0.0, 1.0, -1.0, 0.1, 1e100, 1e-100, 1e-310]), st.floats(-1e100, 1e100)
    ),
)


@given(a=extreme, b=extreme, debiased=st.booleans())
def test_cka_is_never_nan_and_never_leaves_its_range(a, b, debiased):
    rows = max(len(a), len(b), 4)  # repeated probes are allowed
    a, b = (torch.from_numpy(np.resize(m, (rows, m.shape[1]))) for m in (a, b))
    found = representation.cka(a, b, debiased=debiased)
    assert (-1 if debiased else 0) <= found <= 1
    own = representation.cka(a, a, debiased=debiased)
    assert own == 0 or own == pytest.approx(1)


def test_what_does_not_vary_has_0_even_where_rounding_does():
    a = draw(30, 4)
    constant = torch.full((30, 3), 0.1)
    constant[::2] *= 1 + 4 * torch.finfo(torch.float32).eps
    assert (constant[0] != constant[1]).all()
    assert representation.cka(a, constant) == 0
    assert representation.cka(constant, constant) == 0
    # one odd probe: the Gram matrix off the diagonal is what centring made it
    spike = torch.zeros(30, 1)
    spike[3] = 1
    assert representation.cka(spike, spike) == 0
    assert representation.cka(spike, spike, debiased=False) == pytest.approx(1)


def test_constant_columns_are_exactly_zero_and_others_keep_their_values():
    h = torch.stack([torch.full((7,), 0.1), torch.arange(7.0)], dim=1)
    centred = representation.column_centred(h)
    assert not centred[:, 0].any()
    assert centred[:, 1].tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert not representation.column_centred(h, size=torch.tensor([1.0, 1e8])).any()


def test_the_floor_is_that_of_permuted_probes():
    a = draw(64, 10)
    b = a @ draw(10, 10, seed=1)
    floor = representation.cka_floor(a, b, generator=stream(0, "floor"))
    generator = stream(0, "floor")
    twin = [representation.cka(a, b[torch.randperm(64, generator=generator)]) for _ in range(100)]
    assert floor.mean == pytest.approx(np.mean(twin))
    assert floor.high == pytest.approx(np.quantile(twin, 0.95))
    assert abs(floor.mean) < 0.02 < floor.high < representation.cka(a, b)


def test_the_floor_of_the_biased_is_high():
    a, b = draw(32, 128), draw(32, 128, seed=1)
    floor = representation.cka_floor(a, b, generator=stream(0, "floor"), debiased=False)
    assert 0.7 < floor.mean < floor.high
    assert representation.cka(a, b, debiased=False) == pytest.approx(floor.mean, abs=0.05)


def test_independent_networks_are_above_the_permutations():
    x = draw(128, 5)
    a, b = (torch.relu(x @ draw(5, 200, seed=i)) for i in (1, 2))
    floor = representation.cka_floor(a, b, generator=stream(0, "floor"))
    assert representation.cka(a, b) > 0.8 > 0.1 > floor.high


def test_patterns_are_counted_by_hand_and_dead_units_left_out():
    start = torch.tensor([[1.0, -1.0, 0.0], [2.0, 3.0, 0.0]])
    end = torch.tensor([[0.1, 1.0, 0.0], [-2.0, 3.0, 0.0]])
    assert representation.unchanged_activations(start, end) == pytest.approx(4 / 6)
    live = torch.tensor([True, True, False])
    assert representation.unchanged_activations(start, end, live=live) == 0.5
    assert representation.unchanged_activations(start, start) == 1
    both = start[:, :2]
    assert representation.unchanged_activations(both, -both) == 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: representation.cka(draw(3, 2), draw(3, 2)), "4 or more probes"),
        (lambda: representation.cka(draw(1, 2), draw(1, 2), debiased=False), "2 or more"),
        (lambda: representation.cka(draw(5, 2), draw(6, 2)), "same"),
        (lambda: representation.cka(draw(5), draw(5)), "probes, units"),
        (lambda: representation.cka(draw(5, 2) / 0, draw(5, 2)), "finite"),
        (
            lambda: representation.cka_floor(draw(5, 2), draw(5, 2), generator=stream(0), draws=0),
            "draws must be at least 1",
        ),
        (lambda: representation.column_centred(draw(0, 2)), "probes, units"),
        (lambda: representation.unchanged_activations(draw(5, 2), draw(5, 3)), "same probes"),
        (
            lambda: representation.unchanged_activations(
                draw(5, 2), draw(5, 2), live=torch.tensor([True])
            ),
            "one bool for each of 2",
        ),
        (
            lambda: representation.unchanged_activations(
                draw(5, 2), draw(5, 2), live=torch.tensor([False, False])
            ),
            "live unit",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(call, said):
    with pytest.raises(InputError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)
