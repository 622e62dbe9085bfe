"""Duality gaps: how far above the minimum an objective can be at most, for least squares and priors that are norms."""

from functools import singledispatch

import torch
from torch import Tensor

from preimage import Diagonal, LeastSquares, LinearOperator, Prior, Problem, Splittable, dot, per_image

from .sparsity import OrthonormalSparsity
from .stopping import ratio
from .total_variation import TotalVariation
from .total_variation_prox import lengths


@singledispatch
def dual_norm(prior: Prior, coefficients: Tensor) -> Tensor | None:
    """max <c, coefficients> over g(c) <= 1, (B,), where g of R(x) = g(K x) is a norm or seminorm; None where it is not
    or not known.

    Other priors join by `dual_norm.register`.
    """
    return None


@dual_norm.register
def _(prior: TotalVariation, coefficients: Tensor) -> Tensor:
    return lengths(coefficients, prior.group).flatten(1).amax(1)


@dual_norm.register
def _(prior: OrthonormalSparsity, coefficients: Tensor) -> Tensor:
    # Its K is the identity, so what is given is an image.
    return prior.dual_norm(prior.transform()(coefficients))


def duality_gap(problem: Problem, x: Tensor, p: Tensor | None = None) -> Tensor | None:
    """An upper bound of objective(x) - min objective, (B,) and >= 0, or None where no feasible dual point is known.

    For 1/2 ||A x - y||^2 + weight g(K x), g a norm, by Fenchel-Rockafellar duality (Chambolle & Pock 2011, eq. 4):
    the dual objective is -1/2 ||q||^2 - <q, y> over A^T q + K^T p = 0 and dual_norm(p) <= weight. Known are two cases:

    - K^T K is the identity (sparsity in an orthonormal basis): q = t (A x - y) and p = -K A^T q, with the largest
      t <= 1 for which p is feasible (Kim et al. 2007, "An interior-point method for large-scale l1-regularized least
      squares", section III.A);
    - A^T A is diagonal in a known basis and well invertible there (denoising), and p is given.

    Both are sums of terms that are not negative, so that nothing cancels in single precision.

    - `p`: a dual variable, which is projected onto weight times the dual ball.
    """
    if not isinstance(problem.operator, LinearOperator) or not isinstance(problem.noise, LeastSquares):
        return None
    if not isinstance(problem.prior, Splittable):
        return None
    prior, analysis = problem.prior, problem.prior.analysis()
    tight, diagonal = _is_identity(analysis.normal_diagonal()), problem.operator.normal_diagonal()
    if not tight and (p is None or diagonal is None or not _is_regular(diagonal, x)):
        return None
    residual = problem.operator(x) - problem.y
    slope = problem.operator.adjoint(residual)
    p = -analysis(slope) if tight or p is None else p
    if (size := dual_norm(prior, p)) is None:
        return None
    weight = per_image(problem.weight, size)
    if tight or diagonal is None:
        shrink = ratio(weight, size).clamp_max(1)
        p = per_image(shrink, p) * p
        data = 0.5 * (1 - shrink).square() * dot(residual, residual)
    else:
        # Moreau: what the proximal map of a norm takes away is the projection onto the dual ball.
        p = p - prior.prox_coefficients(p, weight)
        # f(x) + f*(s) - <s, x> for s = -K^T p is 1/2 <r, (A^T A)^-1 r> with r = A^T (A x - y) + K^T p.
        rest = slope + analysis.adjoint(p)
        data = 0.5 * dot(rest, diagonal.solve(rest))
    return data + (weight * prior.energy(x) - dot(p, analysis(x))).clamp_min(0)


def _is_identity(diagonal: Diagonal | None) -> bool:
    return diagonal is not None and bool((diagonal.eigenvalues == 1).all())


def _is_regular(diagonal: Diagonal, like: Tensor) -> bool:
    """Whether the inverse is of use in the arithmetic of `like`."""
    least, largest = diagonal.eigenvalues.min(), diagonal.eigenvalues.max()
    return bool(least > largest * torch.finfo(like.dtype).eps ** 0.5)
