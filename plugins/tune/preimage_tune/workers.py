"""Searches one after the other in this process, or side by side in several."""

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

from preimage_compare.suite import Suite

from preimage.errors import PreimageError

from .cases import Case
from .outcomes import Settings, Told, Tuned, described, tune_case
from .study import Store
from .threads import threads
from .validation import Validation


def run(
    suite: Suite,
    cases: Sequence[Case],
    path: Path,
    settings: Settings,
    *,
    jobs: int = 1,
    overwrite: bool = False,
    told: Told | None = None,
) -> list[Tuned]:
    """The outcome of every case, in order. A case is searched by one process from its first trial to its last."""
    if jobs == 1 or len(cases) < 2:
        return _here(suite, cases, path, settings, overwrite, told)
    data = described(Validation(suite, settings.metric))
    context = multiprocessing.get_context("spawn")
    news: Any = context.Queue()
    stop = context.Event()
    given = (suite, path, settings, data, overwrite, news, stop)
    pool = ProcessPoolExecutor(min(jobs, len(cases)), context, _begin, given)
    futures: list[Future[Tuned]] = [pool.submit(_search, case) for case in cases]
    try:
        waiting: set[Future[Tuned]] = set(futures)
        while waiting:
            done, waiting = wait(waiting, timeout=0.2)
            _report(news, cases, told)
            for future in done:
                future.result()
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise PreimageError(
            "a process of the search ended unexpectedly, killed or out of memory",
            "processes that live to the end",
            "run it again, with fewer --jobs: what is finished is kept",
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _here(
    suite: Suite, cases: Sequence[Case], path: Path, settings: Settings, overwrite: bool, told: Told | None
) -> list[Tuned]:
    store = Store(path)
    try:
        with threads(suite.threads):
            validation = Validation(suite, settings.metric)
            data = described(validation)
            return [
                tune_case(validation, case, store, settings, data, overwrite=overwrite, told=told) for case in cases
            ]
    finally:
        store.close()


def _report(news: Any, cases: Sequence[Case], told: Told | None) -> None:
    by_label = {case.label: case for case in cases}
    while True:
        try:
            label, made, best = news.get_nowait()
        except queue.Empty:
            return
        if told is not None:
            told(by_label[label], made, best)


_search_in_worker: Callable[[Case], Tuned] | None = None


def _begin(
    suite: Suite, path: Path, settings: Settings, data: Mapping[str, Any], overwrite: bool, news: Any, stop: Any
) -> None:
    """What a worker process does first."""
    global _search_in_worker
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process tells the others to stop
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(suite.threads)
    validation, store = Validation(suite, settings.metric), Store(path)

    def told(case: Case, made: int, best: float | None) -> None:
        news.put((case.label, made, best))
        if stop.is_set():
            raise PreimageError("the search was stopped")

    _search_in_worker = lambda case: tune_case(  # noqa: E731
        validation, case, store, settings, data, overwrite=overwrite, told=told
    )


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _search(case: Case) -> Tuned:
    assert _search_in_worker is not None
    return _search_in_worker(case)
