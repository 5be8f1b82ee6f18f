"""Feature learning over time: every measure of the regime on one fixed set of probes."""

from collections.abc import Callable, Collection
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from secateurs import masks
from secateurs.masks import Mask
from secateurs.measures import kernel
from secateurs.measures.preactivations import preactivations
from secateurs.measures.regime import largest_overlap, movement_by_layer, weight_movement
from secateurs.measures.representation import cka, unchanged_activations
from secateurs.networks.init import prunable
from secateurs.regime.centring import Centred
from secateurs.regime.linearised import linearise

__all__ = ["feature_dynamics"]


def feature_dynamics(
    start: nn.Module,
    x: Tensor,
    *,
    y: Tensor | None = None,
    mask: Mask | None = None,
    names: Collection[str] | None = None,
) -> Callable[[nn.Module, int], dict[str, Any]]:
    """Return what tells how far a network has left its start, for `train(follow=...)`.

    All measures are of the network beside its start, or the masked start of a ticket; those that
    need it take the same probes at every step. Follow at `measures.regime.log_spaced` steps.

    Args:
        start: the network as its training begins; copied. It is evaluated, not trained.
        x: [probes, ...] inputs, at least 4; 128 to 512 are usual.
        y: [probes] classes or values, for the kernel-target alignment; None leaves it out.
        mask: of a ticket; None is no mask.
        names: weights whose movement is told; None are those of all Linear and Conv layers.

    Returns:
        a function of the network (or its centred outputs) and the step, whose dict holds
        `weight_movement` and one `movement.LAYER` each; `kernel_distance` and `kernel_change` from
        the first kernel, `kernel_velocity` since the call before (None at first), and
        `kernel_alignment`; `cka` and `unchanged_activations`, means over the hidden layers;
        `deviation` of the outputs' change from that of the linearised network (Geiger et al. 2020;
        None at the start); `start_mask_overlap` at density 1/8, without a mask.

    Raises:
        InputError: BatchNorm or dropout in training mode, or fewer than 4 probes.

    >>> network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    >>> tell = feature_dynamics(network, torch.randn(16, 3))
    >>> told = tell(network, 0)
    >>> told["weight_movement"], told["kernel_distance"], told["unchanged_activations"]
    (0.0, 0.0, 1.0)
    """
    start = deepcopy(start).eval().requires_grad_(requires_grad=True)
    if mask is not None:
        masks.apply_(start, mask)
    x = x.to(next(start.parameters()).dtype)
    names = list(prunable(start) if names is None else names)
    before = {name: t.detach().clone() for name, t in start.state_dict().items()}
    features = preactivations(start, x)
    hidden = list(features)[:-1] or list(features)
    first = kernel.ntk(start, x, mask=mask)
    lin = linearise(start, mask=mask)
    with torch.no_grad():
        at_start = start(x)
    latest: list[tuple[int, Tensor]] = []

    def tell(network: nn.Module, step: int) -> dict[str, Any]:
        network = network.network if isinstance(network, Centred) else network
        was_training = network.training
        network.eval()
        state = network.state_dict()
        now, there = kernel.ntk(network, x, mask=mask), preactivations(network, x)
        told: dict[str, Any] = {"weight_movement": weight_movement(before, state, names)}
        moved = movement_by_layer(before, state, names, mask=mask)
        told |= {f"movement.{name}": far for name, far in moved.items()}
        told |= {
            "kernel_distance": kernel.kernel_distance(first, now),
            "kernel_change": kernel.kernel_change(first, now),
            "kernel_velocity": None,
            "kernel_alignment": None if y is None else kernel.kernel_target_alignment(now, y),
            "cka": sum(cka(features[name], there[name]) for name in hidden) / len(hidden),
            "unchanged_activations": sum(
                unchanged_activations(features[name], there[name]) for name in hidden
            )
            / len(hidden),
            "deviation": None,
        }
        if latest:
            earlier, since = latest[-1]
            told["kernel_velocity"] = kernel.kernel_velocity(since, now, step - earlier)
            with torch.no_grad():
                for name, dw in lin.named_parameters():
                    dw.copy_(state[name] - before[name])
                change = network(x) - at_start
                told["deviation"] = kernel.deviation(change, lin(x) - at_start)
        if mask is None:
            told["start_mask_overlap"] = largest_overlap(before, state, names)
        latest[:] = [(step, now)]
        network.train(was_training)
        return told

    return tell
