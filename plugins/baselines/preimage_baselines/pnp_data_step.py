"""The data step of splitting methods: a proximal map of the least-squares misfit, exact where that is possible."""

import torch
from torch import Tensor

from preimage import Diagonal, LinearOperator, norms, per_image

from .fast_diagonal import apply_diagonal
from .krylov import conjugate_gradients

INNER_STEPS = 200
"""At most so many conjugate gradient steps in one data step."""


def inverse(operator: LinearOperator, penalty: Tensor, like: Tensor) -> Diagonal | None:
    """(A^T A + penalty)^-1, the batch as the first axis, if the operator knows a basis that makes it diagonal.

    Worth keeping while the penalty, (B,), stays the same.
    """
    diagonal = operator.normal_diagonal()
    if diagonal is None:
        return None
    shape = (-1, 1, 1, 1)
    return Diagonal(diagonal.basis, 1 / (diagonal.eigenvalues.to(like) + penalty.to(like).reshape(shape)))


def data_step(
    operator: LinearOperator,
    back: Tensor,
    target: Tensor,
    penalty: Tensor,
    start: Tensor,
    accuracy: Tensor,
    kept: Diagonal | None = None,
) -> Tensor:
    """argmin_x 1/2 ||A x - y||^2 + penalty/2 ||x - target||^2, that is (A^T A + penalty)^-1 (A^T y + penalty target).

    In closed form by the operator's `solve_normal`; else by conjugate gradients from `start`, to within `accuracy` of
    the exact image, or for 200 steps.

    - `back`: A^T y. `target`, `start`: images. `penalty`: > 0, (B,). `accuracy`: Euclidean distance, (B,).
    - `kept`: `inverse(operator, penalty, back)`, if it has been computed before.
    """
    rho = per_image(penalty, target)
    b = torch.addcmul(back, rho, target)
    if kept is None:
        kept = inverse(operator, penalty, b)
    if kept is not None:
        return apply_diagonal(kept, b)
    if (closed := operator.solve_normal(b, penalty)) is not None:
        return closed
    # All eigenvalues of A^T A + penalty are at least the penalty, so the error is at most residual / penalty.
    tolerance = torch.maximum(accuracy * penalty, 8 * torch.finfo(b.dtype).eps * norms(b))
    return conjugate_gradients(
        lambda x: torch.addcmul(operator.normal(x), rho, x), b, start, tolerance, INNER_STEPS, lambda x: x
    )
