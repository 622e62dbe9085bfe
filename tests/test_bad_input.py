"""Bad input: one message that says what was found and what was expected, exit code 2, nothing half written."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preimage._cli import run

GOOD = """\
shape = [1, 16, 16]
[data]
name = "photographs"
size = 16
count = 1
[operator]
name = "gaussian-blur"
size = 5
[noise]
name = "gaussian"
sigma = 0.05
[prior]
name = "tv"
weight = 0.02
[solver]
name = "fista"
max_steps = 3
"""


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def operator(text: str) -> str:
    return changed('[operator]\nname = "gaussian-blur"\nsize = 5', f"[operator]\n{text}")


# case: (pipeline, what the message must contain)
PIPELINES: dict[str, tuple[str, list[str]]] = {
    "unknown operator": (operator('name = "gausian-blur"'), ["'gausian-blur'", "did you mean 'gaussian-blur'"]),
    "unknown prior": (changed('name = "tv"', 'name = "tvv"'), ["no prior is named 'tvv'", "tv"]),
    "unknown solver": (changed('name = "fista"', 'name = "fist"'), ["no solver is named 'fist'", "'fista'"]),
    "unknown dataset": (changed('name = "photographs"', 'name = "photos"'), ["no dataset is named 'photos'"]),
    "known name, not installed": (changed('name = "fista"', 'name = "latent-map"'), ["latent-map"]),
    "unknown table": (GOOD + "[slover]\n", ["'slover'", "did you mean 'solver'"]),
    "unknown key": (changed("max_steps = 3", "maxsteps = 3"), ["'maxsteps'", "did you mean 'max_steps'"]),
    "key of another component": (operator('name = "perona-malik"\nsigma = 1.0'), ["does not take 'sigma'"]),
    "wrong type": (changed("max_steps = 3", 'max_steps = "three"'), ["'three' of type str", "int"]),
    "float for integer": (changed("size = 5", "size = 5.5"), ["5.5 of type float", "int"]),
    "boolean for number": (changed("sigma = 0.05", "sigma = true"), ["True of type bool", "float"]),
    "missing parameter": (changed("sigma = 0.05", ""), ["has no sigma", "add sigma"]),
    "missing name": (operator("size = 5"), ["[operator] has no name"]),
    "name of wrong type": (operator("name = 5"), ["has the name 5"]),
    "missing table": (changed('[noise]\nname = "gaussian"\nsigma = 0.05\n', ""), ["there is no [noise]"]),
    "table is a value": (
        "operator = 3\n" + changed('[operator]\nname = "gaussian-blur"\nsize = 5\n', ""),
        ["operator is 3"],
    ),
    "negative noise": (changed("sigma = 0.05", "sigma = -0.05"), ["sigma is -0.05", ">= 0"]),
    "infinite noise": (changed("sigma = 0.05", "sigma = inf"), ["sigma is inf"]),
    "negative weight": (changed("weight = 0.02", "weight = -0.02"), ["weight is -0.02"]),
    "NaN weight": (changed("weight = 0.02", "weight = nan"), ["weight is nan"]),
    "even kernel": (changed("size = 5", "size = 4"), ["4", "odd"]),
    "kernel of no width": (changed("size = 5", "size = 5\nsigma = 0.0"), ["sigma is 0"]),
    "unknown boundary": (changed("size = 5", 'size = 5\nboundary = "periodic"'), ["'periodic'", "'circular'"]),
    "more measurements than pixels": (operator('name = "compressive-sensing"\nmeasurements = 300'), ["300", "256"]),
    "no measurement": (operator('name = "compressive-sensing"\nmeasurements = 0'), ["measurements is 0"]),
    "unknown ensemble": (
        operator('name = "compressive-sensing"\nmeasurements = 9\nensemble = "fft"'),
        ["'fft'", "'dct'"],
    ),
    "mask keeps nothing": (operator('name = "inpainting"\nkeep = 0.0'), ["keep is 0"]),
    "mask file missing": (operator('name = "inpainting"\nmask = "file"\npath = "nowhere.png"'), ["nowhere.png"]),
    "mask of another size": (operator('name = "inpainting"\nmask = "file"\npath = "mask.png"'), ["mask", "16"]),
    "diffusion that is unstable": (operator('name = "perona-malik"\nstep_size = 0.9'), ["0.9", "0.25"]),
    "solver that needs a linear operator": (
        operator('name = "perona-malik"').replace('name = "fista"', 'name = "admm"'),
        ["LinearOperator, which solver 'admm' needs", "solvers that take these operators: ", "fista"],
    ),
    "prior without a use": (changed('name = "fista"', 'name = "adjoint"'), ["[prior] would have no effect"]),
    "no prior where one is needed": (
        changed('[prior]\nname = "tv"\nweight = 0.02\n', "").replace('name = "fista"', 'name = "admm"'),
        ["there is no [prior]", "tv"],
    ),
    "negative step": (changed("max_steps = 3", "max_steps = 3\nstep_size = -1.0"), ["step_size is -1"]),
    "negative number of steps": (changed("max_steps = 3", "max_steps = -3"), ["max_steps is -3"]),
    "unknown device": ('device = "cudda"\n' + GOOD, ["cudda"]),
    "unknown dtype": ('dtype = "float16"\n' + GOOD, ["'float16'", "'float32'"]),
    "seed of wrong type": ("seed = 1.5\n" + GOOD, ["seed is 1.5"]),
    "shape of wrong type": (changed("shape = [1, 16, 16]", 'shape = "16x16"'), ["shape is '16x16'"]),
    "shape of another size than the data": (
        changed("shape = [1, 16, 16]", "shape = [3, 16, 16]"),
        ["[3, 16, 16]", "[1, 16"],
    ),
    "no syntax": ("[operator\n" + GOOD, ["not valid TOML", "line"]),
    "empty file": ("", ["there is no [operator]"]),
    "two errors at once": (
        changed('name = "tv"', 'name = "tvv"').replace("sigma = 0.05", 'sigma = "loud"'),
        ["2 problems", "'tvv'", "'loud'"],
    ),
    "errors in every table": (
        'seed = "x"\n' + changed("size = 5", "size = 4").replace('"tv"', '"tvv"').replace("max_steps = 3", "steps = 3"),
        ["seed", "'tvv'", "'steps'"],
    ),
    "folder missing": (changed('"photographs"', '"folder"\npath = "nowhere"'), ["nowhere"]),
    "folder empty": (changed('"photographs"', '"folder"\npath = "empty"'), ["empty", "image"]),
    "folder is a file": (changed('"photographs"', '"folder"\npath = "mask.png"'), ["mask.png"]),
    "images smaller than the crop": (
        changed('"photographs"\nsize = 16', '"folder"\npath = "small"\ncrop = "centre"\nsize = 64'),
        ["small", "64"],
    ),
}


@pytest.fixture(autouse=True)
def paths_are_relative_to_the_current_folder(monkeypatch):
    monkeypatch.delenv("PREIMAGE_DATA", raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where all cases run: a few good and bad files."""
    root = tmp_path_factory.mktemp("bad-input")
    grey = (np.random.default_rng(0).random((16, 16)) * 255).astype(np.uint8)
    Image.fromarray(grey).save(root / "photo.png")
    Image.fromarray(grey[:8, :8]).save(root / "mask.png")
    (root / "empty").mkdir()
    (root / "small").mkdir()
    Image.fromarray(grey).save(root / "small" / "one.png")
    data = (root / "photo.png").read_bytes()
    (root / "truncated.png").write_bytes(data[: len(data) // 2])
    Image.fromarray((np.random.default_rng(1).random((64, 64, 3)) * 255).astype(np.uint8)).save(root / "photo.jpg")
    data = (root / "photo.jpg").read_bytes()
    (root / "truncated.jpg").write_bytes(data[: len(data) // 2])
    (root / "nothing.png").write_bytes(b"")
    (root / "text.png").write_text("this is no image")
    np.save(root / "nan.npy", np.full((16, 16), np.nan, np.float32))
    np.save(root / "infinite.npy", np.full((1, 16, 16), np.inf, np.float32))
    np.save(root / "five.npy", np.zeros((5, 16, 16), np.float32))
    np.save(root / "far.npy", np.full((16, 16), 255.0, np.float32))
    np.save(root / "text.npy", np.array(["a", "b"]))
    np.save(root / "measurement-of-another-shape.npy", np.zeros((1, 8, 8), np.float32))
    np.save(root / "measurement-nan.npy", np.full((1, 16, 16), np.nan, np.float32))
    (root / "good.toml").write_text(GOOD)
    return root


def preimage(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "preimage", *arguments]
    variables = os.environ | environment
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=variables, timeout=120, check=False)


def expect(outcome: subprocess.CompletedProcess[str], parts: list[str]) -> None:
    text = outcome.stderr
    assert outcome.returncode == 2, (outcome.returncode, outcome.stdout, text)
    assert "Traceback" not in text + outcome.stdout
    assert text.count("error:") == 1
    assert "expected:" in text
    assert "remedy:" in text
    flat = " ".join(text.split())
    for part in parts:
        assert part in flat, (part, text)


def called(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in this process, for speed; `PROCESSES` of the cases start one."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr), contextlib.chdir(folder):
        code = run(list(arguments))
    return subprocess.CompletedProcess([], code, stdout.getvalue(), stderr.getvalue())


@pytest.mark.parametrize("case", PIPELINES)
def test_bad_pipelines(case, folder, tmp_path):
    text, parts = PIPELINES[case]
    path = folder / f"{re.sub('[^a-z]+', '-', case.lower())}.toml"
    path.write_text(text)
    out = tmp_path / "out"
    expect(called(folder, "run", path.name, "--out", str(out)), parts)
    assert not out.exists()


COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "pipeline file missing": (["run", "missing.toml"], ["there is no file missing.toml"]),
    "directory for a pipeline": (["run", "empty"], ["directory"]),
    "binary for a pipeline": (["run", "photo.png"], ["photo.png"]),
    "check a missing file": (["check", "missing.toml"], ["there is no file missing.toml"]),
    "check an unknown name": (["check", "no-such-thing"], ["'no-such-thing'"]),
    "check nothing": (["check"], ["nothing to check"]),
    "show an unknown name": (["show", "gausian-blur"], ["did you mean 'gaussian-blur'"]),
    "unknown command": (["rnu"], ["no command is named 'rnu'"]),
    "unknown option": (["list", "--jsn"], ["--jsn"]),
    "unknown kind": (["list", "operators"], ["'operators'"]),
    "input missing": (["run", "good.toml", "--input", "missing.png"], ["missing.png"]),
    "input is a directory": (["run", "good.toml", "--input", "empty"], ["empty"]),
    "input is truncated (PNG)": (["run", "good.toml", "--input", "truncated.png"], ["truncated.png"]),
    "input is truncated (JPEG)": (["run", "good.toml", "--input", "truncated.jpg"], ["truncated.jpg"]),
    "input has no bytes": (["run", "good.toml", "--input", "nothing.png"], ["nothing.png"]),
    "input is no image": (["run", "good.toml", "--input", "text.png"], ["text.png"]),
    "input of unknown format": (["run", "good.toml", "--input", "good.toml"], ["good.toml"]),
    "input with NaN": (["run", "good.toml", "--input", "nan.npy"], ["nan.npy", "NaN"]),
    "input with infinity": (["run", "good.toml", "--input", "infinite.npy"], ["infinite.npy", "finite"]),
    "input with five channels": (["run", "good.toml", "--input", "five.npy"], ["five.npy", "5"]),
    "input out of range": (["run", "good.toml", "--input", "far.npy"], ["far.npy", "255"]),
    "input of text": (["run", "good.toml", "--input", "text.npy"], ["text.npy"]),
    "measurement of another shape": (
        ["run", "good.toml", "--measurement", "measurement-of-another-shape.npy"],
        ["(1, 8, 8)", "16"],
    ),
    "measurement with NaN": (["run", "good.toml", "--measurement", "measurement-nan.npy"], ["NaN"]),
    "setting without a value": (["run", "good.toml", "--set", "solver.max_steps"], ["solver.max_steps"]),
    "setting of an unknown key": (["run", "good.toml", "--set", "solver.steps=3"], ["'steps'"]),
    "setting into nowhere": (["run", "good.toml", "--set", "seed.a.b=3"], ["seed is", "an integer"]),
    "output is a file": (["run", "good.toml", "--out", "photo.png"], ["photo.png"]),
}


PROCESSES = ("pipeline file missing", "unknown option", "input is no image", "measurement with NaN")


@pytest.mark.parametrize("case", COMMANDS)
def test_bad_commands(case, folder):
    arguments, parts = COMMANDS[case]
    before = sorted(path for path in folder.rglob("*") if path.suffix != ".toml")
    expect((preimage if case in PROCESSES else called)(folder, *arguments), parts)
    assert sorted(path for path in folder.rglob("*") if path.suffix != ".toml") == before


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/self").exists(), reason="needs a folder root cannot write to")
def test_no_permission_to_write(folder):
    """/proc takes no new folders, not even from root."""
    expect(preimage(folder, "run", "good.toml", "--out", "/proc/preimage-out"), ["/proc/preimage-out"])


def test_full_disk(folder, tmp_path):
    """The disk fills up while results are written: one message, and no half-written folder."""
    code = (
        "import errno, os, sys\n"
        "real = os.fsync\n"
        "def full(*arguments):\n"
        "    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "os.fsync = full\n"
        "from preimage._cli import run\n"
        f"sys.exit(run(['run', 'good.toml', '--out', {str(tmp_path / 'out')!r}]))"
    )
    outcome = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    expect(outcome, ["No space left on device"])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_interrupted_run_goes_on(folder, tmp_path):
    """Ctrl-C in the middle: finished images are whole, and the same command does the rest."""
    text = changed("size = 16\ncount = 1", "size = 96\ncount = 4").replace("shape = [1, 16, 16]\n", "")
    (folder / "long.toml").write_text(text.replace("max_steps = 3", "max_steps = 150\ntolerance = 1e-12"))
    command = [sys.executable, "-m", "preimage", "run", "long.toml", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while not list(tmp_path.glob("out/[!.]*/run.json")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=100)
    finished = sorted(path.parent.name for path in tmp_path.glob("out/[!.]*/run.json"))
    expect(subprocess.CompletedProcess([], process.returncode, stdout, stderr), ["interrupted", "run the same command"])
    assert 1 <= len(finished) < 4
    written = {path.parent.name for path in tmp_path.glob("out/*/*")}
    assert written == set(finished)
    kept = (tmp_path / "out" / finished[0] / "run.json").read_bytes()
    again = preimage(folder, "run", "long.toml", "--out", str(tmp_path / "out"), "--set", "solver.max_steps=150")
    assert again.returncode == 0, again.stderr
    assert len(list(tmp_path.glob("out/*/estimate.png"))) == 4
    assert (tmp_path / "out" / finished[0] / "run.json").read_bytes() == kept


def test_the_table_is_long_enough():
    assert len(PIPELINES) + len(COMMANDS) + 3 >= 40
