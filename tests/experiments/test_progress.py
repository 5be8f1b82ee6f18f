import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateurs.experiments import progress as module
from secateurs.experiments.progress import RunProgress, Standing, duration


def standing(settled, of=20, failed=0, seconds=10.0, running=()):
    return Standing(
        n_cells=of,
        n_settled=settled,
        n_failed=failed,
        share=settled / of,
        seconds=seconds,
        running=running,
    )


def test_a_line_for_each_tenth_without_a_terminal(capsys):
    with RunProgress("table") as progress:
        for settled in range(33):
            progress(standing(settled, of=32, failed=settled // 32))
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 8
    assert lines[0] == "table: 4 of 32 cells, 10 s, about 70 s left"
    assert lines[-1] == "table: 32 of 32 cells, 1 failed, 10 s"


def test_slow_cells_are_told_one_by_one(capsys, monkeypatch):
    monkeypatch.setattr(module, "_EVERY_SECONDS", 0.0)
    with RunProgress() as progress:
        progress(standing(0, of=100))
        progress(standing(1, of=100))
        progress(standing(1, of=100))
        progress(standing(2, of=100))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["1 of 100 cells", "2 of 100 cells"]


def test_a_run_that_was_interrupted_says_where_it_stood(capsys):
    def interrupted():
        with RunProgress() as progress:
            progress(standing(3))
            progress(standing(4))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert capsys.readouterr().err.splitlines()[-1].startswith("4 of 20 cells, ")


def test_nothing_to_do_says_nothing(capsys):
    with RunProgress():
        pass
    assert capsys.readouterr().err == ""


def test_titles_are_said_as_they_are(capsys):
    title = f"[bold] {'a long name ' * 12}"
    with RunProgress(title) as progress:
        progress(standing(20))
    (line,) = capsys.readouterr().err.splitlines()  # neither markup nor wrapped
    assert line.startswith(f"{title}: 20 of 20 cells, ")


def test_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", types.MethodType(lambda _: True, sys.stderr))
    with RunProgress("table") as progress:
        progress(standing(5, failed=2, running=("iris [0]", "wine")))
        (task,) = progress.bar.tasks
        assert (task.completed, task.total) == (0.25, 1.0)
        assert task.description == "table: 5 of 20 cells, 2 failed, 10 s, about 30 s left"
        progress.bar.refresh()
    assert "iris [0] | wine" in capsys.readouterr().err


@given(st.integers(1, 50), st.integers(1, 50), st.floats(0.1, 1e6))
def test_what_is_left_is_in_proportion_to_what_is_not_done(settled, more, seconds):
    now = standing(settled, of=settled + more, seconds=seconds)
    assert now.left == pytest.approx(seconds * more / settled)


def test_no_estimate_before_anything_is_settled():
    assert standing(0).left is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (89, "89 s"), (91, "2 min"), (5399, "90 min"), (1e5, "27.8 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
