"""Operators of preimage as physics of deepinv."""

# ruff: noqa: N802 (deepinv's names)

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from preimage import ForwardOperator, Key, LinearOperator, Noise, check_shape
from preimage.errors import BadParameter

from ._deepinv import lookup, quiet
from ._isolation import isolated
from .proximal_misfit import least_squares_descent, proximal_misfit
from .to_noise import KeyedNoise

Physics: Any = lookup("physics.Physics")
LinearPhysics: Any = lookup("physics.LinearPhysics")


def as_physics(
    operator: ForwardOperator, noise: Noise | None = None, *, key: Key = Key(0), at: Tensor | None = None
) -> "LinearOperatorPhysics | OperatorPhysics":
    """An operator of preimage as a physics of deepinv: y = noise(F(x)).

    - `noise`: None for none. `key`: of its random numbers (see `KeyedNoise`).
    - `at`: for a nonlinear operator, the image (in_shape) at which its derivative is the `A_adjoint`; default: see
      `OperatorPhysics`. Raises `BadParameter` for a linear one.

    A linear operator becomes a LinearPhysics, whose `prox_l2` is exact where the operator has a closed form; any other
    one a Physics that also has `A_adjoint`, `A_jvp`, `prox_l2`, an `A_dagger` that needs no start, and a
    `compute_norm` that works, which deepinv's own Physics lacks.
    """
    model = None if noise is None else KeyedNoise(noise, key)
    if isinstance(operator, LinearOperator):
        if at is not None:
            raise BadParameter(
                "at was given with a linear operator", "no such argument", "its adjoint is everywhere one"
            )
        return LinearOperatorPhysics(operator, model)
    return OperatorPhysics(operator, model, at)


class LinearOperatorPhysics(LinearPhysics):
    """A linear operator of preimage as deepinv's LinearPhysics; `operator` is the operator itself.

    Input of another shape raises `ShapeMismatch`. `prox_l2` and `A_dagger` do not change the settings of the object
    (deepinv's own overwrite them), and `compute_norm` does not draw from global generators.
    """

    def __init__(self, operator: LinearOperator, noise_model: KeyedNoise | None = None):
        super().__init__(img_size=tuple(operator.in_shape), **_given(noise_model))
        self.operator = operator

    def A(self, x: Tensor) -> Tensor:
        """A x: (B, *in_shape) -> (B, *out_shape)."""
        return self.operator(x)

    def A_adjoint(self, y: Tensor) -> Tensor:
        """A^T y: (B, *out_shape) -> (B, *in_shape)."""
        return self.operator.adjoint(y)

    def A_jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """A v."""
        return self.operator(v)

    def A_adjoint_A(self, x: Tensor) -> Tensor:
        """A^T A x."""
        return self.operator.normal(x)

    def prox_l2(
        self,
        z: Tensor | float | None,
        y: Tensor,
        gamma: float | Tensor,
        solver: str = "CG",
        max_iter: int | None = None,
        tol: float | None = None,
        verbose: bool = False,
    ) -> Tensor:
        """argmin_x gamma/2 ||A x - y||^2 + 1/2 ||x - z||^2: exactly where the operator has a closed form, else by
        deepinv's least squares solver with these settings."""
        back = self.operator.adjoint(y)
        centre = z if isinstance(z, Tensor) else torch.full_like(back, float(z or 0.0))
        step = _steps(gamma, back)
        shift = 1 / step.reshape(-1, *[1] * (back.ndim - 1))
        if (solved := self.operator.solve_normal(back + shift * centre, 1 / step)) is not None:
            return solved
        with _settings_kept(self):
            return super().prox_l2(centre, y, gamma, solver=solver, max_iter=max_iter, tol=tol, verbose=verbose)

    def A_dagger(
        self,
        y: Tensor,
        solver: str = "CG",
        max_iter: int | None = None,
        tol: float | None = None,
        verbose: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        """A least squares solution by deepinv's solver, with these settings."""
        with _settings_kept(self):
            return super().A_dagger(y, solver=solver, max_iter=max_iter, tol=tol, verbose=verbose, **kwargs)

    def compute_sqnorm(self, x0: Tensor, **kwargs: Any) -> Tensor:
        """||A||^2 by power iteration from a start that is the same in every call; x0, with or without a batch axis,
        gives dtype and device."""
        with isolated(x0):
            return super().compute_sqnorm(_batched(x0, self.operator), **kwargs)


class OperatorPhysics(Physics):
    """A nonlinear operator of preimage as deepinv's Physics; `operator` is the operator itself.

    A nonlinear operator has no adjoint, but deepinv's algorithms start from one and some networks expect one.
    `A_adjoint(y)` is F'(x_0)^T y, with x_0 = `at` if that is given, y itself if it is an image of the right shape, and
    zero otherwise. Input of another shape raises `ShapeMismatch`.
    """

    def __init__(self, operator: ForwardOperator, noise_model: KeyedNoise | None = None, at: Tensor | None = None):
        super().__init__(**_given(noise_model))
        if at is not None:
            check_shape(at[None], operator.in_shape, "at")
        self.operator = operator
        self.img_size = tuple(operator.in_shape)
        self.register_buffer("at", at)

    def A(self, x: Tensor) -> Tensor:
        """F(x): (B, *in_shape) -> (B, *out_shape)."""
        return self.operator(x)

    def A_vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """F'(x)^T v."""
        return self.operator.vjp(x)[1](v)

    def A_jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """F'(x) v."""
        return self.operator.jvp(x, v)

    def A_adjoint(self, y: Tensor) -> Tensor:
        """F'(x_0)^T y; see the class for x_0."""
        return self.A_vjp(self.point(y), y)

    def point(self, y: Tensor) -> Tensor:
        """x_0 for these measurements, (B, *in_shape)."""
        check_shape(y, self.operator.out_shape, "measurement y")
        if self.at is not None:
            return cast(Tensor, self.at).to(y).expand(len(y), *self.operator.in_shape)
        if self.operator.in_shape == self.operator.out_shape:
            return y
        return y.new_zeros((len(y), *self.operator.in_shape))

    def A_dagger(
        self, y: Tensor, x_init: Tensor | None = None, max_iter: int | None = None, tol: float | None = None
    ) -> Tensor:
        """Gradient descent on ||F(x) - y||^2 from x_init (default: the image y if it is one, else zero), stopped early;
        see `least_squares_descent`. `max_iter`, `tol`: those of the object by default, 50 and 1e-4."""
        start = self.point(y) if x_init is None else x_init
        steps, tolerance = max_iter or self.max_iter, self.tol if tol is None else tol
        return least_squares_descent(self.operator, y, start, max_steps=steps, tolerance=tolerance)

    def prox_l2(
        self,
        z: Tensor | float | None,
        y: Tensor,
        gamma: float | Tensor,
        solver: str = "gauss-newton",
        max_iter: int | None = None,
        tol: float | None = None,
        verbose: bool = False,
    ) -> Tensor:
        """A stationary point of gamma/2 ||F(x) - y||^2 + 1/2 ||x - z||^2 near z; see `proximal_misfit`.

        `solver` and `verbose` are deepinv's and have no effect; `max_iter` is 50, `tol` 1e-5 by default.
        """
        shape = (len(y), *self.operator.in_shape)
        centre = z if isinstance(z, Tensor) else y.new_full(shape, float(z or 0.0))
        settings = {"max_steps": max_iter or self.max_iter, "tolerance": 1e-5 if tol is None else tol}
        return proximal_misfit(self.operator, y, centre, _steps(gamma, centre), **settings)

    def compute_norm(self, x: Tensor, verbose: bool = False, squared: bool = True, **kwargs: Any) -> Tensor:
        """||F'(x)||^2, or its root with squared = False, by power iteration from a start that is the same in every
        call. `kwargs`: max_iter and tol of deepinv's power_method. Like deepinv's, it is the square by default."""
        with isolated(x):
            point = _batched(x, self.operator)
            found = lookup("physics.functional.power_method")(
                lambda v: self.A_vjp(point, self.A_jvp(point, v)), point, verbose=verbose, **kwargs
            )
        return found if squared else found.sqrt()

    def compute_sqnorm(self, x0: Tensor, **kwargs: Any) -> Tensor:
        """||F'(x0)||^2; see `compute_norm`."""
        return self.compute_norm(x0, **kwargs)

    def adjointness_test(self, u: Tensor) -> Tensor:
        """|<F'(u) v, w> - <v, F'(u)^T w>| / (||F'(u) v|| ||w||) for random v and w: rounding, if `A_jvp` and `A_vjp`
        are each other's adjoints at u, (B, *in_shape)."""
        v = Key(0).child("v").normal(u.shape, u)
        forth = self.A_jvp(u, v)
        w = Key(0).child("w").normal(forth.shape, u)
        gap = (forth * w).sum() - (v * self.A_vjp(u, w)).sum()
        return gap.abs() / (torch.linalg.vector_norm(forth) * torch.linalg.vector_norm(w))


def _given(noise_model: KeyedNoise | None) -> dict[str, Any]:
    # deepinv's default noise model is one object that all physics share.
    return {"noise_model": lookup("physics.ZeroNoise")() if noise_model is None else noise_model}


def _steps(gamma: float | Tensor, like: Tensor) -> Tensor:
    """gamma as one number per image, (B,); deepinv also gives shapes () and (B, 1, 1, 1)."""
    flat = torch.as_tensor(gamma, dtype=like.dtype, device=like.device).reshape(-1)
    return flat.expand(len(like))


def _batched(x: Tensor, operator: ForwardOperator) -> Tensor:
    return x[None] if tuple(x.shape) == operator.in_shape else x


@contextmanager
def _settings_kept(physics: Any) -> Generator[None, None, None]:
    before = physics.max_iter, physics.tol, physics.solver
    try:
        with quiet():
            yield
    finally:
        physics.max_iter, physics.tol, physics.solver = before
