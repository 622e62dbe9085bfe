"""Peak memory of a piece of work, and a limit on it. On systems other than Linux neither is known: the peak is None."""

import ctypes
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """Bytes used at most since it was made, on top of what was in use then.

    Free memory that the C library keeps is given back first, so that what earlier cells freed does not hide what this
    one takes. Main memory is counted by the kernel in steps of some 10^5 bytes; that of a GPU by torch's allocator.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._start: int | None = None
        self._gpu_start = 0
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            self._gpu_start = torch.cuda.memory_allocated(device)
        with suppress(OSError):
            _trim()
            _CLEAR.write_text("5")  # the high-water mark starts anew: proc(5)
            self._start = _kilobytes("VmRSS")

    def read(self) -> dict[str, int | None]:
        """The peaks so far: {"cpu": ..., "gpu": ...}."""
        peak = None if self._start is None else _kilobytes("VmHWM")
        cpu = None if peak is None or self._start is None else max(0, peak - self._start) * 1024
        gpu = None
        if self._device.type == "cuda":
            gpu = torch.cuda.max_memory_allocated(self._device) - self._gpu_start
        return {"cpu": cpu, "gpu": gpu}


@contextmanager
def memory_limit(megabytes: float | None) -> Iterator[None]:
    """Let allocations fail that would take this process that much further than it is now."""
    used = _kilobytes("VmData")
    if megabytes is None or used is None:
        yield
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = used * 1024 + int(megabytes * 1e6)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory could not be had."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _kilobytes(name: str) -> int | None:
    with suppress(OSError):
        for line in _STATUS.read_text("ascii", "replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return None


@cache
def _libc() -> Any:
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None


def _trim() -> None:
    if (library := _libc()) is not None:
        library.malloc_trim(0)
