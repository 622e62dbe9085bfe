"""Which theorem says that a plug-and-play iteration converges, where there is one.

Both are about denoisers D_sigma = (1 - t) Id + t N with N nonexpansive (`preimage.AveragedDenoiser`), a linear operator
A, the misfit 1/2 ||A x - y||^2, and a sigma that does not change. Their fixed points are the same if step = 1 / rho:

    x = D(x - step A^T (A x - y)).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from preimage import AveragedDenoiser, LinearOperator, NormKind, Problem, operator_norm

from .pnp_gradient import known_globally
from .stopping import Rule


@dataclass(frozen=True)
class ProvedRule(Rule):
    """A rule that also says what is known of the iteration that it ends.

    - `theorem`: gives the end of a sentence for each image, or "" where nothing is known; called when images are done.
    """

    theorem: Callable[[], Sequence[str]]

    def sentences(self) -> list[str]:
        return [rule + known for rule, known in zip(super().sentences(), self.theorem(), strict=True)]


def forward_backward(problem: Problem, lipschitz: Tensor) -> list[str]:
    """Of x <- D(x - step A^T (A x - y)) with step = 1 / lipschitz, (B,), for each image.

    If D is averaged, t < 1, and step < 2 / ||A||^2, so is the step as a whole: the gradient step is step ||A||^2 / 2
    averaged, and compositions of averaged operators are averaged (Bauschke & Combettes 2017, "Convex analysis and
    monotone operator theory in Hilbert spaces", 2nd edition). So the iteration converges to a fixed point from every
    start if there is one (the theorem of Krasnoselskii and Mann, ibid.), and ||x' - x|| never grows. See also Hertrich,
    Neumayer & Steidl 2021, "Convolutional proximal neural networks and plug-and-play algorithms".
    """
    prior, nothing = problem.prior, [""] * len(lipschitz)
    if not isinstance(prior, AveragedDenoiser) or not known_globally(problem.operator, problem.noise):
        return nothing
    norm = operator_norm(problem.operator, problem.start())
    said = "" if norm.kind is NormKind.BOUND else " (||A|| by power iteration)"
    limits = (2 / norm.safe.square()).tolist()
    return [
        f"; theory: converges{_where(prior)}, as D is averaged with t = {prior.averaged:.3g} < 1 and the step"
        f" {step:.3g} < 2 / ||A||^2 = {limit:.3g}{said} (Bauschke & Combettes 2017, iteration of averaged operators)"
        if step < limit
        else ""
        for step, limit in zip((1 / lipschitz).tolist(), limits, strict=True)
    ]


def douglas_rachford(problem: Problem, penalty: Tensor) -> list[str]:
    """Of ADMM with exact data steps and a constant penalty rho > 0, (B,), for each image.

    If D is firmly nonexpansive, t <= 1/2, it is the resolvent of a maximally monotone operator (Bauschke & Combettes
    2017, as above), and ADMM is Douglas-Rachford splitting of s = x' + u: it converges from every start, for every rho,
    if there is a fixed point (Lions & Mercier 1979; Bauschke & Combettes), and ||s' - s|| = ||x - z|| never grows. For
    t > 1/2 this may fail.
    """
    prior = problem.prior
    if (
        not isinstance(prior, AveragedDenoiser)
        or prior.averaged > 0.5
        or not known_globally(problem.operator, problem.noise)
    ):
        return [""] * len(penalty)
    return [
        f"; theory: converges{_where(prior)}, for every rho (here {rho:.3g}), as D is averaged with t ="
        f" {prior.averaged:.3g} <= 1/2 (Bauschke & Combettes 2017, Douglas-Rachford splitting)"
        for rho in penalty.tolist()
    ]


def has_closed_form(problem: Problem, image: Tensor) -> bool:
    """Whether the normal equations are solved exactly (`LinearOperator.solve_normal`)."""
    return cast(LinearOperator, problem.operator).solve_normal(image, 1.0) is not None


def _where(prior: AveragedDenoiser) -> str:
    if not prior.bounded:
        return " to a fixed point, if there is one"
    return " to the only fixed point" if prior.contraction < 1 else " to a fixed point"
