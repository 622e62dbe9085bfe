"""Reconstruction by the inverse of a learned operator, with a bound on how far from that inverse the result can be."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor

from preimage import ForwardOperator, Key, LeastSquares, Noise, Prior, Problem, Solver, norms
from preimage.errors import BadParameter, Incompatible
from preimage.trained import LearnedOperator, mismatches

Rule = Literal["estimated", "certified"]


class MapInverseState(NamedTuple):
    """The reconstructions, all there is to this solver.

    - `x`: (B, *in_shape). `certificate`: on ||x - project(phi^-1(lift(y)))||, (B,). `proved`: the bound on the state
      over its norm, (B,). `evaluations`, `contraction`: as `Inversion` says, (B,).
    """

    x: Tensor
    certificate: Tensor
    proved: Tensor
    evaluations: Tensor
    contraction: Tensor


@dataclass(frozen=True, kw_only=True)
class MapInverse(Solver[MapInverseState]):
    """x_hat(y) = project(phi^-1(lift(y))): the inverse of an invertible map phi that was trained to approximate F, or
    to reconstruct (Arndt & Nickel 2024, "Invertible ResNets for inverse imaging problems: competitive performance with
    provable regularization properties"). The measurement is an image of the shape of x.

    phi works on n copies of an image: lift copies, project takes the mean. So ||lift(v)|| = sqrt(n) ||v||, and by
    Cauchy-Schwarz, pixel by pixel, |1/n sum_k u_k|^2 <= 1/n sum_k |u_k|^2, so that ||project(u)|| <= ||u|| / sqrt(n).
    Two things follow:

    - The inverse is computed by iteration, up to a u with ||u - phi^-1(lift(y))|| <= b, b proved by the prior. Then
      ||project(u) - x_hat(y)|| <= b / sqrt(n): with what rounding adds in the mean this is the `certificate`.
    - ||x_hat(y) - x_hat(y')|| <= 1 / sqrt(n) 1 / (1 - L) sqrt(n) ||y - y'|| = ||y - y'|| / (1 - L), as for phi itself,
      if Lip(phi^-1) <= 1 / (1 - L).

    - `rule`: "estimated" meets the tolerance in practice, "certified" proves that it does, for about twice the
      evaluations. The certificate is proved under either, infinite where nothing can be proved.
    - `tolerance`: in (0, 1), of the inverse: ||u - phi^-1(lift(y))|| <= tolerance ||u||, default 1e-3. Where it
      cannot be proved in the precision of y the reason in the result says so, and what was.
    - `allow_mismatch`: use the map on an operator or noise that it was not trained for; the reason in the result then
      says so. Otherwise such a problem is refused.

    Details of the result, (B,) each: `evaluations` of residuals; the measured `contraction` of their iteration; and for
    least squares with a known noise level `stability_radius`, E / (1 - L) with E^2 the mean of ||noise||^2: as far as
    noise of that norm can have moved the reconstruction, ||x_hat(y) - x_hat(F(x))||. It bounds no distance to x.

    Costs no F. Raises `BadParameter` if the tolerance is out of its range.
    """

    prior_type: ClassVar[type[Prior] | None] = LearnedOperator

    rule: Rule = "estimated"
    tolerance: float = 1e-3
    allow_mismatch: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_tolerance(self.tolerance)

    def objections(self, operator: ForwardOperator, noise: Noise, prior: Prior | None) -> list[Incompatible]:
        return inversion_objections(self, operator, noise, cast(LearnedOperator, prior), self.allow_mismatch)

    def uses_start(self) -> bool:
        return False

    def init(self, problem: Problem, keys: Sequence[Key]) -> MapInverseState:
        return inverted(problem, self.tolerance, self.rule)

    def step(self, problem: Problem, state: MapInverseState) -> MapInverseState:
        return state

    def estimate(self, problem: Problem, state: MapInverseState) -> Tensor:
        return state.x

    def done(self, problem: Problem, state: MapInverseState) -> Tensor:
        return torch.ones(len(state.x), dtype=torch.bool, device=state.x.device)

    def certificate(self, problem: Problem, state: MapInverseState) -> Tensor:
        return state.certificate

    def criterion(self, problem: Problem, state: MapInverseState) -> Sequence[str]:
        mismatch = mismatch_allowed(problem) if self.allow_mismatch else ""
        proofs = (self._proof(proved, state.x.dtype) for proved in cast("list[float]", state.proved.tolist()))
        return [f"it is not iterative; {proof}{mismatch}" for proof in proofs]

    def details(self, problem: Problem, state: MapInverseState) -> Mapping[str, Tensor]:
        found = {"evaluations": state.evaluations, "contraction": state.contraction}
        expected = problem.noise.expected_misfit(problem.y)
        if expected is not None and isinstance(problem.noise, LeastSquares):
            prior = cast(LearnedOperator, problem.prior)
            found["stability_radius"] = (2 * expected).sqrt() * prior.inverse_lipschitz
        return found

    def reference_problem(self, key: Key) -> Problem:
        from .reference import reference_problem

        return reference_problem(key)

    def _proof(self, proved: float, dtype: torch.dtype) -> str:
        """What is known of the inverse of one image, as a clause."""
        if self.rule == "estimated":
            known = (
                f"a distance of at most {proved:.1e} of its norm is proved"
                if math.isfinite(proved)
                else "no bound is proved"
            )
            return f"the inverse is estimated to meet the tolerance {self.tolerance:.1e}, {known}"
        if proved <= self.tolerance:
            return f"the inverse is certified to {proved:.1e} of its norm, at most {self.tolerance:.1e}"
        precision = str(dtype).removeprefix("torch.")
        return (
            f"the inverse is certified to {proved:.1e} of its norm only, {proved / self.tolerance:.2g} times the "
            f"tolerance {self.tolerance:.1e}, which cannot be certified in {precision}"
        )


def inverted(problem: Problem, tolerance: float, rule: Rule) -> MapInverseState:
    """project(phi^-1(lift(y))) with its certificate, which covers the rounding of the mean.

    The mean is computed in float64 and rounded once: its error is at most eps / 2 |x| for the rounding, and
    (n + 1) eps_64 times the mean of |u_k|, whose norm is at most ||u|| / sqrt(n), for the mean itself.
    """
    prior = cast(LearnedOperator, problem.prior)
    inversion = prior.invert(prior.lift(problem.y), tolerance, rule == "certified")
    wide = inversion.x.double()
    x = prior.project(wide).to(problem.y)
    copies = math.prod(prior.latent_shape) / math.prod(prior.in_shape)
    size, bound = norms(wide), inversion.bound.double()
    own, double = (torch.finfo(dtype).eps for dtype in (x.dtype, torch.float64))
    rounding = own / 2 * norms(x.double()) + (copies + 1) * double * size / math.sqrt(copies)
    certificate = (bound / math.sqrt(copies) + rounding) * (1 + own + 1e-12)  # norms and casts round too
    proved = bound / size.clamp_min(torch.finfo(torch.float64).tiny)
    return MapInverseState(x, certificate.to(x), proved, inversion.evaluations.to(x), inversion.contraction.to(x))


def inversion_objections(
    solver: Solver[Any], operator: ForwardOperator, noise: Noise, prior: LearnedOperator, allowed: bool
) -> list[Incompatible]:
    """Why a learned operator cannot be inverted at measurements of this operator."""
    if operator.out_shape != operator.in_shape:
        found = f"{type(operator).__name__} makes {operator.out_shape} of images {operator.in_shape}"
        expected = f"measurements of the shape of the images, which {type(solver).__name__} inverts the map at"
        return [Incompatible(found, expected, "choose an operator that makes images of images")]
    return [] if allowed else mismatches(prior.trained, operator, noise)


def mismatch_allowed(problem: Problem) -> str:
    """A clause that says what the map was not trained for; empty if there is nothing."""
    prior = cast(LearnedOperator, problem.prior)
    wrong = mismatches(prior.trained, problem.operator, problem.noise)
    return f"; mismatch allowed: {'; '.join(w.found for w in wrong)}" if wrong else ""


def check_tolerance(tolerance: float, name: str = "tolerance") -> None:
    """Raise `BadParameter` unless it is in (0, 1)."""
    if not 0 < tolerance < 1:
        remedy = "write 1e-3, which does not show in a picture"
        raise BadParameter(f"{name} is {tolerance}", "a number in (0, 1)", remedy)
