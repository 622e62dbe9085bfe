"""`preimage run` from end to end: results, resuming, interruption, repeating, and what is said about bad input."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from preimage_data import Photographs, psnr, read_array, read_image
from preimage_data.commands import run
from rich.console import Console

from preimage import Pipeline
from preimage.errors import BadFile, BadParameter, PreimageError, SeveralProblems, ShapeMismatch

admm = pytest.importorskip("preimage_baselines.admm")

TEXT = """
seed = 3

[data]
name = "photographs"
size = 32
count = 3

[operator]
name = "identity"

[noise]
name = "gaussian"
sigma = 0.1

[prior]
name = "tv"
weight = 0.07

[solver]
name = "admm"
max_steps = 40
"""
NAMES = {"run.json", "estimate.png", "estimate.npy", "measurement.npy", "comparison.png"}

Invoke = Callable[..., Result]


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    (tmp_path / "denoise.toml").write_text(TEXT)
    return tmp_path / "denoise.toml"


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREIMAGE_DATA", raising=False)  # folders are given relative to the current one

    def call(*arguments: object, throw: bool = True) -> Result:
        result = CliRunner().invoke(run, [str(a) for a in arguments], standalone_mode=False)
        if throw and result.exception is not None:
            raise result.exception
        return result

    return call


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text("utf-8"))


def contents(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def test_results_of_a_run(pipeline: Path, invoke: Invoke, tmp_path: Path):
    result = invoke(pipeline)
    assert result.return_value == 0
    assert "astronaut" in result.output
    out = tmp_path / "runs" / "denoise"
    assert sorted(p.name for p in out.iterdir()) == ["astronaut", "camera", "chelsea"]
    data = Photographs(size=32, count=3)
    for i, name in enumerate(("camera", "astronaut", "chelsea")):
        folder = out / name
        assert {p.name for p in folder.iterdir()} == NAMES
        truth, estimate = data[i], read_array(folder / "estimate.npy")
        found = record(folder)
        assert found["estimate"]["psnr"] == pytest.approx(float(psnr(estimate[None], truth[None])))
        assert found["estimate"]["psnr"] > found["measured"]["psnr"] + 1
        assert found["status"] in ("converged", "max_steps")
        assert found["reason"].startswith("ADMM stopped after")
        assert found["config"]["solver"]["max_steps"] == 40
        assert found["config"]["data"]["crop"] == "resize"  # a default is recorded too
        assert {"python", "torch", "numpy", "preimage", "preimage-data", "preimage-baselines"} <= set(found["versions"])
        assert found["seed"] == 3
        assert len(found["input"]["sha256"]) == len(found["input"]["pixels_sha256"]) == 64
        assert float((read_image(folder / "estimate.png") - estimate.clamp(0, 1)).abs().max()) <= 0.5 / 255 + 1e-6
        assert read_image(folder / "comparison.png").shape[2] > 1000


def test_the_record_is_enough_to_repeat_a_run(pipeline: Path, invoke: Invoke, tmp_path: Path):
    invoke(pipeline, "--out", "first")
    first = tmp_path / "first" / "astronaut"
    found = record(first)
    tables = {name: value for name, value in found["config"].items() if name != "shape"}
    again = Pipeline.from_dict(tables)
    assert again.data is not None
    y = again.simulate(again.data[1][None], ["astronaut"])
    assert torch.equal(again.reconstruct(y, ["astronaut"]).x[0], read_array(first / "estimate.npy"))

    pipeline.unlink()
    result = invoke(first / "run.json", "--out", "second")
    assert result.return_value == 0
    assert [p.name for p in (tmp_path / "second").iterdir()] == ["astronaut"]
    new, old = contents(tmp_path / "second" / "astronaut"), contents(first)
    seconds = {name: json.loads(files.pop("run.json")).pop("seconds") for name, files in (("new", new), ("old", old))}
    assert all(value > 0 for value in seconds.values())
    assert new == old


def test_the_record_tells_of_a_start(pipeline: Path, invoke: Invoke, tmp_path: Path):
    start = '[start.prior]\nname = "tv"\n[start.solver]\nname = "fista"\nmax_steps = 2\n'
    pipeline.write_text(TEXT.replace("count = 3", "count = 1") + start)
    invoke(pipeline, "--out", "out")
    found = record(tmp_path / "out" / "camera")
    assert found["start"]["steps"] == [2]
    assert found["start"]["reasons"][0].startswith("FISTA stopped after 2 steps")
    assert 0 < found["start"]["seconds"] < found["seconds"]
    invoke("out/camera/run.json", "--out", "again")
    assert (tmp_path / "again/camera/estimate.npy").read_bytes() == (tmp_path / "out/camera/estimate.npy").read_bytes()


def test_finished_images_are_not_done_again(
    pipeline: Path, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    invoke(pipeline, "--out", "out", "--set", "data.count=2")
    before = contents(tmp_path / "out")
    reconstructed: list[str] = []
    original = Pipeline.reconstruct

    def counted(self: Pipeline, y: torch.Tensor, labels: list[str], **others: Any) -> Any:
        reconstructed.extend(labels)
        return original(self, y, labels, **others)

    monkeypatch.setattr(Pipeline, "reconstruct", counted)
    result = invoke(pipeline, "--out", "out", "--set", "data.count=2")
    assert "resumed: 2 of 2 were done" in result.output
    assert reconstructed == []
    assert contents(tmp_path / "out") == before
    invoke(pipeline, "--out", "out", "--set", "data.count=2", "--overwrite")
    assert reconstructed == ["camera", "astronaut"]
    assert set(contents(tmp_path / "out")) == set(before)


def test_results_of_another_pipeline_or_image_are_not_taken_up(pipeline: Path, invoke: Invoke, tmp_path: Path):
    invoke(pipeline, "--out", "out", "--set", "data.count=1")
    with pytest.raises(BadFile, match="result of another run") as caught:
        invoke(pipeline, "--out", "out", "--set", "data.count=1", "--set", "prior.weight=0.1")
    assert "--overwrite" in caught.value.remedy
    changed = ("--set", "data.count=1", "--set", "prior.weight=0.1", "--overwrite")
    assert invoke(pipeline, "--out", "out", *changed).return_value == 0
    assert record(tmp_path / "out" / "camera")["config"]["prior"]["weight"] == 0.1

    photo = tmp_path / "photo.png"
    for value in (100, 200):
        Image.fromarray(np.full((16, 16), value, np.uint8)).save(photo)
        if value == 100:
            invoke(pipeline, "--input", photo, "--out", "files")
    with pytest.raises(BadFile, match="its input differs"):
        invoke(pipeline, "--input", photo, "--out", "files")


def test_overwrite_does_not_remove_what_is_not_of_a_run(pipeline: Path, invoke: Invoke, tmp_path: Path):
    invoke(pipeline, "--out", "out", "--set", "data.count=1")
    (tmp_path / "out" / "camera" / "thesis.txt").write_text("precious")
    with pytest.raises(BadFile, match=r"thesis\.txt"):
        invoke(pipeline, "--out", "out", "--set", "data.count=1", "--overwrite")
    assert (tmp_path / "out" / "camera" / "thesis.txt").read_text() == "precious"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["camera"]


def test_an_interrupted_run_keeps_what_is_finished(
    pipeline: Path, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    original, started = admm.ADMM.init, []

    def second(self: Any, problem: Any, keys: Any) -> Any:
        started.append(1)
        if len(started) == 2:
            raise KeyboardInterrupt
        return original(self, problem, keys)

    with monkeypatch.context() as patch:
        patch.setattr(admm.ADMM, "init", second)
        with pytest.raises((KeyboardInterrupt, click.Abort)):
            invoke(pipeline, "--out", "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["camera"]
    assert {p.name for p in (tmp_path / "out" / "camera").iterdir()} == NAMES
    assert "resumed: 1 of 3 were done" in invoke(pipeline, "--out", "out").output


@pytest.mark.parametrize("call", ["fsync", "mkdir", "rename"])
def test_a_full_disk_leaves_nothing_half_written(
    call: str, pipeline: Path, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    invoke(pipeline, "--out", "out", "--set", "data.count=1")
    before = contents(tmp_path / "out")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(BadFile, match="No space left on device"):
            invoke(pipeline, "--out", "out")
    assert contents(tmp_path / "out") == before
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["camera"]


def test_unknown_exceptions_are_not_swallowed(pipeline: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(admm.ADMM, "step", broken)
    with pytest.raises(ZeroDivisionError, match="a defect"):
        invoke(pipeline)


def test_divergence_is_recorded_and_told(
    pipeline: Path, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(admm.ADMM, "estimate", lambda self, problem, state: state.x * float("nan"))
    result = invoke(pipeline, "--out", "out", "--set", "data.count=2")
    assert result.return_value == 1
    assert "diverged" in result.output
    assert record(tmp_path / "out" / "astronaut")["status"] == "diverged"
    assert invoke(pipeline, "--out", "out", "--set", "data.count=2").return_value == 1  # resumed


# Inputs and measurements


def test_input_files_of_several_sizes_and_colours(pipeline: Path, invoke: Invoke, tmp_path: Path):
    pipeline.write_text(TEXT.replace("size = 32\ncount = 3\n", "").replace("photographs", "folder"))
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (20, 24), dtype=np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(random.integers(0, 256, (18, 16, 3), dtype=np.uint8)).save(tmp_path / "colour.tif")
    np.save(tmp_path / "numbers.npy", random.uniform(size=(20, 24)))
    inputs = [argument for name in ("grey.png", "colour.tif", "numbers.npy") for argument in ("--input", name)]
    assert invoke(pipeline, *inputs, "--out", "out").return_value == 0
    shapes = {p.parent.name: read_array(p).shape for p in (tmp_path / "out").glob("*/estimate.npy")}
    assert shapes == {"grey.png": (1, 20, 24), "colour.tif": (3, 18, 16), "numbers.npy": (1, 20, 24)}
    for name in shapes:
        found = record(tmp_path / "out" / name)
        assert found["input"]["path"] == found["config"]["data"]["path"] == str(tmp_path / name)
        assert found["config"]["shape"] == list(shapes[name])
    repeated = invoke(tmp_path / "out" / "colour.tif" / "run.json", "--out", "again")
    assert repeated.return_value == 0
    for name in ("estimate.npy", "measurement.npy"):
        assert (tmp_path / "again" / "colour.tif" / name).read_bytes() == (
            tmp_path / "out" / "colour.tif" / name
        ).read_bytes()


def test_size_colour_and_crop_apply_to_inputs(pipeline: Path, invoke: Invoke, tmp_path: Path):
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / "a.png")
    invoke(pipeline, "--input", "a.png", "--out", "out", "--set", "data.colour=grey")
    assert read_array(tmp_path / "out" / "a.png" / "estimate.npy").shape == (1, 32, 32)


def test_measurements_without_truth(pipeline: Path, invoke: Invoke, tmp_path: Path):
    np.save(tmp_path / "y.npy", np.random.default_rng(0).uniform(size=(1, 32, 32)))
    assert invoke(pipeline, "--measurement", "y.npy", "--out", "out").return_value == 0
    folder = tmp_path / "out" / "y.npy"
    found = record(folder)
    assert found["estimate"] == {"psnr": None, "ssim": None}
    assert found["input"] is None
    assert found["measurement"]["path"] == str(tmp_path / "y.npy")
    assert {p.name for p in folder.iterdir()} == NAMES
    assert "resumed: 1 of 1" in invoke(pipeline, "--measurement", "y.npy", "--out", "out").output
    assert invoke(folder / "run.json", "--out", "again").return_value == 0
    assert (tmp_path / "again" / "y.npy" / "estimate.npy").read_bytes() == (folder / "estimate.npy").read_bytes()


def test_a_measurement_of_a_known_truth(pipeline: Path, invoke: Invoke, tmp_path: Path):
    invoke(pipeline, "--out", "out", "--set", "data.count=1")
    camera = tmp_path / "out" / "camera"
    np.save(tmp_path / "truth.npy", Photographs(size=32)[0].numpy())
    invoke(pipeline, "--input", "truth.npy", "--measurement", camera / "measurement.npy", "--out", "given")
    found = record(tmp_path / "given" / "truth.npy")
    assert found["estimate"]["psnr"] == pytest.approx(record(camera)["estimate"]["psnr"])
    assert invoke(tmp_path / "given" / "truth.npy" / "run.json", "--out", "again").return_value == 0


def test_double_precision_is_kept(pipeline: Path, invoke: Invoke, tmp_path: Path):
    invoke(pipeline, "--out", "out", "--set", "dtype=float64", "--set", "data.count=1")
    assert read_array(tmp_path / "out" / "camera" / "estimate.npy").dtype == torch.float64


def test_json_and_quiet(pipeline: Path, invoke: Invoke, tmp_path: Path):
    printed = json.loads(invoke(pipeline, "--out", "out", "--json").output)
    assert [image["label"] for image in printed["images"]] == ["camera", "astronaut", "chelsea"]
    assert printed["images"][0] == record(tmp_path / "out" / "camera")
    assert invoke(pipeline, "--out", "out", "--quiet").output == ""


def test_operators_drawn_for_each_image_are_repeated_too(pipeline: Path, invoke: Invoke, tmp_path: Path):
    pytest.importorskip("preimage_inpainting")
    text = TEXT.replace('"identity"', '"inpainting-per-image"').replace('"gaussian"\nsigma = 0.1', '"none"')
    pipeline.write_text(text)
    invoke(pipeline, "--out", "out")
    y = {name: read_array(tmp_path / "out" / name / "measurement.npy") for name in ("camera", "astronaut")}
    assert not torch.equal(y["camera"] == 0, y["astronaut"] == 0)
    invoke(tmp_path / "out" / "astronaut" / "run.json", "--out", "again")
    assert torch.equal(read_array(tmp_path / "again" / "astronaut" / "measurement.npy"), y["astronaut"])


def test_labels_stay_below_the_output_folder(pipeline: Path, invoke: Invoke, tmp_path: Path):
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "a.png").rename(tmp_path / "tree" / "sub" / "a.png")
    pipeline.write_text(TEXT.replace('"photographs"\nsize = 32', '"folder"\npath = "tree"'))
    invoke(pipeline, "--out", "out")
    assert (tmp_path / "out" / "sub" / "a.png" / "run.json").is_file()


BAD: dict[str, tuple[list[str], type[PreimageError], str]] = {
    "no file": (["none.toml"], BadFile, "none.toml"),
    "bad key": (["denoise.toml", "--set", "solver.max_step=3"], BadParameter, "max_step"),
    "bad setting": (["denoise.toml", "--set", "solver"], BadParameter, "KEY=VALUE"),
    "no input": (["denoise.toml", "--input", "none.png"], BadFile, "there is no file"),
    "two bad inputs": (
        ["denoise.toml", "--input", "none.png", "--input", "denoise.toml"],
        SeveralProblems,
        "2 problems",
    ),
    "twice": (["denoise.toml", "--input", "a.png", "--input", "x/a.png"], BadParameter, "two files are called a.png"),
    "counts": (
        ["denoise.toml", "--input", "a.png", "--measurement", "y.npy", "--measurement", "z.npy"],
        BadParameter,
        "1 --input and 2 --measurement",
    ),
    "shape": (["denoise.toml", "--measurement", "small.npy"], ShapeMismatch, r"\(1, 32, 32\)"),
    "not numbers": (["denoise.toml", "--measurement", "denoise.toml"], BadFile, "known format"),
    "no data": (["nodata.toml"], BadParameter, r"no \[data\]"),
    "no record": (["small.json"], BadFile, "not the record of a run"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str, pipeline: Path, invoke: Invoke, tmp_path: Path):
    arguments, error, text = BAD[case]
    np.save(tmp_path / "small.npy", np.zeros((1, 4, 4)))
    (tmp_path / "small.json").write_text("{}")
    (tmp_path / "nodata.toml").write_text(
        "shape = [1, 8, 8]\n" + TEXT.replace('[data]\nname = "photographs"\nsize = 32\ncount = 3', "")
    )
    with pytest.raises(error, match=text):
        invoke(*arguments)
    assert not (tmp_path / "runs").exists()


def test_the_command_in_a_process_of_its_own(pipeline: Path, tmp_path: Path):
    command = [sys.executable, "-m", "preimage", "run", str(pipeline), "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "chelsea" in done.stdout
    bad = subprocess.run(
        [*command, "--set", "solver.name=x"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert bad.returncode == 2
    assert "error:" in bad.stderr
    assert "Traceback" not in bad.stderr


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_process_leaves_complete_results_and_is_taken_up_again(
    sent: signal.Signals, pipeline: Path, tmp_path: Path
):
    pipeline.write_text(TEXT.replace("size = 32\ncount = 3", "size = 64"))
    command = [sys.executable, "-m", "preimage", "run", str(pipeline), "--out", "out", "--quiet"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "out" / "astronaut").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(sent)
        errors = process.communicate()[1]
    assert process.returncode == (2 if sent == signal.SIGINT else -signal.SIGKILL), errors
    finished = [p for p in (tmp_path / "out").iterdir() if not p.name.startswith(".")]
    assert 2 <= len(finished) < 16
    assert all({p.name for p in folder.iterdir()} == NAMES for folder in finished)
    again = subprocess.run([*command[:-1]], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"resumed: {len(finished)} of 16 were done" in again.stdout


def test_the_bar_appears_on_a_terminal_when_it_takes_long(tmp_path: Path):
    from preimage_data._progress import StepBar

    pipeline = Pipeline.from_dict(tomllib.loads(TEXT))
    assert pipeline.data is not None
    y = pipeline.simulate(pipeline.data[0][None])
    shown: dict[tuple[bool, float], str] = {}
    for terminal, delay in ((True, 0.0), (True, 60.0), (False, 0.0)):
        with (tmp_path / "screen").open("w+", encoding="utf-8") as screen:
            console = Console(file=screen, force_terminal=terminal, width=100)
            with StepBar(console, "camera", delay=delay, interval=0.0) as bar:
                pipeline.reconstruct(y, observers=(bar,))
            screen.seek(0)
            shown[terminal, delay] = screen.read()
    assert "camera" in shown[True, 0.0]
    assert "objective" in shown[True, 0.0]
    assert shown[True, 60.0] == shown[False, 0.0] == ""
