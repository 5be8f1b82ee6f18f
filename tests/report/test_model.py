import copy
import re

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_diabetes, load_iris

from reference import structure as twin
from secateurs.estimator import TicketClassifier, TicketRegressor
from secateurs.loading import load
from secateurs.measures.structure import column_share, live_neurons, shuffled
from secateurs.preparation import groups
from secateurs.report.card import structure
from secateurs.report.model import model_page, regime_line
from secateurs.report.page import Table

FIRST = "encoder.0.weight"
TINY = {"widths": (16, 16), "search_epochs": 2, "finetune_epochs": 7, "random_state": 0}


def mixed(n=80):
    """Return a table with two numbers and two columns of categories, and a target."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "size": rng.normal(size=n),
            "colour": rng.choice(["red", "green", "blue", None], n),
            "kind": rng.choice(list("abcdefgh"), n),
            "age": rng.integers(0, 99, n),
        }
    )
    return X, np.where(X["size"] + (X["colour"] == "red") > 0, "yes", "no")


def iris():
    return load_iris(return_X_y=True, as_frame=True)


def numbers(columns, n=40):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(n, columns)), columns=[f"c{i}" for i in range(columns)])
    return X, (X["c0"] > 0).astype(int)


CASES = {
    "classifier": lambda: TicketClassifier(**TINY).fit(*iris()),
    "regressor": lambda: TicketRegressor(**TINY).fit(*load_diabetes(return_X_y=True)),
    "dense": lambda: TicketClassifier(1, **TINY).fit(*iris()),
    "dense regressor": lambda: TicketRegressor(1, **TINY).fit(*load_diabetes(return_X_y=True)),
    "tickets": lambda: TicketClassifier(n_tickets=2, snapshots=2, **TINY).fit(*iris()),
    "watched": lambda: TicketClassifier(val_fraction=0.2, **TINY).fit(*iris()),
    "categories": lambda: TicketClassifier(2, n_tickets=2, **TINY).fit(*mixed()),
    "one column": lambda: TicketRegressor(2, **TINY).fit(*numbers(1)),
    "two columns": lambda: TicketClassifier(**TINY).fit(*numbers(2)),
    "many columns": lambda: TicketClassifier(**TINY).fit(*numbers(100)),
    "one layer": lambda: TicketClassifier(**TINY | {"widths": (8,)}).fit(*iris()),
    "one neuron": lambda: TicketClassifier(2, **TINY | {"widths": (1,)}).fit(*iris()),
    "an epoch": lambda: TicketClassifier(
        **TINY | {"search_epochs": 1, "finetune_epochs": 1}
    ).fit(*iris()),
    "no epoch": lambda: TicketClassifier(
        **TINY | {"search_epochs": 0, "finetune_epochs": 0}
    ).fit(*iris()),
    "plain loss": lambda: TicketClassifier(contrastive_weight=0, **TINY).fit(*iris()),
}  # fmt: skip


@pytest.fixture(scope="module")
def models():
    """Fitted models by case, each fitted once."""
    fitted = {}

    def get(case):
        if case not in fitted:
            fitted[case] = CASES[case]()
        return fitted[case]

    return get


@pytest.fixture(scope="module")
def planted():
    """Two tickets of a target that is the sign of x0 * x1, among ten columns of noise."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(1500, 12)), columns=[f"x{i}" for i in range(12)])
    y = np.where(X["x0"] * X["x1"] > 0, "same", "other")
    return TicketClassifier(
        16,
        init_scale=0.1,
        widths=(64, 64),
        search_epochs=40,
        finetune_epochs=21,
        n_tickets=2,
        random_state=0,
    ).fit(X, y)


def reshaped(model, change):
    """Return a copy whose first layers are what `change` makes of weight and mask."""
    model = copy.deepcopy(model)
    for network, mask in zip(model.members_, model.masks_, strict=True):
        weight, mask[FIRST] = change(network.get_parameter(FIRST), mask[FIRST])
        network.get_parameter(FIRST).data = weight.where(mask[FIRST], 0.0)
    return model


# --- the card's numbers ----------------------------------------------------------------------


def test_what_was_planted_is_found(planted):
    found = structure(planted)
    foremost = np.argsort(-found.share)[:2]
    assert {found.columns[i] for i in foremost} == {"x0", "x1"}
    assert {"x1"} <= set(found.above) <= {"x0", "x1"}
    assert [pair.columns for pair in found.pairs] == [("x0", "x1")]
    assert found.pairs[0].lift > 1.5
    assert found.pairs[0].z == np.nanmax(np.triu(found.z)) > found.floor
    assert found.stability > found.stability_chance
    assert found.tickets == 2
    assert found.neurons == 128


@pytest.mark.parametrize("case", ["classifier", "categories", "tickets", "many columns"])
def test_numbers_are_those_of_a_slow_twin(case, models):
    model = models(case)
    found, spans = structure(model), groups(model.preparation_)
    last = {id(mask): (network, mask) for network, mask in
            zip(model.members_, model.masks_, strict=True)}.values()  # fmt: skip
    tickets = [(network.get_parameter(FIRST).tolist(), mask[FIRST]) for network, mask in last]
    assert found.tickets == len(tickets) == model.n_tickets
    shares = [twin.column_share(*ticket, spans, abs) for ticket in tickets]
    np.testing.assert_allclose(found.share, np.mean(shares, axis=0), atol=1e-12)
    reads = [one for ticket in tickets for one in twin.columns_read(*ticket, spans) if one]
    np.testing.assert_allclose(found.reads, np.sort(reads))
    assert len(found.reads) == found.live == sum(live_neurons(mask) for _, mask in tickets)
    assert found.kept == sum(int(mask.sum()) for _, mask in tickets)
    np.testing.assert_allclose(found.z, found.z.T, atol=1e-9)
    assert np.isnan(found.z.diagonal()).all()


def test_chance_is_the_mean_share_of_shuffled_masks(models):
    model = models("categories")
    spans = groups(model.preparation_)
    assert len({stop - start for start, stop in spans}) > 1
    generator = torch.Generator().manual_seed(0)
    ticket = model.members_[0].get_parameter(FIRST), model.masks_[0][FIRST]
    shares = [column_share(*shuffled(*ticket, generator=generator), spans) for _ in range(400)]
    chance = structure(model).chance
    np.testing.assert_allclose(np.mean(shares, axis=0), chance, atol=0.01)
    assert chance.sum() == pytest.approx(1)


def test_snapshots_are_not_counted_as_tickets(models):
    model = copy.deepcopy(models("tickets"))
    assert len(model.members_) == 4
    before = structure(model)
    for i in (0, 2):  # all but the last of each ticket
        model.members_[i].get_parameter(FIRST).data.fill_(1.0)
    assert (structure(model).share == before.share).all()
    model.members_[3].get_parameter(FIRST).data.fill_(1.0)
    assert (structure(model).share != before.share).any()


def test_a_dense_model_has_no_structure(models):
    assert structure(models("dense")) is None


def test_one_ticket_has_no_error_and_no_stability(models):
    found = structure(models("classifier"))
    assert found.error is None
    assert np.isnan([found.stability, found.stability_chance]).all()


def test_errors_are_those_of_the_mean_over_tickets(models):
    found = structure(models("tickets"))
    apart = found.error * 2  # of two tickets: half their distance, each way
    model = copy.deepcopy(models("tickets"))
    model.members_, model.masks_ = model.members_[:2], model.masks_[:2]
    first = structure(model).share
    np.testing.assert_allclose(np.abs(2 * (first - found.share)), apart, atol=1e-12)


def test_a_column_without_weights_is_unread(models):
    def without_first(weight, mask):
        mask = mask.clone()
        mask[:, 0] = False
        return weight, mask

    found = structure(reshaped(models("classifier"), without_first))
    assert found.unread == ["sepal length (cm)"]
    assert found.share[0] == 0


def test_columns_kept_against_chance_are_told(models):
    def first_and_never_last(weight, mask):
        mask = torch.rand(64, 100, generator=torch.Generator().manual_seed(0)) < 0.3
        mask[:, 7], mask[:, 99] = True, False
        return torch.ones(64, 100), mask

    found = structure(reshaped(models("many columns"), first_and_never_last))
    assert found.above == ["c7"]
    assert found.below == ["c99"]


def together(share):
    """Return what makes 200 neurons read each of 100 columns at random, but c8 with c55."""

    def change(weight, mask):
        generator = torch.Generator().manual_seed(0)
        mask = torch.rand(200, 100, generator=generator) < share
        mask[:, [8, 55]] = (torch.rand(200, 1, generator=generator) < 2 * share).expand(200, 2)
        return torch.randn(200, 100, generator=generator), mask

    return change


def test_a_pair_among_many_columns_is_found(models):
    found = structure(reshaped(models("many columns"), together(0.2)))
    assert len(found.paired) == 64
    assert [pair.columns for pair in found.pairs] == [("c8", "c55")]
    assert found.pairs[0].lift == pytest.approx(1 / 0.4, abs=0.5)


def test_pairs_that_hardly_meet_by_chance_are_not_looked_at(models):
    model = reshaped(models("many columns"), together(0.01))
    found = structure(model)
    assert np.isnan(found.z).all()
    assert np.isnan(found.floor)
    assert not found.pairs
    assert "Too little is kept" in model_page(model)


@pytest.mark.slow
def test_what_stands_out_by_chance_is_as_rare_as_told(models):
    """By 39 shuffles each, in one mask of 40."""
    model, n = models("many columns"), 100
    generator = torch.Generator().manual_seed(0)
    told = {"above": 0, "below": 0, "pairs": 0}
    spans = [(i, i + 1) for i in range(12)]
    for _ in range(n):
        narrow = copy.deepcopy(model)
        narrow.preparation_["columns"] = narrow.preparation_["columns"][:12]
        weight = torch.randn(64, 12, generator=generator)
        mask = torch.rand(64, 12, generator=generator) < torch.linspace(0.1, 0.5, 12)
        anywhere = shuffled(weight, mask, generator=generator)
        dealt = shuffled(weight, mask, generator=generator, within=spans)
        found = structure(reshaped(narrow, lambda *_, one=anywhere: one))
        told["above"] += bool(found.above)
        told["below"] += bool(found.below)
        told["pairs"] += bool(structure(reshaped(narrow, lambda *_, one=dealt: one)).pairs)
    assert max(told.values()) <= 8, told  # more than 8 of 100 has a chance of .001


# --- the page --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_every_model_has_a_page(case, models):
    model = models(case)
    page = model_page(model)
    assert (
        page.count("<svg")
        == page.count('role="img"')
        == len(re.findall('aria-label="[^"]{20,}"', page))
    )
    assert not re.search(r"\bnan\b|\binf\b|None|N\{", page.partition("<script>")[0])
    for word in ("Structure card", "First layer", "secateurs predict MODEL"):
        assert word in page
    dense = model.compression_ == 1
    assert ("there is no mask to read" in page) == dense
    assert ("neither an importance nor a causal effect" in page) == (not dense)
    assert f"{model.n_parameters_kept_:,} of {model.summary_['parameters']:,}" in page
    assert ("Learning rate" in page) == (case != "no epoch")
    assert ("validation" in page) == (case == "watched")
    assert ("contrastive part" in page) == (
        not dense and case not in ("regressor", "one column", "plain loss", "no epoch")
    )


def test_stability_needs_tickets(models):
    one, two = model_page(models("classifier")), model_page(models("tickets"))
    assert "TicketClassifier(n_tickets=3)" in one
    assert "rank correlation" not in one
    assert "n_tickets=3" not in two
    assert "rank correlation" in two
    assert "TicketRegressor(n_tickets=3)" in model_page(models("regressor"))


def test_pairs_are_named_only_where_they_stand_out(planted, models):
    page = model_page(planted)
    assert "Pairs that stand out" in page
    assert "x0 with x1 (" in page
    page = model_page(models("categories"))
    assert not structure(models("categories")).pairs
    assert "Pairs that stand out" not in page
    assert "No two columns are combined in neurons more than by chance" in page


def test_a_lazy_search_is_told_on_the_card(planted, models):
    assert regime_line(planted.summary_).startswith("rich")
    told = "mostly that of the initial weights"
    assert told not in model_page(planted)
    assert regime_line(models("classifier").summary_).startswith("lazy")
    assert told in model_page(models("classifier"))


@pytest.mark.parametrize(
    ("moved", "overlap", "word"),
    [(2.0, 0.1, "rich"), (0.01, 0.98, "lazy"), (0.5, 0.9, "rich"), (0.099, 0.1, "lazy")],
)
def test_regime_words(moved, overlap, word):
    summary = {"weight_movement": moved, "start_mask_overlap": overlap, "density": 0.125}
    assert regime_line(summary).split()[0].rstrip(":") == word


def test_what_is_passed_is_shown(models):
    table = Table(title="Others", columns=["model", "accuracy"], rows=[["majority", 0.5]])
    page = model_page(models("classifier"), comparison=table, command="do <this>", size=987654)
    for word in ("majority", "do &lt;this&gt;", "987,654"):
        assert word in page
    plain = model_page(models("classifier"))
    assert "Comparison" not in plain
    assert f"{models('classifier').summary_['bytes']:,}" in plain


@pytest.mark.parametrize("case", ["tickets", "watched", "regressor", "dense"])
def test_the_same_model_gives_the_same_page(case, models, tmp_path):
    model = models(case)
    state, before = torch.get_rng_state(), copy.deepcopy(model)
    page = model_page(model)
    assert torch.equal(torch.get_rng_state(), state)
    model.save(tmp_path / "m")
    before.save(tmp_path / "before")
    assert (tmp_path / "m" / "model.json").read_bytes() == (
        tmp_path / "before" / "model.json"
    ).read_bytes()  # which has the checksum of everything
    (tmp_path / "m").rename(tmp_path / "moved")
    assert model_page(load(tmp_path / "moved")) == page


def test_any_name_can_be_shown():
    names = ["<b>&\"'", "a\x00b", "a\x01b", "x" * 300, "名前", "", "${\\alpha}$"]
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(40, len(names))), columns=names)
    model = TicketClassifier(2, n_tickets=2, **TINY).fit(X, X.iloc[:, 0] > 0)
    model.summary_ |= {"data": "a\udcff", "target": "<i>"}
    page = model_page(model)
    assert "<b>" not in page
    assert "<title>a\ufffd: &lt;i&gt;</title>" in page
    assert "名前" in page
    page.encode("utf-8")
    assert structure(model).columns == names
