"""A folder that one process at a time works in."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
from preimage_data.atomic import file_error

from preimage.errors import BadFile


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder, and hold its lock, which the operating system takes away from a process that is killed.

    Raises `BadFile` if another process holds it, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock")
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise BadFile(
            f"{folder} is in use by another preimage tune", "a folder of its own for each search", "wait for it to end"
        ) from None
    except OSError as error:
        raise file_error(folder, error, "written") from error
    try:
        yield
    finally:
        lock.release()
