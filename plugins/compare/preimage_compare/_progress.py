"""What one sees while a suite runs: a bar for each method, with what is left and how long it will take."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 30.0


class Bars:
    """Bars on a terminal; elsewhere (a log of a cluster, say) a line now and then."""

    def __init__(self, console: Console, title: str):
        self._console, self._title = console, title
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._failed: dict[str, int] = {}
        self._total = self._done = self._done_before = 0
        self._began = self._told = time.monotonic()

    def start(self, totals: dict[str, int], done: dict[str, int]) -> None:
        """Numbers of cells for each method, and how many of them are finished already."""
        self._total, self._done = sum(totals.values()), sum(done.values())
        self._done_before = self._done
        self._began = self._told = time.monotonic()
        if not self._console.is_terminal:
            self._line()
            return
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("[red]{task.fields[failed]}"),
            console=self._console,
            transient=True,
        )
        for method, total in totals.items():
            self._tasks[method] = self._bars.add_task(method, total=total, completed=done[method], failed="")
        self._tasks[""] = self._bars.add_task("[bold]all", total=self._total, completed=self._done, failed="")
        self._bars.start()

    def finished(self, record: dict[str, Any]) -> None:
        """A cell was computed."""
        method = record["method"]
        self._done += 1
        self._failed[method] = self._failed.get(method, 0) + (record["outcome"] == "failed")
        if self._bars is not None and method in self._tasks:
            failed = f"{self._failed[method]} failed" if self._failed[method] else ""
            self._bars.update(self._tasks[method], advance=1, failed=failed)
            self._bars.update(self._tasks[""], advance=1)
        elif time.monotonic() - self._told > _SECONDS_BETWEEN_LINES:
            self._line()

    def close(self) -> None:
        """Take the bars away."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _line(self) -> None:
        self._told = time.monotonic()
        text = f"{self._title}: {self._done} of {self._total} cells are done"
        if computed := self._done - self._done_before:
            left = (self._told - self._began) / computed * (self._total - self._done)
            text += f", about {_duration(left)} left"
        if failed := sum(self._failed.values()):
            text += f", {failed} failed"
        self._console.print(text, highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"
