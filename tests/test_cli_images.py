"""`secateurs fit`, `predict` and `evaluate` on images, as people run them."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from secateurs import load
from secateurs.cli import main
from secateurs.command import comparison

NAMES = ("zero", "one", "two", "three")
TINY = ["--set", "width=2", "--set", "view=crop", "--set", "search_epochs=2"]
TINY += ["--set", "finetune_epochs=6"]


def run(*words):
    return main([str(word) for word in words])


def assert_one_error(capsys, *words):
    err = capsys.readouterr().err
    assert err.startswith("secateurs: error: "), err
    assert err.count("\n") == 1, err
    for word in words:
        assert word in err


def write_digits(folder, *, parts=False):
    """Write the digits 0 to 3 as one PNG each, in a folder for each."""
    found = load_digits(n_class=4)
    for i, (image, label) in enumerate(zip(found.images, found.target, strict=True)):
        part = folder / ("test" if i % 5 == 0 else "train") if parts else folder
        path = part / NAMES[label] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(image * (255 / 16)).astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def parted(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("parted"), parts=True)


@pytest.fixture(scope="module")
def model(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("model") / "m"
    assert run("fit", photos, "--out", out, "--quiet", *TINY) == 0
    return out


def test_fit_predict_evaluate(model, photos, tmp_path, capsys):
    assert run("predict", model, photos, "--out", tmp_path / "p.csv") == 0
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "prediction", *(f"proba_{name}" for name in sorted(NAMES))]
    assert len(rows) == 720
    for row in rows:
        probabilities = {name: float(row[f"proba_{name}"]) for name in NAMES}
        assert row["prediction"] == max(probabilities, key=probabilities.get)
    right = np.mean([row["file"].split("/")[0] == row["prediction"] for row in rows])
    assert right > 0.8
    capsys.readouterr()
    assert run("evaluate", model, photos, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["part"], told["rows"]) == ("all", 720)
    assert told["accuracy"] == pytest.approx(right)
    assert run("evaluate", model, photos) == 0
    assert "majority accuracy" in capsys.readouterr().out


def test_what_is_in_the_folder(model, photos):
    assert {path.name for path in model.iterdir()} == {
        "model.json", "weights.safetensors", "history.json", "report.html"
    }  # fmt: skip
    page = (model / "report.html").read_text()
    assert "NEW_IMAGES" in page
    assert "Density by layer" in page
    summary = load(model).summary_
    assert summary["data"] == photos.name
    assert str(photos.parent) not in (model / "model.json").read_text()


def test_the_same_command_gives_the_same_model(photos, tmp_path, model):
    assert run("fit", photos, "--out", tmp_path / "m", "--quiet", *TINY) == 0
    one, other = (
        (folder / "weights.safetensors").read_bytes() for folder in (model, tmp_path / "m")
    )
    assert one == other


def test_a_test_part_is_what_is_measured(parted, tmp_path, capsys):
    out = tmp_path / "m"
    assert run("fit", parted, "--out", out, "--compare", *TINY) == 0
    told = capsys.readouterr()
    assert "144 held-out rows, 576 training rows" in told.out
    assert "fitting the model to ship" not in told.out
    for name in ("majority class", "logistic regression", "dense cnn(2)", "IUNet cnn(2), r=8"):
        assert name in told.out
    found = json.loads((out / "comparison.json").read_bytes())
    assert run("evaluate", out, parted, "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["part"], scores["rows"]) == ("test", 144)
    assert scores["accuracy"] == found["models"][-1]["scores"]["accuracy"]
    assert load(out).summary_["rows"] == 576
    assert load(out).summary_["seconds"] > 0.01


def test_a_comparison_without_a_test_part_holds_out_a_fifth(photos, tmp_path, capsys):
    out = tmp_path / "m"
    assert run("fit", photos, "--out", out, "--compare", "--set", "compression=1", *TINY[:4],
               "--set", "finetune_epochs=2") == 0  # fmt: skip
    told = capsys.readouterr().out
    assert "144 held-out rows, 576 training rows" in told
    assert "fitting the model to ship on all 720 rows" in told
    assert "IUNet" not in told
    assert load(out).summary_["rows"] == 720


def test_a_size_is_kept_for_prediction(photos, tmp_path):
    out = tmp_path / "m"
    words = ["--size", "6", "--set", "network=lenet_300_100", "--set", "view=crop"]
    words += ["--set", "search_epochs=1", "--set", "finetune_epochs=2"]
    assert run("fit", photos, "--out", out, "--quiet", *words) == 0
    assert load(out).image_shape_ == (1, 6, 6)
    assert "Weight from pixels to classes" in (out / "report.html").read_text()
    Image.new("L", (31, 17)).save(tmp_path / "odd.png")
    assert run("predict", out, tmp_path / "odd.png", "--out", tmp_path / "p.csv") == 0
    assert (tmp_path / "p.csv").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--target", "y"), "--target"),
        (("--task", "regression"), "--task"),
        (("--set", "widths=3"), "did you mean 'width'"),
        (("--set", "network=vit"), "one of cnn"),
        (("--set", "compression=auto"), "compression"),
        (("--set", "view=null"), "contrastive_weight=0"),
        (("--size", "0"), "size must be"),
        (("--set", "compression=1000000"), "at most"),
    ],
)
def test_bad_words(words, told, photos, tmp_path, capsys):
    assert run("fit", photos, "--out", tmp_path / "m", "--quiet", *words) == 2
    assert_one_error(capsys, told)
    assert not list(tmp_path.iterdir())


def test_bad_images(model, tmp_path, capsys):
    def refused(*words, told):
        assert run(*words, "--out", tmp_path / "p.csv") == 2
        assert_one_error(capsys, told)

    (tmp_path / "empty").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "rgb.png")
    Image.new("L", (9, 8)).save(tmp_path / "wide.png")
    noise = np.random.default_rng(0).integers(256, size=(8, 8), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:70])
    refused("fit", tmp_path / "empty", told="empty")
    refused("predict", model, tmp_path / "empty", told="has none")
    refused("predict", model, tmp_path / "nowhere", told="there is no")
    refused("predict", model, tmp_path / "rgb.png", told="8 x 8 with 3 channels")
    refused("predict", model, tmp_path / "wide.png", told="got 8 x 9 with 1 channel")
    refused("predict", model, tmp_path / "cut.png", told="cut.png")
    refused("predict", model, "sklearn:iris", told="model is one of images")
    refused("fit", "sklearn:iris", "--size", "3", told="--size is for images")
    assert run("evaluate", model, tmp_path) == 2
    assert_one_error(capsys, "images")


def test_a_table_model_refuses_images(photos, tmp_path, capsys):
    words = ["--set", "widths=[8]", "--set", "search_epochs=1", "--set", "finetune_epochs=3"]
    assert run("fit", "sklearn:iris", "--out", tmp_path / "m", "--quiet", *words) == 0
    for verb, more in (("predict", ["--out", tmp_path / "p.csv"]), ("evaluate", [])):
        assert run(verb, tmp_path / "m", photos, *more) == 2
        assert_one_error(capsys, "model is one of tables")


def test_work_on_other_images_is_left_alone(photos, tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    words = ["fit", photos, "--out", tmp_path / "m", "--quiet", "--compare", *TINY]
    with monkeypatch.context() as patch:
        patch.setattr(comparison._Models, "linear", stop)
        assert run(*words) == 130
    capsys.readouterr()
    other = write_digits(tmp_path / "other")
    image = next((other / "one").iterdir())
    Image.fromarray(255 - np.asarray(Image.open(image))).save(image)
    assert run("fit", other, *words[2:]) == 2
    assert_one_error(capsys, "other data")
    assert run(*words) == 0


def test_a_killed_fit_continues_to_the_same_model(model, photos, tmp_path):
    out = tmp_path / "m"
    words = ["fit", str(photos), "--out", str(out), *TINY]
    sign = tmp_path / "m.partial" / "model" / "search.safetensors"
    process = subprocess.Popen(
        [sys.executable, "-m", "secateurs", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    end = time.monotonic() + 100
    while not sign.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert sign.exists()
    assert run(*words) == 0
    one, other = ((folder / "weights.safetensors").read_bytes() for folder in (model, out))
    assert one == other
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
