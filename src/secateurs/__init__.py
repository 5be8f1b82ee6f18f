"""secateurs: train wide, prune to the structure, ship something really smaller and faster.

Importing this loads no third-party module; public names resolve on first use (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from secateurs import (
        criteria,
        masks,
        measures,
        networks,
        objectives,
        optimizers,
        regime,
        runtime,
        schedules,
    )
    from secateurs.data.batches import Data
    from secateurs.errors import InputError, SecateursError
    from secateurs.estimator import TicketClassifier, TicketRegressor
    from secateurs.image_classifier import ImageTicketClassifier
    from secateurs.loading import load
    from secateurs.tickets import Ticket, TicketConfig, find_ticket
    from secateurs.training import PhaseConfig

__version__ = "0.1.0"

_HOMES = {
    "Data": "data.batches",
    "ImageTicketClassifier": "image_classifier",
    "InputError": "errors",
    "PhaseConfig": "training",
    "SecateursError": "errors",
    "Ticket": "tickets",
    "TicketClassifier": "estimator",
    "TicketConfig": "tickets",
    "TicketRegressor": "estimator",
    "find_ticket": "tickets",
    "load": "loading",
}
_MODULES = (
    "criteria",
    "masks",
    "measures",
    "networks",
    "objectives",
    "optimizers",
    "regime",
    "runtime",
    "schedules",
)

__all__ = [
    "Data",
    "ImageTicketClassifier",
    "InputError",
    "PhaseConfig",
    "SecateursError",
    "Ticket",
    "TicketClassifier",
    "TicketConfig",
    "TicketRegressor",
    "criteria",
    "find_ticket",
    "load",
    "masks",
    "measures",
    "networks",
    "objectives",
    "optimizers",
    "regime",
    "runtime",
    "schedules",
]


def _part(module: str) -> Any:
    """Import a module of this package, which the distribution secateurs-runtime has few of."""
    path = f"secateurs.{module}"
    try:
        return import_module(path)
    except ModuleNotFoundError as error:
        if not error.name or not path.startswith(error.name):
            raise
        message = f"{path} is not in secateurs-runtime, only in the full distribution; "
        raise ImportError(f"{message}pip install secateurs", name=path) from None


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(_part(_HOMES[name]), name)
    if name in _MODULES:
        return _part(name)
    raise AttributeError(f"module 'secateurs' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
