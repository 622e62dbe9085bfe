"""Gaussian blur for preimage."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .operator import GaussianBlur as GaussianBlur

__all__ = ["GaussianBlur"]


def __getattr__(name: str) -> Any:
    if name == "GaussianBlur":
        from .operator import GaussianBlur

        return GaussianBlur
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
