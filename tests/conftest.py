"""Shared by all tests: one torch thread, a small table, small networks, the slow twins' path."""

import sys
from pathlib import Path

import hypothesis
import pytest
import torch

from secateurs import Data
from secateurs.networks.dense import MLP
from secateurs.networks.init import initialise_

sys.path.insert(0, str(Path(__file__).parent))  # `from reference import ...`

# Shared cores make single examples slow at random; the number of examples is the budget.
hypothesis.settings.register_profile("shared", deadline=None, max_examples=60)
hypothesis.settings.load_profile("shared")


@pytest.fixture(autouse=True, scope="session")
def _one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data():
    """97 rows, 6 columns, 3 classes that can be learnt; batches of 32 would leave a last row."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(97, 6, generator=generator)
    x_val = torch.randn(40, 6, generator=generator)
    rule = torch.randn(6, 3, generator=generator)
    return Data(train=(x, (x @ rule).argmax(1)), validation=(x_val, (x_val @ rule).argmax(1)))


@pytest.fixture(scope="session")
def make_network():
    """Return a maker of MLPs with Kaiming weights drawn from a seed."""

    def make(seed=0, *, n_inputs=6, n_outputs=3, widths=(16, 16)):
        network = MLP(n_inputs, n_outputs, widths=widths)
        initialise_(network, generator=torch.Generator().manual_seed(seed))
        return network

    return make
