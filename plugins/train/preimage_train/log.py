"""What a run leaves to look at: CSV files, TensorBoard events, a figure of the losses, pictures."""

import contextlib
import csv
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TextIO, cast

from matplotlib.figure import Figure
from preimage_data.atomic import file_error, write_json
from preimage_data.figures import save_figure
from tensorboardX import SummaryWriter
from torch import Tensor

from .checkpoint import Position

_SECONDS = 20.0
"""At most this often the figures are drawn anew: they take part of a second."""


class Log:
    """The files of a run folder: steps.csv, validation.csv, losses.png, pictures.png, tensorboard/.

    - `every`: steps between two rows of steps.csv, which hold means over them.

    A run that is resumed at step n goes on behind the rows up to n; later ones are dropped.
    """

    def __init__(self, folder: Path, position: Position, every: int = 20):
        self.folder, self.every = folder, every
        self._steps = _Table(folder / "steps.csv", position.step)
        self._scores = _Table(folder / "validation.csv", position.step)
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=position.step + 1, flush_secs=30)
        self._sums: dict[str, float] = {}
        self._count, self._drawn = 0, 0.0

    def stepped(self, position: Position, losses: dict[str, float], rate: float, norms: dict[str, float]) -> None:
        """Add a step to the running means, and now and then a row."""
        row = {f"loss {n}": v for n, v in losses.items()} | {f"gradient {n}": v for n, v in norms.items()}
        self._count += 1
        for name, value in row.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        if position.step % self.every == 0:
            means = {name: total / self._count for name, total in self._sums.items()}
            self._sums, self._count = {}, 0
            self._steps.add({"step": position.step, "seconds": position.seconds, "learning rate": rate, **means})
            for name, value in means.items():
                self._events.add_scalar(name.replace(" ", "/"), value, position.step)
            self._events.add_scalar("learning rate", rate, position.step)

    def validated(self, position: Position, scores: dict[str, float], pictures: dict[str, Tensor]) -> None:
        """Add a validation; draw the figures if the last ones are some seconds old."""
        self._scores.add({"step": position.step, "seconds": position.seconds, **scores})
        for name, value in scores.items():
            self._events.add_scalar(f"validation/{name}", value, position.step)
        if time.monotonic() - self._drawn > _SECONDS:
            self.draw(pictures)

    def draw(self, pictures: dict[str, Tensor]) -> None:
        """Write losses.png and pictures.png."""
        self._drawn = time.monotonic()
        if self._steps.rows:
            save_figure(self.folder / "losses.png", losses_figure(self._steps.rows, self._scores.rows))
        if pictures:
            save_figure(self.folder / "pictures.png", pictures_figure(pictures))

    def close(self) -> None:
        """Flush what is left."""
        with contextlib.suppress(OSError):  # of a full disk, of which the checkpoint has spoken
            self._events.close()


class _Table:
    """A CSV file that grows by whole lines; `rows` holds them too."""

    def __init__(self, path: Path, step: int):
        self._path = path
        self.rows: list[dict[str, float]] = []
        if path.exists():
            with path.open(newline="") as file:
                complete = (row for row in csv.DictReader(file) if None not in row.values())
                self.rows = [{k: float(v) for k, v in row.items()} for row in complete if float(row["step"]) <= step]
            self._rewrite()

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if len(self.rows) == 1 or set(row) != set(self.rows[0]):
            self._rewrite()
            return
        self._write("a", lambda file: csv.DictWriter(file, list(self.rows[0])).writerow(_short(row)))

    def _rewrite(self) -> None:
        def whole(file: TextIO) -> None:
            writer = csv.DictWriter(file, list(dict.fromkeys(name for row in self.rows for name in row)))
            writer.writeheader()
            writer.writerows(_short(row) for row in self.rows)

        self._write("w", whole)

    def _write(self, mode: Literal["a", "w"], content: Callable[[TextIO], object]) -> None:
        try:
            with self._path.open(mode, newline="") as file:
                content(cast(TextIO, file))
        except OSError as error:
            raise file_error(self._path, error, "written") from None


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {k: f"{v:.7g}" if isinstance(v, float) else v for k, v in row.items()}


def losses_figure(steps: list[dict[str, float]], scores: list[dict[str, float]]) -> Figure:
    """The losses over the steps, and below them the score, each of them if there are several."""
    losses = [name for name in steps[-1] if name.startswith("loss ")]
    judged = [name for name in (scores[-1] if scores else {}) if name not in ("step", "seconds")][:1]
    figure = Figure(figsize=(7, 2.6 * (1 + bool(judged))), layout="constrained")
    axes = figure.subplots(1 + bool(judged), 1, sharex=True, squeeze=False)[:, 0]
    for name in losses:
        points = [(row["step"], row[name]) for row in steps if name in row]
        x, y = zip(*points, strict=True)
        axes[0].plot(x, y, linewidth=0.6, alpha=0.4)
        axes[0].plot(
            x, _smooth(y), linewidth=1.4, color=axes[0].lines[-1].get_color(), label=name.removeprefix("loss ")
        )
    if all(row[name] > 0 for name in losses for row in steps if name in row):
        axes[0].set_yscale("log")
    axes[0].set_ylabel("loss")
    if len(losses) > 1:
        axes[0].legend(frameon=False)
    for name in judged:
        axes[1].plot([row["step"] for row in scores], [row[name] for row in scores], marker="o", markersize=3)
        axes[1].set_ylabel(name.replace("_", " "))
    axes[-1].set_xlabel("step")
    for ax in axes:
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def _smooth(values: tuple[float, ...], memory: float = 0.95) -> list[float]:
    if min(values) > 0 and len(values) > 1:  # drawn on a logarithmic axis
        return [math.exp(value) for value in _means([math.log(value) for value in values], memory)]
    return _means(values, memory)


def _means(values: Sequence[float], memory: float) -> list[float]:
    if len(set(values)) == 1:
        return list(values)
    mean, found = values[0], list[float]()
    for number, value in enumerate(values):
        keep = min(memory, number / (number + 1))
        mean = keep * mean + (1 - keep) * value
        found.append(mean)
    return found


def pictures_figure(pictures: dict[str, Tensor]) -> Figure:
    """Rows of images on one display window, [0, 1]."""
    columns = max(len(images) for images in pictures.values())
    figure = Figure(figsize=(1.6 * columns, 1.75 * len(pictures)), layout="constrained")
    axes = figure.subplots(len(pictures), columns, squeeze=False)
    for row, (name, images) in zip(axes, pictures.items(), strict=True):
        for ax, image in zip(row, images.detach().float().cpu().clamp(0, 1), strict=False):
            ax.imshow((image.permute(1, 2, 0) if len(image) == 3 else image[0]).numpy(), cmap="gray", vmin=0, vmax=1)
        for ax in row:
            ax.set_xticks([])
            ax.set_yticks([])
            ax.set_frame_on(False)
        row[0].set_ylabel(name)
    return figure


def report(path: Path, facts: dict[str, Any]) -> None:
    """Facts of a run as JSON."""
    write_json(path, json.loads(json.dumps(facts, default=str)))


def seconds_text(seconds: float) -> str:
    """A duration as people say it."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
