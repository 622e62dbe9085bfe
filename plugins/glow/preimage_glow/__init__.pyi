from .batched_adam import BatchedAdam as BatchedAdam
from .batched_lbfgs import BatchedLBFGS as BatchedLBFGS
from .flow import Flow as Flow
from .folded import FoldedFlow as FoldedFlow
from .latent_map import LatentMap as LatentMap
from .latent_members import GeneratorEnsemble as GeneratorEnsemble
from .latent_sampling import LatentSampling as LatentSampling
from .linear_gaussian import LinearGaussian as LinearGaussian, LinearGaussianPosterior as LinearGaussianPosterior
from .prior import GlowPrior as GlowPrior

__version__: str
