import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError

import secateurs as sc
from secateurs import ImageTicketClassifier, image_classifier
from secateurs.data.image_views import random_resized_crop
from secateurs.data.images import statistics
from secateurs.errors import CollapseWarning, InputError, TimeLimitWarning
from secateurs.networks.image_network import IMAGE_NETWORKS
from secateurs.networks.pixels import Normalise

TINY = {"width": 1, "view": "crop", "search_epochs": 1, "finetune_epochs": 1, "random_state": 0}

pytestmark = pytest.mark.filterwarnings("ignore::secateurs.errors.CollapseWarning")


def digits(n=None):
    found = load_digits()
    X = np.rint(found.images * (255 / 16)).astype(np.uint8)[:n]
    return X, found.target[:n]


def colours(n=48, size=8, seed=0):
    """Return noisy images that are red, green or blue, and which."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    X = rng.integers(0, 90, (n, 3, size, size))
    X[np.arange(n), y] += 120
    return X.astype(np.uint8), np.array(["red", "green", "blue"])[y]


@pytest.fixture(scope="module")
def fitted():
    return ImageTicketClassifier(**TINY).fit(*colours())


# Learning


def test_learns_digits():
    X, y = digits()
    clf = ImageTicketClassifier(
        width=4, view="crop", search_epochs=4, finetune_epochs=10, random_state=0
    ).fit(X[:1300], y[:1300])
    assert clf.score(X[1300:], y[1300:]) > 0.8
    assert clf.summary_["n_classes_predicted"] == 10


def test_learns_colours(fitted):
    X, y = colours(seed=1)
    clf = ImageTicketClassifier(**TINY | {"width": 2, "finetune_epochs": 15}).fit(*colours(200))
    assert clf.score(X, y) == 1
    assert clf.classes_.tolist() == ["blue", "green", "red"]


@pytest.mark.parametrize("network", IMAGE_NETWORKS)
def test_every_network_is_fitted_pruned_and_saved(network, tmp_path):
    X, y = colours()
    width = {"resnet18": 4, "lenet_300_100": None}.get(network, 1)
    clf = ImageTicketClassifier(**TINY | {"network": network, "width": width}).fit(X, y)
    assert clf.density_ == pytest.approx(1 / 8, abs=1e-2)
    state = clf.members_[0].state_dict()
    kept = sum(int((state[name] != 0).sum()) for name in clf.masks_[0])
    assert kept == sum(int(mask.sum()) for mask in clf.masks_[0].values())
    clf.save(tmp_path / "m")
    again = sc.load(tmp_path / "m")
    assert np.array_equal(again.predict_proba(X), clf.predict_proba(X))
    assert again.summary_ == clf.summary_
    assert again.get_params() == clf.get_params()
    assert (again.image_shape_, again.n_features_in_) == ((3, 8, 8), 192)
    pd.testing.assert_frame_equal(again.history_, clf.history_)


def test_dense_has_no_search():
    clf = ImageTicketClassifier(**TINY | {"compression": 1}).fit(*colours())
    assert clf.density_ == 1
    assert set(clf.history_["phase"]) == {"finetune"}


def test_pixels_are_normalised_by_the_training_rows_alone():
    X, y = colours(90)
    clf = ImageTicketClassifier(**TINY, val_fraction=0.3).fit(X, y)
    watched = ImageTicketClassifier(**TINY).fit(X, y, X_val=255 - X, y_val=y)
    (pixels,) = (m for m in watched.members_[0].modules() if isinstance(m, Normalise))
    mean, std = statistics(X)
    assert pixels.mean.flatten().tolist() == pytest.approx(mean)
    assert pixels.std.flatten().tolist() == pytest.approx(std)
    assert clf.summary_["rows"] == 63
    for model in (clf, watched):
        assert model.history_["validation_loss"].notna().all()


def test_validation_rows_are_watched_only():
    X, y = colours()
    plain = ImageTicketClassifier(**TINY).fit(X, y)
    watched = ImageTicketClassifier(**TINY).fit(X, y, X_val=255 - X, y_val=y)
    assert np.array_equal(plain.predict_proba(X), watched.predict_proba(X))


# Views


def test_a_view_by_name_is_the_callable(fitted):
    own = ImageTicketClassifier(**TINY | {"view": random_resized_crop()}).fit(*colours())
    X, _ = colours(seed=1)
    assert np.array_equal(own.predict_proba(X), fitted.predict_proba(X))


def test_without_contrastive_weight_no_view_is_drawn():
    def never(x, generator):
        raise AssertionError

    X, y = colours()
    one = ImageTicketClassifier(**TINY | {"view": never, "contrastive_weight": 0}).fit(X, y)
    other = ImageTicketClassifier(**TINY | {"view": None, "contrastive_weight": 0}).fit(X, y)
    assert np.array_equal(one.predict_proba(X), other.predict_proba(X))
    assert "contrastive" not in one.history_


def test_views_see_pixels_in_0_255():
    seen = []

    def spy(x, generator):
        seen.append((x.dtype, int(x.max()), tuple(x.shape[1:])))
        return x.float()

    ImageTicketClassifier(**TINY | {"view": spy}).fit(*colours())
    assert set(seen) == {(torch.uint8, seen[0][1], (3, 8, 8))}
    assert seen[0][1] > 100


# What comes in


def test_containers_and_layouts_give_the_same(fitted):
    X, _ = colours(seed=1)
    expected = fitted.predict_proba(X)
    read_only = X.copy()
    read_only.setflags(write=False)
    for one in (
        X.astype(np.int64),
        X.tolist(),
        torch.from_numpy(X),
        read_only,
        np.asfortranarray(X),
        np.moveaxis(X, 1, 3),
        X[::-1][::-1],
    ):
        assert np.array_equal(fitted.predict_proba(one), expected)


def test_grey_images_need_no_channel():
    X, y = digits(100)
    flat = ImageTicketClassifier(**TINY).fit(X, y)
    deep = ImageTicketClassifier(**TINY).fit(X[:, None], y)
    assert flat.image_shape_ == (1, 8, 8)
    assert np.array_equal(flat.predict_proba(X), deep.predict_proba(X[:, None]))


def test_the_users_arrays_are_left_alone():
    X, y = colours()
    before = X.copy()
    ImageTicketClassifier(**TINY).fit(X, y)
    assert np.array_equal(X, before)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda X: X / 255, r"whole numbers in 0..255, got float64 in 0.*astype"),
        (lambda X: X.astype(int) + 200, r"0..255, got int64 in 200..4"),
        (lambda X: X.astype(int) - 1, r"0..255, got int64 in -1.."),
        (lambda X: X > 9, r"0..255, got bool"),
        (lambda X: X.astype(str), r"0..255, got <U"),
        (lambda X: X.reshape(len(X), -1), r"got shape \(48, 192\)"),
        (lambda X: np.zeros((48, 6, 8, 8), np.uint8), r"got shape \(48, 6, 8, 8\)"),
        (lambda X: X[:0], "at least one image, got 0"),
        (lambda X: X[:, :, :0], "got shape"),
        (lambda X: [*X[:-1], X[-1, :, :4]], "one size and channel count"),
        (lambda X: None, "X"),
        (lambda X: X[:-1], "equal length"),
    ],
)
def test_what_is_no_batch_of_images(change, told):
    X, y = colours()
    with pytest.raises(InputError, match=told) as caught:
        ImageTicketClassifier(**TINY).fit(change(X), y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("X", "told"),
    [
        (np.zeros((2, 3, 9, 8), np.uint8), "must be 8 x 8 with 3 channels.*got 9 x 8 with 3"),
        (np.zeros((2, 8, 8), np.uint8), "must be 8 x 8 with 3 channels.*got 8 x 8 with 1 channel;"),
        (np.zeros((2, 3, 8, 8)), "whole numbers"),
    ],
)
def test_other_images_at_prediction_are_one_line(fitted, X, told):
    for method in (fitted.predict, fitted.predict_proba):
        with pytest.raises(InputError, match=told):
            method(X)


def test_labels_that_cannot_be_used(fitted):
    X, y = colours()
    with pytest.raises(InputError, match="2 classes, got one class: 'red'"):
        ImageTicketClassifier(**TINY).fit(X, np.full(len(X), "red"))
    with pytest.raises(InputError, match="also"):
        ImageTicketClassifier(**TINY).fit(X, y, X_val=X, y_val=np.full(len(X), "pink"))
    with pytest.raises(InputError, match="need each other"):
        ImageTicketClassifier(**TINY).fit(X, y, X_val=X)
    with pytest.raises(InputError, match="4 x 4 with 3 channels in X_val"):
        ImageTicketClassifier(**TINY).fit(X, y, X_val=X[:, :, :4, :4], y_val=y)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"compression": 0.5}, "compression must be"),
        ({"compression": "auto"}, "compression must be a number"),
        ({"compression": None}, "compression must be"),
        ({"compression": 1e9}, "at least 1 weight in each"),
        ({"network": "vit"}, "network must be one of cnn"),
        ({"network": None}, "network must be one of cnn"),
        ({"width": 0}, "width must be"),
        ({"width": 1.5}, "width must be"),
        ({"network": "lenet_300_100", "width": 2}, "one size"),
        ({"network": "mlp_vis", "width": 10**6}, "smaller width"),
        ({"view": None}, "view must be"),
        ({"view": "swirl"}, "one of simclr, crop"),
        ({"view": 3}, "view must be"),
        ({"search_lr": 0}, "search_lr must be"),
        ({"finetune_lr": -1}, "finetune_lr must be"),
        ({"batch_size": 1}, "batch_size must be"),
        ({"batch_size": None}, "batch_size must be"),
        ({"criterion": "size"}, "criterion must be"),
        ({"rewind": "home"}, "rewind must be"),
        ({"precision": "fp8"}, "precision must be"),
        ({"val_fraction": 1}, "val_fraction must be"),
        ({"val_fraction": 0.01}, "val_fraction=0.01 cannot"),
        ({"checkpoint_dir": "x", "random_state": None}, "integer random_state"),
        ({"time_limit": 0}, "time_limit must be"),
    ],
)
def test_invalid_values_are_refused_before_training(setting, told, monkeypatch):
    def never(*_, **__):
        raise AssertionError

    if "compression" not in setting or setting["compression"] != 1e9:
        monkeypatch.setattr(image_classifier, "find_ticket", never)
    with pytest.raises(InputError, match=told) as caught:
        ImageTicketClassifier(**TINY | setting).fit(*colours())
    assert "\n" not in str(caught.value)


def test_views_of_colours_refuse_other_channels_in_one_line():
    X = np.zeros((20, 2, 8, 8), np.uint8)
    with pytest.raises(InputError, match="channel"):
        ImageTicketClassifier(**TINY | {"view": "simclr"}).fit(X, np.arange(20) % 2)


# scikit-learn


def test_clone_is_not_fitted_and_fits_the_same(fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params() == ImageTicketClassifier(**TINY).get_params()
    X, y = colours()
    with pytest.raises(NotFittedError):
        copy.predict(X)
    assert np.array_equal(copy.fit(X, y).predict_proba(X), fitted.predict_proba(X))


def test_pickle(fitted):
    X, _ = colours()
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.parametrize("labels", [np.arange(48) % 3 - 1, np.arange(48) % 2 == 0])
def test_labels_of_every_type(labels, tmp_path):
    X, _ = colours()
    clf = ImageTicketClassifier(**TINY).fit(X, labels)
    clf.save(tmp_path / "m")
    for model in (clf, sc.load(tmp_path / "m")):
        assert model.classes_.tolist() == np.unique(labels).tolist()
        assert model.predict(X).dtype == labels.dtype


def test_failed_fit_leaves_no_half_of_two_models(monkeypatch):
    clf = ImageTicketClassifier(**TINY).fit(*colours())

    def fail(*_, **__):
        raise InputError("stopped")

    monkeypatch.setattr(image_classifier, "find_ticket", fail)
    with pytest.raises(InputError, match="stopped"):
        clf.fit(*digits(50))
    with pytest.raises(NotFittedError):
        clf.predict(colours()[0])


def test_predictions_do_not_depend_on_the_company(fitted):
    X, _ = colours(300, seed=1)
    whole = fitted.predict_proba(X)
    assert np.array_equal(fitted.predict_proba(X[7:8]), whole[7:8])


def test_html_shows_the_summary(fitted):
    assert "weight movement" in fitted._repr_html_()


# Warnings, time, resuming


@pytest.mark.filterwarnings("default::secateurs.errors.CollapseWarning")
def test_collapse_warns_at_the_call_of_fit():
    X, y = colours()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ImageTicketClassifier(**TINY | {"finetune_lr": 1e-9, "finetune_epochs": 1}).fit(X, y)
    found = [one for one in caught if one.category is CollapseWarning]
    assert all(one.filename == __file__ for one in caught)
    assert len(found) == 1
    assert "one of 3 classes" in str(found[0].message)


def test_tiny_time_limit_ends_after_an_epoch_of_each_phase():
    with pytest.warns(TimeLimitWarning, match="1 search and 1 finetuning"):
        clf = ImageTicketClassifier(
            **TINY | {"time_limit": 1e-6, "search_epochs": 40, "finetune_epochs": 40}
        ).fit(*colours())
    assert not clf.summary_["complete"]


def test_interrupted_fit_resumes_to_the_bit(tmp_path, monkeypatch):
    X, y = colours()
    settings = TINY | {"search_epochs": 2, "finetune_epochs": 3}
    whole = ImageTicketClassifier(**settings).fit(X, y)
    monkeypatch.setattr("secateurs.training.CHECKPOINT_SECONDS", 0.0)
    progress = image_classifier.PhaseProgress

    class Interrupting(progress):
        def __call__(self, row, epochs):
            if row["phase"] == "finetune" and row["epoch"] == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(image_classifier, "PhaseProgress", Interrupting)
    cut = ImageTicketClassifier(**settings, checkpoint_dir=tmp_path, verbose=1)
    with pytest.raises(KeyboardInterrupt):
        cut.fit(X, y)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    monkeypatch.setattr(image_classifier, "PhaseProgress", progress)
    again = ImageTicketClassifier(**settings, checkpoint_dir=tmp_path).fit(X, y)
    assert np.array_equal(again.predict_proba(X), whole.predict_proba(X))
    columns = ["phase", "epoch", "loss"]
    pd.testing.assert_frame_equal(again.history_[columns], whole.history_[columns])
    with pytest.raises(InputError, match="other data or settings"):
        ImageTicketClassifier(**settings, checkpoint_dir=tmp_path).fit(255 - X, y)


def test_global_state_is_left_alone():
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    ImageTicketClassifier(**TINY).fit(*colours())
    after = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]
