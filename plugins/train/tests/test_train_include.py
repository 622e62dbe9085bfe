"""Recipes that include another one: what is inherited, what is replaced, and what is refused."""

import pytest
import tomli_w
from preimage_train import read
from preimage_train.include import merged
from preimage_train.recipe import SHIPPED, read_tables, title

from preimage._cli import run as command
from preimage.assembly import read_toml
from preimage.errors import BadFile, BadParameter


def write(path, tables):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tomli_w.dumps(tables))
    return path


def test_what_is_not_said_is_inherited(tables, tmp_path):
    write(tmp_path / "first.toml", tables)
    child = {"include": "first.toml", "title": "another", "batches": {"size": 2}, "optimiser": {"name": "sgd"}}
    recipe = read(write(tmp_path / "child.toml", child))
    assert recipe.tables["title"] == "another"
    assert (recipe.batches.size, recipe.batches.crop) == (2, 24)
    assert (recipe.optimiser.name, recipe.optimiser.average) == ("sgd", 0.9)  # a setting called name is no component
    assert recipe.component == "solver/diffnet"
    assert "include" not in recipe.tables


def test_it_is_the_recipe_that_says_all_itself(tables, tmp_path):
    write(tmp_path / "first.toml", tables)
    child = write(tmp_path / "child.toml", {"include": "first.toml", "noise": {"sigma": 0.1}})
    tables["noise"]["sigma"] = 0.1
    assert read(child).digest == read(write(tmp_path / "whole.toml", tables)).digest


def test_another_component_takes_no_arguments_from_the_one_before():
    first = {"model": {"name": "solver/diffnet", "steps": 2}, "validation": {"data": {"name": "folder", "path": "a"}}}
    last = {"model": {"name": "solver/unet"}, "validation": {"data": {"name": "photographs"}}}
    assert merged(first, last) == {"model": {"name": "solver/unet"}, "validation": {"data": {"name": "photographs"}}}
    kept = merged(first, {"model": {"features": 4}})["model"]
    assert kept == {"name": "solver/diffnet", "steps": 2, "features": 4}
    assert merged(first, {"model": [1]})["model"] == [1]
    assert first["model"] == {"name": "solver/diffnet", "steps": 2}


def test_paths_are_relative_to_the_file_that_includes(tables, tmp_path, monkeypatch):
    write(tmp_path / "base" / "first.toml", tables)
    write(tmp_path / "base" / "second.toml", {"include": "first.toml", "seed": 5})
    child = write(tmp_path / "own" / "child.toml", {"include": "../base/second.toml", "budget": {"steps": 7}})
    monkeypatch.chdir(tmp_path / "own")
    recipe = read(child)
    assert (recipe.seed, recipe.budget.steps) == (5, 7)


def test_a_recipe_that_ships_can_be_included_by_name(tmp_path):
    child = write(tmp_path / "mine.toml", {"include": "unet-gaussian-blur", "title": "mine", "budget": {"steps": 9}})
    assert read(child).component == "solver/unet"
    assert title(child) == "mine"
    changed = read_tables(child) | {"title": "", "budget": {}}
    assert changed == read_tables(SHIPPED / "unet-gaussian-blur.toml") | {"title": "", "budget": {}}


@pytest.mark.parametrize(
    ("include", "complaint"),
    [
        ("unet-gaussian-blurr", r"child\.toml: include: there is no recipe 'unet-gaussian-blurr'[\s\S]*did you mean"),
        ("nowhere.toml", r"child\.toml: include: there is no file .*nowhere\.toml"),
        ("child.toml", r"goes in a circle: child\.toml -> child\.toml"),
        ("other.toml", r"goes in a circle: child\.toml -> other\.toml -> child\.toml"),
        ("broken.toml", r"child\.toml: include: .*broken\.toml is not valid TOML"),
    ],
)
def test_parents_that_cannot_be(tmp_path, include, complaint):
    write(tmp_path / "other.toml", {"include": "./child.toml"})
    (tmp_path / "broken.toml").write_text("a = = 1")
    with pytest.raises(BadFile, match=complaint):
        read(write(tmp_path / "child.toml", {"include": include}))


@pytest.mark.parametrize("include", [3, "", ["a", "b"]])
def test_include_is_one_name(tmp_path, include):
    with pytest.raises(BadParameter, match="include is"):
        read(write(tmp_path / "child.toml", {"include": include}))


def test_the_folder_of_a_run_keeps_the_whole_recipe(tables, tmp_path, capsys):
    write(tmp_path / "first.toml", tables)
    child = write(tmp_path / "child.toml", {"include": "first.toml", "budget": {"steps": 1}})
    assert command(["train", str(child), "--out", str(tmp_path / "run"), "--quiet"]) == 0, capsys.readouterr().err
    assert read_toml(tmp_path / "run" / "recipe.toml") == tables | {"budget": {"steps": 1}}
