"""Observers that core itself needs."""

from dataclasses import dataclass, field

from torch import Tensor

from ._hookspecs import hookimpl
from ._solver import Run


@dataclass
class Trace:
    """Records, at the start and after every step, `seconds` in the solver and the objective of each image (B,).

    `objective` stays empty if the solver does not know its objective.
    """

    seconds: list[float] = field(default_factory=list[float])
    objective: list[Tensor] = field(default_factory=list[Tensor])

    @hookimpl
    def preimage_start(self, run: Run) -> None:
        self._record(run)

    @hookimpl
    def preimage_step(self, run: Run) -> None:
        self._record(run)

    def _record(self, run: Run) -> None:
        self.seconds.append(run.seconds)
        if (objective := run.objective()) is not None:
            self.objective.append(objective)
