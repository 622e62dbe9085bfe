"""Where a search in latent space starts. A start sees the measurement and the operator, never what these hide."""

from collections.abc import Sequence
from typing import Literal, cast

import torch
from preimage_baselines import ConjugateGradients
from torch import Tensor

from preimage import (
    ForwardOperator,
    Generative,
    InvertibleMap,
    Key,
    LinearOperator,
    NoNoise,
    Prior,
    Problem,
    norms,
    per_image,
    solve,
)
from preimage.errors import BadParameter, Incompatible

Start = Literal["zero", "random", "fixed-norm", "pseudo-inverse", "noise-filled", "encode"]

SCALES: dict[Start, float] = {
    "zero": 0.0,
    "random": 1.0,
    "fixed-norm": 1.0,
    "pseudo-inverse": 0.35,
    "noise-filled": 0.35,
    "encode": 0.35,
}
"""What scale "auto" means."""

FILLING = 0.2
"""Standard deviation of the noise of "noise-filled", that of the published code."""

SEEDED: tuple[Start, ...] = ("random", "fixed-norm", "noise-filled")
"""Starts that draw random numbers."""

ENCODED: tuple[Start, ...] = ("pseudo-inverse", "noise-filled", "encode")


def first_latents(problem: Problem, start: Start, scale: float | Literal["auto"], keys: Sequence[Key]) -> Tensor:
    """The latents (B, *latent_shape) that the starts of `LatentMap` mean; image i's random numbers are from keys[i].

    Raises `Incompatible` for "encode" without `Problem.x0`.
    """
    shape = cast(Generative, problem.prior).latent_shape
    factor = SCALES[start] if scale == "auto" else scale
    if start == "zero":
        return problem.y.new_zeros((len(problem.y), *shape))
    if start in ENCODED:
        prior = cast(InvertibleMap, problem.prior)
        return factor * prior.encode(prior.lift(_image(problem, start, keys)))
    z = torch.stack([key.child("start").normal(shape, like=problem.y) for key in keys])
    if start == "fixed-norm":
        z = z * per_image(z[0].numel() ** 0.5 / norms(z), z)
    return factor * z


def start_objections(start: Start, operator: ForwardOperator, prior: Prior | None) -> list[Incompatible]:
    """What is wrong with these parts for this start."""
    found = list[Incompatible]()
    if start in ENCODED and not isinstance(prior, InvertibleMap):
        who = f"start {start!r} needs the latent of an image, and {type(prior).__name__} cannot tell it"
        found.append(Incompatible(who, "a prior that is an InvertibleMap, such as a flow", 'use start = "zero"'))
    if start in ("pseudo-inverse", "noise-filled") and not isinstance(operator, LinearOperator):
        who = f"start {start!r} met {type(operator).__name__}, which is not linear"
        remedy = 'use start = "encode", with the estimate of another solver as x0 ([start] in a pipeline)'
        found.append(Incompatible(who, "a LinearOperator", remedy))
    return found


def check_scale(scale: float | Literal["auto"]) -> None:
    """Raise `BadParameter` unless it is "auto" or a finite number >= 0."""
    if scale != "auto" and not 0 <= scale < float("inf"):
        raise BadParameter(f"start_scale is {scale}", 'a finite number >= 0, or "auto"')


def least_norm_fit(problem: Problem, x: Tensor | None = None) -> Tensor:
    """The image nearest to x (zero if None) among those that fit y best: x + A^+ (y - A x), A linear.

    By conjugate gradients, at most 100 steps or until the gradient is 1e-6 of that at zero; where A has small singular
    values these steps keep what is noise along them out, more or less (Hanke 1995, Conjugate gradient type methods).
    """
    exact = Problem(problem.operator, problem.y, NoNoise(), x0=x)
    return solve(exact, ConjugateGradients(tolerance=1e-6, max_steps=100)).x


def _image(problem: Problem, start: Start, keys: Sequence[Key]) -> Tensor:
    """The image whose latent is asked for."""
    if start == "encode":
        if problem.x0 is None:
            remedy = "give x0, or in a pipeline a [start]: the solver and prior that make it"
            raise Incompatible('start "encode" has no image', "Problem.x0, an estimate of the image", remedy)
        return problem.x0.to(problem.y)
    filling = None
    if start == "noise-filled":
        shape = problem.operator.in_shape
        filling = FILLING * torch.stack([key.child("filling").normal(shape, like=problem.y) for key in keys])
    return least_norm_fit(problem, filling).clamp(0, 1)
