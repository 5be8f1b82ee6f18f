"""Read a torch network into a program, by recording what it does to one batch.

The network runs once, in evaluation, on a few rows of zeros. A symbolic trace (torch.fx) would stop
at the first comparison of shapes, which most of our own networks make.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from secateurs.errors import InputError
from secateurs.runtime.compact import live
from secateurs.runtime.program import Op, Program, check
from secateurs.runtime.recording import PartError, record

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ensemble", "read"]


def _unwrapped(network: "nn.Module") -> "nn.Module":
    """Return the plain network inside what torch.compile, DataParallel and averaging wrap it in."""
    from torch.nn.parallel import DataParallel, DistributedDataParallel
    from torch.optim.swa_utils import AveragedModel

    while True:
        inner = getattr(network, "_orig_mod", None)
        if inner is None and isinstance(
            network, (DataParallel, DistributedDataParallel, AveragedModel)
        ):
            inner = network.module
        if inner is None:
            return network
        network = inner


def _check_mask(weights: Mapping[str, "Tensor"], mask: Mapping[str, "Tensor"]) -> None:
    """Refuse a mask of another network, or one that is not bool."""
    for name, kept in mask.items():
        weight = weights.get(name)
        if weight is None or weight.shape != kept.shape:
            shape = "none" if weight is None else tuple(weight.shape)
            raise InputError(
                f"a mask must fit the network by name and shape, but {name} is of shape "
                f"{tuple(kept.shape)} in the mask and {shape} in the network; make the mask from "
                "this network's own weights"
            )
        if str(kept.dtype) != "torch.bool":
            raise InputError(f"a mask must be bool, got {name} ({kept.dtype}); pass kept != 0")


def _copied(network: "nn.Module", mask: Mapping[str, "Tensor"]) -> "nn.Module":
    """Return a copy in evaluation with pruned weights at zero; other weights share their memory.

    Raises:
        InputError: a mask of another network, or a network that cannot be copied.
    """
    from torch import Tensor, nn

    weights = dict(network.named_parameters(remove_duplicate=False))
    _check_mask(weights, mask)
    pruned = {id(weights[name]): ~kept for name, kept in mask.items()}
    memo: dict[int, Any] = {}
    try:
        for module in network.modules():
            own = [*module._parameters.values(), *module._buffers.values(), *vars(module).values()]
            for tensor in own:
                if isinstance(tensor, Tensor) and id(tensor) not in memo:
                    plain = tensor.detach()
                    if id(tensor) in pruned:
                        plain = plain.masked_fill(pruned[id(tensor)].to(plain.device), 0)
                    trained = isinstance(tensor, nn.Parameter)
                    memo[id(tensor)] = (
                        nn.Parameter(plain, requires_grad=False) if trained else plain
                    )
        return copy.deepcopy(network, memo).eval()
    except Exception as err:
        raise InputError(
            f"a network is read from a copy, and {type(network).__name__} cannot be copied "
            f"({_line(err)}); run lazy modules once, and remove what copy.deepcopy does not take"
        ) from err


def _line(err: BaseException) -> str:
    return " ".join(str(err).split()) or type(err).__name__


def _crossed(program: Program) -> str | None:
    """Return the name of a call that another value passes by, so that the program has no cut."""
    for i, op in enumerate(program.ops):
        later = program.ops[i + 1 :]
        if op.kind == "call" and any(value <= i for other in later for value in other.inputs):
            return op.name
    return None


def _shape(network: "nn.Module", example: Any) -> tuple[int, ...]:
    """Return the shape of one sample, of the example or of what the first layer reads.

    Raises:
        InputError: an example of another form, or none where one is needed.
    """
    from torch import nn

    if example is not None:
        shape = tuple(int(n) for n in getattr(example, "shape", ()))
        if len(shape) not in (2, 4) or 0 in shape[1:]:
            raise InputError(
                "example must be a batch, [rows, features] or [rows, channels, height, width], "
                f"got shape {shape}; add the axes that are missing"
            )
        return shape[1:]
    layers = (m for m in network.modules() if next(m.parameters(recurse=False), None) is not None)
    first = next(layers, None)
    size = 0
    if isinstance(first, nn.Linear):
        size = first.in_features
    elif isinstance(first, nn.BatchNorm1d):
        size = first.num_features
    if not size:
        raise InputError(
            "the shape of the input must be known, and the network's first layer "
            f"({type(first).__name__}) does not tell it; pass example=torch.zeros(1, ...), a batch"
        )
    return (size,)


def read(
    network: "nn.Module",
    mask: Mapping[str, "Tensor"] | None = None,
    example: "Tensor | None" = None,
    *,
    unsupported: Literal["error", "torch"] = "error",
) -> Program:
    """Return what a network computes in evaluation, as a program.

    The network stays as it is, on whatever device and of whatever type: weights are read as
    float32 (0 where pruned), values are to be on the CPU.

    Args:
        network: maps one tensor, [rows, features] or [rows, channels, height, width], to one.
        mask: of its weights; None prunes none beyond those that are zero.
        example: a batch that the network takes, of which only the shape matters; None where the
            first layer is fully connected and reads the input.
        unsupported: "error" names a part that no operation stands for; "torch" leaves it to torch,
            if it has one input and one output and no other value passes by.

    Raises:
        InputError: a part that is not supported, a mask of another network, or no known shape.

    >>> from torch import nn
    >>> network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    >>> [op.kind for op in read(network).ops]
    ['linear', 'scale', 'activation', 'linear']
    """
    if unsupported not in ("error", "torch"):
        raise InputError(f"unsupported must be 'error' or 'torch', got {unsupported!r}")
    network = _unwrapped(network)
    shape = _shape(network, example)
    lenient = unsupported == "torch"
    left: dict[str, str] = {}
    while True:
        found = _copied(network, mask or {})
        try:
            program = live(record(found, shape, left, lenient=lenient))
            passed = _crossed(program)
            if passed is not None:
                path = passed if passed in left else ""
                raise PartError(path, left.get(path) or f"{passed}: other values pass by it")
        except PartError as err:
            path, reason = err.path, str(err)
        except Exception as err:
            raise InputError(_failed(shape, err, example=example)) from err
        else:
            check(program)
            return program
        while path in left:  # not enough: what contains it is left to torch
            path = path.rpartition(".")[0]
        if not path or not lenient:
            raise InputError(_unsupported(network, path, reason, lenient=lenient))
        left[path] = reason


def _failed(shape: tuple[int, ...], err: Exception, *, example: Any) -> str:
    """Return what is said where the network does not run."""
    rows = f"[rows, {', '.join(map(str, shape))}]"
    guessed = "" if example is not None else ", what its first layer reads,"
    return (
        f"a network is read by running it once, and on {rows}{guessed} it raised "
        f"{type(err).__name__} ({_line(err)}); pass an example that it takes"
    )


def _unsupported(network: "nn.Module", path: str, reason: str, *, lenient: bool) -> str:
    """Return what is said of a part that is not read."""
    kind = type(network.get_submodule(path)).__name__
    where = f"module {path!r} ({kind})" if path else f"the forward of {kind} itself"
    remedy = (
        "make it a module of one input and one output that no other value passes by"
        if lenient
        else "pass unsupported='torch' to run that part in torch, or replace it"
    )
    return f"a network's parts must be known to the runtime, and {where} is not: {reason}; {remedy}"


def ensemble(
    programs: Sequence[Program],
    *,
    softmax: bool,
    target: tuple[float, float] | None = None,
) -> Program:
    """Return the program of an ensemble: its members' mean, over one input.

    Args:
        programs: the members, of one input shape and one output shape.
        softmax: whether a softmax of each member is averaged, as classifiers do.
        target: (mean, scale) of a standardised target, which the output is put back to.

    Raises:
        InputError: no members, or members of several shapes.

    >>> from torch import nn
    >>> members = [read(nn.Linear(4, 2)), read(nn.Linear(4, 2))]
    >>> [op.kind for op in ensemble(members, softmax=True).ops]
    ['linear', 'activation', 'linear', 'activation', 'mean']
    """
    shapes = {(program.input_shape, program.output_shape) for program in programs}
    if len(shapes) != 1:
        raise InputError(
            "an ensemble needs members of one input and one output shape, got "
            f"{sorted(shapes) or 'none'}; pass at least one, all of one kind"
        )
    ((input_shape, shape),) = shapes
    ops: list[Op] = []
    ends = []
    for program in programs:
        start = len(ops)
        for op in program.ops:
            inputs = tuple(value + start if value else 0 for value in op.inputs)
            ops.append(replace(op, inputs=inputs))
        if softmax:
            inputs = (len(ops),)
            ops.append(Op(kind="activation", inputs=inputs, shape=shape, activation="softmax"))
        ends.append(len(ops))
    if len(ends) > 1:
        ops.append(Op(kind="mean", inputs=tuple(ends), shape=shape))
    if target is not None:
        mean, scale = (np.full(shape[0], number, np.float32) for number in target)
        inputs = (len(ops),)
        ops.append(Op(kind="scale", inputs=inputs, shape=shape, weight=scale, bias=mean))
    return Program(input_shape=input_shape, ops=tuple(ops))
