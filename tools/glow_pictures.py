"""The pictures of docs/generative-priors.md: what a flow has learnt, recovers, knows, and invents.

python tools/glow_pictures.py [samples] [recoveries] [inventions] [--out docs/images/glow]      # default: all

Made with the weights that ship. The faces they were trained on may not be shown here; the face recovered is that of the
astronaut Eileen Collins, a NASA photograph that comes with scikit-image and that no network has seen.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from matplotlib.figure import Figure
from preimage_analysis.drawing import NOTE, show
from preimage_data import psnr
from preimage_glow import GlowPrior
from torch import Tensor
from torch.nn.functional import interpolate

from preimage import Key, Pipeline

SHAPE = [3, 64, 64]
TEMPERATURES = (0.6, 0.8, 0.9, 1.0)
MEASUREMENTS = (500, 1000, 2500)
METHODS: dict[str, dict[str, Any]] = {
    "glow": {
        "prior": {"name": "glow", "weight": 0.0},
        "solver": {"name": "latent-map", "penalty": "none", "max_evaluations": 250},
    },
    "dcgan": {
        "prior": {"name": "dcgan", "weight": 0.0},
        "solver": {"name": "latent-map", "penalty": "none", "start": "random", "start_scale": 0.1},
    },
    "Gaussian": {
        "prior": {"name": "gaussian-spectrum", "weights": "faces"},
        "solver": {"name": "gaussian-posterior"},
    },
    "Lasso-DCT": {"prior": {"name": "dct-l1", "weight": 0.005}, "solver": {"name": "lasso", "tolerance": 1e-4}},
}


def main() -> None:
    """Draw what is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pictures", nargs="*", choices=[*PICTURES, []], help=f"default: {', '.join(PICTURES)}")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "images" / "glow")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.pictures or PICTURES:
        path = arguments.out / f"{name}.png"
        PICTURES[name]().savefig(path, dpi=110)
        print(f"wrote {path}", flush=True)


def photograph(top: int, left: int, side: int, of: str = "astronaut") -> Tensor:
    """A square of one of scikit-image's photographs at 64 x 64, (1, 3, 64, 64)."""
    pixels = np.array(getattr(skimage.data, of)()[top : top + side, left : left + side, :3])
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    return interpolate(x, (64, 64), mode="bilinear", antialias=True)


def face() -> Tensor:
    """The astronaut's face, as the faces of CelebA are cropped."""
    return photograph(28, 145, 150)


def samples() -> Figure:
    """Samples over temperatures, and the path between two images."""
    prior, key = GlowPrior((3, 64, 64), weights="faces"), Key(4)
    with torch.no_grad():
        rows = {f"T = {t:g}": prior.sample(8, key, temperature=t) for t in TEMPERATURES}
        for path in ("spherical", "linear"):
            rows[path] = prior.interpolate(face(), face().flip(3), 8, path=path)[0]
    return grid(list(rows), [""] * 8, [list(images) for images in rows.values()])


def recoveries() -> Figure:
    """Compressive sensing of the face, by the number of measurements."""
    truth, names, rows = face(), list(METHODS), list[list[Tensor]]()
    notes = list[list[str]]()
    for count in MEASUREMENTS:
        operator = {"name": "compressive-sensing", "measurements": count, "ensemble": "gaussian"}
        found = [recover(method, operator, 0.1 / count**0.5, truth) for method in METHODS.values()]
        rows.append([*(x[0] for x in found), truth[0]])
        notes.append([*(f"{float(psnr(x, truth)):.1f} dB" for x in found), ""])
    return grid([f"m = {count}" for count in MEASUREMENTS], [*names, "truth"], rows, notes)


def inventions() -> Figure:
    """What is hidden, and what several searches put there."""
    cases = [(face(), 0.3), (face(), 0.5), (photograph(80, 150, 300, "coffee"), 0.3)]
    rows, notes = list[list[Tensor]](), list[list[str]]()
    for truth, fraction in cases:
        operator = {"name": "inpainting", "mask": "centre", "fraction": fraction}
        starts = [{"start": "zero"}, *({"start": "random", "start_scale": 0.7} for _ in range(3))]
        found = [
            recover(
                {
                    "prior": {"name": "glow", "weight": 0.0},
                    "solver": {"name": "latent-map", "max_evaluations": 200, "penalty": "none", "project": True}
                    | start,
                },
                operator,
                0.0,
                truth,
                seed,
            )
            for seed, start in enumerate(starts)
        ]
        spread = 3 * torch.stack(found).std(0).mean(1, keepdim=True).expand_as(truth)
        hidden = Pipeline.from_dict(tables({"solver": {"name": "adjoint"}}, operator, 0.0, 0)).simulate(truth)
        rows.append([truth[0], hidden[0], *(x[0] for x in found), spread[0]])
        notes.append(["", "", *(f"{float(psnr(x, truth)):.1f} dB" for x in found), ""])
    columns = ["truth", "measured", "from zero", "random 1", "random 2", "random 3", "deviation x 3"]
    return grid(["face, 0.3", "face, 0.5", "coffee, 0.3"], columns, rows, notes)


def tables(method: dict[str, Any], operator: dict[str, Any], sigma: float, seed: int) -> dict[str, Any]:
    """A pipeline for 64 x 64 colour images."""
    noise = {"name": "gaussian", "sigma": sigma}
    return {"shape": SHAPE, "seed": seed, "operator": operator, "noise": noise, **method}


def recover(method: dict[str, Any], operator: dict[str, Any], sigma: float, truth: Tensor, seed: int = 0) -> Tensor:
    """The estimate of a method, in [0, 1]."""
    pipeline = Pipeline.from_dict(tables(method, operator, sigma, seed))
    return pipeline.reconstruct(pipeline.simulate(truth)).x.clamp(0, 1)


def grid(
    left: Sequence[str], top: Sequence[str], images: Sequence[Sequence[Tensor]], notes: Sequence[Sequence[str]] = ()
) -> Figure:
    """Rows of images with names at their left and top, and notes below them."""
    figure = Figure(figsize=(1.15 * len(top) + 0.4, (1.15 + 0.2 * bool(notes)) * len(left)), layout="constrained")
    axes = figure.subplots(len(left), len(top), squeeze=False)
    for row, shown in enumerate(images):
        for column, image in enumerate(shown):
            show(axes[row][column], image)
            if notes:
                axes[row][column].set_xlabel(notes[row][column], fontsize=NOTE)
        axes[row][0].set_ylabel(left[row], fontsize=NOTE)
    for ax, name in zip(axes[0], top, strict=True):
        ax.set_title(name, fontsize=NOTE)
    return figure


PICTURES = {"samples": samples, "recoveries": recoveries, "inventions": inventions}

if __name__ == "__main__":
    main()
