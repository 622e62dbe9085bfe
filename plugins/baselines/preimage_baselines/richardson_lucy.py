"""Richardson-Lucy: maximum likelihood for photon counts, by multiplicative updates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from preimage import ForwardOperator, Key, LinearOperator, Noise, Prior, Problem, norms, per_image
from preimage.errors import BadData, Incompatible

from .checks import not_negative
from .landweber import discrepancy
from .solved_at_start import solved_at_start
from .stopping import Rule, RuleBased, ratio


@dataclass(frozen=True)
class RichardsonLucyState:
    """One iterate per image, `x`.

    - `y`: the measurement, negative values set to zero if that was asked for. `predicted`: A x.
    - `sensitivity`: A^T 1. `change`: of the last step, relative to x, (B,).
    """

    x: Tensor
    y: Tensor
    predicted: Tensor
    sensitivity: Tensor
    change: Tensor


@dataclass(frozen=True, kw_only=True)
class RichardsonLucy(RuleBased[RichardsonLucyState]):
    """x <- x / (A^T 1) A^T (y / (A x)), all pixel by pixel (Richardson 1972; Lucy 1974; with the normalisation of Shepp
    & Vardi 1982, where it is the EM algorithm for Poisson data).

    Decreases the Kullback-Leibler divergence sum(y log(y / A x) - y + A x), the negative log-likelihood of Poisson
    data, at every step; keeps x >= 0 and, after the first step, sum((A^T 1) x) = sum(y): with A^T 1 = 1, the flux.
    Pixels that no measurement sees (A^T 1 = 0) keep their value. Noise enters with the number of steps, so stopping
    early is what regularises. One A and one A^T per step.

    - `tau`: stop at the first x whose misfit (that of the noise model) is at most tau^2 times what the model expects
      of the true image: for Poisson noise m / (2 peak) (Bertero et al. 2010, "A discrepancy principle for Poisson
      data"). >= 0, default 1.02; 0: no such rule, as where the level of the noise is unknown or 0.
    - `clip_negative`: False (default): negative measurements are refused; True: they count as zero, which biases dark
      regions upwards.
    - `tolerance`: also stop when a step moves x by at most tolerance ||x||; >= 0, default 1e-5.
    - `max_steps`: default 1000; 10 to 50 are usual where the level of the noise is not known.

    The start is x0 if given, which must not be negative (zeros stay zero); else the constant image with the flux of the
    data. Any noise model; a linear operator whose matrix has no negative entry (blurs, masks); takes no prior.

    Raises `BadParameter` for values out of range; at the start of a run `BadData` for negative measurements or a
    negative x0, and `Incompatible` if A^T 1 or A 1 has negative values (Gaussian, cosine and Hadamard sensing).
    """

    operator_type: ClassVar[type[ForwardOperator]] = LinearOperator

    tau: float = 1.02
    clip_negative: bool = False
    tolerance: float = 1e-5

    def __post_init__(self):
        super().__post_init__()
        not_negative("tau", self.tau)
        not_negative("tolerance", self.tolerance)

    def objections_to_start(self, operator: ForwardOperator, noise: Noise, prior: Prior | None) -> list[Incompatible]:
        return solved_at_start(self, operator)

    def objections(self, operator: ForwardOperator, noise: Noise, prior: Prior | None) -> list[Incompatible]:
        """An operator with negative entries, as far as A 1 and A^T 1 show them."""
        one = cast(LinearOperator, operator).rows(torch.zeros(1, dtype=torch.int64))
        floating = (t for t in (*one.parameters(), *one.buffers()) if t.is_floating_point())
        like = next(floating, torch.zeros(()))
        seen = one(like.new_ones((1, *one.in_shape)))
        back = one.adjoint(torch.ones_like(seen))
        return [
            Incompatible(
                f"{what} of {type(operator).__name__} is as low as {float(values.min()):.3g}",
                "an operator without negative entries, such as a blur or a mask",
                "use lsqr, landweber or conjugate-gradients",
            )
            for what, values in (("A^T 1", back), ("A 1", seen))
            if bool((values < -1e-5 * values.abs().max()).any())
        ][:1]

    def init(self, problem: Problem, keys: Sequence[Key]) -> RichardsonLucyState:
        operator, y = cast(LinearOperator, problem.operator), problem.y
        if self.clip_negative:
            y = y.clamp_min(0)
        else:
            _refuse_negative(y, "measurement y", "add clip_negative = true, or use landweber with box = [0, 1]")
        sensitivity = operator.adjoint(torch.ones_like(y))
        seen = operator(torch.ones_like(sensitivity))
        if problem.x0 is None:
            flux = ratio(y.flatten(1).sum(1), seen.flatten(1).sum(1))
            x = per_image(flux, sensitivity).expand_as(sensitivity).clone()
        else:
            _refuse_negative(problem.x0, "initial guess x0", "clip it: x0.clamp_min(0)")
            x = problem.x0.clone()
        unknown = x.new_full((len(x),), float("inf"))
        return RichardsonLucyState(x, y, operator(x), sensitivity.clamp_min(0), unknown)

    def step(self, problem: Problem, state: RichardsonLucyState) -> RichardsonLucyState:
        operator = cast(LinearOperator, problem.operator)
        back = operator.adjoint(state.y / _at_least(state.predicted))
        unseen = state.sensitivity <= torch.finfo(back.dtype).eps * _largest(state.sensitivity)
        factor = torch.where(unseen, 1, back / torch.where(unseen, 1, state.sensitivity))
        # Rounding may make a sum of positive terms negative where a transform computes it.
        x = state.x * factor.clamp_min(0)
        change = ratio(norms(x - state.x), norms(x))
        return RichardsonLucyState(x, state.y, operator(x), state.sensitivity, change)

    def estimate(self, problem: Problem, state: RichardsonLucyState) -> Tensor:
        return state.x

    def objective(self, problem: Problem, state: RichardsonLucyState) -> Tensor:
        """The Kullback-Leibler divergence of y from A x."""
        p = _at_least(state.predicted)
        return (torch.xlogy(state.y, state.y) - torch.xlogy(state.y, p) - state.y + p).flatten(1).sum(1)

    def rules(self, problem: Problem, state: RichardsonLucyState) -> Sequence[Rule]:
        moved = Rule("the relative change of the last step", state.change, self.tolerance)
        return (*discrepancy(problem, problem.noise.misfit(state.predicted, problem.y), self.tau), moved)

    def remedy(self) -> str:
        return "check the measurement for values that are far too large"


def _largest(values: Tensor) -> Tensor:
    return values.flatten(1).amax(1).reshape(-1, *[1] * (values.ndim - 1))


def _at_least(predicted: Tensor) -> Tensor:
    """A x, kept away from zero by a rounding error of its largest value."""
    floor = torch.finfo(predicted.dtype).eps * _largest(predicted)
    return torch.maximum(predicted, floor.clamp_min(torch.finfo(predicted.dtype).tiny))


def _refuse_negative(values: Tensor, what: str, remedy: str) -> None:
    if bool((values < 0).any()):
        count, least = int((values < 0).sum()), float(values.min())
        raise BadData(f"{what} has {count} negative values, the least {least:.3g}", "values >= 0", remedy)
