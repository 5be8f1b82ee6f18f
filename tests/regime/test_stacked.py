"""Stacked replicas do what one network does alone, and what theory says of it."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import deep_linear
from reference import student as slow
from secateurs.errors import InputError
from secateurs.networks.teacher import DeepLinear, Student
from secateurs.regime import stacked

R, ROWS = 5, 11
SHAPES = {"student": (3, 7, 1), "deep": (3, 6, 5, 2), "one layer": (3, 2), "two outputs": (3, 7, 2)}


def drawn(sizes, *, seed=0, density=0.6):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    pairs = list(itertools.pairwise(sizes))
    return {
        "weights": [normal(R, out, n) for n, out in pairs],
        "reference": [normal(R, out, n) for n, out in pairs],
        "masks": [torch.rand(R, out, n, generator=g) < density for n, out in pairs],
        "x": normal(R, ROWS, sizes[0]),
        "y": normal(R, ROWS, sizes[-1]),
        "scales": tuple(1 / math.sqrt(n) for n, _ in pairs),
        "alpha": torch.tensor([0.1, 0.5, 1.0, 10.0, 100.0]),
        "lr": torch.tensor([0.02, 0.05, 0.1, 0.2, 0.3]),
    }


def one(given, r, name):
    return [None if part is None else part[r] for part in given[name]]


@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("elsewhere", [True, False])
@pytest.mark.parametrize("pruned", ["none", "first", "all"])
def test_each_replica_is_what_autograd_makes_of_it_alone(sizes, relu, elsewhere, pruned):
    given = drawn(sizes)
    if pruned != "all":
        rest = given["masks"][1:]
        given["masks"] = [given["masks"][0] if pruned == "first" else None, *[None for _ in rest]]
    found = stacked.train(
        given["weights"], given["x"], given["y"], scales=given["scales"], alpha=given["alpha"],
        lr=given["lr"], steps=30, masks=given["masks"], at=(0, 1, 30),
        reference=given["reference"] if elsewhere else None,
        activation="relu" if relu else "linear",
    )  # fmt: skip
    assert list(found.snapshots) == [0, 1, 30]
    for r in range(R):
        expected = slow.train(
            one(given, r, "weights"), given["x"][r], given["y"][r], scales=given["scales"],
            alpha=float(given["alpha"][r]), lr=float(given["lr"][r]), steps=30,
            masks=one(given, r, "masks"), at=(0, 1, 30), relu=relu,
            reference=one(given, r, "reference") if elsewhere else None,
        )  # fmt: skip
        for step, layers in expected.items():
            for told, right in zip(found.snapshots[step], layers, strict=True):
                torch.testing.assert_close(told[r], right, rtol=1e-10, atol=1e-10)
    assert any(not torch.equal(a, b) for a, b in zip(found.weights, given["weights"], strict=True))


def test_groups_do_not_matter_and_nothing_that_was_passed_is_changed(monkeypatch):
    given = drawn(SHAPES["student"])
    before = [w.clone() for w in given["weights"]]
    settings = {name: given[name] for name in ("scales", "alpha", "lr", "masks")}
    whole = stacked.train(given["weights"], given["x"], given["y"], steps=9, **settings)
    monkeypatch.setattr(stacked, "_CACHED", 2 * 7 * ROWS)
    parts = stacked.train(given["weights"], given["x"], given["y"], steps=9, **settings)
    for a, b in zip(whole.weights, parts.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(before, given["weights"], strict=True))


@given(seed=st.integers(0, 999), density=st.sampled_from([0.0, 0.2, 0.9]))
@settings(max_examples=20, deadline=None)
def test_pruned_weights_are_zero_at_every_snapshot(seed, density):
    given = drawn(SHAPES["student"], seed=seed, density=density)
    found = stacked.train(
        given["weights"], given["x"], given["y"], scales=given["scales"], alpha=given["alpha"],
        lr=given["lr"], steps=20, masks=given["masks"], at=range(0, 21, 5),
    )  # fmt: skip
    for layers in found.snapshots.values():
        for w, m in zip(layers, given["masks"], strict=True):
            assert not w[~m].any()


@pytest.mark.parametrize("density", [None, 0.6])
def test_a_lazy_network_descends_in_its_kernel(density):
    given = drawn(SHAPES["student"])
    masks = given["masks"] if density else [None, None]
    w = [v if m is None else v * m for v, m in zip(given["weights"], masks, strict=True)]
    alpha, steps = 1e6, 40
    done = stacked.train(
        w, given["x"], given["y"], scales=given["scales"], alpha=alpha, lr=0.3, steps=steps,
        masks=masks,
    )  # fmt: skip
    kernel = stacked.tangent_kernel(w, given["x"], scales=given["scales"], masks=masks)
    f = torch.zeros_like(given["y"])
    for _ in range(steps):
        f = f - 0.3 / ROWS * kernel @ (f - given["y"])
    told = [stacked.outputs(v, given["x"], scales=given["scales"]) for v in (done.weights, w)]
    torch.testing.assert_close(alpha * (told[0] - told[1]), f, rtol=1e-4, atol=1e-4)
    tangent = stacked.tangent_change(done.weights, w, given["x"], scales=given["scales"])
    torch.testing.assert_close(alpha * tangent, f[:, :, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pruned", [True, False])
def test_the_kernel_and_the_tangent_are_those_of_jacobians(pruned):
    given = drawn(SHAPES["student"])
    masks = given["masks"] if pruned else [None, None]
    w = [v if m is None else v * m for v, m in zip(given["weights"], masks, strict=True)]
    moved = [v if m is None else v * m for v, m in zip(given["reference"], masks, strict=True)]
    kernel = stacked.tangent_kernel(w, given["x"], scales=given["scales"], masks=masks)
    tangent = stacked.tangent_change(moved, w, given["x"], scales=given["scales"])
    largest = stacked.largest_eigenvalues(w, given["x"], scales=given["scales"])
    for r in range(R):
        mine = [None if m is None else m[r] for m in masks]
        jacobian = slow.jacobian([v[r] for v in w], mine, given["x"][r], given["scales"])
        torch.testing.assert_close(kernel[r], jacobian @ jacobian.T, rtol=1e-10, atol=1e-10)
        dw = torch.cat([(b[r] - a[r]).flatten() for a, b in zip(w, moved, strict=True)])
        torch.testing.assert_close(tangent[r], jacobian @ dw, rtol=1e-10, atol=1e-10)
        if not pruned:
            top = torch.linalg.matrix_norm(jacobian, ord=2) ** 2 / ROWS
            assert float(largest[r]) == pytest.approx(float(top))


def test_the_outputs_are_those_of_the_module():
    student = Student(4, width=6, generator=torch.Generator().manual_seed(0))
    x = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights = (student.hidden.detach()[None], student.readout.detach()[None])
    told = stacked.outputs(weights, x[None], scales=student.scales)
    torch.testing.assert_close(told[0], student(x).detach())


def test_a_deep_linear_network_learns_its_modes_as_saxe_et_al_say():
    network = DeepLinear((3, 3, 3), std=0.1, generator=torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    strengths, start = (2.0, 1.0, 0.5), 1e-3
    u, v, middle = (
        torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64)).Q for _ in range(3)
    )
    # balanced and aligned, sqrt(start) a layer; identity inputs are white
    root = math.sqrt(start)
    weights = (root * middle @ v.T)[None], (root * u @ middle.T)[None]
    assert [w[0].shape for w in weights] == [layer.shape for layer in network.layers]
    x = math.sqrt(3) * torch.eye(3, dtype=torch.float64)
    y = x @ (u @ torch.diag(torch.tensor(strengths, dtype=torch.float64)) @ v.T).T
    zero = [torch.zeros_like(w) for w in weights]
    lr, at = 1e-3, range(0, 8001, 250)
    done = stacked.train(
        weights, x[None], y[None], scales=(1.0, 1.0), alpha=1.0, lr=lr, steps=8000,
        activation="linear", reference=zero, at=at,
    )  # fmt: skip
    reached = 0
    for step, (first, second) in done.snapshots.items():
        modes = (u.T @ (second[0] @ first[0]) @ v).diagonal()
        for told, s in zip(modes.tolist(), strengths, strict=True):
            right = deep_linear.mode(lr * step, s=s, start=start)
            assert told == pytest.approx(right, abs=0.012 * s)
            reached += 0.2 * s < right < 0.8 * s
    assert reached > 5  # the steep part of the curves is among the points


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"alpha": torch.ones(3)}, "one a replica"),
        ({"alpha": 0.0}, "alpha must be positive"),
        ({"lr": -1.0}, "lr must be positive"),
        ({"steps": -1}, "steps must be at least 0"),
        ({"masks": [None]}, "masks must be bool"),
        ({"scales": (1.0,)}, "scales"),
        ({"activation": "tanh"}, "'relu' or 'linear'"),
    ],
)
def test_what_does_not_fit_is_refused(change, words):
    given = drawn(SHAPES["student"])
    options = {name: given[name] for name in ("scales", "alpha", "lr")} | {"steps": 1} | change
    with pytest.raises(InputError, match=words):
        stacked.train(given["weights"], given["x"], given["y"], **options)


def test_wrong_shapes_are_refused():
    given = drawn(SHAPES["deep"])
    with pytest.raises(InputError, match="y must be"):
        stacked.train(
            given["weights"], given["x"], given["y"][:, :, :1], scales=given["scales"], alpha=1.0,
            lr=0.1, steps=1,
        )  # fmt: skip
    with pytest.raises(InputError, match="one hidden layer"):
        stacked.tangent_kernel(given["weights"], given["x"], scales=given["scales"])
    with pytest.raises(InputError, match="must be \\[replicas"):
        stacked.outputs(given["weights"], given["x"][:2], scales=given["scales"])
