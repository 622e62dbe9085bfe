"""Contractions iterated to their fixed points, every image of a batch until its own end."""

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor


class Fixed(NamedTuple):
    """Where an iteration ended: `x` (B, ...); of each image (B,) the number of `steps`, the length of the last one
    (`step`), the factor by which it was shorter than the one before (`pace`), the largest such factor (`worst`), and
    the norm of x (`size`).

    Factors of steps so short that they are rounding errors do not count; for `worst` neither do those of accelerated
    steps, nor of any in an accelerated iteration that goes on from another. It is 0 where none was measured.
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
    accelerated: bool = False,
) -> Fixed:
    """x <- advance(x), a map with Lipschitz constant `bound` < 1, for each image until its step is short enough.

    - `advance(x, rows)`: the map for the images `rows` of the batch, None being all.
    - `pace`: what is taken for the factor of the first step; `bound` if none is given. No factor is taken to be larger.
    - `accelerated`: each further step starts from where the last two point to (Anderson acceleration of depth 1: Walker
      and Ni, SIAM J. Numer. Anal. 49, 2011). What is returned is an image of the map all the same, so that the length
      of the last step bounds its error as without; but factors tell less about what comes.

    An image stops too when a step is longer than (1 + bound) / 2 times the one before, of which it began where that one
    ended: without rounding errors none is longer than `bound` times it. So the iteration ends, whatever `enough` asks
    for. At least one step is taken.
    """
    steps = torch.zeros(len(x), dtype=torch.long, device=x.device)
    last = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
    paces = torch.full_like(last, bound) if pace is None else pace.to(last, copy=True)
    worst, sizes, floor = torch.zeros_like(last), torch.zeros_like(last), 32 * torch.finfo(x.dtype).eps
    rows = torch.arange(len(x), device=x.device)
    ahead = _Acceleration() if accelerated else None
    while len(rows):
        every = len(rows) == len(x)
        before = x if every else x[rows]
        after = advance(before, None if every else rows)
        change = after - before
        step, size = norms(change), norms(after)
        ratio = step / last[rows]
        measured = (step > floor * size) & (ratio > 0)
        paces[rows] = torch.where(measured, ratio.clamp_max(bound), paces[rows])
        plain = True if ahead is None else ahead.plain
        counts = measured & plain & (ahead is None or pace is None)
        worst[rows] = torch.where(counts, torch.maximum(ratio, worst[rows]), worst[rows])
        longer = step > 0.5 * (1 + bound) * last[rows]
        going = (step > 0) & ~(longer & plain) & ~enough(rows, step, paces[rows], size)
        steps[rows] += 1
        last[rows], sizes[rows] = step, size
        if ahead is not None:
            after = torch.where(_columns(going, after), ahead.point(after, change, longer), after)
            ahead.keep(going)
        del change  # which would be kept through the next step
        if every:
            x = after
        else:
            x[rows] = after
        rows = rows[going]
    return Fixed(x, steps, last, paces, worst, sizes)


class _Acceleration:
    """Where the next step starts from, of images that are still going.

    `plain` (B,): whether the last step began where the one before it had ended.
    """

    def __init__(self):
        self.plain: bool | Tensor = True
        self.over: Tensor | None = None
        self.after: Tensor | None = None
        self.change: Tensor | None = None

    def point(self, after: Tensor, change: Tensor, longer: Tensor) -> Tensor:
        """The point on the line through the ends of the last two steps at which their changes, continued linearly, are
        shortest. For an image that ever took a step longer than contraction allows it is the end of the last one, from
        then on: near the rounding errors the two would take turns for ever."""
        self.over = longer if self.over is None else self.over | longer
        weight, found = torch.zeros_like(longer, dtype=after.dtype), after
        if self.after is not None and self.change is not None:
            turn = change - self.change
            square = turn.square().flatten(1).sum(1).clamp_min(torch.finfo(turn.dtype).tiny)
            weight = ((change * turn).flatten(1).sum(1) / square).clamp(-1, 1).masked_fill(self.over, 0.0)
            found = after - _columns(weight, after) * (after - self.after)
        self.after, self.change, self.plain = after, change, weight == 0
        return found

    def keep(self, going: Tensor) -> None:
        """Go on with these images alone."""
        if not bool(going.all()):
            kept = (cast(Tensor, each)[going] for each in (self.plain, self.over, self.after, self.change))
            self.plain, self.over, self.after, self.change = kept


def _columns(values: Tensor, like: Tensor) -> Tensor:
    """A number of each image, in the shape of images."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
