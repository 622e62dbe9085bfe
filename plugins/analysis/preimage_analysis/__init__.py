"""`preimage analyse`: studies by name, each one command with tables, figures and what was found in words.

Importing this package imports no torch; public names load their module on first use (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .files import write_findings as write_findings
    from .inversion_convergence import InversionConvergence as InversionConvergence
    from .learned_operators import LearnedOperators as LearnedOperators
    from .linear_generator import LinearGenerator as LinearGenerator
    from .operator_approximation import OperatorApproximation as OperatorApproximation
    from .progress import KeptProgress as KeptProgress, Progress as Progress
    from .reconstruction_against_bound import ReconstructionAgainstBound as ReconstructionAgainstBound
    from .study import Column as Column, Findings as Findings, Statement as Statement, Study as Study, Table as Table

_WHERE = {
    "files": ["write_findings"],
    "inversion_convergence": ["InversionConvergence"],
    "learned_operators": ["LearnedOperators"],
    "linear_generator": ["LinearGenerator"],
    "operator_approximation": ["OperatorApproximation"],
    "progress": ["KeptProgress", "Progress"],
    "reconstruction_against_bound": ["ReconstructionAgainstBound"],
    "study": ["Column", "Findings", "Statement", "Study", "Table"],
}
_MODULE_OF = {name: module for module, found in _WHERE.items() for name in found}
__all__ = ["__version__", *sorted(_MODULE_OF)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
