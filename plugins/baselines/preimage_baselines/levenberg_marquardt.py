"""Levenberg-Marquardt with inner conjugate gradients: Gauss-Newton whose steps are shortened by damping."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from preimage import Key, Problem, norms, per_image

from .checks import positive
from .gauss_newton import GaussNewtonState, InexactGaussNewton, linearise, point_of, rayleigh
from .line_search import Point

LEAST_GAIN = 1e-4
"""Part of the model's decrease that a step must bring to be taken."""

LEAST_DAMPING = 1e-12
"""Least damping, in units of the curvature of the misfit."""


@dataclass(frozen=True, kw_only=True)
class LevenbergMarquardt(InexactGaussNewton):
    """Minimises 1/2 ||F(x) - y||^2 + weight R(x), R differentiable or absent, by damped Gauss-Newton steps.

    x <- x + s, where s nearly minimises the model of `GaussNewton` plus mu/2 ||s||^2 (Levenberg 1944; Marquardt 1963,
    "An algorithm for least-squares estimation of nonlinear parameters"). A step is taken if it brings at least 1e-4 of
    the decrease that the model promises. With rho their ratio, mu is multiplied by max(1/3, 1 - (2 rho - 1)^3) after a
    step, and by 2, 4, 8, ... after failures (Nielsen 1999, "Damping parameter in Marquardt's method"; Madsen,
    Nielsen & Tingleff 2004, "Methods for non-linear least squares problems", algorithm 3.16). The objective never
    rises. More careful than a line search where F is far from linear; otherwise the same.

    - `damping`: > 0, the first mu in units of ||F'||^2 as found along the first gradient, default 0.01.
    - `forcing`, `max_inner_steps`, `tolerance`, `max_steps`: as in `GaussNewton`. An image is also done when its step
      is lost in rounding.

    Per step one F and one F'^T besides the inner steps; a failure costs another F and no F'^T. Raises `BadParameter`
    for parameters outside their ranges.
    """

    damping: float = 0.01

    def __post_init__(self):
        super().__post_init__()
        positive("damping", self.damping)

    def init(self, problem: Problem, keys: Sequence[Key]) -> GaussNewtonState:
        x = problem.start()
        residual, value, jacobian = linearise(problem, x)
        point = point_of(problem, x, residual, value, jacobian)
        forcing, start = torch.full_like(value, self.forcing), norms(point.gradient)
        scale = rayleigh(jacobian, point.gradient)
        damping, two = self.damping * scale, torch.full_like(value, 2.0)
        step = self.plan(problem, point, jacobian, forcing, damping, start, scale)
        return GaussNewtonState(point, step, forcing, damping, two, step.scale, start, start < 0)

    def step(self, problem: Problem, state: GaussNewtonState) -> GaussNewtonState:
        old, s = state.point, state.planned.s
        residual, value, jacobian = linearise(problem, old.x + s)
        promised = state.planned.decrease(old.gradient)
        gain = (old.value - value) / torch.where(promised > 0, promised, float("inf"))
        taken = (value < old.value) & (gain >= LEAST_GAIN)

        x = torch.where(per_image(taken, s) > 0, old.x + s, old.x)
        if not bool(taken.all()):
            residual, value, jacobian = linearise(problem, x)
        new = point_of(problem, x, residual, value, jacobian) if bool(taken.any()) else old
        new = Point(x, torch.where(taken, new.value, old.value), new.gradient)

        easier = state.damping * (1 - (2 * gain - 1) ** 3).clamp(1 / 3, 2)
        damping = torch.where(taken, easier, state.damping * state.growth).clamp_min(LEAST_DAMPING)
        growth = torch.where(taken, 2, 2 * state.growth).to(damping)
        forcing = torch.where(taken, self.tightened(old, new, state.forcing), state.forcing)
        stuck = ~taken & (norms(s) <= torch.finfo(s.dtype).eps * norms(old.x))
        stuck = stuck | ~torch.isfinite(damping)
        step = self.plan(problem, new, jacobian, forcing, damping, state.start, state.scale)
        return GaussNewtonState(new, step, forcing, damping, growth, step.scale, state.start, stuck)
