import datetime
import json
import os
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from secateurs import preparation as prep
from secateurs.data.prepare import (
    MAX_CATEGORIES,
    columns_of,
    encode_frame,
    fit_preparation,
    to_frame,
)
from secateurs.errors import InputError


def twin(train, *others):
    """Encode as method section 3 says, slowly, with scikit-learn; in the columns' own order."""
    pieces = []
    for name in train.columns:
        if train[name].isna().all():
            continue
        if pd.api.types.is_numeric_dtype(train[name].dtype):
            steps = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
        else:
            steps = make_pipeline(
                SimpleImputer(missing_values=None, strategy="constant", fill_value="missing_value"),
                OneHotEncoder(handle_unknown="ignore", sparse_output=False),
            )
        pieces.append((name, steps, [name]))
    transformer = ColumnTransformer(pieces).fit(plain(train))
    return [transformer.transform(plain(frame)).astype(np.float32) for frame in (train, *others)]


def plain(frame):
    """Float64 numbers, and objects with None for missing."""
    columns = {}
    for name in frame.columns:
        series = frame[name]
        if pd.api.types.is_numeric_dtype(series.dtype):
            columns[name] = series.to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            columns[name] = series.astype(object).where(series.notna(), None)
    return pd.DataFrame(columns, index=frame.index)


def mixed(seed, rows=60):
    rng = np.random.default_rng(seed)
    words = np.array(["red", "green", "blue", "", "Ünicode", "a b"], dtype=object)

    def holes(values, share=0.2):
        series = pd.Series(values)
        return series.mask(rng.random(rows) < share)

    return pd.DataFrame(
        {
            "word": holes(rng.choice(words, rows)).astype("str"),
            "float": holes(rng.normal(1e6, 3.0, rows)),
            "object": holes(rng.choice(words[:3], rows)).astype(object),
            "int": rng.integers(-5, 5, rows).astype(np.int8),
            "nullable": holes(rng.integers(0, 9, rows)).astype("Int64"),
            "category": pd.Categorical(rng.choice(words[:4], rows), categories=sorted(words)),
            "constant": np.full(rows, 0.1),
            "tiny": rng.normal(0, 1e-200, rows),
            "skewed": np.exp(rng.normal(0, 8, rows)),
            "nothing": np.full(rows, np.nan),
        }
    )


@pytest.mark.parametrize("seed", range(8))
def test_equals_the_scikit_learn_twin(seed):
    frame = mixed(seed)
    train, test = frame[:40], frame[40:]
    # A squared deviation of 1e-200 is zero in double precision: the twin calls that a constant.
    slow = train.assign(tiny=train["tiny"] * 1e200), test.assign(tiny=test["tiny"] * 1e200)
    preparation = fit_preparation(train)
    for got, expected in zip(
        (encode_frame(preparation, train), encode_frame(preparation, test)),
        twin(*slow),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)
    assert prep.check(json.loads(json.dumps(preparation))) == preparation


@pytest.mark.parametrize("name", ["credit-g", "adult"])
def test_equals_the_twin_on_real_data(name):
    root = os.environ.get("SECATEURS_DATA")
    path = Path(root or ".") / "tabular" / f"{name}.parquet"
    if not path.is_file():
        pytest.skip(f"needs {name}.parquet under SECATEURS_DATA/tabular")
    frame = pd.read_parquet(path).drop(columns="target").sample(frac=1, random_state=0)
    train, test = frame[: len(frame) * 4 // 5], frame[len(frame) * 4 // 5 :]
    preparation = fit_preparation(train)
    expected = twin(train, test)
    np.testing.assert_array_equal(encode_frame(preparation, train), expected[0])
    np.testing.assert_array_equal(encode_frame(preparation, test), expected[1])
    assert prep.groups(preparation)[-1][1] == expected[0].shape[1]
    start = time.process_time()
    prep.encode(preparation, columns_of(test, preparation))
    assert time.process_time() - start < 2.0  # far above what it takes: only a blow-up fails


@pytest.mark.parametrize("seed", range(3))
def test_encoded_training_columns_are_standardised(seed):
    frame = mixed(seed)
    preparation = fit_preparation(frame)
    encoded = encode_frame(preparation, frame).astype(np.float64)
    spans = dict(zip(prep.feature_names(preparation), prep.groups(preparation), strict=True))
    for name in ("float", "int", "nullable", "tiny", "skewed"):
        values = encoded[:, spans[name][0]]
        assert abs(values.mean()) < 1e-5
        assert abs(values.std() - 1) < 1e-5
    assert abs(encoded[:, spans["constant"][0]]).max() < 1e-12
    start, stop = spans["word"]
    assert (encoded[:, start:stop].sum(axis=1) == 1).all()
    assert "nothing" not in spans


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], "numeric"),
        (np.array([1, 2], dtype=np.uint16), "numeric"),
        ([1.5, None], "numeric"),
        (pd.array([1, None], dtype="Int8"), "numeric"),
        (pd.array([1.5, None], dtype="Float32"), "numeric"),
        (pd.arrays.SparseArray([0.0, 1.0]), "numeric"),
        ([Decimal("1.5"), None], "numeric"),
        (pd.array([Decimal("1.5"), None], dtype=pd.ArrowDtype(pa.decimal128(5, 2))), "numeric"),
        (pd.array([1, None], dtype="int32[pyarrow]"), "numeric"),
        (np.array([1, 2.5], dtype=object), "numeric"),
        (np.array([1, None], dtype=object), "numeric"),
        (np.array([np.int8(1), np.float32(2.5)], dtype=object), "numeric"),
        ([True, False], "numeric"),
        (pd.array([True, False], dtype="boolean"), "numeric"),
        (np.array([True, False], dtype=object), "numeric"),
        ([True, None], ["True", "missing_value"]),
        (pd.array([True, None], dtype="boolean"), ["True", "missing_value"]),
        (pd.array([True, None], dtype="bool[pyarrow]"), ["True", "missing_value"]),
        (["a", "b"], ["a", "b"]),
        (["1", "2"], ["1", "2"]),
        (np.array(["a", None, np.nan], dtype=object), ["a", "missing_value"]),
        (pd.array(["b", None], dtype="string[python]"), ["b", "missing_value"]),
        (pd.array(["b", None], dtype="string[pyarrow]"), ["b", "missing_value"]),
        (pd.array(["b", None], dtype=pd.ArrowDtype(pa.large_string())), ["b", "missing_value"]),
        (pd.Categorical([10, 9]), ["10", "9"]),
        (pd.Categorical([True, None]), ["True", "missing_value"]),
        (pd.Categorical(["a"], categories=["a", "never"]), ["a"]),
        (np.array([1, "a", 1.0, 2.5, True], dtype=object), ["1", "2.5", "True", "a"]),
        ([None, None], "dropped"),
        ([np.nan, np.nan], "dropped"),
        (pd.array([None, None], dtype="Int64"), "dropped"),
        (pd.array([None], dtype=pd.ArrowDtype(pa.null())), "dropped"),
        (pd.Categorical([None]), "dropped"),
    ],
    ids=lambda value: str(getattr(value, "dtype", value))[:40],
)
def test_kinds(values, expected):
    frame = pd.DataFrame({"x": values, "one": 1.0})
    column = fit_preparation(frame)["columns"][0]
    assert column.get("categories", column["kind"]) == expected
    assert np.isfinite(encode_frame(fit_preparation(frame), frame)).all()


def test_booleans_are_zero_and_one():
    preparation = fit_preparation(pd.DataFrame({"x": [True, True, False, False]}))
    assert preparation["columns"][0] == {
        "name": "x", "kind": "numeric", "median": 0.5, "mean": 0.5, "scale": 0.5,
    }  # fmt: skip
    late = pd.DataFrame({"x": np.array([True, False, None], dtype=object)})
    np.testing.assert_array_equal(encode_frame(preparation, late), [[1], [-1], [0]])


def test_one_row():
    frame = pd.DataFrame({"a": [3.0], "b": ["x"]})
    np.testing.assert_array_equal(encode_frame(fit_preparation(frame), frame), [[0, 1]])


def test_enormous_numbers_do_not_overflow():
    frame = pd.DataFrame({"x": [1e308, -1e308, 1e308, -1e308], "y": np.array([10**30] * 4)})
    preparation = prep.check(fit_preparation(frame))
    encoded = encode_frame(preparation, frame)
    np.testing.assert_allclose(encoded, [[1, 0], [-1, 0], [1, 0], [-1, 0]], atol=1e-6)


def test_levels_beyond_the_maximum_become_unknown():
    often = [f"often{i}" for i in range(MAX_CATEGORIES + 5)]
    values = [*(often * 3), *[f"more{i}" for i in range(10)] * 4, *[f"once{i}" for i in range(50)]]
    frame = pd.DataFrame({"x": [*values, None]})
    preparation = fit_preparation(frame)
    levels = preparation["columns"][0]["categories"]
    assert len(levels) == MAX_CATEGORIES + 1  # and the missing one, always
    assert "missing_value" in levels
    assert {f"more{i}" for i in range(10)} <= set(levels)  # the most frequent first
    assert not [level for level in levels if level.startswith("once")]
    assert not encode_frame(preparation, pd.DataFrame({"x": ["once1"]})).any()
    shuffled = frame.sample(frac=1, random_state=1)
    assert fit_preparation(shuffled) == preparation


def test_a_small_vocabulary_keeps_what_was_seen_once():
    frame = pd.DataFrame({"x": ["a"] * 30 + ["b"]})
    assert fit_preparation(frame)["columns"][0]["categories"] == ["a", "b"]


def test_text_that_reads_missing_value_shares_the_level():
    frame = pd.DataFrame({"x": ["missing_value", "a", None]})
    preparation = fit_preparation(frame)
    assert preparation["columns"][0]["categories"] == ["a", "missing_value"]
    np.testing.assert_array_equal(encode_frame(preparation, frame), [[0, 1], [1, 0], [0, 1]])


FITTED = fit_preparation(
    pd.DataFrame({"n": [1.0, 3.0], "c": ["a", "b"], "empty": [None, None], "k": [1, "one"]})
)


def test_predict_accepts_another_order_and_other_types():
    plain_frame = pd.DataFrame({"n": [1.0, np.nan], "c": ["a", None], "empty": 0, "k": ["1", "x"]})
    expected = encode_frame(FITTED, plain_frame)
    np.testing.assert_array_equal(expected[0], [-1, 1, 0, 1, 0])
    for other in (
        plain_frame[["k", "empty", "c", "n"]],
        plain_frame.assign(n=["1", None]),
        plain_frame.assign(n=pd.Categorical([1, None])),
        plain_frame.assign(n=pd.array([1, None], dtype="Int64")),
        plain_frame.assign(k=[1, 7]),
        plain_frame.assign(k=[1.0, np.nan]),
        plain_frame.assign(c=pd.Categorical(["a", None])),
        plain_frame.assign(empty=datetime.date(2020, 1, 1)),
    ):
        np.testing.assert_array_equal(encode_frame(FITTED, other), expected)
    nothing = plain_frame.assign(n=None, c=np.nan, k=None)
    np.testing.assert_array_equal(encode_frame(FITTED, nothing), np.zeros((2, 5)))
    assert encode_frame(FITTED, plain_frame[:0]).shape == (0, 5)


def test_arrays_take_the_preparations_names():
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [5.0, 9.0]})
    preparation = fit_preparation(frame)
    np.testing.assert_array_equal(
        encode_frame(preparation, frame.to_numpy()), encode_frame(preparation, frame)
    )
    with pytest.raises(InputError, match="lacks 'a', 'b' and has 'x0', 'x1', 'x2' besides"):
        encode_frame(preparation, np.zeros((2, 3)))


class Interchange:
    """A frame of another library: nothing but `__dataframe__`."""

    def __init__(self, table):
        self.table = table

    def __dataframe__(self, nan_as_null=False, allow_copy=True):
        return self.table.__dataframe__(nan_as_null=nan_as_null, allow_copy=allow_copy)


class Broken:
    def __arrow_c_stream__(self, requested_schema=None):
        raise RuntimeError("no\nstream")


@pytest.mark.parametrize("seed", range(2))
def test_polars_arrow_and_pandas_frames_are_equal(seed):
    pl = pytest.importorskip("polars")
    frame = mixed(seed).assign(flag=lambda f: f["int"] > 0, maybe=lambda f: f["nullable"] > 4)
    preparation = fit_preparation(frame)
    expected = encode_frame(preparation, frame)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    polars_frame = pl.from_arrow(table)
    others = {
        "arrow": table,
        "record batch": table.to_batches()[0],
        "polars": polars_frame,
        "polars strings": polars_frame.with_columns(pl.col("category").cast(pl.String)),
        "polars categories": polars_frame.with_columns(pl.col("word").cast(pl.Categorical)),
        "interchange": Interchange(table),
        "arrow-backed": table.to_pandas(types_mapper=pd.ArrowDtype),
        "nullable": frame.convert_dtypes(dtype_backend="numpy_nullable"),
        "objects": frame.astype(object),
    }
    for name, other in others.items():
        assert np.array_equal(encode_frame(preparation, other), expected), name
        assert fit_preparation(other) == preparation, name


def test_arrays_and_lists():
    numbers = np.arange(6).reshape(3, 2)
    assert to_frame(numbers).columns.tolist() == ["x0", "x1"]
    assert to_frame(numbers, names=["a", "b"]).columns.tolist() == ["a", "b"]
    expected = fit_preparation(numbers)
    for same in (numbers.tolist(), numbers.astype(object), np.ma.array(numbers)):
        assert fit_preparation(same) == expected
    assert [c["kind"] for c in fit_preparation([[1, "a"], [2, "b"]])["columns"]] == [
        "numeric",
        "categorical",
    ]
    assert fit_preparation(np.array([["a"], ["b"]]))["columns"][0]["categories"] == ["a", "b"]
    assert fit_preparation(np.array([[True], [False]]))["columns"][0]["kind"] == "numeric"
    masked = np.ma.array([[1.0], [3.0]], mask=[[False], [True]])
    assert fit_preparation(masked)["columns"][0]["mean"] == 1.0


def test_frames_are_not_changed():
    frame = mixed(0)
    before = frame.copy(deep=True)
    encode_frame(fit_preparation(frame), frame)
    pd.testing.assert_frame_equal(frame, before)


def test_integer_column_names_become_strings():
    assert to_frame(pd.DataFrame({0: [1], 1: [2]})).columns.tolist() == ["0", "1"]


def column(values):
    return pd.DataFrame({"good": 1.0, "bad": values})


BAD_TO_FIT = {
    "duplicate names": (pd.DataFrame([[1, 2]], columns=["a", "a"]), "'a' twice"),
    "duplicates as strings": (pd.DataFrame([[1, 2]], columns=[1, "1"]), "'1' twice"),
    "arrow duplicates": (pa.table([[1], [2]], names=["a", "a"]), "'a' twice"),
    "nested names": (pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", 1)])), "flatten"),
    "series": (pd.Series([1]), "two dimensions"),
    "vector": (np.zeros(3), "two dimensions"),
    "cube": (np.zeros((1, 2, 3)), "two dimensions"),
    "scalar": (3, "two dimensions"),
    "ragged": ([[1, 2], [3]], "two dimensions|ragged"),
    "broken interchange": (Broken(), "type Broken could not be read.*no stream"),
    "sparse matrix": (scipy.sparse.csr_matrix((2, 2)), "toarray"),
    "no rows": (pd.DataFrame({"a": []}), "at least one row"),
    "no columns": (pd.DataFrame(index=[0]), "at least one feature"),
    "nothing but missing": (pd.DataFrame({"a": [None]}), "at least one feature"),
    "infinity": (column([np.inf, 1]), "'bad' holds infinite.*replace"),
    "infinity in nullable": (column(pd.array([np.inf, 1], dtype="Float64")), "infinite"),
    "infinity in objects": (column(np.array([10**400, 1], dtype=object)), "infinite"),
    "dates": (column(pd.to_datetime(["2020-01-01"])), "'bad' holds dates.*days since.*month"),
    "dates with zone": (column(pd.to_datetime(["2020-01-01"], utc=True)), "dates"),
    "date objects": (column([datetime.date(2020, 1, 1)]), "dates"),
    "datetime objects": (column(np.array([datetime.datetime(2020, 1, 1)], object)), "dates"),
    "time objects": (column([datetime.time(3)]), "dates"),
    "durations": (column(pd.to_timedelta([1], unit="s")), "dates"),
    "periods": (column(pd.period_range("2020", periods=1, freq="M")), "dates"),
    "arrow dates": (pa.table({"bad": [datetime.date(2020, 1, 1)]}), "dates"),
    "arrow-backed dates": (
        column(pd.array([datetime.date(2020, 1, 1)], dtype=pd.ArrowDtype(pa.date32()))),
        "dates",
    ),
    "lists": (column([[1, 2]]), "'bad' holds a cell of type list"),
    "dicts": (column([{"a": 1}]), "type dict"),
    "bytes": (column([b"a"]), "bytes"),
    "byte array": (np.array([[b"a"]]), "bytes"),
    "byte categories": (column(pd.Categorical([b"a"])), "bytes"),
    "complex": (column([1j]), "complex"),
    "complex objects": (column(np.array([1j, 1], dtype=object)), "complex"),
    "intervals": (column(pd.interval_range(0, 1)), "interval"),
    "arrow lists": (column(pd.array([[1]], dtype=pd.ArrowDtype(pa.list_(pa.int8())))), "list"),
    "identifiers": (
        column([f"id{i}" for i in range(500)]),
        "'bad' has 500 distinct values in 500 rows.*drop it.*embedding",
    ),
    "text in a small table": (column([f"t{i}" for i in range(25)]), "25 distinct values in 25"),
    "mostly distinct": (column([f"t{i % 300}" for i in range(500)]), "300 distinct values in 500"),
    "rare text": (column([f"t{i}" for i in range(30)] + [None] * 500), "30 distinct values in 30"),
    "declared categories": (column(pd.Categorical([f"t{i}" for i in range(500)])), "500 distinct"),
    "spoilt numbers": (
        column([*(str(i / 8) for i in range(500)), "n/a?"]),
        r"look like numbers \('n/a\?' is none\).*to_numeric",
    ),
    "quoted numbers": (column([str(i / 8) for i in range(500)]), "look like numbers; convert"),
}


@pytest.mark.parametrize("case", BAD_TO_FIT)
def test_bad_input_to_fit(case):
    table, words = BAD_TO_FIT[case]
    with pytest.raises(InputError, match=words) as caught:
        fit_preparation(table)
    assert "\n" not in str(caught.value)


GOOD = pd.DataFrame({"n": [1.0, 2.0], "c": ["a", "b"], "empty": [1, 2], "k": ["1", "x"]})


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (GOOD.drop(columns="c"), "4 columns of the training table; this one lacks 'c'"),
        (GOOD.drop(columns="empty"), "lacks 'empty'"),
        (GOOD.assign(z=1), "has 'z' besides"),
        (GOOD.rename(columns={"c": "C"}), "lacks 'c' and has 'C' besides"),
        (GOOD.assign(**{f"z{i}": 1 for i in range(9)}), "'z4' and 4 more besides"),
        (GOOD.assign(n=["1", "many"]), "'n' was numeric in training, got 'many'"),
        (GOOD.assign(n=["1", "inf"]), "'n' holds infinite"),
        (GOOD.assign(n=[1, -np.inf]), "'n' holds infinite"),
        (GOOD.assign(n=pd.to_datetime(["2020-01-01"] * 2)), "'n' holds dates"),
        (GOOD.assign(c=pd.to_datetime(["2020-01-01"] * 2)), "'c' holds dates"),
        (GOOD.assign(c=[[1], [2]]), "type list"),
        (GOOD.assign(n=[1j, 2j]), "complex"),
    ],
)
def test_bad_input_to_predict(frame, words):
    with pytest.raises(InputError, match=words) as caught:
        encode_frame(FITTED, frame)
    assert "\n" not in str(caught.value)
