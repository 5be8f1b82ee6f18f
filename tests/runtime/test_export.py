import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reference import programs
from secateurs import preparation as preparations
from secateurs.errors import InputError
from secateurs.estimator import TicketClassifier, TicketRegressor
from secateurs.networks.conv import CNN, MLPVis
from secateurs.networks.dense import MLP
from secateurs.networks.lenet import LeNet300100
from secateurs.networks.pixels import Normalise
from secateurs.networks.resnet import ResNet18
from secateurs.runtime.compact import compact
from secateurs.runtime.export import to_onnx
from secateurs.runtime.program import ACTIVATIONS, Op, Program
from secateurs.runtime.reading import ensemble, read

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def _session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _outputs(model, **inputs):
    session = _session(model)
    names = [made.name for made in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def _close(made, wanted):
    np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-5 * (1 + np.abs(wanted).max()))


def _op(kind, shape, **fields):
    return Op(kind=kind, inputs=(0,), shape=shape, **fields)


def _linear(n_out, n_in, **fields):
    return _op("linear", (n_out,), weight=np.ones((n_out, n_in), np.float32), **fields)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**9))
def test_random_programs_are_run_as_torch_runs_them(seed):
    program = programs.program(seed)
    x = np.random.default_rng(seed).normal(size=(3, *program.input_shape)).astype(np.float32)
    made = _outputs(to_onnx(program), x=x)["output"]
    assert made.dtype == np.float32
    np.testing.assert_allclose(
        made,
        wanted := programs.evaluate(program, x),
        rtol=1e-4,
        atol=1e-4 * (1 + abs(wanted).max()),
    )


@pytest.mark.parametrize("opset", [13, 17, 20])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_at_several_opsets(activation, opset):
    program = Program(input_shape=(5,), ops=(_op("activation", (5,), activation=activation),))
    x = np.linspace(-6, 6, 50, dtype=np.float32).reshape(10, 5)
    model = to_onnx(program, opset=opset)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", opset)]
    _close(_outputs(model, x=x)["output"], programs.evaluate(program, x))


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: MLP(7, 3, widths=(16, 16, 16), skip=True), (7,)),
        (lambda: LeNet300100(49, 10), (49,)),
        (lambda: CNN(1, size=8, normalise=Normalise([0.4] * 3, [0.2] * 3)), (3, 8, 8)),
        (lambda: MLPVis(1, size=8, normalise=Normalise([0.4] * 3, [0.2] * 3)), (3, 8, 8)),
        (lambda: ResNet18(width=4), (3, 32, 32)),
        (lambda: ResNet18(width=4, stem="cifar"), (3, 9, 9)),
    ],
)
def test_our_own_networks(build, shape):
    torch.manual_seed(0)
    network = build()
    network(torch.rand(8, *shape))
    network.eval()
    mask = {
        name: torch.rand_like(weight) < 0.3
        for name, weight in network.named_parameters()
        if weight.ndim > 1
    }
    x = torch.rand(5, *shape)
    program = compact(read(network, mask, x))
    with torch.no_grad():
        for name, kept in mask.items():
            network.get_parameter(name).mul_(kept)
        wanted = network(x).numpy()
    model = to_onnx(program)
    _close(_outputs(model, x=x.numpy())["output"], wanted)
    for n in (1, 2):  # the batch is dynamic
        _close(_outputs(model, x=x[:n].numpy())["output"], wanted[:n])


def test_pruned_weights_are_stored_as_zeros():
    weight = np.diag([1.0, 2.0]).astype(np.float32)
    model = to_onnx(Program(input_shape=(2,), ops=(_op("linear", (2,), weight=weight),)))
    (stored,) = model.graph.initializer
    assert stored.dims == [2, 2]
    assert "zeros" in model.doc_string


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ([7, 9], [9, 7]),
        (np.array([2, 3], np.int8), [3, 2]),
        ([False, True], [True, False]),
        ([0.5, 1.5], [1.5, 0.5]),
        (["no", "yes"], ["yes", "no"]),
        (np.array(["é", "ü"], dtype=object), ["ü", "é"]),
    ],
)
def test_labels_are_those_of_the_largest_output(labels, wanted):
    op = _op("linear", (2,), weight=np.array([[0], [1]], np.float32))
    made = _outputs(
        to_onnx(Program(input_shape=(1,), ops=(op,)), labels=labels),
        x=np.array([[1], [-1]], np.float32),
    )
    assert list(made) == ["logits", "label"]
    assert made["label"].tolist() == wanted


def test_equal_outputs_are_the_first_label_as_numpy_has_it():
    made = _outputs(
        to_onnx(Program(input_shape=(1,), ops=(_linear(3, 1),)), labels=list("abc")),
        x=np.ones((1, 1), np.float32),
    )
    assert made["label"].tolist() == ["a"]


def test_the_output_says_whether_it_is_a_probability():
    one = Program(input_shape=(2,), ops=(_linear(2, 2),))
    for program, name in (
        (ensemble([one], softmax=True), "probabilities"),
        (ensemble([one, one], softmax=True), "probabilities"),
        (compact(ensemble([one, one], softmax=True)), "probabilities"),
        (ensemble([one, one], softmax=False), "logits"),
    ):
        assert to_onnx(program, labels=[0, 1]).graph.output[0].name == name
        assert to_onnx(program).graph.output[0].name == "output"


_AGE = {"name": "age", "kind": "numeric", "median": 30.0, "mean": 40.0, "scale": 10.0}
_JOB = {"name": "job", "kind": "categorical", "categories": ["clerk", "missing_value", "ünï"]}
_FAX = {"name": "fax", "kind": "dropped"}
_TIME = {"name": "time", "kind": "numeric", "median": 1.7e9, "mean": 1.7e9, "scale": 60.0}
_BARE = {"name": "bare", "kind": "categorical", "categories": ["", "b"]}


def _identity(preparation):
    n = preparations.width(preparation)
    return Program(input_shape=(n,), ops=(_op("activation", (n,)),))


def _model(*columns, **more):
    preparation = {"format": 1, "columns": list(columns)}
    return preparation, to_onnx(_identity(preparation), preparation=preparation, **more)


def test_columns_are_encoded_as_the_preparation_does():
    preparation, model = _model(_JOB, _AGE, _FAX, _BARE)
    columns = {
        "age": np.array([50, np.nan, 1e30, -1e30, 0.1], np.float32),
        "job": np.array(["clerk", None, "ünï", "other", "missing_value"], dtype=object),
        "bare": np.array(["", "b", "c", "missing_value", "b"], dtype=object),
    }
    wanted = preparations.encode(preparation, columns)
    text = {name: columns[name].copy() for name in ("job", "bare")}
    text["job"][1] = ""
    inputs = {"age": columns["age"], **text}
    made = _outputs(model, **{name: values[:, None] for name, values in inputs.items()})
    assert np.array_equal(made["output"], wanted)
    assert [value.name for value in model.graph.input] == ["job", "age", "bare"]


def test_numbers_of_many_digits_may_be_float64():
    seconds = 1.7e9 + np.arange(5.0)
    preparation, model = _model(_TIME, numbers="float64")
    made = _outputs(model, time=seconds[:, None])["output"]
    assert np.array_equal(made, preparations.encode(preparation, {"time": seconds}))
    assert made[1, 0] > 0.01


@pytest.mark.parametrize("columns", [[_AGE], [_JOB], [_AGE, _TIME, _JOB], [_JOB, _BARE]])
def test_tables_of_few_columns(columns):
    preparation, model = _model(*columns)
    values = {
        column["name"]: np.array(["clerk", "b"], object)
        if column["kind"] == "categorical"
        else np.array([1.0, np.nan], np.float32)
        for column in columns
    }
    made = _outputs(model, **{name: array[:, None] for name, array in values.items()})
    assert np.array_equal(made["output"], preparations.encode(preparation, values))


def test_columns_may_have_the_names_of_outputs():
    columns = [{**_AGE, "name": name} for name in ("label", "logits", "x", "constant", "median")]
    preparation = {"format": 1, "columns": columns}
    program = Program(input_shape=(5,), ops=(_linear(2, 5),))
    model = to_onnx(program, preparation=preparation, labels=[0, 1])
    one = np.full((1, 1), 50, np.float32)
    made = _outputs(model, **{column["name"]: one for column in columns})
    assert list(made) == ["logits_", "label_"]
    assert made["logits_"].tolist() == [[5, 5]]


def _table(n=120):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "city": rng.choice(["Bern", "Genf", "Zürich"], n),
            "age": rng.normal(40, 10, n).astype(np.float32),
            "smokes": rng.choice([True, False], n),
            "job": pd.Categorical(rng.choice(["a", "b"], n)),
            "empty": np.full(n, np.nan),
            "rooms": rng.integers(1, 9, n),
        }
    )
    table.loc[::7, "age"] = np.nan
    table.loc[::5, "city"] = None
    return table


def _inputs(preparation, table):
    """What a caller in another language would pass: strings and float32."""
    inputs = {}
    for column in preparation["columns"]:
        values = table[column["name"]]
        if column["kind"] == "numeric":
            inputs[column["name"]] = values.to_numpy(np.float32)[:, None]
        elif column["kind"] == "categorical":
            text = [preparations.canonical(value) or "" for value in values]
            inputs[column["name"]] = np.array(text, dtype=object)[:, None]
    return inputs


_SMALL = {"widths": (16, 16), "search_epochs": 2, "finetune_epochs": 7, "random_state": 0}


def test_a_fitted_classifier_predicts_the_same():
    table = _table()
    target = np.where(table["age"].fillna(40) + 10 * table["smokes"] > 45, "old", "young")
    clf = TicketClassifier(n_tickets=2, **_SMALL).fit(table, target)
    rows = table.copy()
    rows.loc[3, "city"] = "Paris"  # unknown
    members = [read(m, mask) for m, mask in zip(clf.members_, clf.masks_, strict=True)]
    program = compact(ensemble(members, softmax=True))
    model = to_onnx(program, preparation=clf.preparation_, labels=clf.classes_)
    made = _outputs(model, **_inputs(clf.preparation_, rows))
    np.testing.assert_allclose(made["probabilities"], clf.predict_proba(rows), atol=1e-5)
    assert made["label"].tolist() == clf.predict(rows).tolist()
    kinds = {column["kind"] for column in clf.preparation_["columns"]}
    assert kinds == {"numeric", "categorical", "dropped"}


def test_a_fitted_regressor_predicts_the_same():
    table = _table()
    reg = TicketRegressor(**_SMALL).fit(table, 100 + table["age"].fillna(40))
    (member,) = (read(m, mask) for m, mask in zip(reg.members_, reg.masks_, strict=True))
    program = compact(
        ensemble([member], softmax=False, target=(reg.target_mean_, reg.target_scale_))
    )
    made = _outputs(
        to_onnx(program, preparation=reg.preparation_), **_inputs(reg.preparation_, table)
    )
    np.testing.assert_allclose(made["output"][:, 0], reg.predict(table), rtol=1e-5)


def test_what_onnx_cannot_hold_is_refused():
    network = nn.Sequential(nn.Linear(4, 4), nn.SiLU())
    program = read(network, unsupported="torch")
    with pytest.raises(InputError, match="1 is left to torch"):
        to_onnx(program)
    preparation = {"format": 1, "columns": [{**_AGE, "name": ""}]}
    with pytest.raises(InputError, match="a column named ''"):
        to_onnx(_identity(preparation), preparation=preparation)
    with pytest.raises(InputError, match="of width 1 needs a network"):
        to_onnx(
            Program(input_shape=(2,), ops=(_linear(1, 2),)),
            preparation={"format": 1, "columns": [_AGE]},
        )
    large = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, 2**30), (0, 0))
    with pytest.raises(InputError, match="less than 2 GB"):
        to_onnx(Program(input_shape=(2**30,), ops=(_op("linear", (1,), weight=large),)))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"opset": 12}, "opset must be in 13"),
        ({"opset": 1000}, "got 1000"),
        ({"labels": [1]}, "one for each output, got 1"),
        ({"numbers": "int8"}, "'float32' or 'float64', got 'int8'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(more, said):
    with pytest.raises(InputError, match=said):
        to_onnx(Program(input_shape=(2,), ops=(_linear(2, 2),)), **more)


def test_without_onnx_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"secateurs\[onnx\]"):
        to_onnx(Program(input_shape=(2,), ops=(_linear(2, 2),)))
