import copy
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F

from secateurs import device
from secateurs.errors import InputError
from secateurs.optimizers import SGD
from secateurs.training import PhaseConfig, train

CPU = torch.device("cpu")


@pytest.fixture
def afresh():
    """Let the self-test run again in this test and after it."""
    device.onednn_is_exact.cache_clear()
    yield
    device.onednn_is_exact.cache_clear()


@pytest.fixture
def on_amd(monkeypatch, afresh):
    monkeypatch.setattr(device, "_is_amd_avx512", lambda: True)


def broken(*_):
    raise RuntimeError("no such operator")


def imprecise(x, weight, bias):
    return F.linear(x, weight, bias) * (1 + 1e-4)


def gradients(network, x, y, context):
    network = copy.deepcopy(network)
    with context:
        loss = F.cross_entropy(network(x), y)
        loss.backward()
    return [loss.detach(), *(p.grad for p in network.parameters())]


def test_the_fast_linear_layer_gives_the_same_gradients(make_network, data):
    if not device.onednn_is_exact():
        pytest.skip("oneDNN's linear layer is not usable here")
    network, (x, y) = make_network(widths=(64, 48)), data.train
    slow = gradients(network, x, y, nullcontext())
    fast = gradients(network, x, y, device._FastLinear())
    for one, other in zip(slow, fast, strict=True):
        assert float((one - other).norm() / one.norm()) <= 1e-6


def test_the_fast_linear_layer_is_used_where_it_pays(monkeypatch, on_amd, make_network, data):
    calls = []

    def counted(x, weight, bias):
        calls.append(tuple(weight.shape))
        return F.linear(x, weight, bias)

    monkeypatch.setattr(device, "_onednn", counted)
    network, (x, y) = make_network(), data.train
    gradients(network, x, y, device.arithmetic("fp32", CPU))
    # the self-test's three; 3 forward, 3 for the weights, 2 for the inputs (the table's has none)
    assert len(calls) == 3 + 3 + 3 + 2


def test_float64_never_takes_the_fast_layer(monkeypatch, make_network, data):
    monkeypatch.setattr(device, "_onednn", broken)
    network, (x, y) = make_network().double(), data.train
    assert gradients(network, x.double(), y, device._FastLinear())[0].dtype == torch.float64


@pytest.mark.parametrize("operator", [broken, imprecise])
def test_without_an_exact_operator_training_falls_back(
    monkeypatch, on_amd, make_network, data, operator
):
    monkeypatch.setattr(device, "_onednn", operator)
    assert device.onednn_is_exact() is False
    phase = PhaseConfig(epochs=1, batch_size=32, optimizer=SGD(lr=0.1))
    fallen_back, plain = make_network(), make_network()
    train(fallen_back, data, phase, name="search", seed=0)
    monkeypatch.setattr(device, "_is_amd_avx512", lambda: False)
    train(plain, data, phase, name="search", seed=0)
    for one, other in zip(fallen_back.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


def test_training_on_the_fast_layer_stays_close_to_torchs_own(on_amd, make_network, data):
    phase = PhaseConfig(epochs=2, batch_size=32, optimizer=SGD(lr=0.01))
    fast, plain = make_network(), make_network()
    train(fast, data, phase, name="search", seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "_is_amd_avx512", lambda: False)
        train(plain, data, phase, name="search", seed=0)
    for one, other in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_the_context_is_left_behind(on_amd):
    with device.arithmetic("fp32", CPU):
        pass
    weight = torch.ones(2, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "_onednn", broken)
        assert F.linear(weight, weight).sum() == 8


def test_bf16_is_autocast():
    x = torch.ones(2, 2)
    with device.arithmetic("bf16", CPU):
        assert F.linear(x, x).dtype == torch.bfloat16
    assert F.linear(x, x).dtype == torch.float32


def test_unknown_precision_lists_the_choices():
    with pytest.raises(InputError, match="'fp32' or 'bf16', got 'fp16'"):
        device.arithmetic("fp16", CPU)


@pytest.mark.parametrize("name", ["gpu0", "cpu:x", "cuda:99", "meta", 3.5])
def test_devices_that_are_not_here_are_refused(name):
    with pytest.raises(InputError, match="device must be one that this machine has"):
        device.pick(name)


def test_devices_that_are_here_are_taken():
    assert device.pick("cpu") == device.pick(CPU) == CPU
    assert device.pick(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
