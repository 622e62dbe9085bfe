"""`preimage tune`: parameters of priors and solvers, searched under an equal budget, kept as presets.

Importing this package imports no torch; public names load their module on first use (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .outcomes import Settings as Settings, Tuned as Tuned
    from .presets import Entry as Entry, merge_presets as merge_presets, write_presets as write_presets
    from .samplers import SAMPLERS as SAMPLERS, propose as propose
    from .space import Space as Space, parse_space as parse_space
    from .study import Score as Score, Store as Store, Study as Study, Trial as Trial, search as search
    from .tuning import tune as tune

_WHERE = {
    "outcomes": ["Settings", "Tuned"],
    "presets": ["Entry", "merge_presets", "write_presets"],
    "samplers": ["SAMPLERS", "propose"],
    "space": ["Space", "parse_space"],
    "study": ["Score", "Store", "Study", "Trial", "search"],
    "tuning": ["tune"],
}
_MODULE_OF = {name: module for module, found in _WHERE.items() for name in found}
__all__ = ["__version__", *sorted(_MODULE_OF)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
