"""Invertible generative priors for preimage: flows, and solvers that search the latent space of any generator.

Importing this package imports no torch; public names load their module on first use (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .batched_adam import BatchedAdam as BatchedAdam
    from .batched_lbfgs import BatchedLBFGS as BatchedLBFGS
    from .flow import Flow as Flow
    from .folded import FoldedFlow as FoldedFlow
    from .latent_map import LatentMap as LatentMap
    from .latent_members import GeneratorEnsemble as GeneratorEnsemble
    from .latent_sampling import LatentSampling as LatentSampling
    from .linear_gaussian import LinearGaussian as LinearGaussian, LinearGaussianPosterior as LinearGaussianPosterior
    from .prior import GlowPrior as GlowPrior

_MODULE_OF = {
    "BatchedAdam": "batched_adam",
    "BatchedLBFGS": "batched_lbfgs",
    "Flow": "flow",
    "FoldedFlow": "folded",
    "GeneratorEnsemble": "latent_members",
    "GlowPrior": "prior",
    "LatentMap": "latent_map",
    "LatentSampling": "latent_sampling",
    "LinearGaussian": "linear_gaussian",
    "LinearGaussianPosterior": "linear_gaussian",
}
__all__ = ["__version__", *sorted(_MODULE_OF)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
