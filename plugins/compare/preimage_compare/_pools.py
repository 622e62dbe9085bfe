"""Where cells are computed: worker processes of this machine, or a Dask cluster. Both take tasks and give replies."""

import queue
import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any

from preimage.errors import BadData, BadParameter, NotInstalled

from ._process import Lost, Reply, Stopped, WorkerProcess
from .measure import Outcome, Task

Numbered = tuple[int, Reply]


class Pool(ABC):
    """Takes numbered tasks, and gives a reply to each, in any order.

    `slots` is how many tasks it should hold, so that no worker is ever idle and little waits.
    """

    slots: int

    @abstractmethod
    def submit(self, number: int, task: Task, measured: bytes | None) -> None:
        """Take a task; `measured`: the measurement as a safetensors file, if it is not to be simulated."""

    @abstractmethod
    def wait(self, timeout: float) -> Numbered | None:
        """The next reply; None if there was none for so many seconds. Raises `BadData` if the cluster is lost."""

    @abstractmethod
    def close(self) -> None:
        """End all workers now, whatever they do."""

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LocalPool(Pool):
    """Long-lived worker processes of this machine, each watched by a thread.

    A cell whose worker is lost (killed, crashed, out of memory) is tried once more, in a new one.
    """

    attempts = 2

    def __init__(self, jobs: int, threads: int):
        self.slots = 2 * jobs
        self._tasks: queue.Queue[tuple[int, Task, bytes | None] | None] = queue.Queue()
        self._replies: queue.Queue[Numbered | BaseException] = queue.Queue()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(threads,), daemon=True) for _ in range(jobs)]
        for thread in self._threads:
            thread.start()

    def submit(self, number: int, task: Task, measured: bytes | None) -> None:
        self._tasks.put((number, task, measured))

    def wait(self, timeout: float) -> Numbered | None:
        try:
            reply = self._replies.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(reply, BaseException):
            raise reply
        return reply

    def close(self) -> None:
        self._stop.set()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self, threads: int) -> None:
        worker = WorkerProcess(threads)
        try:
            while (taken := self._tasks.get()) is not None and not self._stop.is_set():
                number, task, measured = taken
                for attempt in range(self.attempts):
                    reply = worker.compute(task, measured, self._stop.is_set)
                    if not isinstance(reply, Lost) or reply.limit or attempt + 1 == self.attempts:
                        self._replies.put((number, reply))
                        break
        except Stopped:
            pass
        except BaseException as error:  # a defect of ours must not end in silence
            self._replies.put(error)
        finally:
            worker.end()


def dask_pool(address: str, jobs: int) -> Pool:
    """A pool on the Dask scheduler at an address; "local" starts one here, with so many workers.

    Raises `NotInstalled` without the package distributed, and `BadParameter` if there is no such scheduler.
    """
    try:
        from ._dask import DaskPool
    except ModuleNotFoundError as error:
        if error.name not in ("dask", "distributed"):
            raise
        raise NotInstalled(
            "--scheduler needs the package distributed", "Dask", 'pip install "preimage-compare[dask]"'
        ) from None
    return DaskPool(address, jobs)


def lost_cluster(address: str) -> BadData:
    """The error for a scheduler that is gone."""
    return BadData(
        f"the Dask scheduler {address} was lost",
        "a scheduler that stays",
        "run the same command again: what is finished is kept",
    )


def no_cluster(address: str, error: Exception) -> BadParameter:
    """The error for a scheduler that is not there."""
    reason: Any = str(error).splitlines()[0] if str(error) else type(error).__name__
    return BadParameter(
        f"there is no Dask scheduler at {address}: {reason}",
        'an address such as "tcp://127.0.0.1:8786", or "local"',
        "start one with `dask scheduler`, and workers with `dask worker ADDRESS --nthreads 1`",
    )


__all__ = ["LocalPool", "Lost", "Outcome", "Pool", "dask_pool", "lost_cluster", "no_cluster"]
