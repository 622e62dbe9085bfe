"""Recipes: everything that is wrong is said at once, with what to do."""

import pickle
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tomli_w
import torch
from PIL import Image
from preimage_train import parse, read
from preimage_train.recipe import SHIPPED, find, read_tables
from preimage_train.settings import Budget, Schedule

from preimage._cli import run as command
from preimage.errors import BadFile, BadParameter, Incompatible, SeveralProblems
from preimage.weights import load_into, load_weights, save_weights


def as_if_trained_first(start):
    """Weights, untrained, where a recipe looks for those of the one before it; and for that one likewise."""
    first = Path(start).parent.name
    if start != f"trained/{first}/weights.safetensors":
        return
    as_if_trained_first(read_tables(find(first)).get("start", ""))
    earlier = read(find(first))
    facts = {"name": earlier.export.name}
    tensors = earlier.network().state_dict()
    save_weights(Path(start), tensors, component=earlier.component, config=earlier.arguments(), facts=facts)


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.toml")))
def test_every_recipe_that_ships_is_sound(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where nothing was trained yet
    start = read_tables(find(name)).get("start", "")
    if start.startswith("trained/"):
        with pytest.raises(BadFile, match=f"preimage train {Path(start).parent.name}"):
            read(find(name))
        as_if_trained_first(start)
    recipe = read(find(name))
    if start:
        load_into(recipe.network(), load_weights(start, recipe.component))
    assert recipe.tables["title"]
    assert recipe.export.name
    assert recipe.export.terms


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sede": 1}, r"no top-level key 'sede'[\s\S]*did you mean 'seed'"),
        ({"seed": "one"}, "seed is 'one'"),
        ({"precision": "float8"}, "precision is 'float8'"),
        ({"model": {"name": "solver/tv"}}, "'tv'"),
        ({"model": {"name": "solver/fista"}}, "has no network to train"),
        ({"model": {"name": "solver/unet", "depth": 3}}, "does not take 'depth'"),
        ({"model": {"name": "solver/unet", "scales": "five"}}, "scales is 'five'"),
        ({"model": {"name": "solver/unet", "scales": 0}}, "scales is 0"),
        ({"model": None}, "no \\[model\\]"),
        ({"data": {"name": "photograph"}}, "photographs"),
        ({"data": {"name": "photographs", "sizes": 64}}, "does not take 'sizes'"),
        ({"objective": {"name": "supervised"}}, "supervised"),
        ({"objective": {"name": "likelihood"}}, "have no effect"),
        ({"noise": None}, "no \\[noise\\]"),
        ({"optimiser": {"learning_rate": -1.0}}, "learning_rate is -1"),
        ({"optimiser": {"learning_rate": True}}, "learning_rate is True"),
        ({"optimiser": {"average": 1.0}}, "average is 1"),
        ({"optimiser": {"betas": [0.9, 1.5]}}, "betas"),
        ({"schedule": {"warm_up": 1.5}}, "warm_up is 1.5"),
        ({"schedule": {"restarts": [0.6, 0.3]}}, "restarts is \\[0.6, 0.3\\]"),
        ({"budget": {"steps": 5, "minutes": 1.0}}, "exactly one of"),
        ({"budget": {}}, "exactly one of"),
        ({"budget": {"steps": -5}}, "budget"),
        ({"batches": {"size": 0}}, "size is 0"),
        ({"validation": {"every": 0}}, "every is 0"),
        ({"export": {"dtype": "int8"}}, "dtype is 'int8'"),
        ({"batches": 8}, "batches is 8"),
    ],
)
def test_a_recipe_with_a_mistake(tables, change, complaint):
    for key, value in change.items():
        if value is None:
            del tables[key]
        else:
            tables[key] = value
    with pytest.raises((BadParameter, Incompatible, LookupError, SeveralProblems)) as caught:
        parse(tables)
    assert re.search(complaint, str(caught.value))


def test_two_mistakes_are_reported_at_once(tables):
    tables["sede"] = 1
    tables["optimiser"]["learning_rate"] = "fast"
    with pytest.raises(SeveralProblems) as caught:
        parse(tables)
    assert "sede" in str(caught.value)
    assert "learning_rate" in str(caught.value)


@pytest.fixture
def run(capsys):
    """The command on a recipe in a folder: its exit code, and what it said."""

    def run(tables, folder, *more):
        recipe = folder / "recipe.toml"
        recipe.write_text(tomli_w.dumps(tables))
        code = command(["train", str(recipe), "--out", str(folder / "run"), *more])
        return Result(code, " ".join(capsys.readouterr().err.split()))

    return run


class Result(NamedTuple):
    exit_code: int
    stderr: str


def photographs(folder, count=4, size=40):
    folder.mkdir()
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 255, (size, size), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return {"name": "folder", "path": str(folder), "colour": "grey"}


def test_a_corrupt_image_is_refused_or_skipped_and_named(tables, tmp_path, run):
    tables["data"] = photographs(tmp_path / "images") | {"size": 40}
    tables["budget"] = {"steps": 2}
    whole = (tmp_path / "images" / "2.png").read_bytes()
    (tmp_path / "images" / "2.png").write_bytes(whole[: len(whole) // 2])
    refused = run(tables, tmp_path)
    assert refused.exit_code == 2
    assert "2.png" in refused.stderr
    assert "skip_unreadable" in refused.stderr
    tables["batches"]["skip_unreadable"] = True
    skipped = run(tables, tmp_path, "--overwrite")
    assert skipped.exit_code == 0, skipped.stderr
    assert re.search(r"skipped 1 images[\s\S]*2\.png", skipped.stderr)


def test_an_empty_folder_is_refused(tables, tmp_path, run):
    (tmp_path / "images").mkdir()
    tables["data"] = {"name": "folder", "path": str(tmp_path / "images")}
    result = run(tables, tmp_path)
    assert result.exit_code == 2
    assert "no images" in result.stderr


def test_images_smaller_than_the_crop_are_refused(tables, tmp_path, run):
    tables["batches"]["crop"] = 100
    result = run(tables, tmp_path)
    assert result.exit_code == 2
    assert "64 x 64 pixels, the crop 100 x 100" in result.stderr


def test_images_of_other_channels_than_the_network_are_refused(tables, tmp_path, run):
    tables["data"]["colour"] = "colour"
    result = run(tables, tmp_path)
    assert result.exit_code == 2
    assert "does not take these images of shape (3, 24, 24)" in result.stderr


def test_a_network_without_density_cannot_learn_a_likelihood(tables, tmp_path, run):
    del tables["operator"], tables["noise"]
    tables["objective"] = {"name": "likelihood"}
    result = run(tables, tmp_path)
    assert result.exit_code == 2
    assert "no density" in result.stderr


def test_a_batch_that_cannot_be_divided_is_refused(tables, tmp_path, run):
    result = run(tables, tmp_path, "--devices", "banana")
    assert result.exit_code == 2
    assert "devices" in result.stderr


def test_without_validation_the_last_weights_are_exported_and_it_says_so(tables, tmp_path, run):
    del tables["validation"]
    tables["budget"] = {"steps": 3}
    result = run(tables, tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "no [validation]" in result.stderr
    assert (tmp_path / "run" / "weights.safetensors").exists()


def test_weights_to_start_from_must_be_of_this_network(tables, tmp_path, run):
    other = tmp_path / "other.safetensors"
    save_weights(other, {"x": torch.ones(2)}, component="solver/diffnet", config={}, facts={})
    tables["start"] = str(other)
    result = run(tables, tmp_path)
    assert result.exit_code == 2
    assert "does not fit" in result.stderr


def test_a_pickle_is_never_loaded(tables, tmp_path, run):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Trap()))
    tables["start"] = str(tmp_path / "weights.pt")
    result = run(tables, tmp_path)
    assert result.exit_code == 2
    assert "pickles can run any code" in result.stderr
    assert not (tmp_path / "sprung").exists()


def test_an_unknown_recipe_names_those_that_ship():
    with pytest.raises(BadFile, match="unet-perona-malik"):
        find("unet-perona-malick")


def test_the_list_of_recipes(capsys):
    assert command(["train"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {
        p.stem for p in SHIPPED.glob("*.toml")
    }


def test_schedules():
    cycle = Schedule(warm_up=0.1, final=0.0)
    assert cycle.factor(0.05) == pytest.approx(0.5)
    assert cycle.factor(0.1) == pytest.approx(1.0)
    assert cycle.factor(0.55) == pytest.approx(0.5)
    assert cycle.factor(1.0) == pytest.approx(0.0)
    assert Schedule(name="cosine", final=0.2).factor(1.0) == pytest.approx(0.2)
    assert Schedule(name="cosine").factor(0.0) == 1.0
    assert Schedule(name="constant").factor(0.7) == 1.0
    again = Schedule(warm_up=0.1, final=0.0, restarts=(0.4,))
    assert again.factor(0.04) == pytest.approx(1.0)
    assert again.factor(0.3999) == pytest.approx(0.0, abs=1e-5)
    assert again.factor(0.4) == 0.0
    assert again.factor(0.43) == pytest.approx(0.5)
    assert again.factor(1.0) == pytest.approx(0.0)


def test_budgets():
    assert Budget(epochs=2.5).limit(images=100, batch=8) == 32
    assert Budget(steps=7).limit(images=100, batch=8) == 7
    assert Budget(minutes=2).limit(images=1, batch=1) is None
    assert Budget(minutes=2).progress(0, 60, images=1, batch=1) == 0.5


def test_random_search_keeps_its_trials_and_writes_the_best(tables, tmp_path, run):
    tables["budget"] = {"steps": 10}
    tables["search"] = {
        "optimiser.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "model.features": {"choices": [2, 4]},
    }
    first = run(tables, tmp_path, "--search", "2")
    assert first.exit_code == 0, first.stderr
    assert first.stderr.count("trial ") == 2
    again = run(tables, tmp_path, "--search", "3")
    assert again.exit_code == 0, again.stderr
    assert len(list((tmp_path / "run" / "trials").iterdir())) == 3
    best = read(tmp_path / "run" / "best.toml")
    assert best.config["features"] in (2, 4)
    del tables["search"]
    assert "no [search]" in run(tables, tmp_path, "--search", "2").stderr


def test_a_search_keeps_to_its_minutes_and_goes_on_within_a_trial(tables, tmp_path, run):
    tables["budget"] = {"steps": 40}
    tables["validation"]["every"] = 20
    tables["search"] = {"optimiser.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    stopped = run(tables, tmp_path, "--search", "2", "--minutes", "1e-5")
    assert stopped.exit_code == 0
    assert "stopped; the same command goes on" in stopped.stderr
    assert "trial 1" not in stopped.stderr
    (begun,) = (tmp_path / "run" / "trials").iterdir()
    assert not (begun / "weights.safetensors").exists()
    assert run(tables, tmp_path, "--search", "2", "--minutes", "10").exit_code == 0
    assert (begun / "weights.safetensors").exists()
    assert len(list((tmp_path / "run" / "trials").iterdir())) == 2


def test_a_search_uses_the_devices_that_it_is_given(tables, tmp_path, run):
    tables["search"] = {"optimiser.learning_rate": {"low": 1e-4, "high": 1e-2}}
    missing = run(tables, tmp_path, "--search", "1", "--accelerator", "nothing")
    assert missing.exit_code == 2
    assert "devices nothing" in missing.stderr
    several = run(tables, tmp_path, "--search", "1", "--accelerator", "cpu", "--devices", "2")
    assert several.exit_code == 2
    assert "a search on 2 processes" in several.stderr
    assert run(tables, tmp_path, "--search", "1", "--overwrite").exit_code == 2
    assert not (tmp_path / "run").exists()


def test_training_on_its_own_validation_images_is_refused(tables, tmp_path, run):
    data = photographs(tmp_path / "images", 4) | {"size": 40}
    judged = photographs(tmp_path / "judged", 1) | {"size": 40}
    Image.open(tmp_path / "judged" / "0.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
        tmp_path / "judged" / "0.png"
    )
    tables |= {"data": data, "budget": {"steps": 1}}
    tables["validation"]["data"] = judged
    refused = run(tables, tmp_path)
    assert refused.exit_code == 2
    assert "copies of validation images: 0.png (0.png)" in refused.stderr
    tables["data"]["exclude"] = ["0.png"]
    assert run(tables, tmp_path, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"operator": {"name": "gaussian-blurr"}}, "gaussian-blur"),
        ({"operator": {"name": "gaussian-blur", "sigmaa": 1.0}}, "sigmaa"),
        ({"noise": {"name": "gaussian", "sigma": "much"}}, "sigma is 'much'"),
        ({"start": "nothing-of-this-name"}, "nothing-of-this-name"),
        ({"validation": 3}, "validation is 3"),
        ({"budget": {"epochs": float("inf")}}, "budget"),
        ({"budget": {"minutes": float("nan")}}, "budget"),
        ({"precision": "64-true"}, "precision"),
    ],
)
def test_more_mistakes_are_found_before_any_image_is_read(tables, change, complaint):
    with pytest.raises((BadParameter, BadFile, LookupError, SeveralProblems), match=complaint):
        parse(tables | change)


def test_a_run_that_was_refused_does_not_stand_in_the_way_of_the_next(tables, tmp_path, run):
    tables["batches"]["crop"] = 100
    assert run(tables, tmp_path).exit_code == 2
    tables["batches"]["crop"] = 24
    tables["budget"] = {"steps": 2}
    assert run(tables, tmp_path).exit_code == 0


def test_a_network_that_cannot_be_trained_on_such_batches_is_refused(tables, tmp_path, run):
    tables["model"] = {"name": "solver/unet", "features": 2, "scales": 3}
    tables["batches"] = {"size": 1, "crop": 4}
    result = run(tables, tmp_path)
    assert result.exit_code == 2
    assert "does not take these images" in result.stderr


def test_resume_needs_a_recipe(capsys):
    assert command(["train", "--resume"]) == 2
    assert "no RECIPE" in capsys.readouterr().err
