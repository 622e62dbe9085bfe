"""The Gaussian posterior by the Cholesky factor of the m x m covariance of the measurement."""

from dataclasses import dataclass

import torch
from torch import Tensor

from preimage import LinearOperator
from preimage.errors import ShapeMismatch

from .gaussian_spectrum import GaussianSpectrum

CHUNK = 256


@dataclass(frozen=True)
class MeasurementModel:
    """A K^-1 as a matrix: `rows` W, (m, n), row i being K^-T A^T e_i, and `covariance` W W^T = A C A^T, (m, m)."""

    rows: Tensor
    covariance: Tensor


def measurement_model(operator: LinearOperator, prior: GaussianSpectrum, image: int, like: Tensor) -> MeasurementModel:
    """The model of the operator of one image of the batch (any, if all share it): m adjoints, and m^2 n products."""
    count = like[0].numel()
    rows: list[Tensor] = []
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        units = like.new_zeros(size, count)
        units[torch.arange(size), start + torch.arange(size)] = 1
        # An operator of one image takes a batch of one: repeat it for each of the unit vectors.
        repeated = operator.rows(torch.full((size,), image, device=like.device))
        back = repeated.adjoint(units.reshape(size, *operator.out_shape))
        rows.append(prior.whitening.inverse_adjoint(back).flatten(1))
    matrix = torch.cat(rows)
    return MeasurementModel(matrix, _gram(matrix))


def _gram(rows: Tensor) -> Tensor:
    """W W^T, computing only one of its halves."""
    gram = rows.new_empty(len(rows), len(rows))
    for start in range(0, len(rows), 4 * CHUNK):
        stop = min(start + 4 * CHUNK, len(rows))
        gram[start:stop, :stop] = rows[start:stop] @ rows[:stop].mT
        gram[:start, start:stop] = gram[start:stop, :start].mT
    return gram


def dense_posterior(
    model: MeasurementModel, prior: GaussianSpectrum, y: Tensor, operator: LinearOperator, level: float, variance: bool
) -> tuple[Tensor, Tensor | None]:
    """Posterior mean of a batch of one noise level s2, (B, C, H, W), and if wanted the variance (1, C, H, W):
    C - C A^T (A C A^T + s2 I)^-1 A C, its diagonal."""
    factor = _factor(model.covariance, level)
    mean = prior.mean.to(y).expand(len(y), *prior.in_shape)
    residual = (y - operator(mean)).flatten(1)
    z = torch.cholesky_solve(residual.mT, factor).mT @ model.rows
    x = prior.decode(z.reshape(-1, *prior.in_shape))
    if not variance:
        return x, None
    whitened = torch.linalg.solve_triangular(factor, model.rows, upper=False)
    known = torch.stack(
        [prior.whitening.inverse(part.reshape(-1, *prior.in_shape)).square().sum(0) for part in whitened.split(CHUNK)]
    ).sum(0)
    return x, (prior.variance().to(y) - known).clamp_min(0)[None]


def serves_any_batch(operator: LinearOperator, like: Tensor) -> bool:
    """Whether all images share the operator: one that belongs to certain images refuses a batch of another size."""
    try:
        operator(like.new_zeros(len(like) + 1, *operator.in_shape))
    except ShapeMismatch:
        return False
    return True


def _factor(covariance: Tensor, level: float) -> Tensor:
    """Cholesky factor of covariance + level I.

    Where rounding has made that indefinite (noise below the resolution of the dtype), the level is raised to it.
    """
    raised = max(level, torch.finfo(covariance.dtype).tiny)
    resolution = torch.finfo(covariance.dtype).eps * float(covariance.diagonal().mean())
    while True:
        matrix = covariance.clone()
        matrix.diagonal().add_(raised)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if not int(failed):
            return factor
        raised = max(resolution, 4 * raised)
