"""Students and teachers: tasks whose structure is known, networks whose regime is one number.

A student is f(x) = s * sum_i a_i relu(w_i . x / sqrt(d)), all of w and a drawn from N(0, 1), so
that its regime is set by the factor of its output alone. The teacher is a sum of few ReLU neurons
that look at few inputs each, or at all of them.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from secateurs.errors import InputError

__all__ = [
    "BASE_WIDTH",
    "DeepLinear",
    "Readout",
    "Student",
    "Task",
    "Teacher",
    "draw_task",
    "draw_teacher",
    "readout_scale",
]

Readout = Literal["ntk", "mean_field"]

BASE_WIDTH = 64
"""Width at which the two readouts are one and the same network."""


# ---- teachers ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """y = sum_k sign_k relu(v_k . x).

    Args:
        weights: [neurons, inputs], rows of norm 1.
        signs: [neurons], +1 and -1.
    """

    weights: Tensor
    signs: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return [rows] targets of [rows, inputs]."""
        return (x @ self.weights.T).relu() @ self.signs

    @property
    def relevant(self) -> Tensor:
        """Which inputs any neuron looks at, [inputs] bool."""
        return (self.weights != 0).any(0)


def draw_teacher(
    *,
    n_inputs: int,
    n_neurons: int = 4,
    n_relevant: int | None = None,
    generator: torch.Generator,
) -> Teacher:
    """Return a teacher of neurons with signs +1, -1, +1, ...

    Args:
        n_inputs: d.
        n_neurons: how many neurons.
        n_relevant: inputs of each neuron, drawn for each by itself; None is all.
        generator: the only source of randomness.

    Raises:
        InputError: no neuron, or more relevant inputs than there are.

    >>> generator = torch.Generator().manual_seed(0)
    >>> teacher = draw_teacher(n_inputs=24, n_relevant=4, generator=generator)
    >>> (teacher.weights != 0).sum(1).tolist(), teacher.signs.tolist()
    ([4, 4, 4, 4], [1.0, -1.0, 1.0, -1.0])
    """
    kept = n_inputs if n_relevant is None else n_relevant
    if n_neurons < 1 or not 1 <= kept <= n_inputs:
        raise InputError(
            "a teacher needs a neuron and from 1 to all of its inputs relevant, got "
            f"{n_neurons} neurons with {kept} of {n_inputs} inputs; None is all inputs"
        )
    weights = torch.zeros(n_neurons, n_inputs, dtype=torch.float64)
    for row in weights:
        at = torch.randperm(n_inputs, generator=generator)[:kept]
        row[at] = torch.randn(kept, generator=generator, dtype=torch.float64)
    signs = 1.0 - 2.0 * (torch.arange(n_neurons, dtype=torch.float64) % 2)
    return Teacher(weights=weights / weights.norm(dim=1, keepdim=True), signs=signs)


@dataclass(frozen=True, kw_only=True)
class Task:
    """Rows of a teacher: x [rows, inputs], y [rows], mean 0 and variance 1 in training."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    teacher: Teacher


def draw_task(
    *,
    n_inputs: int = 24,
    n_relevant: int | None = None,
    n_train: int = 384,
    n_test: int = 512,
    generator: torch.Generator,
) -> Task:
    """Return rows from N(0, I) with the targets of a teacher of four neurons, in float64.

    Args:
        n_inputs: d.
        n_relevant: inputs of each neuron of the teacher; None is all.
        n_train: training rows.
        n_test: test rows.
        generator: the only source of randomness.

    Raises:
        InputError: fewer than two training rows, no test row, or no such teacher.

    >>> task = draw_task(n_relevant=4, generator=torch.Generator().manual_seed(0))
    >>> tuple(task.x_train.shape), abs(round(float(task.y_train.mean()), 6))
    ((384, 24), 0.0)
    """
    if n_train < 2 or n_test < 1:
        raise InputError(
            f"a task needs 2 training rows and 1 test row, got {n_train} and {n_test}; pass more"
        )
    teacher = draw_teacher(n_inputs=n_inputs, n_relevant=n_relevant, generator=generator)
    x = torch.randn(n_train + n_test, n_inputs, generator=generator, dtype=torch.float64)
    y = teacher(x)
    y = (y - y[:n_train].mean()) / y[:n_train].std(correction=0)
    return Task(
        x_train=x[:n_train],
        y_train=y[:n_train],
        x_test=x[n_train:],
        y_test=y[n_train:],
        teacher=teacher,
    )


# ---- students ----------------------------------------------------------------------------------


def readout_scale(width: int, readout: Readout) -> float:
    """Return the factor s of a student's output.

    "ntk": sqrt(2 / N) (Jacot et al. 2018): at equal alpha a wider student is lazier. "mean_field":
    sqrt(2 / 64) * 64 / N (Mei et al. 2018), as the other at a width of 64: students of all widths
    at equal alpha learn features alike.

    Raises:
        InputError: no width or no such readout.

    >>> readout_scale(64, "ntk") == readout_scale(64, "mean_field")
    True
    >>> readout_scale(256, "ntk") / readout_scale(256, "mean_field")
    2.0
    """
    if width < 1 or readout not in ("ntk", "mean_field"):
        raise InputError(
            "a student needs a width of at least 1 and a readout 'ntk' or 'mean_field', got "
            f"{width} and {readout!r}"
        )
    return math.sqrt(2 / (width if readout == "ntk" else BASE_WIDTH)) * (
        1 if readout == "ntk" else BASE_WIDTH / width
    )


def _normal(n_out: int, n_in: int, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.randn(n_out, n_in, generator=generator, dtype=torch.float64))


class Student(nn.Module):
    """f(x) = s * sum_i a_i relu(w_i . x / sqrt(d)): one hidden layer, no biases.

    Args:
        n_inputs: d.
        width: N.
        readout: what s is; see `readout_scale`.
        generator: draws w, then a, from N(0, 1), in float64.

    Raises:
        InputError: no input, no width or no such readout.

    >>> student = Student(24, width=64, generator=torch.Generator().manual_seed(0))
    >>> [(name, tuple(p.shape)) for name, p in student.named_parameters()]
    [('hidden', (64, 24)), ('readout', (1, 64))]
    """

    def __init__(
        self,
        n_inputs: int,
        *,
        width: int,
        readout: Readout = "ntk",
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if n_inputs < 1:
            raise InputError(f"a student needs at least 1 input, got {n_inputs}; pass more")
        self.scales = (1 / math.sqrt(n_inputs), readout_scale(width, readout))
        self.hidden = _normal(width, n_inputs, generator)
        self.readout = _normal(1, width, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return [rows, 1]."""
        inner, outer = self.scales
        return outer * ((inner * x @ self.hidden.T).relu() @ self.readout.T)


class DeepLinear(nn.Module):
    """f(x) = W_L ... W_2 W_1 x, a product of matrices.

    From a balanced start its singular modes learn one by one in closed form (Saxe et al. 2014).

    Args:
        sizes: inputs, hidden widths, outputs.
        std: standard deviation of the start.
        generator: the only source of randomness; weights are float64.

    Raises:
        InputError: fewer than two sizes, or one below 1.

    >>> network = DeepLinear((3, 5, 2), std=0.1, generator=torch.Generator().manual_seed(0))
    >>> tuple(network.product().shape)
    (2, 3)
    """

    def __init__(self, sizes: Sequence[int], *, std: float, generator: torch.Generator) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise InputError(
                f"a deep linear network needs sizes of inputs and outputs, got {tuple(sizes)}; "
                "pass two or more, each at least 1"
            )
        pairs = itertools.pairwise(sizes)
        self.layers = nn.ParameterList([_normal(out, n, generator) for n, out in pairs])
        with torch.no_grad():
            for layer in self.layers:
                layer.mul_(std)

    def product(self) -> Tensor:
        """Return W_L ... W_1, [outputs, inputs]."""
        whole: Tensor = self.layers[0]
        for layer in list(self.layers)[1:]:
            whole = layer @ whole
        return whole

    def forward(self, x: Tensor) -> Tensor:
        """Return [rows, outputs]."""
        return x @ self.product().T
