"""What searches for the minimum of many functions at once have in common: one state for each, and no way to lose one.

The functions f_i(x_i) of a batch are minimised together, but each as if it were alone: steps, memory, back-off from
NaN, and end. What is minimised is given as an `Objective` of `preimage_baselines.line_search`:

    (indices, x) -> the values f_i(x_i) of these images of the batch, and a call that gives the `Point`s there.

`batched_lbfgs` and `batched_adam` are the searches; `minimise` runs one by itself.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from preimage_baselines.line_search import Objective, Point, put
from torch import Tensor

from preimage import take_rows

P = TypeVar("P", bound=Point)


@dataclass(frozen=True)
class SearchState(Generic[P]):
    """What is known of each image's search.

    - `best`: the point of least value so far, all finite. `evaluations`: of value and gradient, (B,), int64.
    - `restarts`: how often the search began anew from the best point, (B,), int64.
    - `hindered`: the last step met NaN or infinity. `stuck`: nothing lower can be found. `failed`: because of NaN or
      infinity at every try. bool, (B,).

    An image whose every start had NaN or infinity has failed, with value infinity and zeros for everything else.
    """

    best: P
    evaluations: Tensor
    restarts: Tensor
    hindered: Tensor
    stuck: Tensor
    failed: Tensor


S = TypeVar("S", bound=SearchState[Point])


@dataclass(frozen=True, kw_only=True)
class BatchedSearch(ABC):
    """A method of descent for a batch of functions.

    - `max_restarts`: >= 0; how often an image may begin anew from its best point, before it is given up.
    """

    max_restarts: int = 5

    @abstractmethod
    def start(self, objective: Objective[P], x: Tensor) -> SearchState[P]:
        """The state at x (B, ...), one evaluation each; more only where there is NaN or infinity."""

    @abstractmethod
    def step(self, objective: Objective[P], state: SearchState[P], budget: Tensor) -> SearchState[P]:
        """One step of every image that is neither stuck nor failed, at most `budget` (B,), int64, evaluations each."""

    def minimise(self, objective: Objective[P], x: Tensor, max_steps: int, max_evaluations: int) -> SearchState[P]:
        """Up to so many steps from x, and evaluations for each image; fewer where nothing lower can be found."""
        state = self.start(objective, x)
        for _ in range(max_steps):
            budget = (max_evaluations - state.evaluations).clamp_min(0)
            if not bool(((budget > 0) & ~state.stuck & ~state.failed).any()):
                break
            state = self.step(objective, state, budget)
        return state


def first_points(objective: Objective[P], x: Tensor, tries: int) -> tuple[P, Tensor, Tensor]:
    """The points at x; where there is NaN or infinity, at x / 4, x / 16, ..., or at zero, whichever is lower.

    - `tries`: how many points are tried after the first, zero being one of them: next to where values overflow they may
      be finite and useless.

    Returns the points, the number of evaluations (B,), and which images have no finite point (value infinity, zeros).
    """
    everything = torch.arange(len(x), device=x.device)
    points = objective(everything, x)[1]()
    evaluations = torch.ones_like(everything)
    bad = (~sound(points)).nonzero()[:, 0]
    for attempt in range(1, tries + 1):
        rows = bad if attempt == tries else (~sound(points)).nonzero()[:, 0]
        if not len(rows):
            continue
        nearer = torch.zeros_like(x[rows]) if attempt == tries else x[rows] / 4**attempt
        found, known = objective(rows, nearer)[1](), take_rows(points, rows)
        taken = ~sound(known) | (sound(found) & (found.value < known.value))
        points = put(points, rows[taken], take_rows(found, taken.nonzero()[:, 0]))
        evaluations = evaluations.index_add(0, rows, torch.ones_like(rows))
    failed = ~sound(points)
    if bool(failed.any()):
        points = _nothing_at(points, failed)
    return points, evaluations, failed


def sound(point: Point) -> Tensor:
    """Where x, value and gradient are finite: bool, (B,)."""
    return torch.isfinite(point.value) & _finite(point.x) & _finite(point.gradient)


def _finite(x: Tensor) -> Tensor:
    return torch.isfinite(x).flatten(1).all(1)


def _nothing_at(points: P, which: Tensor) -> P:
    rows = which.nonzero()[:, 0]
    zeros = {name: torch.zeros_like(part[rows]) for name, part in vars(points).items()}
    return put(points, rows, replace(points, **{**zeros, "value": torch.full_like(zeros["value"], float("inf"))}))
