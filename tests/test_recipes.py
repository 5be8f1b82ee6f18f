from dataclasses import fields, replace

import pytest

from secateurs import recipes
from secateurs.errors import InputError
from secateurs.recipes import PRESETS, REGIMES, Recipe, resolve

SMALL = 500


def test_nothing_given_is_the_default_preset():
    assert resolve(SMALL, preset=None, regime=None, given={}) == PRESETS["default"]
    assert resolve(SMALL, preset="default", regime=None, given={}) == PRESETS["default"]


def test_the_paper_preset_is_the_papers_recipe_and_never_adapts():
    paper = resolve(10**7, preset="paper", regime=None, given={})
    assert paper.widths == (512,) * 9
    assert (paper.search_epochs, paper.finetune_epochs, paper.batch_size) == (105, 105, 128)
    assert (paper.search_lr, paper.init_scale) == (1e-3, 0.25)


@pytest.mark.parametrize("preset", [None, "default", "paper"])
@pytest.mark.parametrize("regime", sorted(REGIMES))
def test_a_regime_wins_over_the_preset(preset, regime):
    recipe = resolve(SMALL, preset=preset, regime=regime, given={})
    assert {name: getattr(recipe, name) for name in REGIMES[regime]} == REGIMES[regime]
    assert recipe.widths == PRESETS[preset or "default"].widths


@pytest.mark.parametrize("preset", [None, "paper"])
@pytest.mark.parametrize(
    ("regime", "target"), [("auto", recipes.AUTO_MOVEMENT), (0.3, 0.3), (2, 2.0)]
)
def test_a_target_leaves_the_rest_of_the_recipe_alone(preset, regime, target):
    plain = resolve(SMALL, preset=preset, regime=None, given={})
    found = resolve(SMALL, preset=preset, regime=regime, given={})
    assert plain.movement is None
    assert found == replace(plain, movement=target)


@pytest.mark.parametrize("regime", [0, -1.0, float("nan"), float("inf"), True])
def test_a_target_is_a_positive_number(regime):
    with pytest.raises(InputError, match="or a positive number"):
        resolve(SMALL, preset=None, regime=regime, given={})


@pytest.mark.parametrize("preset", [None, "paper"])
@pytest.mark.parametrize("n_rows", [SMALL, 10**6])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("widths", (7, 5)),
        ("search_epochs", 999),
        ("finetune_epochs", 1),
        ("search_lr", 0.5),
        ("batch_size", 16),
        ("init_scale", 1.0),
    ],
)
def test_what_is_given_wins_over_everything_and_changes_nothing_else(preset, n_rows, name, value):
    open_ = resolve(n_rows, preset=preset, regime=None, given={name: None})
    recipe = resolve(n_rows, preset=preset, regime=None, given={name: value})
    assert getattr(recipe, name) == value
    others = [f.name for f in fields(Recipe) if f.name != name]
    assert [getattr(recipe, other) for other in others] == [getattr(open_, o) for o in others]


def test_no_epochs_is_a_value_and_not_an_open_one():
    assert resolve(SMALL, preset=None, regime=None, given={"search_epochs": 0}).search_epochs == 0


def test_larger_tables_never_get_more_epochs_or_smaller_batches():
    sizes = [2, 100, 5_000, 8_192, 8_193, 20_000, 48_000, 10**5, 10**6, 10**8]
    found = [resolve(n, preset=None, regime=None, given={}) for n in sizes]
    epochs = [(r.search_epochs, r.finetune_epochs) for r in found]
    batches = [r.batch_size for r in found]
    assert epochs == sorted(epochs, reverse=True)
    assert batches == sorted(batches)
    assert epochs[0] == (PRESETS["default"].search_epochs, PRESETS["default"].finetune_epochs)
    assert epochs[-1] == (recipes.MIN_EPOCHS,) * 2
    assert (batches[0], batches[-1]) == (128, 1024)


def test_the_work_of_a_large_table_is_bounded():
    for n in (20_000, 40_000, 60_000):
        recipe = resolve(n, preset=None, regime=None, given={})
        assert recipe.search_epochs * n <= recipes.ROW_EPOCHS


@pytest.mark.parametrize("name", ["preset", "regime"])
def test_unknown_names_list_the_valid_ones(name):
    options = {"preset": None, "regime": None, name: "rch"}
    valid = ", ".join(PRESETS) if name == "preset" else "rich, lazy, auto, or a positive number .*"
    with pytest.raises(InputError, match=f"{name} must be None or one of {valid}, got 'rch'"):
        resolve(SMALL, given={}, **options)


def test_a_regime_beside_its_learning_rate_is_refused():
    with pytest.raises(InputError, match="regime='rich' sets search_lr"):
        resolve(SMALL, preset=None, regime="rich", given={"search_lr": 0.1})
