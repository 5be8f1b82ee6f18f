"""The kernels under AddressSanitizer and UndefinedBehaviorSanitizer: their tests, hostile files."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "fuzz_runtime.py"
TESTS = ("test_kernels.py", "test_plan.py")
PLACE = Path("secateurs", "runtime", "native.py")
LOADED = "from secateurs.runtime import native; print(native.__file__, native.load() is not None)"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or shutil.which("g++") is None or not SCRIPT.is_file(),
        reason="needs GCC on Linux and the benchmarks of a checkout",
    ),
]


def load(path):
    spec = importlib.util.spec_from_file_location("fuzz_runtime", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def harness():
    return load(SCRIPT)


@pytest.fixture(scope="module")
def tree(harness, tmp_path_factory):
    """A copy of the package with sanitised kernels."""
    try:
        return harness.sanitised(tmp_path_factory.mktemp("sanitised") / "tree")
    except RuntimeError as error:
        if "cannot find -lasan" in str(error) or "libasan" in str(error):
            pytest.skip("needs GCC's libasan")
        raise


@pytest.fixture(params=["avx512", "avx2", "portable"])
def isa(request, harness, tree):
    """An instruction set that this processor has."""
    if request.param not in harness.instruction_sets(tree):
        pytest.skip(f"this processor has no {request.param}")
    return request.param


def python(harness, tree, isa, *arguments):
    """Run Python on the copy; return what it printed."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=harness.preloaded(tree, isa=isa),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout


TOO_FEW_COLUMNS = """
import ctypes
import numpy as np
from secateurs.runtime import native, pack

library = native.load()
layer = native.struct(pack.pack(np.ones((3, 64), np.float32), kind="rows"))
x, y = np.ones((40, 16), np.float32), np.ones((3, 16), np.float32)
call = library.function("secateurs_linear")
call(ctypes.byref(layer), x.ctypes.data, y.ctypes.data, 16, None)
"""


def test_sanitisers_are_awake(harness, tree, isa):
    """Or else the tests below could not fail."""
    with pytest.raises(AssertionError, match=r"heap-buffer-overflow(.|\n)*kernels\.cpp"):
        python(harness, tree, isa, "-c", TOO_FEW_COLUMNS)


def test_the_kernels_tests_pass_without_a_report(harness, tree):
    """They run every instruction set that is here."""
    assert python(harness, tree, "", "-c", LOADED).split() == [str(tree / PLACE), "True"]
    files = [f"tests/runtime/{name}" for name in TESTS]
    said = python(
        harness, tree, "", *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs"), *files
    )
    assert " passed" in said
    assert "not built" not in said


def test_hostile_files_run_in_bounds_or_not_at_all(harness, tree, isa):
    n_files = 10_000 // len(harness.instruction_sets(tree))
    counts = harness.fuzz(tree, n_files, isa=isa, seed=7)
    assert counts.pop("isa") == isa
    compared = counts.pop("compared")
    assert sum(counts.values()) == n_files
    assert counts["refused"] > n_files / 2  # otherwise the mutations are no damage
    assert counts["run"] > n_files / 10
    assert compared > n_files / 20
