"""Models on disk: the same to the bit when intact, one clear error when not."""

import ast
import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

import secateurs as sc
from secateurs import model_directory
from secateurs.errors import InputError
from secateurs.estimator import TicketClassifier, TicketRegressor
from secateurs.model_directory import DESCRIPTION, HISTORY, WEIGHTS

FAST = {"widths": (16,), "search_epochs": 2, "finetune_epochs": 7, "random_state": 0}

pytestmark = pytest.mark.filterwarnings("ignore::secateurs.errors.CollapseWarning")


def table(rows=60):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 80, rows),
            "height": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(170, 10, rows)),
            "job": rng.choice(np.array(["clerk", "miner", None], dtype=object), rows),
            "nothing": np.full(rows, np.nan),
        }
    )
    return frame, np.where(frame["age"] < 45, "young", "old")


@pytest.fixture(scope="module")
def trained():
    """An ensemble of every kind: snapshots that share a mask, tickets that do not."""
    frame, y = table()
    return TicketClassifier(**FAST, snapshots=2, n_tickets=2).fit(frame, y)


@pytest.fixture(scope="module")
def original(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model"
    trained.save(path)
    return path


@pytest.fixture
def folder(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "model"))


def refused(path, match="."):
    """Assert that loading gives one line that names the folder, and return it."""
    with pytest.raises(InputError, match=match) as caught:
        sc.load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def loads(path, frame=None):
    """Return whether the folder loads (and predicts); nothing but our own error may come."""
    try:
        model = sc.load(path)
        if frame is not None:
            model.predict(frame)
    except InputError:
        return False
    return True


def seal(path):
    """Write a fresh checksum over what a test has changed."""
    description = json.loads((path / DESCRIPTION).read_bytes())
    rest = {key: value for key, value in description.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in (HISTORY, WEIGHTS):
        digest.update((path / name).read_bytes())
    (path / DESCRIPTION).write_text(json.dumps(rest | {"sha256": digest.hexdigest()}))


def edit(path, change):
    """Apply `change` to the description and make the checksum fit."""
    description = json.loads((path / DESCRIPTION).read_bytes())
    change(description)
    (path / DESCRIPTION).write_text(json.dumps(description))
    seal(path)


def edit_tensors(path, change):
    tensors = load_tensors((path / WEIGHTS).read_bytes())
    change(tensors)
    (path / WEIGHTS).write_bytes(save_tensors(tensors))
    seal(path)


# Round trips


def test_round_trip(trained, original):
    frame, _ = table()
    again = sc.load(original)
    assert type(again) is TicketClassifier
    assert np.array_equal(again.predict_proba(frame), trained.predict_proba(frame))
    assert again.get_params() == trained.get_params()
    assert again.summary_ == trained.summary_
    pd.testing.assert_frame_equal(again.history_, trained.history_)
    assert list(again.feature_names_in_) == list(trained.feature_names_in_)
    assert again.feature_names_in_.dtype == trained.feature_names_in_.dtype
    for name in ("n_features_in_", "preparation_", "density_", "n_parameters_kept_"):
        assert getattr(again, name) == getattr(trained, name), name
    assert again.compression_ == trained.compression_
    for one, other in zip(again.members_, trained.members_, strict=True):
        assert not one.training
        for key, value in other.state_dict().items():
            assert torch.equal(one.state_dict()[key], value)
        assert not any(p.requires_grad for p in one.parameters())
    for one, other in zip(again.masks_, trained.masks_, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert again.masks_[0] is again.masks_[1]  # snapshots share a mask
    assert again.masks_[1] is not again.masks_[2]  # tickets do not


def test_saved_again_is_the_same_to_the_byte(original, tmp_path):
    sc.load(original).save(tmp_path / "again")
    for name in (DESCRIPTION, HISTORY, WEIGHTS):
        assert (tmp_path / "again" / name).read_bytes() == (original / name).read_bytes(), name


def test_regressor_round_trip(tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 3))
    reg = TicketRegressor(**FAST, compression=2).fit(X, 1e6 + 1e3 * X[:, 0])
    reg.save(tmp_path / "model")
    again = sc.load(tmp_path / "model")
    assert type(again) is TicketRegressor
    assert np.array_equal(again.predict(X), reg.predict(X))
    assert again.get_params() == reg.get_params()
    assert not hasattr(again, "feature_names_in_")  # an array had none


@pytest.mark.parametrize(
    "parameters",
    [
        {"class_weight": {3: 1.0, 5: 2.5}},
        {"class_weight": {np.int64(3): np.float32(0.5), np.int64(5): 2}},
        {"class_weight": "balanced", "compression": np.float64(2)},
        {"compression": 1, "val_fraction": 0.2, "time_limit": 1e6},
        {"widths": (16, 8), "search_lr": 0.1, "regime": None},
    ],
)
def test_parameters_survive(parameters, tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 3))
    y = np.where(X[:, 0] > 0, 3, 5)
    clf = TicketClassifier(**FAST | parameters).fit(X, y)
    clf.save(str(tmp_path / "model"))
    again = sc.load(str(tmp_path / "model"))
    assert again.get_params() == clf.get_params()
    assert np.array_equal(again.predict_proba(X), clf.predict_proba(X))
    refitted = again.fit(X, y)
    assert np.array_equal(refitted.predict_proba(X), clf.predict_proba(X))


def test_callables_and_random_states_are_left_out(tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 3))
    left_out = {
        "views": {"x0": lambda values, rng: rng.permutation(values)},
        "criterion": sc.criteria.magnitude,
        "random_state": np.random.RandomState(0),
    }
    clf = TicketClassifier(**FAST | left_out).fit(X, X[:, 0] > 0)
    clf.save(tmp_path / "model")
    again = sc.load(tmp_path / "model")
    defaults = TicketClassifier().get_params()
    assert again.get_params() == clf.get_params() | {name: defaults[name] for name in left_out}
    assert np.array_equal(again.predict_proba(X), clf.predict_proba(X))


def test_folder_is_as_large_as_what_is_kept(tmp_path):
    X = np.random.default_rng(0).normal(size=(80, 20))
    clf = TicketClassifier(**FAST | {"widths": (256, 256)}, compression=8).fit(X, X[:, 0] > 0)
    clf.save(tmp_path / "model")
    size = {path.name: path.stat().st_size for path in (tmp_path / "model").iterdir()}
    assert set(size) == {DESCRIPTION, HISTORY, WEIGHTS}
    prunable = 20 * 256 + 256 * 256
    ideal = 4 * clf.n_parameters_kept_ + prunable / 8
    assert size[WEIGHTS] < 1.2 * ideal
    assert clf.summary_["bytes"] <= size[WEIGHTS] < clf.summary_["bytes"] + 4096
    assert size[WEIGHTS] < 4 * clf.summary_["parameters"] / 4  # far below dense
    assert size[DESCRIPTION] + size[HISTORY] < 16_384


def test_dense_layers_have_no_bits(tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 3))
    clf = TicketClassifier(**FAST, compression=1).fit(X, X[:, 0] > 0)
    clf.save(tmp_path / "model")
    tensors = load_tensors((tmp_path / "model" / WEIGHTS).read_bytes())
    assert not [name for name in tensors if name.startswith("mask")]
    assert sc.load(tmp_path / "model").density_ == 1


# Overwriting


def test_own_model_is_replaced(trained, folder):
    X = np.random.default_rng(0).normal(size=(60, 3))
    other = TicketClassifier(**FAST).fit(X, X[:, 0] > 0)
    other.save(folder)
    assert np.array_equal(sc.load(folder).predict_proba(X), other.predict_proba(X))
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    del trained


def test_empty_folder_and_missing_parents_are_filled(trained, tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "a" / "b" / "model"):
        trained.save(path)
        assert sc.load(path).classes_.tolist() == ["old", "young"]


def test_link_is_followed(trained, folder):
    link = folder.parent / "link"
    link.symlink_to(folder)
    trained.save(link)
    assert link.is_symlink()
    assert sc.load(folder).classes_.tolist() == ["old", "young"]


def foreign_folder(path):
    path.mkdir()
    (path / "model.json").write_text("{}")  # TensorFlow.js calls its models so
    (path / "thesis.tex").write_text("years of work")


def foreign_file(path):
    path.write_text("years of work")


@pytest.mark.parametrize("make", [foreign_folder, foreign_file])
def test_what_is_not_ours_is_not_replaced(trained, tmp_path, make):
    path = tmp_path / "mine"
    make(path)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with pytest.raises(InputError, match="not a model folder, so it will not be replaced"):
        trained.save(path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("path", ["/proc/model", "/dev/null/model", "{tmp}/" + "x" * 300])
def test_place_that_cannot_be_written(trained, tmp_path, path):
    with pytest.raises(InputError, match="choose") as caught:
        trained.save(path.format(tmp=tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fails", [1, 2])
def test_failed_renames_leave_the_old_model(trained, folder, monkeypatch, fails):
    rename, calls = Path.rename, []

    def flaky(self, target):
        calls.append(target)
        if len(calls) == fails:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", flaky)
        with pytest.raises(InputError, match="Input/output error"):
            trained.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


DISK_FULL = """
import resource, sys
import secateurs as sc
from secateurs.errors import InputError
model = sc.load(sys.argv[1])
for limit in (0, 100, 1500, 8000):  # within each of the three files
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        model.save(sys.argv[2])
    except InputError as err:
        print(err)
    else:
        sys.exit(f"it fitted into {limit} bytes")
"""


def test_full_disk_leaves_the_old_model(original, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    big = folder.parent / "big"
    X = np.random.default_rng(0).normal(size=(40, 30))
    TicketClassifier(**FAST | {"widths": (1024,)}).fit(X, X[:, 0] > 0).save(big)
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, big, folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all(line.startswith(f"cannot write {folder}: File too large") for line in lines)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert {path.name for path in folder.parent.iterdir()} == {"model", "big"}
    del original


# Damage


@pytest.mark.parametrize("name", [DESCRIPTION, HISTORY, WEIGHTS])
def test_truncated_files(folder, name):
    content = (folder / name).read_bytes()
    lengths = {0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1}
    for length in sorted(n for n in lengths if n < len(content)):
        (folder / name).write_bytes(content[:length])
        refused(folder)
    (folder / name).write_bytes(content + b" ")  # JSON would not mind; the checksum does
    if name != DESCRIPTION:
        refused(folder, "checksum")
    (folder / name).unlink()
    refused(folder, f"{name}: No such file")


@pytest.mark.parametrize("name", [DESCRIPTION, HISTORY, WEIGHTS])
def test_flipped_bytes(folder, name):
    content = (folder / name).read_bytes()
    draw = random.Random(0)
    for _ in range(60):
        at = draw.randrange(len(content))
        flipped = bytes([content[at] ^ (1 << draw.randrange(8))])
        (folder / name).write_bytes(content[:at] + flipped + content[at + 1 :])
        if name == DESCRIPTION and content[at : at + 1].isspace() and loads(folder):
            continue  # whitespace between values says nothing
        refused(folder)


def test_changed_digit_is_noticed(folder):
    text = (folder / DESCRIPTION).read_text()
    mean = json.loads(text)["preparation"]["columns"][0]["mean"]
    (folder / DESCRIPTION).write_text(text.replace(str(mean), str(mean + 1)))
    refused(folder, "checksum")


@pytest.mark.parametrize(
    "make",
    [
        lambda _: None,
        lambda path: path.mkdir(),
        lambda path: path.write_text("junk"),
        foreign_folder,
    ],
    ids=["missing", "empty", "file", "foreign"],
)
def test_what_is_no_model(tmp_path, make):
    make(tmp_path / "model")
    refused(tmp_path / "model", "must be a model folder written by secateurs")


def test_file_that_is_a_folder(folder):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()
    refused(folder, "Is a directory")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", "3", "null", '"x"', "{}", "\xff", "9" * 5000]
)
@pytest.mark.parametrize("name", [DESCRIPTION, HISTORY])
def test_json_that_is_none_of_ours(folder, name, text):
    (folder / name).write_bytes(text.encode("latin-1"))
    refused(folder)


@pytest.mark.parametrize("number", [2, 0, "1", None, [1]])
def test_other_formats(folder, number):
    edit(folder, lambda d: d.update(format=number))
    refused(folder, "this version reads 1")


def put(*keys, value):
    """Return an edit that sets one entry of the description."""

    def change(description):
        at = description
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        put("estimator", value="TicketTeapot"),
        put("estimator", value=["TicketClassifier"]),
        put("estimator", value="TicketRegressor"),
        put("parameters", value=[1]),
        put("parameters", "colour", value="red"),
        put("parameters", "class_weight", value={"dict": [[[1], 2]]}),
        put("parameters", "class_weight", value={"list": 3}),
        put("network", value=None),
        put("network", "widths", value=[2**30]),
        put("network", "widths", value=[2**30] * 3),
        put("network", "widths", value=[16] * 200_000),
        put("network", "widths", value=[16, 16]),
        put("network", "widths", value=[]),
        put("network", "widths", value="16"),
        put("network", "widths", value=[True]),
        put("network", "widths", value=[16.0]),
        put("network", "widths", value=[-16]),
        put("network", "n_inputs", value=2**30),
        put("network", "n_inputs", value=10**30),
        put("network", "n_outputs", value=2**30),
        put("network", "n_outputs", value=3),
        put("members", value=[]),
        put("members", value=None),
        put("members", value=[0, 0]),
        put("members", value=[0, 0, 0, 0]),
        put("members", value=[1, 1, 0, 0]),
        put("members", value=[-1, 0, 1, 1]),
        put("members", value=[0, 0, 2, 2]),
        put("members", value=[0, 0, 1, 10**30]),
        put("members", value=[0, 0, 1, "1"]),
        put("members", value=[0, 0, 1, True]),
        put("members", value=[0, 0, 1, 1, 1]),
        put("members", value=[0] * 1_000_000),
        put("classes", value=None),
        put("classes", "values", value=["a", "b", "c"]),
        put("classes", "values", value=["a"]),
        put("classes", "values", value=["a", "a"]),
        put("classes", "values", value=["b", "a"]),
        put("classes", "values", value=[1, "a"]),
        put("classes", "values", value=[None, None]),
        put("classes", "values", value=[["a"], ["b"]]),
        put("classes", "values", value={"a": 1, "b": 2}),
        put("classes", "values", value="ab"),
        put("classes", "dtype", value="<U1000000000"),
        put("classes", "dtype", value="<U99999999"),
        put("classes", "dtype", value="V8"),
        put("classes", "dtype", value="<M8[s]"),
        put("classes", "dtype", value="int64"),
        put("classes", "dtype", value="nonsense"),
        put("classes", "dtype", value=7),
        put("feature_names_in", value=["age"]),
        put("feature_names_in", value="abcd"),
        put("feature_names_in", value=["age", "height", "job", "other"]),
        put("summary", value=[]),
        put("summary", value={}),
        put("summary", "compression", value="high"),
        put("summary", "compression", value=float("nan")),
        put("preparation", value=None),
        put("preparation", "columns", value=[]),
        put("preparation", "columns", 0, "mean", value=float("nan")),
        put("preparation", "columns", 0, "scale", value=0),
        put("preparation", "columns", 0, "scale", value=10**400),
        put("preparation", "columns", 2, "categories", value=["clerk"]),
        put("preparation", "columns", 2, "kind", value="dropped"),
        put("preparation", "format", value=2),
    ],
)
def test_descriptions_that_cannot_be(folder, change):
    edit(folder, change)
    refused(folder)


@pytest.mark.parametrize(
    "key",
    ["estimator", "parameters", "network", "members", "classes", "preparation", "summary"],
)
def test_missing_entries(folder, key):
    edit(folder, lambda d: d.pop(key))
    refused(folder)


@pytest.mark.parametrize(
    "target",
    [
        {"mean": float("nan"), "scale": 1.0},
        {"mean": 0.0, "scale": float("nan")},
        {"mean": 0.0, "scale": 0.0},
        {"mean": 0.0, "scale": -1.0},
        {"mean": 0.0, "scale": float("inf")},
        {"mean": 10**400, "scale": 1.0},
        {"mean": [], "scale": 1.0},
        {"mean": 0.0},
        None,
    ],
)
def test_targets_that_cannot_be(tmp_path, target):
    X = np.random.default_rng(0).normal(size=(40, 2))
    TicketRegressor(**FAST).fit(X, X[:, 0]).save(tmp_path / "model")
    edit(tmp_path / "model", put("target", value=target))
    refused(tmp_path / "model")


def rename_mask(tensors):
    tensors["mask-0/encoder.9.weight"] = tensors.pop("mask-0/encoder.0.weight")


def shorten_mask(tensors):
    tensors["mask-0/encoder.0.weight"] = tensors["mask-0/encoder.0.weight"][:-1].contiguous()


def other_mask(tensors):
    tensors["mask-0/encoder.0.weight"] = tensors["mask-0/encoder.0.weight"] ^ 1


def float_mask(tensors):
    tensors["mask-0/encoder.0.weight"] = tensors["mask-0/encoder.0.weight"].float()


def drop_bias(tensors):
    del tensors["member-3/decoder.bias"]


def double(tensors):
    tensors["member-0/decoder.bias"] = tensors["member-0/decoder.bias"].double()


def transpose(tensors):
    tensors["member-0/decoder.weight"] = tensors["member-0/decoder.weight"].t().contiguous()


def add_another(tensors):
    tensors["member-4/decoder.bias"] = torch.zeros(2)


def empty(tensors):
    tensors.clear()


@pytest.mark.parametrize(
    "change",
    [
        rename_mask,
        shorten_mask,
        other_mask,
        float_mask,
        drop_bias,
        double,
        transpose,
        add_another,
        empty,
    ],
)
def test_tensors_that_do_not_fit(folder, change):
    edit_tensors(folder, change)
    refused(folder, "content is damaged")


@pytest.mark.parametrize(
    "history", [{"loss": 3}, {"loss": [1], "epoch": [1, 2]}, {"loss": {"a": 1}}, {"loss": "abc"}]
)
def test_histories_that_cannot_be(folder, history):
    (folder / HISTORY).write_text(json.dumps(history))
    seal(folder)
    refused(folder)


JUNK = [
    None, True, -1, 0, 1, 3, 2**31, 2**63, 10**400, 0.5, float("nan"), float("inf"), "", "x",
    "<U99999999", "meta", [], [0], [[]], {}, {"dict": 1}, {"a": {}}, "9" * 99, [2**40] * 5,
]  # fmt: skip


def places(node, at=()):
    """Yield the path to every entry of a JSON document."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        yield (*at, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*at, key))


def mutate(description, draw):
    """Replace, drop or copy a random entry."""
    at = draw.choice([path for path in places(description) if path[0] != "sha256"])
    parent = description
    for key in at[:-1]:
        parent = parent[key]
    kind = draw.randrange(4)
    if kind == 0:
        del parent[at[-1]]
    elif kind == 1 and isinstance(parent, list):
        parent.insert(at[-1], parent[at[-1]])
    else:
        parent[at[-1]] = draw.choice(JUNK)


def mutate_bytes(content, draw):
    """Change a few bytes, mostly in the header; the checksum will fit."""
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 8])):
        at = draw.randrange(draw.choice([8, 200, 2000, len(content)]))
        changed[at % len(changed)] = draw.choice([0, 1, 48, 57, 127, 255, draw.randrange(256)])
    if draw.random() < 0.2:
        changed = changed[: draw.randrange(len(changed))]
    return bytes(changed)


@pytest.mark.parametrize("seed", range(6))
def test_random_damage_with_a_fitting_checksum(folder, seed):
    draw = random.Random(seed)
    frame, _ = table()
    text, blob = (folder / DESCRIPTION).read_text(), (folder / WEIGHTS).read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    n_refused = 0
    for _ in range(60):
        description, content = json.loads(text), blob
        if draw.random() < 0.6:
            for _ in range(draw.choice([1, 1, 3])):
                mutate(description, draw)
        else:
            content = mutate_bytes(blob, draw)
        (folder / DESCRIPTION).write_text(json.dumps(description))
        (folder / WEIGHTS).write_bytes(content)
        seal(folder)
        if not loads(folder):
            refused(folder)
            n_refused += 1
        elif not loads(folder, frame):
            n_refused += 1
    assert n_refused > 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 300_000  # kilobytes


# No pickle


def test_nothing_of_ours_unpickles():
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "_pickle"}
    loaders = {("torch", "load"), ("joblib", "load"), ("np", "load"), ("pd", "read_pickle")}
    files = sorted(Path(sc.__file__).parent.rglob("*.py"))
    assert len(files) > 20
    for path in files:
        tree = ast.parse(path.read_text())
        told_not_to = {
            id(call.func)
            for call in ast.walk(tree)
            if isinstance(call, ast.Call)
            and ast.unparse(call.func) == "np.load"
            and any(ast.unparse(k) == "allow_pickle=False" for k in call.keywords)
        }
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(f"{node.module}.{a.name}" for a in node.names)]
                assert not {"torch.load", "joblib.load"} & set(names), path
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if id(node) in told_not_to:
                    continue
                assert (node.value.id, node.attr) not in loaders, f"{path}:{node.lineno}"
            assert not forbidden & {name.partition(".")[0] for name in names}, path


def test_pack_stores_what_is_shared_once(trained):
    packed = model_directory.pack(trained.members_, trained.masks_)
    masks = {name.partition("/")[0] for name in packed if name.startswith("mask")}
    assert masks == {"mask-0", "mask-1"}
    assert sum(t.numel() * t.element_size() for t in packed.values()) == trained.summary_["bytes"]


def test_replaceable_is_known_before_any_work(tmp_path):
    foreign_folder(tmp_path / "mine")
    with pytest.raises(InputError, match="not a model folder"):
        model_directory.check_replaceable(tmp_path / "mine")
    model_directory.check_replaceable(tmp_path / "new" / "model")
    assert not (tmp_path / "new" / "model").exists()
    assert os.listdir(tmp_path / "new") == []  # noqa: PTH208
