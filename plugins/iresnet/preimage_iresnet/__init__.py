"""Invertible residual networks for preimage: operators learned together with their stable inverse.

Importing this package imports no torch; public names load their module on first use (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .averaged_denoiser import AveragedNetworkDenoiser as AveragedNetworkDenoiser
    from .averaged_network import AveragedNetwork as AveragedNetwork
    from .certificate import certify as certify, verify as verify
    from .denoising import AveragedDenoising as AveragedDenoising
    from .map_inverse import MapInverse as MapInverse
    from .network import InvertibleResNet as InvertibleResNet
    from .norm_bounds import convolution_norm_bound as convolution_norm_bound
    from .prior import InvertibleResNetPrior as InvertibleResNetPrior
    from .refinement import MapRefinement as MapRefinement
    from .training import (
        InvertibleApproximation as InvertibleApproximation,
        InvertibleReconstruction as InvertibleReconstruction,
    )
    from .violations import Search as Search

_MODULE_OF = {
    "AveragedDenoising": "denoising",
    "AveragedNetwork": "averaged_network",
    "AveragedNetworkDenoiser": "averaged_denoiser",
    "certify": "certificate",
    "convolution_norm_bound": "norm_bounds",
    "InvertibleApproximation": "training",
    "InvertibleReconstruction": "training",
    "InvertibleResNet": "network",
    "InvertibleResNetPrior": "prior",
    "MapInverse": "map_inverse",
    "MapRefinement": "refinement",
    "Search": "violations",
    "verify": "certificate",
}
__all__ = ["__version__", *sorted(_MODULE_OF)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
