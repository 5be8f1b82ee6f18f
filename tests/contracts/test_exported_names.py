"""Public = named in `__all__`, in the package and in each of its modules."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import secateurs

ROOT = Path(secateurs.__file__).parent
MODULES = sorted(
    found.name
    for found in pkgutil.walk_packages(secateurs.__path__, "secateurs.")
    if not found.name.endswith(("__main__", "._kernels"))  # the latter is no Python
)


def tree_of(name):
    return ast.parse(Path(importlib.import_module(name).__file__).read_text(encoding="utf-8"))


def is_name(node):
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def defined(tree):
    """Return the public names that a module itself defines: functions, classes and constants."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {part.id for one in node.targets for part in ast.walk(one) if is_name(part)}
        elif isinstance(node, ast.AnnAssign):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("name", MODULES)
def test_a_modules_public_names_are_those_in_all(name):
    module = importlib.import_module(name)
    public, named = defined(tree_of(name)), list(getattr(module, "__all__", ()))
    assert public <= set(named), f"not in __all__: {sorted(public - set(named))}"
    assert len(named) == len(set(named))
    assert all(hasattr(module, one) for one in named)


def test_the_packages_names_are_those_in_all_and_each_resolves():
    names = secateurs.__all__
    assert names == sorted(names)
    assert set(dir(secateurs)) == {*names, "__version__"}
    for name in names:
        assert getattr(secateurs, name) is not None


def test_type_checkers_see_the_same_names():
    guarded = [node for node in tree_of("secateurs").body if isinstance(node, ast.If)]
    seen = {
        (f"{line.module}.{alias.name}", alias.name)
        for block in guarded
        for line in block.body
        for alias in line.names
    }
    assert {name for _, name in seen} == set(secateurs.__all__)
    for path, name in seen:
        home, _, attribute = path.rpartition(".")
        module = importlib.import_module(home)
        at_home = getattr(module, attribute, None) or importlib.import_module(path)
        assert at_home is getattr(secateurs, name)


def test_the_fixed_public_face_is_there():
    face = {"TicketClassifier", "TicketRegressor", "TicketConfig", "Ticket", "find_ticket", "load"}
    assert face | {"Data", "PhaseConfig", "criteria", "masks"} <= set(secateurs.__all__)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="has no attribute 'find_tickets'"):
        _ = secateurs.find_tickets


def test_the_test_sees_a_forgotten_name():
    tree = ast.parse(
        "def shown(): ...\n_hidden = 1\nONE, TWO = 1, 2\nSHOWN: int = 2\nclass Shown: ..."
    )
    assert defined(tree) == {"shown", "ONE", "TWO", "SHOWN", "Shown"}
