"""What there is, by name: the words that settings take, and the tables at hand."""

from importlib import import_module
from inspect import isfunction
from pathlib import Path
from typing import Any

__all__ = ["listed"]

_DICTS = {
    "networks": ("NETWORKS",),
    "criteria": ("CRITERIA",),
    "objectives": ("LOSSES", "CONTRASTIVE"),
}

_MEASURES = (
    "quality",
    "size",
    "regime",
    "invariance",
    "coupling",
    "kernel",
    "representation",
    "preactivations",
    "connectivity",
    "dynamics",
    "structure",
    "locality",
    "weight_maps",
    "statistics",
)


def listed(topic: str, folder: Path = Path("runs")) -> dict[str, str]:
    """Return a line about each thing of a topic; no more is imported than the topic needs.

    Args:
        topic: "networks", "criteria", "objectives", "measures", "datasets" or "runs".
        folder: of stores, or a store, for runs.

    >>> list(listed("criteria"))[:3]
    ['magnitude', 'normalised_magnitude', 'lamp']
    """
    if topic == "datasets":
        return _datasets()
    if topic == "runs":
        return _stores(folder)
    if topic == "measures":
        modules = [import_module(f"secateurs.measures.{name}") for name in _MEASURES]
        things = {name: getattr(m, name) for m in modules for name in m.__all__}
        return {name: _line(thing) for name, thing in things.items() if isfunction(thing)}
    module = import_module(f"secateurs.{topic}")
    dicts = [getattr(module, name) for name in _DICTS[topic]]
    return {key: _line(thing) for things in dicts for key, thing in things.items()}


def _line(thing: Any) -> str:
    return str(thing.__doc__ or "").strip().partition("\n")[0]


def _datasets() -> dict[str, str]:
    from secateurs.data.images import IMAGE_SETS
    from secateurs.data.tables import BUNDLED, SUFFIXES, data_root

    found = {f"sklearn:{name}": _line(read) for name, read in BUNDLED.items()}
    found |= {name: f"images, looked for in {data_root()}" for name in IMAGE_SETS}
    folder = data_root() / "tabular"
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.endswith(SUFFIXES):
            found[str(path)] = f"{path.stat().st_size / 1024:,.0f} KiB"
    return found


def _stores(folder: Path) -> dict[str, str]:
    from secateurs.experiments.store import Store

    found = {}
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    for one in [folder, *inside]:
        if not (one / "plans").is_dir():
            continue
        store = Store(one)
        names = store.keys()
        done = sum(map(store.finished, names))
        failed = sum(store.error(name) is not None for name in names)
        plans = ", ".join(plan["name"] for plan in store.plans())
        text = f"{plans}: {done:,} of {len(names):,} cells begun are finished"
        found[str(one)] = text + (f", {failed:,} failed" if failed else "")
    return found
