"""Random search over hyper-parameters: short runs of a recipe, kept in the same kind of store as `preimage tune`."""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from preimage_tune import Score, Study, parse_space, search
from rich.console import Console

from preimage.assembly import with_overrides
from preimage.errors import BadParameter

from .checkpoint import NEWEST
from .devices import Devices
from .loop import Slice
from .recipe import Recipe, parse
from .train import prepare_folder, run


class _Stopped(Exception):
    """The search is to go on another time, where it is now."""


def search_recipe(
    recipe: Recipe,
    folder: Path,
    trials: int,
    console: Console,
    limits: Slice = Slice(),
    devices: Devices = Devices(),
) -> int:
    """Train so many draws from the recipe's [search] and print the best; their runs are in FOLDER/trials.

    [search] names values of the recipe, as `preimage tune` does parameters, and may replace some for all trials:

        [search]
        "optimiser.learning_rate" = { low = 1e-4, high = 1e-2, log = true }
        "model.blocks" = { choices = [4, 8, 12] }

    Every trial is independent and uniform (Arndt & Nickel 2024, section 4.1: random search). The score is the best of
    its validations. Killed and run again, the search goes on, within a trial too. Writes FOLDER/best.toml, the recipe
    with the best values. Returns 1 if no trial has a score, 0 also if it was stopped, by a signal or by the limits.

    - `limits`: `seconds` are those of the whole search. `devices`: of each trial; one process at a time.

    Raises `BadParameter` if there is no [search], no validation data, or the devices are several.
    """
    if (processes := devices.fabric(recipe.precision).world_size) > 1:
        found = f"a search on {processes} processes"
        raise BadParameter(found, "one device", "write --devices 1, and search in several folders at once")
    if not recipe.validation_data:
        found = f"{recipe.where}: there is no validation.data, so trials have no score"
        raise BadParameter(found, "[validation] with data", "add it")
    if not recipe.tables.get("search"):
        expected = '[search] with "optimiser.learning_rate" = { low = 1e-4, high = 1e-2, log = true }, say'
        raise BadParameter(f"{recipe.where}: there is no [search]", expected, "add it")
    space = parse_space(recipe.tables["search"], f"{recipe.where}: [search]")
    base = {key: value for key, value in recipe.tables.items() if key != "search"}
    end = None if limits.seconds is None else time.monotonic() + limits.seconds

    def objective(values: Mapping[str, Any]) -> Score:
        drawn = parse(with_overrides(base, values, recipe.where), recipe.where)
        left = None if end is None else end - time.monotonic()  # used up: one step, so that every call gets on
        place = folder / "trials" / drawn.digest[:12]
        resume = (place / NEWEST).exists()
        prepare_folder(drawn, place, resume=resume, overwrite=False)
        rest = replace(limits, seconds=left)
        outcome = run(drawn, place, console=Console(quiet=True), resume=resume, limits=rest, devices=devices)
        if not outcome.finished:
            raise _Stopped
        if outcome.position.best is None:
            raise BadParameter("the trial ended without a validation", "validation.every below the budget")
        return Score(outcome.position.best, {"steps": outcome.position.step, "folder": str(place)})

    def told(study: Study) -> None:
        if study.trials:
            last = study.trials[-1]
            score = "failed" if last.score is None else f"{last.score:.3f}"
            values = ", ".join(f"{name} = {value}" for name, value in last.parameters.items())
            console.print(f"trial {last.number + 1} of {trials}: {score}: {values}", highlight=False, soft_wrap=True)

    folder.mkdir(parents=True, exist_ok=True)
    try:
        study = search(
            objective, space, trials=trials, store=folder / "studies.db", name="train", sampler="random",
            key=recipe.key.child("search"), identity={"recipe": json.loads(json.dumps(base))}, told=told,
        )  # fmt: skip
    except _Stopped:
        console.print("stopped; the same command goes on from there", highlight=False)
        return 0
    best = study.best(trials)
    if best is None:
        console.print("no trial has a score")
        return 1
    _write_best(base, best.parameters, folder, recipe.where)
    kept = folder / "trials" / Path(str(best.facts["folder"])).name / "weights.safetensors"
    if kept.exists():
        shutil.copyfile(kept, folder / "weights.safetensors")
    values = ", ".join(f"{name} = {value}" for name, value in best.parameters.items())
    console.print(f"best of {trials}: {best.score:.3f}: {values}: {folder / 'best.toml'}", soft_wrap=True)
    return 0


def _write_best(base: dict[str, Any], values: Mapping[str, Any], folder: Path, where: str) -> None:
    import tomli_w
    from preimage_data.atomic import atomic_write

    atomic_write(folder / "best.toml", tomli_w.dumps(with_overrides(base, values, where)).encode())
