"""The documentation cannot rot: Python blocks of README and docs run, in order, page by page."""

import re
import runpy
from pathlib import Path

import pytest

from secateurs.experiments.spec import key
from secateurs.experiments.toml_file import read_toml

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


# what Lightning says of machines with many cores or a GPU, and its own deprecated call of torch
@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*",
    "ignore:.*GPU available but not used.*",
    "ignore:.*isinstance.treespec, LeafSpec.*",
)
@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [p for p in PAGES if BLOCK.search(p.read_text())], ids=lambda p: p.name
)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for block in BLOCK.findall(page.read_text()):
        exec(compile(block, str(page), "exec"), namespace)


@pytest.mark.slow
@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_examples_run(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(example), run_name="__main__")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_relative_links_lead_somewhere(page):
    text = page.read_text()
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text)
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_tests_that_a_page_names_exist(page):
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text())
    assert [n for file, n in named if f"\ndef {n}(" not in (ROOT / file).read_text()] == []


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
