from pathlib import Path

import pytest

from secateurs.cli import TOPICS
from secateurs.command.catalogue import listed
from secateurs.data.tables import data_root
from secateurs.experiments.store import Plan, Store


@pytest.mark.parametrize("topic", TOPICS)
def test_every_thing_has_a_line(topic, tmp_path, monkeypatch):
    monkeypatch.setenv("SECATEURS_DATA", str(tmp_path))
    Store(tmp_path / "mine").write_plan(Plan(name="p", title="t", runs=[]))
    found = listed(topic, tmp_path)
    assert found
    assert all(line and "\n" not in line for line in found.values())


def test_data_are_looked_for_where_the_user_said(monkeypatch):
    monkeypatch.setenv("SECATEURS_DATA", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert data_root() == Path("/a")
    monkeypatch.delenv("SECATEURS_DATA")
    assert data_root() == Path("/b/secateurs")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data_root() == Path.home() / ".cache" / "secateurs"
