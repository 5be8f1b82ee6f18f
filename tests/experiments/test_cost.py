"""Estimates grow with the work and never stop a run."""

from dataclasses import replace

from secateurs.experiments.arms import arm
from secateurs.experiments.cost import estimate
from secateurs.experiments.spec import PeerCell, Rows, TicketCell, needs
from secateurs.tickets import TicketConfig
from secateurs.training import PhaseConfig

ROWS = Rows(dataset="sklearn:wine")
IUNET = TicketConfig(search=PhaseConfig(epochs=3), finetune=PhaseConfig(epochs=7))
CELL = TicketCell(rows=ROWS, config=IUNET, widths=(16, 16))


def test_an_estimate_grows_with_the_work():
    dense = replace(CELL, config=arm("dense", IUNET))
    longer = replace(dense, config=replace(dense.config, finetune=PhaseConfig(epochs=70)))
    (search,) = needs(CELL)
    assert 0 < estimate(dense) < estimate(longer)
    assert estimate(search) > 0
    assert estimate(PeerCell(rows=ROWS)) < estimate(dense)
    assert estimate(PeerCell(rows=Rows(dataset="sklearn:nothing"))) == 0
