import sys
import types

import pytest

from secateurs.progress import PhaseProgress


def row(phase, epoch, loss=0.5):
    return {"phase": phase, "epoch": epoch, "loss": loss}


def test_plain_line_for_each_phase_without_a_terminal(capsys):
    with PhaseProgress() as progress:
        for phase, epochs in (("search", 2), ("finetune", 3)):
            for epoch in range(1, epochs + 1):
                progress(row(phase, epoch, loss=1 / epoch), epochs)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "search: 2 epochs, loss 0.5000, 0 s\nfinetune: 3 epochs, loss 0.3333, 0 s\n"


def test_phase_that_a_time_limit_ended_is_told(capsys):
    with PhaseProgress() as progress:
        progress(row("search", 1), 9)
        progress(row("search", 2), 9)
        progress(row("finetune", 1), 9)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "search: 2 of 9 epochs",
        "finetune: 1 of 9 epochs",
    ]


def test_title_is_said_as_it_is(capsys):
    title = f"[bold] {'a long name ' * 12}"
    with PhaseProgress(title) as progress:
        progress(row("search", 1), 1)
    (line,) = capsys.readouterr().err.splitlines()  # neither markup nor wrapped
    assert line.startswith(f"{title} search: 1 epochs, ")


@pytest.mark.parametrize("title", ["", "ticket 1/2"])
def test_bar_on_a_terminal(capsys, monkeypatch, title):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", types.MethodType(lambda _: True, sys.stderr))
    with PhaseProgress(title) as progress:
        for epoch in (1, 2):
            progress(row("search", epoch), 2)
        progress(row("finetune", 1), 5)
        search, finetune = progress.bar.tasks
        assert search.description == f"{title} search".strip()
        assert (search.completed, search.total) == (2, 2)
        assert (finetune.completed, finetune.total) == (1, 5)
    assert "2 epochs" not in capsys.readouterr().err  # no plain lines beside the bar


def ended(epochs=2, seconds=1.5):
    rows = [{**row("search", i), "seconds": seconds} for i in range(1, epochs + 1)]
    return [*rows, {**row("finetune", 1, loss=0.25), "seconds": seconds}]


def test_ends_of_tickets_that_run_side_by_side(capsys):
    with PhaseProgress() as progress:
        progress.side_by_side(3, done=0)
        progress.ended("ticket 2/3", history=ended())
        progress.ended("ticket 1/3", history=ended(epochs=1)[:1])
        progress.ended("ticket 3/3", history=[])
    assert capsys.readouterr() == (
        "",
        "ticket 2/3: 2 search and 1 finetune epochs, loss 0.2500, 4 s\n"
        "ticket 1/3: 1 search epochs, loss 0.5000, 2 s\n"
        "ticket 3/3: no epochs, 0 s\n",
    )


def test_bar_of_tickets_that_run_side_by_side(capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", types.MethodType(lambda _: True, sys.stderr))
    with PhaseProgress("ticket 1/3") as progress:
        progress(row("search", 1), 1)  # the one that chooses for all
        progress.side_by_side(3, done=1)
        progress.ended("ticket 3/3", history=ended())
        _, tickets = progress.bar.tasks
        assert (tickets.description, tickets.completed, tickets.total) == ("tickets", 2, 3)
        assert tickets.fields["loss"] == "loss 0.2500"
    assert "ticket 3/3" not in capsys.readouterr().err
