"""The work of `preimage run`: images one by one, each result complete or absent, and nothing finished is done twice."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from preimage import Dataset, Pipeline, Reconstruction, Status
from preimage.assembly import construct, read_toml, versions, with_overrides
from preimage.errors import BadFile, BadParameter, PreimageError, ShapeMismatch, raise_all

from ._progress import StepBar
from .atomic import atomic_folder, file_error, json_bytes
from .figures import View, comparison, figure_bytes, view
from .files import encode, read_array
from .image_file import FileDataset, ImageFile
from .measures import psnr, ssim

RECORD = "run.json"


@dataclass(frozen=True)
class Job:
    """One image to reconstruct: the truth is image `index` of `data`, the measurement is simulated or in a file."""

    label: str
    pipeline: Pipeline
    config: Mapping[str, Any]
    data: Dataset | None = None
    index: int = 0
    measurement: Path | None = None


def plan(
    file: Path, overrides: Mapping[str, Any], inputs: Sequence[Path] = (), measurements: Sequence[Path] = ()
) -> list[Job]:
    """What is to be done, everything checked that can be before anything expensive.

    `file` is a pipeline in TOML, or the run.json of an earlier run, of which the one image is then repeated.
    """
    tables, only = _tables(file)
    if only is not None and not inputs and not measurements:
        measurements = [Path(only["measurement"]["path"])] if only["measurement"] else []
        inputs = [Path(only["input"]["path"])] if measurements and only["input"] else []
    tables = with_overrides(tables, overrides, str(file))
    if measurements and inputs and len(measurements) != len(inputs):
        raise BadParameter(
            f"{len(inputs)} --input and {len(measurements)} --measurement",
            "one true image for each measurement, or none",
        )
    _check_unique([path.name for path in inputs or measurements])
    if inputs:
        return _with_inputs(tables, file, inputs, measurements)
    pipeline = Pipeline.from_dict(tables, where=str(file))
    if measurements:
        config = {name: value for name, value in pipeline.config.items() if name != "data"}
        return [Job(path.name, pipeline, config, measurement=path) for path in measurements]
    data = pipeline.data
    if data is None:
        raise BadParameter(f"{file} has no [data]", "images", 'add [data] with name = "photographs", or give --input')
    labels = [data.label(index) for index in range(len(data))]
    if only is not None and only["label"] not in labels:
        raise BadParameter(f"{file} is of the image {only['label']!r}", f"one of {', '.join(labels)[:200]}")
    wanted = [index for index, label in enumerate(labels) if only is None or label == only["label"]]
    return [Job(labels[index], pipeline, pipeline.config, data, index) for index in wanted]


def _tables(file: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    if file.suffix.lower() != ".json":
        return read_toml(file), None
    try:
        record = json.loads(file.read_text("utf-8"))
        tables = dict(record["config"])
        if not {"label", "input", "measurement"} <= set(record):
            raise KeyError
    except OSError as error:
        raise file_error(file, error, "read") from error
    except (ValueError, KeyError, TypeError):
        raise BadFile(
            f"{file} is not the record of a run", "a run.json of `preimage run`, or a pipeline in TOML"
        ) from None
    if "data" in tables:
        del tables["shape"]
    return tables, record


def _with_inputs(tables: dict[str, Any], file: Path, inputs: Sequence[Path], measurements: Sequence[Path]) -> list[Job]:
    given = tables.get("data")
    kept = {name: given[name] for name in ("size", "colour", "crop") if isinstance(given, dict) and name in given}
    read: list[tuple[dict[str, Any], ImageFile]] = []
    problems: list[PreimageError] = []
    for path in inputs:
        values = {"path": str(path.absolute()), **kept}
        try:
            read.append((values, construct("dataset", "image-file", values, "--input")))
        except PreimageError as error:
            problems.append(error)
    raise_all("the input images", problems)
    pipelines: dict[tuple[int, ...], Pipeline] = {}
    jobs: list[Job] = []
    for number, (values, data) in enumerate(read):
        if data.shape not in pipelines:
            own = {name: value for name, value in tables.items() if name != "shape"}
            own["data"] = {"name": "image-file", **values}
            pipelines[data.shape] = Pipeline.from_dict(own, where=str(file))
        config = pipelines[data.shape].config
        config = {**config, "data": {**config["data"], "path": values["path"]}}
        measurement = measurements[number] if measurements else None
        jobs.append(Job(data.label(0), pipelines[data.shape], config, data, 0, measurement))
    return jobs


def _check_unique(names: Sequence[str]) -> None:
    twice = [name for index, name in enumerate(names) if name in names[:index]]
    if twice:
        raise BadParameter(
            f"two files are called {twice[0]}, and results are kept under this name",
            "files of different names",
            'run them separately, or use [data] name = "folder"',
        )


@dataclass(frozen=True)
class Outcome:
    """The record of one image, as it is in its run.json, and whether it had been done before."""

    record: Mapping[str, Any]
    resumed: bool


def perform(job: Job, out: Path, *, overwrite: bool, console: Console) -> Outcome:
    """Reconstruct one image into the folder `out / label`, unless that has been done."""
    folder = out / _safe(job.label)
    truth = None if job.data is None else job.data[job.index]
    identity = _identity(job, truth)
    earlier = None if overwrite else finished(folder)
    if earlier is not None:
        changed = [name for name, value in _essence(identity).items() if _essence(earlier).get(name) != value]
        if changed:
            raise BadFile(
                f"{folder} holds the result of another run (its {' and '.join(changed)} differs)",
                "results of this pipeline and this image, or a new folder",
                "give --overwrite to replace it, or another --out",
            )
        return Outcome(earlier, True)

    pipeline = job.pipeline
    like = torch.zeros((), device=job.config["device"], dtype=getattr(torch, job.config["dtype"]))
    labels = [job.label]
    x = None if truth is None else truth[None].to(like)
    operator = pipeline.operator_for(labels)
    if job.measurement is None:
        assert x is not None
        y = pipeline.simulate(x, labels)
    else:
        y = _measurement(job.measurement, operator.out_shape).to(like)
    with StepBar(console, job.label) as bar:
        found = pipeline.reconstruct(y, labels, observers=(bar,), throw=False)
    seen = view(operator, y)
    record = {**identity, **_results(found, x, seen), "seed": pipeline.key.seed}
    atomic_folder(folder, _files(job.label, record, found, x, y, seen), replace=overwrite)
    return Outcome(record, False)


def finished(folder: Path) -> dict[str, Any] | None:
    """The record in a result folder, None if there is none."""
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise file_error(folder / RECORD, error, "read") from error
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise BadFile(
            f"{folder / RECORD} is not the record of a run", "JSON", f"move {folder} away, or give --overwrite"
        )
    return record


def _identity(job: Job, truth: Tensor | None) -> dict[str, Any]:
    """What the result depends on, and where it came from."""
    given: dict[str, Any] | None = None
    if truth is not None:
        given = {"pixels_sha256": hashlib.sha256(truth.contiguous().numpy().tobytes()).hexdigest()}
        if isinstance(job.data, FileDataset):
            path = job.data.path(job.index)
            given |= {"path": str(path.absolute()), "sha256": _digest(path)}
    measured = None
    if job.measurement is not None:
        measured = {"path": str(job.measurement.absolute()), "sha256": _digest(job.measurement)}
    identity = {
        "label": job.label,
        "config": dict(job.config),
        "input": given,
        "measurement": measured,
        "versions": versions(job.config),
    }
    return json.loads(json_bytes(identity))


def _essence(record: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same for a result to be taken up again. Where the image was found, and which others [data]
    names besides, does not matter: its pixels do."""

    def part(name: str, key: str) -> Any:
        whole = record.get(name)
        return whole.get(key) if isinstance(whole, dict) else whole

    config = record.get("config")
    return {
        "label": record.get("label"),
        "config": {k: v for k, v in config.items() if k != "data"} if isinstance(config, dict) else config,
        "input": part("input", "pixels_sha256"),
        "measurement": part("measurement", "sha256"),
        "versions": record.get("versions"),
    }


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise file_error(path, error, "read") from error


def _measurement(path: Path, shape: tuple[int, ...]) -> Tensor:
    y = read_array(path)
    if tuple(y.shape) not in (shape, (1, *shape)):
        raise ShapeMismatch(
            f"the measurement in {path} has shape {tuple(y.shape)}",
            f"{shape}, the out_shape of the operator",
            "check the operator and the size of the images",
        )
    return y.reshape(1, *shape)


def _results(found: Reconstruction, x: Tensor | None, seen: View | None) -> dict[str, Any]:
    def quality(image: Tensor | None) -> dict[str, float | None]:
        if image is None or x is None:
            return {"psnr": None, "ssim": None}
        large = min(x.shape[2:]) >= 11
        return {"psnr": float(psnr(image, x)), "ssim": float(ssim(image, x)) if large else None}

    before = quality(seen.image if seen is not None and seen.compared else None)
    first = found.provenance.get("start")
    return {
        **({} if first is None else {"start": first}),
        "status": found.status[0].name.lower(),
        "reason": found.reasons[0],
        "steps": found.steps[0],
        "seconds": found.seconds,
        "objective": None if found.objective is None else float(found.objective[0]),
        "certificate": None if found.certificate is None else float(found.certificate[0]),
        "estimate": quality(found.x),
        "measured": {"shown_as": None if seen is None else seen.name, **before},
    }


def _files(
    label: str, record: Mapping[str, Any], found: Reconstruction, x: Tensor | None, y: Tensor, seen: View | None
) -> dict[str, bytes]:
    estimate = found.x[0]
    files = {RECORD: json_bytes(record), "estimate.npy": _numpy(estimate), "measurement.npy": _numpy(y[0])}
    if estimate.ndim == 3 and estimate.shape[0] in (1, 3):
        names = {kind: record["config"].get(kind, {}).get("name") for kind in ("prior", "solver")}
        operators = " ∘ ".join(table["name"] for table in reversed(record["config"]["operator"]))
        title = f"{label}: {operators}, {' + '.join(name for name in names.values() if name)}"
        figure = comparison(estimate, truth=None if x is None else x[0], seen=seen, title=title)
        files |= {"estimate.png": encode(".png", estimate), "comparison.png": figure_bytes(figure)}
    return files


def _numpy(tensor: Tensor) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, tensor.detach().cpu().numpy())
    return buffer.getvalue()


def _safe(label: str) -> Path:
    """A label as a relative path that stays below the output folder."""
    parts = [part for part in PurePosixPath(label.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    return Path(*parts) if parts else Path("image")


def diverged(record: Mapping[str, Any]) -> bool:
    """Whether the run of this record produced NaN or infinity."""
    return record.get("status") == Status.DIVERGED.name.lower()
