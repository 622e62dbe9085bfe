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

__version__: str
