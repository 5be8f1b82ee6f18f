import copy
import pickle
from itertools import product

import pytest
import torch
from torch import nn

from secateurs.errors import InputError
from secateurs.networks import NETWORKS
from secateurs.networks.dense import MLP, MLP_TAB, Dropout, drawing_from, mlp_tab
from secateurs.networks.init import initialise_


def test_mlp_tab_is_nine_hidden_layers_of_512_with_a_linear_head():
    network = mlp_tab(20, 4)
    kinds = [type(module) for module in network.encoder]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 9
    assert MLP_TAB == (512,) * 9
    shapes = [tuple(m.weight.shape) for m in network.encoder if isinstance(m, nn.Linear)]
    assert shapes == [(512, 20)] + [(512, 512)] * 8
    assert isinstance(network.decoder, nn.Linear)
    assert (network.decoder.in_features, network.decoder.out_features) == (512, 4)


def test_parameters_by_hand():
    # 2 Linear without bias, 2 BatchNorm of two vectors each, a head with bias
    network = MLP(5, 3, widths=(8, 4))
    assert sum(p.numel() for p in network.parameters()) == 5 * 8 + 2 * 8 + 8 * 4 + 2 * 4 + 4 * 3 + 3


def test_the_hidden_representation_is_what_the_decoder_reads(make_network):
    network, x = make_network().eval(), torch.randn(7, 6)
    h = network.encoder(x)
    assert h.shape == (7, 16)
    assert (h >= 0).all()
    assert torch.equal(network(x), network.decoder(h))


@pytest.mark.parametrize(
    ("n_inputs", "n_outputs", "widths"), [(0, 1, (4,)), (1, 0, (4,)), (1, 1, ()), (1, 1, (4, 0))]
)
def test_empty_layers_are_refused(n_inputs, n_outputs, widths):
    with pytest.raises(InputError, match="at least one hidden layer and sizes of at least 1"):
        MLP(n_inputs, n_outputs, widths=widths)


@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - {"cnn", "mlp_vis", "resnet18"}))
def test_every_named_network_of_rows_is_built_from_inputs_and_outputs(name):
    network = NETWORKS[name](3, 2).eval()
    assert network(torch.zeros(2, 3)).shape == (2, 2)


# --- dropout and skip connections ---------------------------------------------------------------


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_regularisers_change_no_name_and_no_start():
    states = []
    for dropout, skip in product((0.0, 0.3), (False, True)):
        network = MLP(5, 3, widths=(8, 8, 4), dropout=dropout, skip=skip)
        initialise_(network, generator=seeded())
        states.append(network.state_dict())
    for state in states[1:]:
        assert list(state) == list(states[0])
        assert all(torch.equal(state[name], tensor) for name, tensor in states[0].items())


def test_skip_adds_the_output_of_a_hidden_layer_of_equal_width():
    network = MLP(8, 3, widths=(8, 8, 4, 4), skip=True)  # inputs as wide as the first layer, too
    initialise_(network, generator=seeded())
    x = torch.randn(7, 8, generator=seeded(1))
    linear = [m for m in network.modules() if isinstance(m, nn.Linear)]
    norm = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d)]
    for mode in (True, False):
        network.train(mode)
        for module in norm:
            module.reset_running_stats()
        found = network(x)
        for module in norm:
            module.reset_running_stats()
        h = norm[0](linear[0](x)).relu()
        h = (norm[1](linear[1](h)) + h).relu()
        h = norm[2](linear[2](h)).relu()
        h = (norm[3](linear[3](h)) + h).relu()
        assert torch.equal(found, linear[4](h))


def test_without_layers_of_equal_width_skip_does_nothing():
    plain, skipping = (MLP(6, 3, widths=(6, 5, 4), skip=skip) for skip in (False, True))
    skipping.load_state_dict(plain.state_dict())
    x = torch.randn(9, 6, generator=seeded())
    assert torch.equal(plain(x), skipping(x))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_its_share_and_keeps_the_mean(p, dtype):
    dropout, x = Dropout(p), torch.ones(200, 500, dtype=dtype)
    with drawing_from(dropout, seeded()):
        dropped = dropout(x)
    assert dropped.dtype == dtype
    assert sorted(set(dropped.flatten().tolist())) == pytest.approx([0, 1 / (1 - p)], rel=0.01)
    assert float((dropped == 0).float().mean()) == pytest.approx(p, abs=0.01)
    assert torch.equal(dropout.eval()(x), x)


def test_dropout_follows_every_hidden_relu_and_evaluation_knows_none_of_it():
    plain, dropping = (MLP(6, 3, widths=(16, 16), dropout=p) for p in (0.0, 0.5))
    dropping.load_state_dict(plain.state_dict())
    found = [(name, m.p) for name, m in dropping.named_modules() if isinstance(m, Dropout)]
    assert found == [("encoder.2.1", 0.5), ("encoder.5.1", 0.5)]
    x = torch.randn(9, 6, generator=seeded())
    assert torch.equal(plain.eval()(x), dropping.eval()(x))
    with drawing_from(dropping, seeded()):
        assert not torch.equal(plain.train()(x), dropping.train()(x))


def test_draws_come_from_the_generator_given_and_only_while_it_is():
    network, x = MLP(6, 3, widths=(16,), dropout=0.5), torch.ones(4, 6)
    before = torch.get_rng_state()
    with drawing_from(network, seeded(3)):
        first, second = network.encoder(x), network.encoder(x)
    with drawing_from(network, seeded(3)):
        again = network.encoder(x)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ZeroDivisionError), drawing_from(network, seeded()):
        _ = 1 / 0
    assert network.encoder[2][1].generator is None
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        with drawing_from(other, seeded(3)):
            assert torch.equal(other.encoder(x), first)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        one = network.encoder(x)
        torch.manual_seed(0)
        assert torch.equal(network.encoder(x), one)  # by itself it is torch's dropout


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_a_dropout_that_is_no_probability_is_refused(dropout):
    with pytest.raises(InputError, match=r"dropout must be in \[0, 1\), got"):
        MLP(4, 2, widths=(8,), dropout=dropout)
