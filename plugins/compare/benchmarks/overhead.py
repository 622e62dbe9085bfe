"""What the runner itself costs: `python overhead.py trivial [CELLS]`, `... second`, `... folder [CELLS]`.

All times are CPU time of every process together, so that a busy machine changes them little.

- trivial: cells whose method costs next to nothing (A^T y of 16 x 16 pixels); CPU per cell, and memory over the run.
- second: cells whose solver takes about a second; CPU of all that the runner adds, relative to the solver's own.
- folder: status and report of a folder of so many cells.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(tempfile.gettempdir())
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
{methods}
"""
TRIVIAL = '[[method]]\nlabel = "adjoint"\nsolver = { name = "adjoint" }\n'


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


def run(folder: Path, suite: str, jobs: int, cells: int) -> tuple[float, list[float]]:
    """CPU seconds of `preimage compare`, and the memory of all its processes at every tenth of the cells."""
    file = folder / "suite.toml"
    file.write_text(suite)
    before = cpu_of_children()
    command = [
        sys.executable,
        "-m",
        "preimage",
        "compare",
        str(file),
        "--out",
        str(folder / "out"),
        "--jobs",
        str(jobs),
    ]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    memory: list[float] = []
    while process.poll() is None:
        done = sum(1 for _ in (folder / "out" / "cells").glob("??/*.json"))
        if done >= cells * (len(memory) + 1) / 10:
            memory.append(megabytes(process.pid))
        time.sleep(0.5)
    assert process.returncode == 0
    return cpu_of_children() - before, memory


def trivial(folder: Path, cells: int) -> None:
    """CPU per cell, beyond the start."""

    def suite(wanted: int) -> str:
        seeds = ", ".join(str(seed) for seed in range(wanted // 8))
        return SUITE.format(seeds=seeds, size=16, count=8, operator="identity", methods=TRIVIAL)

    (folder / "few").mkdir()
    start, _ = run(folder / "few", suite(16), 2, 16)
    whole, memory = run(folder, suite(cells), 2, cells)
    print(f"{cells} cells: {whole:.1f} s CPU, {1e3 * (whole - start) / (cells - 16):.2f} ms per cell", end=" ")
    print(f"({start:.1f} s to start); memory at each tenth, MB: {', '.join(f'{m:.0f}' for m in memory)}")


def second(folder: Path) -> None:
    """CPU of 12 cells beyond that of their solver, which is measured by itself, on the same measurements."""
    import torch

    from preimage import Pipeline, solve

    torch.set_num_threads(1)
    method = (
        '[[method]]\nlabel = "tv-admm"\nprior = { name = "tv", weight = 0.002 }\n'
        'solver = { name = "admm", tolerance = 0.0, max_steps = 900 }\n'
    )
    used: dict[int, float] = {}
    for seeds in (1, 4):
        (folder / str(seeds)).mkdir()
        text = SUITE.format(
            seeds=", ".join(map(str, range(seeds))), size=256, count=4, operator="gaussian-blur", methods=method
        )
        used[seeds], _ = run(folder / str(seeds), text, 1, 4 * seeds)
    from preimage_compare import read

    solver = 0.0
    for cell in read(folder / "4" / "out").cells:
        pipeline = Pipeline.from_dict(cell["config"])
        assert pipeline.data is not None
        position = next(i for i in range(4) if pipeline.data.label(i) == cell["image"])
        problem = pipeline.problem(pipeline.simulate(pipeline.data[position][None], [cell["image"]]), [cell["image"]])
        if cell["seed"]:
            began = time.process_time()
            solve(problem, pipeline.solver, key=[pipeline.key])
            solver += time.process_time() - began
    whole = used[4] - used[1]
    print(f"12 cells: {whole:.2f} s CPU, the solver alone {solver:.2f} s ({solver / 12:.2f} s a cell)", end=": ")
    print(f"the runner adds {100 * (whole - solver) / solver:.1f} %, measures and traces among it")


def folder_of(folder: Path, cells: int) -> None:
    """A folder with the cells of one real run, copied under other seeds."""
    import json

    from preimage_compare import store

    run(folder, SUITE.format(seeds="0", size=16, count=8, operator="identity", methods=TRIVIAL), 1, 8)
    out = folder / "out"
    records = [store.read_cell(path) for path in store.cell_files(out)]
    suite = json.loads((out / "suite.json").read_text())
    plan, seeds = [], range(cells // 8)
    for record in records:
        for seed in seeds:
            key = f"{seed:08x}{record['key'][8:]}"
            image = store.image_path(out, record["key"]).read_bytes()
            copied = {**record, "key": key, "seed": seed}
            content = store.encode_cell(copied, image)
            for path, data in ((store.cell_path(out, key), content), (store.image_path(out, key), image)):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            plan.append((key, tuple(copied[axis] for axis in store.AXES)))
    suite["labels"]["seed"] = list(seeds)
    store.write_plan(out, {name: value for name, value in suite.items() if name != "schema"}, plan)
    for command in ("status", "collect", "report"):
        before = cpu_of_children()
        subprocess.run([sys.executable, "-m", "preimage", "compare", command, str(out)], check=True)
        print(f"{command} of {len(plan)} cells: {cpu_of_children() - before:.1f} s CPU")


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("trivial", "second", "folder"))
    parser.add_argument("cells", nargs="?", type=int)
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="preimage-overhead-", dir=ROOT))
    try:
        if chosen.what == "trivial":
            trivial(folder, chosen.cells or 10_000)
        elif chosen.what == "second":
            second(folder)
        else:
            folder_of(folder, chosen.cells or 50_000)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
