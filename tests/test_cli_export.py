"""secateurs export: a file appears once it predicts as the model does, and runs elsewhere."""

import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from secateurs import runtime
from secateurs.cli import main
from secateurs.command import export as exporting
from secateurs.command.export import example_columns
from secateurs.errors import InputError
from secateurs.image_classifier import ImageTicketClassifier
from secateurs.loading import load
from secateurs.preparation import canonical, encode
from secateurs.runtime.predictors import TableEngine

TINY = ["--set", "widths=[16,16]", "--set", "search_epochs=2", "--set", "finetune_epochs=7"]

pytestmark = pytest.mark.filterwarnings("ignore::secateurs.errors.CollapseWarning")


def said(capsys):
    """What stands on stderr but, once in a process without the kernels, that they are absent."""
    lines = capsys.readouterr().err.splitlines(keepends=True)
    return "".join(line for line in lines if "compiled library" not in line)


def run(*words):
    return main([str(word) for word in words])


def table(n=80, seed=0):
    rng = np.random.default_rng(seed)
    size = rng.normal(size=n) * 1e3
    colour = rng.choice(["red", "green", None], n)
    year = rng.integers(1.6e9, 1.7e9, n).astype(float)  # of many digits
    price = size * 2 + year / 1e6
    y = np.where(size + 1e3 * (colour == "red") > 0, "yes", "no")
    size[::5] = np.nan
    return pd.DataFrame({"size": size, "colour": colour, "year": year, "price": price, "y": y})


@pytest.fixture(scope="module", params=["y", "price"])
def model(request, tmp_path_factory):
    """A model of classes, and one of numbers."""
    folder = tmp_path_factory.mktemp(request.param)
    table().drop(columns={"y", "price"} - {request.param}).to_csv(folder / "t.csv", index=False)
    words = ["--target", request.param, "--out", folder / "m", "--quiet", *TINY]
    assert run("fit", folder / "t.csv", *words) == 0
    return folder / "m"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    data = load_digits()
    x = (data.images * 255 / 16).astype("uint8")
    clf = ImageTicketClassifier(
        width=2, view="crop", search_epochs=1, finetune_epochs=2, random_state=0
    ).fit(x[:300], data.target[:300])
    out = tmp_path_factory.mktemp("digits") / "m"
    clf.save(out)
    return out


def rows():
    return table(seed=1).drop(columns=["y", "price"])


def outputs(estimator, X):
    return estimator.predict_proba(X) if hasattr(estimator, "classes_") else estimator.predict(X)


def test_a_file_of_the_runtime_predicts_as_the_model(model, tmp_path, capsys):
    out = tmp_path / "model.secateurs"
    assert run("export", model, "--format", "runtime", "--out", out) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{out}: {out.stat().st_size:,} bytes, runtime, fp32; predictions of")
    estimator, made = load(model), runtime.load(out)
    assert type(made) is TableEngine
    wanted = outputs(estimator, rows())
    found = made.predict_proba(rows()) if made.classes_ is not None else made.predict(rows())
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_precisions_are_kept(model, tmp_path, capsys):
    sizes = {}
    for precision in ("fp32", "bf16", "int8"):
        out = tmp_path / precision
        words = ["--format", "runtime", "--precision", precision]
        assert run("export", model, *words, "--out", out) == 0
        assert f"runtime, {precision}; predictions" in capsys.readouterr().out
        assert runtime.load(out, tune=False).engine.precision == precision
        sizes[precision] = out.stat().st_size
    assert sizes["bf16"] < sizes["fp32"]


def test_an_onnx_file_predicts_as_the_model(model, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    out = tmp_path / "model.onnx"
    assert run("export", model, "--format", "onnx", "--out", out) == 0
    X = rows()
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    types = {value.name: value.type for value in session.get_inputs()}
    assert types == {
        "size": types["size"],
        "colour": "tensor(string)",
        "year": "tensor(double)",  # float32 would lose its last digits
    }
    kind = {"tensor(float)": np.float32, "tensor(double)": np.float64}
    feeds = {
        name: X[name].to_numpy(kind.get(types[name], object))[:, None] for name in ("size", "year")
    }
    feeds["colour"] = np.array([canonical(v) or "" for v in X["colour"]], object)[:, None]
    found = session.run(None, feeds)
    estimator = load(model)
    wanted = outputs(estimator, X)
    np.testing.assert_allclose(found[0].reshape(wanted.shape), wanted, rtol=1e-5, atol=1e-5)
    if hasattr(estimator, "classes_"):
        np.testing.assert_array_equal(found[1], estimator.predict(X))


@pytest.mark.parametrize("name", ["onnx", "runtime"])
def test_images(digits, name, tmp_path, capsys):
    if name == "onnx":
        pytest.importorskip("onnxruntime")
    assert run("export", digits, "--format", name, "--out", tmp_path / "m") == 0
    assert "predictions of 256 random rows differ" in capsys.readouterr().out
    if name == "runtime":
        x = (load_digits().images * 255 / 16).astype("uint8")[300:330]
        wanted = load(digits).predict_proba(x)
        assert np.abs(runtime.load(tmp_path / "m").predict_proba(x) - wanted).max() < 1e-5


def test_a_file_that_predicts_something_else_does_not_appear(model, tmp_path, monkeypatch, capsys):
    own = exporting._as_runtime

    def spoilt(*words):
        blob, predict = own(*words)
        return blob, lambda given: predict(given) * 1.01 + 0.01

    monkeypatch.setattr(exporting, "_as_runtime", spoilt)
    assert run("export", model, "--format", "runtime", "--out", tmp_path / "m") == 2
    err = said(capsys)
    assert "the file must predict as the model does, but differs by" in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--format", "onnx", "--precision", "int8", "--out", "x"], "--precision is for --format"),
        (["--format", "onnx"], "--out"),
        (["--format", "tflite", "--out", "x"], "invalid choice"),
        (["--format", "runtime", "--out", "no/such/folder/x"], "cannot write"),
    ],
)
def test_wrong_words_are_told_in_one_line(model, words, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("export", model, *words) == 2
    err = said(capsys)
    assert reason in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_is_no_model_is_refused(tmp_path, capsys):
    assert run("export", tmp_path, "--format", "runtime", "--out", tmp_path / "x") == 2
    assert "must be a model folder" in capsys.readouterr().err


def test_onnx_that_is_absent_is_named(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert run("export", model, "--format", "onnx", "--out", tmp_path / "x") == 2
    assert "pip install secateurs[onnx]" in capsys.readouterr().err


def test_example_columns_have_all_that_may_come(model):
    preparation = load(model).preparation_
    columns = example_columns(preparation, 300)
    assert set(columns["colour"]) == {"red", "green", None, "unknown_value"}
    assert np.isnan(columns["size"]).any()
    assert np.abs(encode(preparation, columns)).max() < 10
    with pytest.raises(InputError, match="absent"):
        encode(preparation, {"size": columns["size"]})
