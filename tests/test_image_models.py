"""Folders of models of images: read back whole or refused in a line, whatever is in them."""

import hashlib
import json
import random
import resource
import shutil

import numpy as np
import pytest
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

import secateurs as sc
from secateurs import ImageTicketClassifier
from secateurs.errors import InputError
from secateurs.model_directory import DESCRIPTION, HISTORY, WEIGHTS

JUNK = (None, -1, 0, 2, 2**31, 2**62, 1e300, "x", [], {}, [[]], True, "cnn", "resnet18", [3, 8, 8])

pytestmark = pytest.mark.filterwarnings("ignore::secateurs.errors.CollapseWarning")


def images(n=40):
    rng = np.random.default_rng(0)
    return rng.integers(256, size=(n, 3, 8, 8)).astype(np.uint8), np.arange(n) % 2


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model"
    clf = ImageTicketClassifier(
        width=1, view="crop", search_epochs=1, finetune_epochs=1, random_state=0
    )
    clf.fit(*images()).save(path)
    return path


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "model")


def edit(path, change):
    """Apply `change` to the description and the tensors, and make the checksum fit."""
    description = json.loads((path / DESCRIPTION).read_bytes())
    tensors = load_tensors((path / WEIGHTS).read_bytes())
    change(description, tensors)
    (path / WEIGHTS).write_bytes(save_tensors(tensors))
    rest = {key: value for key, value in description.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in (HISTORY, WEIGHTS):
        digest.update((path / name).read_bytes())
    (path / DESCRIPTION).write_text(json.dumps(rest | {"sha256": digest.hexdigest()}))


def test_saved_again_is_the_same_to_the_byte(original, tmp_path):
    sc.load(original).save(tmp_path / "again")
    for name in (DESCRIPTION, HISTORY, WEIGHTS):
        assert (tmp_path / "again" / name).read_bytes() == (original / name).read_bytes(), name


def test_what_is_pruned_takes_a_bit(original):
    model = sc.load(original)
    bound = 4 * model.summary_["parameters_kept"] + model.summary_["parameters"] / 8
    assert (original / WEIGHTS).stat().st_size < bound + 8192  # statistics, names, shapes


@pytest.mark.parametrize(
    "change",
    [
        lambda d, t: d["network"].update(width=2**31),
        lambda d, t: d["network"].update(width=2**20),
        lambda d, t: d["network"].update(kind="mlp_vis", width=2**20),
        lambda d, t: d["network"].update(shape=[3, 2**20, 2**20]),
        lambda d, t: d["network"].update(n_outputs=2**30),
        lambda d, t: d["network"].update(kind="resnet18", width=2**15),
        lambda d, t: d["network"].update(kind="vit"),
        lambda d, t: d["network"].update(kind="mlp_vis"),
        lambda d, t: d["network"].update(shape=[1, 8, 8]),
        lambda d, t: d["network"].update(shape=[3, 8]),
        lambda d, t: d["network"].update(width=None),
        lambda d, t: d["network"].pop("kind"),
        lambda d, t: d.update(network={"n_inputs": 192, "n_outputs": 2, "widths": [8]}),
        lambda d, t: d.update(estimator="TicketClassifier"),
        lambda d, t: d.update(classes={"dtype": "<i8", "values": [0, 1, 2]}),
        lambda d, t: t["member-0/encoder.0.std"].zero_(),
        lambda d, t: t["member-0/encoder.0.std"].neg_(),
        lambda d, t: t["member-0/encoder.0.std"].fill_(float("nan")),
        lambda d, t: t.pop("member-0/encoder.0.mean"),
    ],
)
def test_descriptions_that_cannot_be(folder, change):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    edit(folder, change)
    with pytest.raises(InputError) as caught:
        sc.load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize("seed", range(2))
def test_random_damage_with_a_fitting_checksum(folder, original, seed):
    draw = random.Random(seed)
    X, _ = images(4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    n_refused = 0
    for _ in range(60):
        shutil.copytree(original, folder, dirs_exist_ok=True)

        def mutate(description, _tensors):
            part = draw.choice([description, description["network"], description["classes"]])
            part[draw.choice(sorted(part))] = draw.choice(JUNK)

        edit(folder, mutate)
        try:
            sc.load(folder).predict(X)
        except InputError:
            n_refused += 1
    assert n_refused > 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_tables_of_the_first_format_are_still_read(tmp_path):
    """A model of a table says no kind of network, as before there were others."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)), np.arange(60) % 2
    clf = sc.TicketClassifier(widths=(8,), search_epochs=1, finetune_epochs=7, random_state=0)
    clf.fit(X, y).save(tmp_path / "m")
    description = json.loads((tmp_path / "m" / DESCRIPTION).read_bytes())
    assert description["network"] == {"n_inputs": 4, "n_outputs": 2, "widths": [8]}
    assert np.array_equal(sc.load(tmp_path / "m").predict_proba(X), clf.predict_proba(X))
