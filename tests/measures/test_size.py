import copy

import torch

from secateurs import masks
from secateurs.measures import size
from secateurs.networks.dense import MLP


def test_parameters_by_hand(make_network):
    network = make_network(n_inputs=6, n_outputs=3)
    unprunable = 2 * 16 + 2 * 16 + 16 * 3 + 3
    assert size.n_parameters(network) == 6 * 16 + 16 * 16 + unprunable
    mask = {
        "encoder.0.weight": torch.zeros(16, 6, dtype=torch.bool),
        "encoder.3.weight": torch.ones(16, 16, dtype=torch.bool),
    }
    mask["encoder.0.weight"][0, :4] = True
    assert size.n_parameters_kept(network, mask) == 4 + 256 + unprunable
    assert size.n_parameters_kept(network, {}) == size.n_parameters(network)
    assert size.n_parameters_kept(network, masks.ones(mask)) == size.n_parameters(network)


def test_a_kept_weight_that_is_zero_is_kept(make_network):
    network = make_network(n_inputs=6, n_outputs=3)
    with torch.no_grad():
        network.encoder[0].weight.zero_()
    mask = masks.ones({"encoder.0.weight": network.encoder[0].weight})
    assert masks.count(mask) == 6 * 16
    assert size.n_parameters_kept(network, mask) == size.n_parameters(network)


def test_flops_are_those_of_the_matrix_products(make_network):
    network = make_network(n_inputs=6, n_outputs=3)
    weights = 6 * 16 + 16 * 16 + 16 * 3
    assert size.forward_flops(network.eval(), torch.ones(10, 6)) == 2 * weights * 10
    kernel = torch.nn.Conv2d(3, 8, 3, padding=1)
    assert size.forward_flops(kernel, torch.ones(2, 3, 5, 5)) == 2 * 2 * 25 * 8 * 27


def test_counting_flops_leaves_the_network_and_random_numbers_alone():
    network = MLP(6, 3, widths=(16,), dropout=0.5)
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    size.forward_flops(network, torch.ones(10, 6))
    assert network.training
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
