"""Running a suite: what is finished is kept, what is missing is computed, and every failure becomes a row."""

import time
from collections import Counter as Tally, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

from preimage.errors import BadData, BadParameter

from . import store
from ._claims import Claims
from ._pools import LocalPool, Pool, dask_pool
from ._process import Lost, Other, Reply, Wrong
from .cells import Plan, Planned, Refused, assemble, combination, plan
from .measure import Outcome, Task, lost, refused, still_counts
from .suite import Cell, Suite

_PATIENCE = 0.5
_OTHERS_AT_WORK = 1.0


class Progress(Protocol):
    """What is told about a run while it goes on."""

    def start(self, totals: dict[str, int], done: dict[str, int]) -> None:
        """Numbers of cells for each method, and how many of them are finished already."""

    def finished(self, record: dict[str, Any]) -> None:
        """A cell was computed."""

    def close(self) -> None:
        """The run ends."""


class Silent:
    """Tells nothing."""

    def start(self, totals: dict[str, int], done: dict[str, int]) -> None:
        """Nothing."""

    def finished(self, record: dict[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Summary:
    """What a run did.

    - `cells`: how many were asked for. `computed`, `kept`: how many of them now, and earlier (or by another run).
    - `outcomes`: (method, "ok" | "failed" | "skipped") -> how many. `failures`: the reasons, most frequent first, as
      (method, outcome, reason, how many).
    - `corrupt`: damaged files that were found, and whose cells were computed again.
    """

    folder: Path
    cells: int
    computed: int
    kept: int
    outcomes: dict[tuple[str, str], int]
    failures: Sequence[tuple[str, str, str, int]]
    corrupt: Sequence[store.Corrupt] = ()

    def count(self, outcome: str) -> int:
        """How many cells ended so."""
        return sum(number for (_, ended), number in self.outcomes.items() if ended == outcome)

    @property
    def exit_code(self) -> int:
        """1 if a cell failed, else 0; skipped cells are no failure."""
        return 1 if self.count("failed") else 0


def run_suite(
    suite: Suite,
    folder: str | Path,
    *,
    only: Sequence[str] = (),
    jobs: int = 1,
    scheduler: str | None = None,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Compute the cells of a suite that the folder lacks.

    - `only`: patterns such as "tv-*" (of methods) or "operator=blur": the cells that match one for each axis named.
    - `jobs`: worker processes, of the suite's `threads` each.
    - `scheduler`: address of a Dask scheduler whose workers to use instead, or "local".
    - `retry_failed`: compute failed and skipped cells again.

    A method that fails gives failed cells, one that cannot be assembled skipped ones. Killed at any moment, another run
    goes on where this one was. Raises `BadFile` if the folder cannot be written, `BadData` if workers have other
    versions or data than this process, or the cluster is lost, and what planning raises.
    """
    folder, progress = Path(folder), progress or Silent()
    chosen = plan(suite)
    wanted = selected(chosen, only)
    with Claims(folder) as claims:
        if claims.alone():
            _tidy(folder)
        claims.share()
        store.write_plan(folder, _described(chosen), [(each.key, tuple(each.cell)) for each in chosen.cells])
        run = _Run(chosen, folder, claims, progress, retry_failed)
        try:
            run.look(wanted)
            run.refuse()
            if run.todo:
                with dask_pool(scheduler, jobs) if scheduler else LocalPool(jobs, suite.threads) as pool:
                    run.compute(pool)
        finally:
            progress.close()
            claims.leave(lambda: _tidy(folder))
    return run.summary()


def selected(whole: Plan, only: Sequence[str]) -> list[Planned]:
    """The cells that match the patterns. Raises `BadParameter` for an unknown axis, or if there are none."""
    patterns: dict[str, list[str]] = {}
    for text in only:
        axis, separator, pattern = text.partition("=")
        axis, pattern = (axis.strip(), pattern.strip()) if separator else ("method", text)
        if axis not in store.AXES:
            raise BadParameter(f"--only {text!r}", f"AXIS=LABEL, AXIS one of {', '.join(store.AXES)}, or a method")
        patterns.setdefault(axis, []).append(pattern)

    def fits(cell: Cell) -> bool:
        return all(
            any(fnmatchcase(str(getattr(cell, axis)), pattern) for pattern in listed)
            for axis, listed in patterns.items()
        )

    found = [planned for planned in whole.cells if fits(planned.cell)]
    if not found:
        labels = "; ".join(f"{axis}: {', '.join(map(str, values))}" for axis, values in whole.suite.labels().items())
        raise BadParameter(f"no cell matches --only {' --only '.join(only)}", labels, "use labels of this suite")
    return found


@dataclass
class _Run:
    """A run in progress; a cell is computed once, also if several rows of the suite differ in labels only."""

    plan: Plan
    folder: Path
    claims: Claims
    progress: Progress
    retry: bool
    todo: dict[str, Planned] = field(default_factory=dict[str, Planned])
    rows: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    corrupt: list[store.Corrupt] = field(default_factory=list[store.Corrupt])
    outcomes: "Tally[tuple[str, str]]" = field(default_factory=Tally[tuple[str, str]])
    reasons: "Tally[tuple[str, str, str]]" = field(default_factory=Tally[tuple[str, str, str]])
    measured: dict[Cell, str] = field(default_factory=dict[Cell, str])
    computed: int = 0
    kept: int = 0

    def look(self, wanted: Sequence[Planned]) -> None:
        """Find out what is finished."""
        totals: Tally[str] = Tally()
        first: dict[str, Planned] = {}
        for planned in wanted:
            totals[planned.cell.method] += 1
            first.setdefault(planned.key, planned)
            self.rows.setdefault(planned.key, []).append(planned.cell.method)
        for key, planned in first.items():
            record = self.usable(planned)
            if record is None:
                self.todo[key] = planned
            else:
                self.keep(planned, record)
        done = {method: sum(n for (m, _), n in self.outcomes.items() if m == method) for method in totals}
        self.progress.start(dict(totals), done)

    def usable(self, planned: Planned) -> dict[str, Any] | None:
        """The record of a cell that is finished, sound, and would be no other under the limits of now."""
        record, corrupt = finished(self.folder, planned, self.plan.suite, retry=self.retry)
        if corrupt is not None and corrupt not in self.corrupt:
            self.corrupt.append(corrupt)
        return record

    def refuse(self) -> None:
        """Write the cells that cannot be assembled."""
        for key, planned in list(self.todo.items()):
            refusal: Refused | None = self.plan.refusal(planned.cell)
            if refusal is not None:
                del self.todo[key]
                self.finish(planned, Outcome(refused(self.task(planned), refusal), None, None))

    def compute(self, pool: Pool) -> None:
        """Have all cells computed that are missing."""
        waiting, elsewhere = deque(self.todo.values()), deque[Planned]()
        flying: dict[int, Planned] = {}
        number = 0
        while waiting or flying or elsewhere:
            while waiting and len(flying) < pool.slots:
                planned = waiting.popleft()
                if not self.claims.take(planned.key):
                    elsewhere.append(planned)  # another run is at it
                    continue
                if (record := self.usable(planned)) is not None:
                    self.keep(planned, record)  # another run was faster
                    self.progress.finished(record)
                    self.claims.release(planned.key)
                    continue
                number += 1
                flying[number] = planned
                pool.submit(number, self.task(planned), None)
            if flying:
                answered = pool.wait(_PATIENCE)
                if answered is not None:
                    planned = flying.pop(answered[0])
                    if self.take(planned, answered[1]):
                        self.claims.release(planned.key)
                    else:
                        number += 1
                        flying[number] = planned
                        pool.submit(number, self.task(planned), self.measurement(planned))
            elif elsewhere and not waiting:
                time.sleep(_OTHERS_AT_WORK)
                waiting, elsewhere = elsewhere, waiting

    def task(self, planned: Planned) -> Task:
        suite, cell = self.plan.suite, planned.cell
        known = self.measured.get(_group(cell))
        limits = suite.limits_of(cell.method)
        labels: dict[str, Any] = dict(zip(store.AXES, cell, strict=True))
        depends = self.plan.depends.get(combination(cell), {})
        return Task(suite.tables(cell), labels, planned.index, planned.key, limits, suite.threads, depends, known)

    def measurement(self, planned: Planned) -> bytes:
        """The bytes of the measurement that other methods got."""
        return store.measurement_path(self.folder, self.measured[_group(planned.cell)]).read_bytes()

    def take(self, planned: Planned, reply: Reply) -> bool:
        """Note a reply; False if the cell must be computed again, with the measurement of the other methods."""
        match reply:
            case Outcome():
                digest = reply.record["measurement"]
                if digest is not None and self.measured.get(_group(planned.cell), digest) != digest:
                    return False
                self.finish(planned, reply)
            case Lost():
                suite = self.plan.suite
                found = assemble(suite.tables(planned.cell), suite.datasets[planned.cell.data], suite.threads)
                if isinstance(found, Refused):
                    changed = f"the pipeline of {tuple(planned.cell)} changed during the run: {found.reason}"
                    raise BadData(changed, "files that stay as they are", "run the same command again")
                record = lost(self.task(planned), found, reply.reason, limit=reply.limit)
                self.finish(planned, Outcome(record, None, None))
            case Other():
                return False
            case Wrong():
                raise BadData(
                    f"a worker cannot compute {tuple(planned.cell)}: {reply.reason}",
                    "workers with the same versions, data and weights as here",
                    "install the same versions everywhere, and run the same command again",
                )
        return True

    def finish(self, planned: Planned, outcome: Outcome) -> None:
        """Write a cell, and count it."""
        store.write_cell(self.folder, outcome.record, outcome.image, outcome.measurement)
        self.computed += len(self.rows[planned.key])
        self.note(planned, outcome.record)
        self.progress.finished(dict(outcome.record))

    def keep(self, planned: Planned, record: Mapping[str, Any]) -> None:
        """Count a cell that is there."""
        self.kept += len(self.rows[planned.key])
        self.note(planned, record)

    def note(self, planned: Planned, record: Mapping[str, Any]) -> None:
        if record["measurement"] is not None:
            self.measured.setdefault(_group(planned.cell), record["measurement"])
        for method in self.rows[planned.key]:
            self.outcomes[method, record["outcome"]] += 1
            if record["outcome"] != "ok":
                reason = str(record["reason"]).partition("\n")[0]
                self.reasons[method, record["outcome"], reason] += 1

    def summary(self) -> Summary:
        failures = [(*what, count) for what, count in self.reasons.most_common()]
        cells = self.computed + self.kept
        return Summary(self.folder, cells, self.computed, self.kept, dict(self.outcomes), failures, self.corrupt)


def _group(cell: Cell) -> Cell:
    """The measurement that a cell is about."""
    return cell._replace(method="")


def _described(whole: Plan) -> dict[str, Any]:
    suite = whole.suite
    labels = suite.labels()
    images = list(dict.fromkeys(planned.cell.image for planned in whole.cells))
    return {
        "title": suite.title,
        "description": suite.description,
        "reference": suite.reference,
        "labels": {axis: images if axis == "image" else labels[axis] for axis in store.AXES},
        "suite": suite.as_dict(),
        "versions": dict(whole.versions),
    }


def _tidy(folder: Path) -> None:
    for path in store.temporary_files(folder):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def preview(
    suite: Suite, folder: str | Path, *, only: Sequence[str] = (), retry_failed: bool = False
) -> dict[str, dict[str, int]]:
    """What `run_suite` would do: for each method, how many cells are "finished", to "compute" and to "skip".

    Writes nothing. Raises as `run_suite` does before it computes.
    """
    chosen = plan(suite)
    rows = {method.label: {"finished": 0, "compute": 0, "skip": 0} for method in suite.methods}
    for planned in selected(chosen, only):
        record, _ = finished(Path(folder), planned, suite, retry=retry_failed)
        refusal = chosen.refusal(planned.cell)
        kind = "finished" if record else "skip" if refusal is not None and refusal.outcome == "skipped" else "compute"
        rows[planned.cell.method][kind] += 1
    return {method: row for method, row in rows.items() if any(row.values())}


def finished(
    folder: Path, planned: Planned, suite: Suite, *, retry: bool = False
) -> tuple[dict[str, Any] | None, store.Corrupt | None]:
    """The record of a cell that is there, sound, and would be no other under the limits of now; or what is corrupt."""
    path = store.cell_path(folder, planned.key)
    if not path.exists():
        return None, None
    record = store.read_cell(path)
    if isinstance(record, dict):
        record = store.check_files(folder, record) or record
    if isinstance(record, store.Corrupt):
        return None, record
    if retry and record["outcome"] != "ok":
        return None, None
    return (record if still_counts(record, suite.limits_of(planned.cell.method)) else None), None
