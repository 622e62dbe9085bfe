"""Contractions iterated to their fixed points, every image of a batch until its own end."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Fixed(NamedTuple):
    """Where an iteration ended: `x` (B, ...); of each image (B,) the number of `steps`, the length of the last one
    (`step`), the factor by which it was shorter than the one before (`pace`), the largest such factor (`worst`), and
    the norm of x (`size`).

    Factors of steps so short that they are rounding errors do not count; `worst` is 0 where none was measured.
    """

    x: Tensor
    steps: Tensor
    step: Tensor
    pace: Tensor
    worst: Tensor
    size: Tensor


Enough = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""`enough(rows, step, pace, size)`: whether to stop the images `rows` (n,), whose last step had this length, was
this factor shorter than the one before, and led to a point of this norm; each (n,)."""


def norms(x: Tensor) -> Tensor:
    """Euclidean norm of each image, whatever the layout of its memory: (B, ...) -> (B,)."""
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)))


def iterate(
    x: Tensor,
    advance: Callable[[Tensor, Tensor | None], Tensor],
    bound: float,
    enough: Enough,
    pace: Tensor | None = None,
) -> Fixed:
    """x <- advance(x), a map with Lipschitz constant `bound` < 1, for each image until its step is short enough.

    - `advance(x, rows)`: the map for the images `rows` of the batch, None being all.
    - `pace`: what is taken for the factor of the first step; `bound` if none is given. No factor is taken to be larger.

    An image stops too when a step is longer than (1 + bound) / 2 times the one before: without rounding errors none is
    longer than `bound` times it. So the iteration ends, whatever `enough` asks for. At least one step is taken.
    """
    steps = torch.zeros(len(x), dtype=torch.long, device=x.device)
    last = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
    paces = torch.full_like(last, bound) if pace is None else pace.to(last, copy=True)
    worst, sizes, floor = torch.zeros_like(last), torch.zeros_like(last), 32 * torch.finfo(x.dtype).eps
    rows = torch.arange(len(x), device=x.device)
    while len(rows):
        every = len(rows) == len(x)
        before = x if every else x[rows]
        after = advance(before, None if every else rows)
        step, size = norms(after - before), norms(after)
        ratio = step / last[rows]
        measured = (step > floor * size) & (ratio > 0)
        paces[rows] = torch.where(measured, ratio.clamp_max(bound), paces[rows])
        worst[rows] = torch.where(measured, torch.maximum(ratio, worst[rows]), worst[rows])
        going = (step <= 0.5 * (1 + bound) * last[rows]) & ~enough(rows, step, paces[rows], size)
        steps[rows] += 1
        last[rows], sizes[rows] = step, size
        if every:
            x = after
        else:
            x[rows] = after
        rows = rows[going & (step > 0)]
    return Fixed(x, steps, last, paces, worst, sizes)
