"""Comparisons of methods: suites in, paired and crash-safe results out, and a page to read them.

Importing this package imports no torch; public names load their module on first use (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .run import Summary as Summary, run_suite as run_suite
    from .store import Results as Results, clean as clean, merge as merge, read as read
    from .suite import (
        Cell as Cell,
        Limits as Limits,
        Suite as Suite,
        load_suite as load_suite,
        shipped_suites as shipped_suites,
    )

_WHERE = {
    "run": ["Summary", "run_suite"],
    "store": ["Results", "clean", "merge", "read"],
    "suite": ["Cell", "Limits", "Suite", "load_suite", "shipped_suites"],
}
_MODULE_OF = {name: module for module, found in _WHERE.items() for name in found}
__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
