"""One run from a recipe to a weights file, in a folder that it can be resumed from."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli_w
from preimage_data.atomic import atomic_write
from preimage_data.copies import find_copies
from preimage_data.subset import Subset
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import load_file
from torch import Tensor

from preimage import Dataset
from preimage.errors import BadData, BadFile

from . import checkpoint
from .checkpoint import Position
from .devices import Devices, hardware, slow_precision
from .export import export
from .images import Images
from .log import Log, report, seconds_text
from .loop import Outcome, Slice, Training
from .recipe import Recipe

WEIGHTS, BEST = "weights.safetensors", "best.safetensors"


def prepare_folder(recipe: Recipe, folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Make the folder of a run, or see that it is the one to be resumed; recipe.toml in it says which.

    Only the first of several processes does that: the others are started when it is done.

    Raises `BadFile` if there is a run and neither `resume` nor `overwrite` was said, or none to resume.
    """
    if any(os.environ.get(name, "0") != "0" for name in ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK")):
        return
    kept = folder / "recipe.toml"
    there = (folder / checkpoint.NEWEST).exists() or (folder / checkpoint.BEFORE).exists()
    if there and overwrite:
        for name in (checkpoint.NEWEST, checkpoint.BEFORE, BEST, WEIGHTS, "steps.csv", "validation.csv", "report.json"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    elif there and not resume:
        raise BadFile(f"there is a run in {folder}", "a new folder", "go on with --resume, or replace it: --overwrite")
    elif not there and resume:
        raise BadFile(f"there is no run in {folder}", "a run to resume", "leave --resume out to begin one")
    if not (there and resume):
        atomic_write(kept, tomli_w.dumps(recipe.tables).encode())


class Reporter:
    """Tells people and files how training goes."""

    def __init__(self, log: Log | None, console: Console, folder: Path):
        self.log, self.console, self.folder = log, console, folder
        self._bar: Progress | None = None
        self._task: Any = None
        self._score = ""
        self._pictures: dict[str, Tensor] = {}
        self.network: Training | None = None

    @contextmanager
    def bar(self, training: Training, total: int | None) -> Iterator[None]:
        """A progress bar on interactive terminals while the context lasts."""
        columns = (
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} steps"), TimeElapsedColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
        )  # fmt: skip
        self.network = training
        with Progress(
            *columns, console=self.console, transient=True, disable=not self.console.is_terminal
        ) as self._bar:
            self._task = self._bar.add_task("training", total=total, completed=training.position.step, note="")
            yield

    def stepped(self, position: Position, losses: dict[str, float], rate: float, norms: dict[str, float]) -> None:
        if self.log is not None:
            self.log.stepped(position, losses, rate, norms)
        if self._bar is not None and position.step % 10 == 0:
            note = "  ".join(f"{name} {value:.3g}" for name, value in losses.items())
            self._bar.update(self._task, completed=position.step, note=f"{note}  {self._score}")

    def validated(self, position: Position, scores: dict[str, float], pictures: dict[str, Tensor], best: bool) -> None:
        self._pictures = pictures
        name, value = next(iter(scores.items()))
        self._score = f"{name.replace('_', ' ')} {value:.3f}"
        if best and self.network is not None:
            state = {n: t.detach().cpu() for n, t in self.network.validated_network.state_dict().items()}
            checkpoint.write_tensors(self.folder / BEST, state, {"step": str(position.step)})
        if self.log is not None:
            self.log.validated(position, scores, pictures)
        if not self.console.is_terminal:
            self.said(f"step {position.step}, {seconds_text(position.seconds)}: {self._score}")

    def said(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def draw(self) -> None:
        """Draw the figures as they are now."""
        if self.log is not None:
            self.log.draw(self._pictures)

    def close(self) -> None:
        """Close the files."""
        if self.log is not None:
            self.log.close()


def run(
    recipe: Recipe,
    folder: Path,
    *,
    console: Console,
    resume: bool = False,
    limits: Slice = Slice(),
    devices: Devices = Devices(),
) -> Outcome:
    """Train a recipe in a folder that `prepare_folder` made, and export its weights when it has finished.

    The folder gets recipe.toml, checkpoints, the best network so far, steps.csv, validation.csv, losses.png,
    pictures.png, tensorboard/, and at the end weights.safetensors and report.json.
    """
    fabric = devices.fabric(recipe.precision, several=len(recipe.objective.phases(recipe.network())) > 1)
    fabric.launch()
    quiet = console if fabric.is_global_zero else Console(quiet=True)
    if not resume and (notice := slow_precision(fabric.device, recipe.precision)):
        quiet.print(notice, highlight=False, soft_wrap=True, markup=False)
    images = _read(recipe, recipe.data, "data", quiet)
    judged = _read(recipe, recipe.validation_data, "validation", quiet) if recipe.validation_data else None
    if judged is not None and not recipe.validation.allow_copies:
        refuse_copies(images, judged)
    reporter = Reporter(None, quiet, folder)
    training = Training(recipe, images, judged, folder, fabric, reporter)
    if resume and training.resume():
        reporter.said(f"resumed at step {training.position.step}")
    if fabric.is_global_zero:
        reporter.log = Log(folder, training.position)
    total = recipe.budget.limit(len(images), recipe.batches.size)
    try:
        with _signals() as stopped, reporter.bar(training, total):
            asked = limits.stop
            outcome = training.run(
                Slice(limits.seconds, limits.checkpoint_seconds, limits.checkpoint_steps, lambda: stopped() or asked())
            )
        reporter.draw()
    finally:
        reporter.close()
    if not outcome.finished:
        reporter.said(f"stopped at step {outcome.position.step}; --resume goes on from there")
    elif fabric.is_global_zero:
        _finish(recipe, training, outcome, folder, reporter)
    fabric.barrier()
    return outcome


def _finish(recipe: Recipe, training: Training, outcome: Outcome, folder: Path, reporter: Reporter) -> None:
    network, p = outcome.network, outcome.position
    if p.best is not None and (folder / BEST).exists():
        network.load_state_dict(load_file(folder / BEST))
    facts = {
        "trained": {
            "steps": p.step, "best_step": p.best_step or p.step, "seconds": round(p.seconds, 1),
            "processor_seconds": round(p.processor_seconds, 1), "setbacks": p.setbacks,
            "parameters": sum(w.numel() for w in network.parameters()), "precision": recipe.precision,
            "hardware": hardware(training.fabric), "skipped_images": list(training.images.skipped),
        }
    }  # fmt: skip
    header = export(recipe, network, folder / WEIGHTS, training.images, training.judged, training.examples(), facts)
    report(folder / "report.json", header)
    scores = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in header["scores"].items())
    reporter.said(f"{p.step} steps in {seconds_text(p.seconds)}: {scores or 'no validation'}: {folder / WEIGHTS}")
    if not recipe.validation_data:
        reporter.said("there is no [validation]: the last weights are exported, not the best, and have no score")


def _read(recipe: Recipe, tables: list[dict[str, Any]], what: str, console: Console) -> Images:
    sets = recipe.datasets(tables, what)
    with Progress(
        TextColumn(f"reading {what}"), BarColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=None)
        images = Images.of(
            sets, recipe.batches.skip_unreadable, lambda done, total: bar.update(task, completed=done, total=total)
        )
    if images.skipped:
        console.print(f"skipped {len(images.skipped)} images: {'; '.join(images.skipped[:5])}", soft_wrap=True)
    if what == "validation" and len({data.shape for data in sets}) > 1:
        shapes = sorted({data.shape for data in sets})
        raise BadData(f"validation images have the shapes {shapes}", "one shape", "give each data set a size")
    return images


def refuse_copies(images: Images, judged: Images) -> None:
    """Raise `BadData` if validation images are among the training images, naming them."""
    found: list[tuple[str, str]] = []
    for data in images.sets:
        for other in judged.sets:
            found += [copy.labels for copy in find_copies(_sound(data, images), other)]
    if found:
        listed = ", ".join(f"{one} ({other})" for one, other in found[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        remedy = "leave them out of [data] (folder takes exclude), or say allow_copies = true in [validation]"
        raise BadData(f"training images are copies of validation images: {listed}{more}", "two sets apart", remedy)


def _sound(data: Dataset, images: Images) -> Dataset:
    number = images.sets.index(data)
    return Subset(data, [index for place, index in images.places if place == number])


@contextmanager
def _signals() -> Iterator[Any]:
    """SIGTERM and SIGINT ask the loop to stop after its step; a second SIGINT interrupts."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def note(number: int, frame: object) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
