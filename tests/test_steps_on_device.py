"""Steps that leave the device alone: nothing is read back, copied over, or recorded wrongly."""

import copy
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from secateurs import Data, TicketConfig, find_ticket, masks, training
from secateurs.data import image_views, views
from secateurs.device import Replayed
from secateurs.errors import InputError
from secateurs.networks.conv import CNN, MLPVis
from secateurs.networks.dense import MLP
from secateurs.networks.init import initialise_, prunable
from secateurs.networks.pixels import Normalise
from secateurs.networks.resnet import ResNet18
from secateurs.optimizers import SGD, AdamW, BetaLasso
from secateurs.training import PhaseConfig, train

GPU = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ],
)
DEVICES = ["cpu", GPU]
NETWORKS = {
    "mlp_vis": lambda normalise: MLPVis(1, size=8, n_outputs=4, normalise=normalise),
    "cnn": lambda normalise: CNN(1, size=8, n_outputs=4, normalise=normalise),
    "resnet18": lambda normalise: ResNet18(n_outputs=4, width=2, normalise=normalise),
}
VIEWS = {"shift": views.shift(2), "simclr": image_views.simclr()}


def seeded(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def made(name="mlp_vis"):
    network = NETWORKS[name](Normalise([0.5] * 3, [0.25] * 3))
    initialise_(network, generator=seeded())
    return network


def images(n, device="cpu"):
    x = torch.randint(256, (n, 3, 8, 8), dtype=torch.uint8, generator=seeded(1))
    return Data(train=(x, x.flatten(1)[:, :4].argmax(1))).to(torch.device(device))


def half(network):
    """A mask of the encoder at density one half."""
    return {
        name: (torch.rand(weight.shape, generator=seeded(2)) < 0.5).to(weight.device)
        for name, weight in prunable(network, only="encoder.*").items()
    }


def fit(network, data, phase, **options):
    options = {"name": "search", "seed": 0, "prunable": list(half(network)), **options}
    return train(network, data, phase, **options)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


# --- nothing is read back ---------------------------------------------------------------------


class Host(TorchDispatchMode):
    """Counts what makes the host wait for the device, or moves tensors between the two."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "_unique2", "equal")
    COPIES = ("_to_copy", "copy_")

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        inputs, found = tree_leaves((args, kwargs)), tree_leaves(out)
        tensors = [leaf for leaf in (*inputs, *found) if isinstance(leaf, torch.Tensor)]
        booleans = [t for t in tree_leaves(args[1:]) if isinstance(t, torch.Tensor)]
        # rows picked by a mask: how many there are is known on the device only
        picks = name in ("index", "index_put", "index_put_")
        if name in self.WAITS or (picks and any(t.dtype == torch.bool for t in booleans)):
            self.seen[name] += 1
        if name in self.COPIES and len({t.device.type for t in tensors}) > 1:
            self.seen["between devices"] += 1
        return out


def seen_in_an_epoch(n_steps, device, phase, **options):
    """What the host saw in one epoch of so many steps, the making of the phase included."""
    network, data = made().to(device), images(16 * n_steps, device)
    mask = half(network) if options.pop("masked") else None
    with Host() as host:
        fit(network, data, replace(phase, epochs=1, batch_size=16), mask=mask, **options)
    return host.seen


def per_step(device, phase, **options):
    few, many = (seen_in_an_epoch(n, device, phase, **options) for n in (2, 7))
    assert few  # an epoch reads its mean losses once, and is seen to
    return many - few


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("view", sorted(VIEWS))
def test_a_step_of_ilo_never_waits_for_the_device(device, precision, view):
    phase = PhaseConfig(optimizer=SGD(lr=0.01), contrastive_weight=1.0, precision=precision)
    assert not per_step(device, phase, view=VIEWS[view], masked=False)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("optimizer", [SGD(lr=0.01), AdamW(), BetaLasso(lr=0.01)], ids=str)
def test_a_step_of_masked_finetuning_never_waits_for_the_device(device, optimizer):
    assert not per_step(device, PhaseConfig(optimizer=optimizer), masked=True)


@pytest.mark.parametrize(
    ("wait", "told"),
    [
        (lambda x: x * float(x.float().mean()), "_local_scalar_dense"),
        (lambda x: x * bool((x > 0).any()), "_local_scalar_dense"),
        (lambda x: x[torch.ones(len(x), dtype=torch.bool, device=x.device)], "index"),
        (lambda x: x[(x.flatten(1).float().sum(1) >= 0).nonzero().squeeze(1)], "nonzero"),
    ],
)
def test_a_step_that_waits_would_be_seen(wait, told):
    phase = PhaseConfig(optimizer=SGD(lr=0.01), contrastive_weight=1.0)
    waits = per_step("cpu", phase, view=lambda x, generator: wait(x), masked=False)
    assert waits[told] == 5  # the steps that one of the epochs has more than the other


@pytest.mark.parametrize("device", [GPU])
def test_a_step_that_copies_would_be_seen(device):
    phase = PhaseConfig(optimizer=SGD(lr=0.01), contrastive_weight=1.0)
    found = per_step(device, phase, view=lambda x, g: x.cpu().to(x.device), masked=False)
    assert found["between devices"] == 10


# --- 16 bits except BatchNorm -----------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_bf16_keeps_batchnorm_and_the_weights_in_32_bits(device, name):
    network, kinds, errors = made(name).to(device), set(), []

    def compare(module, inputs, _out):
        x = inputs[0].detach()
        kinds.add(x.dtype)
        mean = x.double().transpose(0, 1).flatten(1).mean(1)
        # momentum 1: the statistics are those of this batch, as 32 bits have them and 16 do not
        errors.append(float((module.running_mean.double() - mean).abs().max() / mean.abs().max()))

    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for module in norms:
        module.momentum = 1.0
        module.register_forward_hook(compare)
    phase = PhaseConfig(epochs=1, batch_size=32, optimizer=SGD(lr=0.05), precision="bf16")
    fit(network, images(32, device), phase, mask=half(network))
    assert kinds == {torch.bfloat16}  # the layers before them are in 16 bits
    assert len(errors) == len(norms)
    assert max(errors) < 1e-5  # bfloat16 rounds to 4e-3
    assert {t.dtype for t in network.state_dict().values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("optimizer", [SGD(lr=0.05, weight_decay=1e-2), AdamW()], ids=str)
def test_masks_hold_in_bf16_and_what_is_kept_learns(device, optimizer):
    network = made().to(device)
    mask, start = half(network), copy.deepcopy(network.state_dict())
    phase = PhaseConfig(epochs=3, batch_size=16, optimizer=optimizer, precision="bf16")
    history = fit(network, images(64, device), phase, mask=mask).history
    masks.check_held(network, mask)
    for name, kept in mask.items():
        assert (network.get_parameter(name)[kept] != start[name][kept]).float().mean() > 0.9
    assert history[-1]["loss"] < history[0]["loss"]


# --- recorded steps ---------------------------------------------------------------------------


def test_equal_batches_come_in_one_buffer_and_others_as_they_are():
    seen = []

    def step(rows):
        seen.append((rows.data_ptr(), rows.tolist()))
        return rows * 2, None

    replayed = Replayed(step)
    batches = [torch.arange(begin, min(begin + 4, 18)) for begin in range(0, 18, 4)]
    results = [replayed(rows) for rows in batches]
    assert [rows for _, rows in seen] == [rows.tolist() for rows in batches]
    assert len({at for at, _ in seen[:4]}) == 1
    assert not {at for at, _ in seen} & {rows.data_ptr() for rows in batches[:4]}
    assert seen[4][0] == batches[4].data_ptr()
    assert [out.tolist() for out, _ in results] == [(rows * 2).tolist() for rows in batches]
    assert all(nothing is None for _, nothing in results)


def dropping():
    network = MLP(192, 4, widths=(16, 16), dropout=0.3)
    initialise_(network, generator=seeded())
    return network


def rows_of(data):
    x, y = data.train
    return Data(train=(x.flatten(1) / 255, y), weight=1 + y)


def noise(x, generator):
    return x + 0.1 * torch.randn(x.shape, generator=generator, device=x.device)


RECORDED = {
    "ilo": PhaseConfig(optimizer=SGD(lr=0.05, schedule="cosine"), contrastive_weight=1.0),
    "bf16": PhaseConfig(optimizer=SGD(lr=0.05), precision="bf16", contrastive_weight=1.0),
    "finetune": PhaseConfig(optimizer=AdamW(lr=3e-3)),
    "beta-lasso": PhaseConfig(optimizer=BetaLasso(lr=0.05, l1=1e-4)),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n", [160, 150, 145], ids="{} rows".format)  # 145: the last has one more
@pytest.mark.parametrize("kind", RECORDED)
def test_recorded_steps_are_the_steps(device, kind, n):
    phase = replace(RECORDED[kind], epochs=3, batch_size=16)
    data, found = rows_of(images(n, device)), []
    for graphed in (False, True):
        network = dropping().to(device)
        trained = fit(
            network, data, phase, view=noise, mask=half(network), keep_step=13, graphed=graphed
        )
        history = [{k: v for k, v in r.items() if k != "seconds"} for r in trained.history]
        found.append((network.state_dict(), trained.kept, history))
    (state, kept, history), (other, other_kept, other_history) = found
    if device == "cpu":
        assert same(state, other)
        assert same(kept, other_kept)
        assert history == other_history
    else:  # libraries may choose other kernels for what is recorded
        for name, tensor in state.items():
            torch.testing.assert_close(tensor, other[name], rtol=1e-2, atol=1e-3)
        for one, two in zip(history, other_history, strict=True):
            assert one == pytest.approx(two, rel=1e-3)


def test_a_ticket_is_searched_and_finetuned_by_recorded_steps(monkeypatch):
    calls = []

    class Counted(Replayed):
        def __call__(self, rows):
            calls.append(len(rows))
            return super().__call__(rows)

    monkeypatch.setattr(training, "Replayed", Counted)
    search = PhaseConfig(epochs=1, batch_size=16, contrastive_weight=1.0)
    config = TicketConfig(search=search, finetune=PhaseConfig(epochs=1, batch_size=32))
    data, states = rows_of(images(64)), []
    for graphed in (False, True):
        ticket = find_ticket(dropping(), data, config, view=noise, device="cpu", graphed=graphed)
        states.append(ticket.network.state_dict())
    assert calls == [16] * 4 + [32] * 2
    assert same(*states)


def test_mixtures_are_not_recorded():
    with pytest.raises(InputError, match=r"graphed must be False beside it, got mixup=0.4; ") as e:
        fit(dropping(), rows_of(images(32)), PhaseConfig(mixup=0.4), graphed=True)
    assert "\n" not in str(e.value)
