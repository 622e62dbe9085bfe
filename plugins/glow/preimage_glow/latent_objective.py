"""misfit(F(G(z)), y) + weight * penalty(z) and its gradient, for the images of a batch."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, cast

import torch
from preimage_baselines.line_search import Objective, Point
from torch import Tensor

from preimage import Generative, NormalizingFlow, Problem, dot, norms, per_image

Penalty = Literal["none", "norm", "squared-norm", "log-density"]


@dataclass(frozen=True)
class LatentPoint(Point):
    """A latent `x`, the objective and its gradient there, and what came by the way.

    - `image`: G(z), (B, *in_shape). `misfit`, `penalty`: the parts of the objective, (B,), without the weight.
    """

    image: Tensor
    misfit: Tensor
    penalty: Tensor


def latent_objective(
    problem: Problem, penalty: Penalty, images_at_once: Literal["auto"] | int
) -> Objective[LatentPoint]:
    """The objective of a problem whose prior is `Generative`, as searches want it; see `LatentMap`.

    One evaluation is one G, F, F'^T and G'^T, whether the gradient is asked for or not. At any time the graph of G is
    kept for `images_at_once` images; "auto" is one on a CPU, all elsewhere.
    """
    count = (
        images_at_once if images_at_once != "auto" else 1 if problem.y.device.type == "cpu" else max(1, len(problem.y))
    )

    def objective(index: Tensor, z: Tensor) -> tuple[Tensor, Callable[[], LatentPoint]]:
        pieces = [
            evaluate(problem.rows(some), penalty, latents)
            for some, latents in zip(index.split(count), z.split(count), strict=True)
        ]
        found = pieces[0] if len(pieces) == 1 else _joined(pieces)
        return found.value, lambda: found

    return objective


def evaluate(problem: Problem, penalty: Penalty, z: Tensor) -> LatentPoint:
    """The points at latents z (B, *latent_shape), all together. Where G(z) is not finite the value is infinite."""
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        if penalty == "log-density":
            image, log_determinant = cast(NormalizingFlow, problem.prior).decode_with_log_determinant(leaf)
            outputs = [image, log_determinant]
        else:
            outputs = [cast(Generative, problem.prior).decode(leaf)]
    image, *rest = (output.detach() for output in outputs)
    misfit, slope = problem.misfit_and_grad(image)
    weight = per_image(problem.weight, misfit)
    slopes = [slope, *(weight.expand(len(z)) for _ in rest)]
    (gradient,) = torch.autograd.grad(outputs, leaf, slopes)
    cost, pull = _of_latent(penalty, z)
    cost = cost + sum(rest)
    gradient = gradient + per_image(problem.weight, z) * pull
    value = torch.where(torch.isfinite(image).flatten(1).all(1), misfit + weight * cost, float("inf"))
    return LatentPoint(z, value, gradient, image, misfit, cost)


def _of_latent(penalty: Penalty, z: Tensor) -> tuple[Tensor, Tensor]:
    """What a penalty says of z alone, (B,), and its gradient."""
    if penalty == "none":
        return torch.zeros_like(z.flatten(1)[:, 0]), torch.zeros_like(z)
    if penalty == "norm":
        length = norms(z)
        return length, z / per_image(length.clamp_min(torch.finfo(z.dtype).tiny), z)
    return 0.5 * dot(z, z), z


def _joined(pieces: list[LatentPoint]) -> LatentPoint:
    return LatentPoint(**{f.name: torch.cat([getattr(piece, f.name) for piece in pieces]) for f in fields(LatentPoint)})
