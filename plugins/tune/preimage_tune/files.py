"""A file that one process at a time works with."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
from preimage_data.atomic import file_error

from preimage.errors import BadFile


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, which may not be there yet; its folder is made.

    The lock is a file beside it that the operating system takes away from a process that is killed.

    Raises `BadFile` if another process holds it, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise BadFile(
            f"{path} is in use by another process", "a folder of its own for each search", "wait for the other to end"
        ) from None
    except OSError as error:
        raise file_error(path.parent, error, "written") from error
    try:
        yield
    finally:
        lock.release()
