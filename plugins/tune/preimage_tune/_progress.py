"""How far the searches are."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from .cases import Case, Label


class Bar:
    """One line for every search in progress, with its best score so far; on an interactive terminal only."""

    def __init__(self, console: Console, trials: int):
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._trials = trials
        self._tasks: dict[Label, TaskID] = {}

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def told(self, case: Case, made: int, best: float | None) -> None:
        """So many trials of a case are made, and this is the best score."""
        total = self._trials if case.space else 1
        if case.label not in self._tasks:
            self._tasks[case.label] = self._progress.add_task(str(case.label), total=total, note="")
        self._progress.update(
            self._tasks[case.label],
            completed=made,
            note="" if best is None else f"best {best:.3f}",
            visible=made < total,
        )
