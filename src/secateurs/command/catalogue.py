"""What there is, by name: the words that settings take, and the tables at hand."""

from importlib import import_module
from typing import Any

__all__ = ["listed"]

_DICTS = {
    "networks": ("NETWORKS",),
    "criteria": ("CRITERIA",),
    "objectives": ("LOSSES", "CONTRASTIVE"),
}


def listed(topic: str) -> dict[str, str]:
    """Return a line about each thing of a topic; no more is imported than the topic needs.

    Args:
        topic: "networks", "criteria", "objectives", "measures" or "datasets".

    >>> list(listed("criteria"))
    ['magnitude', 'random']
    """
    if topic == "datasets":
        return _datasets()
    if topic == "measures":
        modules = [import_module(f"secateurs.measures.{m}") for m in ("quality", "size", "regime")]
        return {name: _line(getattr(m, name)) for m in modules for name in m.__all__}
    module = import_module(f"secateurs.{topic}")
    dicts = [getattr(module, name) for name in _DICTS[topic]]
    return {key: _line(thing) for things in dicts for key, thing in things.items()}


def _line(thing: Any) -> str:
    return str(thing.__doc__ or "").strip().partition("\n")[0]


def _datasets() -> dict[str, str]:
    from secateurs.data.tables import BUNDLED, SUFFIXES, data_root

    found = {f"sklearn:{name}": _line(read) for name, read in BUNDLED.items()}
    folder = data_root() / "tabular"
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.endswith(SUFFIXES):
            found[str(path)] = f"{path.stat().st_size / 1024:,.0f} KiB"
    return found
