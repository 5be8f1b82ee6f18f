"""What is installed where: wheels with and without kernels, secateurs-runtime with NumPy only."""

import importlib.metadata
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import venv
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
RUNTIME = Path("src", "secateurs", "runtime")
COMPILER = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)

pytest.importorskip("hatchling", reason="wheels are built with hatchling, of [dev]")
pytestmark = pytest.mark.skipif(
    not (ROOT / "packaging").is_dir(), reason="an sdist holds one of the two distributions only"
)

# A stand-in for a compiler: it notes that it ran.
STUB = """
import os
from pathlib import Path

def compile_kernels(out):
    if "NO_COMPILER" in os.environ:
        raise RuntimeError("no C++17 compiler\\nat all")
    Path(out).write_bytes(b"library")
"""


def copy_tree(to):
    """Copy what is built from, without what was built."""
    kept = ["src", "packaging", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE"]
    kept += ["docs", "tests", "papers", "mkdocs.yml", "Makefile", "constraints.txt", ".gitignore"]
    kept += ["CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md"]
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "tmp*")
    to.mkdir()
    for name in kept:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy2(source, to / name)
    return to


def environment(**changed):
    """Return the environment of a process, without what would decide about kernels."""
    names = {"CXX", "PYTHONPATH", "SECATEURS_NO_KERNELS", "SECATEURS_REQUIRE_KERNELS"}
    return {k: v for k, v in os.environ.items() if k not in names} | changed


def build(project, target="wheel", **changed):
    """Build and return the file and what was said."""
    out = project / "dist"
    shutil.rmtree(out, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", "dist"],
        cwd=project,
        env=environment(**changed),
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    (made,) = out.iterdir()
    return made, said


def names_of(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def stubbed(tmp_path_factory):
    """A copy of the tree in which compiling takes no time."""
    tree = copy_tree(tmp_path_factory.mktemp("stubbed") / "tree")
    (tree / RUNTIME / "building.py").write_text(STUB)
    return tree


@pytest.mark.parametrize("project", [".", "packaging/runtime"])
def test_a_wheel_has_the_kernels_that_could_be_compiled(stubbed, project):
    wheel, _ = build(stubbed / project)
    assert wheel.name.split("-", 2)[2].startswith("py3-none-")
    assert not wheel.name.endswith("-any.whl")
    assert "secateurs/runtime/_kernels.so" in names_of(wheel)

    wheel, said = build(stubbed / project, NO_COMPILER="1")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert "secateurs/runtime/_kernels.so" not in names_of(wheel)
    (line,) = [line for line in said.splitlines() if "kernels" in line]
    assert line.endswith("falls back on Python: no C++17 compiler")

    wheel, said = build(stubbed / project, SECATEURS_NO_KERNELS="1")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert "kernels" not in said
    assert not list((stubbed / RUNTIME).glob("*.so"))


def test_failure_is_an_error_where_kernels_are_required(stubbed):
    with pytest.raises(AssertionError, match="no C\\+\\+17 compiler"):
        build(stubbed, SECATEURS_REQUIRE_KERNELS="1", NO_COMPILER="1")
    with pytest.raises(AssertionError, match="exclude each other"):
        build(stubbed, SECATEURS_REQUIRE_KERNELS="1", SECATEURS_NO_KERNELS="1")


def test_an_editable_install_compiles_beside_the_sources_when_they_changed(stubbed):
    library = stubbed / RUNTIME / "_kernels.so"

    def install(**changed):
        call = "import hatchling.build, sys; hatchling.build.build_editable('dist')"
        done = subprocess.run(
            [sys.executable, "-c", call],
            cwd=stubbed,
            env=environment(**changed),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    try:
        install()
        assert library.read_bytes() == b"library"
        library.write_bytes(b"mine")
        install(NO_COMPILER="1")
        assert library.read_bytes() == b"mine"
        os.utime(library, (0, 0))
        install()
        assert library.read_bytes() == b"library"
        # a library that no longer matches its sources does not stay
        os.utime(library, (0, 0))
        assert "no C++17 compiler" in install(NO_COMPILER="1")
        assert not library.exists()
    finally:
        library.unlink(missing_ok=True)


def test_an_sdist_builds_the_same_wheel(stubbed, tmp_path):
    for project, name in ((".", "secateurs"), ("packaging/runtime", "secateurs_runtime")):
        wheel, _ = build(stubbed / project)
        expected = names_of(wheel)
        archive, _ = build(stubbed / project, "sdist")
        with tarfile.open(archive) as tar:
            assert all(member.isfile() for member in tar.getmembers())  # no link out of it
            tar.extractall(tmp_path, filter="data")
        (unpacked,) = tmp_path.glob(f"{name}-*")
        wheel, _ = build(unpacked)
        assert names_of(wheel) == expected
        shutil.rmtree(unpacked)


def test_the_two_distributions_have_one_version_and_the_same_runtime(stubbed):
    whole, _ = build(stubbed)
    version = whole.name.split("-")[1]
    of_runtime = {n for n in names_of(whole) if n.startswith("secateurs/runtime/")}
    assert {f"secateurs/runtime/{n}" for n in ("program.py", "_kernels.so")} <= of_runtime
    part, _ = build(stubbed / "packaging/runtime")
    assert part.name.startswith(f"secateurs_runtime-{version}-")
    modules = {n for n in names_of(part) if n.startswith("secateurs/")}
    beside = {"__init__.py", "errors.py", "preparation.py", "py.typed"}
    assert modules == of_runtime | {f"secateurs/{name}" for name in beside}


# --- installed for real ------------------------------------------------------------------------


class Installed:
    """A virtual environment that holds a wheel and this one's NumPy; its PATH is empty."""

    def __init__(self, folder, wheel):
        venv.create(folder / "venv", with_pip=False, symlinks=True)
        self.python = folder / "venv" / "bin" / "python"
        self.nowhere = folder / "nowhere"
        self.nowhere.mkdir()
        (site,) = (folder / "venv" / "lib").glob("python3*/site-packages")
        numpy = importlib.metadata.distribution("numpy")
        for name in ("numpy", "numpy.libs", f"numpy-{numpy.version}.dist-info"):
            source = Path(str(numpy.locate_file(name)))
            if source.exists():
                (site / name).symlink_to(source)
        pip = [sys.executable, "-m", "pip", "--python", str(self.python)]
        subprocess.run(
            [*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel)],
            check=True,
            env=environment(),
        )
        subprocess.run([*pip, "check"], check=True, env=environment(), capture_output=True)

    def run(self, script, *arguments, **changed):
        """Run Python code that prints one JSON document; return that and what it warned of."""
        done = subprocess.run(
            [self.python, "-I", "-c", script, *map(str, arguments)],
            env={"PATH": str(self.nowhere), "OMP_NUM_THREADS": "1"} | changed,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the tree in which nothing was compiled."""
    return copy_tree(tmp_path_factory.mktemp("real") / "tree")


@pytest.fixture(scope="module", params=["compiled", "pure"])
def installed(request, tree, tmp_path_factory):
    """secateurs-runtime, from wheels built with and without a compiler on PATH."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "pure":
        (folder / "empty").mkdir()
        wheel, said = build(tree / "packaging/runtime", PATH=str(folder / "empty"))
        assert said.count("no compiled kernels") == 1
        assert wheel.name.endswith("-py3-none-any.whl")
    elif COMPILER is None:
        pytest.skip("needs a C++ compiler on PATH")
    else:
        wheel, _ = build(tree / "packaging/runtime", SECATEURS_REQUIRE_KERNELS="1")
        assert not wheel.name.endswith("-any.whl")
    made = Installed(folder, wheel)
    made.compiled = request.param == "compiled"
    return made


IMPORTS = """
import json, sys, time
began = time.perf_counter()
import secateurs
from secateurs.runtime import Engine, load
seconds = time.perf_counter() - began
modules = {name.partition(".")[0] for name in sys.modules}
print(json.dumps({"seconds": seconds, "modules": sorted(modules), "file": secateurs.__file__}))
"""


@pytest.mark.slow
def test_importing_the_runtime_needs_numpy_only(installed):
    runs = [installed.run(IMPORTS)[0] for _ in range(5)]
    assert str(installed.python.parents[1]) in runs[0]["file"]
    heavy = {"torch", "scipy", "pandas", "sklearn", "numba", "onnx"}
    assert not heavy & set(runs[0]["modules"])
    assert "numpy" in runs[0]["modules"]
    seconds = statistics.median(run["seconds"] for run in runs)
    print(f"cold import of secateurs.runtime: {1000 * seconds:.0f} ms, median of 5")
    # 0.2 s on a quiet machine; ten times that on one that is not
    assert seconds < 2


NAMES = """
import json
import secateurs
said = []
for name in ("TicketClassifier", "masks", "Data", "nonsense"):
    try:
        getattr(secateurs, name)
    except (ImportError, AttributeError) as error:
        said.append(f"{type(error).__name__}: {error}")
print(json.dumps(said))
"""


@pytest.mark.slow
def test_names_of_the_full_distribution_say_that_they_are(installed):
    (classifier, masks, data, nonsense), _ = installed.run(NAMES)
    for line, name in ((classifier, "estimator"), (masks, "masks"), (data, "data.batches")):
        assert line == (
            f"ImportError: secateurs.{name} is not in secateurs-runtime, only in the full "
            "distribution; pip install secateurs"
        )
    assert nonsense.startswith("AttributeError: module 'secateurs' has no attribute")


PREDICTS = """
import json, sys
import numpy as np
from secateurs import runtime

with np.load(sys.argv[2], allow_pickle=False) as file:
    columns = {name: file[name] for name in file.files}
model = runtime.load(sys.argv[1])
probabilities = model.predict_proba(columns)
as_filed = [runtime.load(sys.argv[1], tune=False).predict_proba(columns) for _ in range(2)]
assert (as_filed[0] == as_filed[1]).all()  # tuned ones may add in another order
assert np.allclose(as_filed[0], probabilities, rtol=0, atol=1e-6)
modules = {name.partition(".")[0] for name in sys.modules}
print(json.dumps({
    "probabilities": probabilities.tolist(),
    "labels": model.predict(columns).tolist(),
    "one": model.predict_proba({k: v[:1] for k, v in columns.items()}).tolist(),
    "modules": sorted(modules),
}))
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A fitted estimator, its file for the runtime, rows to predict and what it makes of them."""
    pd = pytest.importorskip("pandas")
    from secateurs import TicketClassifier
    from secateurs.errors import FallbackWarning

    rng = np.random.default_rng(3)
    rows = pd.DataFrame(
        {
            "age": rng.normal(40, 10, 160),
            "job": rng.choice(["clerk", "smith", "miller"], 160),
            "debt": rng.normal(0, 1, 160),
        }
    )
    labels = np.where(rows["debt"] + (rows["job"] == "smith") > 0.3, "bad", "good")
    rows.loc[::7, "age"] = np.nan
    estimator = TicketClassifier(
        widths=(32, 32), search_epochs=2, finetune_epochs=3, compression=4, random_state=0
    ).fit(rows, labels)
    folder = tmp_path_factory.mktemp("table")
    with warnings.catch_warnings():  # this environment may have no kernels
        warnings.simplefilter("ignore", FallbackWarning)
        estimator.compile().save(folder / "model.secateurs")
    np.savez(
        folder / "rows.npz",
        age=rows["age"].to_numpy(),
        job=rows["job"].to_numpy().astype(str),
        debt=rows["debt"].to_numpy(),
    )
    return folder, estimator.predict_proba(rows), estimator.predict(rows)


@pytest.mark.slow
def test_a_saved_model_of_a_table_predicts_with_numpy_only(installed, table):
    folder, probabilities, labels = table
    made, said = installed.run(PREDICTS, folder / "model.secateurs", folder / "rows.npz")
    np.testing.assert_allclose(made["probabilities"], probabilities, atol=1e-5)
    np.testing.assert_allclose(made["one"], probabilities[:1], atol=1e-5)
    assert made["labels"] == labels.tolist()
    assert not {"torch", "scipy", "pandas", "sklearn", "numba"} & set(made["modules"])
    # What is missing is announced once, not for each model.
    assert said.count("FallbackWarning: ") == (0 if installed.compiled else 1), said
