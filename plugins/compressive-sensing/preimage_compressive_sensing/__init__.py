"""Compressive sensing: fewer random linear measurements than unknowns.

Public names load their module, and with it torch, on first use (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._cosine import SubsampledCosine as SubsampledCosine
    from ._gaussian import GaussianMatrix as GaussianMatrix
    from ._hadamard import SubsampledHadamard as SubsampledHadamard
    from ._operator import CompressiveSensing as CompressiveSensing

_MODULE_OF = {
    "CompressiveSensing": "_operator",
    "GaussianMatrix": "_gaussian",
    "SubsampledCosine": "_cosine",
    "SubsampledHadamard": "_hadamard",
}
__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
