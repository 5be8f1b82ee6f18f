"""Splits do not leak: partitions by groups, preparations of training rows only."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateurs.errors import InputError
from secateurs.experiments.rows import prepare, split
from secateurs.experiments.spec import Rows

ROWS = Rows(dataset="sklearn:wine", validation_folds=4)


@given(st.integers(0, 50), st.integers(2, 6), st.sampled_from([0, 2, 4]))
def test_a_split_is_a_partition_by_groups_of_identical_rows(seed, test_folds, validation_folds):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"a": rng.integers(0, 8, 120), "b": rng.integers(0, 8, 120)})
    y = rng.integers(0, 3, 120)
    rows = Rows(dataset="", split=seed, test_folds=test_folds, validation_folds=validation_folds)
    sides = split(X, y, rows)
    assert sorted(np.concatenate(sides)) == list(range(120))
    groups = [set(map(tuple, X.iloc[side].to_numpy())) for side in sides]
    assert len(set.union(*groups)) == sum(map(len, groups))
    assert bool(len(sides[1])) == bool(validation_folds)


def test_a_split_keeps_the_shares_of_rows_and_classes():
    X = pd.DataFrame({"a": np.arange(1000)})
    y = np.repeat([0, 1, 2], [700, 250, 50])
    train, held, test = split(X, y, Rows(dataset="", validation_folds=4))
    for side, n in ((train, 600), (held, 200), (test, 200)):
        assert len(side) == n
        np.testing.assert_allclose(np.bincount(y[side]) / n, [0.7, 0.25, 0.05], atol=0.01)


def test_a_class_smaller_than_the_folds_is_split_without_a_word():
    X, y = pd.DataFrame({"a": range(42)}), np.repeat([0, 1, 2], [20, 20, 2])
    sides = split(X, y, Rows(dataset="", validation_folds=4))
    assert sum(map(len, sides)) == 42
    with pytest.raises(InputError, match="cannot be split into 5 stratified folds"):
        split(X.iloc[-2:], y[-2:], Rows(dataset="few"))


def test_splits_differ_by_their_seed_and_by_nothing_else():
    X, y = pd.DataFrame({"a": range(100)}), np.arange(100) % 2
    one, same, other = (
        split(X, y, Rows(dataset=d, split=s)) for d, s in (("", 0), ("x", 0), ("", 1))
    )
    assert np.array_equal(one[2], same[2])
    assert not np.array_equal(one[2], other[2])


def test_the_preparation_sees_training_rows_only():
    prepared = prepare(ROWS)
    x = prepared.data.train[0]
    assert torch.allclose(x.mean(0), torch.zeros(x.shape[1]), atol=1e-5)
    assert not torch.allclose(prepared.test[0].mean(0), torch.zeros(x.shape[1]), atol=1e-3)
    assert [len(x), len(prepared.data.validation[0]), len(prepared.test[0])] == [106, 36, 36]
    assert prepared.seen == 0


def test_a_table_of_the_data_root_is_read_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "tabular").mkdir()
    frame = pd.DataFrame({"a": [0.0, 1.0] * 20, "b": range(40), "target": ["no", "yes"] * 20})
    frame.to_parquet(tmp_path / "tabular" / "toy.parquet")
    monkeypatch.setenv("SECATEURS_DATA", str(tmp_path))
    prepared = prepare(Rows(dataset="toy"))
    assert prepared.classes.tolist() == ["no", "yes"]
    frame.assign(target=[0.5, 1.25] * 20).to_parquet(tmp_path / "tabular" / "numbers.parquet")
    with pytest.raises(InputError, match="experiments are about classes"):
        prepare(Rows(dataset="numbers"))
