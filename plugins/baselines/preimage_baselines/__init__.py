"""Solvers and priors that need no training: the baselines every other method is read against.

Importing this package imports no torch; public names load their module on first use (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .adjoint import AdjointSolver as AdjointSolver
    from .admm import ADMM as ADMM
    from .bm3d import BM3D as BM3D
    from .bm3d_denoise import Denoise as Denoise
    from .conjugate_gradients import ConjugateGradients as ConjugateGradients
    from .constraints import Box as Box, NonNegative as NonNegative
    from .cosines import CosineSparsity as CosineSparsity
    from .fista import FISTA as FISTA
    from .fit_gaussian import fit_spectrum as fit_spectrum
    from .gauss_newton import GaussNewton as GaussNewton
    from .gauss_newton_model import Curvature as Curvature, curvature as curvature
    from .gaussian_posterior import GaussianPosterior as GaussianPosterior
    from .gaussian_spectrum import GaussianSpectrum as GaussianSpectrum
    from .gaussian_spectrum_model import SpectrumModel as SpectrumModel
    from .gradient import DiscreteGradient as DiscreteGradient
    from .gradient_descent import GradientDescent as GradientDescent
    from .half_quadratic_splitting import HalfQuadraticSplitting as HalfQuadraticSplitting
    from .irgnm import IRGNM as IRGNM
    from .ista import ISTA as ISTA
    from .landweber import Landweber as Landweber
    from .lasso import Lasso as Lasso
    from .lbfgs import LBFGS as LBFGS
    from .levenberg_marquardt import LevenbergMarquardt as LevenbergMarquardt
    from .lsqr import LSQR as LSQR
    from .plug_and_play import PnPProximalGradient as PnPProximalGradient
    from .pnp_admm import PnPADMM as PnPADMM
    from .pnp_denoising import DenoiserOrProximable as DenoiserOrProximable
    from .primal_dual import PrimalDual as PrimalDual
    from .red import RED as RED
    from .richardson_lucy import RichardsonLucy as RichardsonLucy
    from .smoothed_total_variation import SmoothedTotalVariation as SmoothedTotalVariation
    from .sparsity import OrthonormalSparsity as OrthonormalSparsity
    from .tgv import TotalGeneralizedVariation as TotalGeneralizedVariation
    from .tikhonov import Tikhonov as Tikhonov
    from .total_variation import TotalVariation as TotalVariation
    from .wavelets import WaveletSparsity as WaveletSparsity

_MODULE_OF = {
    "ADMM": "admm",
    "AdjointSolver": "adjoint",
    "BM3D": "bm3d",
    "Box": "constraints",
    "ConjugateGradients": "conjugate_gradients",
    "CosineSparsity": "cosines",
    "Curvature": "gauss_newton_model",
    "Denoise": "bm3d_denoise",
    "DenoiserOrProximable": "pnp_denoising",
    "DiscreteGradient": "gradient",
    "FISTA": "fista",
    "GaussNewton": "gauss_newton",
    "GaussianPosterior": "gaussian_posterior",
    "GaussianSpectrum": "gaussian_spectrum",
    "GradientDescent": "gradient_descent",
    "HalfQuadraticSplitting": "half_quadratic_splitting",
    "IRGNM": "irgnm",
    "ISTA": "ista",
    "LBFGS": "lbfgs",
    "LSQR": "lsqr",
    "Landweber": "landweber",
    "Lasso": "lasso",
    "LevenbergMarquardt": "levenberg_marquardt",
    "NonNegative": "constraints",
    "OrthonormalSparsity": "sparsity",
    "PnPADMM": "pnp_admm",
    "PnPProximalGradient": "plug_and_play",
    "PrimalDual": "primal_dual",
    "RED": "red",
    "RichardsonLucy": "richardson_lucy",
    "SmoothedTotalVariation": "smoothed_total_variation",
    "SpectrumModel": "gaussian_spectrum_model",
    "Tikhonov": "tikhonov",
    "TotalGeneralizedVariation": "tgv",
    "TotalVariation": "total_variation",
    "WaveletSparsity": "wavelets",
    "curvature": "gauss_newton_model",
    "fit_spectrum": "fit_gaussian",
}
__all__ = ["__version__", *sorted(_MODULE_OF)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
