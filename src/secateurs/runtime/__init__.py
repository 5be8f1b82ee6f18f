"""Pruned networks that are really smaller and really faster on a CPU.

`compile` makes an engine of a network, `load` reads one from a file. Importing this loads NumPy and
the standard library only; torch is needed where a network of torch is read, and nowhere else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from secateurs.runtime.engine import Engine, compile
    from secateurs.runtime.export import to_onnx
    from secateurs.runtime.predictors import ImageEngine, TableEngine, load
    from secateurs.runtime.program import Op, Program
    from secateurs.runtime.reading import ensemble, read

_HOMES = {
    "Engine": "engine",
    "ImageEngine": "predictors",
    "Op": "program",
    "Program": "program",
    "TableEngine": "predictors",
    "compile": "engine",
    "ensemble": "reading",
    "load": "predictors",
    "read": "reading",
    "to_onnx": "export",
}

__all__ = [
    "Engine",
    "ImageEngine",
    "Op",
    "Program",
    "TableEngine",
    "compile",
    "ensemble",
    "load",
    "read",
    "to_onnx",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"secateurs.runtime.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'secateurs.runtime' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
