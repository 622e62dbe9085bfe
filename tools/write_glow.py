"""Write docs/glow-studies.md from the results of benchmarks/suites/glow-*.toml, published rows beside ours.

python tools/write_glow.py [RESULTS]      # default: results/glow, where `make glow` puts one folder for each suite

The published rows are read from the folder `published` below PREIMAGE_DATA; without it they are left out, and the page
says so. A study without results is left out, too.
"""

import math
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from glow_published import Published
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from preimage_compare import Results, read
from preimage_compare.statistics import Bootstrap
from preimage_data.figures import save_figure

from preimage.errors import PreimageError

DOCS = Path(__file__).parents[1] / "docs"
IMAGES = DOCS / "images" / "glow"
MEASUREMENTS = (200, 500, 1000, 2500, 5000)
ZOOM = 2
SHIFTS = {
    "glow-shift-2500": "Photographs, 2500 measurements",
    "glow-shift-5000": "Photographs, 5000 measurements",
    "glow-shift-ffhq": "Faces of another collection",
}

HEADING = """# Invertible generative priors: the studies

Written by `make glow` from `benchmarks/suites/glow-*.toml`. Mean PSNR in dB. *In italics*: published rows (Asim et al.
2020, "Invertible generative models for inverse problems: mitigating representation error and dataset bias"; means over
their runs), of other networks, other matrices and other noise than ours, so that a tenth of a decibel means nothing.

The conventions are the published ones: twelve faces of CelebA that no prior was trained on, 64 x 64 pixels in colour by
antialiased bilinear interpolation, n = 12288; Gaussian matrices with entries N(0, 1/m), one for all faces; noise of
deviation 0.1 / sqrt(m) for each measurement, so that its norm is 0.1 in expectation; PSNR of the image clipped to
[0, 1], averaged over images in dB. Every method sees the same measurements. No parameter was
chosen on these faces; the suites say which were chosen on others and which by hand. But for compressive sensing of
faces and inpainting, the networks of the flows compute in bfloat16, which halves the time on processors with
instructions for it.

"Evaluations" are those of the operator, its adjoint and derivatives for one image, mean over images, a start's counted;
seconds are the median of the clock in the solver, one image at a time on one thread of a shared machine: for orders of
magnitude only.
"""


@dataclass(frozen=True)
class Study:
    """The results of one suite; cells that failed have no scores."""

    results: Results

    @property
    def methods(self) -> list[str]:
        """Labels in the order of the suite."""
        return list(self.results.suite["labels"]["method"])

    def cells(self, method: str, **labels: str) -> list[dict[str, Any]]:
        """Finished cells of a method with these labels; none where another method has more, for a mean over fewer
        images is no comparison."""
        finished = [c for c in self.results.cells if c["outcome"] == "ok" and all(c[k] == v for k, v in labels.items())]
        count = Counter(c["method"] for c in finished)
        whole = count[method] == max(count.values(), default=0)
        return [c for c in finished if c["method"] == method] if whole else []

    def psnr(self, method: str, **labels: str) -> float:
        """The mean over images, NaN if there are none, or not all."""
        found = [c["metrics"]["psnr"] for c in self.cells(method, **labels)]
        return statistics.fmean(found) if found else math.nan

    def cost(self, method: str, **labels: str) -> str:
        """Mean evaluations of the operator, and median seconds."""
        found = self.cells(method, **labels)
        if not found:
            return "–"
        calls = statistics.fmean(
            sum(c["evaluations"][name] for name in ("forward", "adjoint", "jvp", "vjp", "solve_normal")) for c in found
        )
        return f"{calls:,.0f}, {statistics.median(c['seconds'] for c in found):.2g} s"

    def failed(self) -> list[str]:
        """A sentence for each method with cells that have no result."""
        lines: list[str] = []
        for method in self.methods:
            lost = [c for c in self.results.cells if c["method"] == method and c["outcome"] == "failed"]
            if lost:
                lines.append(f"{method}: {len(lost)} images failed ({lost[0]['reason']}).")
        return lines

    def gain(self, method: str, other: str, **labels: str) -> str:
        """The mean paired difference with its 95 % bootstrap interval."""
        scores = [
            {(c["data"], c["image"]): c["metrics"]["psnr"] for c in self.cells(m, **labels)} for m in (method, other)
        ]
        shared = sorted(set(scores[0]) & set(scores[1]))
        if not shared:
            return "–"
        differences = np.array([scores[0][image] - scores[1][image] for image in shared])
        low, high = Bootstrap().intervals(differences[None])
        return f"{differences.mean():+.2f} ({low[0]:+.2f} to {high[0]:+.2f})"


def number(value: float | None) -> str:
    """A PSNR, a dash if there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.2f}"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers, without rows of dashes alone."""
    rows = [row for row in rows if set(row[1:]) != {"–"}]
    lines = [f"| {' | '.join(columns)} |", f"|---|{'---:|' * (len(columns) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def published_row(name: str, values: Sequence[float | None]) -> list[list[str]]:
    """One row in italics, or none if nothing was published."""
    return [[f"*{name}*", *(f"*{v:.2f}*" if v is not None else "" for v in values)]] if any(values) else []


def compressive_sensing(studies: dict[str, Study], published: Published) -> str:
    """PSNR over m, a figure, and what it cost."""
    found = {m: studies[f"glow-cs-{m}"] for m in MEASUREMENTS if f"glow-cs-{m}" in studies}
    if not found:
        return ""
    methods = list(dict.fromkeys(m for study in found.values() for m in study.methods if study.cells(m)))
    rows = [[method, *(number(study.psnr(method)) for study in found.values())] for method in methods]
    names = {"glow-main": "glow", "dcgan": "dcgan", "lasso-dct": "lasso-dct", "lasso-wavelet": "lasso-wavelet"}
    for key, name in names.items():
        rows += published_row(f"published {name}", [published.compressive_sensing(key, m) for m in found])
    costs = [[method, *(study.cost(method) for study in found.values())] for method in methods]
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    FigureCanvasAgg(figure)
    ax: Any = figure.subplots()
    for method in methods:
        ax.plot(list(found), [study.psnr(method) for study in found.values()], marker="o", ms=4, label=method)
    for key, name in names.items():
        points = [(m, value) for m in published.measurements(key) if (value := published.compressive_sensing(key, m))]
        if points:
            ax.plot(*zip(*points, strict=True), ls=":", lw=1.2, label=f"published {name}")
    ax.set(xscale="log", xlabel="measurements m, of 12288", ylabel="PSNR in dB")
    ax.grid(alpha=0.25)
    ax.legend(fontsize=7)
    save_figure(IMAGES / "compressive-sensing.png", figure, dpi=110)
    columns = [f"m = {m}" for m in found]
    text = "\n## Compressive sensing\n\n" + markdown(["method", *columns], rows)
    text += "\n![PSNR over the number of measurements](images/glow/compressive-sensing.png)\n"
    text += "\nEvaluations and seconds:\n\n" + markdown(["method", *columns], costs)
    shown = next((m for m in (1000, 2500, 500, 5000) if m in found), None)
    if shown is not None:
        text += montage(found[shown], f"{shown}-measurements", f"m = {shown}")
    return text + lost(found.values())


def denoising(studies: dict[str, Study], published: Published) -> str:
    """PSNR over sigma, and over gamma."""
    text = ""
    if study := studies.get("glow-denoising"):
        noises = study.results.suite["labels"]["noise"]
        rows = [[m, *(number(study.psnr(m, noise=n)) for n in noises)] for m in study.methods]
        rows += published_row("published glow, best gamma", [published.denoising("glow", float(n)) for n in noises])
        rows += published_row("published bm3d", [published.denoising("bm3d", float(n)) for n in noises])
        text += "\n## Denoising\n\n" + markdown(["method", *(f"sigma = {n}" for n in noises)], rows)
        text += (
            "\nThe published glow row has the gamma that is best on the test faces; ours was not chosen on them.\n"
            "Published BM3D is of the noisy image clipped to [0, 1], ours of the image as measured: worth 0.2 dB at\n"
            "sigma = 0.1, 1.3 dB at 0.2.\n"
        )
        text += "\nEvaluations and seconds:\n\n"
        costs = [[m, *(study.cost(m, noise=n) for n in noises)] for m in study.methods]
        text += markdown(["method", *(f"sigma = {n}" for n in noises)], costs)
        text += montage(study, "denoising", "sigma = 0.1", noise="0.1") + lost([study])
    if study := studies.get("glow-gamma"):
        noises = study.results.suite["labels"]["noise"]
        rows: list[list[str]] = []
        for method in study.methods:
            row = [method, *(number(study.psnr(method, noise=n)) for n in noises)]
            gamma = float(method.rpartition("gamma ")[2]) if "gamma" in method else None
            known = [None if gamma is None else published.denoising("glow", float(n), gamma) for n in noises]
            rows.append([*row, *("" if value is None else f"*{value:.2f}*" for value in known)])
        heads = [f"sigma = {n}" for n in noises]
        text += "\n### The penalty\n\n" + markdown(["method", *heads, *(f"*published, {h}*" for h in heads)], rows)
        text += "\nThe same gamma means another thing for another flow: its latents have other norms.\n" + lost([study])
    return text


def inpainting(studies: dict[str, Study], published: Published) -> str:
    """PSNR for each mask."""
    if not (study := studies.get("glow-inpainting")):
        return ""
    operators = study.results.suite["labels"]["operator"]
    rows = [[m, *(number(study.psnr(m, operator=o)) for o in operators)] for m in study.methods]
    for key, name in (("glow-main", "glow, best gamma"), ("dcgan", "dcgan, best gamma")):
        known = [published.inpainting(key) if o == "centre 0.3" else None for o in operators]
        rows += published_row(f"published {name}", known)
    text = "\n## Inpainting\n\n" + markdown(["method", *operators], rows)
    text += (
        "\nKnown pixels are put back. The published gamma is the best on the test faces. No start of ours sees what\n"
        "the mask hides; three of the published code do, by encoding the true image.\n"
    )
    for operator in operators:
        text += montage(study, f"inpainting-{slug(operator)}", operator, operator=operator)
    return text + lost([study])


def starts(studies: dict[str, Study], published: Published) -> str:
    """PSNR for each start and gamma at m = 5000."""
    if not (study := studies.get("glow-starts")):
        return ""
    deviations = {"zero": "0", "random 0.1": "0.1", "random 0.7": "0.7", "lasso-wavelet": "lasso-wavelet"}
    rows: list[list[str]] = []
    for method in study.methods:
        start, _, gamma = method.partition(", gamma ")
        known = published.start(deviations[start], float(gamma)) if gamma and start in deviations else None
        rows.append([method, number(study.psnr(method)), study.cost(method), "" if known is None else f"*{known:.2f}*"])
    text = '\n## Starts\n\n5000 measurements. "0.35 gaussian": from 0.35 times the latent of the estimate of\n'
    text += "gaussian-spectrum. gamma multiplies the norm of z beside the squared residual.\n\n"
    return text + markdown(["start", "PSNR", "evaluations, seconds", "*published*"], rows) + lost([study])


def shift(studies: dict[str, Study]) -> str:
    """PSNR on data that the priors were not trained on, and representation errors."""
    if not any(name in studies for name in (*SHIFTS, "glow-representation")):
        return ""
    text = "\n## Out of distribution\n"
    for name, heading in SHIFTS.items():
        if name in studies:
            text += shifted(studies[name], heading)
    if study := studies.get("glow-representation"):
        sets = study.results.suite["labels"]["data"]
        rows = [[method, *(error(study, method, d) for d in sets)] for method in study.methods]
        text += "\n### Representation error\n\nThe best approximation of an image that is given (F = identity, no\n"
        text += "noise): PSNR, and the largest relative error, of x - G(z) over x in the norm.\n\n"
        text += markdown(["prior", *sets], rows)
    return text


def shifted(study: Study, heading: str) -> str:
    """PSNR for each set of images and number of measurements, and how far glow is from the others."""
    glow = study.results.suite["reference"]
    others = [method for method in study.methods if method in ("dcgan", "lasso-dct")]
    columns = [(d, m) for d in study.results.suite["labels"]["data"] for m in study.results.suite["labels"]["operator"]]
    heads = [f"{d}, m = {m}" for d, m in columns]
    rows = [[method, *(number(study.psnr(method, data=d, operator=m)) for d, m in columns)] for method in study.methods]
    rows += [
        [f"{glow} minus {other}", *(study.gain(glow, other, data=d, operator=m) for d, m in columns)]
        for other in others
    ]
    text = f"\n### {heading}\n\n" + markdown(["method", *heads], rows)
    for (data, m), head in zip(columns, heads, strict=True):
        text += montage(study, f"shift-{m}-{slug(data)}", head, data=data, operator=m)
    return text + lost([study])


def error(study: Study, method: str, data: str) -> str:
    """Mean PSNR and largest relative error."""
    cells = study.cells(method, data=data)
    if not cells:
        return "–"
    return f"{study.psnr(method, data=data):.1f} dB, {max(c['metrics']['nmse'] for c in cells) ** 0.5:.1e}"


def nonlinear(studies: dict[str, Study]) -> str:
    """PSNR on diffusion and blur."""
    if not (study := studies.get("glow-nonlinear")):
        return ""
    operators = study.results.suite["labels"]["operator"]
    rows = [
        [m, *(f"{number(study.psnr(m, operator=o))} | {study.gain(m, 'tv', operator=o)}" for o in operators)]
        for m in study.methods
    ]
    columns = [head for o in operators for head in (o, "minus tv")]
    text = "\n## Diffusion and blur\n\nNoise 0.025; differences are paired, with 95 % intervals.\n\n"
    text += markdown(["method", *columns], rows)
    for operator in operators:
        text += montage(study, slug(operator), f"{operator}, noise 0.025", operator=operator)
    return text + lost([study])


def montage(study: Study, name: str, title: str, **labels: str) -> str:
    """The truth, start and estimates of three images, one row for each image; nothing if nothing is finished."""
    cells = [c for m in study.methods for c in study.cells(m, **labels)]
    images = list(dict.fromkeys((c["data"], c["image"]) for c in cells))
    chosen = images[:: max(1, len(images) // 3)][:3]
    shown = [m for m in study.methods if any(c["method"] == m for c in cells)]
    rows: list[np.ndarray] = []
    for where in chosen:
        own = {c["method"]: c for c in cells if (c["data"], c["image"]) == where}
        if set(own) != set(shown):
            continue
        measured = study.results.measurement(own[shown[0]]["measurement"])
        columns = [measured["truth"], measured["start"]]
        columns += [study.results.image(own[m]["key"])["estimate"] for m in shown]
        rows.append(np.concatenate([pixels(image) for image in columns], axis=1))
    if not rows:
        return ""
    whole = np.concatenate(rows)
    enlarged = (whole.shape[1] * ZOOM, whole.shape[0] * ZOOM)
    picture = Image.fromarray(whole).resize(enlarged, Image.Resampling.NEAREST)
    picture.quantize(128).save(IMAGES / f"{name}.png", optimize=True)
    described = f"{title}, from left to right: truth, what the measurement alone shows, {', '.join(shown)}"
    return f"\n![{described}](images/glow/{name}.png)\n\n{described}.\n"


def pixels(image: Any) -> np.ndarray:
    """(C, H, W) in [0, 1] as bytes (H, W, 3) with a white margin."""
    values = (image.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    return np.pad(values, ((1, 1), (1, 1), (0, 0)), constant_values=255)


def lost(studies: Any) -> str:
    """What failed, as a paragraph."""
    lines = [line for study in studies for line in study.failed()]
    return f"\nNot finished: {' '.join(lines)}\n" if lines else ""


def slug(label: str) -> str:
    """A label as a file name."""
    return "-".join("".join(c if c.isalnum() else " " for c in label).split()).lower()


def main(arguments: Sequence[str]) -> int:
    """Write the page and its pictures."""
    root = Path(arguments[0] if arguments else "results/glow")
    studies: dict[str, Study] = {}
    for folder in sorted(root.glob("glow-*")):
        try:
            studies[folder.name] = Study(read(folder))
        except PreimageError as problem:
            print(f"{folder}: {problem}", file=sys.stderr)
    if not studies:
        print(f"there are no results in {root}: run make glow", file=sys.stderr)
        return 1
    IMAGES.mkdir(parents=True, exist_ok=True)
    published = Published.read()
    text = HEADING if published.found else HEADING + "\nThe published tables were not at hand when this was written.\n"
    for part in (compressive_sensing, denoising, inpainting, starts):
        text += part(studies, published)
    text += shift(studies) + nonlinear(studies)
    (DOCS / "glow-studies.md").write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
