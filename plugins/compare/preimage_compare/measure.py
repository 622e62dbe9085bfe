"""One cell: a measurement simulated, a method run on it, and everything measured that a comparison needs."""

import contextlib
import platform
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from preimage_data.measures import psnr, ssim
from safetensors.torch import save
from torch import Tensor

from preimage import Dataset, ForwardOperator, Key, Pipeline, Problem, Reconstruction, Status, solve
from preimage.assembly import construct
from preimage.errors import BadParameter, PreimageError

from ._memory import PeakMemory, memory_limit, out_of_memory
from ._trace import QualityTrace
from .cells import Assembled, Refused, assemble, cell_key, describe, sentence, truth_digest
from .counting import EVALUATIONS, Counter, OverLimit, R
from .store import SCHEMA, measurement_digest
from .suite import Limits

T = TypeVar("T")

_IMAGES_KEPT = 50_000_000  # bytes: reading and scaling an image can take longer than a quick method
_WARM_STEPS = 2
_SMALLEST_FOR_SSIM = 11
OVER_LIMIT = "OverLimit"
"""Type of the error of a cell that used more time, memory or evaluations than it may."""


class WrongEnvironment(Exception):
    """This process cannot compute the cell that it was asked for: other versions, other data, other weights."""


class OtherMeasurement(Exception):
    """The measurement drawn here differs in some bits from the one that other methods got (another processor, say)."""


@dataclass(frozen=True)
class Task:
    """A cell to compute, as it is sent to a worker.

    - `tables`: the pipeline, seed and [data] included. `index`: of the image. `labels`: of the cell, as `store.AXES`.
    - `key`: what the cell must turn out to be. `depends`: the versions that it depends on.
    - `measurement`: digest of the measurement that other methods got, if any.
    """

    tables: Mapping[str, Any]
    labels: Mapping[str, Any]
    index: int
    key: str
    limits: Limits
    threads: int
    depends: Mapping[str, str]
    measurement: str | None = None


@dataclass(frozen=True)
class Outcome:
    """A cell that was computed: its record, and the bytes of its images and of its measurement."""

    record: Mapping[str, Any]
    image: bytes | None
    measurement: bytes | None


@dataclass(frozen=True)
class Measurement:
    """What all methods get, batches of one: `truth`, `y`, `start`; `digest` of their bytes; `quality` of the start."""

    truth: Tensor
    y: Tensor
    start: Tensor
    operator: ForwardOperator
    digest: str
    quality: Mapping[str, float | None]

    def bytes(self) -> bytes:
        """As a safetensors file."""
        named = {"truth": self.truth[0], "measurement": self.y[0], "start": self.start[0]}
        return save({name: tensor.detach().cpu().contiguous() for name, tensor in named.items()})


class _Recent(OrderedDict[Hashable, Any]):
    """What was made lately: as many things as `size`, each counting `weigh` of it, and the last one in any case."""

    def __init__(self, size: int, weigh: Callable[[Any], int] = lambda made: 1):
        super().__init__()
        self._size, self._weigh = size, weigh

    def get_or_make(self, key: Hashable, make: Callable[[], T]) -> T:
        if key in self:
            self.move_to_end(key)
            return cast(T, self[key])
        self[key] = made = make()
        while len(self) > 1 and sum(map(self._weigh, self.values())) > self._size:
            self.popitem(last=False)
        return made


@dataclass
class Laboratory:
    """Computes cells, one at a time; what cells have in common is kept for a while.

    `notify` is told when the next part of a cell begins, each of which has the time limit of the cell.
    """

    notify: Callable[[str], None] = lambda phase: None
    _datasets: _Recent = field(default_factory=lambda: _Recent(2))
    _truths: _Recent = field(default_factory=lambda: _Recent(_IMAGES_KEPT, lambda truth: truth.nbytes))
    _assembled: _Recent = field(default_factory=lambda: _Recent(32))
    _measurements: _Recent = field(default_factory=lambda: _Recent(2))
    _warm: set[str] = field(default_factory=set[str])

    def compute(self, task: Task, measured: Mapping[str, Tensor] | None = None) -> Outcome:
        """The cell of a task; `measured`: the measurement to use, if it is not to be simulated here.

        A method that raises, diverges or uses more than it may gives a failed cell. Raises `WrongEnvironment`, and
        `OtherMeasurement` if the measurement simulated here is not that of the other methods.
        """
        self.notify("begin")
        torch.set_num_threads(task.threads)
        with torch.no_grad():
            dataset, truth, digest = self._truth(task)
            assembled = self._combination(task, dataset)
            self._check(task, assembled, digest)
            record = _record(task, assembled)
            try:
                measurement = self._measurement(task, assembled.pipeline, truth, measured)
            except OtherMeasurement:
                raise
            except Exception as error:
                return Outcome(_failed(record, f"no measurement: {sentence(error)}", error), None, None)
            record |= {"measurement": measurement.digest, "start_metrics": dict(measurement.quality)}
            return self._run(task, assembled, measurement, record)

    def _truth(self, task: Task) -> tuple[Dataset, Tensor, str]:
        table = task.tables["data"]
        values = {name: value for name, value in table.items() if name != "name"}
        name = repr(table)

        def make() -> Dataset:
            return construct(
                "dataset", table["name"], values, f"data {task.labels['data']!r}", key=Key(0).child("data")
            )

        try:
            dataset = self._datasets.get_or_make(name, make)
            truth = self._truths.get_or_make((name, task.index), lambda: dataset[task.index])
        except (PreimageError, IndexError) as error:
            raise WrongEnvironment(f"the image {task.labels['image']!r} cannot be read here: {error}") from error
        return dataset, truth, truth_digest(truth)

    def _combination(self, task: Task, dataset: Dataset) -> Assembled:
        found = self._assembled.get_or_make(
            repr((task.tables, task.threads)), lambda: assemble(task.tables, dataset, task.threads)
        )
        if isinstance(found, Assembled):
            return found
        raise WrongEnvironment(f"the pipeline cannot be assembled here: {found.reason}")

    @staticmethod
    def _check(task: Task, assembled: Assembled, truth: str) -> None:
        """The key is computed here again, so that no cell can come from other code, data or weights than it says."""
        if cell_key(assembled.fingerprint, truth, task.labels["image"], task.labels["seed"]) != task.key:
            own = assembled.depends
            differ = [
                f"{n} is {own.get(n)}, not {wanted}" for n, wanted in task.depends.items() if own.get(n) != wanted
            ]
            raise WrongEnvironment(
                f"it would be another cell there: {', '.join(differ) or 'its image, weights or other files differ'}"
            )

    def _measurement(
        self, task: Task, pipeline: Pipeline, truth: Tensor, measured: Mapping[str, Tensor] | None
    ) -> Measurement:
        tables = {name: task.tables[name] for name in ("data", "operator", "noise", "seed", "device", "dtype")}
        made = self._measurements.get_or_make(
            repr((tables, task.index, task.threads, measured is None or task.measurement)),
            lambda: simulate(pipeline, truth, task.labels["image"], measured),
        )
        if task.measurement not in (None, made.digest):
            raise OtherMeasurement(task.measurement)
        return made

    def _run(self, task: Task, assembled: Assembled, measurement: Measurement, record: dict[str, Any]) -> Outcome:
        label, limits = task.labels["image"], task.limits
        # Provenance is in the record; without a config, that of each reconstruction costs nothing.
        pipeline = replace(assembled.pipeline, config={}, operator=measurement.operator)
        counter, trace = Counter(limits), QualityTrace(measurement.truth)
        counted = counter.instrument(pipeline, measurement.operator)
        memory: PeakMemory | None = None
        try:
            with memory_limit(limits.memory_mb):
                self._warm_up(assembled.fingerprint, pipeline, measurement, label)
                self.notify("run")
                memory = PeakMemory(measurement.y.device)
                result = _reconstruct(counted, measurement.y, label, trace)
        except Exception as error:
            spent = {"steps": counter.steps, "evaluations": counter.counts}
            spent |= {"seconds": counter.seconds, "peak_memory": memory.read() if memory else record["peak_memory"]}
            return Outcome(_failed(record | spent, _why(error, limits), error), None, measurement.bytes())
        status = result.status[0]
        objective = float("nan") if result.objective is None else float(result.objective[0])
        quality = float(psnr(result.x, measurement.truth)[0])
        trace.delay(result.seconds)
        trace.add(result.steps[0], result.seconds, objective, quality)
        record |= {
            "outcome": "failed" if status is Status.DIVERGED else "ok",
            "status": status.name.lower(),
            "reason": result.reasons[0],
            "steps": result.steps[0],
            "evaluations": counter.counts,
            "seconds": result.seconds,
            "peak_memory": memory.read(),
            "certificate": None if result.certificate is None else float(result.certificate[0]),
        }
        if status is Status.DIVERGED:
            record["error"] = {"type": "Diverged", "message": result.reasons[0], "traceback": ""}
            return Outcome(record, None, measurement.bytes())
        problem = pipeline.problem(measurement.y, [label])
        record["metrics"] = _quality(result.x, measurement.truth) | {"misfit": float(problem.misfit(result.x)[0])}
        estimate = result.x[0].detach().cpu().contiguous()
        return Outcome(record, save({"estimate": estimate, **trace.tensors()}), measurement.bytes())

    def _warm_up(self, fingerprint: str, pipeline: Pipeline, measurement: Measurement, label: str) -> None:
        """A few steps that do not count: imports, compilation and caches are not the method's time."""
        if fingerprint in self._warm:
            return
        warm = _few_steps(pipeline)
        warm = warm if warm.start is None else replace(warm, start=_few_steps(warm.start))
        warm.reconstruct(measurement.y, [label], throw=False)
        self._warm.add(fingerprint)


def _few_steps(method: R) -> R:
    solver = method.solver
    with contextlib.suppress(BadParameter):  # it needs more steps than that
        solver = replace(solver, max_steps=min(solver.max_steps, _WARM_STEPS))
    return replace(method, solver=solver, weight=1.0 if method.weight == "auto" else method.weight)


def _reconstruct(pipeline: Pipeline, y: Tensor, label: str, trace: QualityTrace) -> Reconstruction:
    """What `pipeline.reconstruct` does; without looking up versions, which takes longer than a quick method."""
    if pipeline.weight == "auto" or pipeline.start is not None:
        return pipeline.reconstruct(y, [label], observers=[trace], throw=False)
    key = pipeline.key.child("solver", label)
    observers = [*pipeline.observers, trace]
    return solve(pipeline.problem(y, [label]), pipeline.solver, key=[key], observers=observers, throw=False)


def simulate(
    pipeline: Pipeline, truth: Tensor, label: str, measured: Mapping[str, Tensor] | None = None
) -> Measurement:
    """Draw the measurement of an image (C, H, W) by its label, or take the one that is given."""
    operator = pipeline.operator_for([label])
    x = truth[None].to(**_where(pipeline))
    if measured is None:
        y = pipeline.noise.sample(operator(x), [pipeline.key.child("noise", label)])
    else:
        y = measured["measurement"][None].to(x)
    start = Problem(operator, y, pipeline.noise).start() if measured is None else measured["start"][None].to(x)
    digest = measurement_digest({"truth": x[0], "measurement": y[0], "start": start[0]})
    return Measurement(x, y, start, operator, digest, _quality(start, x))


def _where(pipeline: Pipeline) -> dict[str, Any]:
    return {"device": pipeline.config["device"], "dtype": getattr(torch, pipeline.config["dtype"])}


def _quality(x: Tensor, truth: Tensor) -> dict[str, float | None]:
    error = (x - truth).double().square().sum() / truth.double().square().sum()
    small = min(x.shape[-2:]) < _SMALLEST_FOR_SSIM
    return {
        "psnr": float(psnr(x, truth)[0]),
        "ssim": None if small else float(ssim(x, truth)[0]),
        "nmse": float(error),
    }


def _record(task: Task, assembled: Assembled) -> dict[str, Any]:
    config = {"data": dict(task.tables["data"]), **assembled.config, "seed": task.labels["seed"]}
    versions = {**assembled.versions, **assembled.depends}
    return _blank(task, config) | {
        "versions": versions,
        "weights": dict(assembled.weights),
        "preset": assembled.preset,
    }


def _blank(task: Task, config: Mapping[str, Any]) -> dict[str, Any]:
    counts = Counter(task.limits).counts
    return {
        "schema": SCHEMA,
        "key": task.key,
        **task.labels,
        "outcome": "failed",
        "status": None,
        "reason": "",
        "metrics": {"psnr": None, "ssim": None, "nmse": None, "misfit": None},
        "start_metrics": {"psnr": None, "ssim": None, "nmse": None},
        "steps": None,
        "evaluations": counts,
        "seconds": None,
        "peak_memory": {"cpu": None, "gpu": None},
        "certificate": None,
        "measurement": None,
        "config": config,
        "versions": {},
        "weights": {},
        "preset": None,
        "limits": task.limits.as_dict(),
        "error": None,
        "machine": machine(config["device"], task.threads),
    }


def machine(device: str, threads: int) -> dict[str, Any]:
    """Where a cell was computed."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return {"cpu": _processor(), "device": name, "threads": threads, "system": platform.system()}


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def lost(task: Task, assembled: Assembled, reason: str, *, limit: bool) -> dict[str, Any]:
    """The record of a cell whose worker is gone."""
    kind = OVER_LIMIT if limit else "WorkerLost"
    error = {"type": kind, "message": reason, "traceback": ""}
    return {**_record(task, assembled), "outcome": "failed", "reason": reason, "error": error}


def refused(task: Task, refusal: Refused) -> dict[str, Any]:
    """The record of a cell that cannot be assembled."""
    tables = {**refusal.tables, "data": dict(task.tables["data"]), "seed": task.labels["seed"]}
    record = _blank(task, tables)
    return {**record, "outcome": refusal.outcome, "reason": refusal.reason, "error": refusal.error}


def still_counts(record: Mapping[str, Any], limits: Limits) -> bool:
    """Whether a finished cell would have ended as it did under these limits."""
    if record["outcome"] == "ok":
        used = sum(record["evaluations"][name] for name in EVALUATIONS)
        within = limits.evaluations is None or used <= limits.evaluations
        return within and (limits.seconds is None or record["seconds"] <= limits.seconds)
    if record["outcome"] == "failed" and record["error"] and record["error"]["type"] == OVER_LIMIT:
        before = record["limits"]
        pairs = [(now, before[name]) for name, now in limits.as_dict().items() if before[name] is not None]
        return all(now is not None and now <= then for now, then in pairs)
    return True


def _failed(record: Mapping[str, Any], reason: str, error: BaseException) -> dict[str, Any]:
    kind = {"type": OVER_LIMIT} if isinstance(error, OverLimit) or out_of_memory(error) else {}
    return {**record, "outcome": "failed", "reason": reason, "error": {**describe(error), **kind}}


def _why(error: BaseException, limits: Limits) -> str:
    if isinstance(error, OverLimit):
        return str(error)
    if out_of_memory(error):
        limit = "" if limits.memory_mb is None else f" (its limit is {limits.memory_mb:g} MB)"
        return f"out of memory{limit}: {sentence(error)}"
    return sentence(error)
