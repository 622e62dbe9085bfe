"""Stopping rules for iterative solvers, image by image: when a run is done and why, and when it goes wrong.

A solver that inherits from `RuleBased` lists its `rules`; which images are done, and which rule stopped each, follows.
All values are per image, (B,), and belong to the state of the solver, so that they leave the batch with their image.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar, final

import torch
from torch import Tensor

from preimage import Problem, Solver, Status, norms

S = TypeVar("S")

FACTOR = 100.0
"""How many times its start a value that ought to fall may become."""

SUDDEN = 1e8
"""A value so many times its start needs no second look."""

PATIENCE = 5
"""Steps in a row that a value must be too large before the run counts as diverged."""


@dataclass(frozen=True)
class Rule:
    """A quantity that ends the run of an image when it is small enough.

    - `name`: what it is, as the start of a sentence ("the relative duality gap").
    - `value`: (B,); infinity while it is not known. NaN never ends a run.
    - `limit`: a number or (B,).
    """

    name: str
    value: Tensor
    limit: float | Tensor
    status: ClassVar[Status] = Status.CONVERGED

    @property
    def met(self) -> Tensor:
        """Which images may stop: bool, (B,)."""
        return self.value <= self.limit

    def sentences(self) -> list[str]:
        """One per image: what the value is, and what it had to be."""
        limits = torch.as_tensor(self.limit, dtype=self.value.dtype).expand(len(self.value))
        pairs = zip(self.value.tolist(), limits.tolist(), strict=True)
        return [f"{self.name} is {value:.2g}, at most {limit:.2g}" for value, limit in pairs]


@dataclass(frozen=True)
class Event:
    """Something that ends the run of an image by happening, such as a line search that finds no descent.

    - `text`: what happened, as a sentence. `met`: to which images, bool, (B,). `status`: how these end.
    """

    text: str
    met: Tensor
    status: Status = Status.CONVERGED

    def sentences(self) -> list[str]:
        """The text, once per image."""
        return [self.text] * len(self.met)


def any_met(rules: Sequence[Rule | Event]) -> Tensor:
    """Which images at least one rule ends: bool, (B,)."""
    met = rules[0].met
    for rule in rules[1:]:
        met = met | rule.met
    return met


def which_met(rules: Sequence[Rule | Event]) -> list[str]:
    """For each image the sentence of the first rule that ends it; "no rule was met" if none does."""
    sentences = [rule.sentences() for rule in rules]
    return [
        "no rule was met" if first is None else sentences[first][index] for index, first in enumerate(_first_met(rules))
    ]


def _first_met(rules: Sequence[Rule | Event]) -> list[int | None]:
    """For each image the position of the first rule that ends it, or None."""
    columns = zip(*(rule.met.tolist() for rule in rules), strict=True)
    return [next((place for place, met in enumerate(column) if met), None) for column in columns]


class RuleBased(Solver[S]):
    """A solver that is done with an image as soon as one of its rules is met."""

    @abstractmethod
    def rules(self, problem: Problem, state: S) -> Sequence[Rule | Event]:
        """The rules in the order in which they are named, at least one."""

    @final
    def done(self, problem: Problem, state: S) -> Tensor:
        return any_met(self.rules(problem, state))

    @final
    def criterion(self, problem: Problem, state: S) -> Sequence[str]:
        return which_met(self.rules(problem, state))

    @final
    def verdict(self, problem: Problem, state: S) -> Sequence[Status]:
        rules = self.rules(problem, state)
        return [Status.CONVERGED if first is None else rules[first].status for first in _first_met(rules)]


def relative_change(new: Tensor, old: Tensor) -> Tensor:
    """||new - old|| / ||new|| per image, (B,); zero where nothing changed. Of x and T(x): the fixed-point residual."""
    return ratio(norms(new - old), norms(new))


def ratio(value: Tensor, scale: Tensor) -> Tensor:
    """value / scale, (B,), for value, scale >= 0; zero where value is zero."""
    return value / scale.clamp_min(torch.finfo(value.dtype).tiny)


@dataclass(frozen=True)
class Window:
    """The last values of an objective, (B, length): its change over several steps, as one step may be lucky or not."""

    values: Tensor

    @classmethod
    def of(cls, first: Tensor, length: int = 10) -> "Window":
        """A window of `length` >= 1 steps that starts with one value, (B,)."""
        values = torch.full((len(first), length + 1), float("inf"), dtype=first.dtype, device=first.device)
        values[:, -1] = first
        return cls(values)

    def then(self, value: Tensor) -> "Window":
        """The window one step later."""
        return Window(torch.cat((self.values[:, 1:], value[:, None]), 1))

    def change(self) -> Tensor:
        """(largest - least) / |last| over the window, (B,); infinity before it is full."""
        largest, least = self.values.amax(1), self.values.amin(1)
        # Before the window is full this is infinity, or NaN if the last value is infinite too: neither ends a run.
        return ratio(largest - least, self.values[:, -1].abs())


@dataclass(frozen=True)
class Growth:
    """Watches a value that ought to fall, an objective or a residual: (B,) each.

    - `limit`: `FACTOR` times the start. `steps`: in a row at which the value was larger. `out_of_hand`: which images
      diverge, bool. `calm`: no image has such steps (a steady watch costs little beside a fast step).
    """

    limit: Tensor
    steps: Tensor
    out_of_hand: Tensor
    calm: bool = True

    @classmethod
    def of(cls, start: Tensor, floor: float | Tensor = 0.0) -> "Growth":
        """- `floor`: the least value to compare with, for starts at (nearly) zero; a number or (B,)."""
        start = torch.maximum(start, torch.as_tensor(floor, dtype=start.dtype, device=start.device))
        steps = torch.zeros(len(start), dtype=torch.int64, device=start.device)
        return cls(FACTOR * start, steps, steps > 0)

    def then(self, value: Tensor) -> "Growth":
        """One step later. A value that is not finite counts as growth without bound."""
        # Compared so that NaN counts as large.
        small = value <= self.limit
        calm = all(small.tolist())
        if calm and self.calm:
            return self
        steps = torch.where(small, 0, self.steps + 1)
        steps = torch.where(value <= SUDDEN / FACTOR * self.limit, steps, PATIENCE)
        return Growth(self.limit, steps, steps >= PATIENCE, calm)
