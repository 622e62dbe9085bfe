from ._algebra import per_image_operator as per_image_operator, stack as stack
from ._dataset import Dataset as Dataset
from ._diagonal import Basis as Basis, Diagonal as Diagonal
from ._hookspecs import hookimpl as hookimpl
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
from ._plugins import Command as Command, Component as Component, WeightsFile as WeightsFile
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

__version__: str
