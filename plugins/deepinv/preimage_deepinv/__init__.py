"""deepinv by name: its operators, noise models, priors and reconstructors, and preimage inside deepinv.

Public names load their module, and with it torch and deepinv, on first use (PEP 562).
"""

from importlib import import_module
from typing import Any

from . import catalogue, catalogue_methods

_MODULE_OF = {
    entry.target.partition(":")[2]: entry.target.partition(":")[0]
    for entry in (*catalogue.OPERATORS, *catalogue.NOISES, *catalogue_methods.PRIORS, *catalogue_methods.SOLVERS)
} | catalogue_methods.FUNCTIONS
__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
