"""The floors of the house: who may import whom, and what a bare import may load."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LINT = (
    "from importlinter.cli import lint_imports_command as lint; lint(['--no-cache', '--no-logo'])"
)

# What a bare import loads beyond the standard library and our own modules is third-party.
LOADED = """
import sys
before = set(sys.modules)
import secateurs
new = {name.partition('.')[0] for name in set(sys.modules) - before}
print(*sorted(new - set(sys.stdlib_module_names) - {'secateurs'}))
"""


def run_python(code, *, root=ROOT):
    """Run `code` in an interpreter that has imported nothing, with the sources under `root`."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root / "src")},
    )


def loaded_by(statement):
    done = run_python(LOADED.replace("import secateurs", statement))
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_contracts_are_kept():
    done = run_python(LINT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("errors.py", "from secateurs import masks", "Imports run downwards only"),
        ("schedules.py", "from secateurs import objectives", "Imports run downwards only"),
        ("masks/selection.py", "import pandas", "The method itself needs torch and NumPy only"),
    ],
    ids=["upwards", "sideways", "heavy"],
)
def test_broken_contract_is_reported(tmp_path, module, line, contract):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    source = tmp_path / "src" / "secateurs" / module
    source.write_text(f"{source.read_text()}\n{line}\n")
    done = run_python(LINT, root=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{contract} BROKEN" in done.stdout


def test_import_loads_no_third_party_module():
    assert loaded_by("import secateurs") == []


def test_loaded_modules_are_seen():
    assert "numpy" in loaded_by("import numpy")
