"""Files that are there completely or not at all."""

import contextlib
import errno
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from preimage.errors import BadFile

_REMEDIES = {
    errno.ENOSPC: "free some space on this disk, or write elsewhere",
    errno.EDQUOT: "free some of your quota, or write elsewhere",
    errno.EACCES: "ask for permission to this folder, or name another",
    errno.EPERM: "ask for permission to this folder, or name another",
    errno.EROFS: "this disk is read-only: write elsewhere",
    errno.ENOENT: "check the path; `ls` its folder",
    errno.EISDIR: "name a file in this folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder: check it",
    errno.ENAMETOOLONG: "use a shorter name",
}


def file_error(path: Path, error: OSError, action: str) -> BadFile:
    """What the operating system reported about this file, as an error of preimage; `action`: "read" or "written"."""
    reason = error.strerror or str(error) or type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0, "check the path, its permissions and the disk")
    return BadFile(f"{path} cannot be {action}: {reason}", f"a file that can be {action}", remedy)


def atomic_write(path: str | Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file so that at every moment `path` holds the old content or the whole new content.

    A temporary file in the same folder is written, flushed to the disk (fsync) and renamed. `content` is the bytes,
    or a function that writes them to the open file. Missing parent folders are made. Whatever goes wrong, nothing
    half-written is left behind.

    Raises `BadFile` if the operating system refuses (full disk, no permission, a folder in the way).
    """
    path = Path(path)
    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("xb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        if isinstance(error, BadFile):
            raise
        raise file_error(path, error, "written") from error


def sync_folder(folder: Path) -> None:
    """Make renames in this folder survive a power cut, on systems where a folder can be flushed."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def json_bytes(value: Any) -> bytes:
    """Indented JSON in UTF-8 with a final newline. NaN and infinity, which JSON does not have, become null."""
    return (json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n").encode()


def write_json(path: str | Path, value: Any) -> None:
    """`atomic_write` of `json_bytes`."""
    atomic_write(path, json_bytes(value))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _finite(part) for name, part in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in cast("list[Any]", value)]
    return value


def atomic_folder(path: str | Path, files: Mapping[str, bytes], *, replace: bool = False) -> None:
    """Write a folder of files so that `path` is there with all of them or not at all.

    They are written into a temporary folder beside it, which is then renamed. With `replace`, a folder that holds
    nothing but files of these names gives way.

    Raises `BadFile` if the operating system refuses, or if something else is in the way.
    """
    path = Path(path)
    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.mkdir()
            for name, content in files.items():
                with (part / name).open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            sync_folder(part)
            _take_place(path, part, files, replace)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        sync_folder(path.parent)
    except OSError as error:
        if isinstance(error, BadFile):
            raise
        raise file_error(path, error, "written") from error


def _take_place(path: Path, part: Path, files: Mapping[str, bytes], replace: bool) -> None:
    if not path.exists():
        part.rename(path)
        return
    strange = sorted({entry.name for entry in path.iterdir()} - set(files)) if path.is_dir() else [path.name]
    if strange or not replace:
        what = f"{path} is in the way" + (f": it holds {strange[0]}, which is not of this run" if strange else "")
        raise BadFile(what, "a new folder", "choose another output folder, or move this one away")
    old = part.with_suffix(".old")
    path.rename(old)
    try:
        part.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)
