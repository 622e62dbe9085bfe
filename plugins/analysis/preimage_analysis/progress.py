"""How far a study is, and what is kept of one that was interrupted."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from preimage_data.atomic import atomic_write
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bar, TaskID, TextColumn, TimeRemainingColumn

Values = dict[str, list[float]]
"""What a part of a study computes: numbers for each image (or draw, ...), by name."""

_SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """What a study tells while it runs. This one is silent and keeps nothing: for use from Python."""

    def begin(self, parts: int) -> None:
        """The study has so many parts."""

    def part(self, name: str, inputs: Mapping[str, Any], compute: Callable[[], Values]) -> Values:
        """One part: `compute()`, or what an interrupted run computed from equal `inputs`.

        `inputs` are plain values that decide the result: digests of weights and images, parameters, seeds.
        """
        return compute()


class KeptProgress(Progress):
    """Shows a bar on a terminal (elsewhere a line now and then), and keeps finished parts in `folder`.

    Use it as a context manager: left without an error, the folder is removed, as the study is then complete.
    """

    def __init__(self, folder: Path, console: Console, title: str):
        self._folder, self._console, self._title = folder, console, title
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._parts = self._done = 0
        self._told = time.monotonic()

    def __enter__(self) -> "KeptProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def begin(self, parts: int) -> None:
        self._parts = parts
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task(self._title, total=parts)
            self._bar.start()

    def part(self, name: str, inputs: Mapping[str, Any], compute: Callable[[], Values]) -> Values:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=f"{self._title}: {name}")
        text = json.dumps([self._title, dict(inputs)], sort_keys=True)
        path = self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
        values = _kept(path)
        if values is None:
            values = compute()
            atomic_write(path, json.dumps(values).encode())
        self._done += 1
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done)
        elif time.monotonic() - self._told > _SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            self._console.print(f"{self._title}: {self._done} of {self._parts} parts are done", highlight=False)
        return values


def _kept(path: Path) -> Values | None:
    try:
        return cast(Values, json.loads(path.read_bytes()))
    except (OSError, ValueError):  # not there, or not whole
        return None
