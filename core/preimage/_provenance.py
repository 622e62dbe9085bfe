"""What a result depends on besides its parameters."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

from ._plugins import discover


def versions(config: Mapping[str, Any]) -> dict[str, str]:
    """Versions of Python, torch, numpy, preimage and every distribution that a pipeline's components come from."""
    wanted = {"preimage", "torch", "numpy"}
    components = discover().components
    for kind, tables in config.items():
        for table in cast("list[Any]", tables if isinstance(tables, list) else [tables]):
            if isinstance(table, Mapping):
                owners = components.get(
                    (_KIND_OF.get(kind, kind), str(cast("Mapping[str, Any]", table).get("name"))), []
                )
                wanted |= {plugin.distribution for _, plugin in owners}
    return {"python": platform.python_version()} | {name: _version(name) for name in sorted(wanted)}


_KIND_OF = {"data": "dataset"}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown (not installed as a distribution)"
