"""The autopilot: pilots are the search's own first steps, rates are secants, the target is met."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from torch import nn

from secateurs import autopilot, schedules, tickets, training
from secateurs.autopilot import Attempt, at_rate, extrapolated, next_rate, steer
from secateurs.errors import DivergedError, InputError
from secateurs.estimator import TicketClassifier, TicketRegressor
from secateurs.experiments.cells import execute
from secateurs.experiments.spec import Rows, TicketCell, cell_from_json, key, with_needs
from secateurs.experiments.store import Store
from secateurs.experiments.typed import describe
from secateurs.measures.regime import weight_movement
from secateurs.optimizers import SGD, AdamW
from secateurs.training import PhaseConfig

PHASE = PhaseConfig(epochs=20, batch_size=32, optimizer=SGD(lr=0.01))
CONFIG = tickets.TicketConfig(
    search=PHASE, finetune=PhaseConfig(epochs=2, batch_size=32), compression=4, movement=0.3
)
ENCODER = ["encoder.0.weight", "encoder.3.weight"]

rates = st.floats(1e-4, 1.0)
targets = st.floats(0.05, 5.0)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


# --- rates -----------------------------------------------------------------------------------


@given(rates, st.floats(0.5, 1.9), rates, st.floats(0.1, 0.9), st.floats(0.3, 0.95))
def test_a_secant_solves_a_power_law_in_one_step(scale, slope, rate, apart, target):
    """Between two rates, and beyond them."""
    tried = [Attempt(rate=r, movement=scale * r**slope) for r in (rate, rate * apart)]
    low, high = sorted(one.movement for one in tried)
    for wanted in (low * (high / low) ** target, low * target, high / target):
        exact = (wanted / scale) ** (1 / slope)
        assert next_rate(tried, wanted) == pytest.approx(exact, rel=6e-3)


def test_no_step_is_longer_than_a_factor_of_thirty():
    tried = [Attempt(rate=0.01, movement=1e-6), Attempt(rate=0.02, movement=2e-6)]
    assert next_rate(tried, 1.0) == pytest.approx(0.6)
    assert next_rate([Attempt(rate=0.01, movement=0.0)], 1.0) == pytest.approx(0.3)


@given(st.lists(st.tuples(rates, targets), min_size=1, max_size=5), targets)
def test_the_next_rate_is_positive_goes_the_right_way_and_stays_within_the_bracket(points, target):
    tried = [Attempt(rate=rate, movement=moved) for rate, moved in points]
    found = next_rate(tried, target)
    assert 0 < found < math.inf
    below = max((t.rate for t in tried if t.movement <= target), default=0)
    above = min((t.rate for t in tried if t.movement > target), default=math.inf)
    if below < above:
        assert below * 0.99 <= found <= above * 1.01


@given(st.lists(st.tuples(rates, targets), max_size=3), rates, targets)
def test_nothing_is_tried_above_half_of_a_rate_that_diverged(points, rate, target):
    tried = [Attempt(rate=rate, movement=moved) for rate, moved in points]
    assert next_rate([*tried, Attempt(rate=rate, movement=math.inf)], target) <= 0.503 * rate


def test_an_encoders_own_rate_scales_along():
    optimizer = SGD(lr=0.01, encoder_lr=0.16)
    assert at_rate(replace(PHASE, optimizer=optimizer), 0.02).optimizer == SGD(
        lr=0.02, encoder_lr=0.32
    )
    assert at_rate(replace(PHASE, optimizer=AdamW()), 0.5).optimizer == AdamW(lr=0.5)


@given(st.floats(0.01, 1), st.floats(1, 2), st.integers(10, 100))
def test_extrapolation_starts_at_what_was_measured_and_never_falls(moved, growth, more):
    curve = [(5, moved), (10, moved * growth)]
    assert extrapolated(curve, 10) == pytest.approx(moved * growth)
    assert extrapolated(curve, 10 + more) >= extrapolated(curve, 10) * (1 - 1e-12)
    assert extrapolated([(5, moved), (10, moved)], 10 + more) == moved  # it has stopped
    assert extrapolated([], 10) == extrapolated([(0, 0.0)], 10) == 0


# --- steering, on made-up laws ---------------------------------------------------------------


def law(movement, *, n_epochs=20):
    """Return what trains in no time: (rate, share of the steps) -> movement, or inf."""
    told = []

    def run(phase, *, name, deadline, follow=None, every=1):
        n_steps = phase.n_steps(32)
        told.append((name, phase.optimizer.lr))
        steps = [s for s in (every, n_steps) if s <= n_steps]
        moved = {s: movement(phase.optimizer.lr, s / n_epochs) for s in steps}
        if math.inf in moved.values():
            raise DivergedError("diverged")
        curve = [
            {"step": s, **follow(SimpleNamespace(state_dict=lambda m=m: m), s)}
            for s, m in moved.items()
            if follow is not None
        ]
        return training.Trained(
            history=[{}] * n_steps,
            snapshots=[moved[n_steps]],
            kept=None,
            complete=True,
            curve=curve,
        )

    return run, told


def steered(run, target, phase=PHASE):
    return steer(run, phase, target, n_rows=32, moved=lambda state: state)


@given(
    st.floats(0.3, 10), st.floats(0.5, 0.9), st.floats(1, 1.8), st.floats(0.1, 0.9),
    st.floats(0.1, 3),
)  # fmt: skip
def test_bent_laws_are_met(scale, low, high, grown, target):
    """As measured on tables: shallow at low rates, steep at high ones, ever slower with time."""

    def movement(rate, share):
        return scale * (rate**low + (3 * rate) ** high) * share**grown

    trained, steering = steered(law(movement)[0], target)
    assert steering.kept.movement == pytest.approx(target, rel=0.25)
    assert trained.snapshots[-1] == steering.kept.movement
    assert len(steering.searches) <= autopilot.SEARCHES
    assert len(steering.pilots) <= autopilot.PILOTS


def test_a_rate_that_is_right_takes_one_pilot_and_one_search():
    run, told = law(lambda rate, share: 30 * rate)
    steered(run, 0.3)
    assert [name for name, _ in told] == ["pilot", "search"]


def test_no_law_is_too_steep_to_end():
    """A law that jumps over the target is left at the side that is nearer."""
    run, told = law(lambda rate, share: 0.1 if rate < 0.02 else 10.0)
    _, steering = steered(run, 0.3)
    assert steering.kept.movement == 0.1
    assert len(told) <= autopilot.PILOTS + autopilot.SEARCHES


def test_where_training_diverges_the_rate_is_halved():
    run, told = law(lambda rate, share: math.inf if rate > 0.1 else 10 * rate * share**0.5)
    _, steering = steered(run, 0.5, replace(PHASE, optimizer=SGD(lr=0.9)))
    assert [rate for _, rate in told[:4]] == pytest.approx([0.9, 0.45, 0.225, 0.112], abs=2e-3)
    assert steering.kept.movement == pytest.approx(0.5, rel=0.25)
    assert sum(one.movement == math.inf for one in steering.pilots) == 4


def test_weights_that_nothing_moves_are_left_where_they_are():
    trained, steering = steered(law(lambda rate, share: 0.0)[0], 0.3)
    assert trained.snapshots == [0.0]
    assert steering.kept.movement == 0


def test_a_loss_that_is_never_finite_is_refused():
    with pytest.raises(InputError, match="search diverged at every learning rate down to"):
        steered(law(lambda rate, share: math.inf)[0], 0.3)


# --- in a search -----------------------------------------------------------------------------


def test_the_steered_search_is_the_plain_search_at_its_rate_to_the_bit(make_network, data):
    steered = tickets.search(make_network(), data, CONFIG, seed=2)
    rate = steered.steering.kept.rate
    plain = tickets.TicketConfig(search=at_rate(PHASE, rate), compression=4)
    found = tickets.search(make_network(), data, plain, seed=2)
    assert same(steered.state, found.state)
    assert found.steering is None
    assert len(steered.history) == 20
    scaled = {n: 0.25 * found.start[n] for n in ENCODER}
    moved = weight_movement(scaled, found.state, ENCODER)
    assert steered.steering.kept.movement == pytest.approx(moved, rel=1e-6)
    assert moved == pytest.approx(0.3, rel=0.25)


def test_a_pilot_is_the_beginning_of_its_search(make_network, data, monkeypatch):
    monkeypatch.setattr(autopilot, "PILOT_SHARE", 1.0)
    steering = tickets.search(make_network(), data, CONFIG).steering
    whole = tickets.search(make_network(), data, replace(CONFIG, movement=None)).state
    again = tickets.search(make_network(), data, CONFIG)
    start = {n: 0.25 * again.start[n] for n in ENCODER}
    told = steering.pilots[0]
    assert told.rate == 0.01
    assert told.movement == pytest.approx(weight_movement(start, whole, ENCODER), rel=1e-6)


def test_a_phase_of_steps_is_steered_too(make_network, data):
    phase = replace(PHASE, steps=50)
    searched = tickets.search(make_network(), data, replace(CONFIG, search=phase))
    assert searched.steering.kept.movement == pytest.approx(0.3, rel=0.25)


class Stop(Exception):
    pass


@pytest.mark.parametrize("at", [3, 9, 15, 20])
def test_an_interrupted_autopilot_resumes_to_the_bit(make_network, data, tmp_path, monkeypatch, at):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1)
    rows = []

    def progress(row, _):
        rows.append(row["phase"])
        if len(rows) == at:
            raise Stop

    config = replace(CONFIG, movement=0.5)
    whole = tickets.search(make_network(), data, config)
    with pytest.raises(Stop):
        tickets.search(make_network(), data, config, checkpoint_dir=tmp_path, progress=progress)
    resumed = tickets.search(
        make_network(), data, config, checkpoint_dir=tmp_path, progress=progress
    )
    assert same(whole.state, resumed.state)
    assert whole.steering == resumed.steering
    n_epochs = 6 * len(whole.steering.pilots) + 20 * len(whole.steering.searches)
    assert len(rows) <= n_epochs + 1  # but for the epoch that was interrupted nothing ran twice


def test_other_rows_do_not_continue(make_network, data, tmp_path):
    tickets.search(make_network(), data, CONFIG, checkpoint_dir=tmp_path)
    with pytest.raises(InputError, match="other data or settings"):
        tickets.search(make_network(1), data, CONFIG, checkpoint_dir=tmp_path)


def test_a_time_limit_leaves_one_epoch_of_a_pilot_and_one_of_the_search(make_network, data):
    rows = []
    ticket = tickets.find_ticket(
        make_network(), data, CONFIG, time_limit=1e-9, progress=lambda row, _: rows.append(row)
    )
    assert [row["phase"] for row in rows] == ["pilot", "search", "finetune"]
    assert not ticket.complete
    assert len(ticket.searched.steering.pilots) == 1


def test_real_divergence_is_stepped_back_from(data):
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential()
    network.encoder = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
    network.decoder = nn.Linear(16, 3)
    tickets.initialise_(network, generator=generator)
    config = replace(CONFIG, search=replace(PHASE, optimizer=SGD(lr=2e4)), init_scale=1.0)
    searched = tickets.search(network, data, config)
    assert searched.steering.pilots[0].movement == math.inf
    assert searched.steering.kept.rate < 2e4
    assert all(bool(t.isfinite().all()) for t in searched.state.values())


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
def test_a_movement_that_cannot_be_is_refused(value):
    with pytest.raises(InputError, match="movement must be a positive number or None"):
        replace(CONFIG, movement=value)


def test_a_movement_beside_several_rounds_is_refused():
    for changes in (
        {"schedule": schedules.geometric},
        {"rewind": "lr:5", "finetune": CONFIG.search},
    ):
        with pytest.raises(InputError, match="movement is that of one search"):
            replace(CONFIG, **changes)


# --- cells -----------------------------------------------------------------------------------

ROWS = Rows(dataset="sklearn:wine", split=1)


def test_cells_without_a_movement_keep_their_names_and_those_with_one_read_back():
    cell = TicketCell(rows=ROWS, config=replace(CONFIG, movement=None))
    assert "movement" not in str(describe(cell))
    asked = TicketCell(rows=ROWS, config=CONFIG)
    assert key(asked) != key(cell)
    assert asked.search_cell.movement == 0.3
    assert cell_from_json(describe(asked)) == asked
    dense, plain = (replace(c.config, compression=1.0) for c in (asked, cell))
    assert TicketCell(rows=ROWS, config=dense) == TicketCell(rows=ROWS, config=plain)


def test_a_search_cell_tells_how_it_was_steered_and_counts_what_that_cost(tmp_path):
    asked = TicketCell(rows=ROWS, config=CONFIG, widths=(16, 16))
    for cell in with_needs([asked]).values():
        assert execute(cell, tmp_path, device="cpu") == "done"
    store = Store(tmp_path)
    result, ticket = store.result(key(asked.search_cell)), store.result(key(asked))
    assert result["steering"]["target"] == 0.3
    assert result["regime"]["weight_movement"] == pytest.approx(0.3, rel=0.25)
    assert ticket["regime"]["weight_movement"] == result["regime"]["weight_movement"]
    n_pilots, n_searches = (len(result["steering"][one]) for one in ("pilots", "searches"))
    plain = replace(asked.search_cell, movement=None)
    assert execute(plain, tmp_path, device="cpu") == "done"
    whole = store.result(key(plain))["flops"]
    assert result["flops"] == pytest.approx(whole * (n_searches + 0.3 * n_pilots), rel=0.01)


# --- on real tables --------------------------------------------------------------------------


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer])
@pytest.mark.parametrize("target", [0.2, 1.0])
def test_targets_are_met_on_real_tables(load, target):
    X, y = load(return_X_y=True)
    clf = TicketClassifier(
        regime=target, widths=(64, 64), search_epochs=20, finetune_epochs=1, random_state=0
    ).fit(X, y)
    assert clf.summary_["weight_movement"] == pytest.approx(target, rel=0.25)
    assert clf.summary_["movement_target"] == target


def test_a_regressor_is_steered_too():
    X, y = load_diabetes(return_X_y=True)
    reg = TicketRegressor(regime=0.4, widths=(64, 64), search_epochs=20, finetune_epochs=1)
    found = reg.set_params(random_state=0).fit(X, y).summary_
    assert found["weight_movement"] == pytest.approx(0.4, rel=0.25)
