"""Finished networks come back from the store as they were, regularised ones too."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from secateurs import masks
from secateurs.checkpoint import save
from secateurs.data.views import corruption
from secateurs.experiments.rows import prepare
from secateurs.experiments.run import run
from secateurs.experiments.spec import ImageRows, Rows, TicketCell, key
from secateurs.experiments.store import Store
from secateurs.experiments.trained import blank, probabilities, trained
from secateurs.networks.dense import MLP, Dropout
from secateurs.networks.init import initialise_
from secateurs.networks.lenet import LeNet300100
from secateurs.networks.pixels import Normalise
from secateurs.optimizers import SGD, AdamW
from secateurs.preparation import groups
from secateurs.seeds import stream
from secateurs.tabular import start_network
from secateurs.tickets import TicketConfig, find_ticket
from secateurs.training import PhaseConfig, outputs

ROWS = Rows(dataset="sklearn:wine", validation_folds=4)
IUNET = TicketConfig(
    search=PhaseConfig(epochs=3, optimizer=SGD(lr=0.05), contrastive_weight=1.0, batch_size=32),
    finetune=PhaseConfig(epochs=7, optimizer=AdamW(), batch_size=32),
    compression=4.0,
)
CELL = TicketCell(rows=ROWS, config=IUNET, widths=(16, 16), seed=3)


def test_a_regularised_network_comes_back_from_the_store(tmp_path):
    store = Store(tmp_path)
    finetune = replace(IUNET.finetune, mixup=0.4)
    regularised = {"dropout": 0.2, "skip": True}
    cell = replace(CELL, config=replace(IUNET, finetune=finetune), **regularised)
    assert not run([cell], store, device="cpu").failed
    prepared = prepare(ROWS)
    network = start_network(13, 3, (16, 16), seed=3, **regularised)
    view = corruption(prepared.data.train[0], groups(prepared.preparation), rate=0.6)
    ticket = find_ticket(network, prepared.data, cell.config, seed=3, view=view, device="cpu")
    found, _ = trained(store, key(cell))
    x = prepared.test[0]
    assert torch.equal(outputs(found, x), outputs(ticket.network, x))
    proba = outputs(found, x).double().softmax(1).numpy()
    assert np.allclose(probabilities(store, key(cell))["test"], proba, atol=1e-7)
    assert [m.p for m in found.modules() if isinstance(m, Dropout)] == [0.2, 0.2]
    plain = MLP(13, 3, widths=(16, 16))  # the weights fit it, and it is another network
    plain.load_state_dict(found.state_dict())
    assert not torch.allclose(outputs(plain, x), outputs(found, x), atol=1e-3)


def test_what_was_kept_before_there_were_regularisers_comes_back(tmp_path):
    store = Store(tmp_path)
    assert not run([CELL], store, device="cpu").failed
    tensors, meta = store.tensors(key(CELL))
    before = {name: told for name, told in meta.items() if name not in ("dropout", "skip")}
    assert len(before) == len(meta) - 2
    save(store.folder(key(CELL)) / "ticket.safetensors", tensors, before)
    found, _ = trained(store, key(CELL))
    proba = outputs(found, prepare(ROWS).test[0]).double().softmax(1).numpy()
    assert np.allclose(probabilities(store, key(CELL))["test"], proba, atol=1e-7)


def test_the_lenet_of_images_comes_back_from_the_store(tmp_path):
    store = Store(tmp_path)
    rows = ImageRows(dataset="sklearn:digits", n_validation=100, n_train=100)
    phase = PhaseConfig(steps=20, batch_size=30, optimizer=AdamW(lr=5e-3, schedule="constant"))
    for only in (("*",), None):
        config = TicketConfig(search=phase, finetune=phase, compression=4.0, only=only)
        cell = TicketCell(
            rows=rows, config=config, widths=(20, 10), network="lenet_300_100", seed=3
        )
        assert not run([cell], store, device="cpu").failed
        found, mask = trained(store, key(cell))
        assert isinstance(found, LeNet300100)
        assert not found.training
        names = ["encoder.1.weight", "encoder.3.weight", *(["decoder.weight"] if only else [])]
        assert list(mask) == names
        masks.check_held(found, mask)
        for name in names:
            assert (found.get_parameter(name) != 0).equal(mask[name])
        prepared = prepare(rows)
        proba = outputs(found, prepared.test[0]).softmax(1)
        told = probabilities(store, key(cell))
        assert set(told) == {"test", "validation"}
        assert np.allclose(told["test"], proba, atol=1e-6)
        accuracy = (proba.argmax(1) == prepared.test[1]).double().mean()
        assert store.result(key(cell))["test"]["accuracy"] == pytest.approx(float(accuracy))
        network = LeNet300100(64, 10, widths=(20, 10))
        initialise_(network, generator=stream(3, "init"))
        ticket = find_ticket(network, prepared.data, config, seed=3, device="cpu")
        assert all(
            torch.equal(found.state_dict()[name], t)
            for name, t in ticket.network.state_dict().items()
        )


@pytest.mark.parametrize("network", ["mlp", "lenet_300_100"])
def test_a_blank_network_has_shapes_and_no_memory(network):
    state = torch.get_rng_state()
    found = blank(network, (12,), 3, widths=(8, 5))
    assert all(p.is_meta for p in found.parameters())
    assert found.decoder.weight.shape == (3, 5)
    assert torch.equal(torch.get_rng_state(), state)


IMAGE_NETWORKS = ("mlp_vis", "cnn", "resnet18", "resnet18_cifar", "lenet_300_100")


@pytest.mark.parametrize("network", IMAGE_NETWORKS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 12)])
def test_a_blank_network_of_images_normalises_by_nothing_yet(network, shape):
    state = torch.get_rng_state()
    widths = (20, 10) if network == "lenet_300_100" else (2,)
    found = blank(network, shape, 5, widths=widths, raw=True)
    assert all(t.is_meta for t in found.state_dict().values())
    (pixels,) = [module for module in found.modules() if isinstance(module, Normalise)]
    assert pixels.mean.shape == pixels.std.shape == (shape[0], 1, 1)
    assert found.decoder.weight.shape[0] == 5
    assert torch.equal(torch.get_rng_state(), state)
    assert found(torch.zeros(2, *shape, device="meta", dtype=torch.uint8)).shape == (2, 5)


def test_only_networks_of_raw_images_normalise():
    for network, inputs in (("mlp", (12,)), ("lenet_300_100", (1, 4, 4))):
        found = blank(network, inputs, 3, widths=(8, 5))
        assert not any(isinstance(module, Normalise) for module in found.modules())


@pytest.mark.parametrize("network", ["mlp_vis", "cnn", "lenet_300_100"])
def test_a_network_of_raw_images_comes_back_with_its_statistics(tmp_path, network):
    store = Store(tmp_path)
    rows = ImageRows(dataset="sklearn:digits", n_validation=0, n_train=60, raw=True)
    phase = PhaseConfig(steps=2, batch_size=30, optimizer=SGD(lr=0.05))
    widths = (20, 10) if network == "lenet_300_100" else (1,)
    config = TicketConfig(search=phase, finetune=phase, compression=4.0)
    cell = TicketCell(rows=rows, config=config, network=network, widths=widths, seed=3)
    assert not run([cell], store, device="cpu").failed
    prepared = prepare(rows)
    found, mask = trained(store, key(cell))
    assert not found.training
    masks.check_held(found, mask)
    (pixels,) = [module for module in found.modules() if isinstance(module, Normalise)]
    filled = Normalise(*prepared.pixels)
    assert torch.equal(pixels.mean, filled.mean)
    assert torch.equal(pixels.std, filled.std)
    x = prepared.test[0]
    assert x.dtype == torch.uint8
    proba = outputs(found, x).softmax(1)
    assert np.allclose(probabilities(store, key(cell))["test"], proba, atol=1e-6)
    with torch.no_grad():  # an image in floats is the same image
        assert torch.allclose(found(x[:9].float()), found(x[:9]), atol=1e-5)
