"""A criterion by name, with whatever else it takes; LeNet-300-100."""

import pytest
import torch
from torch import nn

from secateurs import criteria

WITH_BATCHES = ("gradient", "snip", "grasp", "grasp_abs", "wanda")


@pytest.fixture(scope="session")
def scored():
    """Return a caller of any criterion on rows x; y defaults to the classes 0, 1, 0, 1, ..."""

    def score(name, network, x, y=None, **options):
        y = torch.arange(len(x)) % 2 if y is None else y
        arguments = [[(x, y)]] if name in WITH_BATCHES else [x] if name == "synflow" else []
        if name == "random":
            options["generator"] = torch.Generator().manual_seed(0)
        return criteria.CRITERIA[name](network, *arguments, **options)

    return score


@pytest.fixture(scope="session")
def make_lenet():
    """Return a maker of LeNet-300-100 with torch's own start, biases included."""

    def make(seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            first, second, third = nn.Linear(784, 300), nn.Linear(300, 100), nn.Linear(100, 10)
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)

    return make
