"""Adam for many functions at once: every image of a batch has its own moments, rate and back-off."""

from dataclasses import dataclass, replace
from typing import TypeVar, cast

import torch
from preimage_baselines.line_search import Objective, Point, put
from torch import Tensor

from preimage import per_image, take_rows
from preimage.errors import BadParameter

from .batched_search import BatchedSearch, SearchState, first_points, sound

P = TypeVar("P", bound=Point)

FIRST, SECOND, TINY = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class AdamState(SearchState[P]):
    """- `current`: where each image stands. `moment`, `square`: of its gradients since `count` steps, (B,), int64.
    - `rate`: its learning rate, (B,)."""

    current: P
    moment: Tensor
    square: Tensor
    count: Tensor
    rate: Tensor


@dataclass(frozen=True, kw_only=True)
class BatchedAdam(BatchedSearch):
    """Adam (Kingma & Ba 2015, algorithm 1; moments 0.9, 0.999), one evaluation a step.

    A step to where there is NaN or infinity is not taken: the image begins anew from its best point, without moments
    and with half the rate, until it has done so `max_restarts` times; then it ends.

    - `learning_rate`: > 0. Raises `BadParameter` otherwise.
    """

    learning_rate: float = 0.05

    def __post_init__(self):
        if not 0 < self.learning_rate < float("inf"):
            raise BadParameter(f"learning_rate is {self.learning_rate}", "a finite number > 0")

    def start(self, objective: Objective[P], x: Tensor) -> AdamState[P]:
        point, evaluations, failed = first_points(objective, x, self.max_restarts)
        none, zero = torch.zeros_like(failed), torch.zeros_like(x)
        rate = torch.full_like(point.value, self.learning_rate)
        return AdamState(
            best=point,
            evaluations=evaluations,
            restarts=evaluations - 1,
            hindered=evaluations > 1,
            stuck=none,
            failed=failed,
            current=point,
            moment=zero,
            square=zero,
            count=torch.zeros_like(evaluations),
            rate=rate,
        )

    def step(self, objective: Objective[P], state: SearchState[P], budget: Tensor) -> AdamState[P]:
        whole = cast("AdamState[P]", state)
        rows = ((budget > 0) & ~whole.failed).nonzero()[:, 0]
        if not len(rows):
            return whole
        old = take_rows(whole, rows)
        gradient, count = old.current.gradient, old.count + 1
        moment = FIRST * old.moment + (1 - FIRST) * gradient
        square = SECOND * old.square + (1 - SECOND) * gradient.square()
        first, second = (per_image(1 - rate ** count.to(gradient), gradient) for rate in (FIRST, SECOND))
        move = per_image(old.rate, gradient) * (moment / first) / ((square / second).sqrt() + TINY)
        new = objective(rows, old.current.x - move)[1]()

        fine = sound(new)
        again, given_up = ~fine, ~fine & (old.restarts >= self.max_restarts)
        lower = (fine & (new.value < old.best.value)).nonzero()[:, 0]
        best = put(old.best, lower, take_rows(new, lower))
        broken = again.nonzero()[:, 0]
        shaped = again.reshape(-1, *[1] * (gradient.ndim - 1))
        after = replace(
            old,
            best=best,
            evaluations=old.evaluations + 1,
            restarts=old.restarts + (again & ~given_up),
            hindered=again,
            failed=given_up,
            current=put(new, broken, take_rows(best, broken)),
            moment=torch.where(shaped, 0, moment),
            square=torch.where(shaped, 0, square),
            count=torch.where(again, 0, count),
            rate=torch.where(again, old.rate / 2, old.rate),
        )
        return put_rows(whole, rows, after)


def put_rows(whole: AdamState[P], rows: Tensor, new: AdamState[P]) -> AdamState[P]:
    """The state, with the images at `rows` replaced."""
    if len(rows) == len(whole.rate):
        return new
    parts = {
        name: put(cast(Point, old), rows, getattr(new, name))
        if isinstance(old, Point)
        else cast(Tensor, old).index_copy(0, rows, getattr(new, name))
        for name, old in vars(whole).items()
    }
    return replace(whole, **parts)
