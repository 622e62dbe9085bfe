"""What `preimage compare` itself costs: CPU time of all its processes beyond that of the solvers it runs."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from preimage_compare import read, store

SUITE = """
title = "Overhead"
seeds = [{seeds}]
[[data]]
label = "photographs"
name = "photographs"
size = {size}
count = {count}
[[operator]]
label = "{operator}"
name = "{operator}"
[[noise]]
label = "0.05"
name = "gaussian"
sigma = 0.05
[[method]]
label = "method"
{method}
"""
TRIVIAL = 'solver = { name = "adjoint" }'
# So many steps that a cell takes about a second of the 256 x 256 photographs.
SECONDS = {
    "admm": 'prior = { name = "tv", weight = 0.002 }\nsolver = { name = "admm", tolerance = 0.0, max_steps = 900 }',
    "fista": 'prior = { name = "tv", weight = 0.002 }\nsolver = { name = "fista", tolerance = 0.0, max_steps = 270 }',
}


def cpu_of_children() -> float:
    """CPU seconds of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def megabytes(process: int) -> float:
    """Resident memory of a process and the processes that it started."""
    total = 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if process in (int(path.name), parent):
                total += int((path / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            continue
    return total / 1e6


def preimage(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "preimage", *arguments]


def run(folder: Path, suite: str, jobs: int, cells: int) -> tuple[float, list[float]]:
    """CPU seconds of `preimage compare`, and the memory of all its processes at every tenth of the cells."""
    folder.mkdir(exist_ok=True)
    (folder / "suite.toml").write_text(suite)
    before, memory = cpu_of_children(), []
    command = preimage("compare", str(folder / "suite.toml"), "--out", str(folder / "out"), "--jobs", str(jobs))
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        done = sum(1 for _ in (folder / "out" / "cells").glob("??/*.json"))
        if done >= cells * (len(memory) + 1) / 10:
            memory.append(megabytes(process.pid))
        time.sleep(0.5)
    assert process.returncode == 0
    return cpu_of_children() - before, memory


@pytest.mark.parametrize("solver", SECONDS)
def test_little_beyond_the_solver_on_cells_of_a_second(tmp_path, record_row, solver):
    """12 cells beyond the first 4 (start, imports, warm-up), against what their solver took by the clock."""
    used = {}
    for seeds in (1, 4):
        text = SUITE.format(
            seeds=", ".join(map(str, range(seeds))), size=256, count=4, operator="gaussian-blur", method=SECONDS[solver]
        )
        used[seeds], _ = run(tmp_path / str(seeds), text, 1, 4 * seeds)
    # Of the same cells in the same process: a solver run by itself would meet another mood of the machine.
    cells = [cell for cell in read(tmp_path / "4" / "out").cells if cell["seed"]]
    alone = sum(cell["seconds"] for cell in cells)
    record_row(
        f"compare, cells of a second, {solver}, 256²",
        [(used[4] - used[1]) / 12],
        ("the seconds of its solver", [alone / 12]),
        1.05,
        note="metrics, traces, files and processes among ours",
    )


def test_ten_thousand_trivial_cells(tmp_path, record_row):
    def suite(cells: int) -> str:
        seeds = ", ".join(str(seed) for seed in range(cells // 8))
        return SUITE.format(seeds=seeds, size=16, count=8, operator="identity", method=TRIVIAL)

    start, _ = run(tmp_path / "few", suite(16), 2, 16)
    whole, memory = run(tmp_path / "many", suite(10_000), 2, 10_000)
    assert memory[-1] < 1.1 * memory[1], memory
    note = f"A^T y of 16²; memory at the second tenth {memory[1]:.0f} MB, at the last {memory[-1]:.0f} MB"
    record_row("compare, 10,000 trivial cells, each", [(whole - start) / 9_984], ("allowed", [0.010]), 1.0, note=note)


def test_a_folder_of_fifty_thousand_cells(tmp_path, record_row):
    """The cells of one real run, copied under other seeds."""
    run(tmp_path, SUITE.format(seeds="0", size=16, count=8, operator="identity", method=TRIVIAL), 1, 8)
    out = tmp_path / "out"
    records = [store.read_cell(path) for path in list(store.cell_files(out))]
    suite = json.loads((out / "suite.json").read_text())
    plan, seeds = [], range(50_000 // 8)
    for record in records:
        image = store.image_path(out, record["key"]).read_bytes()
        for seed in seeds:
            copied = {**record, "key": f"{seed:08x}{record['key'][8:]}", "seed": seed}
            content = store.encode_cell(copied, image)
            for path, data in (
                (store.cell_path(out, copied["key"]), content),
                (store.image_path(out, copied["key"]), image),
            ):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            plan.append((copied["key"], tuple(copied[axis] for axis in store.AXES)))
    suite["labels"]["seed"] = list(seeds)
    store.write_plan(out, {name: value for name, value in suite.items() if name != "schema"}, plan)
    for command in ("status", "report"):
        before = cpu_of_children()
        subprocess.run(preimage("compare", command, str(out)), check=True, stdout=subprocess.DEVNULL)
        record_row(f"compare {command}, 50,000 cells", [cpu_of_children() - before], ("allowed", [20.0]), 1.0)
