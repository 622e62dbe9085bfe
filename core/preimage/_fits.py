"""Which installed components can be combined, told from their classes alone."""

from collections.abc import Sequence
from typing import Any

from ._registry import load, names
from .errors import PreimageError


def _class_of(kind: str, name: str) -> Any:
    try:
        return load(kind, name)
    except PreimageError:
        return type(None)  # a broken component fits with nothing


def fitting(kind: str, needed: type | None) -> list[str]:
    """Names of the components of a kind that are what a solver needs; all of none if it needs nothing."""
    return [name for name in names(kind) if needed is not None and issubclass(_class_of(kind, name), needed)]


def solvers_for(kind: str, classes: Sequence[type]) -> list[str]:
    """Names of the solvers that accept these operators, this noise or this prior."""
    needs = {name: getattr(_class_of("solver", name), f"{kind}_type", None) for name in names("solver")}
    return [
        name for name, needed in needs.items() if needed is not None and all(issubclass(c, needed) for c in classes)
    ]


def fits_with(kind: str, name: str) -> dict[str, list[str]]:
    """What a component can be combined with: solvers for an operator, noise or prior; parts for a solver."""
    cls: Any = load(kind, name)
    if kind in ("operator", "noise", "prior"):
        return {"solver": solvers_for(kind, [cls])}
    wanted = ("operator", "noise", "prior") if kind == "solver" else ()
    return {part: fitting(part, getattr(cls, f"{part}_type")) for part in wanted}


def capabilities(cls: type) -> str:
    """The core interfaces that a class implements, as text."""
    own = [c for c in cls.__mro__ if c.__module__.startswith("preimage._") and c.__module__ != "preimage._prior_sum"]
    return ", ".join(c.__name__ for c in own) or cls.__name__
