"""The other end of a worker process: start it, give it a cell, watch it, and end it if it does not end by itself."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import IO, Any, BinaryIO, cast

from . import _frames
from .measure import Outcome, Task

GRACE = 2.0
"""Seconds that a worker may be late in keeping its time limit, beside half of it, before it is ended."""

_POLL = 0.2
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class Lost:
    """A cell whose worker ended without an answer; `limit`: because it was over its time limit."""

    reason: str
    limit: bool = False


@dataclass(frozen=True)
class Other:
    """A cell whose measurement came out different; it is to be sent again with the measurement of the others."""


@dataclass(frozen=True)
class Wrong:
    """A cell that the worker's environment cannot compute."""

    reason: str


Reply = Outcome | Lost | Other | Wrong


class Stopped(Exception):
    """The run was stopped while a cell was computed."""


class WorkerProcess:
    """A long-lived process with pinned threads, started when first used and started anew after it was lost."""

    def __init__(self, threads: int):
        self._threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[Any] = queue.Queue()
        self._errors: deque[bytes] = deque(maxlen=20)

    def compute(self, task: Task, measured: bytes | None, stopped: Callable[[], bool]) -> Reply:
        """The outcome of a task. Raises `Stopped` if `stopped` becomes true before it is there."""
        process = self._started()
        try:
            _frames.write(cast("BinaryIO", process.stdin), asdict(task), [measured])
        except OSError:
            return self._lost()
        allowed = task.limits.seconds
        patience = None if allowed is None else 1.5 * allowed + GRACE
        deadline = None  # counts from the worker's first sign of life, for it may have to start first
        while True:
            try:
                received = self._answers.get(timeout=_POLL)
            except queue.Empty:
                if stopped():
                    raise Stopped from None
                if deadline is not None and time.monotonic() > deadline:
                    self.end()
                    return Lost(f"it needed more than the {allowed:g} s that it may use, and was ended", limit=True)
                continue
            if received is None:
                return self._lost()
            message, blobs = received
            if "phase" in message:
                deadline = None if patience is None else time.monotonic() + patience
            elif "record" in message:
                return Outcome(message["record"], *blobs)
            else:
                return Other() if "other" in message else Wrong(message["wrong"])

    def end(self) -> None:
        """End the process now."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):  # what was not sent is not needed
                        stream.close()
            self._process = None

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            environment = os.environ | {name: str(self._threads) for name in _THREADS}
            self._process = process = subprocess.Popen(
                [sys.executable, "-m", "preimage_compare._worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
            )
            self._answers, self._errors = queue.Queue(), deque(maxlen=20)
            threading.Thread(target=_read, args=(process.stdout, self._answers), daemon=True).start()
            threading.Thread(target=_drain, args=(process.stderr, self._errors), daemon=True).start()
        return self._process

    def _lost(self) -> Lost:
        code = None if self._process is None else self._process.wait()
        self.end()
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
            how += " (by the system, for want of memory, perhaps)" if code == -signal.SIGKILL else ""
        else:
            how = f"ended with exit code {code}"
        said = b"".join(self._errors).decode("utf-8", "replace").strip().splitlines()
        return Lost(f"its worker process {how}" + (f": {said[-1]}" if said else ""))


def _read(stream: IO[bytes], answers: "queue.Queue[Any]") -> None:
    try:
        while (received := _frames.read(cast(Any, stream))) is not None:
            answers.put(received)
    except (OSError, ValueError):
        pass  # closed by `end`
    answers.put(None)


def _drain(stream: IO[bytes], last: "deque[bytes]") -> None:
    try:
        for line in stream:
            last.append(line[:2000])
    except (OSError, ValueError):
        pass  # closed by `end`
