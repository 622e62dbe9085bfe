"""Constructor parameters: listed for people, and checked against the constructor's annotations by pydantic."""

import difflib
import inspect
import json
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ._plugins import WeightsFile
from ._registry import load
from .errors import BadParameter, PreimageError, raise_all

CONTEXT = ("in_shape", "key")
"""Parameters that the pipeline supplies: the image shape, and the component's own `Key`."""


@dataclass(frozen=True)
class Parameter:
    """One constructor parameter; `required` means that it has no default."""

    name: str
    annotation: Any
    required: bool
    default: Any

    @property
    def type_name(self) -> str:
        """The annotation as one would say it: "float", "'zero' or 'circular'", "'auto' or float"."""
        return _spoken(self.annotation)


def _spoken(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " or ".join(repr(choice) for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        optional = ", optional" if type(None) in arguments else ""
        return " or ".join(_spoken(part) for part in arguments if part is not type(None)) + optional
    if isinstance(annotation, type) and not arguments:
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("pathlib.", "")


def parameters(cls: type) -> list[Parameter]:
    """What a component's constructor takes, without the context the pipeline supplies."""
    hints = typing.get_type_hints(cls.__init__)
    empty, collecting = inspect.Parameter.empty, (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        Parameter(p.name, hints.get(p.name, Any), p.default is empty, p.default)
        for p in inspect.signature(cls).parameters.values()
        if p.name not in CONTEXT and p.kind not in collecting  # nn.Module's own constructor collects
    ]


def weights_parameters(cls: type) -> dict[str, str]:
    """The constructor parameters that name weights: those annotated as `preimage.weights.WeightsName`, or several such.

    With the component whose weights they are, if its annotation says one ("prior/flow"); "" is the component itself.
    """
    hints = typing.get_type_hints(cls.__init__, include_extras=True)
    return {
        name: "".join(note for note in part.__metadata__ if isinstance(note, str))
        for name, hint in hints.items()
        for part in (hint, *typing.get_args(hint))
        if typing.get_origin(part) is typing.Annotated and WeightsFile in part.__metadata__
    }


def problems(cls: type, values: Mapping[str, Any], what: str) -> list[PreimageError]:
    """Everything wrong with these values as parameters of `cls`: unknown, missing, or of the wrong type."""
    known = {p.name: p for p in parameters(cls)}
    found: list[PreimageError] = [unknown(name, known, f"{what} does not take") for name in values if name not in known]
    for p in known.values():
        if p.name in values:
            try:
                convert(p, values[p.name])
            except (ValidationError, TypeError) as error:
                detail = f" ({error.errors()[0]['msg']})" if isinstance(error, ValidationError) else ""
                value = f"{values[p.name]!r} of type {type(values[p.name]).__name__}"
                found.append(
                    BadParameter(f"{what}.{p.name} is {value}", p.type_name + detail, f"write {p.name} = {_sample(p)}")
                )
        elif p.required:
            found.append(
                BadParameter(f"{what} has no {p.name}", f"{p.name}: {p.type_name}", f"add {p.name} = {_sample(p)}")
            )
    return found


def convert(parameter: Parameter, value: Any) -> Any:
    """The value in the annotated type, by pydantic's strict rules for JSON (an integer may stand for a float, a list
    for a tuple, a string for a path or an enumeration member; nothing else is changed)."""
    return TypeAdapter(parameter.annotation).validate_json(json.dumps(value), strict=True)


def unknown(name: str, known: Iterable[str], complaint: str) -> BadParameter:
    """The error for a name that is not among the known ones."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean {close[0]!r}?" if close else "remove it"
    return BadParameter(f"{complaint} {name!r}", ", ".join(known) or "no parameters", remedy)


def construct(kind: str, name: str, values: Mapping[str, Any], what: str, **context: Any) -> Any:
    """An instance of a registered component. Of `context`, the class gets what its constructor asks for.

    Raises `BadParameter` (all problems at once), or whatever the registry raises.
    """
    cls = load(kind, name)
    raise_all(f"{what} cannot be made", problems(cls, values, what))
    known = {p.name: p for p in parameters(cls)}
    takes = inspect.signature(cls).parameters
    arguments = {n: v for n, v in context.items() if n in takes}
    return cls(**arguments, **{n: convert(known[n], v) for n, v in values.items()})


def _sample(parameter: Parameter) -> str:
    choices = typing.get_args(parameter.annotation) if typing.get_origin(parameter.annotation) is typing.Literal else ()
    value = parameter.default if not parameter.required else choices[0] if choices else None
    if isinstance(value, str | int | float | tuple | list) and not isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, bool):
        return json.dumps(value)
    return {float: "0.1", int: "1", str: '"..."', bool: "true"}.get(parameter.annotation, f"a {parameter.type_name}")
