"""Locks by which runs that share a folder keep out of each other's way. They end with their process, come what may."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType

from preimage_data.atomic import file_error

try:
    import fcntl

    _fcntl: ModuleType | None = fcntl
except ImportError:  # Windows: runs at once may compute a cell twice, and write the same file twice, whole
    _fcntl = None

_RUNNING = 0  # this byte is locked, shared, by every run at work; the others belong to cells


class Claims:
    """Byte-range locks on the file `lock` of a folder, which is made if need be. One object per process and folder.

    Raises `BadFile` if the folder cannot be written.
    """

    def __init__(self, folder: Path):
        path = folder / "lock"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise file_error(path, error, "written") from error
        self._alone = self._lock(_RUNNING, exclusive=True)

    def __enter__(self) -> "Claims":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def alone(self) -> bool:
        """Whether no other run was at work when this one began."""
        return self._alone

    def share(self) -> None:
        """Let other runs in; until then this one, if it is alone, stays alone.

        Waits for a run that is alone, and is about to let others in: what it tidies up would else be this one's files.
        """
        self._lock(_RUNNING, exclusive=False, wait=True)

    def leave(self, tidy: Callable[[], None]) -> None:
        """Call `tidy` if no other run is at work now."""
        if self._lock(_RUNNING, exclusive=True):
            tidy()

    def take(self, key: str) -> bool:
        """Claim a cell; False if another run has it."""
        return self._lock(_byte(key), exclusive=True)

    def release(self, key: str) -> None:
        """Give a cell back."""
        if _fcntl is not None:
            with contextlib.suppress(OSError):
                _fcntl.lockf(self._file, _fcntl.LOCK_UN, 1, _byte(key))

    def close(self) -> None:
        """Give everything back."""
        os.close(self._file)

    def _lock(self, byte: int, *, exclusive: bool, wait: bool = False) -> bool:
        if _fcntl is None:
            return True
        kind = _fcntl.LOCK_EX if exclusive else _fcntl.LOCK_SH
        try:
            _fcntl.lockf(self._file, kind if wait else kind | _fcntl.LOCK_NB, 1, byte)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks: as on Windows
            return True
        return True


def _byte(key: str) -> int:
    return 1 + int(key[:15], 16)
