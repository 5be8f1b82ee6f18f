"""Record what a torch network does to one batch, as operations.

Each torch function that reads what depends on the input is translated; what does not depend on it
is computed. So anything that a forward does in Python is followed.
"""

import copy
import warnings
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from secateurs.runtime.program import Floats, Op, Program
from secateurs.runtime.translation import PASSED, RANDOM, TRANSLATIONS, UnsupportedError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["PartError", "record"]

_ROWS = 3  # few, and unlikely to be the size of something else
_INPUT = object()  # where a call's input stands among the other arguments


class PartError(Exception):
    """A part that no operations stand for: the path of a module, "" for the whole network."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(reason)
        self.path = path


class _Recorder:
    """The operations of one run, and which tensors are which values.

    Args:
        lenient: whether functions of the network's own forward may be left to torch.
    """

    def __init__(self, first: "Tensor", *, lenient: bool) -> None:
        self.lenient = lenient
        self.input_shape = tuple(first.shape[1:])
        self.ops: list[Op] = []
        self.result: Tensor = first
        self.path: list[str] = [""]
        self.paused = False
        # the tensors are kept, so that no id is given twice
        self._values: dict[int, tuple[Tensor, int | None]] = {id(first): (first, 0)}

    def find(self, tensor: object) -> int | None:
        """Return the value that a tensor is, or None where it does not depend on the input."""
        found = self._values.get(id(tensor))
        if found is None:
            return None
        if found[1] is None:
            raise UnsupportedError("what it reads was changed in place, through another view of it")
        return found[1]

    def shape(self, value: int) -> tuple[int, ...]:
        """Return the shape of a value, without the batch axis."""
        return self.ops[value - 1].shape if value else self.input_shape

    def emit(self, kind: str, inputs: Sequence[int], **fields: Any) -> int:
        """Add an operation, of the shape of the call's result unless told; return its value."""
        for key in ("weight", "bias"):
            if fields.get(key) is not None:
                with np.errstate(over="ignore"):
                    fields[key] = np.ascontiguousarray(fields[key], dtype=np.float32)
        for key in ("shape", "kernel", "stride", "padding"):
            if key in fields:
                fields[key] = tuple(map(int, fields[key]))
        fields = {"shape": tuple(self.result.shape[1:]), "name": self.path[-1], **fields}
        self.ops.append(Op(kind=kind, inputs=tuple(inputs), **fields))
        return len(self.ops)

    def enter(self, path: str, *_: Any) -> None:
        """Note that a module begins: a hook."""
        self.path.append(path)

    def end(self, *_: Any) -> None:
        """Note that a module ends: a hook."""
        self.path.pop()

    def keep(self, tensor: "Tensor", value: int) -> None:
        """Remember which value a tensor is; other views of a changed one are no value any more."""
        known = self._values.get(id(tensor))
        if known is not None and known[1] != value:
            memory = tensor.untyped_storage().data_ptr()
            for key, (other, _) in self._values.items():
                if other is not tensor and other.untyped_storage().data_ptr() == memory:
                    self._values[key] = (other, None)
        self._values[id(tensor)] = (tensor, value)

    def record(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function, and write down what it does to values.

        Raises:
            PartError: it does what no operation stands for.
        """
        known = any(id(leaf) in self._values for leaf in _leaves((args, kwargs)))
        if self.paused or not known or name in PASSED:
            if name in RANDOM and not self.paused:
                raise PartError(self.path[-1], f"{name} draws random numbers")
            return func(*args, **kwargs)
        translate = TRANSLATIONS.get(name)
        try:
            if translate is None:
                raise UnsupportedError("no operation of the runtime stands for it")
            for leaf in _leaves((args, kwargs)):
                self.find(leaf)
            result = self._called(func, args, kwargs)
            value = translate(self, *args, **{k: v for k, v in kwargs.items() if k != "inplace"})
        except (UnsupportedError, TypeError) as err:  # TypeError: arguments that are not translated
            reason = f"{name}: {' '.join(str(err).split())}"
            if self.path[-1] or not self.lenient:
                raise PartError(self.path[-1], reason) from None
            return self.leave(func, args, kwargs, name=name, reason=reason)
        self.keep(result, value)
        return result

    def _called(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what a function makes of the rows."""
        from torch import Tensor

        result = func(*args, **kwargs)
        if not isinstance(result, Tensor) or result.ndim == 0 or len(result) != _ROWS:
            raise UnsupportedError("it does not make one tensor with a row for each row")
        self.result = result
        return result

    def leave(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, name: str, reason: str
    ) -> Any:
        """Call a function, and have the program call it: what is left to torch.

        Args:
            func: a function, or a module's forward.
            args: of this call.
            kwargs: of this call.
            name: for the operation.
            reason: why it is left to torch.

        Raises:
            PartError: not one value in and one out.
        """
        given = {id(leaf): leaf for leaf in _leaves((args, kwargs)) if id(leaf) in self._values}
        self.paused = True
        try:
            if len(given) != 1:
                raise UnsupportedError(f"it reads {len(given)} values, not one")
            (source,) = given.values()
            value, version = self.find(source), source._version
            assert value is not None
            function = _calling(func, args, kwargs, source)
            result = self._called(func, args, kwargs)
            if result is not source and source._version != version:
                raise UnsupportedError("it changes what it reads in place")
            self.keep(result, self.emit("call", [value], name=name, function=function))
        except UnsupportedError as err:
            raise PartError(self.path[-1], f"{reason or name}; {err}") from None
        finally:
            self.paused = False
        return result


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, (list, tuple)):
        return [leaf for part in tree for leaf in _leaves(part)]
    if isinstance(tree, dict):
        return _leaves(list(tree.values()))
    return [tree]


def _mapped(tree: Any, change: Callable[[Any], Any]) -> Any:
    if type(tree) in (list, tuple):
        return type(tree)(_mapped(part, change) for part in tree)
    if isinstance(tree, dict):
        return {key: _mapped(part, change) for key, part in tree.items()}
    return change(tree)


def _calling(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], source: "Tensor"
) -> Callable[[Floats], Floats]:
    """Return the function of a `call`: `func` on the CPU, in float32, on a batch for `source`."""
    import torch

    func = getattr(func, "clean", func)

    def moved(leaf: Any) -> Any:
        if leaf is source:
            return _INPUT
        if isinstance(leaf, torch.Tensor):
            leaf = leaf.detach().cpu()
            return leaf.float() if leaf.is_floating_point() else leaf
        return leaf

    held, named = _mapped(args, moved), _mapped(kwargs, moved)

    def function(x: Floats) -> Floats:
        batch = torch.tensor(x, dtype=torch.float32)  # a copy: it may be changed in place

        def filled(leaf: Any) -> Any:
            return batch if leaf is _INPUT else leaf

        with torch.no_grad():
            made = func(*_mapped(held, filled), **_mapped(named, filled))
        return np.ascontiguousarray(made.float().numpy())

    return function


class _Part:
    """The forward of a module that is left to torch.

    Args:
        module: of the copy that is run.
        path: its name.
        recorder: of the run.
    """

    def __init__(self, module: "nn.Module", path: str, recorder: _Recorder) -> None:
        self.clean = copy.deepcopy(module).cpu().float().eval()
        self._forward = module.forward
        self._path = path
        self._recorder = recorder

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._recorder.paused:
            return self._forward(*args, **kwargs)
        return self._recorder.leave(self, args, kwargs, name=self._path, reason="")


def record(
    network: "nn.Module", shape: Sequence[int], left: Collection[str], *, lenient: bool
) -> Program:
    """Return what a network does to a batch of values of a shape.

    Args:
        network: in evaluation; hooks are added to its modules.
        shape: of one sample.
        left: modules to leave to torch, by their names.
        lenient: whether functions of the network's own forward may be left to torch.

    Raises:
        PartError: a part that no operations stand for.

    >>> from torch import nn
    >>> record(nn.ReLU().eval(), (4,), (), lenient=False).ops[0].activation
    'relu'
    """
    import torch
    from torch.overrides import TorchFunctionMode

    floats = [p for p in network.parameters() if p.is_floating_point()]
    like = floats[0] if floats else torch.zeros(1)
    with torch.inference_mode(mode=False):  # whose tensors do not tell whether they changed
        first = torch.zeros(_ROWS, *shape, dtype=like.dtype, device=like.device)
    recorder = _Recorder(first, lenient=lenient)
    parts = {path: _Part(network.get_submodule(path), path, recorder) for path in left}
    for path, module in network.named_modules():
        if path in parts:
            module.forward = parts[path]
        module.register_forward_pre_hook(partial(recorder.enter, path))
        module.register_forward_hook(recorder.end)

    class Mode(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            named = func.__self__ if func.__name__ == "__get__" else func
            name = named.__name__.split(".")[0]
            name = name.rstrip("_") if not name.startswith("__") else name
            return recorder.record(name, func, args, kwargs or {})

    with torch.inference_mode(mode=False), torch.no_grad(), warnings.catch_warnings(), Mode():
        warnings.simplefilter("ignore")  # they are about running the network, not reading it
        result = network(first)
    try:
        value = recorder.find(result)
    except UnsupportedError as err:
        raise PartError("", str(err)) from None
    if value is None:
        raise PartError("", "what it returns is not a tensor computed from its input")
    recorder.result = result
    if value == 0:
        value = recorder.emit("activation", [0])
    return Program(input_shape=tuple(shape), ops=tuple(recorder.ops[:value]))
