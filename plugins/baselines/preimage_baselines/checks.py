"""Checks of parameters that several components share."""

from preimage.errors import BadParameter


def positive(name: str, value: float, remedy: str = "") -> None:
    """Raise `BadParameter` unless value is finite and > 0."""
    if not 0 < value < float("inf"):
        raise BadParameter(f"{name} is {value}", "a finite number > 0", remedy)


def not_negative(name: str, value: float, remedy: str = "") -> None:
    """Raise `BadParameter` unless value is finite and >= 0."""
    if not 0 <= value < float("inf"):
        raise BadParameter(f"{name} is {value}", "a finite number >= 0", remedy)
