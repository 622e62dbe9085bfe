"""`preimage list` with everything installed, as a whole process."""

import os
import resource
import statistics
import subprocess
import sys
import time


def spent(arguments: list[str]) -> float:
    """CPU seconds of a child process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=dict(os.environ))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_listing_against_importing_torch(record_row):
    walls, ours, theirs = [], [], []
    for _ in range(10):
        started = time.perf_counter()
        ours.append(spent(["-m", "preimage", "list"]))
        walls.append(time.perf_counter() - started)
        theirs.append(spent(["-c", "import torch"]))
    wall = statistics.median(walls)
    note = f"wall {wall:.3f} s, median of 10; goal 0.4 s"
    record_row("preimage list, whole process", ours, ("python -c 'import torch'", theirs), 0.25, note=note)
