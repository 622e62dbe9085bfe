"""deepinv's optimisation algorithms as solvers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor

from preimage import (
    Denoiser,
    DirectSolver,
    ForwardOperator,
    GaussianNoise,
    Key,
    LeastSquares,
    LinearOperator,
    Noise,
    Prior,
    Problem,
    operator_norm,
)
from preimage.errors import BadParameter, Incompatible, PreimageError

from ._deepinv import build, lookup
from ._isolation import isolated
from .filters import positive
from .to_physics import as_physics
from .to_prior import PriorTerm, ProximableOrDenoiser

Distance: Any = lookup("optim.Distance")
DataFidelity: Any = lookup("optim.DataFidelity")


@dataclass(frozen=True, kw_only=True)
class Optimiser(DirectSolver):
    """An algorithm of deepinv for misfit(F(x)) + weight R(x), run for each image alone, from deepinv's own start
    (A^T y) unless the problem has one.

    The parameters that all have, under deepinv's names except the first:

    - `max_steps`: deepinv's max_iter, default 100.
    - `early_stop`: stop when the change of x relative to x (of the objective, with crit_conv = "cost") is below
      `thres_conv` (> 0, default 1e-5). False by default, as in deepinv, which measures the mean over a batch; here
      each image is its own.
    - `sigma_denoiser`: strength of a `Denoiser` prior, > 0; "weight" (default): sqrt(stepsize weight), which makes the
      denoiser the proximal map of stepsize weight R if it is the maximum a posteriori denoiser of exp(-R). For a
      `Proximable` prior it has no effect, and for a `Denoiser` the weight has none if a number is given.

    deepinv takes misspelt arguments without a word; here they are refused. Its objects are made anew for each image,
    so that no run depends on an earlier one. A proximal map with an inner iteration goes on from its last variables
    within the run of one image, as deepinv's own priors do.

    Raises `BadParameter` for values out of range, and at the start of a run for a weight of 0 with a `Denoiser`.
    """

    algorithm: ClassVar[str]
    """Its class in deepinv.optim."""

    operator_type: ClassVar[type[ForwardOperator]] = ForwardOperator
    noise_type: ClassVar[type[Noise]] = LeastSquares
    prior_type: ClassVar[type[Prior] | None] = ProximableOrDenoiser
    prior_optional: ClassVar[bool] = True

    max_steps: int = 100
    early_stop: bool = False
    crit_conv: Literal["residual", "cost"] = "residual"
    thres_conv: float = 1e-5
    sigma_denoiser: Literal["weight"] | float = "weight"

    def __post_init__(self):
        super().__post_init__()
        positive("thres_conv", self.thres_conv)
        if self.sigma_denoiser != "weight":
            positive("sigma_denoiser", self.sigma_denoiser)

    def invert(self, problem: Problem, keys: Sequence[Key]) -> Tensor:
        rows = [torch.tensor([i], device=problem.y.device) for i in range(len(problem.y))]
        return torch.cat([self._image(problem.rows(row)) for row in rows])

    def _image(self, problem: Problem) -> Tensor:
        weight = float(torch.as_tensor(problem.weight).reshape(()) if problem.prior is not None else 0.0)
        step = self.step_length(problem)
        model = build(
            f"optim.{self.algorithm}",
            data_fidelity=_fidelity(problem.noise),
            prior=None if problem.prior is None else PriorTerm(problem.prior, warm=True),
            lambda_reg=weight if problem.prior is not None else 1.0,
            g_param=self._strength(problem, step, weight),
            max_iter=self.max_steps,
            crit_conv=self.crit_conv,
            thres_conv=self.thres_conv,
            early_stop=self.early_stop,
            **self.arguments(step),
        )
        return self.run(model, problem)

    def run(self, model: Any, problem: Problem) -> Tensor:
        """deepinv's model on one image."""
        y = problem.y
        start = None if problem.x0 is None else self.start(problem.x0, y)
        try:
            with isolated(y):
                found: Tensor = model(y, as_physics(problem.operator, problem.noise), init=start)
        except (PreimageError, torch.OutOfMemoryError):
            raise
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
            said = " ".join(str(error).split())[:300]
            raise Incompatible(f"deepinv's {self.algorithm} failed: {type(error).__name__}: {said}") from error
        return found.detach().to(y)

    def start(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """deepinv's variables at the start x."""
        return (x, x)

    def step_length(self, problem: Problem) -> float:
        """deepinv's stepsize for this image."""
        raise NotImplementedError

    def arguments(self, step: float) -> dict[str, Any]:
        """The arguments of this algorithm alone."""
        return {"stepsize": step}

    def _strength(self, problem: Problem, step: float, weight: float) -> float | None:
        if not isinstance(problem.prior, Denoiser):
            return None
        if self.sigma_denoiser != "weight":
            return float(self.sigma_denoiser)
        if weight <= 0:
            remedy = "give sigma_denoiser a number, or leave the prior out"
            raise BadParameter("the weight of the prior is 0", "a weight > 0", remedy)
        return (step * weight) ** 0.5

    def objections(self, operator: ForwardOperator, noise: Noise, prior: Prior | None) -> list[Incompatible]:
        if self.early_stop and self.crit_conv == "cost" and isinstance(prior, Denoiser):
            found = f'crit_conv = "cost" with {type(prior).__name__}, a denoiser, which has no objective'
            return [Incompatible(found, 'crit_conv = "residual"')]
        return []

    def criterion(self, problem: Problem, state: Tensor) -> str:
        until = f", or fewer until {self.crit_conv} < {self.thres_conv}" if self.early_stop else ""
        return f"deepinv's {self.algorithm} came to its end: {self.max_steps} iterations{until}"

    def remedy(self) -> str:
        return "use a smaller stepsize"


@dataclass(frozen=True, kw_only=True)
class GradientOptimiser(Optimiser):
    """The parameter of algorithms that take the gradient of the misfit:

    - `stepsize`: > 0; "auto" (default): 1 / ||F'(x_0)||^2 at the start x_0, for least squares noise (deepinv's default
      is 1 for every operator).
    """

    noise_type: ClassVar[type[Noise]] = Noise

    stepsize: Literal["auto"] | float = "auto"

    def __post_init__(self):
        super().__post_init__()
        if self.stepsize != "auto":
            positive("stepsize", self.stepsize)

    def step_length(self, problem: Problem) -> float:
        if self.stepsize != "auto":
            return float(self.stepsize)
        norm = operator_norm(problem.operator, problem.start()).safe
        return 1 / float(norm.square().clamp_min(torch.finfo(norm.dtype).tiny))

    def objections(self, operator: ForwardOperator, noise: Noise, prior: Prior | None) -> list[Incompatible]:
        found = super().objections(operator, noise, prior)
        if self.stepsize == "auto" and not isinstance(noise, LeastSquares):
            text = f'stepsize = "auto" with {type(noise).__name__}, whose misfit has no known curvature'
            found.append(Incompatible(text, "a number for stepsize, or least squares noise"))
        return found


@dataclass(frozen=True, kw_only=True)
class ProximalOptimiser(Optimiser):
    """The parameter of algorithms that take the proximal map of the misfit:

    - `stepsize`: of both proximal maps, > 0, default 1, as in deepinv. For a convex problem it changes the speed and
      not the limit.

    The proximal map of a linear operator is exact where it has a closed form, else deepinv's conjugate gradients.
    Where the class takes nonlinear operators, it is a stationary point found by Gauss-Newton (`proximal_misfit`), and
    nothing is known of convergence.
    """

    stepsize: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        positive("stepsize", self.stepsize)

    def step_length(self, problem: Problem) -> float:
        return self.stepsize


@dataclass(frozen=True, kw_only=True)
class PGD(GradientOptimiser):
    """deepinv's proximal gradient descent, x <- prox(x - stepsize grad misfit). See `Optimiser` and
    `GradientOptimiser` for the other parameters.

    - `backtracking`: shorten the step by a tenth where the objective does not fall enough (needs an energy), False.
    - `anderson_acceleration`: mix the last iterates, False.
    - `g_first`: the step on the prior first, False.
    """

    algorithm: ClassVar[str] = "PGD"

    backtracking: bool = False
    anderson_acceleration: bool = False
    g_first: bool = False

    def arguments(self, step: float) -> dict[str, Any]:
        chosen = {"backtracking": self.backtracking, "anderson_acceleration": self.anderson_acceleration}
        return {"stepsize": step, "g_first": self.g_first, **chosen}

    def objections(self, operator: ForwardOperator, noise: Noise, prior: Prior | None) -> list[Incompatible]:
        found = super().objections(operator, noise, prior)
        if self.backtracking and isinstance(prior, Denoiser):
            text = f"backtracking with {type(prior).__name__}, a denoiser, which has no objective"
            found.append(Incompatible(text, "backtracking = false, or a prior with an energy"))
        return found


@dataclass(frozen=True, kw_only=True)
class FISTA(GradientOptimiser):
    """deepinv's accelerated proximal gradient descent, with momentum (k - 1) / (k + a - 1). See `Optimiser` and
    `GradientOptimiser` for the other parameters.

    - `a`: > 2, default 3.
    """

    algorithm: ClassVar[str] = "FISTA"

    a: float = 3.0

    def __post_init__(self):
        super().__post_init__()
        if not 2 < self.a < float("inf"):
            raise BadParameter(f"a is {self.a}", "a finite number > 2")

    def arguments(self, step: float) -> dict[str, Any]:
        return {"stepsize": step, "a": self.a}


@dataclass(frozen=True, kw_only=True)
class _Relaxed(ProximalOptimiser):
    beta: float = 1.0
    g_first: bool = False

    def __post_init__(self):
        super().__post_init__()
        positive("beta", self.beta)

    def arguments(self, step: float) -> dict[str, Any]:
        return {"stepsize": step, "beta": self.beta, "g_first": self.g_first}


@dataclass(frozen=True, kw_only=True)
class ADMM(_Relaxed):
    """deepinv's alternating direction method of multipliers. See `Optimiser` and `ProximalOptimiser` for the other
    parameters.

    - `beta`: relaxation of the dual step, > 0, default 1. `g_first`: the step on the prior first, False.
    """

    algorithm: ClassVar[str] = "ADMM"


@dataclass(frozen=True, kw_only=True)
class DRS(_Relaxed):
    """deepinv's Douglas-Rachford splitting. See `Optimiser` and `ProximalOptimiser` for the other parameters.

    - `beta`: relaxation, > 0, default 1. `g_first`: the step on the prior first, False.
    """

    algorithm: ClassVar[str] = "DRS"


@dataclass(frozen=True, kw_only=True)
class HQS(ProximalOptimiser):
    """deepinv's half quadratic splitting with a fixed step: its limit depends on `stepsize`, and is the minimiser only
    for small ones. See `Optimiser` and `ProximalOptimiser` for the other parameters.

    - `anderson_acceleration`: mix the last iterates, False. `g_first`: the step on the prior first, False.
    """

    algorithm: ClassVar[str] = "HQS"

    anderson_acceleration: bool = False
    g_first: bool = False

    def arguments(self, step: float) -> dict[str, Any]:
        return {"stepsize": step, "anderson_acceleration": self.anderson_acceleration, "g_first": self.g_first}


@dataclass(frozen=True, kw_only=True)
class PDCP(ProximalOptimiser):
    """deepinv's primal-dual algorithm of Chambolle & Pock with K the identity: the dual variable belongs to the misfit,
    whose conjugate is only right where it is convex, hence linear operators. See `Optimiser` and `ProximalOptimiser`
    for the other parameters.

    - `stepsize_dual`: > 0 with stepsize stepsize_dual <= 1, default 1. `beta`: extrapolation, >= 0, default 1.
    """

    algorithm: ClassVar[str] = "PDCP"
    operator_type: ClassVar[type[ForwardOperator]] = LinearOperator

    stepsize_dual: float = 1.0
    beta: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        positive("stepsize_dual", self.stepsize_dual)
        if self.stepsize * self.stepsize_dual > 1:
            product = self.stepsize * self.stepsize_dual
            raise BadParameter(f"stepsize times stepsize_dual is {product}", "at most 1", "make one of them smaller")
        if not 0 <= self.beta < float("inf"):
            raise BadParameter(f"beta is {self.beta}", "a finite number >= 0")

    def arguments(self, step: float) -> dict[str, Any]:
        return {"stepsize": step, "stepsize_dual": self.stepsize_dual, "beta": self.beta}

    def start(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return (x, x, torch.zeros_like(x))

    def run(self, model: Any, problem: Problem) -> Tensor:
        if problem.operator.in_shape != problem.operator.out_shape and problem.x0 is None:
            # deepinv starts the dual variable, which is an image here, from y; for other shapes from zero.
            back = cast(LinearOperator, problem.operator).adjoint(problem.y)
            model.custom_init = lambda y, physics: {"est": self.start(back, y)}
        return super().run(model, problem)


@dataclass(frozen=True, kw_only=True)
class DPIR(DirectSolver):
    """deepinv's DPIR (Zhang et al. 2021, "Plug-and-play image restoration with deep denoiser prior"): eight steps of
    half quadratic splitting with a denoiser whose strength falls from 49/255 to sigma.

    - `sigma`: standard deviation of the noise in the measurement, > 0; "noise" (default): that of the noise model,
      times the square root of the problem's weight (1 believes the noise model; a larger one smooths more).

    deepinv downloads a DRUNet if it is given no denoiser; here the prior is the denoiser, and any `Denoiser` or
    `Proximable` prior will do. Each image is run alone. Raises `BadParameter` for another sigma; at the start of a run
    for a noise model without noise.
    """

    operator_type: ClassVar[type[ForwardOperator]] = ForwardOperator
    noise_type: ClassVar[type[Noise]] = LeastSquares
    prior_type: ClassVar[type[Prior] | None] = ProximableOrDenoiser

    sigma: Literal["noise"] | float = "noise"

    def __post_init__(self):
        super().__post_init__()
        if self.sigma != "noise":
            positive("sigma", self.sigma)

    def invert(self, problem: Problem, keys: Sequence[Key]) -> Tensor:
        from .to_prior import as_denoiser

        found: list[Tensor] = []
        for i in range(len(problem.y)):
            one = problem.rows(torch.tensor([i], device=problem.y.device))
            denoiser = as_denoiser(cast(Prior, one.prior))
            model = build("optim.DPIR", sigma=self._level(one), denoiser=denoiser, device=str(one.y.device))
            start = None if one.x0 is None else (one.x0, one.x0)
            with isolated(one.y):
                found.append(model(one.y, as_physics(one.operator, one.noise), init=start).detach().to(one.y))
        return torch.cat(found)

    def _level(self, problem: Problem) -> float:
        if self.sigma != "noise":
            return float(self.sigma)
        spread = problem.noise.sigma if isinstance(problem.noise, GaussianNoise) else 0.0
        level = float(spread * torch.as_tensor(problem.weight, dtype=torch.float64).sqrt())
        if level <= 0:
            raise BadParameter("the noise model has no noise", "a sigma > 0", "give sigma a number: 0.01, say")
        return level

    def criterion(self, problem: Problem, state: Tensor) -> str:
        return "deepinv's DPIR takes 8 iterations"


class _MisfitDistance(Distance):
    def __init__(self, noise: Noise):
        super().__init__()
        self.noise = noise

    def fn(self, x: Tensor, y: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.noise.misfit(x, y)

    def grad(self, x: Tensor, y: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.noise.misfit_grad(x, y)


def _fidelity(noise: Noise) -> Any:
    """deepinv's data fidelity with the misfit of a noise model."""
    if isinstance(noise, LeastSquares):
        return build("optim.L2")
    fidelity = DataFidelity()
    fidelity.d = _MisfitDistance(noise)
    return fidelity
