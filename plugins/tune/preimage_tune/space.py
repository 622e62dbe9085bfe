"""What is searched: names of parameters, and a range or a list of choices for each."""

import json
import math
from collections.abc import Mapping
from typing import Any, cast

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from preimage.errors import BadParameter, PreimageError, raise_all

Space = Mapping[str, BaseDistribution]
"""Optuna's distribution of each parameter, by name."""
Value = float | int | str | bool | None
"""A value that a parameter can take in a file of presets."""

DIGITS = 4
"""Significant digits of a number that is tried: what a preset says is exactly what was measured."""
NEAR = 0.05
"""How much of a range, at either end (in the logarithm, if it is searched so), counts as its edge."""

_KEYS = ("low", "high", "log", "choices")
_EXAMPLE = "{ low = 1e-4, high = 0.1, log = true }, or { choices = [...] }"


def parse_space(search: object, where: str) -> Space:
    """A search space from a TOML table.

    Each key is the name of a parameter; its value is `{ low, high, log = false }`, numbers with low < high, and low > 0
    if log, a range of integers if both ends are integers; or `{ choices = [...] }`, two or more different strings,
    numbers or booleans.

    Raises one `BadParameter` for each entry that is not of this form, all together.
    """
    if not isinstance(search, Mapping):
        raise BadParameter(f"{where} is {search!r:.60}", "a table of parameters", f'write "prior.weight" = {_EXAMPLE}')
    space: dict[str, BaseDistribution] = {}
    found: list[PreimageError] = []
    for name, entry in cast("Mapping[str, Any]", search).items():
        try:
            space[name] = _distribution(entry, f"{where}: {name}")
        except PreimageError as error:
            found.append(error)
    raise_all(where, found)
    return space


def _distribution(entry: Any, what: str) -> BaseDistribution:
    if not isinstance(entry, Mapping):
        raise BadParameter(f"{what} is {entry!r:.60}", f"a table: {_EXAMPLE}")
    given = cast("Mapping[str, Any]", entry)
    strange = [key for key in given if key not in _KEYS]
    if strange:
        raise BadParameter(f"{what} has {', '.join(map(repr, strange))}", f"some of {', '.join(_KEYS)}", "remove it")
    if "choices" in given:
        if len(given) > 1:
            raise BadParameter(f"{what} has choices and {', '.join(k for k in given if k != 'choices')}", "one or both")
        return _choices(given["choices"], what)
    low, high, log = given.get("low"), given.get("high"), given.get("log", False)
    missing = [key for key in ("low", "high") if key not in given]
    if missing:
        raise BadParameter(f"{what} has no {' and no '.join(missing)}", f"a table: {_EXAMPLE}")
    for key, bound in (("low", low), ("high", high)):
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
            raise BadParameter(f"{what}.{key} is {bound!r}", "a finite number", f"write {key} = 0.1, say")
    if not isinstance(log, bool):
        raise BadParameter(f"{what}.log is {log!r}", "true or false")
    low, high = cast(float, low), cast(float, high)
    if low >= high:
        raise BadParameter(
            f"{what} has low = {low} and high = {high}", "low < high", "exchange them, or widen the range"
        )
    if log and low <= 0:
        raise BadParameter(f"{what} has log = true and low = {low}", "low > 0", "raise low, or leave log out")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _choices(choices: Any, what: str) -> CategoricalDistribution:
    listed = cast("list[Any]", choices) if isinstance(choices, list) else []
    if len(listed) < 2 or any(not isinstance(choice, str | int | float | bool) for choice in listed):
        raise BadParameter(f"{what}.choices is {choices!r:.80}", "two or more strings, numbers or booleans")
    if len({json.dumps(choice) for choice in listed}) < len(listed):
        raise BadParameter(f"{what}.choices is {choices!r:.80}", "each choice once")
    return CategoricalDistribution(listed)


def from_unit(space: Space, point: Mapping[str, float]) -> dict[str, Value]:
    """Parameters from numbers in [0, 1): uniform over a range (over its logarithm, if searched so) and over choices."""
    return {name: _quantile(distribution, point[name]) for name, distribution in space.items()}


def _quantile(distribution: BaseDistribution, u: float) -> Value:
    if isinstance(distribution, CategoricalDistribution):
        return cast(Value, distribution.choices[min(int(u * len(distribution.choices)), len(distribution.choices) - 1)])
    if isinstance(distribution, IntDistribution):
        # Each integer stands for the interval of length one around it, so that the ends are as likely as the others.
        low, high = distribution.low - 0.5, distribution.high + 0.5
        value = low * (high / low) ** u if distribution.log else low + u * (high - low)
        return min(max(round(value), distribution.low), distribution.high)
    assert isinstance(distribution, FloatDistribution)
    low, high = distribution.low, distribution.high
    return low * (high / low) ** u if distribution.log else low + u * (high - low)


def rounded(space: Space, parameters: Mapping[str, Value]) -> dict[str, Value]:
    """Floating-point parameters to `DIGITS` significant digits, inside their ranges."""

    def one(name: str, value: Value) -> Value:
        distribution = space[name]
        if not isinstance(distribution, FloatDistribution) or value is None:
            return value
        return min(max(float(f"{value:.{DIGITS}g}"), distribution.low), distribution.high)

    return {name: one(name, value) for name, value in parameters.items()}


def at_edge(distribution: BaseDistribution, value: Value) -> str | None:
    """ "lower" or "upper" if the value lies within `NEAR` of that end of its range, None if not, or if it has no range.

    An integer range with fewer than twenty values has an edge of one value at each end.
    """
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        return None
    scale = math.log if distribution.log else float
    low, high, here = scale(distribution.low), scale(distribution.high), scale(cast(float, value))
    place = (here - low) / (high - low)
    return "lower" if place <= NEAR else "upper" if place >= 1 - NEAR else None
