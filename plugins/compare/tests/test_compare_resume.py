"""Killed at any moment, a run goes on where it was; and how it is spread over processes changes no number."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from preimage_compare import read
from preimage_compare._claims import Claims

METHODS = """
[[method]]
label = "work"
solver = { name = "faulty-work", seconds = 0.002 }
[[method]]
label = "tv"
prior = { name = "tv", weight = 0.05 }
solver = { name = "admm", max_steps = 10 }
[[method]]
label = "adjoint"
solver = { name = "adjoint" }
"""


def finished(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (folder / "cells").glob("??/*.json")}


def start(site, folder: Path, suite: Path, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "preimage", "compare", str(suite), "--out", str(folder), *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=site.environment(), cwd=folder.parent, start_new_session=True
    )


def wait_for(count: int, folder: Path, process: "subprocess.Popen[str]") -> None:
    while process.poll() is None and len(list((folder / "cells").glob("??/*.json"))) < count:
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("kills", "settings"),
    [
        pytest.param(2, {"count": 5, "seeds": "[0, 1]"}, id="30 cells"),
        pytest.param(10, {"count": 10, "seeds": str(list(range(10)))}, id="300 cells", marks=pytest.mark.long),
    ],
)
def test_killed_at_random_moments(compare, site, write_suite, tmp_path, numbers, temporary, kills, settings):
    suite = write_suite(METHODS, **settings)
    assert compare(suite, "--out", tmp_path / "undisturbed", timeout=900).returncode == 0
    whole = numbers(tmp_path / "undisturbed")
    chance, folder = random.Random(5), tmp_path / "out"
    before: dict[Path, bytes] = {}
    interrupted = 0
    for kill in range(kills):
        process = start(site, folder, suite, "--jobs", "2")
        target = round(len(whole) * (kill + chance.random()) / kills)
        wait_for(target, folder, process)
        time.sleep(0.3 * chance.random())
        if process.poll() is None:
            # The whole group, or only the process that leads: its workers then end by themselves.
            os.killpg(process.pid, signal.SIGKILL) if kill % 2 else os.kill(process.pid, signal.SIGKILL)
            interrupted += 1
        process.communicate()
        now = finished(folder)
        assert before.items() <= now.items()  # nothing finished was computed again, or lost
        before = now
    assert interrupted >= kills / 2
    last = compare(suite, "--out", folder, timeout=900)
    assert last.returncode == 0, last.stderr
    assert before.items() <= finished(folder).items()
    assert numbers(folder) == whole
    assert not temporary(folder)


@pytest.mark.parametrize("jobs", [2, pytest.param(4, marks=pytest.mark.long)])
def test_processes_dask_and_order_change_no_number(compare, write_suite, tmp_path, numbers, jobs):
    pytest.importorskip("distributed")
    suite = write_suite(METHODS)
    parts = METHODS.split("[[method]]")
    backwards = write_suite("[[method]]".join([parts[0], *reversed(parts[1:])]), name="backwards.toml")
    runs = {"1": (suite, "--jobs", 1), "n": (backwards, "--jobs", jobs), "dask": (suite, "--scheduler", "local")}
    tables = {}
    for name, arguments in runs.items():
        assert compare(*arguments, "--out", tmp_path / name).returncode == 0
        tables[name] = numbers(tmp_path / name)
    assert tables["1"] == tables["n"] == tables["dask"]


def test_all_methods_get_the_same_bytes_and_an_added_one_computes_only_its_cells(compare, write_suite, tmp_path):
    assert compare(write_suite(METHODS), "--out", tmp_path / "out").returncode == 0
    before = finished(tmp_path / "out")
    more = METHODS + '[[method]]\nlabel = "scaled"\nsolver = { name = "adjoint", scaled = true }\n'
    added = compare(write_suite(more), "--out", tmp_path / "out")
    assert added.returncode == 0
    assert "resumed: 6 of 8 cells were finished" in added.stdout
    assert before.items() <= finished(tmp_path / "out").items()
    results = read(tmp_path / "out")
    for image in ("camera", "astronaut"):
        assert len({cell["measurement"] for cell in results.cells if cell["image"] == image}) == 1
    assert len(list((tmp_path / "out" / "measurements").iterdir())) == 2


def test_two_runs_at_once_share_the_work(site, write_suite, tmp_path, temporary):
    diary = tmp_path / "diary"
    work = METHODS.replace("seconds = 0.002", f'seconds = 0.002, diary = "{diary}"')
    suite = write_suite(work, count=8, seeds="[0, 1]")
    runs = [start(site, tmp_path / "out", suite) for _ in range(2)]
    answers = [(run.communicate(timeout=300), run.returncode) for run in runs]
    assert [code for _, code in answers] == [0, 0], answers
    results = read(tmp_path / "out", deep=True)
    assert len(results.cells) == 48
    assert not results.corrupt
    assert len(diary.read_text().splitlines()) == 16  # no cell was begun twice
    assert not temporary(tmp_path / "out")


def test_interrupted_by_the_keyboard(site, write_suite, tmp_path, temporary):
    slow = '[[method]]\nlabel = "work"\nsolver = { name = "faulty-work", seconds = 0.2 }\n'
    folder = tmp_path / "out"
    process = start(site, folder, write_suite(slow, count=8), "--jobs", "2")
    wait_for(2, folder, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "interrupted before the end" in errors
    assert "what is finished is kept" in errors
    assert not temporary(folder)
    assert 2 <= len(read(folder).cells) < 8


@pytest.mark.slow
def test_a_dask_cluster_that_loses_workers_and_its_scheduler(compare, site, write_suite, tmp_path, numbers, temporary):
    pytest.importorskip("distributed")
    suite = write_suite(METHODS.replace("0.002", "0.05"), count=10, seeds="[0, 1]")
    assert compare(suite, "--out", tmp_path / "undisturbed").returncode == 0
    folder, port = tmp_path / "out", random.Random(os.getpid()).randrange(20000, 40000)
    address = f"tcp://127.0.0.1:{port}"
    environment = site.environment()

    def dask(*arguments: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", *arguments]
        null = subprocess.DEVNULL
        return subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=null, stderr=null)

    def scheduler() -> "subprocess.Popen[bytes]":
        return dask("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")

    def worker() -> "subprocess.Popen[bytes]":
        return dask("distributed.cli.dask_worker", address, "--no-nanny", "--nthreads", "1", "--no-dashboard")

    running = [scheduler(), worker(), worker()]
    try:
        run = start(site, folder, suite, "--scheduler", address)
        for count in (10, 20):
            wait_for(count, folder, run)
            assert run.poll() is None, run.communicate()
            running[-1].kill()
            running[-1].wait()
            running.append(worker())
        wait_for(30, folder, run)
        assert run.poll() is None
        before = finished(folder)
        running[0].kill()
        _, errors = run.communicate(timeout=120)
        assert run.returncode == 2, errors
        assert "was lost" in errors
        for process in running:
            process.kill()
            process.wait()
        running = [scheduler(), worker()]
        again = compare(suite, "--out", folder, "--scheduler", address)
        assert again.returncode == 0, again.stderr
        assert before.items() <= finished(folder).items()
        assert numbers(folder) == numbers(tmp_path / "undisturbed")
        assert not temporary(folder)
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_a_run_that_is_alone_is_waited_for(tmp_path):
    """Else it could tidy up what the second run is writing at that moment."""
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom preimage_compare._claims import Claims\n"
        "claims = Claims(Path(sys.argv[1]))\nassert not claims.alone()\nprint('there', flush=True)\n"
        "claims.share()\nprint('in', flush=True)\n"
    )
    with Claims(tmp_path) as first:
        assert first.alone()
        second = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert second.stdout.readline() == "there\n"
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(0.5)
        first.share()
        assert second.stdout.readline() == "in\n"
        assert second.wait(30) == 0
        second.stdout.close()
