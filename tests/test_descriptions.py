"""What came later changes nothing that was kept before."""

from dataclasses import MISSING, dataclass, field, fields, replace

import pytest
import torch

from secateurs.descriptions import LATER, fingerprint, plain, told_fields
from secateurs.experiments.spec import PeerCell, ProbeCell, Rows, SearchCell, TicketCell
from secateurs.optimizers import SGD, AdamW, BetaLasso
from secateurs.tickets import TicketConfig
from secateurs.training import PhaseConfig


@dataclass(frozen=True)
class Before:
    a: int = 1


@dataclass(frozen=True)
class After(Before):
    b: float = field(default=0.0, metadata=LATER)


def names(value):
    return [f.name for f in told_fields(value)]


def test_a_later_field_is_told_once_it_differs():
    assert names(After()) == names(Before()) == ["a"]
    assert names(After(b=0.0, a=2)) == ["a"]
    assert names(After(b=0.5)) == ["a", "b"]


@pytest.mark.parametrize(
    "cls", [Rows, SearchCell, TicketCell, PeerCell, ProbeCell, TicketConfig, PhaseConfig, SGD,
            AdamW, BetaLasso], ids=lambda cls: cls.__name__)  # fmt: skip
def test_later_fields_have_a_default_to_be_left_out_at(cls):
    assert all(f.default is not MISSING for f in fields(cls) if "later" in f.metadata)


def test_checkpoints_of_before_mixup_are_still_known():
    phase = PhaseConfig()
    assert "mixup" not in plain(phase)
    assert plain(replace(phase, mixup=0.2))["mixup"] == 0.2


def test_a_fingerprint_is_that_of_descriptions_and_tensors():
    ones = torch.ones(4)
    same = fingerprint((After(), "a"), [ones])
    assert fingerprint((Before(), "a"), [ones.clone()]) == same
    for other in (
        fingerprint((After(b=0.5), "a"), [ones]),
        fingerprint((After(), "b"), [ones]),
        fingerprint((After(), "a"), [ones.view(2, 2)]),
        fingerprint((After(), "a"), [ones.double()]),
        fingerprint((After(), "a"), [ones, ones]),
    ):
        assert other != same
