"""What a number depends on besides parameters: versions, the sources of editable installs, and files."""

import hashlib
import json
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from preimage_data.atomic import file_error

from preimage import load
from preimage._parameters import parameters
from preimage._plugins import discover
from preimage._provenance import component_tables
from preimage.assembly import versions
from preimage.errors import PreimageError

MEASURES = "preimage-data"
"""Where the measures of quality come from: every cell depends on it."""


def fingerprints(config: Mapping[str, Any]) -> dict[str, str]:
    """Versions that the numbers of a pipeline depend on: of torch, preimage, the measures, and its components' plugins.

    An editable install keeps its version while its code changes, so that a digest of its sources is added to it.
    """
    # Which distributions are meant is told by core; Python and NumPy are recorded with a cell, but not in its key.
    wanted = {**versions(config), MEASURES: ""}
    return {name: _fingerprint(name) for name in sorted(wanted) if name not in ("python", "numpy")}


@cache
def _fingerprint(name: str) -> str:
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return "unknown"
    return f"{found.version}+sources.{digest}" if (digest := _sources(found)) else found.version


def _sources(found: Distribution) -> str:
    """A digest of the code of an editable install; empty for any other."""
    if not json.loads(found.read_text("direct_url.json") or "{}").get("dir_info", {}).get("editable"):
        return ""
    digest = hashlib.sha256()
    for folder in _packages(found.name):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder.parent).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _packages(name: str) -> list[Path]:
    """The folders of the packages that hold a distribution's components."""
    targets = {name.replace("-", "_")}
    for plugin in discover().plugins:
        if plugin.distribution == name and name != "preimage":
            targets |= {component.target.partition(":")[0].partition(".")[0] for component in plugin.components}
    specs = [find_spec(target) for target in sorted(targets)]
    return [Path(place) for spec in specs if spec for place in spec.submodule_search_locations or ()]


def files(config: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of every file that a pipeline names by its path, a mask say: {"operator.0.path": "..."}."""
    return {place: _content(path) for place, path in _paths(config)}


def without_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """The tables with paths left out, whose contents `files` tells."""
    bare: dict[str, Any] = json.loads(json.dumps(config))
    for place, _ in _paths(config):
        node: Any = bare
        *above, last = place.split(".")
        for name in above:
            node = node[int(name) if isinstance(node, list) else name]
        node[last] = None
    return bare


def _paths(config: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    for place, kind, table in component_tables(config):
        if kind == "dataset":  # whose images count by their pixels
            continue
        try:
            known = parameters(load(kind, table["name"]))
        except PreimageError:
            continue
        for parameter in known:
            value = table.get(parameter.name)
            if isinstance(value, str) and _is_path(parameter.annotation):
                yield f"{place}.{parameter.name}", Path(value)


def _is_path(annotation: Any) -> bool:
    return annotation is Path or any(_is_path(part) for part in typing.get_args(annotation))


def _content(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise file_error(path, error, "read") from error
