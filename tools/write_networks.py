"""Write docs/networks.md from the results of benchmarks/suites/networks.toml and the headers of the shipped weights.

python tools/write_networks.py [RESULTS]      # default: results/networks, where `make networks` puts them
"""

import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from preimage_compare import Results, read
from preimage_compare.statistics import Bootstrap
from write_methods import grey

from preimage._plugins import discover
from preimage.weights import load_weights

DOCS = Path(__file__).parents[1] / "docs"
ZOOM = 2
NETWORKS = ("convresnet", "unet", "diffnet", "iresnet")
CLASSICAL = ("tv", "smoothed-tv", "tgv", "bm3d")

HEADING = """# Trained networks

Written by `make networks` from `benchmarks/suites/networks.toml`: the first {images} photographs of `bsds500/val`,
grey, {size} x {size} pixels cut from the centre, which no network and no preset has seen. Mean PSNR in dB; in brackets
the gain over the best of the tuned classical methods of that column, paired image by image, with its 95 % bootstrap
interval. Every method saw the same measurements. "–": no weights ship for this noise.

"""

TRAINING = """
## How they were trained

One thread of a shared machine, on 200 grey photographs of BSDS500 (for research use) by `preimage train RECIPE`;
processor minutes are of the training steps alone. The weights are in `preimage_networks/weights` and
`preimage_iresnet/weights`; their headers have the whole recipe. A recipe with a start goes on from other weights, whose
minutes are not in its own.

| weights | recipe, and its start | parameters | steps | processor minutes | PSNR on its own validation images |
|---|---|---:|---:|---:|---:|
"""


def table(results: Results) -> str:
    """Methods by operator and noise, as Markdown."""
    labels = results.suite["labels"]
    columns = [(operator, noise) for operator in labels["operator"] for noise in labels["noise"]]
    lines = [f"| method | {' | '.join(f'{o} {n}' for o, n in columns)} |", f"|---|{'---:|' * len(columns)}"]
    for method in labels["method"]:
        row = list[str]()
        for column in columns:
            own = scores(results, method, column)
            if not own:
                row.append("–")
                continue
            text = f"{statistics.fmean(own.values()):.2f}"
            if method in NETWORKS:
                text += f" ({gain(own, classical(results, column))})"
            row.append(text)
        lines.append(f"| {method} | {' | '.join(row)} |")
    return "\n".join(lines)


def scores(results: Results, method: str, column: tuple[str, str]) -> dict[str, float]:
    """PSNR by image of a method at an operator and noise; empty if it was refused."""
    found = [c for c in results.cells if c["method"] == method and (c["operator"], c["noise"]) == column]
    return {c["image"]: c["metrics"]["psnr"] for c in found if c["outcome"] == "ok"}


def classical(results: Results, column: tuple[str, str]) -> dict[str, float]:
    """The scores of the best of the tuned classical methods."""
    return max((scores(results, m, column) for m in CLASSICAL), key=lambda s: statistics.fmean(s.values()))


def gain(own: dict[str, float], other: dict[str, float]) -> str:
    """The mean difference, and the ends of the interval that `preimage compare` gives it."""
    differences = np.array([own[image] - other[image] for image in own])
    low, high = Bootstrap().intervals(differences[None])
    return f"{differences.mean():+.2f}, {low[0]:+.2f} to {high[0]:+.2f}"


def training() -> str:
    """One line for each weights file of a reconstruction network."""
    lines = list[str]()
    for file in discover().weights:
        network = file.component.split("/")[1]
        if network not in NETWORKS:
            continue
        facts: dict[str, Any] = dict(load_weights(file.name, file.component).facts)
        trained = facts["trained"]
        minutes = f"{trained['processor_seconds'] / 60:.0f}" if trained.get("processor_seconds") else "not recorded"
        parameters, psnr = f"{trained['parameters']:,}", f"{facts['scores']['psnr']:.2f}"
        recipe = f"{network}-{file.name if network == 'iresnet' else file.name.removesuffix('-0.025')}"
        if facts.get("start"):
            recipe += f", from {facts['start']['name']}"
        lines.append(f"| {network} {file.name} | {recipe} | {parameters} | {trained['steps']} | {minutes} | {psnr} |")
    return "\n".join(lines)


def picture(results: Results, operator: str, noise: str, image: str, path: Path) -> str:
    """Truth, measurement and estimates of one image side by side; its alternative text."""
    cells = [c for c in results.cells if (c["operator"], c["noise"], c["image"]) == (operator, noise, image)]
    cells = [c for c in cells if c["outcome"] == "ok"]
    measured = results.measurement(cells[0]["measurement"])
    shown = [grey(measured["truth"]), grey(measured["start"])] + [
        grey(results.image(c["key"])["estimate"]) for c in cells
    ]
    whole = np.concatenate(shown, axis=1)
    enlarged = (whole.shape[1] * ZOOM, whole.shape[0] * ZOOM)
    Image.fromarray(whole).resize(enlarged, Image.Resampling.NEAREST).quantize(64).save(path, optimize=True)
    return f"{operator}, noise {noise}, image {image}: truth, start, {', '.join(c['method'] for c in cells)}"


def typical(results: Results, column: tuple[str, str]) -> str:
    """The image on which diffnet gains the upper quartile of what it gains: one where there is something to see."""
    own, other = scores(results, "diffnet", column), classical(results, column)
    ordered = sorted(own, key=lambda image: own[image] - other[image])
    return ordered[3 * len(ordered) // 4]


def main(arguments: list[str]) -> None:
    """Write the page and its pictures."""
    results = read(Path(arguments[0] if arguments else "results/networks"))
    labels = results.suite["labels"]
    images = sorted({cell["image"] for cell in results.cells})
    text = HEADING.format(images=len(images), size=96) + table(results) + "\n"
    folder = DOCS / "images" / "networks"
    folder.mkdir(parents=True, exist_ok=True)
    for operator in labels["operator"]:
        path = folder / f"{operator}.png"
        described = picture(results, operator, "0.025", typical(results, (operator, "0.025")), path)
        text += f"\n![{described}](images/networks/{path.name})\n\n{described}. "
        text += "Shown is the image at the upper quartile of diffnet's gain.\n"
    (DOCS / "networks.md").write_text(text + TRAINING + training() + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
