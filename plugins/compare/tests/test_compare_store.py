"""Result folders: damage is found, folders merge, and a disk that is full or read-only loses nothing."""

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from preimage_compare import load_suite, read, run, run_suite, store
from preimage_compare._claims import Claims
from preimage_compare._pools import Pool
from preimage_compare.measure import Laboratory
from preimage_data import atomic
from safetensors.torch import load

from preimage.errors import BadData, BadFile

METHODS = """
[[method]]
label = "adjoint"
solver = { name = "adjoint" }
[[method]]
label = "scaled"
solver = { name = "adjoint", scaled = true }
[[method]]
label = "does not fit"
prior = { name = "tv" }
solver = { name = "adjoint" }
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A finished folder of three methods on two images, and its suite."""
    folder = tmp_path_factory.mktemp("store")
    suite = folder / "suite.toml"
    suite.write_text(
        'title = "Test"\nseeds = [0]\n'
        '[[data]]\nlabel = "photographs"\nname = "photographs"\nsize = 16\ncount = 2\n'
        '[[operator]]\nlabel = "identity"\nname = "identity"\n'
        '[[noise]]\nlabel = "0.05"\nname = "gaussian"\nsigma = 0.05\n' + METHODS
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "LocalPool", Inline)
        run_suite(load_suite(suite), folder / "out")
    return suite, folder / "out"


@pytest.fixture
def folder(original, tmp_path):
    shutil.copytree(original[1], tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Cells computed in this process: what is tested here is the folder."""
    monkeypatch.setattr(run, "LocalPool", Inline)


class Inline(Pool):
    """A pool without workers."""

    slots = 1

    def __init__(self, jobs: int, threads: int):
        self._laboratory, self._replies = Laboratory(), []

    def submit(self, number, task, measured):
        self._replies.append((number, self._laboratory.compute(task, None if measured is None else load(measured))))

    def wait(self, timeout):
        return self._replies.pop()

    def close(self):
        self._replies.clear()


def first_cell(folder: Path) -> Path:
    return next(path for path in sorted(store.cell_files(folder)) if json.loads(path.read_bytes())["outcome"] == "ok")


SLOW = """solver = { name = "ista", max_steps = 20, tolerance = 0.0, step_size = 0.05 }
prior = { name = "tikhonov", weight = 0.1 }
limits = { evaluations = LIMIT }
"""


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "where", "reason", "deep"),
    [
        (cut, "cells", "cut off or was changed", False),
        (flip, "cells", "cut off or was changed", False),
        (lambda path: path.write_bytes(b""), "cells", "cut off or was changed", False),
        (cut, "images", "bytes instead of", False),
        (os.unlink, "images", "is missing", False),
        (flip, "images", "was changed", True),
        (os.unlink, "measurements", "is missing", False),
        (flip, "measurements", "was changed", True),
    ],
)
def test_damage_is_found_named_and_mended(original, folder, damage, where, reason, deep):
    cell = first_cell(folder)
    record = json.loads(cell.read_bytes())
    path = {
        "cells": cell,
        "images": store.image_path(folder, record["key"]),
        "measurements": store.measurement_path(folder, record["measurement"]),
    }[where]
    damage(path)
    results = read(folder, deep=deep)
    assert path in {each.path for each in results.corrupt}
    assert all(reason in each.reason for each in results.corrupt)
    assert len(results.missing) == (2 if where == "measurements" else 1)
    if deep:
        store.clean(folder)  # a run looks at sizes only; what is found to be damaged is removed, and then computed
    summary = run_suite(load_suite(original[0]), folder)
    # A measurement that the first cell brings back makes the other cells whole.
    whole_again = where == "measurements" and not deep
    assert summary.computed == (1 if whole_again else len(results.missing))
    assert deep or path in {each.path for each in summary.corrupt}
    assert not read(folder, deep=True).corrupt


def test_every_method_has_a_row_also_if_it_cannot_be_assembled(folder):
    cells = read(folder).cells
    assert [cell["outcome"] for cell in cells] == ["ok", "ok", "skipped"] * 2
    assert all("no effect" in cell["reason"] for cell in cells if cell["outcome"] == "skipped")
    assert all("measurement" in cell for cell in cells)


def test_images_and_measurements_can_be_read(folder):
    results = read(folder)
    cell = results.cells[0]
    image, measured = results.image(cell["key"]), results.measurement(cell["measurement"])
    assert image["estimate"].shape == measured["truth"].shape == measured["start"].shape == (1, 16, 16)
    points = len(image["trace_seconds"])
    assert points == len(image["trace_psnr"]) == len(image["trace_objective"]) > 0
    assert float(image["trace_psnr"][-1]) == cell["metrics"]["psnr"]
    with pytest.raises(BadFile, match="there is no file"):
        results.image(results.cells[2]["key"])


def test_parts_merge_to_the_whole(original, folder, tmp_path, numbers):
    suite = load_suite(original[0])
    for number, pattern in enumerate(("adjoint", "scaled", "does*")):
        run_suite(suite, tmp_path / f"part{number}", only=[pattern])
    assert len(read(tmp_path / "part0").missing) == 4
    for number in range(3):
        store.merge(tmp_path / "merged", tmp_path / f"part{number}")
    assert numbers(tmp_path / "merged") == numbers(folder)
    again = store.merge(tmp_path / "merged", folder)
    assert (again.copied, again.kept) == (0, 6)


def test_a_damaged_cell_is_not_merged_and_other_cells_of_the_same_labels_are_refused(original, folder, tmp_path):
    cut(first_cell(folder))
    done = store.merge(tmp_path / "merged", folder)
    assert (done.copied, len(done.corrupt)) == (5, 1)
    suite = tmp_path / "suite.toml"
    suite.write_text(original[0].read_text().replace("sigma = 0.05", "sigma = 0.06"))
    run_suite(load_suite(suite), tmp_path / "other", only=["adjoint"])
    with pytest.raises(BadData, match="different cells for the same labels"):
        store.merge(tmp_path / "merged", tmp_path / "other")


def test_clean_removes_what_the_suite_does_not_ask_for(original, folder, tmp_path):
    suite = tmp_path / "suite.toml"
    suite.write_text(original[0].read_text().partition('[[method]]\nlabel = "scaled"')[0])
    run_suite(load_suite(suite), folder)
    (folder / "cells" / "ab").mkdir(exist_ok=True)
    (folder / "cells" / "ab" / ".x.json.1234.part").write_text("half")
    assert len(read(folder).others) == 4
    gone = store.clean(folder, dry_run=True)
    assert all(path.exists() for path in gone)
    assert store.clean(folder) == gone
    assert not any(path.exists() for path in gone)
    results = read(folder, deep=True)
    assert (len(results.cells), results.others, results.corrupt) == (2, [], [])
    assert {p.name for p in folder.iterdir()} >= {"suite.json", "plan.json"}


def test_two_labels_for_one_thing_are_computed_once(original, tmp_path):
    suite = tmp_path / "suite.toml"
    suite.write_text(original[0].read_text() + '[[method]]\nlabel = "again"\nsolver = { name = "adjoint" }\n')
    run_suite(load_suite(suite), tmp_path / "out", only=["adjoint", "again"])
    assert len(list(store.cell_files(tmp_path / "out"))) == 2
    cells = read(tmp_path / "out").cells
    assert [cell["method"] for cell in cells] == ["adjoint", "again"] * 2
    assert cells[0]["metrics"] == cells[1]["metrics"]


def test_a_higher_limit_computes_anew_what_the_lower_one_ended(original, tmp_path):
    text = original[0].read_text().replace('solver = { name = "adjoint" }', SLOW, 1)

    def attempt(evaluations: int):
        suite = tmp_path / "suite.toml"
        suite.write_text(text.replace("LIMIT", str(evaluations)))
        return run_suite(load_suite(suite), tmp_path / "out", only=["adjoint"])

    assert (attempt(8).count("failed"), attempt(8).kept) == (2, 2)
    assert (attempt(7).kept, attempt(9).computed) == (2, 2)
    assert (attempt(900).count("ok"), attempt(900).kept, attempt(800).kept) == (2, 2, 2)
    assert attempt(8).count("failed") == 2


def refusing(number: int, allowed: int):
    """os.fsync of a disk on which only so many files have room."""
    fsync, left = os.fsync, [allowed]

    def refuse(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    return refuse


def test_a_full_disk_is_said_and_loses_nothing(original, tmp_path, monkeypatch, temporary, numbers):
    suite = load_suite(original[0])
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", refusing(errno.ENOSPC, 16))
        with pytest.raises(BadFile, match="No space left on device") as caught:
            run_suite(suite, tmp_path / "out")
    assert "free some space" in str(caught.value)
    assert not temporary(tmp_path / "out")
    finished = {path: path.read_bytes() for path in store.cell_files(tmp_path / "out")}
    assert finished
    assert not read(tmp_path / "out", deep=True).corrupt
    run_suite(suite, tmp_path / "out")
    assert finished.items() <= {path: path.read_bytes() for path in store.cell_files(tmp_path / "out")}.items()
    assert numbers(tmp_path / "out") == numbers(original[1])


@pytest.mark.skipif(sys.platform != "linux", reason="root's rights are given up as Linux does it")
def test_a_read_only_folder_is_said_at_once_and_loses_nothing(original, folder, compare, numbers):
    first, *others = sorted(store.cell_files(folder))
    first.unlink()
    places = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    files = [path for path in folder.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    for path in (*places, *files):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        refused = compare(original[0], "--out", folder, bound=True)
        shown = compare("status", folder, bound=True)
    finally:
        for path in (*places, *files):
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert refused.returncode == 2
    assert refused.stderr.count("error:") == 1
    assert f"{folder}/lock cannot be written: Permission denied" in refused.stderr
    assert "ask for permission to this folder, or name another" in refused.stderr
    assert (shown.returncode, len(others)) == (0, 5)
    assert "missing" in shown.stdout
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    run_suite(load_suite(original[0]), folder)
    assert numbers(folder) == numbers(original[1])


def test_no_cleaning_while_a_run_is_at_work(folder):
    import subprocess
    import sys

    code = "import sys; from pathlib import Path; from preimage_compare._claims import Claims; "
    code += f"c = Claims(Path({str(folder)!r})); c.share(); print('ready', flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as other:
        assert other.stdout
        assert other.stdin
        other.stdout.readline()
        with pytest.raises(BadData, match="a run is at work"):
            store.clean(folder)
        with Claims(folder) as claims:
            assert not claims.alone()
        other.stdin.close()
    store.clean(folder)


def test_a_folder_without_results(tmp_path):
    with pytest.raises(BadFile, match=r"there is no file .*suite\.json"):
        read(tmp_path)
