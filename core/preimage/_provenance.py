"""What a result depends on besides its parameters."""

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

from ._plugins import discover


def versions(config: Mapping[str, Any]) -> dict[str, str]:
    """Versions of Python, torch, numpy, preimage and every distribution that a pipeline's components come from."""
    wanted = {"preimage", "torch", "numpy"}
    components = discover().components
    for _, kind, table in component_tables(config):
        wanted |= {plugin.distribution for _, plugin in components.get((kind, table["name"]), [])}
    return {"python": platform.python_version()} | {name: _version(name) for name in sorted(wanted)}


def component_tables(config: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Every component that a pipeline's tables name: its place ("operator.0", "start.prior"), kind and table."""
    for key, given in config.items():
        if key == "start" and isinstance(given, Mapping):
            yield from component_tables(cast("Mapping[str, Any]", given), "start.")
        for index, table in enumerate(cast("list[Any]", given if isinstance(given, list) else [given])):
            if isinstance(table, Mapping) and isinstance(cast("Mapping[str, Any]", table).get("name"), str):
                place = f"{within}{key}.{index}" if isinstance(given, list) else f"{within}{key}"
                yield place, "dataset" if key == "data" else key, cast("Mapping[str, Any]", table)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown (not installed as a distribution)"
