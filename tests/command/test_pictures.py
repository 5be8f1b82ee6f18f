import numpy as np
import pytest
from PIL import Image

from secateurs import ImageTicketClassifier
from secateurs.command.pictures import asked_size, is_images, labelled, named, to_fit
from secateurs.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::secateurs.errors.CollapseWarning")

CLASSES = ("cat", "dog")


def picture(path, value, *, size=8, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (size, size), value if mode == "L" else (value,) * 3).save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    """20 grey images of each of two classes, dark and bright."""
    for label, name in enumerate(CLASSES):
        for i in range(20):
            picture(tmp_path / "photos" / name / f"{i:02d}.png", 40 + 150 * label + i)
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of grey 8 x 8 images; what it learnt does not matter."""
    X = np.random.default_rng(0).integers(256, size=(20, 8, 8), dtype=np.uint8)
    clf = ImageTicketClassifier(
        width=1, contrastive_weight=0, search_epochs=1, finetune_epochs=1, random_state=0
    )
    clf.fit(X, np.array(CLASSES)[np.arange(20) % 2])
    return clf


def test_which_words_are_images(photos, tmp_path):
    assert is_images(str(photos))
    assert is_images("svhn")
    assert is_images("cifar-10-python.tar.gz")
    assert not is_images(str(tmp_path / "table.csv"))
    assert not is_images("sklearn:digits")
    assert not is_images("nowhere")


def test_a_folder_is_its_classes_without_a_test_part(photos):
    found = to_fit(str(photos), size=None)
    assert (found.name, found.test) == ("photos", None)
    assert found.x.shape == (40, 1, 8, 8)
    assert found.y.tolist() == ["cat"] * 20 + ["dog"] * 20
    assert [int(x.max()) > 150 for x in found.x] == [name == "dog" for name in found.y]


def test_a_test_part_is_held_back(photos, tmp_path):
    photos.rename(tmp_path / "train")
    picture(tmp_path / "all" / "test" / "dog" / "a.png", 9)
    (tmp_path / "train").rename(tmp_path / "all" / "train")
    found = to_fit(str(tmp_path / "all"), size=None)
    assert len(found.x) == 40
    x, y = found.test
    assert (int(x.max()), y.tolist()) == (9, ["dog"])


def test_classes_of_the_test_part_alone_are_refused(tmp_path):
    x = np.zeros((4, 8, 8), np.uint8)
    np.savez(
        tmp_path / "a.npz", x_train=x, y_train=[0, 1, 0, 1], x_test=x[:1], y_test=np.array([2])
    )
    with pytest.raises(InputError, match="got '2'"):
        to_fit(str(tmp_path / "a.npz"), size=None)


def test_images_are_brought_to_a_size(photos):
    picture(photos / "cat" / "large.png", 50, size=30)
    with pytest.raises(InputError, match=r"large\.png"):
        to_fit(str(photos), size=None)
    assert to_fit(str(photos), size=6).x.shape == (41, 1, 6, 6)


def test_new_images_are_named_by_their_path_and_need_no_class(photos, model):
    picture(photos / "loose.png", 7)
    picture(photos / ".hidden" / "a.png", 7)
    picture(photos / "cat" / "deeper" / "b.png", 7)
    (photos / "notes.txt").write_text("no image")
    names, x = named(model, str(photos))
    assert names == sorted(names)
    assert len(names) == len(x) == 42
    assert {"loose.png", "cat/00.png", "cat/deeper/b.png"} < set(names)
    assert int(x[names.index("loose.png")].max()) == 7
    assert named(model, str(photos / "dog" / "00.png"))[0] == ["00.png"]


def test_new_images_of_a_model_that_resized_are_resized(photos, model):
    picture(photos / "cat" / "large.png", 50, size=30)
    with pytest.raises(InputError, match=r"large\.png"):
        named(model, str(photos))
    model.summary_["resized_to"] = 8
    try:
        assert asked_size(model) == 8
        _, x = named(model, str(photos))
        assert x.shape == (41, 1, 8, 8)
        assert labelled(model, str(photos))[1].shape == (41, 1, 8, 8)
        for other in (9, "8", True):  # a model.json may say anything
            model.summary_["resized_to"] = other
            assert asked_size(model) is None
    finally:
        del model.summary_["resized_to"]


def test_a_folder_without_images(tmp_path, model):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match="has none"):
        named(model, str(tmp_path))


def test_a_damaged_image_is_named(photos, model):
    (photos / "cat" / "03.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    for read in (named, labelled):
        with pytest.raises(InputError, match=r"cat/03\.png"):
            read(model, str(photos))


def test_labels_are_the_models_classes_whatever_their_order(photos, model):
    part, x, y = labelled(model, str(photos / ".." / "photos"))
    assert (part, len(x)) == ("all", 40)
    assert y.tolist() == ["cat"] * 20 + ["dog"] * 20
    (photos / "dog").rename(photos / "wolf")
    with pytest.raises(InputError, match=r"cat, dog.*'wolf'"):
        labelled(model, str(photos))
