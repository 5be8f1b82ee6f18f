"""Teachers are as sparse as asked, students what their formula says, readouts one at width 64."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateurs.errors import InputError
from secateurs.networks.teacher import (
    DeepLinear,
    Student,
    draw_task,
    draw_teacher,
    readout_scale,
)


def drawing(seed=0):
    return torch.Generator().manual_seed(seed)


@given(seed=st.integers(0, 99), n_relevant=st.sampled_from([1, 4, 9, None]))
def test_a_teacher_looks_at_the_inputs_it_was_given(seed, n_relevant):
    teacher = draw_teacher(n_inputs=9, n_relevant=n_relevant, generator=drawing(seed))
    assert (teacher.weights != 0).sum(1).tolist() == [n_relevant or 9] * 4
    assert torch.allclose(teacher.weights.norm(dim=1), torch.ones(4, dtype=torch.float64))
    x = torch.randn(5, 9, generator=drawing(1), dtype=torch.float64)
    elsewhere = x + 7.0 * ~teacher.relevant
    assert torch.allclose(teacher(x), teacher(elsewhere))
    by_hand = sum(
        sign * max(0.0, float(x[0] @ w))
        for sign, w in zip((1, -1, 1, -1), teacher.weights, strict=True)
    )
    assert float(teacher(x)[0]) == pytest.approx(by_hand)


def test_targets_are_the_teachers_standardised_on_training_rows():
    task = draw_task(n_inputs=8, n_relevant=3, n_train=50, n_test=60, generator=drawing())
    assert float(task.y_train.mean()) == pytest.approx(0, abs=1e-12)
    assert float(task.y_train.square().mean()) == pytest.approx(1)
    raw = task.teacher(torch.cat([task.x_train, task.x_test]))
    y = torch.cat([task.y_train, task.y_test])
    slope = (raw - raw[0])[1:] / (y - y[0])[1:]
    assert torch.allclose(slope, slope[:1].expand_as(slope))
    again = draw_task(n_inputs=8, n_relevant=3, n_train=50, n_test=60, generator=drawing())
    other = draw_task(n_inputs=8, n_relevant=3, n_train=50, n_test=60, generator=drawing(1))
    assert torch.equal(task.x_test, again.x_test)
    assert not torch.equal(task.x_test, other.x_test)


def test_a_student_is_its_formula():
    student = Student(5, width=7, generator=drawing())
    x = torch.randn(3, 5, generator=drawing(1), dtype=torch.float64)
    student.requires_grad_(requires_grad=False)
    for row, told in zip(x, student(x), strict=True):
        units = [max(0.0, float(w @ row) / math.sqrt(5)) for w in student.hidden]
        right = math.sqrt(2 / 7) * sum(
            float(a) * u for a, u in zip(student.readout[0], units, strict=True)
        )
        assert float(told) == pytest.approx(right)


@pytest.mark.parametrize("width", [16, 64, 256])
def test_readouts_meet_at_64_and_part_as_the_root_of_the_width(width):
    ratio = readout_scale(width, "mean_field") / readout_scale(width, "ntk")
    assert ratio == pytest.approx(math.sqrt(64 / width))
    small, large = (
        Student(5, width=width, readout=r, generator=drawing()) for r in ("ntk", "mean_field")
    )
    x = torch.ones(1, 5, dtype=torch.float64)
    with torch.no_grad():
        assert float(large(x) / small(x)) == pytest.approx(ratio)


def test_a_deep_linear_network_is_its_product():
    network = DeepLinear((4, 6, 5, 2), std=0.3, generator=drawing())
    x = torch.randn(3, 4, generator=drawing(1), dtype=torch.float64)
    h = x
    for layer in network.layers:
        h = h @ layer.T
    assert torch.allclose(network(x), h)
    assert network.product().shape == (2, 4)
    spread = torch.cat([layer.detach().flatten() for layer in network.layers]).std()
    assert float(spread) == pytest.approx(0.3, rel=0.3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: draw_teacher(n_inputs=3, n_relevant=4, generator=drawing()),
        lambda: draw_teacher(n_inputs=3, n_neurons=0, generator=drawing()),
        lambda: draw_task(n_train=1, generator=drawing()),
        lambda: draw_task(n_test=0, generator=drawing()),
        lambda: Student(0, width=3, generator=drawing()),
        lambda: Student(3, width=0, generator=drawing()),
        lambda: readout_scale(3, "mup"),
        lambda: DeepLinear((3,), std=1.0, generator=drawing()),
        lambda: DeepLinear((3, 0), std=1.0, generator=drawing()),
    ],
)
def test_what_cannot_be_drawn_is_refused(make):
    with pytest.raises(InputError, match=r"; pass|, got"):
        make()
