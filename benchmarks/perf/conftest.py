"""One harness for paired timing: ours and a named peer in turn, equal work, process CPU time, one table of ratios."""

import datetime as dt
import importlib.metadata
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

Work = Callable[[], object]

HEADING = """# Speed

Written by `make bench`. Ours and the peer run in turn in one process, one thread each, doing equal work; times are the
least CPU time per call, the ratio is the median over rounds. Where a goal is missed the row says so.
"""
SECTION = re.compile(r"^## `(test_\w+\.py)`\n", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """One comparison: CPU milliseconds per call, and the ratio ours / peer against what it must not exceed."""

    name: str
    peer: str
    ours: float
    theirs: float
    ratio: float
    spread: tuple[float, float]
    goal: float
    note: str
    source: str


@dataclass
class Ledger:
    """All rows of a run."""

    rows: list[Row] = field(default_factory=list)


LEDGER = pytest.StashKey[Ledger]()


def pytest_addoption(parser):
    parser.addoption("--report", type=Path, default=None, help="write the tables of ratios to this Markdown file")


def pytest_configure(config):
    config.stash[LEDGER] = Ledger()
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Ratios are of single-threaded work: both sides get one thread."""
    torch.set_num_threads(1)


def calls_for(work: Work, seconds: float = 0.05) -> int:
    """How many calls take about this long, so that the clock's resolution does not matter."""
    work()
    started = time.process_time()
    work()
    once = max(time.process_time() - started, 1e-6)
    return max(1, int(seconds / once))


def cpu_seconds(work: Work, calls: int) -> float:
    started = time.process_time()
    for _ in range(calls):
        work()
    return (time.process_time() - started) / calls


@pytest.fixture
def record_row(request):
    """record_row(name, ours, peer=(label, theirs), goal): paired CPU seconds as a row of the table.

    The ratio is the median of the pairs' ratios. Raises AssertionError if it exceeds the goal, or, where the goal is
    known to be missed, a `guard` above it: the row says so.
    """

    def record(
        name: str,
        ours: list[float],
        peer: tuple[str, list[float]],
        goal: float,
        *,
        guard: float | None = None,
        note: str = "",
    ) -> Row:
        label, theirs = peer
        ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
        ratio = statistics.median(ratios)
        quartiles = (ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4])
        source = request.node.path.name
        row = Row(name, label, 1e3 * min(ours), 1e3 * min(theirs), ratio, quartiles, goal, note, source)
        request.config.stash[LEDGER].rows.append(row)
        allowed = goal if guard is None else guard
        assert ratio <= allowed, f"{name}: {ratio:.2f} times {label}, allowed {allowed}"
        return row

    return record


@pytest.fixture
def compare(record_row, benchmark):
    """compare(name, ours, peer=(label, work), goal): run both in turn and record their CPU times; once per test.

    pytest-benchmark times ours too, and gets the comparison as `extra_info`, for its own exports.
    """

    def run(
        name: str,
        ours: Work,
        peer: tuple[str, Work],
        goal: float,
        *,
        guard: float | None = None,
        rounds: int = 15,
        note: str = "",
    ) -> Row:
        label, theirs = peer
        calls = calls_for(ours), calls_for(theirs)
        times: tuple[list[float], list[float]] = [], []
        for index in range(rounds):
            for side in (0, 1) if index % 2 else (1, 0):
                times[side].append(cpu_seconds((ours, theirs)[side], calls[side]))
        row = record_row(name, times[0], (label, times[1]), goal, guard=guard, note=note)
        benchmark.extra_info.update(name=name, peer=label, ratio=row.ratio, goal=goal)
        benchmark.pedantic(ours, rounds=3, iterations=calls[0])
        return row

    return run


def version(distribution: str) -> str:
    try:
        return f"{distribution} {importlib.metadata.version(distribution)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{distribution} (not installed)"


def table(rows: list[Row]) -> str:
    lines = [
        "| what (one thread, float32) | peer | ours, CPU ms | peer, CPU ms | ratio (quartiles) | goal | |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        ratio = f"**{row.ratio:.2f}** ({row.spread[0]:.2f}–{row.spread[1]:.2f})"
        goal = f"≤ {row.goal:g}" if row.ratio <= row.goal else f"≤ {row.goal:g}, **missed**"
        numbers = f"{row.ours:.3g} | {row.theirs:.3g} | {ratio} | {goal}"
        name, peer, note = (text.replace("|", "\\|") for text in (row.name, row.peer, row.note))
        lines.append(f"| {name} | {peer} | {numbers} | {note} |")
    return "\n".join(lines)


def write_report(path: Path, rows: list[Row], peers: str) -> None:
    """One section for each file of benchmarks; those of files that were not run this time stay as they are."""
    sections: dict[str, str] = {}
    if path.exists():
        _, *parts = SECTION.split(path.read_text("utf-8"))
        sections = dict(zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True))
    for source in dict.fromkeys(row.source for row in rows):
        title = (Path(__file__).parent / source).read_text("utf-8").removeprefix('"""').partition('"""')[0]
        title = " ".join(title.partition("\n\n")[0].split()).removesuffix(".")
        of_source = table([row for row in rows if row.source == source])
        sections[source] = f"{title}.\n\n{of_source}\n\n{dt.date.today()}: {peers}."
    text = "".join(f"\n## `{source}`\n\n{sections[source]}\n" for source in sorted(sections))
    path.write_text(f"{HEADING}{text}", "utf-8")


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash[LEDGER].rows
    if not rows:
        return
    peers = ", ".join(version(name) for name in ("preimage", "deepinv", "torch", "numba", "numpy"))
    terminalreporter.section("ratios of CPU time, ours / peer")
    terminalreporter.write_line(peers)
    width = max(len(row.name) for row in rows)
    for row in rows:
        mark = "ok  " if row.ratio <= row.goal else "MISS"
        ratio = f"{row.ratio:5.2f} (goal {row.goal:g})"
        times = f"{row.ours:9.3f} / {row.theirs:9.3f} ms"
        terminalreporter.write_line(f"{mark} {row.name:<{width}}  {ratio}  {times}  vs {row.peer}  {row.note}")
    if (path := config.getoption("--report")) is not None:
        write_report(path, rows, peers)
