import copy
import itertools
import math
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from reference import loop, mixup
from secateurs import Data, checkpoint, masks, objectives, optimizers, training
from secateurs.data.views import corruption
from secateurs.errors import InputError
from secateurs.networks.dense import MLP
from secateurs.networks.init import initialise_
from secateurs.optimizers import SGD, AdamW, BetaLasso
from secateurs.seeds import derive, stream
from secateurs.training import PhaseConfig, outputs, train

ENCODER = ["encoder.0.weight", "encoder.3.weight"]
OPTIMIZERS = {
    "sgd": SGD(lr=0.05, weight_decay=1e-3),
    "encoder_lr": SGD(lr=0.02, encoder_lr=0.3, schedule="cosine"),
    "adamw": AdamW(lr=3e-3, weight_decay=0.1),
    "beta-lasso": BetaLasso(lr=0.05, l1=1e-4),
}


@pytest.fixture(scope="session")
def view(data):
    return corruption(data.train[0], [(i, i + 1) for i in range(6)], rate=0.6)


@pytest.fixture(scope="session")
def mask(make_network):
    weights = dict(make_network().named_parameters())
    generator = torch.Generator().manual_seed(3)
    return {name: torch.rand(weights[name].shape, generator=generator) < 0.4 for name in ENCODER}


def forbidden(*_):
    raise AssertionError("must not be called")


def same(one, other):
    """Whether two states are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def fit(network, data, phase, **options):
    options = {"name": "search", "seed": 0, "prunable": ENCODER, **options}
    return train(network, data, phase, **options)


# --- the loop equals the obvious loop ---------------------------------------------------------


def plain_optimizer(config, network):
    """The torch optimizer that a user would write down."""
    parameters = network.parameters()
    if isinstance(config, AdamW):
        return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    if config.encoder_lr is not None:
        named = list(network.named_parameters())
        parameters = [
            {"params": [p for n, p in named if n in ENCODER], "lr": config.encoder_lr},
            {"params": [p for n, p in named if n not in ENCODER]},
        ]
    return torch.optim.SGD(
        parameters, lr=config.lr, momentum=0.9, nesterov=True, weight_decay=config.weight_decay
    )


@pytest.mark.parametrize("contrastive_weight", [0.0, 0.5])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["sgd", "encoder_lr", "adamw"])
def test_equals_the_obvious_loop(make_network, data, view, mask, name, masked, contrastive_weight):
    config = OPTIMIZERS[name]
    phase = PhaseConfig(
        epochs=4, batch_size=32, optimizer=config, contrastive_weight=contrastive_weight
    )
    held = mask if masked else None
    # in float64: Adam makes whole steps of the rounding of gradients that are almost zero
    ours, twin = make_network().double(), make_network().double()
    x, y = data.train
    data = Data(train=(x.double(), y))
    fit(ours, data, phase, view=view, mask=held)
    loop.train(
        twin,
        data,
        plain_optimizer(config, twin),
        epochs=4,
        batch_size=32,
        name="search",
        seed=0,
        schedule=config.schedule,
        mask=held,
        view=view,
        contrastive_weight=contrastive_weight,
    )
    for key, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, twin.state_dict()[key], rtol=1e-9, atol=1e-9)


# --- the objective ----------------------------------------------------------------------------


def test_at_lambda_0_no_view_is_drawn_and_nothing_changes(make_network, data):
    phase = PhaseConfig(epochs=2, batch_size=32, optimizer=SGD(lr=0.05))
    with_view, without = make_network(), make_network()
    fit(with_view, data, phase, view=forbidden)
    fit(without, data, phase, view=None)
    assert same(with_view.state_dict(), without.state_dict())


def test_at_lambda_0_the_run_is_plain_cross_entropy_to_the_bit(make_network, data):
    phase = PhaseConfig(epochs=3, batch_size=32, optimizer=SGD(lr=0.05), contrastive_weight=0.0)
    ours, twin = make_network(), make_network()
    fit(ours, data, phase, view=forbidden)
    optimizer = optimizers.build(phase.optimizer, twin, encoder_weights=ENCODER)
    loop.train(twin, data, optimizer, epochs=3, batch_size=32, name="search", seed=0)
    assert same(ours.state_dict(), twin.state_dict())


@pytest.mark.parametrize("name", ["sgd", "encoder_lr", "adamw"])
def test_ilo_with_a_mask_is_the_obvious_loop_to_the_bit(make_network, data, view, mask, name):
    # the twin masks gradients too: with the same optimizer that must not change a bit
    config = OPTIMIZERS[name]
    phase = PhaseConfig(epochs=3, batch_size=32, optimizer=config, contrastive_weight=1.0)
    ours, twin = make_network(), make_network()
    fit(ours, data, phase, view=view, mask=mask)
    optimizer = optimizers.build(config, twin, encoder_weights=ENCODER)
    options = {"schedule": config.schedule, "view": view, "mask": mask, "contrastive_weight": 1.0}
    loop.train(twin, data, optimizer, epochs=3, batch_size=32, name="search", seed=0, **options)
    assert same(ours.state_dict(), twin.state_dict())


def test_the_view_stream_does_not_move_the_data_order(make_network, data, view):
    seen = {}
    for weight in (0.0, 1.0):
        seen[weight] = []

        def loss(logits, y, w, rows=seen[weight]):
            rows.append(y.tolist())
            return objectives.cross_entropy(logits, y, w)

        phase = PhaseConfig(epochs=2, batch_size=32, loss=loss, contrastive_weight=weight)
        fit(make_network(), data, phase, view=view)
    assert seen[0.0] == seen[1.0]


def test_batchnorm_statistics_come_from_the_clean_pass_only(make_network, data):
    def wild(x, generator):
        return x * 1e3 + 50

    phase = PhaseConfig(epochs=1, batch_size=97, optimizer=SGD(lr=1e-12), contrastive_weight=1.0)
    network, clean = make_network(), make_network()
    fit(network, data, phase, view=wild)
    clean.train()(data.train[0])
    for name, buffer in network.named_buffers():
        torch.testing.assert_close(buffer, clean.get_buffer(name), rtol=1e-4, atol=1e-6)
    assert all(m.track_running_stats for m in network.modules() if isinstance(m, nn.BatchNorm1d))


def test_the_contrastive_term_alone_leaves_the_decoder(make_network, data, view):
    phase = PhaseConfig(
        epochs=2, batch_size=32, optimizer=SGD(lr=0.05), loss_weight=0.0, contrastive_weight=1.0
    )
    network, start = make_network(), make_network().state_dict()
    history = fit(network, data, phase, view=view).history
    assert torch.equal(network.decoder.weight, start["decoder.weight"])
    assert not torch.equal(network.encoder[0].weight, start["encoder.0.weight"])
    assert history[0]["loss"] == pytest.approx(history[0]["contrastive"])


@pytest.mark.parametrize("name", sorted(objectives.CONTRASTIVE))
def test_every_contrastive_term_is_lowered_by_training(make_network, data, name):
    def noise(x, generator):
        return x + 0.2 * torch.randn(x.shape, generator=generator)

    phase = PhaseConfig(
        epochs=10,
        batch_size=32,
        optimizer=SGD(lr=0.1),
        contrastive=objectives.CONTRASTIVE[name],
        loss_weight=0.0,
        contrastive_weight=1.0,
        temperature=0.5,
    )
    history = fit(make_network(), data, phase, view=noise).history
    assert history[-1]["contrastive"] < history[0]["contrastive"] - 0.1


def test_weights_reach_the_loss_by_row(make_network, data):
    (x, y), phase = data.train, PhaseConfig(epochs=3, batch_size=97, optimizer=SGD(lr=0.1))
    wrong = y.clone()
    wrong[::2] = (y[::2] + 1) % 3
    weight = torch.ones(97)
    weight[::2] = 0
    one, other = make_network(), make_network()
    fit(one, Data(train=(x, y), weight=weight), phase)
    fit(other, Data(train=(x, wrong), weight=weight), phase)
    assert same(one.state_dict(), other.state_dict())


def test_regression_trains(make_network, data):
    x = data.train[0]
    table = Data(train=(x, x[:, :1] - x[:, 1:2]), validation=(x, x[:, :1] - x[:, 1:2]))
    phase = PhaseConfig(epochs=10, batch_size=32, optimizer=SGD(lr=0.05), loss=objectives.mse)
    history = fit(make_network(n_outputs=1), table, phase).history
    assert history[-1]["validation_loss"] < 0.5 * history[0]["validation_loss"]


# --- mixup, dropout, skip connections -----------------------------------------------------------


def regularised(seed=0):
    """A network with all that the classic regularisers give it; the weights are as without."""
    network = MLP(6, 3, widths=(16, 16), dropout=0.3, skip=True)
    initialise_(network, generator=torch.Generator().manual_seed(seed))
    return network


@pytest.mark.parametrize("alpha", [0.2, 1.0])
@pytest.mark.parametrize("numbers", [False, True])
def test_mixup_is_training_on_mixed_rows_and_mixed_labels(make_network, data, alpha, numbers):
    x, y = data.train
    if numbers:  # the loss differs by what no weight can change, the gradient does not
        y = x[:, :1] - x[:, 1:2]
    phase = PhaseConfig(
        epochs=4,
        batch_size=32,
        optimizer=SGD(lr=0.02),
        mixup=alpha,
        loss=objectives.mse if numbers else objectives.cross_entropy,
    )
    ours, twin = (make_network(n_outputs=1 if numbers else 3) for _ in range(2))
    fit(ours, Data(train=(x[:96], y[:96])), phase)
    sgd = torch.optim.SGD(twin.parameters(), lr=0.02, momentum=0.9, nesterov=True)
    settings = {"epochs": 4, "batch_size": 32, "name": "search", "seed": 0}
    mixup.train(twin, x[:96], y[:96], sgd, mixup=alpha, **settings)
    for key, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, twin.state_dict()[key], rtol=1e-4, atol=1e-5)


def test_mixtures_of_one_row_only_are_the_rows(make_network, data):
    # Beta(a, a) for a small a is 0 or 1: each batch is itself, in some order
    phase = PhaseConfig(epochs=3, batch_size=32, optimizer=SGD(lr=0.02))
    plain, mixed = make_network(), make_network()
    fit(plain, data, phase)
    fit(mixed, data, replace(phase, mixup=1e-9))
    for key, tensor in plain.state_dict().items():
        torch.testing.assert_close(tensor, mixed.state_dict()[key], rtol=1e-4, atol=1e-5)


def test_a_mixed_row_counts_as_much_as_the_rows_that_it_is_of(make_network, data):
    # rows that count for nothing may have any label
    (x, y), wrong = data.train, data.train[1].clone()
    wrong[::2] = (y[::2] + 1) % 3
    weight = torch.ones(97)
    weight[::2] = 0
    phase = PhaseConfig(epochs=3, batch_size=97, optimizer=SGD(lr=0.1), mixup=1.0)
    networks = [make_network() for _ in range(3)]
    fit(networks[0], Data(train=(x, y), weight=weight), phase)
    fit(networks[1], Data(train=(x, wrong), weight=weight), phase)
    fit(networks[2], Data(train=(x, wrong)), phase)
    assert same(networks[0].state_dict(), networks[1].state_dict())
    assert not same(networks[0].state_dict(), networks[2].state_dict())


def test_without_regularisers_the_mlp_is_the_plain_network_to_the_bit(make_network, data, view):
    class Plain(nn.Module):
        def __init__(self, like):
            super().__init__()
            widths = [(6, 16), (16, 16)]
            layers = [[nn.Linear(*w, bias=False), nn.BatchNorm1d(w[1]), nn.ReLU()] for w in widths]
            self.encoder = nn.Sequential(*(one for layer in layers for one in layer))
            self.decoder = nn.Linear(16, 3)
            self.load_state_dict(like.state_dict())

        def forward(self, x):
            return self.decoder(self.encoder(x))

    phase = PhaseConfig(epochs=3, batch_size=32, optimizer=SGD(lr=0.05), contrastive_weight=1.0)
    ours, twin = make_network(), Plain(make_network())
    zero = MLP(6, 3, widths=(16, 16), dropout=0.0, skip=False)
    zero.load_state_dict(ours.state_dict())
    for network in (ours, twin, zero):
        fit(network, data, replace(phase, mixup=0.0), view=view)
    assert same(ours.state_dict(), twin.state_dict())
    assert same(zero.state_dict(), twin.state_dict())


@pytest.mark.parametrize("kills", [[1], [8, 5, 2]], ids=str)
@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_dropout_and_mixup_resume_to_the_bit(data, view, tmp_path, monkeypatch, kills, alpha):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    phase = PhaseConfig(
        epochs=5,
        batch_size=32,
        optimizer=OPTIMIZERS["adamw"],
        mixup=alpha,
        contrastive_weight=0.0 if alpha else 1.0,
    )
    whole, expected, resumed, found = uninterrupted_and_resumed(
        regularised, data, phase, kills, tmp_path / "x", view=view
    )
    assert same(resumed.state_dict(), whole.state_dict())
    assert without_seconds(found.history) == without_seconds(expected.history)


def test_every_regulariser_changes_the_training(make_network, data):
    phase = PhaseConfig(epochs=2, batch_size=32, optimizer=SGD(lr=0.05))
    states = []
    for options, alpha in (({}, 0.0), ({}, 0.4), ({"dropout": 0.3}, 0.0), ({"skip": True}, 0.0)):
        network = MLP(6, 3, widths=(16, 16), **options)
        network.load_state_dict(make_network().state_dict())
        fit(network, data, replace(phase, mixup=alpha))
        states.append(network.state_dict())
    assert not any(same(one, other) for one, other in itertools.combinations(states, 2))


def test_the_draws_of_regularisers_are_seeds_of_their_own_and_move_no_order(make_network, data):
    def run(network, alpha, seed=0):
        seen = []

        def loss(outputs, y, weight):
            seen.append(y.tolist())
            return objectives.cross_entropy(outputs, y, weight)

        phase = PhaseConfig(epochs=2, batch_size=32, mixup=alpha, loss=loss)
        fit(network, data, phase, seed=seed)
        return network.state_dict(), seen

    plain, order = run(make_network(), 0.0)
    dropped, dropped_order = run(regularised(), 0.0)
    mixed, mixed_order = run(regularised(), 0.4)
    assert dropped_order == order
    # mixup asks for the loss on both labels; validation, asked once an epoch, has its own
    assert [y for y in order if len(y) != 40] == [y for y in mixed_order if len(y) != 40][::2]
    assert same(run(regularised(), 0.4)[0], mixed)
    assert not same(run(regularised(), 0.4, seed=1)[0], mixed)
    assert not same(plain, dropped)


def test_every_epoch_drops_anew(data):
    network, seen = regularised(), []

    def note(module, inputs):
        if module.training:
            seen.append(module.generator.initial_seed())

    network.encoder[2][1].register_forward_pre_hook(note)
    fit(network, data, PhaseConfig(epochs=3, batch_size=32))
    assert len(seen) == 9
    assert set(seen) == {derive(0, "search", "dropout", epoch) for epoch in range(3)}


def test_mixup_beside_a_contrastive_term_is_refused():
    with pytest.raises(InputError, match=r"mixup must be 0 beside a contrastive weight, got 0.2"):
        PhaseConfig(mixup=0.2, contrastive_weight=1.0)


# --- the mask ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_the_mask_is_exact_at_every_step(make_network, data, view, mask, name):
    network, checked = make_network(), []

    def check(module, inputs):
        masks.check_held(dict(module.named_parameters()), mask)
        checked.append(len(inputs[0]))

    network.register_forward_pre_hook(check)
    phase = PhaseConfig(epochs=3, batch_size=32, optimizer=OPTIMIZERS[name], contrastive_weight=1.0)
    trained = fit(network, data, phase, mask=mask, view=view)
    assert len(checked) >= 2 * 3 * 3
    for state in (network.state_dict(), *trained.snapshots):
        masks.check_held(state, mask)
        for key, kept in mask.items():
            assert (state[key][kept] != 0).any()


def test_snapshots_are_the_states_at_the_ends_of_the_cycles(make_network, data, mask):
    phase = PhaseConfig(epochs=7, batch_size=32, optimizer=AdamW(), snapshots=3)
    network, ends = make_network(), {}

    def progress(row, epochs):
        ends[row["epoch"]] = copy.deepcopy(network.state_dict())

    trained = fit(network, data, phase, mask=mask, progress=progress)
    assert len(trained.snapshots) == 3
    for snapshot, epoch in zip(trained.snapshots, (1, 3, 7), strict=True):
        assert same(snapshot, ends[epoch])
        masks.check_held(snapshot, mask)
    two = fit(make_network(), data, PhaseConfig(epochs=7, batch_size=32, optimizer=AdamW(),
                                                snapshots=2), mask=mask)  # fmt: skip
    assert [same(a, b) for a, b in zip(two.snapshots, trained.snapshots[1:], strict=True)] == [
        True,
        True,
    ]


def test_a_mask_that_is_not_held_is_never_handed_on(make_network, data, mask, monkeypatch):
    monkeypatch.setattr(training._Steps, "hold", lambda steps: None)
    with pytest.raises(AssertionError, match="pruned weights of encoder"):
        fit(make_network(), data, PhaseConfig(epochs=1, batch_size=32), mask=mask)


# --- resuming ---------------------------------------------------------------------------------


class Killed(BaseException):
    """What a kill looks like from inside: nothing may catch it."""


def kill_at(network, n):
    """Raise in the n-th forward pass of training."""
    passes = 0

    def count(module, inputs):
        nonlocal passes
        passes += module.training
        if passes == n:
            raise Killed

    return network.register_forward_pre_hook(count)


def uninterrupted_and_resumed(make_network, data, phase, kills, path, **options):
    whole = make_network()
    expected = fit(whole, data, phase, **options)
    for n in kills:
        network = make_network()
        kill_at(network, n)
        with pytest.raises(Killed):
            fit(network, data, phase, save_to=path, fingerprint="f", **options)
    resumed = make_network()
    found = fit(resumed, data, phase, save_to=path, fingerprint="f", **options)
    return whole, expected, resumed, found


def without_seconds(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


@pytest.mark.parametrize("seconds", [-1.0, 1e9], ids=["every epoch", "only at the end"])
@pytest.mark.parametrize("kills", [[1], [7], [9], [26], [8, 14, 3]], ids=str)
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(
    make_network, data, view, mask, tmp_path, monkeypatch, name, kills, seconds
):
    # 3 steps an epoch with two passes each, and one validation pass that does not count
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", seconds)
    phase = PhaseConfig(
        epochs=5,
        batch_size=32,
        optimizer=SGD(lr=0.05, schedule="restarts") if name == "sgd" else OPTIMIZERS[name],
        contrastive_weight=1.0,
        snapshots=3,
    )
    path = tmp_path / "run" / "search.safetensors"
    options = {"view": view, "mask": mask, "keep_step": 4}
    whole, expected, resumed, found = uninterrupted_and_resumed(
        make_network, data, phase, kills, path, **options
    )
    assert same(resumed.state_dict(), whole.state_dict())
    assert same(found.kept, expected.kept)
    assert len(found.snapshots) == 3
    assert all(same(a, b) for a, b in zip(found.snapshots, expected.snapshots, strict=True))
    assert without_seconds(found.history) == without_seconds(expected.history)
    assert found.complete


@pytest.mark.parametrize("kill", range(1, 17, 3))
def test_a_kill_at_any_step_without_views_or_masks(make_network, data, tmp_path, monkeypatch, kill):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    phase = PhaseConfig(epochs=6, batch_size=32, optimizer=SGD(lr=0.05))
    whole, _, resumed, found = uninterrupted_and_resumed(
        make_network, data, phase, [kill], tmp_path / "x", keep_step=0
    )
    assert same(resumed.state_dict(), whole.state_dict())
    assert same(found.kept, make_network().state_dict())


def test_the_resumed_run_really_continues(make_network, data, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    phase, epochs = PhaseConfig(epochs=4, batch_size=32), []
    network = make_network()
    kill_at(network, 8)  # in the third epoch
    with pytest.raises(Killed):
        fit(network, data, phase, save_to=tmp_path / "x")
    fit(
        make_network(),
        data,
        phase,
        save_to=tmp_path / "x",
        progress=lambda row, _: epochs.append(row["epoch"]),
    )
    assert epochs == [3, 4]


def test_a_finished_phase_is_read_and_not_trained_again(make_network, data, tmp_path):
    phase = PhaseConfig(epochs=2, batch_size=32, optimizer=AdamW(), snapshots=2)
    first, second = make_network(), make_network(seed=5)
    done = fit(first, data, phase, save_to=tmp_path / "x", keep_step=2)
    again = fit(second, data, phase, save_to=tmp_path / "x", keep_step=2, progress=forbidden)
    assert same(second.state_dict(), first.state_dict())
    assert all(same(a, b) for a, b in zip(again.snapshots, done.snapshots, strict=True))
    assert same(again.kept, done.kept)
    assert again.complete


def test_a_checkpoint_of_another_run_is_refused(make_network, data, tmp_path):
    phase = PhaseConfig(epochs=1, batch_size=32)
    fit(make_network(), data, phase, save_to=tmp_path / "x", fingerprint="one")
    with pytest.raises(InputError, match="written by a run with other data or settings"):
        fit(make_network(), data, phase, save_to=tmp_path / "x", fingerprint="other")
    checkpoint.save(tmp_path / "y", {}, {})
    with pytest.raises(InputError, match="written by a run with other data or settings"):
        fit(make_network(), data, phase, save_to=tmp_path / "y", fingerprint="one")


def test_a_truncated_checkpoint_is_refused(make_network, data, tmp_path):
    phase = PhaseConfig(epochs=1, batch_size=32)
    fit(make_network(), data, phase, save_to=tmp_path / "x")
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-10])
    with pytest.raises(InputError, match="damaged, truncated or foreign"):
        fit(make_network(), data, phase, save_to=tmp_path / "x")


# --- the deadline, and losses that explode ------------------------------------------------------


def test_after_the_deadline_one_epoch_is_trained_whole(make_network, data):
    phase = PhaseConfig(epochs=5, batch_size=32, optimizer=SGD(lr=0.05))
    network, one_epoch = make_network(), make_network()
    late = fit(network, data, phase, deadline=time.monotonic() - 1)
    fit(one_epoch, data, PhaseConfig(epochs=1, batch_size=32, optimizer=SGD(lr=0.05)))
    assert [row["epoch"] for row in late.history] == [1]
    assert not late.complete
    assert same(network.state_dict(), one_epoch.state_dict())
    assert same(late.snapshots[-1], network.state_dict())


def test_the_deadline_stops_at_the_end_of_the_epoch_that_it_falls_in(
    make_network, data, monkeypatch
):
    now = 0.0

    class Clock:
        @staticmethod
        def monotonic():
            return now

    def progress(row, epochs):
        nonlocal now
        now = float(row["epoch"])

    monkeypatch.setattr(training, "time", Clock)
    phase = PhaseConfig(epochs=5, batch_size=32)
    early = fit(make_network(), data, phase, progress=progress, deadline=2.5)
    assert [row["epoch"] for row in early.history] == [1, 2, 3]
    assert not early.complete
    now = 0.0
    assert fit(make_network(), data, phase, progress=progress, deadline=4.0).complete


def test_a_run_that_its_deadline_ended_stays_ended(make_network, data, tmp_path):
    phase = PhaseConfig(epochs=5, batch_size=32)
    fit(make_network(), data, phase, save_to=tmp_path / "x", deadline=-math.inf)
    again = fit(make_network(), data, phase, save_to=tmp_path / "x", progress=forbidden)
    assert not again.complete
    assert len(again.history) == 1


def test_a_loss_that_explodes_names_phase_epoch_and_remedy(make_network, data, tmp_path):
    phase = PhaseConfig(epochs=30, batch_size=32, optimizer=SGD(lr=1e30))
    with pytest.raises(InputError, match=r"search diverged in epoch \d+ .*lower its learning rate"):
        fit(make_network(), data, phase, save_to=tmp_path / "x")
    assert not (tmp_path / "x").exists()


# --- batches, precision, what is left alone -----------------------------------------------------


@pytest.mark.parametrize("n", [2, 33, 65])
def test_a_last_row_alone_never_reaches_batchnorm(make_network, data, n):
    x, y = data.train
    network, sizes = make_network(), []
    network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    fit(network, Data(train=(x[:n], y[:n])), PhaseConfig(epochs=2, batch_size=32))
    assert min(sizes) >= 2
    assert sum(sizes) == 2 * n


@pytest.mark.parametrize("n", [1, 2, 5, 127, 128, 129, 300])
def test_outputs_of_a_row_are_the_same_to_the_bit_in_any_company(make_network, data, n):
    network = make_network(widths=(48, 40))
    fit(network, data, PhaseConfig(epochs=1, batch_size=32))
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(1))
    whole = outputs(network, x)
    for begin in (0, 1, 37, 150, 299):
        rows = torch.arange(begin, begin + n) % 300
        assert torch.equal(outputs(network, x[rows]), whole[rows])
    assert torch.equal(outputs(network, x.flip(0)), whole.flip(0))


def test_outputs_are_those_of_evaluation_mode_and_the_mode_comes_back(make_network, data):
    network, (x, _) = make_network().train(), data.train
    before = copy.deepcopy(network.state_dict())
    found = outputs(network, x)
    assert network.training
    assert same(network.state_dict(), before)
    with torch.no_grad():
        torch.testing.assert_close(found, network.eval()(x))
    outputs(network, x)
    assert not network.training
    assert outputs(network, x[:0]).shape == (0, 3)


def test_bf16_trains_float32_weights(make_network, data, view, mask):
    phase = PhaseConfig(
        epochs=10,
        batch_size=32,
        optimizer=SGD(lr=0.05),
        contrastive_weight=0.5,
        precision="bf16",
    )
    network, exact = make_network(), make_network()
    rough = fit(network, data, phase, view=view, mask=mask)
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert rough.history[-1]["validation_loss"] < rough.history[0]["validation_loss"]
    fit(exact, data, PhaseConfig(epochs=10, batch_size=32, optimizer=SGD(lr=0.05)))
    assert not same(network.state_dict(), exact.state_dict())


def test_bf16_stops_before_the_losses(make_network, data, view):
    seen = set()

    def loss(logits, y, weight):
        seen.add(logits.dtype)
        return objectives.cross_entropy(logits, y, weight)

    def contrastive(h, h_view, y, temperature):
        seen.update({h.dtype, h_view.dtype, (h @ h_view.T).dtype})
        return objectives.nce(h, h_view, y, temperature)

    phase = PhaseConfig(
        epochs=1, loss=loss, contrastive=contrastive, contrastive_weight=1.0, precision="bf16"
    )
    fit(make_network(), data, phase, view=view)
    assert seen == {torch.float32}


def test_the_global_generator_is_left_alone(make_network, data, view):
    network, dropping, state = make_network(), regularised(), torch.get_rng_state()
    fit(network, data, PhaseConfig(epochs=1, contrastive_weight=1.0), view=view)
    fit(dropping, data, PhaseConfig(epochs=1, mixup=0.4))
    assert torch.equal(torch.get_rng_state(), state)


def test_seeds_and_phase_names_are_streams_of_their_own(make_network, data):
    def run(**options):
        network = make_network()
        fit(network, data, PhaseConfig(epochs=1, batch_size=32), **options)
        return network.state_dict()

    assert same(run(), run())
    assert not same(run(), run(seed=1))
    assert not same(run(), run(name="finetune"))


def test_history_says_what_happened(make_network, data, view):
    phase = PhaseConfig(
        epochs=3, batch_size=32, optimizer=SGD(lr=0.1, schedule="cosine"), contrastive_weight=1.0
    )
    rows, network = [], make_network()
    trained = fit(network, data, phase, view=view, progress=lambda r, n: rows.append((r, n)))
    assert [row for row, _ in rows] == trained.history
    assert {n for _, n in rows} == {3}
    assert [row["epoch"] for row in trained.history] == [1, 2, 3]
    assert {row["phase"] for row in trained.history} == {"search"}
    assert [row["lr"] for row in trained.history] == pytest.approx([0.1, 0.075, 0.025])
    x, y = data.validation
    expected = objectives.cross_entropy(outputs(network, x), y)
    assert trained.history[-1]["validation_loss"] == float(expected)


def test_the_kept_step_is_the_state_after_so_many_steps(make_network, data):
    phase = PhaseConfig(epochs=2, batch_size=32, optimizer=SGD(lr=0.05))
    one_epoch, longer = make_network(), make_network()
    fit(one_epoch, data, PhaseConfig(epochs=1, batch_size=32, optimizer=SGD(lr=0.05)))
    assert same(fit(longer, data, phase, keep_step=3).kept, one_epoch.state_dict())
    start = make_network().state_dict()
    assert same(fit(make_network(), data, phase, keep_step=0).kept, start)
    assert fit(make_network(), data, phase, keep_step=7).kept is None


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("epochs", -1, "epochs must be at least 0"),
        ("batch_size", 1, "batch_size must be at least 2"),
        ("snapshots", 0, "snapshots must be at least 1"),
        ("snapshots", 2, "snapshots must be at most 1"),
        ("contrastive_weight", -1.0, "contrastive_weight must be at least 0"),
        ("contrastive_weight", math.nan, "contrastive_weight must be at least 0"),
        ("loss_weight", -0.1, "loss_weight must be at least 0"),
        ("mixup", -0.1, "mixup must be at least 0"),
        ("mixup", math.inf, "mixup must be at least 0"),
        ("temperature", 0.0, "temperature must be a positive number"),
        ("temperature", math.nan, "temperature must be a positive number"),
    ],
)
def test_impossible_phases_are_refused(option, value, rule):
    with pytest.raises(InputError, match=rule):
        PhaseConfig(**{option: value})


# --- PIS is a learning-rate multiplier ----------------------------------------------------------


@pytest.mark.parametrize("kappa", [0.5, 0.25, 0.0625])
def test_pis_equals_a_larger_learning_rate_on_the_encoder(make_network, data, view, kappa):
    # in the limit of a small BatchNorm epsilon, kappa a power of two: to the bit
    def network(scale):
        made = make_network().double()
        for module in made.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eps = 1e-30
        for name in ENCODER:
            made.get_parameter(name).data.mul_(scale)
        return made

    def phase(optimizer):
        return PhaseConfig(epochs=4, batch_size=32, optimizer=optimizer, contrastive_weight=1.0)

    x, y = data.train
    table = Data(train=(x.double(), y))

    def double_view(x, generator):
        return view(x.float(), generator).double()

    small, plain = network(kappa), network(1.0)
    fit(small, table, phase(SGD(lr=0.01)), view=double_view)
    fit(plain, table, phase(SGD(lr=0.01, encoder_lr=0.01 / kappa**2)), view=double_view)
    start = network(1.0)
    for name, weight in plain.named_parameters():
        factor = kappa if name in ENCODER else 1.0
        assert torch.equal(small.get_parameter(name), factor * weight)
        assert not torch.equal(weight, start.get_parameter(name))


# --- watching and statistics ---------------------------------------------------------------------


def test_what_is_watched_joins_the_history_and_changes_nothing(make_network, data):
    phase = PhaseConfig(epochs=3, batch_size=32)
    plain, watched = make_network(), make_network()
    fit(plain, data, phase)

    def watch(network, epoch):
        return {"first": float(network.encoder[0].weight[0, 0].detach()), "seen": epoch}

    trained = fit(watched, data, phase, watch=watch)
    assert same(plain.state_dict(), watched.state_dict())
    firsts = [row["first"] for row in trained.history]
    assert len(set(firsts)) == 3
    assert [row["seen"] for row in trained.history] == [1, 2, 3]
    assert firsts[-1] == float(watched.encoder[0].weight[0, 0].detach())


def test_reestimated_statistics_are_the_mean_over_shuffled_batches(make_network, data):
    x = data.train[0]
    network = make_network()
    before = copy.deepcopy(network)
    training.reestimate_statistics_(network, x, batch_size=40)
    first = before.encoder[0](x).detach()
    order = torch.randperm(len(x), generator=stream(0, "statistics"))
    parts = [first[rows] for rows in (order[:40], order[40:80], order[80:])]
    batchnorm = network.encoder[1]
    assert torch.allclose(batchnorm.running_mean, torch.stack([p.mean(0) for p in parts]).mean(0))
    spread = torch.stack([p.var(0) for p in parts]).mean(0)
    assert torch.allclose(batchnorm.running_var, spread)
    assert batchnorm.momentum == before.encoder[1].momentum
    assert network.training == before.training
    for (name, one), other in zip(network.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_reestimated_statistics_do_not_depend_on_rows_that_are_sorted(make_network):
    """Batches of one class each would leave out what lies between the classes."""
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    x += 4 * torch.arange(400).div(100, rounding_mode="floor")[:, None]  # sorted by class
    network = make_network()
    whole = network.encoder[0](x).detach()
    training.reestimate_statistics_(network, x, batch_size=100)
    ratio = network.encoder[1].running_var / whole.var(0)
    assert float((ratio - 1).abs().max()) < 0.1


def test_reestimated_statistics_are_of_what_evaluation_sees(data):
    x = data.train[0]
    dropping, plain = regularised(), MLP(6, 3, widths=(16, 16), skip=True)
    plain.load_state_dict(dropping.state_dict())
    state = torch.get_rng_state()
    for network in (dropping, plain):
        training.reestimate_statistics_(network, x, batch_size=40)
    assert same(dropping.state_dict(), plain.state_dict())
    assert all(module.training for module in dropping.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_reestimated_statistics_never_see_a_batch_of_one(make_network):
    network = make_network()
    training.reestimate_statistics_(network, torch.randn(33, 6), batch_size=32)
    assert all(torch.isfinite(t).all() for t in network.state_dict().values())


# --- phases by steps, later first steps, curves --------------------------------------------------

PLAIN = SGD(lr=0.05, momentum=0.0, nesterov=False, schedule="cosine")


def n_passes(network):
    """Return a list that grows by one in every training pass."""
    seen = []
    network.register_forward_pre_hook(lambda m, _: seen.append(1) if m.training else None)
    return seen


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_a_phase_by_steps_takes_so_many_and_no_more(make_network, data, n):
    network = make_network()
    seen = n_passes(network)
    phase = PhaseConfig(steps=n, batch_size=32, optimizer=SGD(lr=0.05))
    trained = fit(network, data, phase)
    assert (phase.n_steps(97), phase.n_epochs(97)) == (n, -(-n // 3))
    assert len(seen) == n
    assert len(trained.history) == -(-n // 3)
    assert trained.complete
    # with a constant learning rate it is the beginning of a longer phase
    longer = make_network()
    kept = fit(longer, data, replace(phase, steps=None, epochs=3), keep_step=n).kept
    assert same(network.state_dict(), kept)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "restarts"])
def test_as_many_steps_as_epochs_have_are_those_epochs_to_the_bit(make_network, data, schedule):
    by_epochs = PhaseConfig(epochs=5, batch_size=32, optimizer=SGD(lr=0.05, schedule=schedule))
    by_steps = replace(by_epochs, epochs=105, steps=5 * 3)
    one, other = make_network(), make_network()
    first, second = fit(one, data, by_epochs), fit(other, data, by_steps)
    assert same(one.state_dict(), other.state_dict())
    assert without_seconds(first.history) == without_seconds(second.history)
    assert by_steps.n_epochs(97) == 5


@pytest.mark.parametrize("kills", [[1], [4], [7], [8], [5, 3, 1]], ids=str)
@pytest.mark.parametrize("first_step", [0, 2])
def test_a_phase_by_steps_and_its_curve_resume_to_the_bit(
    make_network, data, tmp_path, monkeypatch, kills, first_step
):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    phase = PhaseConfig(steps=10, batch_size=32, optimizer=AdamW(lr=3e-3))

    def follow(network, step):
        return {"out": float(outputs(network, data.validation[0]).sum())}

    whole, expected, resumed, found = uninterrupted_and_resumed(
        make_network, data, phase, kills, tmp_path / "x",
        keep_step=5, first_step=first_step, follow=follow, every=2,
    )  # fmt: skip
    assert same(resumed.state_dict(), whole.state_dict())
    assert same(found.kept, expected.kept)
    assert without_seconds(found.history) == without_seconds(expected.history)
    assert found.curve == expected.curve
    assert [row["step"] for row in found.curve] == list(range(first_step, 11, 2))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"steps": 0}, "got 0 and 1"),
        ({"steps": -3}, "got -3 and 1"),
        ({"steps": 5, "snapshots": 2, "optimizer": AdamW()}, "got 5 and 2"),
    ],
)
def test_impossible_steps_are_refused(options, told):
    rule = "steps must be at least 1, beside one snapshot, "
    with pytest.raises(InputError, match=rule + told):
        PhaseConfig(**options)


def test_no_epochs_are_no_steps():
    assert PhaseConfig(steps=5, epochs=0) == PhaseConfig(epochs=0)


@pytest.mark.parametrize("k", [0, 1, 2, 3, 5, 6, 9, 11, 12])
@pytest.mark.parametrize("phase", [{"epochs": 4}, {"steps": 11}], ids=str)
def test_from_step_k_on_training_is_the_uninterrupted_one_to_the_bit(make_network, data, phase, k):
    """Without momentum the optimizer holds nothing: weights, batches and rates are all."""
    phase = PhaseConfig(batch_size=32, optimizer=PLAIN, **phase)
    n_steps = phase.n_steps(97)
    if k > n_steps:
        with pytest.raises(InputError, match=r"search must begin within its 11 steps, got step 12"):
            fit(make_network(), data, phase, first_step=k)
        return
    whole, later = make_network(), make_network(seed=1)
    expected = fit(whole, data, phase, keep_step=k)
    later.load_state_dict(expected.kept)
    seen = n_passes(later)
    found = fit(later, data, phase, first_step=k)
    assert len(seen) == n_steps - k
    assert same(later.state_dict(), whole.state_dict())
    assert found.complete
    whole_epochs = -(-k // 3)  # of which at least a part is trained, and those all of which is
    rows = [(row["epoch"], row["lr"]) for row in found.history]
    assert rows == [(row["epoch"], row["lr"]) for row in expected.history][k // 3 :][: len(rows)]
    assert len(rows) == (0 if k == n_steps else len(expected.history) - k // 3)
    n_whole = len(expected.history) - whole_epochs
    assert (
        without_seconds(found.history)[len(rows) - n_whole :]
        == (without_seconds(expected.history)[whole_epochs:])
    )


def test_from_the_end_of_an_epoch_views_and_dropout_continue_to_the_bit(data, view):
    for options in ({"contrastive_weight": 1.0}, {"mixup": 0.4}):
        phase = PhaseConfig(epochs=3, batch_size=32, optimizer=PLAIN, **options)
        whole, later = regularised(), regularised(seed=1)
        later.load_state_dict(fit(whole, data, phase, view=view, keep_step=6).kept)
        fit(later, data, phase, view=view, first_step=6)
        assert same(later.state_dict(), whole.state_dict())


@pytest.mark.parametrize("first_step", [-1, 7])
def test_a_first_step_outside_the_phase_is_refused_in_one_line(make_network, data, first_step):
    phase = PhaseConfig(epochs=2, batch_size=32)
    with pytest.raises(InputError, match=rf"within its 6 steps, got step {first_step}; ") as err:
        fit(make_network(), data, phase, first_step=first_step)
    assert "\n" not in str(err.value)


def test_after_the_deadline_one_epoch_is_trained_from_a_later_step_too(make_network, data):
    phase = PhaseConfig(epochs=5, batch_size=32)
    late = fit(make_network(), data, phase, first_step=7, deadline=-math.inf)
    assert [row["epoch"] for row in late.history] == [3]
    assert not late.complete


def test_a_phase_can_have_the_streams_of_another(view, data):
    states = []
    for name, streams in (("search", None), ("finetune", "search"), ("finetune", None)):
        network = regularised()  # dropout, views and order are all drawn
        phase = PhaseConfig(epochs=2, batch_size=32, contrastive_weight=1.0)
        trained = fit(network, data, phase, name=name, stream_name=streams, view=view)
        states.append(network.state_dict())
        assert {row["phase"] for row in trained.history} == {name}
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


@pytest.mark.parametrize(
    ("n", "every", "first", "steps"),
    [
        (7, 3, 0, [0, 3, 6, 7]),
        (6, 3, 0, [0, 3, 6]),
        (7, 100, 0, [0, 7]),
        (7, 3, 4, [4, 6, 7]),
        (7, 1, 5, [5, 6, 7]),
        (7, 3, 7, [7]),
        (7, 7, 0, [0, 7]),
    ],
)
def test_a_curve_has_a_row_first_and_last_and_every_so_many_steps(
    data, view, n, every, first, steps
):
    phase = PhaseConfig(steps=n, batch_size=32, contrastive_weight=1.0)
    plain, followed = regularised(), regularised()
    x, y = data.validation

    def follow(network, step):
        assert network is followed
        loss = objectives.cross_entropy(outputs(network, x, tile=40), y, None)
        return {"loss": float(loss), "count": step}

    kept = {k: fit(regularised(), data, phase, view=view, first_step=first, keep_step=k).kept
            for k in steps[1:]}  # fmt: skip
    assert fit(plain, data, phase, view=view, first_step=first).curve == []
    trained = fit(followed, data, phase, view=view, first_step=first, follow=follow, every=every)
    assert same(followed.state_dict(), plain.state_dict())
    assert [row["step"] for row in trained.curve] == steps
    assert {row["phase"] for row in trained.curve} == {"search"}
    for row in trained.curve[1:]:  # each row is of the network after so many steps
        twin = regularised()
        twin.load_state_dict(kept[row["step"]])
        assert row["loss"] == float(objectives.cross_entropy(outputs(twin, x, tile=40), y, None))
        assert row["count"] == row["step"]


def test_a_curve_that_begins_after_an_interruption_claims_no_first_step(
    make_network, data, tmp_path, monkeypatch
):
    """The first step was not followed, and the state that it was of is gone."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    phase = PhaseConfig(epochs=3, batch_size=32)
    network = make_network()
    kill_at(network, 5)
    with pytest.raises(Killed):
        fit(network, data, phase, save_to=tmp_path / "x")
    resumed = fit(
        make_network(), data, phase, save_to=tmp_path / "x", follow=lambda *_: {}, every=2
    )
    assert [row["step"] for row in resumed.curve] == [4, 6, 8, 9]


@pytest.mark.parametrize("tile", [1, 7, 128, 1000])
def test_outputs_in_other_tiles_are_the_same_but_for_rounding(make_network, data, tile):
    network, x = make_network(), data.train[0]
    sizes = []
    network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    found = outputs(network, x, tile=tile)
    assert sizes == [tile] * -(-97 // tile)
    torch.testing.assert_close(found, outputs(network, x))
    assert torch.equal(outputs(network, x[5:9], tile=tile), found[5:9])
