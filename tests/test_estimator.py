"""The scikit-learn face, on small nets. What scikit-learn itself checks is in `contracts`."""

import math
import pickle
import re
import warnings

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.utils import compute_class_weight

import secateurs as sc
from secateurs import estimator as estimator_module
from secateurs import masks, model_directory, recipes, training
from secateurs.command.comparison import folder_bytes
from secateurs.data.tables import check_classes
from secateurs.errors import CollapseWarning, InputError, RegimeWarning, TimeLimitWarning
from secateurs.estimator import TicketClassifier, TicketRegressor

FAST = {"widths": (16,), "search_epochs": 2, "finetune_epochs": 7, "random_state": 0}

pytestmark = pytest.mark.filterwarnings("ignore::secateurs.errors.CollapseWarning")


def classifier(**parameters):
    return TicketClassifier(**{**FAST, **parameters})


def regressor(**parameters):
    return TicketRegressor(**{**FAST, **parameters})


def numbers(rows=60, columns=5, seed=0):
    """Return an array and two classes that it explains."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, columns))
    return X, (X[:, 0] + 0.3 * rng.normal(size=rows) > 0).astype(int)


def people(rows=90, seed=0):
    """Return a table with a column of every kind and three classes in words."""
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 80, rows)
    height = rng.normal(170, 10, rows)
    height[rng.random(rows) < 0.1] = np.nan
    job = rng.choice(np.array(["clerk", "miner", "nurse"], dtype=object), rows)
    job[rng.random(rows) < 0.1] = None
    frame = pd.DataFrame(
        {
            "age": age,
            "height": height,
            "job": job,
            "smoker": rng.random(rows) < 0.4,
            "town": pd.Categorical(rng.choice(["ulm", "bonn"], rows)),
            "nothing": np.full(rows, np.nan),
        }
    )
    y = np.select([age < 35, job == "nurse"], ["young", "nurse"], "other")
    return frame, y


def bits(clf, X):
    """Return the predictions, to be compared with `==`."""
    return clf.predict_proba(X) if hasattr(clf, "predict_proba") else clf.predict(X)


def same(one, other, X):
    return np.array_equal(bits(one, X), bits(other, X))


def refused(message, call, *args, **kwargs):
    """Assert that the call raises one line that matches."""
    with pytest.raises(InputError, match=message) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def cells(clf):
    """Return the network's outputs for each member, computed in the plainest way."""

    def of(X):
        x = torch.from_numpy(
            estimator_module.encode_frame(clf.preparation_, estimator_module.to_frame(X))
        )
        with torch.no_grad():
            return [member(x).double() for member in clf.members_]

    return of


# Learning


def test_classifier_learns_digits():
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, random_state=0, stratify=y)
    clf = classifier(widths=(64, 64), search_epochs=10, finetune_epochs=14, finetune_lr=1e-2)
    clf.fit(X, y)
    assert clf.density_ == 0.125
    assert clf.score(X_test, y_test) > 0.94


def test_classifier_learns_iris():
    X, y = load_iris(return_X_y=True, as_frame=True)
    clf = classifier(widths=(32, 32), search_epochs=10, finetune_epochs=28, finetune_lr=1e-2)
    assert clf.fit(X, y).score(X, y) > 0.9


def test_regressor_learns_diabetes_in_its_units():
    X, y = load_diabetes(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, random_state=0)
    reg = regressor(widths=(64,), search_epochs=10, finetune_epochs=14, finetune_lr=3e-2)
    assert reg.fit(X, y).score(X_test, y_test) > 0.3
    predicted = reg.predict(X_test)
    # The target is standardised inside: other units are other units of the predictions.
    scaled = clone(reg).fit(X, 1000 * y + 5e6).predict(X_test)
    np.testing.assert_allclose(scaled, 1000 * predicted + 5e6, rtol=1e-5)


# Weights


def test_weight_of_zero_is_an_absent_row():
    frame, y = people()
    keep = np.random.default_rng(1).random(len(y)) < 0.7
    keep[np.flatnonzero(y == "nurse")[:2]] = True
    whole = classifier().fit(frame, y, sample_weight=keep.astype(float))
    part = classifier().fit(frame[keep], y[keep])
    assert same(whole, part, frame)
    assert whole.summary_["rows"] == keep.sum()
    target = frame["age"].to_numpy(float)
    reg = regressor().fit(frame, target, sample_weight=keep.astype(float))
    assert same(reg, regressor().fit(frame[keep], target[keep]), frame)


@pytest.mark.parametrize("weight", [1.0, 0.1, 7.0, 1e300])
def test_equal_weights_are_none(weight):
    X, y = numbers()
    plain, weighted = classifier().fit(X, y), classifier().fit(X, y, np.full(len(y), weight))
    assert same(plain, weighted, X)
    target = X[:, 1]
    assert same(regressor().fit(X, target), regressor().fit(X, target, [weight] * len(y)), X)


def test_scale_of_weights_does_not_matter():
    X, y = numbers()
    w = np.random.default_rng(0).uniform(1, 3, len(y))
    one, other = classifier().fit(X, y, w), classifier().fit(X, y, w * 2.0**40)
    assert same(one, other, X)
    assert not same(one, classifier().fit(X, y), X)


def test_fit_left_with_one_class_says_so():
    X, y = numbers()
    message = refused("class", classifier().fit, X, y, sample_weight=(y == 1).astype(float))
    assert "got one class: 1" in message
    refused("class", classifier().fit, X, np.zeros(len(y)))
    refused("zero", classifier().fit, X, y, sample_weight=np.zeros(len(y)))


def test_weights_act_on_the_cross_entropy_only():
    X, y = numbers(rows=60)  # one batch an epoch: the first row of the history is of the start
    w = np.where(y == 1, 5.0, 1.0)
    plain, weighted = (
        classifier(batch_size=128).fit(X, y, sample_weight=weight).history_.iloc[0]
        for weight in (None, w)
    )
    assert plain["contrastive"] == weighted["contrastive"]
    assert plain["loss"] != weighted["loss"]


def test_class_weights_are_sample_weights_by_class():
    frame, y = people()
    classes = np.unique(y)
    balanced = compute_class_weight("balanced", classes=classes, y=y)
    by_hand = balanced[np.searchsorted(classes, y)]
    expected = classifier().fit(frame, y, sample_weight=by_hand)
    by_name = classifier(class_weight="balanced").fit(frame, y)
    by_dict = classifier(class_weight=dict(zip(classes, balanced, strict=True))).fit(frame, y)
    assert same(expected, by_name, frame)
    assert same(expected, by_dict, frame)
    assert not same(expected, classifier().fit(frame, y), frame)


def test_class_and_sample_weights_multiply():
    X, y = numbers()
    w = np.random.default_rng(0).uniform(0.5, 2, len(y))
    both = classifier(class_weight={0: 1.0, 1: 4.0}).fit(X, y, sample_weight=w)
    assert same(both, classifier().fit(X, y, sample_weight=w * np.where(y == 1, 4.0, 1.0)), X)


def test_balanced_weights_help_the_rare_class():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    y = (X[:, 0] + rng.normal(size=400) > 2.2).astype(int)
    longer = {"finetune_epochs": 28, "finetune_lr": 1e-2}
    plain = classifier(**longer).fit(X, y).predict(X)
    balanced = classifier(**longer, class_weight="balanced").fit(X, y).predict(X)
    assert balanced[y == 1].mean() > plain[y == 1].mean() + 0.2


def test_weights_go_by_position():
    X, y = numbers()
    w = np.random.default_rng(0).uniform(0.5, 2, len(y))
    shuffled = pd.Series(w, index=np.random.default_rng(1).permutation(len(w)))
    frame = pd.DataFrame(X, columns=list("abcde"), index=np.arange(len(y))[::-1])
    expected = classifier().fit(pd.DataFrame(X, columns=list("abcde")), y, sample_weight=w)
    got = classifier().fit(frame, pd.Series(y, index=shuffled.index), sample_weight=shuffled)
    assert same(expected, got, frame)


@pytest.mark.parametrize("weight", [[1.0, 2.0], -1.0, np.nan, "heavy"])
def test_bad_weights(weight):
    X, y = numbers()
    given = weight if isinstance(weight, list) else np.array([weight] * len(y))
    refused(".", classifier().fit, X, y, sample_weight=given)
    refused(".", regressor().fit, X, X[:, 0], sample_weight=given)


# Tables


CONTAINERS = {
    "arrow-backed": lambda frame: frame.convert_dtypes(dtype_backend="pyarrow"),
    "nullable": lambda frame: frame.convert_dtypes(),
    "polars": pl.from_pandas,
    "pyarrow": pa.Table.from_pandas,
    "object array": lambda frame: frame.astype(object).to_numpy(),
    "list of rows": lambda frame: frame.astype(object).to_numpy().tolist(),
    "index": lambda frame: frame.set_axis(range(len(frame), 0, -1)),
}


@pytest.fixture(scope="module")
def fitted():
    frame, y = people()
    return frame, y, classifier().fit(frame, y)


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same(fitted, container):
    frame, y, clf = fitted
    held = CONTAINERS[container](frame)
    other = classifier().fit(held, y)
    assert np.array_equal(other.predict_proba(held), clf.predict_proba(frame))
    if container not in ("object array", "list of rows"):  # those have other names
        assert list(other.feature_names_in_) == list(frame.columns)
        assert np.array_equal(clf.predict_proba(held), clf.predict_proba(frame))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16, object, str])
def test_arrays_of_every_type(dtype):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 3, size=(60, 3))
    y = (X[:, 0] == 1).astype(int)
    clf = classifier().fit(X.astype(dtype), y)
    assert np.array_equal(clf.predict_proba(X.astype(dtype)), clf.predict_proba(X))
    kinds = {column["kind"] for column in clf.preparation_["columns"]}
    assert kinds == {"categorical" if dtype is str else "numeric"}
    assert clf.n_features_in_ == 3


def test_columns_of_every_kind(fitted):
    frame, _, clf = fitted
    kinds = {column["name"]: column["kind"] for column in clf.preparation_["columns"]}
    assert kinds == {
        "age": "numeric",
        "height": "numeric",
        "job": "categorical",
        "smoker": "numeric",
        "town": "categorical",
        "nothing": "dropped",
    }
    assert clf.n_features_in_ == 6
    assert list(clf.feature_names_in_) == list(frame.columns)
    dense = classifier(compression=1).fit(*fitted[:2])
    # every column that is kept matters to what is predicted, the empty one does not
    for name, other in [("age", 99), ("height", 200.0), ("job", "nurse"), ("town", "bonn")]:
        changed = frame.assign(**{name: [other] * len(frame)})
        assert not same_rows(dense, changed, frame), name
    assert same_rows(dense, frame, frame.assign(nothing=3.0))


def same_rows(clf, one, other):
    return np.array_equal(clf.predict_proba(one), clf.predict_proba(other))


def test_unseen_and_missing_at_prediction(fitted):
    frame, _, clf = fitted
    new = clf.predict_proba(frame.assign(job="pilot"))
    assert np.isfinite(new).all()
    assert not np.array_equal(new, clf.predict_proba(frame.assign(job=None)))
    # age and town had no missing value in training: the median, and no level
    median = clf.preparation_["columns"][0]["median"]
    assert same_rows(clf, frame.assign(age=np.nan), frame.assign(age=median))
    assert same_rows(clf, frame.assign(town=None), frame.assign(town="paris"))


def test_order_of_columns_is_free_and_names_are_not(fitted):
    frame, _, clf = fitted
    assert same_rows(clf, frame, frame[frame.columns[::-1]])
    assert same_rows(clf, frame, pl.from_pandas(frame[frame.columns[::-1]]))
    refused("lacks 'job'", clf.predict, frame.drop(columns="job"))
    refused("has 'extra' besides", clf.predict, frame.assign(extra=1))
    refused("lacks 'job'.*has 'jop'", clf.predict, frame.rename(columns={"job": "jop"}))
    with pytest.warns(UserWarning, match="valid feature names"):
        refused("5 features", clf.predict, frame.to_numpy()[:, :5])


def test_wild_values_predict_something_finite():
    X, y = numbers()
    clf = classifier().fit(X, y)
    assert np.isfinite(clf.predict_proba(np.full((3, 5), 1e300))).all()
    assert np.isfinite(clf.predict_proba(np.full((3, 5), np.nan))).all()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.date_range("2020-01-01", periods=90), "'bad' holds dates or times"),
        ([f"id-{i}" for i in range(90)], "'bad' has 90 distinct values.*drop it"),
        ([[1, 2]] * 90, "'bad' holds a cell of type list"),
        ([1 + 2j] * 90, "'bad' holds complex numbers"),
        ([np.inf] + [1.0] * 89, "'bad' holds infinite values"),
    ],
    ids=["dates", "identifier", "lists", "complex", "infinite"],
)
@pytest.mark.parametrize("make", [classifier, regressor])
def test_columns_that_cannot_be_used(column, message, make):
    frame, y = people()
    y = y if make is classifier else np.arange(90.0)
    refused(message, make().fit, frame.assign(bad=column), y)


def test_infinities_in_arrays():
    X, y = numbers()
    bad = X.copy()
    bad[3, 2] = -np.inf
    refused("infinit", classifier().fit, bad, y)
    refused("infinit", classifier().fit(X, y).predict, bad)
    refused("infinit", classifier().fit, bad.astype(object), y)


@pytest.mark.parametrize(
    "X",
    [np.empty((0, 3)), np.empty((5, 0)), np.zeros(5), np.zeros((2, 2, 2)), pd.Series([1.0, 2.0])],
    ids=["no rows", "no columns", "1-d", "3-d", "series"],
)
def test_what_is_no_table(X):
    refused(".", classifier().fit, X, np.arange(len(X)) % 2)


def test_frames_that_are_no_tables():
    refused("0 rows", classifier().fit, pd.DataFrame({"a": []}), [])
    refused("at least one feature", classifier().fit, pd.DataFrame(index=range(4)), [0, 1, 0, 1])
    twice = pd.DataFrame(np.zeros((4, 2)), columns=["a", "a"])
    refused("'a' twice", classifier().fit, twice, [0, 1, 0, 1])
    empty = pd.DataFrame({"a": [None] * 4})
    refused("at least one feature column with a value", classifier().fit, empty, [0, 1, 0, 1])


# Labels


LABELS = {
    "int": (np.array([3, -1, 7]), np.int64),
    "uint8": (np.array([3, 1, 7], dtype=np.uint8), np.uint8),
    "float": (np.array([2.0, 0.0, 1.0]), np.float64),
    "str": (np.array(["b", "c", "a"]), np.dtype("<U1")),
    "object": (np.array(["b", "c", "aa"], dtype=object), object),
    "object of ints": (np.array([3, 1, 7], dtype=object), np.int64),
    "series": (pd.Series(["b", "c", "a"]), object),
    "categorical": (pd.Series(["b", "c", "a"], dtype="category"), object),
    "categorical ints": (pd.Series([5, 4, 6], dtype="category"), np.int64),
    "nullable": (pd.Series([5, 4, 6], dtype="Int64"), np.int64),
    "arrow": (pd.Series(["b", "c", "a"], dtype="string[pyarrow]"), object),
    "polars": (pl.Series(["b", "c", "a"]), None),
    "bool": (np.array([True, False, True]), bool),
    "nullable bool": (pd.Series([True, False, True], dtype="boolean"), bool),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_type(kind, tmp_path):
    levels, dtype = LABELS[kind]
    X = np.random.default_rng(0).normal(size=(60, 3))
    codes = np.arange(60) % 3
    y = levels[codes] if not isinstance(levels, pd.Series) else levels.iloc[codes]
    X[:, 0] += 5 * np.unique(np.asarray(y), return_inverse=True)[1]
    clf = classifier(compression=2, finetune_epochs=28, finetune_lr=3e-2).fit(X, y)
    assert clf.classes_.tolist() == sorted(set(np.asarray(levels).tolist()))
    if dtype is not None:
        assert clf.classes_.dtype == dtype
    assert clf.predict(X).dtype == clf.classes_.dtype
    assert (clf.predict(X) == np.asarray(y)).mean() > 0.8
    assert np.array_equal(clf.classes_[clf.predict_proba(X).argmax(1)], clf.predict(X))
    clf.save(tmp_path / "model")
    again = sc.load(tmp_path / "model")
    assert again.classes_.dtype == clf.classes_.dtype
    assert again.classes_.tolist() == clf.classes_.tolist()
    assert same(again, clf, X)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda y: np.r_[np.nan, y[1:]], "y contains NaN"),
        (lambda y: [None, *map(str, y[1:])], "y contains NaN"),
        (lambda y: pd.Series([pd.NA, *y[1:]], dtype="Int64"), "y contains NaN"),
        (lambda y: np.r_[np.inf, y[1:]], "infinity"),
        (lambda y: np.array([*y[:-1], "x"], dtype=object), "one type, got int64, str"),
        (lambda y: y + 0.5 * np.arange(60) + 0.25, "continuous"),
        (lambda y: pd.to_datetime(np.where(y, "2020-01-01", "2021-01-01")), "dates or times"),
        (lambda y: np.where(y, b"a", b"b"), "bytes"),
        (lambda y: np.c_[y, y], "1d array"),
        (lambda y: y[:-1], "equal length, got 60 and 59"),
        (lambda _: None, "y is None"),
    ],
    ids=["nan", "none", "na", "inf", "mixed", "numbers", "dates", "bytes", "2-d", "short", "no"],
)
def test_labels_that_cannot_be_used(spoil, message):
    X, y = numbers()
    refused(message, classifier().fit, X, spoil(y))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda y: np.full(len(y), 3.0), "must vary, got the constant 3 in 60 rows"),
        (lambda y: [f"{value}!" for value in y], "must be numbers, got .* such as '"),
        (lambda y: pd.to_datetime(y, unit="D"), "dates or times"),
        (lambda y: np.r_[np.nan, y[1:]], "NaN"),
        (lambda y: np.r_[np.inf, y[1:]], "infinity"),
        (lambda y: pd.Series([pd.NA, *y[1:]], dtype="Float64"), "NaN|numbers"),
        (lambda y: y[:-1], "equal length, got 60 and 59"),
        (lambda _: None, "y is None"),
    ],
    ids=["constant", "words", "dates", "nan", "inf", "na", "short", "no"],
)
def test_targets_that_cannot_be_used(spoil, message):
    X, _ = numbers()
    refused(message, regressor().fit, X, spoil(X[:, 0]))


def test_one_row():
    X, y = numbers()
    refused("1 sample", regressor().fit, X[:1], [1.0])
    refused("class", classifier().fit, X[:1], y[:1])
    refused("1 sample", regressor().fit, X, X[:, 0], sample_weight=np.eye(60)[0])


def test_class_with_one_row():
    X, y = numbers()
    y[0] = 2
    assert classifier().fit(X, y).classes_.tolist() == [0, 1, 2]
    refused("every class on both sides", classifier(val_fraction=0.2).fit, X, y)
    refused("got 1 of class 2; merge it", check_classes, y)
    refused("got 1 of class 'a'; merge it", check_classes, pd.Series(["b", "b", "a"]))
    check_classes(pd.Series(["b", "b", "a", "a"], dtype="category").cat.add_categories("c"))


# Validation rows


def test_validation_rows_are_watched_only():
    X, y = numbers(90)
    clf = classifier().fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:])
    plain = classifier().fit(X[:60], y[:60])
    assert same(clf, plain, X)
    assert "validation_loss" not in plain.history_
    (out,) = cells(clf)(X[60:])
    by_hand = torch.nn.functional.cross_entropy(out, torch.from_numpy(y[60:]))
    assert clf.history_["validation_loss"].iloc[-1] == pytest.approx(float(by_hand), rel=1e-5)
    assert clf.history_["validation_loss"].notna().all()


def test_validation_fraction_is_stratified_and_held_out():
    X, y = numbers(100)
    y[:10], y[10:] = 1, 0
    seen = []

    def view(columns, _rng):
        seen.append(columns["x0"])
        return columns

    clf = classifier(val_fraction=0.2, views=view, search_epochs=1).fit(X, y)
    assert clf.summary_["rows"] == 80
    trained = np.isclose(X[:, :1], np.concatenate(seen)[None], atol=1e-5).any(1)
    assert trained.sum() == 80
    assert y[trained].sum() == 8
    (out,) = cells(clf)(X[~trained])
    by_hand = torch.nn.functional.cross_entropy(out, torch.from_numpy(y[~trained]))
    assert clf.history_["validation_loss"].iloc[-1] == pytest.approx(float(by_hand), rel=1e-5)


def test_regression_validation():
    X, y = numbers(90)
    target = X[:, 0] * 100
    reg = regressor(val_fraction=0.25).fit(X, target)
    assert reg.summary_["rows"] == 67
    reg = regressor().fit(X[:60], target[:60], X_val=X[60:], y_val=target[60:])
    standard = (reg.predict(X[60:]) - target[60:]) / target[:60].std()
    last = reg.history_["validation_loss"].iloc[-1]
    assert last == pytest.approx((standard**2).mean(), rel=1e-4)
    del y


def test_bad_validation_rows():
    X, y = numbers()
    refused("classes of y, got also", classifier().fit, X, y, X_val=X, y_val=y + 1)
    refused("need each other", classifier().fit, X, y, X_val=X)
    refused("need each other", classifier().fit, X, y, y_val=y)
    refused("need each other", regressor().fit, X, X[:, 0], X_val=X)
    refused("y_val must have equal length", classifier().fit, X, y, X_val=X, y_val=y[:3])
    refused("features", classifier().fit, X, y, X_val=X[:, :2], y_val=y)


# Parameters


INVALID = {
    "compression": [0.5, 0, -8, "big", math.nan, math.inf, None, [8], True, 1e9],
    "n_tickets": [0, -1, 1.5, "2", None],
    "n_jobs": [0, 1.5, "2", True],
    "val_fraction": [1, -0.1, "x", math.nan, None],
    "time_limit": [0, -1, "x", math.nan],
    "preset": ["x", 3, ["paper"]],
    "regime": ["x", 0, -1.5, math.nan, math.inf, True, ["rich"]],
    "criterion": ["x", 3, None],
    "rewind": ["x", 3, None, "step:-1", "step:"],
    "precision": ["fp16", 16, None],
    "device": ["abacus", 3.5, "meta", "cuda:99"],
    "snapshots": [9, 0, 1.5],
    "checkpoint_dir": [5],
    "widths": [(), ("16",), "16", (0,), (16, -1), 16, (16.5,)],
    "search_epochs": [-1, 2.5, "2", True],
    "finetune_epochs": [-1, 2.5],
    "batch_size": [1, 0, -5, 2.5],
    "corruption_rate": [2, -0.1, math.nan, None],
    "temperature": [0, -1, math.nan, math.inf],
    "search_lr": [-1, 0, math.nan, math.inf, "x"],
    "finetune_lr": [-1, 0, math.nan, math.inf, None],
    "weight_decay": [-1, math.nan, math.inf, None],
    "init_scale": [0, -1, math.nan, math.inf, None],
    "contrastive_weight": [-1, math.nan, math.inf],
    "class_weight": [
        "x",
        3,
        [1, 2],
        {0: 1, 1: -1},
        {0: 1, 1: 0},
        {0: 1, 1: math.nan},
        {0: 1, 5: 2},
    ],
    "views": [3, "x0", {"x0": 3}, {"nowhere": abs}],
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_values_are_refused_before_training(name, monkeypatch):
    def never(*_args, **_kwargs):
        pytest.fail("training began")

    monkeypatch.setattr("secateurs.tickets.train", never)
    X, y = numbers()
    for value in INVALID[name]:
        message = refused(".", classifier(**{name: value}).fit, X, y)
        assert name in message or name == "class_weight", message
        if name in TicketRegressor().get_params():
            refused(name, regressor(**{name: value}).fit, X, X[:, 0])


def test_rewind_beyond_the_search():
    X, y = numbers()
    refused("rewind='step:5' must lie within", classifier(rewind="step:5").fit, X, y)
    assert classifier(rewind="step:1").fit(X, y).density_ == 0.125


def test_seed_that_is_none():
    X, y = numbers()
    with pytest.raises(ValueError, match="seed"):
        classifier(random_state="x").fit(X, y)


def test_checkpoints_need_a_seed(tmp_path):
    X, y = numbers()
    for state in (None, np.random.RandomState(0)):
        clf = classifier(checkpoint_dir=tmp_path, random_state=state)
        refused("integer random_state", clf.fit, X, y)


def test_values_of_numpy_are_numbers_too():
    X, y = numbers()
    odd = {"compression": np.float32(8), "batch_size": np.int16(64), "search_lr": np.float64(0.1)}
    plain = {"compression": 8, "batch_size": 64, "search_lr": 0.1}
    assert same(classifier(**odd).fit(X, y), classifier(**plain).fit(X, y), X)


@pytest.mark.parametrize("kind", [TicketClassifier, TicketRegressor])
def test_parameters_are_kept_as_they_are(kind):
    marks = {name: object() for name in kind().get_params()}
    estimator = kind(**marks)  # no logic: it takes anything
    assert vars(estimator) == marks
    assert estimator.get_params() == marks
    estimator = kind(compression=4)
    assert clone(estimator).set_params(n_tickets=2).get_params() == {
        **kind().get_params(),
        "compression": 4,
        "n_tickets": 2,
    }


def test_clone_is_not_fitted_and_fits_the_same(fitted):
    frame, y, clf = fitted
    again = clone(clf)
    with pytest.raises(NotFittedError):
        again.predict(frame)
    assert same(again.fit(frame, y), clf, frame)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "save"])
def test_not_fitted(method):
    with pytest.raises(NotFittedError):
        getattr(TicketClassifier(), method)(np.zeros((2, 2)))


def test_failed_fit_leaves_no_half_of_two_models(monkeypatch):
    frame, y = people()
    clf = classifier().fit(frame, y)

    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("secateurs.tickets.train", interrupt)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*numbers())
    with pytest.raises(NotFittedError):
        clf.predict(frame)


# Randomness


@pytest.mark.parametrize("make", [classifier, regressor])
def test_seeds(make):
    X, y = numbers()
    y = y if make is classifier else X[:, 0]
    first = make(random_state=3).fit(X, y)
    assert same(first, make(random_state=3).fit(X, y), X)
    assert same(first, make(random_state=np.int64(3)).fit(X, y), X)
    assert not same(first, make(random_state=4).fit(X, y), X)
    assert not same(make(random_state=None).fit(X, y), make(random_state=None).fit(X, y), X)
    state = np.random.RandomState(0)
    one, two = make(random_state=state).fit(X, y), make(random_state=state).fit(X, y)
    assert not same(one, two, X)
    assert same(one, make(random_state=np.random.RandomState(0)).fit(X, y), X)


def test_every_named_choice_changes_the_result():
    X, y = numbers()
    wide = {"compression": 2, "widths": (32,), "search_lr": 0.1}
    plain = classifier(**wide).fit(X, y)
    for name, value in {
        "compression": 4,
        "init_scale": 1.0,
        "contrastive_weight": 0.0,
        "corruption_rate": 0.2,
        "temperature": 0.3,
        "criterion": "random",
        "rewind": "none",
        "widths": (16, 16),
        "search_epochs": 3,
        "search_lr": 0.01,
        "finetune_epochs": 8,
        "finetune_lr": 1e-2,
        "weight_decay": 0.5,
        "batch_size": 16,
        "snapshots": 2,
        "n_tickets": 2,
        "class_weight": {0: 1, 1: 3},
        "val_fraction": 0.2,
        "precision": "bf16",
    }.items():
        assert not same(plain, classifier(**{**wide, name: value}).fit(X, y), X), name


def test_global_state_is_left_alone(tmp_path):
    frame, y = people()
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()  # noqa: NPY002
    clf = classifier(random_state=None).fit(frame, y, X_val=frame, y_val=y)
    clf.predict(frame)
    clf.save(tmp_path / "model")
    sc.load(tmp_path / "model").predict(frame)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[2]
    if not np.array_equal(np.random.get_state()[1], before[1]):  # noqa: NPY002
        # random_state=None is scikit-learn's word for NumPy's global stream, and only that moved
        classifier(random_state=0).fit(frame, y)
    seeded = np.random.get_state()[1].copy(), np.random.get_state()[2]  # noqa: NPY002
    classifier(random_state=0).fit(frame, y)
    assert np.array_equal(np.random.get_state()[1], seeded[0])  # noqa: NPY002
    assert np.random.get_state()[2] == seeded[1]  # noqa: NPY002


# Prediction


@pytest.mark.parametrize("members", [{}, {"snapshots": 2, "n_tickets": 2}])
def test_predictions_do_not_depend_on_the_company(members):
    X, y = numbers(rows=300)
    clf = classifier(widths=(32, 32), **members).fit(X, y)
    whole = clf.predict_proba(X)
    np.testing.assert_allclose(whole.sum(1), 1, rtol=1e-12)
    for size in (1, 3, 127, 128, 129, 300):
        parts = [clf.predict_proba(X[i : i + size]) for i in range(0, len(X), size)]
        assert np.array_equal(np.concatenate(parts), whole), size
    order = np.random.default_rng(0).permutation(len(X))
    assert np.array_equal(clf.predict_proba(X[order]), whole[order])


def parameters_kept(clf):
    """Count by hand: weights under the mask, and all that cannot be pruned."""
    return sum(
        int(mask[name].sum()) if name in mask else parameter.numel()
        for member, mask in zip(clf.members_, clf.masks_, strict=True)
        for name, parameter in member.named_parameters()
    )


@pytest.mark.parametrize("snapshots", [1, 3])
@pytest.mark.parametrize("n_tickets", [1, 2])
def test_members_are_averaged_and_counted(snapshots, n_tickets):
    X, y = numbers()
    clf = classifier(snapshots=snapshots, n_tickets=n_tickets, widths=(16, 16)).fit(X, y)
    n = snapshots * n_tickets
    assert len(clf.members_) == clf.summary_["members"] == n
    every = [torch.softmax(out, 1).numpy() for out in cells(clf)(X)]
    np.testing.assert_allclose(clf.predict_proba(X), np.mean(every, axis=0), rtol=1e-5)
    for i in range(1, n):  # no two members are one
        assert not np.allclose(every[0], every[i], atol=1e-6)
    assert clf.n_parameters_kept_ == clf.summary_["parameters_kept"] == parameters_kept(clf)
    prunable = 5 * 16 + 16 * 16
    rest = 4 * 16 + 16 * 2 + 2  # BatchNorm, decoder
    assert clf.n_parameters_kept_ == n * (prunable // 8 + rest)
    assert clf.summary_["parameters"] == n * (prunable + rest)
    buffers = 2 * (2 * 16 * 4 + 8)
    mask_bytes = (5 * 16 + 16 * 16) // 8
    stored = n * (4 * (prunable // 8 + rest) + buffers) + n_tickets * mask_bytes
    assert clf.summary_["bytes"] == stored
    assert len({id(mask) for mask in clf.masks_}) == n_tickets
    assert set(clf.history_["ticket"]) == set(range(n_tickets))


@pytest.mark.parametrize("columns", [20, 200])
@pytest.mark.parametrize(("compression", "n_tickets"), [(8, 6), (16, 9), (32, 12)])
def test_an_ensemble_takes_the_bytes_of_one_dense_network(
    columns, compression, n_tickets, tmp_path
):
    X, y = numbers(20, columns)
    untrained = {"search_epochs": 0, "finetune_epochs": 0, "widths": (512, 512)}
    bytes_of = []
    for r, n in ((1, 1), (compression, n_tickets)):
        clf = classifier(compression=r, n_tickets=n, **untrained).fit(X, y)
        clf.save(tmp_path / f"{r}")
        bytes_of.append(folder_bytes(tmp_path / f"{r}"))
        assert 0.95 * bytes_of[-1] < clf.summary_["bytes"] < bytes_of[-1]
    dense, several = bytes_of
    assert 0.9 < several / dense < 1.05


def test_regression_averages_members():
    X, _ = numbers()
    reg = regressor(snapshots=3, n_tickets=2).fit(X, 50 * X[:, 0] + 7)
    by_hand = torch.cat(cells(reg)(X), 1).mean(1).numpy() * reg.target_scale_ + reg.target_mean_
    np.testing.assert_allclose(reg.predict(X), by_hand, rtol=1e-5)
    assert len(reg.members_) == 6


def test_pruned_weights_are_zero_and_as_many_as_told():
    X, y = numbers()
    clf = classifier(compression=4, widths=(16, 16), snapshots=3).fit(X, y)
    assert clf.density_ == clf.summary_["density"] == 0.25
    for member, mask in zip(clf.members_, clf.masks_, strict=True):
        for name, kept in mask.items():
            weight = dict(member.named_parameters())[name]
            assert not weight[~kept].any()
            assert weight[kept].all()


# compression="auto"


@pytest.mark.parametrize("seed", [0, 1])
def test_auto_is_the_rule_applied_to_single_fits(seed):
    X, y = numbers(200, seed=seed)
    given = {"random_state": seed, "widths": (16, 16), "finetune_lr": 1e-2}
    X, X_val, y, y_val = X[:100], X[100:], y[:100], y[100:]
    auto = classifier(**given, compression="auto", n_tickets=2)
    auto.fit(X, y, X_val=X_val, y_val=y_val)
    single = {r: classifier(**given, compression=r).fit(X, y) for r in (2, 4, 8, 16, 32)}
    wrong = {r: clf.predict(X_val) != y_val for r, clf in single.items()}
    assert auto.validation_errors_ == {r: w.mean() for r, w in wrong.items()}
    best = min(wrong.values(), key=np.mean)
    bound = best.mean() + best.std(ddof=1) / math.sqrt(len(best))
    chosen = max(r for r, w in wrong.items() if w.mean() <= bound)
    assert auto.compression_ == auto.summary_["compression"] == chosen
    expected = classifier(**given, compression=chosen, n_tickets=2).fit(X, y)
    assert same(auto, expected, X_val)
    # one search a ticket, whatever the number of candidates
    searches = auto.history_[auto.history_["phase"] == "search"]
    assert searches.groupby("ticket").size().tolist() == [2, 2]
    finetunes = auto.history_[auto.history_["phase"] == "finetune"]
    assert finetunes.groupby("ticket").size().tolist() == [7, 7]


def test_a_step_beyond_a_search_of_no_epochs_is_refused():
    X, y = numbers(60)
    clf = classifier(search_epochs=0, rewind="step:5")
    refused("must lie within the search", clf.fit, X, y)


def test_auto_holds_rows_out():
    X, y = numbers(100)
    assert classifier(compression="auto").fit(X, y).summary_["rows"] == 80
    assert classifier(compression="auto", val_fraction=0.4).fit(X, y).summary_["rows"] == 60


def test_auto_for_regression():
    X, _ = numbers(100)
    reg = regressor(compression="auto", finetune_lr=1e-2)
    reg.fit(X[:60], X[:60, 0], X_val=X[60:], y_val=X[60:, 0])
    squares = (reg.predict(X[60:]) - X[60:, 0]) ** 2 / X[:60, 0].std() ** 2
    assert reg.validation_errors_[reg.compression_] == pytest.approx(squares.mean(), rel=1e-4)
    assert clone(reg).fit(X, X[:, 0]).summary_["rows"] == 80


def test_auto_skips_what_cannot_be():
    X, y = numbers(60, columns=2)
    clf = classifier(compression="auto", widths=(4,)).fit(X, y)
    assert set(clf.validation_errors_) == {2, 4, 8, 16}  # 8 weights: 32 would keep none
    narrow = classifier(compression="auto", widths=(1, 1))
    refused("none leaves a weight in every layer", narrow.fit, X[:, :1], y)


# Recipes


def test_dense_has_no_search():
    X, y = numbers()
    clf = classifier(compression=1).fit(X, y)
    assert set(clf.history_["phase"]) == {"finetune"}
    assert clf.density_ == 1
    assert clf.n_parameters_kept_ == clf.summary_["parameters"] == parameters_kept(clf)
    assert clf.summary_["search_epochs"] == 0


def test_no_search_epochs_prune_at_the_start():
    X, y = numbers()
    clf = classifier(search_epochs=0).fit(X, y)
    assert set(clf.history_["phase"]) == {"finetune"}
    assert clf.density_ == 0.125
    assert clf.summary_["start_mask_overlap"] == pytest.approx(1.0)


def test_paper_preset():
    X, y = numbers(40)
    clf = TicketClassifier(preset="paper", search_epochs=1, finetune_epochs=1, random_state=0)
    clf.fit(X, y)
    assert clf.summary_["widths"] == [512] * 9
    assert clf.history_["lr"].iloc[0] == 1e-3
    assert clf.summary_["batch_size"] == 128


def test_paper_preset_never_adapts():
    paper = TicketClassifier(preset="paper")
    assert paper._recipe(10) == paper._recipe(10**7) == recipes.PRESETS["paper"]
    assert paper._recipe(10).finetune_epochs == 105
    adapted = TicketClassifier()._recipe(10**6)
    assert adapted.batch_size > 128
    assert adapted.search_epochs < 105
    kept = TicketClassifier(batch_size=32, search_epochs=50, finetune_epochs=60)._recipe(10**6)
    assert (kept.batch_size, kept.search_epochs, kept.finetune_epochs) == (32, 50, 60)


@pytest.mark.parametrize("regime", ["lazy", "rich"])
def test_regimes_are_their_values(regime):
    X, y = numbers()
    values = recipes.REGIMES[regime]
    assert set(values) == {"search_lr", "init_scale"}
    named, spelt = classifier(regime=regime).fit(X, y), classifier(**values).fit(X, y)
    assert same(named, spelt, X)
    assert named.history_["loss"].equals(spelt.history_["loss"])
    searched = named.history_[named.history_["phase"] == "search"]
    assert set(searched["lr"]) == {values["search_lr"]}
    for conflict in ({"search_lr": 0.5}, {"init_scale": 0.5}):
        clf = classifier(regime=regime, **conflict)
        refused("leave both at their defaults, or regime at None", clf.fit, X, y)


def test_lazy_moves_less_than_rich():
    X, y = numbers()
    lazy, rich = (classifier(regime=r).fit(X, y).summary_ for r in ("lazy", "rich"))
    assert lazy["weight_movement"] < 0.3 * rich["weight_movement"]
    assert lazy["start_mask_overlap"] > rich["start_mask_overlap"]


STEERED = {"widths": (32, 32), "search_epochs": 20, "finetune_epochs": 1, "batch_size": 16}


def test_auto_is_its_target_and_the_summary_tells_how_it_was_reached():
    X, y = numbers()
    auto = classifier(**STEERED, regime="auto").fit(X, y)
    number = classifier(**STEERED, regime=np.float64(recipes.AUTO_MOVEMENT)).fit(X, y)
    assert same(auto, number, X)
    told = auto.summary_
    assert (told["regime_asked"], told["regime"]) == ("auto", "rich")
    assert number.summary_["regime_asked"] == recipes.AUTO_MOVEMENT
    assert told["movement_target"] == recipes.AUTO_MOVEMENT
    assert told["weight_movement"] == pytest.approx(recipes.AUTO_MOVEMENT, rel=0.25)
    assert told["pilots"][0][0] == 0.01  # the recipe's rate comes first
    assert [told["search_lr"], pytest.approx(told["weight_movement"])] in told["searches"]
    searched = auto.history_[auto.history_["phase"] == "search"]
    assert set(searched["lr"]) == {told["search_lr"]}
    assert told["search_epochs"] == len(searched) == 20
    assert "pilot" not in set(auto.history_["phase"])


def test_a_target_is_the_plain_search_at_the_rate_that_was_found():
    X, y = numbers()
    found = classifier(**STEERED, regime=0.5).fit(X, y)
    plain = classifier(**STEERED, search_lr=found.summary_["search_lr"]).fit(X, y)
    assert same(found, plain, X)
    assert "pilots" not in plain.summary_
    assert plain.summary_["weight_movement"] == found.summary_["weight_movement"]


def test_targets_order_the_regimes():
    X, y = numbers()
    little, much = (classifier(**STEERED, regime=target).fit(X, y) for target in (0.05, 2.0))
    rates = [clf.summary_["search_lr"] for clf in (little, much)]
    assert rates[0] < rates[1]
    overlaps = [clf.summary_["start_mask_overlap"] for clf in (little, much)]
    assert overlaps[0] > overlaps[1]


@pytest.mark.parametrize("conflict", [{"search_lr": 0.5}, {"init_scale": 0.5}])
@pytest.mark.parametrize("regime", ["auto", 0.5])
def test_a_target_beside_what_it_sets_is_refused(regime, conflict):
    X, y = numbers()
    clf = classifier(regime=regime, **conflict)
    refused("leave both at their defaults, or regime at None", clf.fit, X, y)


def test_a_steered_fit_resumes_and_a_steered_ensemble_is_one_of_many_pilots(tmp_path):
    X, y = numbers()
    several = classifier(**STEERED, regime=0.5, n_tickets=2, checkpoint_dir=tmp_path)
    one = several.fit(X, y)
    assert {p.name.split("-")[0] for p in (tmp_path / "ticket-1").iterdir()} == {
        "pilot", "search", "density",
    }  # fmt: skip
    assert same(several.fit(X, y), one, X)


def lazily(**parameters):
    return classifier(**{"widths": (64,), "search_lr": 1e-4, **parameters})


def test_a_lazy_search_is_told():
    X, y = numbers()
    with pytest.warns(
        RegimeWarning, match=r"stayed lazy: its weights moved by .* regime='auto'"
    ) as w:
        clf = lazily().fit(X, y)
    assert w[0].filename == __file__
    assert clf.summary_["regime"] == "lazy"
    with pytest.warns(RegimeWarning):
        regressor(search_lr=1e-4).fit(X, X[:, 0])


@pytest.mark.parametrize(
    "parameters",
    [
        {"search_epochs": 0},
        {"compression": 1},
        {"search_lr": None, "regime": "lazy"},
        {"search_lr": None, "regime": 0.02, "search_epochs": 20},
        {"search_lr": None, "regime": "auto", "search_epochs": 20},
    ],
)
def test_of_what_was_asked_for_or_never_searched_nothing_is_said(parameters):
    X, y = numbers()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RegimeWarning)
        clf = lazily(**parameters).fit(X, y)
    if clf.summary_["weight_movement"] is None:
        assert clf.summary_["regime"] is None


# Views


def test_views_reach_the_search():
    frame, y = people()
    seen = []

    def whole(columns, rng):
        seen.append(set(columns))
        assert columns["age"].max() <= 80  # original units
        assert set(columns["job"]) <= {"clerk", "miner", "nurse", None}
        return columns | {"age": rng.permutation(columns["age"])}

    def ages(values, rng):
        return rng.permutation(values)

    by_callable = classifier(views=whole).fit(frame, y)
    by_dict = classifier(views={"age": ages}).fit(frame, y)
    plain = classifier().fit(frame, y)
    assert seen == [{"age", "height", "job", "smoker", "town"}] * 2  # a batch an epoch
    assert same(by_callable, by_dict, frame)
    assert not same(by_callable, plain, frame)


def test_unknown_column_of_a_view(fitted):
    frame, y, _ = fitted
    message = refused("unknown columns: 'agee'", classifier(views={"agee": abs}).fit, frame, y)
    assert "the columns are age, height" in message


def test_without_contrastive_weight_no_view_is_drawn():
    X, y = numbers()

    def never(*_):
        pytest.fail("a view was drawn")

    clf = classifier(contrastive_weight=0, views=never).fit(X, y)
    assert "contrastive" not in clf.history_
    assert same(clf, classifier(contrastive_weight=0, corruption_rate=0.1).fit(X, y), X)


# Time, interruptions, warnings


def test_tiny_time_limit():
    X, y = numbers()
    with pytest.warns(TimeLimitWarning, match=r"1 search and 1 finetuning epochs") as caught:
        clf = classifier(time_limit=1e-9).fit(X, y)
    assert caught[0].filename == __file__
    assert clf.history_[["phase", "epoch"]].to_numpy().tolist() == [["search", 1], ["finetune", 1]]
    assert clf.summary_["complete"] is False
    assert len(clf.predict(X)) == len(X)


def test_generous_time_limit_changes_nothing():
    X, y = numbers()
    clf = classifier(time_limit=3600).fit(X, y)
    assert clf.summary_["complete"] is True
    assert same(clf, classifier().fit(X, y), X)


class Stop(Exception):
    pass


def test_interrupted_fit_resumes_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1)
    X, y = numbers()
    calls, stop_at = [], None

    def view(columns, rng):
        calls.append(1)
        if len(calls) == stop_at:
            raise Stop
        return columns | {"x0": columns["x0"] + rng.normal(size=len(columns["x0"]))}

    given = {"views": view, "search_epochs": 5, "batch_size": 16}
    expected = classifier(**given).fit(X, y)
    total = len(calls)
    assert total == 5 * 4
    calls.clear()
    stop_at = 15  # in the fourth epoch; one call more, since a checkpoint knows what views do
    clf = classifier(**given, checkpoint_dir=tmp_path / "partial")
    with pytest.raises(Stop):
        clf.fit(X, y)
    calls.clear()
    stop_at = None
    clf.fit(X, y)
    assert len(calls) == 1 + 2 * 4  # the first three epochs were not repeated
    assert same(clf, expected, X)
    assert clf.history_.drop(columns="seconds").equals(expected.history_.drop(columns="seconds"))


@pytest.mark.parametrize("phase", ["search", "finetune"])
def test_kill_in_either_phase_resumes_to_the_bit(tmp_path, monkeypatch, phase):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1)

    class Killed(estimator_module.PhaseProgress):
        def __call__(self, row, epochs):
            if (self.title, row["phase"], row["epoch"]) == ("ticket 2/2", phase, 2):
                raise KeyboardInterrupt

    X, y = numbers()
    given = {"n_tickets": 2, "snapshots": 3, "widths": (16, 16)}
    expected = classifier(**given).fit(X, y)
    clf = classifier(**given, checkpoint_dir=tmp_path, verbose=1)
    with monkeypatch.context() as patch:
        patch.setattr(estimator_module, "PhaseProgress", Killed)
        with pytest.raises(KeyboardInterrupt):
            clf.fit(X, y)
    assert same(clf.set_params(verbose=0).fit(X, y), expected, X)
    assert same(clone(clf).fit(X, y), expected, X)  # and once more, from what is complete


def test_checkpoints_of_another_fit_are_refused(tmp_path):
    X, y = numbers()
    classifier(checkpoint_dir=tmp_path).fit(X, y)
    for other in (
        {"search_lr": 0.5},
        {"finetune_lr": 0.5},
        {"random_state": 1},
        {"temperature": 0.5},
        {"init_scale": 1.0},
        {"corruption_rate": 0.3},
        {"views": {"x0": lambda values, rng: rng.permutation(values)}},
    ):
        clf = classifier(checkpoint_dir=tmp_path, **other)
        refused("other data or settings", clf.fit, X, y)
    clf = classifier(checkpoint_dir=tmp_path)
    refused("other data or settings", clf.fit, X + 1e-3 * X**2, y)
    refused("other data or settings", clf.fit, X, 1 - y)
    refused("other data or settings", clf.fit, X, y, sample_weight=1 + y)


def test_collapse_warns():
    X, y = np.zeros((30, 2)), np.arange(30) % 3
    with pytest.warns(CollapseWarning, match="one of 3 classes; try class_weight") as caught:
        clf = classifier().fit(X, y)
    assert caught[0].filename == __file__
    assert clf.summary_["n_classes_predicted"] == 1
    X, y = numbers()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", RegimeWarning)
        clf = classifier(finetune_lr=1e-2).fit(X, y)
    assert clf.summary_["n_classes_predicted"] == 2


def test_verbose_lines(capsys):
    X, y = numbers()
    classifier().fit(X, y)
    assert capsys.readouterr() == ("", "")
    classifier(verbose=1, n_tickets=2).fit(X, y)
    out, err = capsys.readouterr()
    assert out == ""
    assert "\x1b" not in err
    assert [re.sub(r"loss .*", "", line) for line in err.splitlines()] == [
        "ticket 1/2 search: 2 epochs, ",
        "ticket 1/2 finetune: 7 epochs, ",
        "ticket 2/2 search: 2 epochs, ",
        "ticket 2/2 finetune: 7 epochs, ",
    ]


def test_html_shows_the_summary(fitted):
    _, _, clf = fitted
    drawn = clf._repr_html_()
    assert "parameters kept</th><td>" in drawn
    assert f"<td>{clf.n_parameters_kept_}</td>" in drawn
    assert "parameters kept</th>" not in TicketClassifier()._repr_html_()


def test_summary_and_history(fitted):
    frame, _, clf = fitted
    summary = clf.summary_
    assert summary["rows"] == len(frame)
    assert summary["columns"] == 5
    assert summary["inputs"] == 2 + 4 + 1 + 2  # age, height; job and "missing"; smoker; town
    assert summary["widths"] == [16]
    assert (summary["search_epochs"], summary["finetune_epochs"]) == (2, 7)
    assert summary["complete"] is True
    ratio = summary["parameters"] / summary["parameters_kept"]
    assert summary["model_compression"] == pytest.approx(ratio)
    assert summary["weight_movement"] > 0
    assert 0 <= summary["start_mask_overlap"] <= 1
    assert clf.history_["phase"].tolist() == ["search"] * 2 + ["finetune"] * 7
    assert clf.history_["epoch"].tolist() == [1, 2, *range(1, 8)]
    assert np.isfinite(clf.history_["loss"]).all()


# With the rest of scikit-learn


def grid_search(n_jobs):
    X, y = numbers(80)
    values = {"compression": [1, 8, "auto"], "widths": [(16,)]}
    grid = GridSearchCV(classifier(), values, cv=2, n_jobs=n_jobs, error_score="raise").fit(X, y)
    assert np.isfinite(grid.cv_results_["mean_test_score"]).all()
    assert same(grid.best_estimator_, classifier(**grid.best_params_).fit(X, y), X)


def test_grid_search():
    grid_search(n_jobs=None)


@pytest.mark.slow  # new processes load torch
def test_grid_search_in_two_processes():
    grid_search(n_jobs=2)


def test_pipeline_with_a_column_selector():
    frame, y = people()
    chosen = ["age", "job", "smoker"]
    keep = ColumnTransformer([("keep", "passthrough", chosen)], verbose_feature_names_out=False)
    pipeline = make_pipeline(keep.set_output(transform="pandas"), classifier()).fit(frame, y)
    direct = classifier().fit(frame[chosen], y)
    assert np.array_equal(pipeline.predict_proba(frame), direct.predict_proba(frame[chosen]))
    weighted = pipeline.fit(frame, y, ticketclassifier__sample_weight=1.0 + (y == "young"))
    assert not np.array_equal(weighted.predict_proba(frame), direct.predict_proba(frame[chosen]))


def test_pickle_and_joblib(fitted, tmp_path):
    frame, _, clf = fitted
    joblib.dump(clf, tmp_path / "clf.joblib")
    for again in (pickle.loads(pickle.dumps(clf)), joblib.load(tmp_path / "clf.joblib")):
        assert same(again, clf, frame)
        assert again.get_params() == clf.get_params()
        assert again.summary_ == clf.summary_
        pd.testing.assert_frame_equal(again.history_, clf.history_)


def test_pickles_hold_no_training_data():
    few, many = (
        len(pickle.dumps(classifier(batch_size=32).fit(*numbers(rows)))) for rows in (60, 2000)
    )
    assert abs(many - few) < 500


def test_saved_and_pickled_members_are_what_was_packed():
    X, y = numbers()
    clf = classifier(snapshots=3).fit(X, y)
    packed = model_directory.pack(clf.members_, clf.masks_)
    assert sum(name.startswith("mask-0/") for name in packed) == 1
    assert not any(name.startswith("mask-1/") for name in packed)
    again = pickle.loads(pickle.dumps(clf))
    assert model_directory.pack(again.members_, again.masks_).keys() == packed.keys()


@pytest.mark.parametrize("name", ["snip", "grasp_abs", "synflow", "wanda", "lamp"])
def test_every_kind_of_criterion_prunes_a_table_at_its_start(name):
    X, y = load_iris(return_X_y=True)
    settings = {"search_epochs": 0, "contrastive_weight": 0, "finetune_epochs": 2}
    clf = TicketClassifier(
        criterion=name, compression=4, widths=(16, 16), random_state=0, **settings
    ).fit(X, y)
    at_random = clone(clf).set_params(criterion="random").fit(X, y)
    assert masks.count(clf.masks_[0]) == masks.count(at_random.masks_[0])
    assert masks.iou(clf.masks_[0], at_random.masks_[0]) < 0.9
