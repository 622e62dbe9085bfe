"""A folder of results: one file per cell, each there completely or not at all.

    FOLDER/suite.json                        the suite, its labels in order, and versions
    FOLDER/plan.json                         the key of every cell that the suite asks for
    FOLDER/cells/ab/abcdef....json           one cell; its name is its key
    FOLDER/images/ab/abcdef....safetensors   the estimate and the trace of that cell
    FOLDER/measurements/DIGEST.safetensors   truth, measurement and start, shared by the cells of all methods
    FOLDER/lock                              empty; runs at work hold locks on its bytes

Every file is written under another name, flushed to the disk and renamed (`preimage_data.atomic`), images and
measurements before the cell that names them. So a cell that is there survives SIGKILL and, where the disk keeps what it
says is flushed, a power cut. A cell carries a checksum of its bytes, and the sizes and checksums of its images: what is
damaged afterwards is found, named, and computed again.

Reading needs no torch, except for images.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preimage_data.atomic import atomic_write, file_error, json_bytes, write_json

from preimage.errors import BadData, BadFile

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = 1
AXES = ("data", "image", "operator", "noise", "seed", "method")

_CHECKSUM = b',\n  "checksum": "'
_END = b'"\n}\n'


@dataclass(frozen=True)
class Corrupt:
    """A file that cannot be used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Results:
    """What a folder holds.

    - `suite`: suite.json. `cells`: those of the suite that are finished, in the suite's order.
    - `missing`: labels (as `AXES`) of cells that the suite asks for and that are not there, or are corrupt.
    - `corrupt`: files that cannot be used; they are computed again by the next run.
    - `others`: keys of cells that the suite does not ask for now (it was edited, or a version changed).
    """

    folder: Path
    suite: Mapping[str, Any]
    cells: Sequence[dict[str, Any]]
    missing: Sequence[tuple[Any, ...]] = ()
    corrupt: Sequence[Corrupt] = ()
    others: Sequence[str] = ()

    def image(self, key: str) -> "dict[str, Tensor]":
        """The tensors of a cell: "estimate" (C, H, W), "trace_seconds", "trace_objective", "trace_psnr" (T,).

        Raises `BadFile` if it has none (a failed cell, say), or they are damaged.
        """
        return read_tensors(image_path(self.folder, key))

    def measurement(self, digest: str) -> "dict[str, Tensor]":
        """ "truth" and "start" (C, H, W) and "measurement", as all methods got it. Raises `BadFile`."""
        return read_tensors(measurement_path(self.folder, digest))


def cell_path(folder: Path, key: str) -> Path:
    """Where the numbers of a cell are."""
    return folder / "cells" / key[:2] / f"{key}.json"


def image_path(folder: Path, key: str) -> Path:
    """Where the estimate and the trace of a cell are."""
    return folder / "images" / key[:2] / f"{key}.safetensors"


def measurement_path(folder: Path, digest: str) -> Path:
    """Where a measurement is."""
    return folder / "measurements" / f"{digest}.safetensors"


def write_cell(folder: Path, record: Mapping[str, Any], image: bytes | None, measurement: bytes | None) -> None:
    """Write a finished cell: its images first, so that a cell that is there is complete.

    `record` names its `key` and, where given, its `measurement`. A measurement that is there is kept.
    Raises `BadFile` if the disk is full or the folder read-only; the cell is then not there.
    """
    key = record["key"]
    if measurement is not None:
        path = measurement_path(folder, record["measurement"])
        if not path.exists():
            atomic_write(path, measurement)
    if image is not None:
        atomic_write(image_path(folder, key), image)
    atomic_write(cell_path(folder, key), encode_cell(record, image))


def encode_cell(record: Mapping[str, Any], image: bytes | None) -> bytes:
    """The content of a cell's file, with its checksum and that of its images."""
    named = None if image is None else {"bytes": len(image), "sha256": hashlib.sha256(image).hexdigest()}
    content = json_bytes({**record, "files": {"image": named} if named else {}}).removesuffix(b"\n}\n")
    return content + _CHECKSUM + _digest(content) + _END


def read_cell(path: Path) -> dict[str, Any] | Corrupt:
    """A cell, or why it cannot be used: damaged, half there, or its image is missing or has another size."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return Corrupt(path, f"cannot be read: {error.strerror}")
    body, found, rest = content.replace(b"\r\n", b"\n").rpartition(_CHECKSUM)  # git may change the ends of lines
    if not found or rest != _digest(body) + _END:
        return Corrupt(path, "is cut off or was changed: its checksum does not fit")
    try:
        record: dict[str, Any] = json.loads(body + b"\n}")
    except ValueError:
        return Corrupt(path, "is not JSON")
    if record.get("schema") != SCHEMA:
        return Corrupt(path, f"has schema {record.get('schema')}, this version of preimage-compare reads {SCHEMA}")
    if record.get("key") != path.stem:
        return Corrupt(path, f"holds the cell {record.get('key')}")
    return record


def check_files(folder: Path, record: Mapping[str, Any], *, deep: bool = False) -> Corrupt | None:
    """Whether the image and measurement of a cell are there; by size, or (`deep`) by every byte."""
    image = record["files"].get("image")
    if image is not None:
        path = image_path(folder, record["key"])
        if reason := _unsound(path, image, deep):
            return Corrupt(path, reason)
    digest = record.get("measurement")
    if digest and image is not None:
        path = measurement_path(folder, digest)
        if not path.exists():
            return Corrupt(path, "is missing")
        if deep and not _fits_its_name(path, path.stat().st_mtime_ns):
            return Corrupt(path, "was changed: its content does not fit its name")
    return None


def measurement_digest(tensors: "Mapping[str, Tensor]") -> str:
    """SHA-256 of the truth, the measurement and the start: of their types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in ("truth", "measurement", "start"):
        values = tensors[name].detach().cpu().contiguous()
        digest.update(f"{values.dtype}{tuple(values.shape)}".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=65536)
def _fits_its_name(path: Path, changed: int) -> bool:
    try:
        return measurement_digest(read_tensors(path)) == path.stem
    except (BadFile, KeyError):
        return False


def read(folder: str | Path, *, deep: bool = False) -> Results:
    """Everything in a folder; with `deep`, the bytes of all images are checked too.

    Raises `BadFile` if there are no results in it.
    """
    folder = Path(folder)
    suite, plan = _json(folder / "suite.json"), planned(folder)
    on_disk = {path.stem: path for path in cell_files(folder)}
    cells: list[dict[str, Any]] = []
    missing: list[tuple[Any, ...]] = []
    corrupt: list[Corrupt] = []
    for key, labels in plan:
        record = read_cell(on_disk[key]) if key in on_disk else None
        if isinstance(record, dict):
            record = check_files(folder, record, deep=deep) or record
        if isinstance(record, Corrupt):
            corrupt.append(record)
        if isinstance(record, dict):
            # The same numbers may be asked for under other labels than those they were computed for.
            cells.append(record | dict(zip(AXES, labels, strict=True)))
        else:
            missing.append(labels)
    return Results(folder, suite, cells, missing, corrupt, sorted(set(on_disk) - {key for key, _ in plan}))


def cell_files(folder: Path) -> Iterator[Path]:
    """The files of all cells, corrupt ones too."""
    return (folder / "cells").glob("??/*.json")


Plan = Sequence[tuple[str, tuple[Any, ...]]]
"""Key and labels (as `AXES`) of each cell asked for; cells that differ in nothing but labels share a key."""


def planned(folder: Path) -> Plan:
    """What the folder's suite asks for, in its order."""
    plan = _json(folder / "plan.json")
    labels = plan["labels"]
    return [
        (key, tuple(labels[axis][position] for axis, position in zip(AXES, positions, strict=True)))
        for key, positions in zip(plan["keys"], plan["cells"], strict=True)
    ]


def write_plan(folder: Path, suite: Mapping[str, Any], plan: Plan) -> None:
    """Write suite.json and plan.json: what is asked for, before anything is computed."""
    labels: dict[str, list[Any]] = {axis: [] for axis in AXES}
    index: dict[str, dict[Any, int]] = {axis: {} for axis in AXES}
    rows: list[list[int]] = []
    for _, values in plan:
        row: list[int] = []
        for axis, value in zip(AXES, values, strict=True):
            if value not in index[axis]:
                index[axis][value] = len(labels[axis])
                labels[axis].append(value)
            row.append(index[axis][value])
        rows.append(row)
    whole = {"schema": SCHEMA, "labels": labels, "keys": [key for key, _ in plan], "cells": rows}
    compact = json.dumps(whole, separators=(",", ":"))
    atomic_write(folder / "plan.json", compact.encode() + b"\n")
    write_json(folder / "suite.json", {"schema": SCHEMA, **suite})


@dataclass
class Merged:
    """What a merge did: numbers of cells."""

    copied: int = 0
    kept: int = 0
    replaced: int = 0
    corrupt: list[Corrupt] = field(default_factory=list[Corrupt])


def merge(into: str | Path, source: str | Path) -> Merged:
    """Add the cells of another folder to this one, made by the same suite (on another machine, say) or by another.

    A finished cell replaces a failed one, and nothing replaces a finished one. Corrupt cells stay where they are.
    Cells that only the other suite asks for are asked for afterwards too.

    Raises `BadData` if both ask for cells of the same labels with different keys: their suites, versions or weights
    differ, and one table of both would compare what is not comparable.
    """
    into, source = Path(into), Path(source)
    theirs, their_suite = planned(source), _json(source / "suite.json")
    if (into / "plan.json").exists():
        ours, our_suite = planned(into), _json(into / "suite.json")
    else:
        ours, our_suite = [], their_suite
    by_labels = {labels: key for key, labels in ours}
    clashes = [labels for key, labels in theirs if by_labels.get(labels, key) != key]
    if clashes:
        labels = ", ".join(map(str, clashes[0]))
        raise BadData(
            f"{source} and {into} have different cells for the same labels, {len(clashes)} in all: {labels}",
            "cells made from the same pipelines, versions and weights",
            f"preimage compare diff {into} {source} compares the two",
        )
    done = Merged()
    for path in sorted(cell_files(source)):
        record = read_cell(path)
        if isinstance(record, dict):
            record = check_files(source, record, deep=True) or record
        if isinstance(record, Corrupt):
            done.corrupt.append(record)
            continue
        present = read_cell(cell_path(into, path.stem)) if cell_path(into, path.stem).exists() else None
        if isinstance(present, dict) and check_files(into, present) is None:
            if present["outcome"] == "ok" or record["outcome"] != "ok":
                done.kept += 1
                continue
            done.replaced += 1
        else:
            done.copied += 1
        _copy(source, into, record, path)
    suite = _joined(our_suite, their_suite)
    write_plan(into, suite, [*ours, *((key, labels) for key, labels in theirs if labels not in by_labels)])
    return done


def clean(folder: str | Path, *, dry_run: bool = False) -> list[Path]:
    """Remove what the suite of the folder does not ask for: cells, images, measurements, left temporary files.

    Corrupt files go too. Gives the files. Raises `BadFile`, and `BadData` while a run is at work in the folder.
    """
    folder = Path(folder)
    results = read(folder, deep=True)
    keep = {"suite.json", "plan.json", "lock"}
    for record in results.cells:
        keep.add(cell_path(folder, record["key"]).relative_to(folder).as_posix())
        keep.add(image_path(folder, record["key"]).relative_to(folder).as_posix())
        if record.get("measurement"):
            keep.add(measurement_path(folder, record["measurement"]).relative_to(folder).as_posix())
    inside = [folder / "cells", folder / "images", folder / "measurements"]
    found = [path for top in inside for path in top.rglob("*") if path.is_file()]
    found += list(folder.glob(".*.part"))
    gone = sorted(path for path in found if path.relative_to(folder).as_posix() not in keep)
    if not dry_run:
        from ._claims import Claims

        with Claims(folder) as claims:
            if not claims.alone():
                raise BadData(f"a run is at work in {folder}", "a folder at rest", "wait for its end, or stop it")
            for path in gone:
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    raise file_error(path, error, "written") from error
    return gone


def temporary_files(folder: Path) -> Iterable[Path]:
    """Files that a killed run was writing."""
    for top in (folder, folder / "measurements"):
        yield from top.glob(".*.part")
    for top in (folder / "cells", folder / "images"):
        yield from top.glob("??/.*.part")


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """The tensors of a safetensors file. Raises `BadFile`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise BadFile(f"there is no file {path}", "tensors of a finished cell", "run the suite again") from None
    except OSError as error:
        raise file_error(path, error, "read") from error
    except SafetensorError as error:
        raise BadFile(f"{path} is damaged: {error}", "tensors", "run the suite again: it is computed anew") from error


def _unsound(path: Path, known: Mapping[str, Any], deep: bool) -> str | None:
    try:
        if path.stat().st_size != known["bytes"]:
            return f"has {path.stat().st_size} bytes instead of {known['bytes']}"
        if deep and hashlib.sha256(path.read_bytes()).hexdigest() != known["sha256"]:
            return "was changed: its checksum does not fit"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None


def _copy(source: Path, into: Path, record: Mapping[str, Any], path: Path) -> None:
    digest = record.get("measurement")
    pairs = [(measurement_path(source, digest), measurement_path(into, digest))] if digest else []
    if record["files"].get("image"):
        pairs.append((image_path(source, record["key"]), image_path(into, record["key"])))
    for old, new in (*pairs, (path, cell_path(into, record["key"]))):
        if "measurements" not in new.parts or not new.exists():
            with contextlib.suppress(FileNotFoundError):  # a failed cell may have no measurement
                atomic_write(new, old.read_bytes())


def _joined(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """One suite.json for both: ours, with the entries of theirs that it lacks."""
    joined = {key: value for key, value in ours.items() if key != "schema"}
    labels = {axis: list(values) for axis, values in joined["labels"].items()}
    for axis, values in theirs["labels"].items():
        labels[axis] = [*labels.get(axis, []), *(value for value in values if value not in labels.get(axis, []))]
    suite = dict(joined["suite"])
    for axis in ("data", "operator", "noise", "method"):
        known = {entry["label"] for entry in suite[axis]}
        suite[axis] = [*suite[axis], *(entry for entry in theirs["suite"][axis] if entry["label"] not in known)]
    suite["seeds"] = labels["seed"]
    return joined | {"labels": labels, "suite": suite}


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BadFile(
            f"there is no file {path}", "a folder of results of `preimage compare`", "name the folder given by --out"
        ) from None
    except OSError as error:
        raise file_error(path, error, "read") from error
    except ValueError as error:
        remedy = "run the suite again: finished cells are kept"
        raise BadFile(f"{path} is damaged: {error}", "JSON", remedy) from error


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
