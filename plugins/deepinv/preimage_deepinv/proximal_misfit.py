"""Data steps for nonlinear operators: what deepinv's algorithms ask of a physics, and its Physics does not have."""

from collections.abc import Callable

import torch
from torch import Tensor

from preimage import ForwardOperator, dot, norms, operator_norm, per_image


def proximal_misfit(
    operator: ForwardOperator, y: Tensor, z: Tensor, gamma: Tensor, *, max_steps: int = 50, tolerance: float = 1e-5
) -> Tensor:
    """A stationary point of 1/2 ||F(x) - y||^2 + 1/(2 gamma) ||x - z||^2 near z, by a damped Gauss-Newton iteration.

    The linearised problems are solved by conjugate gradients; a step that does not lower the objective is taken back
    and the damping raised (Levenberg-Marquardt; Nocedal & Wright 2006, section 10.3). For a linear operator it is the
    minimiser. Each image is treated alone.

    - `y`: (B, *out_shape). `z`: (B, *in_shape). `gamma`: (B,), > 0.
    - `tolerance`: an image is done when the gradient is below this fraction of its first norm. `max_steps`: at most so
      many linearisations.
    """
    one = [torch.tensor([i], device=y.device) for i in range(len(y))]
    found = [_image(operator.rows(i), y[i], z[i], 1 / float(gamma[i]), max_steps, tolerance) for i in one]
    return torch.cat(found)


def _image(operator: ForwardOperator, y: Tensor, z: Tensor, shift: float, max_steps: int, tolerance: float) -> Tensor:
    x, damping, first, tiny = z, 0.0, None, torch.finfo(z.dtype).tiny

    def objective(predicted: Tensor, u: Tensor) -> float:
        return 0.5 * float((predicted - y).square().sum()) + 0.5 * shift * float((u - z).square().sum())

    predicted, jacobian = operator.linearize(x)
    value = objective(predicted, x)
    for _ in range(max_steps):
        slope = jacobian.adjoint(predicted - y) + shift * (x - z)
        size = float(norms(slope))
        first = size if first is None else first
        if size <= max(tolerance * first, tiny):
            break
        added = shift + damping
        step = _conjugate_gradients(
            lambda d, a=added, j=jacobian: j.normal(d) + a * d, -slope, min(0.1, (size / first) ** 0.5)
        )
        trial = x + step
        trial_predicted, trial_jacobian = operator.linearize(trial)
        trial_value = objective(trial_predicted, trial)
        # Near the end rounding decides: a step that changes the value by less than that is taken.
        if trial_value <= value * (1 + 4 * torch.finfo(z.dtype).eps):
            x, predicted, jacobian, value = trial, trial_predicted, trial_jacobian, trial_value
            damping = damping / 4
        else:
            damping = max(4 * damping, shift)
            if damping > 1e12 * shift:
                break
    return x


def _conjugate_gradients(
    normal: Callable[[Tensor], Tensor], b: Tensor, tolerance: float, max_steps: int = 50
) -> Tensor:
    """d with ||normal(d) - b|| <= tolerance ||b||, for one image, from zero."""
    d, residual = torch.zeros_like(b), b
    direction, square = b, dot(b, b)
    target = tolerance**2 * square
    for _ in range(max_steps):
        image = normal(direction)
        curvature = dot(direction, image)
        if bool(square <= target) or not bool(curvature > 0):
            break
        length = square / curvature
        d = d + per_image(length, d) * direction
        residual = residual - per_image(length, d) * image
        old, square = square, dot(residual, residual)
        direction = residual + per_image(square / old, d) * direction
    return d


def least_squares_descent(
    operator: ForwardOperator, y: Tensor, start: Tensor, *, max_steps: int = 50, tolerance: float = 1e-4
) -> Tensor:
    """Gradient descent on 1/2 ||F(x) - y||^2 from `start` with steps 1 / ||F'(x_0)||^2, halved where one does not
    lower the misfit. It is deepinv's own rule for nonlinear operators, whose step is 0.1 for every operator.

    An image is done when the mean square of F(x) - y is below `tolerance`, as in deepinv, or after `max_steps`; both
    regularise, for the least squares solution of an ill-posed problem is useless. Each image is treated alone.
    """
    rows = [torch.tensor([i], device=y.device) for i in range(len(y))]
    return torch.cat([_descend(operator.rows(i), y[i], start[i], max_steps, tolerance) for i in rows])


def _descend(operator: ForwardOperator, y: Tensor, x: Tensor, max_steps: int, tolerance: float) -> Tensor:
    step = 1 / float(operator_norm(operator, x).safe.square().clamp_min(torch.finfo(x.dtype).tiny))
    predicted, pullback = operator.vjp(x)
    value = float((predicted - y).square().mean())
    for _ in range(max_steps):
        if value < tolerance:
            break
        trial = x - step * pullback(predicted - y)
        trial_predicted, trial_pullback = operator.vjp(trial)
        trial_value = float((trial_predicted - y).square().mean())
        if trial_value <= value:
            x, predicted, pullback, value = trial, trial_predicted, trial_pullback, trial_value
        else:
            step = step / 2
    return x
