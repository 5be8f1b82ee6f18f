import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from secateurs.runtime.activations import activate, erf
from secateurs.runtime.program import ACTIVATIONS

_X = np.array([-np.inf, -1e30, -90, -5, -1, -1e-3, 0, 1e-40, 0.3, 2, 90, 1e30, np.inf, np.nan])
_ORACLES = {
    "": lambda x: x,
    "relu": torch.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


def test_erf_is_that_of_the_standard_library():
    x = np.linspace(-6, 6, 10_001)
    assert np.abs(erf(x) - [math.erf(value) for value in x]).max() < 2e-7
    assert erf(np.array([np.inf, -np.inf])).tolist() == [1, -1]
    assert np.isnan(erf(np.array([np.nan]))).all()


def test_there_is_an_oracle_for_every_activation():
    assert {*_ORACLES, "softmax"} == set(ACTIVATIONS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", _ORACLES)
def test_activations_are_those_of_torch(name, dtype):
    x = np.concatenate([_X, np.linspace(-8, 8, 999)]).astype(dtype)
    made = activate(x, name)
    wanted = _ORACLES[name](torch.from_numpy(x).double()).numpy()
    assert made.dtype == dtype
    huge = np.abs(np.nan_to_num(x)) > 1e10  # the cube of gelu_tanh overflows float32, torch's too
    np.testing.assert_allclose(made[~huge], wanted[~huge], atol=1e-6)
    np.testing.assert_allclose(made[huge], wanted[huge], rtol=1e-6)


def test_softmax_runs_over_the_first_axis_and_does_not_overflow():
    x = np.array([[1000.0, 0.0], [999.0, 0.0]], np.float32)
    np.testing.assert_allclose(activate(x, "softmax"), torch.from_numpy(x).softmax(0), rtol=1e-6)
