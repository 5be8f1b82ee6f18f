import dataclasses

import torch

from secateurs import training
from secateurs.experiments.following import CHECKPOINTS, TILE, follow, followed
from secateurs.experiments.rows import prepare
from secateurs.experiments.run import run
from secateurs.experiments.spec import ImageRows, Rows, SearchCell, TicketCell, key
from secateurs.experiments.store import Store
from secateurs.measures.regime import log_spaced
from secateurs.optimizers import SGD
from secateurs.training import PhaseConfig

CPU = torch.device("cpu")
IMAGES = TicketCell(
    rows=ImageRows(dataset="sklearn:digits", n_validation=100),
    network="lenet_300_100",
    widths=(8, 4),
)


class Fixed(torch.nn.Module):
    """Gives every image the same logits, sharper or flatter."""

    def __init__(self, scale):
        super().__init__()
        self.logits = scale * torch.eye(10)[3]

    def forward(self, x):
        return self.logits.expand(len(x), 10)


def test_test_accuracy_is_told_where_the_validation_loss_is_the_lowest_so_far():
    prepared = prepare(IMAGES.rows)
    tell = follow(IMAGES, prepared, CPU)
    rows = [{"step": i, **tell(Fixed(scale), i)} for i, scale in enumerate((4.0, 1.0, 2.0, 0.0))]
    losses = [row["validation_loss"] for row in rows]
    assert losses[0] > losses[1] < losses[2] > losses[3]
    assert [row["test_accuracy"] is not None for row in rows] == [
        True,
        True,
        False,
        losses[3] < losses[1],
    ]
    share = (prepared.test[1] == 3).double().mean().item()
    assert rows[0]["test_accuracy"] == share
    told = followed(rows)
    assert told["early_stop"]["step"] == min(range(4), key=losses.__getitem__)
    assert told["curve"]["validation_loss"] == losses
    assert "test_accuracy" not in told["curve"]


def test_losses_are_those_of_all_images_whatever_the_tile():
    prepared = prepare(IMAGES.rows)
    x, y = prepared.data.validation
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    told = follow(IMAGES, prepared, CPU)(network, 0)
    assert len(x) < TILE  # padded
    expected = torch.nn.functional.cross_entropy(training.outputs(network, x), y)
    assert abs(told["validation_loss"] - float(expected)) < 1e-6


def test_tables_and_images_without_validation_are_not_followed():
    table = TicketCell(rows=Rows(dataset="sklearn:iris", validation_folds=4))
    assert follow(table, prepare(table.rows), CPU) is None
    rows = ImageRows(dataset="sklearn:digits", n_validation=0)
    bare = TicketCell(rows=rows, network="lenet_300_100", widths=(8, 4))
    assert follow(bare, prepare(bare.rows), CPU) is None
    assert followed([]) == {}


def test_a_search_with_probes_tells_how_features_are_learnt(tmp_path):
    store = Store(tmp_path)
    phase = PhaseConfig(steps=60, batch_size=60, optimizer=SGD(lr=0.05), alpha=0.5)
    plain = SearchCell(
        rows=ImageRows(dataset="sklearn:digits", n_validation=100, n_train=200), search=phase,
        network="lenet_300_100", widths=(16, 8), init_scale=1.0,
    )  # fmt: skip
    probed = dataclasses.replace(plain, n_probes=32)
    assert run([plain, probed], store).done == 2
    told, without = store.result(key(probed)), store.result(key(plain))
    assert told["dynamics"]["step"] == log_spaced(60, CHECKPOINTS)
    assert told["dynamics"]["weight_movement"][0] == 0
    assert told["dynamics"]["kernel_distance"][-1] > 0
    assert told["loss"] == without["loss"]  # watching changes nothing
    assert "early_stop" in without
    assert "early_stop" not in told
