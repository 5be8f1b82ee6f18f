"""Descriptions as JSON and back: lossless, typed, and never more than names and values."""

import json
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateurs import criteria, schedules
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


@pytest.mark.parametrize(
    ("field", "function", "told"),
    [
        ("schedule", partial(schedules.listed, densities=(1, 0.5)),
         {"name": "listed", "densities": [1.0, 0.5]}),
        ("schedule", partial(schedules.geometric, rate=0.3, last_share=0),
         {"name": "geometric", "rate": 0.3, "last_share": 0.0}),
        ("schedule", partial(schedules.cubic, rounds=4), {"name": "cubic", "rounds": 4}),
        ("criterion", partial(criteria.grasp, temperature=100),
         {"name": "grasp", "temperature": 100.0}),
        ("criterion", criteria.wanda, "wanda"),
    ],
)  # fmt: skip
def test_settings_of_functions_are_written_alike_however_they_were_given(field, function, told):
    config = TicketConfig(**{field: function})
    text = canonical(describe(config))
    assert json.loads(text)[field] == describe(config)[field] == told
    assert canonical(describe(build(TicketConfig, json.loads(text)))) == text
    built = getattr(build(TicketConfig, {field: told}), field)
    if isinstance(function, partial):
        assert built.func is function.func
        assert built.keywords == function.keywords
    else:
        assert built is function


@pytest.mark.parametrize("name", sorted(criteria.CRITERIA))
@pytest.mark.parametrize("field", ["steps", "only", "scored_rows"])
def test_what_came_later_comes_back_when_it_is_told(name, field):
    changed = {
        "steps": {"search": PhaseConfig(steps=7)},
        "only": {"only": ("*", "encoder.*")},
        "scored_rows": {"scored_rows": 3},
    }[field]
    config = TicketConfig(criterion=criteria.CRITERIA[name], **changed)
    text = canonical(describe(config))
    assert field in text
    assert build(TicketConfig, json.loads(text)) == config


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"search": {"steps": 1.5}}, "search.steps must be an integer, got 1.5"),
        ({"search": {"steps": 0}}, "steps must be at least 1"),
        ({"only": "*"}, r"only must be a list, got '\*'"),
        ({"only": [1]}, r"only\[0\] must be a string, got 1"),
        ({"scored_rows": 0}, "scored_rows must be at least 1, got 0"),
        ({"control": "shuffled_everywhere"}, "control must be one of .*'shuffled_globally'"),
        ({"schedule": {"name": "listed", "densities": ["0.5"]}},
         r"schedule.densities\[0\] must be a number, got '0.5'"),
        ({"criterion": {"name": "grasp", "temperature": "hot"}},
         "criterion.temperature must be a number, got 'hot'"),
        ({"criterion": {"name": "snip", "temperature": 1}}, "unknown name 'temperature'"),
    ],
)  # fmt: skip
def test_wrong_values_of_later_fields_are_refused_by_name(value, message):
    with pytest.raises(InputError, match=message):
        build(TicketConfig, value)


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
