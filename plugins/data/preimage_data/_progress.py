"""A progress bar for runs that take long enough to wonder."""

import time
from types import TracebackType

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from preimage import Reconstruction, Run, hookimpl


class StepBar:
    """An observer that shows steps and the mean objective on an interactive terminal, once `delay` seconds have passed.

    Use it as a context manager, so that the bar is taken away whatever happens.
    """

    def __init__(self, console: Console, text: str, *, delay: float = 2.0, interval: float = 0.1):
        self._console, self._text, self._delay, self._interval = console, text, delay, interval
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._started = self._shown = 0.0

    def __enter__(self) -> "StepBar":
        self._started = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @hookimpl
    def preimage_step(self, run: Run) -> None:
        now = time.monotonic()
        if not self._console.is_terminal or now - self._started < self._delay or now - self._shown < self._interval:
            return
        self._shown = now
        if self._bar is None or self._task is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task(self._text, total=run.solver.max_steps, note="")
            self._bar.start()
        objective = run.objective()
        note = "" if objective is None else f"objective {float(torch.nanmean(objective.double())):.4g}"
        self._bar.update(self._task, completed=run.step, note=note)

    @hookimpl
    def preimage_finish(self, run: Run, reconstruction: Reconstruction) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class CountBar:
    """A bar for work that is counted, on an interactive terminal, once `delay` seconds have passed.

    Use it as a context manager, as `StepBar`.
    """

    def __init__(self, console: Console, text: str, total: int, *, delay: float = 2.0, interval: float = 0.1):
        self._console, self._text, self._total = console, text, total
        self._delay, self._interval = delay, interval
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._done, self._started, self._shown = 0, 0.0, 0.0

    def __enter__(self) -> "CountBar":
        self._started = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self) -> None:
        """One more is done."""
        self._done += 1
        now = time.monotonic()
        if not self._console.is_terminal or now - self._started < self._delay or now - self._shown < self._interval:
            return
        self._shown = now
        if self._bar is None or self._task is None:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task(self._text, total=self._total)
            self._bar.start()
        self._bar.update(self._task, completed=self._done)
