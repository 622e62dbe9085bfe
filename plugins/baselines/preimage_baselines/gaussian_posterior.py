"""Posterior mean and pixelwise variance of linear measurements under a Gaussian prior."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor

from preimage import (
    Diagonal,
    ForwardOperator,
    GaussianNoise,
    Key,
    LinearOperator,
    Noise,
    Prior,
    Problem,
    Quadratic,
    Solver,
    dot,
    per_image,
)
from preimage.errors import BadParameter, Incompatible

from .checks import not_negative
from .gaussian_posterior_dense import dense_posterior, measurement_model, serves_any_batch
from .gaussian_posterior_systems import (
    PosteriorSystem,
    QuadraticSystem,
    SpectralSystem,
    diagonal_variances,
)
from .gaussian_spectrum import GaussianSpectrum

Method = Literal["closed-form", "dense", "iterative"]


@dataclass(frozen=True)
class Iteration:
    """Conjugate gradients for 1 + `samples` systems per image: the mean's, then the samples'. Axes (B, 1 + samples).

    - `z`, `residual`, `direction`: as usual, with the image's shape behind. `product`: residual times preconditioned
      residual. `goal`: a system is done when `product` is not above it.
    - `response`: what the preconditioner knows of the operator, (B, ...).
    """

    z: Tensor
    residual: Tensor
    direction: Tensor
    product: Tensor
    goal: Tensor
    response: Tensor


@dataclass(frozen=True)
class PosteriorState:
    """Exact results, `x` and perhaps `variance`, or, where there is no closed form, an `iteration`."""

    x: Tensor
    variance: Tensor | None = None
    iteration: Iteration | None = None


@dataclass(frozen=True, kw_only=True)
class GaussianPosterior(Solver[PosteriorState]):
    """The posterior mean E[x | y] for y = A x + sigma n and a Gaussian prior: the Wiener filter of any linear operator.

    For a prior x ~ N(mu, C) it is mu + C A^T (A C A^T + sigma^2 I)^-1 (y - A mu): the estimate of least mean squared
    error under the prior, and also the most probable image. sigma is the noise model's. The problem's weight w
    multiplies R in the prior's density, exp(-w R), so that C / w takes the place of C; its default, 1, is Bayes' rule.
    (In the units of misfit + weight R the weight is sigma^2 w.) The prior is `gaussian-spectrum`, or any quadratic one,
    R(x) = 1/2 ||K x - c||^2, such as tikhonov, where K^T K takes the place of C^-1.

    - `method`: "auto" takes the first that is there, of
      - "closed-form": one basis makes A^T A and the prior diagonal (denoising, blur with a symmetric boundary; masks
        and circular blur for some quadratic priors). Exact, without iteration.
      - "dense": the Cholesky factor of the m x m matrix A C A^T + sigma^2 I, for gaussian-spectrum; chosen if
        m <= `dense_limit` and m <= n / 2. Exact. Costs m applications of A^T and m^2 n + m^3 / 3 operations once for
        all images that share A and a noise level, and (m + n) m numbers of memory.
      - "iterative": preconditioned conjugate gradients. The preconditioner is the closed form for an operator that
        responds to each ring of DCT frequencies as A does on average (probed with two random images).
    - `tolerance`: of the iteration: the residual in the norm of the preconditioner, relative to its first value.
    - `variance`: also give the posterior variance of every pixel, `Reconstruction.details["variance"]`, (B, C, H, W).
      Exact for the first two methods. For "iterative", the mean square of `samples` exact draws from the posterior,
      centred on its mean, each from a system of its own, made by perturbing measurement and prior (Papandreou & Yuille
      2010, "Gaussian sampling by local perturbations"); relative standard error sqrt(2 / samples), unbiased up to
      `tolerance`.

    For sigma = 0 the mean is the limit sigma -> 0, up to the resolution of the dtype.

    Raises `BadParameter` for parameters outside their range, or for a variance with weight 0, and `Incompatible` if a
    method that is asked for by name is not there.
    """

    operator_type: ClassVar[type[ForwardOperator]] = LinearOperator
    noise_type: ClassVar[type[Noise]] = GaussianNoise
    prior_type: ClassVar[type[Prior] | None] = Quadratic

    method: Literal["auto", "closed-form", "dense", "iterative"] = "auto"
    tolerance: float = 1e-6
    dense_limit: int = 6000
    variance: bool = False
    samples: int = 32

    def __post_init__(self):
        super().__post_init__()
        not_negative("tolerance", self.tolerance)
        not_negative("dense_limit", self.dense_limit)
        if self.samples < 1:
            raise BadParameter(f"samples is {self.samples}", "an integer >= 1")

    def uses_start(self) -> bool:
        return False

    def init(self, problem: Problem, keys: Sequence[Key]) -> PosteriorState:
        if self.variance and bool((_weights(problem) == 0).any()):
            raise BadParameter("weight is 0, so there is no prior", "weight > 0 for a posterior variance")
        method = self._method(problem)
        if method == "iterative":
            return self._start(problem, keys)
        return self._dense(problem) if method == "dense" else self._closed_form(problem)

    def step(self, problem: Problem, state: PosteriorState) -> PosteriorState:
        run = cast(Iteration, state.iteration)
        system = _systems(problem, run.z.shape[1])
        active = (run.product > run.goal).flatten()
        z, residual, direction, product = (
            part.flatten(0, 1) for part in (run.z, run.residual, run.direction, run.product)
        )
        image = system.apply(direction)
        length = torch.where(active, product / _nonzero(dot(direction, image)), 0)
        z = z + per_image(length, z) * direction
        residual = residual - per_image(length, z) * image
        preconditioned = system.precondition(residual, run.response.repeat_interleave(run.z.shape[1], 0))
        new = torch.where(active, dot(residual, preconditioned), product)
        direction = preconditioned + per_image(new / _nonzero(product), z) * direction
        new_run = replace(
            run,
            z=z.reshape(run.z.shape),
            residual=residual.reshape(run.z.shape),
            direction=direction.reshape(run.z.shape),
            product=new.reshape(run.product.shape),
        )
        return replace(state, x=_systems(problem, 1).image(new_run.z[:, 0]), iteration=new_run)

    def estimate(self, problem: Problem, state: PosteriorState) -> Tensor:
        return state.x

    def done(self, problem: Problem, state: PosteriorState) -> Tensor:
        if state.iteration is None:
            return torch.ones(len(problem.y), dtype=torch.bool, device=problem.y.device)
        return (state.iteration.product <= state.iteration.goal).all(1)

    def objective(self, problem: Problem, state: PosteriorState) -> Tensor:
        """misfit(x) + sigma^2 weight R(x)."""
        return problem.misfit(state.x) + _levels(problem) * cast(Quadratic, problem.prior).energy(state.x)

    def criterion(self, problem: Problem, state: PosteriorState) -> str:
        if state.iteration is not None:
            return f"the preconditioned residual fell below {self.tolerance:g} of its first value"
        kind = "measurement's covariance was factorised" if self._method(problem) == "dense" else "closed form is exact"
        return f"the {kind}"

    def remedy(self) -> str:
        return "scale the measurement so that the image has values in [0, 1], or use float64"

    def details(self, problem: Problem, state: PosteriorState) -> Mapping[str, Tensor]:
        if not self.variance:
            return {}
        if state.variance is not None:
            return {"variance": state.variance}
        samples = cast(Iteration, state.iteration).z[:, 1:]
        drawn = _systems(problem, self.samples).lift(samples.flatten(0, 1)).reshape(samples.shape)
        return {"variance": drawn.square().mean(1)}

    def _method(self, problem: Problem) -> Method:
        spectral = isinstance(problem.prior, GaussianSpectrum)
        system = _systems(problem, 1)
        closed = (
            system.diagonal_response()
            if isinstance(system, SpectralSystem)
            else cast(QuadraticSystem, system).diagonal()
        ) is not None
        m, n = problem.y[0].numel(), problem.operator.in_shape
        small = m <= self.dense_limit and 2 * m <= torch.Size(n).numel()
        if self.method == "auto":
            return "closed-form" if closed else "dense" if spectral and small else "iterative"
        if (self.method == "closed-form" and not closed) or (self.method == "dense" and not spectral):
            found = f"there is no {self.method} posterior of {type(problem.operator).__name__}"
            found += f" and {type(problem.prior).__name__}"
            expected = "an operator and a prior that one basis makes diagonal" if not closed else "gaussian-spectrum"
            raise Incompatible(found, expected, 'use method = "auto"')
        return self.method

    def _closed_form(self, problem: Problem) -> PosteriorState:
        system = _systems(problem, 1)
        if isinstance(system, SpectralSystem):
            x, posterior = system.closed_form(problem.y, cast(Tensor, system.diagonal_response()))
            if not self.variance:
                return PosteriorState(x)
            variance = system.prior.whitening.pixel_variance(posterior) / per_image(_weights(problem), x)
        else:
            system = cast(QuadraticSystem, system)
            diagonal, right = cast(Diagonal, system.diagonal()), system.right_side(problem.y)
            x = diagonal.solve(right)
            if not self.variance:
                return PosteriorState(x)
            sigma = cast(GaussianNoise, problem.noise).sigma
            variance = sigma**2 * diagonal_variances(diagonal, problem.operator.in_shape, right)
        return PosteriorState(x, variance.expand_as(x).contiguous())

    def _dense(self, problem: Problem) -> PosteriorState:
        operator, prior, y = cast(LinearOperator, problem.operator), cast(GaussianSpectrum, problem.prior), problem.y
        levels, count = _levels(problem), len(y)
        shared = count == 1 or serves_any_batch(operator, y)
        groups = [list(range(count))] if shared else [[index] for index in range(count)]
        x = y.new_empty(count, *prior.in_shape)
        variance = torch.empty_like(x) if self.variance else None
        for group in groups:
            model = measurement_model(operator, prior, group[0], y)
            for level in sorted(set(levels[group].tolist())):
                chosen = torch.tensor([index for index in group if float(levels[index]) == level], device=y.device)
                found = dense_posterior(model, prior, y[chosen], operator.rows(chosen), level, self.variance)
                x[chosen] = found[0]
                if variance is not None and found[1] is not None:
                    variance[chosen] = found[1] / per_image(_weights(problem)[chosen], x)
        return PosteriorState(x, variance)

    def _start(self, problem: Problem, keys: Sequence[Key]) -> PosteriorState:
        mean, like = _systems(problem, 1), problem.y.new_zeros(len(problem.y), *problem.operator.in_shape)
        right = mean.right_side(problem.y)[:, None]
        if self.variance:
            right = torch.cat((right, self._perturbations(problem, keys)), 1)
        response = mean.probe(like, keys)
        system, flat = _systems(problem, right.shape[1]), right.flatten(0, 1)
        direction = system.precondition(flat, response.repeat_interleave(right.shape[1], 0))
        product = dot(flat, direction).reshape(right.shape[:2])
        start = torch.zeros_like(right)
        run = Iteration(start, right, direction.reshape(right.shape), product, self.tolerance**2 * product, response)
        return PosteriorState(mean.image(start[:, 0]), iteration=run)

    def _perturbations(self, problem: Problem, keys: Sequence[Key]) -> Tensor:
        """Right sides (B, samples, ...) whose solutions are draws from the posterior, minus its mean.

        sigma A^T n_1 + sigma^2 w^1/2 P^1/2 n_2 has the covariance sigma^2 (A^T A + s2 P), so that the solution has
        sigma^2 (A^T A + s2 P)^-1.
        """
        system, y = _systems(problem, self.samples), problem.y
        own = [key.child("sample", index) for key in keys for index in range(self.samples)]
        first = torch.stack([key.child("measurement").normal(problem.operator.out_shape, y) for key in own])
        second = torch.stack([key.child("prior").normal(system.noise_shape, y) for key in own])
        sigma, weights = cast(GaussianNoise, problem.noise).sigma, _weights(problem).repeat_interleave(self.samples)
        right = sigma * system.pull(system.operator.adjoint(first))
        right = right + sigma**2 * per_image(weights.sqrt(), right) * system.penalty_noise(second)
        return right.reshape(len(y), self.samples, *problem.operator.in_shape)


def _weights(problem: Problem) -> Tensor:
    """The weight of every image, (B,)."""
    return torch.as_tensor(problem.weight).to(problem.y).expand(len(problem.y))


def _levels(problem: Problem) -> Tensor:
    """s2 = sigma^2 weight of every image, (B,)."""
    return cast(GaussianNoise, problem.noise).sigma ** 2 * _weights(problem)


def _systems(problem: Problem, copies: int) -> PosteriorSystem:
    """The system of every image, each so many times in a row."""
    levels = _levels(problem)
    if copies > 1:
        index = torch.arange(len(problem.y), device=problem.y.device).repeat_interleave(copies)
        problem, levels = problem.rows(index), levels[index]
    kind = SpectralSystem if isinstance(problem.prior, GaussianSpectrum) else QuadraticSystem
    return kind(problem, levels)


def _nonzero(value: Tensor) -> Tensor:
    return value.clamp_min(torch.finfo(value.dtype).tiny)
