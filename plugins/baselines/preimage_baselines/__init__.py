"""Solvers and priors that need no training: the baselines every other method is read against.

Importing this package imports no torch; public names load their module on first use (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .adjoint import AdjointSolver as AdjointSolver
    from .admm import ADMM as ADMM
    from .conjugate_gradients import ConjugateGradients as ConjugateGradients
    from .fista import FISTA as FISTA
    from .gradient import DiscreteGradient as DiscreteGradient
    from .tikhonov import Tikhonov as Tikhonov
    from .total_variation import TotalVariation as TotalVariation

_MODULE_OF = {
    "ADMM": "admm",
    "AdjointSolver": "adjoint",
    "ConjugateGradients": "conjugate_gradients",
    "DiscreteGradient": "gradient",
    "FISTA": "fista",
    "Tikhonov": "tikhonov",
    "TotalVariation": "total_variation",
}
__all__ = ["__version__", *sorted(_MODULE_OF)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
