"""Training as a whole: the loss falls, weights come back, interruptions leave no trace."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import preimage_data
import pytest
import tomli_w
import torch
from preimage_train import Slice, checkpoint as checkpoints, parse, prepare_folder, run
from preimage_train.objective import Objective
from preimage_train.supervised import Reconstruction
from rich.console import Console
from safetensors.torch import load_file

from preimage import Key, Pipeline, load
from preimage.errors import BadFile, Diverged, Incompatible
from preimage.weights import load_weights, save_weights

QUIET = Console(quiet=True)


def train(tables, folder, *, resume=False, **limits):
    recipe = parse(tables)
    prepare_folder(recipe, folder, resume=resume, overwrite=False)
    return run(recipe, folder, console=QUIET, resume=resume, limits=Slice(**limits))


def same(a: Path, b: Path) -> bool:
    first, second = load_file(a / "weights.safetensors"), load_file(b / "weights.safetensors")
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def column(folder: Path, table: str, name: str) -> list[float]:
    with (folder / table).open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


MODELS = {
    "convresnet": {"name": "solver/convresnet", "blocks": 2, "channels": 4, "hidden": 8},
    "unet": {"name": "solver/unet", "features": 4, "scales": 2},
    "diffnet": {"name": "solver/diffnet", "steps": 2, "features": 8},
}


@pytest.mark.parametrize("objective", ["reconstruction", "approximation"])
@pytest.mark.parametrize("model", MODELS)
def test_the_loss_falls_and_the_weights_come_back(tables, tmp_path, model, objective):
    tables |= {"model": MODELS[model], "objective": {"name": objective}, "budget": {"steps": 120}}
    outcome = train(tables, tmp_path / "run")
    losses = column(tmp_path / "run", "steps.csv", "loss network")
    assert losses[-1] < 0.9 * losses[0]
    assert outcome.finished

    weights = load_weights(str(tmp_path / "run" / "weights.safetensors"), tables["model"]["name"])
    assert weights.facts["forward_model"]["operator"][0]["name"] == "gaussian-blur"
    assert weights.facts["scores"]["psnr"] == pytest.approx(outcome.position.best, abs=1e-4)  # dB; another memory order
    if objective == "reconstruction":
        solver = load("solver", model)(weights=str(tmp_path / "run" / "weights.safetensors"))
        pipeline = pipeline_of(tables, tmp_path / "run" / "weights.safetensors")
        y = pipeline.simulate(torch.stack([pipeline.data[0]]))
        network = outcome.network.eval()
        with torch.no_grad():
            assert torch.allclose(pipeline.reconstruct(y).x, network(y), atol=1e-6)
        assert type(pipeline.solver) is type(solver)


def pipeline_of(tables, weights, **changes):
    return Pipeline.from_dict(
        {
            "data": tables["validation"]["data"],
            "operator": tables["operator"],
            "noise": tables["noise"],
            "solver": {"name": tables["model"]["name"].removeprefix("solver/"), "weights": str(weights)},
        }
        | changes
    )


def test_adversaries_learn(tables, tmp_path):
    del tables["operator"], tables["noise"]
    tables |= {
        "model": {"name": "prior/dcgan", "features": 4, "latent": 8, "image_channels": 1},
        "objective": {"name": "adversarial", "search": 5},
        "batches": {"size": 4},
        "budget": {"steps": 40},
    }
    tables["validation"]["data"]["size"] = 64
    train(tables, tmp_path / "run")
    discriminator = column(tmp_path / "run", "steps.csv", "loss discriminator")
    assert discriminator[-1] < discriminator[0]
    prior = load("prior", "dcgan")((1, 64, 64), weights=str(tmp_path / "run" / "weights.safetensors"))
    assert prior.decode(torch.zeros(2, 8)).shape == (2, 1, 64, 64)


def test_a_run_leaves_what_people_look_at(tables, tmp_path):
    train(tables, tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    wanted = {"recipe.toml", "steps.csv", "validation.csv", "losses.png", "pictures.png", "tensorboard", "report.json"}
    assert wanted <= names
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["trained"]["steps"] == 30
    assert report["data"]["images"] == 3
    assert column(tmp_path / "run", "validation.csv", "step") == [10, 20, 30]


@pytest.mark.parametrize("stops", [[7], [1, 2, 13], [29]])
def test_stopped_and_resumed_gives_the_very_same_weights(tables, tmp_path, stops):
    train(tables, tmp_path / "whole")
    for number, stop in enumerate(stops):
        steps = iter(range(1, 100))
        before = stops[number - 1] if number else 0
        outcome = train(
            tables,
            tmp_path / "parts",
            resume=number > 0,
            stop=lambda: next(steps) >= stop - before,  # noqa: B023
        )
        assert not outcome.finished
        assert outcome.position.step == stop
    assert train(tables, tmp_path / "parts", resume=True).finished
    assert same(tmp_path / "whole", tmp_path / "parts")
    assert column(tmp_path / "whole", "steps.csv", "step") == column(tmp_path / "parts", "steps.csv", "step")


def test_nothing_depends_on_the_global_seed_or_changes_it(tables, tmp_path):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    train(tables, tmp_path / "a")
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    train(tables, tmp_path / "b")
    assert same(tmp_path / "a", tmp_path / "b")


def command(folder: Path, recipe: Path, *more: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "preimage", "train", str(recipe), "--out", str(folder), "--threads", "1"]
    return subprocess.Popen([*words, "--checkpoint-seconds", "0.05", *more], stderr=subprocess.PIPE, text=True)


def steps_of(folder: Path) -> int:
    try:
        return len((folder / "steps.csv").read_text().splitlines())
    except FileNotFoundError:
        return 0


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, pytest.param(5, marks=pytest.mark.long)])
def test_killed_at_random_moments(tables, tmp_path, kills):
    tables |= {"budget": {"steps": 80 * kills}, "validation": tables["validation"] | {"every": 50}}
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(tomli_w.dumps(tables))
    train(tables, tmp_path / "whole")
    draw, killed = random.Random(0), 0
    for attempt in range(kills):
        process = command(tmp_path / "killed", recipe, *(["--resume"] if attempt else []))
        before, deadline = steps_of(tmp_path / "killed"), time.monotonic() + 120
        wanted = 1 + draw.randrange(3)  # rows of 20 steps
        while (
            steps_of(tmp_path / "killed") < before + wanted and process.poll() is None and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        time.sleep(draw.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        process.stderr.close()
    assert killed == kills
    assert train(tables, tmp_path / "killed", resume=True).finished
    assert same(tmp_path / "whole", tmp_path / "killed")


def test_sigterm_saves_and_exits_cleanly(tables, tmp_path):
    tables["budget"] = {"steps": 100_000}
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(tomli_w.dumps(tables))
    process = command(tmp_path / "run", recipe)
    while steps_of(tmp_path / "run") < 2 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert "--resume goes on" in process.stderr.read()
    process.stderr.close()
    found = checkpoints.read(tmp_path / "run", parse(tables).digest)
    assert found is not None
    assert found[0].step >= 20


@pytest.mark.parametrize("damage", ["truncated", "changed", "foreign", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tables, tmp_path, capsys, damage):
    train(tables, tmp_path / "whole")
    train(tables, tmp_path / "run", stop=iter([False] * 12 + [True]).__next__, checkpoint_steps=5)
    newest = tmp_path / "run" / checkpoints.NEWEST
    data = newest.read_bytes()
    if damage == "foreign":
        save_weights(newest, {"x": torch.ones(1)}, component="prior/tv", config={}, facts={})
    else:
        changed = data[:-8] + bytes(8)
        newest.write_bytes({"truncated": data[: len(data) // 2], "changed": changed, "empty": b""}[damage])
    damaged = newest.read_bytes()
    recipe = parse(tables)
    position, _, wrong = checkpoints.read(tmp_path / "run", recipe.digest)
    assert position.step == 10
    assert "damaged" in wrong[0]
    assert newest.read_bytes() == damaged
    train(tables, tmp_path / "run", resume=True)
    assert same(tmp_path / "whole", tmp_path / "run")


def test_only_damaged_checkpoints_are_an_error_and_stay(tables, tmp_path):
    train(tables, tmp_path / "run", stop=iter([False] * 12 + [True]).__next__, checkpoint_steps=5)
    for name in (checkpoints.NEWEST, checkpoints.BEFORE):
        (tmp_path / "run" / name).write_bytes(b"junk")
    with pytest.raises(BadFile, match="damaged"):
        train(tables, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / checkpoints.NEWEST).read_bytes() == b"junk"


def test_another_recipe_s_checkpoint_is_refused(tables, tmp_path):
    train(tables, tmp_path / "run", stop=lambda: True)
    tables["optimiser"]["learning_rate"] = 1e-3
    with pytest.raises(Incompatible, match="another recipe"):
        train(tables, tmp_path / "run", resume=True)


@pytest.mark.parametrize("what", ["training", "validation"])
def test_other_images_than_the_run_was_begun_with_are_refused(tables, tmp_path, what):
    folder = {name: tmp_path / name for name in ("training", "validation")}
    for number, path in enumerate(folder.values()):
        path.mkdir()
        for index in range(2):
            pixels = Key(10 * number + index).uniform((1, 32, 32))
            preimage_data.write_image(path / f"{index}.png", pixels)
    tables["data"], tables["validation"]["data"] = (
        {"name": "folder", "path": str(path), "colour": "grey", "size": 32} for path in folder.values()
    )
    train(tables, tmp_path / "run", stop=lambda: True)
    kept = (tmp_path / "run" / checkpoints.NEWEST).read_bytes()
    changed = folder[what] / "1.png"
    image = changed.read_bytes()
    preimage_data.write_image(changed, Key(99).uniform((1, 32, 32)))
    with pytest.raises(Incompatible, match=f"the {what} images are not those that the run was begun with"):
        train(tables, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / checkpoints.NEWEST).read_bytes() == kept
    changed.write_bytes(image)
    assert train(tables, tmp_path / "run", resume=True).finished


def test_runs_are_not_mixed_up(tables, tmp_path):
    with pytest.raises(BadFile, match="no run"):
        train(tables, tmp_path / "run", resume=True)
    train(tables, tmp_path / "run", stop=lambda: True)
    with pytest.raises(BadFile, match="there is a run"):
        train(tables, tmp_path / "run")


class Treacherous(Reconstruction):
    """Its loss is NaN at some steps, as long as the learning rate is above a limit."""

    def __init__(self, *, steps, times):
        super().__init__()
        self.steps, self.left = steps, times

    def prepare(self, network, images, labels, key, forward):
        start, wanted = super().prepare(network, images, labels, key, forward)
        if int(labels[0].split("/")[0]) in self.steps and self.left > 0:
            self.left -= 1
            wanted = wanted * float("nan")
        return start, wanted


@pytest.mark.parametrize("times", [1, 3])
def test_a_loss_that_is_not_finite_rolls_back_and_halves_the_rate(tables, tmp_path, times, monkeypatch):
    recipe = parse(tables)
    object.__setattr__(recipe, "objective", Treacherous(steps=[13], times=times))
    prepare_folder(recipe, tmp_path / "run", resume=False, overwrite=False)
    console = Console(record=True, width=200, file=open(os.devnull, "w"))  # noqa: SIM115
    outcome = run(recipe, tmp_path / "run", console=console, limits=Slice(checkpoint_steps=5))
    console.file.close()
    assert outcome.finished
    assert outcome.position.setbacks == [13] * times
    assert outcome.position.rate == 0.5**times
    assert "back to step 10" in console.export_text()


def test_it_gives_up_after_three_setbacks_and_keeps_the_checkpoint(tables, tmp_path):
    recipe = parse(tables)
    object.__setattr__(recipe, "objective", Treacherous(steps=[13], times=100))
    prepare_folder(recipe, tmp_path / "run", resume=False, overwrite=False)
    with pytest.raises(Diverged, match=r"\[13, 13, 13, 13\]"):
        run(recipe, tmp_path / "run", console=QUIET, limits=Slice(checkpoint_steps=5))
    found = checkpoints.read(tmp_path / "run", recipe.digest)
    assert found is not None
    assert found[0].step == 10


def test_patience_ends_training(tables, tmp_path):
    tables["optimiser"] |= {"learning_rate": 1e-12}
    tables["optimiser"].pop("average")
    tables["validation"] |= {"every": 2, "patience": 3}
    tables["budget"] = {"steps": 1000}
    outcome = train(tables, tmp_path / "run")
    assert outcome.finished
    assert outcome.position.step < 40


def test_weights_for_another_operator_or_noise_are_refused_unless_allowed(tables, tmp_path):
    train(tables, tmp_path / "run")
    weights = tmp_path / "run" / "weights.safetensors"
    pipeline_of(tables, weights)
    pipeline_of(tables, weights, data=tables["validation"]["data"] | {"size": 48})
    for change, found in (
        ({"operator": {"name": "perona-malik"}}, "another operator"),
        ({"operator": {"name": "gaussian-blur", "sigma": 1.0}}, "another operator"),
        ({"noise": {"name": "gaussian", "sigma": 0.06}}, "another noise"),
        ({"noise": {"name": "poisson", "peak": 400.0}}, "another noise"),
    ):
        with pytest.raises(Incompatible, match=found):
            pipeline_of(tables, weights, **change)
        solver = {"name": "diffnet", "weights": str(weights), "allow_mismatch": True}
        allowed = pipeline_of(tables, weights, **change, solver=solver)
        y = allowed.simulate(torch.stack([allowed.data[0]]))
        assert found in allowed.reconstruct(y).reasons[0]


def test_half_precision_is_measured(tables, tmp_path):
    tables["export"] = {"dtype": "float16", "name": "half", "terms": "public domain"}
    train(tables, tmp_path / "run")
    header = load_weights(str(tmp_path / "run" / "weights.safetensors"), "solver/diffnet")
    assert {tensor.dtype for tensor in header.tensors.values()} == {torch.float16}
    assert header.facts["storage"]["scores_before"]["psnr"] == pytest.approx(header.facts["scores"]["psnr"], abs=0.1)
    assert header.facts["data"]["terms"] == "public domain"
    pipeline_of(tables, tmp_path / "run" / "weights.safetensors")


def test_a_full_disk_loses_nothing(tables, tmp_path, monkeypatch):
    train(tables, tmp_path / "run", stop=iter([False] * 12 + [True]).__next__, checkpoint_steps=5)
    kept = {name: (tmp_path / "run" / name).read_bytes() for name in (checkpoints.NEWEST, checkpoints.BEFORE)}
    real = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preimage_data.atomic.os, "fsync", full)
    with pytest.raises(BadFile, match="No space left"):
        train(tables, tmp_path / "run", resume=True, checkpoint_steps=5)
    monkeypatch.setattr(preimage_data.atomic.os, "fsync", real)
    assert kept == {name: (tmp_path / "run" / name).read_bytes() for name in kept}
    assert train(tables, tmp_path / "run", resume=True).finished


def test_objectives_are_named_in_the_registry():
    for name in ("reconstruction", "approximation", "likelihood", "adversarial"):
        assert issubclass(load("trainer", name), Objective)
