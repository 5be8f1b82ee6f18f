import pytest

from secateurs.command.settings import check_names, parse
from secateurs.errors import InputError
from secateurs.estimator import TicketClassifier, TicketRegressor


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a=1e-3", 0.001),
        ("a=null", None),
        ("a=true", True),
        ("a=[16, 16]", [16, 16]),
        ('a={"0": 2}', {"0": 2}),
        ('a="1"', "1"),
        ("a=magnitude", "magnitude"),
        ("a=step:3", "step:3"),
        ("a=", ""),
        ("a=b=c", "b=c"),
    ],
)
def test_values_are_json_or_the_bare_string(text, value):
    assert parse([text]) == {"a": value}
    assert type(parse([text])["a"]) is type(value)


@pytest.mark.parametrize(
    ("texts", "words"),
    [(["a"], "NAME=JSON"), (["=3"], "NAME=JSON"), (["a=1", "b=2", "a=1"], "'a' twice")],
)
def test_what_is_no_setting_is_refused(texts, words):
    with pytest.raises(InputError, match=words):
        parse(texts)


def test_names_of_either_estimator_are_known_until_the_task_is():
    both = [TicketClassifier, TicketRegressor]
    check_names(["class_weight", "compression"], both)
    with pytest.raises(InputError, match="'class_weight'; TicketRegressor takes batch_size"):
        check_names(["compression", "class_weight"], both[1:])
    with pytest.raises(InputError, match=r"'widhts'; did you mean 'widths'\? TicketClassifier and"):
        check_names(["widhts"], both)
