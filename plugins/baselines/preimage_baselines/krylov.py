"""Conjugate gradients for a batch of symmetric positive definite systems, each image frozen when it has converged."""

from collections.abc import Callable

import torch
from torch import Tensor

from preimage import dot, per_image


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    b: Tensor,
    x: Tensor,
    tolerance: Tensor,
    max_steps: int,
    precondition: Callable[[Tensor], Tensor],
) -> Tensor:
    """Solve M x = b until ||M x - b|| <= tolerance for each image, or for `max_steps` steps.

    - `apply`: M. `precondition`: something like M^-1, symmetric positive definite. `x`: where to start.
    - `tolerance`: absolute, (B,).

    An image that has converged no longer changes, so that the result does not depend on its batch mates (Hestenes &
    Stiefel 1952; preconditioned as in Golub & Van Loan, Matrix Computations, 4th ed., algorithm 11.5.1).
    """
    residual = b - apply(x)
    active = dot(residual, residual).sqrt() > tolerance
    direction = z = precondition(residual)
    product = dot(residual, z)
    for _ in range(max_steps):
        if not bool(active.any()):
            break
        image = apply(direction)
        length = torch.where(active, product / _nonzero(dot(direction, image)), 0)
        x = x + per_image(length, x) * direction
        residual = residual - per_image(length, x) * image
        active = active & (dot(residual, residual).sqrt() > tolerance)
        z = precondition(residual)
        previous, product = product, dot(residual, z)
        direction = z + per_image(product / _nonzero(previous), x) * direction
    return x


def _nonzero(value: Tensor) -> Tensor:
    return value.clamp_min(torch.finfo(value.dtype).tiny)
