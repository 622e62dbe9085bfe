"""Recipes that say only in what they differ from another one: `include = "other-recipe"`."""

from collections.abc import Callable, Mapping
from functools import reduce
from pathlib import Path
from typing import Any, cast

from preimage.assembly import read_toml
from preimage.errors import BadFile, BadParameter, PreimageError

_COMPONENTS = ("model", "data", "operator", "noise", "solver", "objective")
"""Tables, at whatever place, whose keys besides `name` are arguments of what has that name."""


def with_included(path: Path, find: Callable[[str], Path]) -> dict[str, Any]:
    """The tables of a recipe file, those of the one that it includes filled in, and of the one that that includes.

    `include` names a recipe that ships, as `find` knows it, or a file ending in .toml, relative to the including one.
    Tables are merged key by key, and the including file has the last word. It replaces as a whole: the table of a
    component by one with another `name`, and what is no table, such as a list of tables.

    Raises `BadFile` if a file is missing, no TOML, or includes itself by whatever detour, `BadParameter` if `include`
    is not a name.
    """
    files, layers = [path], list[dict[str, Any]]()
    while True:
        tables = read_toml(files[-1]) if len(files) == 1 else _included(files)
        layers.append(tables)
        if "include" not in tables:
            return reduce(merged, reversed(layers))
        given = tables.pop("include")
        if not isinstance(given, str) or not given:
            found = f"{files[-1]}: include is {given!r:.60}"
            raise BadParameter(found, "the name of a recipe, or a file", 'write include = "unet-gaussian-blur", say')
        try:
            files.append(files[-1].parent / given if given.endswith(".toml") else find(given))
        except PreimageError as error:
            raise error.within(f"{files[-1]}: include") from None


def _included(files: list[Path]) -> dict[str, Any]:
    *before, last = files
    if last.resolve() in [file.resolve() for file in before]:
        chain = " -> ".join(file.name for file in files)
        raise BadFile(f"{files[0]}: include goes in a circle: {chain}", "a recipe without include at the end")
    try:
        return read_toml(last)
    except PreimageError as error:
        raise error.within(f"{before[-1]}: include") from None


def merged(first: Mapping[str, Any], last: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of `first` with what `last` says instead, or besides."""
    whole = dict(first)
    for key, value in last.items():
        before: Any = whole.get(key)
        tables = isinstance(before, dict) and isinstance(value, dict)
        whole[key] = merged(cast("dict[str, Any]", before), value) if tables and _fits(key, before, value) else value
    return whole


def _fits(key: str, before: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    return key not in _COMPONENTS or value.get("name", before.get("name")) == before.get("name")
