"""Write docs/methods.md from the results of the suite `cross`: a table of quality against time, a picture per method.

python tools/write_methods.py [RESULTS]      # default: results/cross, where `make methods` puts them
"""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from preimage_compare import Results, read

DOCS = Path(__file__).parents[1] / "docs"
ZOOM = 2
SHOWN = "chelsea"

HEADING = """# Methods, operators, cost

Written by `make methods` from the suite `cross`: {images} bundled photographs of {size} pixels, noise level {noise},
one thread. A cell is the mean gain in PSNR over the starting image (for a linear operator AᵀAy scaled to the data, for
diffusion the measurement itself), and the median seconds of the solver. "–": refused before anything ran, because the
solver does not accept the operator or the prior, has no weights for it, or has nothing to do there. **Bold**: the
best of the column. Weights are set by hand and shared by similar operators, so read this as what runs, what it costs
and roughly what it is worth; a ranking needs tuning
([`preimage tune`](../plugins/tune/README.md)) and more images (the single suites).

"""


def table(results: Results) -> str:
    """Methods by operators, as Markdown."""
    operators, methods = results.suite["labels"]["operator"], results.suite["labels"]["method"]
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in results.cells:
        cells.setdefault((cell["method"], cell["operator"]), []).append(cell)
    gains = {where: gain(found) for where, found in cells.items() if all(c["outcome"] == "ok" for c in found)}
    best = {o: max(value for (_, operator), value in gains.items() if operator == o) for o in operators}
    lines = [f"| method | {' | '.join(operators)} |", f"|---|{'---:|' * len(operators)}"]
    for method in methods:
        row: list[str] = []
        for operator in operators:
            found = cells.get((method, operator), [])
            if (method, operator) in gains:
                value, text = gains[method, operator], f"{gains[method, operator]:+.1f}"
                text = f"**{text}**" if value == best[operator] else text
                row.append(f"{text} dB, {seconds(found)} s")
            else:
                row.append("–" if all(c["outcome"] == "skipped" for c in found) else "failed")
        lines.append(f"| [{method}](#{method}) | {' | '.join(row)} |")
    return "\n".join(lines)


def gain(cells: Sequence[dict[str, Any]]) -> float:
    """Mean PSNR over the start, in dB."""
    return statistics.fmean(c["metrics"]["psnr"] - c["start_metrics"]["psnr"] for c in cells)


def seconds(cells: Sequence[dict[str, Any]]) -> str:
    """Median seconds of the solver, to two digits."""
    median = statistics.median(cell["seconds"] for cell in cells)
    return f"{float(f'{median:.2g}'):g}"


def picture(results: Results, method: str, path: Path) -> str:
    """Starts above, estimates below, one column for each operator that the method runs on; its alternative text."""
    shown = [c for c in results.cells if c["method"] == method and c["image"] == SHOWN and c["outcome"] == "ok"]
    columns = [
        np.concatenate(
            [grey(results.measurement(c["measurement"])["start"]), grey(results.image(c["key"])["estimate"])]
        )
        for c in shown
    ]
    whole = np.concatenate(columns, axis=1)
    image = Image.fromarray(whole).resize((whole.shape[1] * ZOOM, whole.shape[0] * ZOOM), Image.Resampling.NEAREST)
    image.quantize(48).save(path, optimize=True)
    return f"{method} on {', '.join(c['operator'] for c in shown)}"


def grey(image: Any) -> np.ndarray:
    """(1, H, W) in [0, 1] as bytes with a white margin."""
    return np.pad((image[0].clamp(0, 1).numpy() * 255).round().astype(np.uint8), 2, constant_values=255)


def main(arguments: Sequence[str]) -> int:
    """Write the page."""
    results = read(arguments[0] if arguments else "results/cross")
    done = {(c["image"]) for c in results.cells}
    data = results.suite["suite"]["data"][0]
    heading = HEADING.format(
        images=len(done), size=f"{data['size']} x {data['size']}", noise=results.suite["labels"]["noise"][0]
    )
    folder = DOCS / "images" / "methods"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    parts = [
        heading,
        table(results),
        "\n\n## Pictures\n\nAbove the start, below the estimate; one column per operator.\n",
    ]
    for method in results.suite["labels"]["method"]:
        text = picture(results, method, folder / f"{method}.png")
        parts.append(f"\n### {method}\n\n![{text}](images/methods/{method}.png)\n\n{text.partition(' on ')[2]}\n")
    (DOCS / "methods.md").write_text("".join(parts), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
