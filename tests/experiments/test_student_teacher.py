"""The toy: stacks do what a plain loop does, limits hold, a cell is run and kept as any other."""

import base64
import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from reference import student as slow
from secateurs import masks
from secateurs.errors import InputError
from secateurs.experiments import student_teacher
from secateurs.experiments.cells import execute
from secateurs.experiments.cost import estimate
from secateurs.experiments.spec import (
    StudentTeacherCell,
    TaskRows,
    cell_from_json,
    key,
    needs,
    title,
    with_needs,
)
from secateurs.experiments.store import Store
from secateurs.experiments.typed import describe
from secateurs.measures.representation import cka
from secateurs.networks.teacher import Student, draw_task
from secateurs.regime import stacked
from secateurs.seeds import stream

ROWS = TaskRows(dataset="sparse teacher", n_inputs=6, n_train=24, n_test=40)
CELL = StudentTeacherCell(
    rows=ROWS, width=7, alphas=(0.5, 2.0), rounds=2, follow=2, steps=12, n_heatmap_rows=5
)
EXACT = replace(CELL, alphas=(0.5, 2000.0))  # is computed in float64


@pytest.fixture(scope="module")
def result():
    return student_teacher.study(CELL).result


@pytest.fixture(scope="module")
def exact():
    return pd.DataFrame(student_teacher.study(EXACT).result["records"])


def test_there_is_one_record_of_each_arm_round_alpha_and_seed(result):
    seen = [(r["arm"], r["level"], r["alpha"], r["seed"]) for r in result["records"]]
    expected = [("dense", 0, alpha, 0) for alpha in CELL.alphas]
    expected += [(a, n, alpha, 0) for a in CELL.arms for n in (1, 2) for alpha in CELL.alphas]
    assert sorted(seen) == sorted(expected)
    assert {r["density"] for r in result["records"]} == {
        1.0,
        round(0.7 * 42) / 42,
        round(0.49 * 42) / 42,
    }
    assert all(v is not None for r in result["records"] for v in r.values())
    pairs = {(r["found"], r["alpha"]) for r in result["transfer"]}
    assert pairs == set(itertools.product(CELL.alphas, CELL.alphas))
    steps = {r["step"] for r in result["followed"]}
    assert steps == set(range(13))


def loop(alpha_found, alpha_trained, arm):
    """Return the test error after two rounds, by autograd, one student at a time."""
    task = draw_task(
        n_inputs=6, n_relevant=4, n_train=24, n_test=40,
        generator=stream(0, "student_teacher", "sparse teacher"),
    )  # fmt: skip
    x, y = task.x_train, task.y_train[:, None]

    def drawn(name):
        student = Student(6, width=7, generator=stream(0, "student", name))
        return [student.hidden.detach(), student.readout.detach()], student.scales

    (start, scales), (fresh, _) = drawn("start"), drawn("fresh")
    whole = torch.ones(7, 6, dtype=torch.bool)
    jacobian = slow.jacobian(start, [None, None], x, scales)
    largest = float(torch.linalg.eigvalsh(jacobian @ jacobian.T)[-1]) / 24

    def train(weights, mask, alpha, reference=start):
        done = slow.train(
            weights, x, y, scales=scales, alpha=alpha, lr=min(1, alpha) / largest, steps=12,
            masks=[mask, None], reference=reference, at=(12,),
        )  # fmt: skip
        return done[12]

    def prune(weights, density, mask):
        scores = {"w": weights[0].abs()}
        return masks.keep_top(scores, density, within={"w": mask})["w"]

    end, mask = train(start, whole, alpha_found), whole
    for density in (0.7, 0.49):
        mask = prune(end, density, mask)
        end = train(end if arm == "no rewind" else start, mask, alpha_found)
    reference = start
    if arm == "re-init":
        end, reference = train(fresh, mask, alpha_trained, fresh), fresh
    elif arm == "top start":
        mask = prune(start, 0.49, whole)
        end = train(start, mask, alpha_trained)
    elif alpha_trained != alpha_found:
        end = train(start, mask, alpha_trained)
    f, f0 = (
        slow.forward(slow.masked(w, [mask, None]), task.x_test, scales) for w in (end, reference)
    )
    return float((alpha_trained * (f - f0) - task.y_test[:, None]).square().mean())


@pytest.mark.parametrize("arm", ["ticket", "no rewind", "re-init", "top start"])
def test_rounds_and_arms_are_those_of_a_plain_loop(exact, arm):
    for alpha in EXACT.alphas:
        rows = exact[(exact["arm"] == arm) & (exact["level"] == 2) & (exact["alpha"] == alpha)]
        expected = loop(alpha, alpha, arm)
        assert rows["test_mse"].item() == pytest.approx(expected, rel=1e-5)


def test_a_mask_is_trained_at_the_alpha_of_its_column():
    found = pd.DataFrame(student_teacher.study(EXACT).result["transfer"])
    found = found.set_index(["found", "alpha"])["test_mse"]
    for pair in itertools.product(EXACT.alphas, EXACT.alphas):
        assert found[pair] == pytest.approx(loop(*pair, "ticket"), rel=1e-5)


def test_three_alphas_are_not_mixed_up_by_the_transfer():
    cell = replace(EXACT, alphas=(0.5, 30.0, 2000.0))
    found = pd.DataFrame(student_teacher.study(cell).result["transfer"])
    found = found.set_index(["found", "alpha"])["test_mse"]
    assert found[0.5, 30.0] == pytest.approx(loop(0.5, 30.0, "ticket"), rel=1e-5)
    assert found[30.0, 2000.0] == pytest.approx(loop(30.0, 2000.0, "ticket"), rel=1e-5)


def test_seeds_in_one_stack_are_those_of_cells_of_their_own():
    both = pd.DataFrame(student_teacher.study(replace(EXACT, n_seeds=2)).result["records"])
    second = replace(EXACT, rows=replace(ROWS, split=1))
    alone = pd.DataFrame(student_teacher.study(second).result["records"])
    part = both[both["seed"] == 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, alone, rtol=1e-5)


def test_in_the_lazy_limit_nothing_moves_and_the_mask_is_that_of_the_start():
    cell = replace(CELL, alphas=(1e7,), n_heatmap_rows=0)
    rows = pd.DataFrame(student_teacher.study(cell).result["records"])
    assert rows[["movement", "kernel_distance", "deviation"]].max().max() < 1e-5
    assert np.allclose(rows["cka_start"], 1)
    moved = rows["h_end"] - rows["h_start"]
    assert moved.abs().max() < 1e-5
    assert (rows.loc[rows["arm"] == "no rewind", "overlap"] == 1).all()
    tickets = rows[rows["arm"].isin(["ticket", "top start"])]
    assert (tickets["overlap"] == 1).all()
    told = tickets.groupby("level")["test_mse"]
    assert np.allclose(told.max(), told.min(), rtol=1e-4)


def test_a_rich_student_moves(result):
    rows = pd.DataFrame(result["records"]).query("arm == 'dense'").set_index("alpha")
    assert rows["movement"][0.5] > 2 * rows["movement"][2.0] > 0
    assert rows["kernel_distance"][0.5] > rows["kernel_distance"][2.0] > 0
    assert (rows[["h_start", "h_end", "dh_end", "cka_dense"]].round(5) == 1).all().all()


def test_shuffled_masks_differ_and_keep_as_many(result):
    rows = pd.DataFrame(result["records"]).query("level == 2").set_index(["arm", "alpha"])
    assert rows["overlap"]["shuffled", 0.5] != rows["overlap"]["ticket", 0.5]
    bench = student_teacher._bench(CELL, torch.device("cpu"))
    mask = torch.arange(2 * 42).view(2, 7, 6) % 3 == 0
    shuffled = student_teacher._shuffled(bench, mask, 1)
    assert shuffled.sum((1, 2)).tolist() == mask.sum((1, 2)).tolist()
    assert not torch.equal(shuffled, mask)
    assert not torch.equal(shuffled[0], shuffled[1])


def test_cka_is_that_of_the_measures_and_correlations_leave_dead_units_out():
    a = torch.randn(3, 20, 5, generator=stream(0, "a"), dtype=torch.float64)
    b = a + torch.randn(3, 20, 5, generator=stream(0, "b"), dtype=torch.float64)
    told = student_teacher._cka(a, b)
    for i in range(3):
        assert float(told[i]) == pytest.approx(float(cka(a[i], b[i])), abs=1e-9)
    alive = torch.tensor([[True, True, True, False, True]] * 3)
    spoiled = b.clone()
    spoiled[:, :, 3] = 1e6 * a[:, :, 1]
    one, other = (student_teacher._correlation(a, h, alive) for h in (b, spoiled))
    torch.testing.assert_close(one, other)
    kept = [0, 1, 2, 4]
    flat = [(h[0][:, kept] - h[0][:, kept].mean(0)).flatten().numpy() for h in (a, b)]
    assert float(one[0]) == pytest.approx(np.corrcoef(*flat)[0, 1])


def test_heatmaps_are_the_preactivations(result):
    told = result["heatmaps"]
    assert told["shape"] == [2, len(told["steps"]), 5, 7]
    assert (told["steps"][0], told["steps"][-1]) == (0, 12)
    assert told["y"] == sorted(told["y"])
    maps = {
        arm: np.frombuffer(base64.b64decode(text), dtype=np.int8).reshape(told["shape"])
        for arm, text in told["arms"].items()
    }
    assert set(maps) == {"dense", *CELL.arms}
    bench = student_teacher._bench(CELL, torch.device("cpu"))
    h = stacked.hidden(bench.start, bench.x_test, scales=bench.scales)[0]
    rows = [int((bench.y_test[0, :, 0] - y).abs().argmin()) for y in told["y"]]
    right = (127 * h[rows] / told["scale"]).round().clip(-127, 127).to(torch.int8).numpy()
    assert sorted(map(tuple, maps["dense"][0, 0].T)) == sorted(map(tuple, right.T))
    end = maps["dense"][0, -1].astype(float)
    assert not np.array_equal(end, maps["dense"][0, 0])
    dead = [int((maps["ticket"][0, -1] == -128).all(0).sum())]
    row = next(
        r for r in result["records"] if (r["arm"], r["level"], r["alpha"]) == ("ticket", 2, 0.5)
    )
    assert dead == [row["n_dead"]]


def test_matching_undoes_a_permutation():
    h = np.random.default_rng(0).normal(size=(30, 6))
    order = np.array([3, 0, 5, 1, 4, 2])
    found = student_teacher._matched(-h[:, order], h)
    assert np.array_equal(order[found], np.arange(6))


def test_a_cell_is_run_kept_and_described_like_any_other(tmp_path):
    store = Store(tmp_path)
    assert cell_from_json(describe(CELL)) == CELL
    assert needs(CELL) == ()
    assert list(with_needs([CELL])) == [key(CELL)]
    assert title(CELL) == "sparse teacher split 0: students of 7, ntk"
    assert 0 < estimate(CELL) < 60
    assert execute(CELL, tmp_path) == "done"
    assert execute(CELL, tmp_path) == "already"
    again = student_teacher.study(CELL).result
    assert store.result(key(CELL))["records"] == again["records"]
    frame = store.frame()
    assert frame["rows.dataset"].tolist() == ["sparse teacher"]
    assert len(frame["records"][0]) == len(again["records"])
    assert 0 < frame["test.explained"][0] < 1
    other = replace(CELL, rows=replace(ROWS, split=1))
    assert student_teacher.digest(ROWS) != student_teacher.digest(other.rows)


def test_a_new_kind_has_one_key_for_good():
    assert key(StudentTeacherCell(rows=TaskRows(dataset="sparse teacher"))) == "49555a456240f1cd"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arms": ("shuffled",)}, "'ticket' among them"),
        ({"arms": ("ticket", "ticket")}, "distinct"),
        ({"alphas": ()}, "distinct positive"),
        ({"alphas": (0.0,)}, "distinct positive"),
        ({"kept": 1.0}, "kept must be in"),
        ({"follow": 3}, "follow from 0 to rounds"),
        ({"steps": 0}, "at least 1"),
    ],
)
def test_cells_that_cannot_work_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        replace(CELL, **change)
