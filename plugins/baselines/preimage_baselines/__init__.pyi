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

__version__: str
