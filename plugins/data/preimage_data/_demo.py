"""The work of `preimage demo`: the pipelines in the folder `demo` of this package, on the same photographs."""

import tomllib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from preimage import Pipeline, Status
from preimage.errors import PreimageError, raise_all

from ._progress import StepBar
from .atomic import atomic_write, write_json
from .figures import Row, gallery, overview, save_figure, view
from .measures import psnr, ssim

PROBLEMS = ("denoising", "gaussian-blur", "perona-malik", "inpainting", "compressive-sensing")
"""The names of the TOML files, in the order of the table."""

_SHOWN = 3  # photographs in the overview


@dataclass(frozen=True)
class Result:
    """One problem on all photographs. Qualities are per image, (B,); `seen` says what `before` was measured on."""

    name: str
    config: Mapping[str, Any]
    seen: str
    labels: tuple[str, ...]
    before: Tensor
    after: Tensor
    ssim_before: Tensor
    ssim_after: Tensor
    steps: tuple[int, ...]
    status: tuple[Status, ...]
    seconds: float
    provenance: Mapping[str, Any]

    def improved(self) -> bool:
        """Whether the mean PSNR of the estimates is above that of the measurements, all of them being finite."""
        return float(self.after.mean()) > float(self.before.mean()) and Status.DIVERGED not in self.status

    def worse(self) -> list[str]:
        """Images whose estimate is not better than their measurement."""
        return [label for label, b, a in zip(self.labels, self.before, self.after, strict=True) if not a > b]

    def row(self) -> list[str]:
        """The cells of the table."""
        operators = " ∘ ".join(table["name"] for table in reversed(self.config["operator"]))
        method = f"{self.config['solver']['name']} + {self.config['prior']['name']}"
        before, after = float(self.before.mean()), float(self.after.mean())
        starred = f"{before:.2f}" + ("" if self.seen == "measurement" else "*")
        steps = f"{sum(self.steps) / len(self.steps):.0f}"
        return [
            self.name, operators, method, starred, f"{after:.2f}", f"{after - before:+.2f}",
            f"{float(self.ssim_before.mean()):.3f}", f"{float(self.ssim_after.mean()):.3f}",
            steps, f"{self.seconds:.1f}",
        ]  # fmt: skip


HEADINGS = ("problem", "operator", "solver + prior", "PSNR in", "PSNR out", "gain", "SSIM in", "SSIM out", "steps", "s")


def pipeline_text(name: str) -> str:
    """The TOML text of one of `PROBLEMS`."""
    return (files("preimage_data") / "demo" / f"{name}.toml").read_text("utf-8")


def perform(out: Path, count: int, console: Console) -> list[Result]:
    """Run every problem on the first `count` photographs and write all figures and tables into `out`."""
    pipelines = _pipelines(count)
    results: list[Result] = []
    rows: list[Row] = []
    truth, labels = _images(next(iter(pipelines.values())))
    for name, pipeline in pipelines.items():
        with _one_thread():
            result, row = _solve(name, pipeline, truth, labels, console)
        results.append(result)
        rows.append(row)
        save_figure(out / f"{name}.png", gallery(truth, labels, row, title=_title(result)))
        atomic_write(out / "pipelines" / f"{name}.toml", pipeline_text(name).encode())
    shown = slice(0, _SHOWN)
    few = [Row(row.name, row.seen and row.seen.rows(shown), row.estimate[shown]) for row in rows]
    save_figure(out / "overview.png", overview(truth[shown], labels[shown], few))
    atomic_write(out / "table.md", markdown(results).encode())
    write_json(out / "results.json", [_record(result) for result in results])
    return results


def _pipelines(count: int) -> dict[str, Pipeline]:
    """All pipelines, or everything that is wrong with any of them: a plugin that is not installed, most likely."""
    made: dict[str, Pipeline] = {}
    problems: list[PreimageError] = []
    for name in PROBLEMS:
        try:
            tables = tomllib.loads(pipeline_text(name))
            made[name] = Pipeline.from_dict(tables, where=f"{name}.toml", overrides={"data.count": count})
        except PreimageError as error:
            problems.append(error)
    raise_all("the demo", problems)
    return made


def _images(pipeline: Pipeline) -> tuple[Tensor, tuple[str, ...]]:
    data = pipeline.data
    assert data is not None  # every pipeline of the demo has [data]
    indices = range(len(data))
    return torch.stack([data[i] for i in indices]), tuple(data.label(i) for i in indices)


def _solve(
    name: str, pipeline: Pipeline, truth: Tensor, labels: tuple[str, ...], console: Console
) -> tuple[Result, Row]:
    y = pipeline.simulate(truth, labels)
    # One step of one image, so that the seconds below are without the compilation of kernels on first use.
    once = replace(pipeline, solver=replace(pipeline.solver, max_steps=1))
    once.reconstruct(y[:1], labels[:1], throw=False)
    with StepBar(console, name, delay=0.5) as bar:
        found = pipeline.reconstruct(y, labels, observers=(bar,), throw=False)
    seen = view(pipeline.operator_for(labels), y)
    assert seen is not None  # the problems of the demo are linear, or keep the shape of the image
    result = Result(
        name=name,
        config=pipeline.config,
        seen=seen.name,
        labels=labels,
        before=psnr(seen.image, truth),
        after=psnr(found.x, truth),
        ssim_before=ssim(seen.image, truth),
        ssim_after=ssim(found.x, truth),
        steps=found.steps,
        status=found.status,
        seconds=found.seconds,
        provenance=found.provenance,
    )
    return result, Row(name, seen, found.x)


@contextmanager
def _one_thread() -> Generator[None, None, None]:
    """Images this small gain nothing from threads, which wait for each other for minutes where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _title(result: Result) -> str:
    before, after = float(result.before.mean()), float(result.after.mean())
    return f"{result.name}: mean PSNR {before:.2f} dB ({result.seen}) to {after:.2f} dB (estimate)"


def table(results: list[Result]) -> Table:
    """The results for a terminal."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for heading in HEADINGS:
        made.add_column(heading, justify="left" if heading in HEADINGS[:3] else "right", no_wrap=True)
    for result in results:
        made.add_row(*result.row(), style=None if result.improved() else "red")
    return made


def markdown(results: list[Result]) -> str:
    """The results as a table in Markdown."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * 3 + "---:|" * (len(HEADINGS) - 3)]
    lines += ["| " + " | ".join(cell.replace("*", "\\*") for cell in result.row()) + " |" for result in results]
    return "\n".join([*lines, "", caption(results).replace("*", "\\*"), ""])


def caption(results: list[Result]) -> str:
    """What the columns of the table are."""
    count = len(results[0].labels)
    starred = ", * of the scaled adjoint" if any(result.seen != "measurement" for result in results) else ""
    return f"means over {count} photographs; PSNR in dB; in: of the measurement{starred}; s: seconds for all of them"


def _record(result: Result) -> dict[str, Any]:
    each = [
        {
            "label": label,
            "status": result.status[i].name.lower(),
            "steps": result.steps[i],
            "psnr_before": float(result.before[i]),
            "psnr_after": float(result.after[i]),
            "ssim_before": float(result.ssim_before[i]),
            "ssim_after": float(result.ssim_after[i]),
        }
        for i, label in enumerate(result.labels)
    ]
    return {
        "problem": result.name,
        "before_is_of": result.seen,
        "seconds": result.seconds,
        "images": each,
        "provenance": dict(result.provenance),
    }
