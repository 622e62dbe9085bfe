"""Cells on a Dask cluster. Each thread of a Dask worker has a worker process of ours, so that limits hold there too."""

import queue
import threading
import time
from concurrent.futures import CancelledError
from typing import Any, cast

from distributed import Client, Future, LocalCluster

from ._pools import Numbered, Pool, lost_cluster, no_cluster
from ._process import Lost, Reply, WorkerProcess
from .measure import Task

CONNECT = 15.0
"""Seconds that a scheduler may take to answer at first, or be away later."""

_own = threading.local()


def compute(task: Task, measured: bytes | None) -> Reply:
    """What runs on a Dask worker: the task, in a process that belongs to this thread."""
    if getattr(_own, "threads", None) != task.threads:
        _own.worker, _own.threads = WorkerProcess(task.threads), task.threads
    reply: Reply = _own.worker.compute(task, measured, _never)
    # Once more, as on one machine: a process may be killed by accident.
    return _own.worker.compute(task, measured, _never) if isinstance(reply, Lost) and not reply.limit else reply


def _never() -> bool:
    return False


class DaskPool(Pool):
    """Tasks on the cluster of the scheduler at an address, or on one started here ("local") with `jobs` workers.

    A task whose Dask worker is lost is given to another by Dask itself, until it has lost
    `distributed.scheduler.allowed-failures` workers (3, unless configured); then it is a lost cell.
    """

    def __init__(self, address: str, jobs: int):
        self._cluster: LocalCluster | None = None
        self._replies: queue.Queue[tuple[int, Future]] = queue.Queue()
        self._address = address
        try:
            if address == "local":
                # Threads do, for each has a process of ours.
                quiet: Any = None  # no dashboard
                self._cluster = LocalCluster(
                    n_workers=jobs, threads_per_worker=1, dashboard_address=quiet, processes=False
                )
            self._client = Client(self._cluster or address, timeout=CONNECT, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise no_cluster(address, error) from error
        self._away: float | None = None
        threads = sum(cast("dict[str, int]", self._client.nthreads()).values())
        self.slots = 2 * max(1, threads, jobs if self._cluster else 1)
        self._futures: dict[int, Future] = {}

    def submit(self, number: int, task: Task, measured: bytes | None) -> None:
        future = self._client.submit(compute, task, measured, pure=False, key=f"preimage-{task.key[:16]}-{number}")
        self._futures[number] = future
        future.add_done_callback(lambda done: self._replies.put((number, done)))

    def wait(self, timeout: float) -> Numbered | None:
        try:
            number, future = self._replies.get(timeout=timeout)
        except queue.Empty:
            self._check()
            return None
        try:
            reply = self._reply(future)
        except (OSError, TimeoutError, CancelledError) as error:  # the scheduler was lost while the result was fetched
            raise lost_cluster(self._address) from error
        self._futures.pop(number).release()
        return number, reply

    def _reply(self, future: Future) -> Reply:
        status = future.status
        if status == "error":
            error = cast("BaseException | None", future.exception(timeout=CONNECT))
            return Lost(f"its Dask workers were lost: {error}")
        if status != "finished":
            raise lost_cluster(self._address)
        return cast(Any, future.result(timeout=CONNECT))

    def close(self) -> None:
        self._futures.clear()
        self._client.close(timeout=2)
        if self._cluster is not None:
            self._cluster.close(timeout=5)

    def _check(self) -> None:
        """Whether the scheduler answers, or was away for a moment only."""
        if self._client.status == "running":
            self._away = None
        elif self._away is None:
            self._away = time.monotonic()
        elif time.monotonic() - self._away > CONNECT:
            raise lost_cluster(self._address)
