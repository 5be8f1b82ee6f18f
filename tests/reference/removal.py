"""Losses without one weight, by setting it to zero: the twin of `coupling.removal_losses`."""

import copy

import torch


@torch.no_grad()
def removal_losses(network, x, y, positions, loss, weight=None):
    """Return {name: [weights] loss increases} by one pass of the whole network a weight."""
    network = copy.deepcopy(network).double().eval()
    x = x.double()

    def mean_loss():
        rows = loss(network(x), y)
        share = torch.ones(len(x)) if weight is None else weight
        return float((rows * share.double()).sum() / share.double().sum())

    whole = mean_loss()
    found = {}
    for name, chosen in positions.items():
        parameter = network.get_parameter(name).view(-1)
        found[name] = []
        for at in chosen.tolist():
            before = float(parameter[at])
            parameter[at] = 0.0
            found[name].append(mean_loss() - whole)
            parameter[at] = before
    return found, whole
