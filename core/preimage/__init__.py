"""Operator-agnostic inversion for imaging: find x from y = F(x) + noise.

Importing this package imports no torch; public names load their module on first use (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._hookspecs import hookimpl
from ._plugins import Command, Component, WeightsFile

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ._algebra import per_image_operator as per_image_operator, stack as stack
    from ._dataset import Dataset as Dataset
    from ._diagonal import Basis as Basis, Diagonal as Diagonal
    from ._key import Key as Key
    from ._noise import (
        GaussianNoise as GaussianNoise,
        LeastSquares as LeastSquares,
        Noise as Noise,
        NoNoise as NoNoise,
        PoissonNoise as PoissonNoise,
    )
    from ._norm import (
        Norm as Norm,
        NormKind as NormKind,
        operator_norm as operator_norm,
        power_iteration as power_iteration,
    )
    from ._observers import Trace as Trace
    from ._operator import ForwardOperator as ForwardOperator, Identity as Identity, LinearOperator as LinearOperator
    from ._pipeline import ForwardModel as ForwardModel, Pipeline as Pipeline, Start as Start
    from ._prior import (
        AveragedDenoiser as AveragedDenoiser,
        Constraint as Constraint,
        Denoiser as Denoiser,
        Differentiable as Differentiable,
        Energy as Energy,
        Generative as Generative,
        InvertibleMap as InvertibleMap,
        NormalizingFlow as NormalizingFlow,
        Prior as Prior,
        Proximable as Proximable,
        Quadratic as Quadratic,
        Splittable as Splittable,
    )
    from ._prior_sum import sum_of_priors as sum_of_priors
    from ._problem import Problem as Problem
    from ._registry import load as load, names as names
    from ._solver import (
        DirectSolver as DirectSolver,
        Reconstruction as Reconstruction,
        Run as Run,
        Solver as Solver,
        Status as Status,
        solve as solve,
    )
    from ._tensors import (
        Shape as Shape,
        check_shape as check_shape,
        dot as dot,
        norms as norms,
        per_image as per_image,
        take_rows as take_rows,
    )

_WHERE = {
    "_algebra": ["per_image_operator", "stack"],
    "_dataset": ["Dataset"],
    "_diagonal": ["Basis", "Diagonal"],
    "_key": ["Key"],
    "_noise": ["GaussianNoise", "LeastSquares", "NoNoise", "Noise", "PoissonNoise"],
    "_norm": ["Norm", "NormKind", "operator_norm", "power_iteration"],
    "_observers": ["Trace"],
    "_operator": ["ForwardOperator", "Identity", "LinearOperator"],
    "_pipeline": ["ForwardModel", "Pipeline", "Start"],
    "_prior": [
        "AveragedDenoiser",
        "Constraint",
        "Denoiser",
        "Differentiable",
        "Energy",
        "Generative",
        "InvertibleMap",
        "NormalizingFlow",
        "Prior",
        "Proximable",
        "Quadratic",
        "Splittable",
    ],
    "_prior_sum": ["sum_of_priors"],
    "_problem": ["Problem"],
    "_registry": ["load", "names"],
    "_solver": ["DirectSolver", "Reconstruction", "Run", "Solver", "Status", "solve"],
    "_tensors": ["Shape", "check_shape", "dot", "norms", "per_image", "take_rows"],
}
_MODULE_OF = {name: module for module, found in _WHERE.items() for name in found}
__all__ = ["Command", "Component", "WeightsFile", "__version__", "hookimpl", *sorted(_MODULE_OF)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
