"""Descriptions as JSON and back: lossless, typed, and never more than names and values."""

import json
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateurs import schedules
from secateurs.errors import InputError
from secateurs.experiments.typed import build, canonical, describe
from secateurs.objectives import nce
from secateurs.optimizers import SGD, AdamW, BetaLasso, Optimizer
from secateurs.tickets import TicketConfig
from secateurs.training import PhaseConfig

OPTIMIZERS = st.one_of(
    st.builds(SGD, lr=st.floats(1e-6, 10), encoder_lr=st.none() | st.floats(1e-6, 10)),
    st.builds(AdamW, lr=st.floats(1e-6, 10), schedule=st.sampled_from(["cosine", "restarts"])),
    st.builds(BetaLasso, l1=st.floats(1e-8, 1e-2), allow_scaled_start=st.just(value=True)),
)
PHASES = st.builds(PhaseConfig, epochs=st.integers(7, 200), optimizer=OPTIMIZERS)
CONFIGS = st.builds(
    TicketConfig,
    search=PHASES,
    finetune=PHASES,
    compression=st.floats(1, 64),
    rewind=st.just("none"),
)


@given(CONFIGS)
def test_a_description_comes_back_equal_through_json(config):
    text = canonical(describe(config))
    assert build(TicketConfig, json.loads(text)) == config
    assert canonical(json.loads(text)) == text


def test_defaults_are_written_out():
    assert describe(PhaseConfig())["temperature"] == 1.0
    assert describe(PhaseConfig())["contrastive"] == "nce"


def test_a_function_with_settings_is_a_name_with_settings():
    config = TicketConfig(schedule=partial(schedules.exponential, rounds=3))
    told = describe(config)
    assert told["schedule"] == {"name": "exponential", "rounds": 3}
    built = build(TicketConfig, told)
    assert built.schedule(0.125) == config.schedule(0.125)
    assert describe(built) == told


def test_what_is_left_out_keeps_the_value_it_has_where_it_stands():
    built = build(TicketConfig, {"search": {"epochs": 3, "optimizer": {"momentum": 0.5}}})
    plain = TicketConfig().search
    assert built.search.epochs == 3
    assert built.search.optimizer == SGD(lr=plain.optimizer.lr, momentum=0.5)
    assert built.finetune == TicketConfig().finetune


def test_another_kind_starts_from_its_own_defaults():
    built = build(TicketConfig, {"search": {"optimizer": {"kind": "AdamW", "lr": 0.5}}})
    assert built.search.optimizer == AdamW(lr=0.5)


def test_whole_numbers_are_numbers_and_equal():
    one, other = build(SGD, {"lr": 1}), build(SGD, {"lr": 1.0})
    assert canonical(describe(one)) == canonical(describe(other))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"lrr": 1}, r"unknown name 'lrr'; did you mean 'lr'\? optimizer has lr, momentum"),
        ({"lr": True}, "optimizer.lr must be a number, got True"),
        ({"lr": float("nan")}, "optimizer.lr must be a number, got nan"),
        ({"lr": None}, "optimizer.lr must be a number, got None"),
        ({"nesterov": 1}, "optimizer.nesterov must be true or false, got 1"),
        ({"schedule": "linear"}, "optimizer.schedule must be one of 'constant', 'cosine'"),
        ({"kind": "Adam"}, "optimizer.kind must be one of SGD, AdamW, BetaLasso, got 'Adam'"),
        ("SGD", "optimizer must be a table with a kind of SGD, AdamW, BetaLasso, got 'SGD'"),
        ({"encoder_lr": "x", "kind": "SGD"}, "optimizer.encoder_lr must be a number, got 'x'"),
    ],
)
def test_wrong_values_are_refused_by_name(value, message):
    with pytest.raises(InputError, match=message):
        build(Optimizer, value, path="optimizer", base=SGD())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"epochs": 2.0}, "search.epochs must be an integer, got 2.0"),
        ({"contrastive": "simclr"}, "search.contrastive must be one of nce, supcon, infonce"),
        ({"contrastive": "os.system"}, "search.contrastive must be one of nce"),
        ([], r"search must be a table of names, got \[\]"),
        ({"epochs": -1}, "epochs must be at least 0, got -1"),
    ],
)
def test_wrong_phases_are_refused_by_name(value, message):
    with pytest.raises(InputError, match=message):
        build(PhaseConfig, value, path="search")


def test_a_schedule_takes_its_own_settings_only():
    with pytest.raises(InputError, match=r"unknown name 'round'; did you mean 'rounds'"):
        build(TicketConfig, {"schedule": {"name": "exponential", "round": 3}})
    with pytest.raises(InputError, match=r"schedule.rounds must be an integer, got 'x'"):
        build(TicketConfig, {"schedule": {"name": "exponential", "rounds": "x"}})


def my_own(h, h_view, y, temperature):
    return nce(h, h_view, y, temperature)


def test_a_function_of_the_users_own_has_no_name_to_write():
    with pytest.raises(InputError, match="can only name functions that secateurs has by name"):
        describe(PhaseConfig(contrastive=my_own))
