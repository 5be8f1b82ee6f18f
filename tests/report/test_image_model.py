import numpy as np
import pytest

import secateurs as sc
from secateurs import ImageTicketClassifier
from secateurs.report.image_model import image_model_page
from secateurs.report.page import Table

pytestmark = pytest.mark.filterwarnings("ignore::secateurs.errors.CollapseWarning")


def fitted(names=("dark", "bright"), n=40, **settings):
    given = {"view": "crop", "search_epochs": 1, "finetune_epochs": 2, "random_state": 0}
    y = np.arange(n) % len(names)
    X = (
        np.random.default_rng(0).integers(100, size=(n, 3, 8, 8))
        + 60 * (y % 2)[:, None, None, None]
    )
    return ImageTicketClassifier(**given | settings).fit(X.astype(np.uint8), np.array(names)[y])


@pytest.fixture(scope="module")
def model():
    return fitted(width=1)


def test_the_same_model_gives_the_same_page(model, tmp_path):
    model.save(tmp_path / "m")
    page = image_model_page(model, command="predict so")
    assert page == image_model_page(sc.load(tmp_path / "m"), command="predict so")
    assert "predict so" in page


def test_what_a_page_says(model):
    page = image_model_page(model)
    for words in ("40", "8 x 8, 3 channels", "cnn(1)", "crop", "Density by layer", "NEW_IMAGES"):
        assert words in page
    assert "Weight from pixels to classes" not in page  # the paths of convolutions are not drawn
    assert "Structure card" not in page


def test_fully_connected_networks_show_where_they_look():
    for network in ("mlp_vis", "lenet_300_100"):
        width = 1 if network == "mlp_vis" else None
        page = image_model_page(fitted(network=network, width=width))
        assert "Weight from pixels to classes" in page
        assert "First layer" in page
        assert page.count("<image") == 2 + 10  # classes, units


def test_a_dense_model_has_no_mask():
    page = image_model_page(fitted(width=1, compression=1))
    assert "dense network" in page
    assert "Density by layer" not in page


def test_a_comparison_and_a_size_are_told(model):
    model.summary_ |= {"data": "my <photos>", "resized_to": 8}
    try:
        table = Table(title="Models", columns=["model"], rows=[["majority class"]])
        page = image_model_page(model, comparison=table, size=12345)
    finally:
        del model.summary_["data"], model.summary_["resized_to"]
    for words in ("majority class", "12,345", "resized", "my &lt;photos&gt;"):
        assert words in page


def test_names_of_classes_are_no_markup():
    names = ("<b>", "a\x00\ud800", *(f"class {i}" for i in range(20)))
    page = image_model_page(fitted(names, n=66, network="lenet_300_100"))
    assert "<b>" not in page
    assert "2 more" in page
