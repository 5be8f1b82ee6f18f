"""The documentation cannot rot: Python blocks of README and docs run, in order, page by page."""

import re
from pathlib import Path

import pytest

from secateurs.experiments.spec import key, read_toml

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [p for p in PAGES if BLOCK.search(p.read_text())], ids=lambda p: p.name
)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for block in BLOCK.findall(page.read_text()):
        exec(compile(block, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_relative_links_lead_somewhere(page):
    text = page.read_text()
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text)
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


def test_every_command_in_the_readme_exists():
    from secateurs.cli import build_parser

    verbs = set(re.findall(r"^secateurs (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    help_text = build_parser().format_help()
    assert verbs
    assert all(verb in help_text for verb in verbs)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_toml_blocks_are_experiments(page, tmp_path):
    for block in re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        (tmp_path / "spec.toml").write_text(block)
        runs = read_toml(tmp_path / "spec.toml")
        assert len({key(run.cell) for run in runs}) > 5
