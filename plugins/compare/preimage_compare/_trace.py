"""How an estimate becomes better with time."""

from dataclasses import dataclass, field

import torch
from preimage_data.measures import psnr
from torch import Tensor

from preimage import Reconstruction, Run, hookimpl

GROWTH = 1.3


@dataclass
class QualityTrace:
    """Seconds, objective and PSNR of one image at the steps 0, 1, 2, 3, 4, 6, 8, 11, ..., each 1.3 times the last, and
    at the end.

    Few, for the objective costs as much as part of a step; and at the same steps whatever the machine.
    """

    truth: Tensor
    steps: list[int] = field(default_factory=list[int])
    seconds: list[float] = field(default_factory=list[float])
    objective: list[float] = field(default_factory=list[float])
    psnr: list[float] = field(default_factory=list[float])
    _next: int = 0
    _solved: float = 0.0

    @hookimpl
    def preimage_start(self, run: Run) -> None:
        self._record(run)

    @hookimpl
    def preimage_step(self, run: Run) -> None:
        if run.step >= self._next:
            self._record(run)

    @hookimpl
    def preimage_finish(self, run: Run, reconstruction: Reconstruction) -> None:
        self._solved = reconstruction.seconds

    def delay(self, total: float) -> None:
        """Count from before the run, by the total of seconds: a start, or the search for a weight, came first."""
        self.seconds = [total - self._solved + seconds for seconds in self.seconds]

    def tensors(self) -> dict[str, Tensor]:
        """As the images of a cell hold them, all (T,), NaN where the solver knows no objective."""
        return {
            "trace_steps": torch.tensor(self.steps, dtype=torch.int64),
            "trace_seconds": torch.tensor(self.seconds, dtype=torch.float64),
            "trace_objective": torch.tensor(self.objective, dtype=torch.float64),
            "trace_psnr": torch.tensor(self.psnr, dtype=torch.float64),
        }

    def add(self, step: int, seconds: float, objective: float, quality: float) -> None:
        """One point, unless it is there."""
        if not self.steps or step > self.steps[-1]:
            self.steps.append(step)
            self.seconds.append(seconds)
            self.objective.append(objective)
            self.psnr.append(quality)

    def _record(self, run: Run) -> None:
        self._next = max(run.step + 1, round(run.step * GROWTH))
        known = run.objective()
        objective = float("nan") if known is None else float(known[0])
        self.add(run.step, run.seconds, objective, float(psnr(run.estimate(), self.truth)[0]))
