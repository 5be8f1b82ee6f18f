"""Importance-magnitude coupling: are the large weights those that the network needs?

Magnitude pruning is safe where they are. In lazy training the loss falls while weights stay near
where they started, and what a weight is worth comes apart from its size (sections 3.2.2 and 5.4).
Worth is measured here without any approximation: one weight is set to zero, and the loss is
computed again.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.masks import Mask
from secateurs.networks.init import LAYERS, weights

__all__ = ["RowLoss", "coupling", "removal_losses", "sample"]

RowLoss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, y) -> one loss a row."""

_Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
_PAIRS = 8_192  # rows of a forward pass, each seen by a network without one of its weights


def _cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(outputs, y, reduction="none")


# --- one weight less -------------------------------------------------------------------------


def _part(layer: _Layer, given: Tensor, place: tuple[int, ...]) -> Tensor:
    """Return what the weight at `place` adds to its one column, or channel, of the output.

    Args:
        layer: whose weight it is.
        given: [rows, ...] the layer's input.
        place: index of the weight; its first number is the column or channel.

    Returns:
        [rows, ...] without the dimension of columns or channels.
    """
    unit, source, *kernel = place
    weight = layer.weight.detach()[place]
    if isinstance(layer, nn.Linear):
        return weight * given[..., source]
    source += unit // (layer.out_channels // layer.groups) * (layer.in_channels // layer.groups)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    # the image as one tap of the kernel sees it: shifted by the tap, in steps of the stride
    part = F.pad(given[:, [source]], layer._reversed_padding_repeated_twice, mode=mode)[:, 0]
    for axis, tap in enumerate(kernel):
        reach, step = layer.dilation[axis] * (layer.kernel_size[axis] - 1), layer.stride[axis]
        begin = layer.dilation[axis] * tap
        end = part.shape[1 + axis] - reach + begin
        part = part[(slice(None),) * (1 + axis) + (slice(begin, end, step),)]
    return weight * part


def _column(layer: _Layer, output: Tensor, unit: int) -> Tensor:
    """Return a view of one column, or channel, of a layer's output."""
    return output.select(-1 if isinstance(layer, nn.Linear) else 1, unit)


@contextmanager
def _removed(layer: _Layer, place: tuple[int, ...]) -> Iterator[None]:
    """Run the layer without one of its weights, which itself is not touched."""

    def change(_module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        changed = output.clone()
        _column(layer, changed, place[0]).sub_(_part(layer, inputs[0], place))
        return changed

    handle = layer.register_forward_hook(change)
    try:
        yield
    finally:
        handle.remove()


# --- the network as a chain ------------------------------------------------------------------


def _steps(module: nn.Module) -> list[nn.Module]:
    if type(module) is nn.Sequential:
        return [step for child in module for step in _steps(child)]
    return [module]


def _chain(network: nn.Module, x: Tensor) -> list[nn.Module]:
    """Return modules that applied one after another are the network; itself, if it has no such.

    What stands before a weight's layer then needs no second pass.
    """
    steps = _steps(network)
    parts = dict(network.named_children())
    if set(parts) == {"encoder", "decoder"}:
        steps = [*_steps(parts["encoder"]), *_steps(parts["decoder"])]
    try:
        same = torch.equal(_run(steps, x)[-1], network(x.clone()))
    except (AttributeError, RuntimeError, TypeError, ValueError):
        same = False  # something else happens in between
    return steps if same else [network]


def _run(steps: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
    """Return the input of every step, and the output of the last."""
    passed = [x]
    for step in steps:
        passed.append(step(passed[-1].clone()))  # a step may work in place
    return passed


@torch.no_grad()
def removal_losses(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    positions: Mapping[str, Tensor],
    *,
    loss: RowLoss = _cross_entropy,
    weight: Tensor | None = None,
) -> tuple[dict[str, Tensor], float]:
    """Return by how much the loss grows when one weight alone is set to zero, and the loss.

    Exact: for every weight the rest of the network is evaluated again, on those rows that the
    removal reaches, in evaluation mode and in float64 (single removals change a loss by less than
    float32 can tell). Rows must not depend on each other, as they do not in evaluation mode.

    Args:
        network: any module; it is left as it was.
        x: [rows, ...] inputs.
        y: [rows] targets of the loss.
        positions: by name of a Linear or Conv weight, [weights] positions in it in memory order.
        loss: (outputs, y) -> [rows]; the cross-entropy unless another is given.
        weight: [rows] weights of the rows in the mean, or None.

    Returns:
        By name, [weights] loss increases in float64, negative where the loss falls; the loss
        itself.

    Raises:
        InputError: no rows, or names or positions that the network does not have.

    >>> network = nn.Linear(2, 2, bias=False)
    >>> _ = network.weight.data.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.0]]))
    >>> x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    >>> increases, loss = removal_losses(network, x, y, {"weight": torch.tensor([0, 3])})
    >>> [round(one, 3) for one in increases["weight"].tolist()], round(loss, 3)
    ([0.566, 0.0], 0.127)
    """
    if not len(x) or len(x) != len(y):
        raise InputError(f"a loss needs as many targets as rows, got {len(y)} and {len(x)}")
    known = weights(network)
    for name, chosen in positions.items():
        if name not in known:
            raise InputError(
                f"positions must be of Linear or Conv weights, got {name!r}; this network has "
                f"{', '.join(known) or 'none'}"
            )
        if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < known[name].numel():
            raise InputError(
                f"positions in {name} must be in [0, {known[name].numel()}), got "
                f"{int(chosen.min())} ... {int(chosen.max())}"
            )
    network = copy.deepcopy(network).double().eval()
    if x.is_floating_point():
        x = x.double()
    share = torch.ones(len(x), device=x.device) if weight is None else weight
    share = share.double() / share.double().sum()
    steps = _chain(network, x)
    passed = _run(steps, x)
    losses = loss(passed[-1], y)
    found = {}
    for name, chosen in positions.items():
        layer = network.get_submodule(name.rpartition(".")[0])
        assert isinstance(layer, LAYERS)
        first = next(i for i, step in enumerate(steps) if layer in step.modules())
        at = torch.stack(torch.unravel_index(chosen.cpu(), known[name].shape), dim=1)
        places = [tuple(place) for place in at.tolist()]
        several = max(1, _PAIRS // len(x))
        found[name] = torch.cat(
            [x.new_zeros(0, dtype=torch.float64)]
            + [
                _increases(steps, passed, first, layer, places[i : i + several], y, losses, loss)
                @ share
                for i in range(0, len(places), several)
            ]
        )
    return found, float(losses @ share)


def _increases(
    steps: Sequence[nn.Module],
    passed: Sequence[Tensor],
    first: int,
    layer: _Layer,
    places: Sequence[tuple[int, ...]],
    y: Tensor,
    losses: Tensor,
    loss: RowLoss,
) -> Tensor:
    """Return [weights, rows] loss increases; the layer of the weights is in step `first`."""
    n = len(losses)
    outputs, pairs = [], []
    for i, place in enumerate(places):
        if steps[first] is layer:
            part = _part(layer, passed[first], place)
            at = (part != 0).reshape(n, -1).any(1).nonzero()[:, 0]
            outputs.append(passed[first + 1][at])
            _column(layer, outputs[-1], place[0]).sub_(part[at])
        else:
            at = torch.arange(n, device=losses.device)
            with _removed(layer, place):
                outputs.append(steps[first](passed[first].clone()))
        pairs.append(at + i * n)
    h, pair = torch.cat(outputs), torch.cat(pairs)
    looking = True
    for i in range(first + 1, len(steps) + 1):
        # A removed weight whose input is silent, or whose neuron stays silent, changes nothing:
        # such rows need no further step. Behind a dense layer all rows differ or none.
        last = i == len(steps)
        if looking and (last or any(isinstance(m, LAYERS) for m in steps[i].modules())):
            differs = (h != passed[i][pair % n]).flatten(1).any(1)
            looking = not bool(differs.all())
            h, pair = h[differs], pair[differs]
        if last or not len(pair):
            break
        h = steps[i](h)
    increases = losses.new_zeros(len(places) * n)
    if len(pair):
        increases[pair] = loss(h, y[pair % n]) - losses[pair % n]
    return increases.view(len(places), n)


# --- a sample of weights ---------------------------------------------------------------------


def sample(
    mask: Mask, n_weights: int, *, min_per_layer: int = 0, generator: torch.Generator
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return random positions of kept weights: uniform over all, and further ones of thin layers.

    Args:
        mask: kept weights by name.
        n_weights: how many are drawn from all kept weights together, or all, if there are fewer.
        min_per_layer: layers with fewer drawn weights get further ones, up to so many.
        generator: on the CPU, of the draws.

    Returns:
        By name, [weights] positions in memory order, those of the uniform draw, and the further
        ones.

    >>> mask = {"a": torch.ones(2, 2).bool(), "b": torch.tensor([[False, True]])}
    >>> drawn, further = sample(mask, 9, min_per_layer=3, generator=torch.Generator())
    >>> sorted(drawn["a"].tolist()), drawn["b"].tolist(), further["a"].tolist()
    ([0, 1, 2, 3], [1], [])
    """
    if n_weights < 1 or min_per_layer < 0:
        raise InputError(
            "n_weights must be at least 1 and min_per_layer at least 0, got "
            f"{n_weights} and {min_per_layer}"
        )
    kept = {name: part.cpu().flatten().nonzero().flatten() for name, part in mask.items()}
    sizes = [len(part) for part in kept.values()]
    chosen = torch.zeros(sum(sizes), dtype=torch.bool)
    chosen[torch.randperm(sum(sizes), generator=generator)[:n_weights]] = True
    drawn, further = {}, {}
    for (name, part), uniform in zip(kept.items(), chosen.split(sizes), strict=True):
        drawn[name], rest = part[uniform], part[~uniform]
        more = max(0, min_per_layer - len(drawn[name]))
        further[name] = rest[torch.randperm(len(rest), generator=generator)[:more]]
    return drawn, further


def _spearman(one: Tensor, other: Tensor) -> float:
    """Return NaN where nothing varies, of which SciPy would warn."""
    if len(one) < 2 or bool((one == one[0]).all()) or bool((other == other[0]).all()):
        return float("nan")
    return float(spearmanr(one.numpy(), other.numpy()).statistic)


def coupling(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    mask: Mask,
    *,
    generator: torch.Generator,
    n_weights: int = 500,
    min_per_layer: int = 50,
    loss: RowLoss = _cross_entropy,
    weight: Tensor | None = None,
) -> dict[str, Any]:
    """Return rank correlations of |w| with what the loss does when the weight is set to zero.

    Spearman's, over a uniform random sample of the kept weights. `increase` is the one with the
    loss increase, as section 5.4 means it. `change` is the one with its absolute value: how much a
    weight matters, in whichever direction; near a minimum the two agree, elsewhere a loss falls
    about as often as it grows, and `increase` is near 0 however coupled the weights are. Both are
    NaN where nothing varies. `layers` holds the two for each layer, over a sample with at least
    `min_per_layer` weights of each (or all that it has); `loss` is the loss with all weights.

    Args:
        network: any module; it is left as it was, and evaluated as found in eval mode.
        x: [rows, ...] inputs: training rows, for what training made of the weights.
        y: [rows] targets of the loss.
        mask: kept weights by name; `masks.ones` for all. Others are not looked at, nor set to 0.
        generator: on the CPU, of the sample.
        n_weights: weights removed, one at a time, for the overall correlation.
        min_per_layer: weights removed in each layer at least.
        loss: (outputs, y) -> [rows]; the cross-entropy unless another is given.
        weight: [rows] weights of the rows in the mean, or None.

    Raises:
        InputError: no rows, names that the network does not have, or sizes that cannot be.

    >>> from secateurs.masks import ones
    >>> from secateurs.networks.dense import MLP
    >>> generator = torch.Generator().manual_seed(0)
    >>> network = MLP(4, 2, widths=(8, 8))
    >>> x = torch.randn(30, 4, generator=generator)
    >>> mask = ones({"encoder.0.weight": network.encoder[0].weight})
    >>> found = coupling(network, x, (x[:, 0] > 0).long(), mask, generator=generator)
    >>> list(found), list(found["layers"])
    (['increase', 'change', 'loss', 'layers'], ['encoder.0.weight'])
    """
    drawn, further = sample(mask, n_weights, min_per_layer=min_per_layer, generator=generator)
    positions = {name: torch.cat([drawn[name], further[name]]) for name in mask}
    increases, whole = removal_losses(network, x, y, positions, loss=loss, weight=weight)
    known = weights(network)
    magnitudes = {
        name: known[name].detach().flatten()[at.to(known[name].device)].abs().cpu()
        for name, at in positions.items()
    }

    def correlations(sizes: Mapping[str, int]) -> dict[str, float]:
        size = torch.cat([magnitudes[name][:n] for name, n in sizes.items()])
        increase = torch.cat([increases[name][:n].cpu() for name, n in sizes.items()])
        return {
            "increase": _spearman(size, increase),
            "change": _spearman(size, increase.abs()),
        }

    return {
        **correlations({name: len(part) for name, part in drawn.items()}),
        "loss": whole,
        "layers": {name: correlations({name: len(part)}) for name, part in positions.items()},
    }
