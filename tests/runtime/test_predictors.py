"""Compiled estimators predict as the estimators do, from every kind of table, also from a file."""

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.datasets import load_digits

from reference.mutations import joined, parts
from secateurs import ImageTicketClassifier, TicketClassifier, TicketRegressor, runtime
from secateurs.errors import InputError
from secateurs.preparation import canonical
from secateurs.runtime.engine import compile
from secateurs.runtime.predictors import ImageEngine, TableEngine, restored
from secateurs.runtime.program import Op, Program

ROOT = Path(runtime.__file__).parents[2]
TINY = {"widths": (32, 32), "search_epochs": 2, "finetune_epochs": 7, "random_state": 0}

pytestmark = pytest.mark.filterwarnings("ignore::secateurs.errors.CollapseWarning")


def table(n=200, *, seed=0):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "number": rng.standard_normal(n) * 100,
            "word": rng.choice(["x", "y", None], n),
            "whole": pd.array(rng.integers(0, 5, n), dtype="Int64"),
            "level": pd.Categorical(rng.choice(["u", "v"], n)),
            "flag": rng.random(n) < 0.5,
            "coded": pd.Series(rng.choice([1, 2.5, "a"], n), dtype=object),
            "empty": np.full(n, np.nan),
        }
    )
    X.loc[::7, "number"] = np.nan
    X.loc[::5, "whole"] = pd.NA
    return X, np.where((X["number"].fillna(0) > 0) & (X["word"] == "x"), "yes", "no")


@pytest.fixture(scope="module")
def classifier():
    X, y = table()
    return TicketClassifier(n_tickets=2, snapshots=3, **TINY).fit(X, y)


@pytest.fixture(scope="module")
def regressor():
    X, _ = table()
    target = X["number"].fillna(0).to_numpy() * 1e4 + 1e6
    return TicketRegressor(**TINY).fit(X, target)


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    x = (data.images * 255 / 16).astype("uint8")
    clf = ImageTicketClassifier(
        width=2, view="crop", search_epochs=1, finetune_epochs=2, random_state=0
    )
    return clf.fit(x[:300], data.target[:300]), x[300:340]


def test_classes_are_those_of_the_estimator(classifier):
    X, _ = table(seed=1)
    fast = classifier.compile()
    assert np.abs(fast.predict_proba(X) - classifier.predict_proba(X)).max() < 1e-5
    np.testing.assert_array_equal(fast.predict(X), classifier.predict(X))
    assert fast.predict_proba(X).dtype == np.float64
    assert fast.engine.input_shape == (classifier.members_[0].encoder[0].in_features,)


def test_numbers_are_those_of_the_estimator(regressor):
    X, _ = table(seed=1)
    found, wanted = regressor.compile(tune=False).predict(X), regressor.predict(X)
    assert np.abs(found - wanted).max() < 1e-5 * regressor.target_scale_
    with pytest.raises(InputError, match="a model of numbers has no probabilities"):
        regressor.compile(tune=False).predict_proba(X)


@pytest.mark.parametrize("network", ["cnn", "mlp_vis", "lenet_300_100", "resnet18"])
def test_images_are_those_of_the_estimator(network):
    data = load_digits()
    x = (data.images * 255 / 16).astype("uint8")
    width = {"cnn": 2, "mlp_vis": 1, "resnet18": 4}.get(network)
    clf = ImageTicketClassifier(
        network=network, width=width, view="crop", search_epochs=1, finetune_epochs=1,
        random_state=0,
    ).fit(x[:200], data.target[:200])  # fmt: skip
    fast = clf.compile(tune=False)
    assert np.abs(fast.predict_proba(x[200:240]) - clf.predict_proba(x[200:240])).max() < 1e-5


def test_images_of_all_layouts(digits):
    clf, x = digits
    fast = clf.compile(tune=False)
    wanted = clf.predict_proba(x)
    for same in (x, x[:, None], x[..., None], x.astype(int), x.tolist()):
        assert np.abs(fast.predict_proba(same) - wanted).max() < 1e-5
    np.testing.assert_array_equal(fast.predict(x), clf.predict(x))
    assert fast.predict_proba(x[:0]).shape == (0, 10)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: x[:, :7], r"images must be \[rows, 1, 8, 8\] or \[rows, 8, 8\]"),
        (lambda x: x / 255, "whole numbers in 0..255, got float64"),
        (lambda x: x.astype(int) * 2, "whole numbers in 0..255, got int64"),
        (lambda x: x[0, 0], "images must be"),
    ],
)
def test_other_images_are_refused(digits, change, reason):
    clf, x = digits
    with pytest.raises(InputError, match=reason):
        clf.compile(tune=False).predict(change(x))


def forms(X):
    """The same rows as every kind of table there is."""
    return {
        "frame": X,
        "columns in another order": X[X.columns[::-1]],
        "arrow-backed": X.drop(columns=["coded", "flag"])
        .convert_dtypes(dtype_backend="pyarrow")
        .assign(coded=X["coded"], flag=X["flag"])[list(X.columns)],
        "dict of arrays": {name: X[name].to_numpy() for name in X},
        "dict of lists": {name: X[name].tolist() for name in X},
        "dict with more": {"more": np.zeros(len(X)), **{n: X[n].to_numpy() for n in X}},
        "object array": X.to_numpy(dtype=object),
        "list of rows": X.to_numpy(dtype=object).tolist(),
    }


@pytest.mark.parametrize("form", list(forms(table()[0])))
def test_tables_of_every_kind(classifier, form):
    X, _ = table(seed=2)
    found = classifier.compile(tune=False).predict_proba(forms(X)[form])
    assert np.abs(found - classifier.predict_proba(X)).max() < 1e-5


@pytest.mark.parametrize("make", [pl.from_pandas, pa.Table.from_pandas])
def test_tables_of_other_libraries(classifier, make):
    X, _ = table(seed=2)
    X["coded"] = X["coded"].map(canonical)  # these libraries do not mix types
    found = classifier.compile(tune=False).predict_proba(make(X))
    assert np.abs(found - classifier.predict_proba(X)).max() < 1e-5


def test_masked_arrays_miss_what_they_hide():
    X = np.arange(60.0).reshape(20, 3) % 7
    clf = TicketClassifier(**TINY).fit(X, np.arange(20) % 2)
    hidden = np.ma.masked_array(X, mask=X == 3)
    found = clf.compile(tune=False).predict_proba(hidden)
    missing = np.where(X == 3, np.nan, X)
    assert np.abs(found - clf.predict_proba(missing)).max() < 1e-5


def test_numbers_may_be_words(classifier):
    X, _ = table(seed=2)
    X["number"] = X["number"].map(lambda v: None if np.isnan(v) else str(v))
    found = classifier.compile(tune=False).predict_proba(X)
    assert np.abs(found - classifier.predict_proba(X)).max() < 1e-5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda X: X.drop(columns="word"), "none named 'word'"),
        (lambda X: X.assign(number="many"), "'number' was numeric in training, got 'many'"),
        (lambda X: X.assign(number=np.inf), "'number' holds infinite values"),
        (lambda X: X.assign(number=pd.Timestamp(0)), "'number' was numeric in training, got date"),
        (lambda X: X.to_numpy(dtype=object)[:, :2], "must have the 7 columns"),
        (lambda X: X["number"], "must have the 7 columns"),
        (lambda X: {**{n: X[n] for n in X}, "word": X["word"][:3]}, "arrays of one length"),
    ],
)
def test_other_tables_are_refused(classifier, change, reason):
    with pytest.raises(InputError, match=reason) as caught:
        classifier.compile(tune=False).predict(change(table()[0]))
    assert "\n" not in str(caught.value)


def test_no_rows_have_no_predictions(classifier):
    X, _ = table()
    fast = classifier.compile(tune=False)
    assert fast.predict_proba(X[:0]).shape == (0, 2)
    assert fast.predict(X[:0]).shape == (0,)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_lower_precisions_are_near(classifier, precision):
    X, _ = table(seed=1)
    fast = classifier.compile(precision, tune=False)
    error = np.abs(fast.predict_proba(X) - classifier.predict_proba(X)).max()
    assert 0 < error < 0.05


def test_an_estimator_that_is_not_fitted_is_not_compiled():
    with pytest.raises(ValueError, match="not fitted"):
        TicketClassifier().compile()
    with pytest.raises(ValueError, match="not fitted"):
        ImageTicketClassifier().compile()


# --- files ----------------------------------------------------------------------------------------


def test_a_file_predicts_the_same(classifier, regressor, digits, tmp_path):
    X, _ = table(seed=1)
    for name, estimator, rows in (
        ("classes", classifier, X),
        ("numbers", regressor, X),
        ("images", *digits),
    ):
        fast = estimator.compile(tune=False)
        fast.save(tmp_path / name)
        for found in (
            runtime.load(tmp_path / name, tune=False),
            copy.deepcopy(fast),
            pickle.loads(pickle.dumps(fast)),
        ):
            assert type(found) is type(fast)
            np.testing.assert_array_equal(found.predict(rows), fast.predict(rows))
            assert repr(found) == repr(fast)


@pytest.mark.parametrize(
    "labels",
    [["b", "a"], [3, 1], [2.0, 1.0], [True, False], np.array([2, 1], np.uint8)],
    ids=["words", "whole", "numbers", "yes and no", "uint8"],
)
def test_labels_come_back_as_they_were(labels, tmp_path):
    X = np.arange(40.0).reshape(20, 2)
    clf = TicketClassifier(**TINY).fit(X, np.array(labels)[np.arange(20) % 2])
    clf.compile(tune=False).save(tmp_path / "net")
    found = runtime.load(tmp_path / "net", tune=False)
    assert found.classes_.dtype == clf.classes_.dtype
    np.testing.assert_array_equal(found.predict(X), clf.predict(X))


def test_a_file_predicts_with_numpy_alone(classifier, tmp_path):
    X, _ = table(seed=1)
    fast = classifier.compile(tune=False)
    fast.save(tmp_path / "net")
    rows = {name: [None if pd.isna(v) else v for v in X[name].tolist()] for name in X}
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    code = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}]
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('torch', 'pandas', 'sklearn', 'safetensors'):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import json, secateurs.runtime
model = secateurs.runtime.load({str(tmp_path / "net")!r})
rows = json.loads(open({str(tmp_path / "rows.json")!r}).read())
print(json.dumps(model.predict_proba(rows).tolist()))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert np.abs(np.array(json.loads(done.stdout)) - classifier.predict_proba(X)).max() < 1e-5


def damaged(fast, tmp_path, change):
    header, data = parts(fast.to_bytes())
    header = json.loads(header)
    change(header["about"])
    (tmp_path / "net").write_bytes(joined(header, data))
    return tmp_path / "net"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: a.pop("preparation"), "of a network, a table or images"),
        (lambda a: a.update(images=True), "of a network, a table or images"),
        (lambda a: a.update(more=1), "of a network, a table or images"),
        (lambda a: a["preparation"]["columns"].pop(0), "encoded columns"),
        (lambda a: a["preparation"].update(format=9), "preparation format"),
        (lambda a: a["classes"]["values"].pop(), "one class for each output"),
        (lambda a: a["classes"].update(values=["yes", "yes"]), "differ from each other"),
        (lambda a: a["classes"].update(values=[["no"], "yes"]), "words, numbers"),
        (lambda a: a["classes"].update(dtype="M8[s]"), "no type"),
        (lambda a: a["classes"].update(dtype="<U199999999"), "no type"),
        (lambda a: a["classes"].update(dtype="no such"), "fit their type"),
        (lambda a: a["classes"].update(dtype="<U1"), "fit their type"),
        (lambda a: a["classes"].update(dtype="<i8"), "fit their type"),
        (lambda a: a.update(classes=3), "a type and values"),
        (lambda a: a.update(target={"mean": 0, "scale": 0}), "positive scale"),
        (lambda a: a.update(target={"mean": 10**400, "scale": 1}), "finite mean"),
    ],
)
def test_what_a_file_says_is_not_trusted(classifier, change, reason, tmp_path):
    fast = classifier.compile(tune=False)
    with pytest.raises(InputError, match=reason) as caught:
        runtime.load(damaged(fast, tmp_path, change), tune=False)
    assert str(tmp_path / "net") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_without_classes_are_refused():
    op = Op(kind="flatten", inputs=(0,), shape=(4,))
    engine = compile(Program(input_shape=(1, 2, 2), ops=(op,)), tune=False)
    with pytest.raises(InputError, match="images have classes"):
        restored(engine, {"images": True})


def test_engines_of_another_size_are_refused(classifier):
    fast = classifier.compile(tune=False)
    with pytest.raises(InputError, match="as many outputs"):
        TableEngine(fast.engine, preparation=fast.preparation, classes=np.arange(3))
    with pytest.raises(InputError, match="needs an engine of as many inputs"):
        TableEngine(
            fast.engine,
            preparation={"format": 1, "columns": fast.preparation["columns"][:1]},
            classes=fast.classes_,
        )
    assert not isinstance(fast, ImageEngine)
