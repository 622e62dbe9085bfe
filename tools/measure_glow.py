"""The table of docs/generative-priors.md: `latent-map` with the flow of faces on the twelve published test faces.

python tools/measure_glow.py [ROW ...] [--faces 12] [--evaluations N]      # default: all rows, at their own numbers

PREIMAGE_DATA is the folder that has faces/celeba_test12. The whole table takes about half an hour on one core.
"""

import argparse
from typing import Any

import torch
from preimage_data import Folder, psnr

from preimage import Pipeline

SHRUNK = {"prior": {"name": "gaussian-spectrum", "weights": "faces"}, "solver": {"name": "gaussian-posterior"}}


def sensing(measurements: int) -> dict[str, Any]:
    """m Gaussian measurements with noise of norm 0.1."""
    noise = {"name": "gaussian", "sigma": 0.1 / measurements**0.5}
    return {"operator": {"name": "compressive-sensing", "measurements": measurements}, "noise": noise}


def denoising(sigma: float) -> dict[str, Any]:
    """The image itself and noise."""
    return {"operator": {"name": "identity"}, "noise": {"name": "gaussian", "sigma": sigma}}


HOLE: dict[str, Any] = {
    "operator": {"name": "inpainting", "mask": "centre", "fraction": 0.3},
    "noise": {"name": "gaussian", "sigma": 0.0},
}
FREE = {"penalty": "none"}
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "m1000": (sensing(1000), FREE | {"max_evaluations": 400}, 0.0),
    "m1000-mirror": (sensing(1000), FREE | {"max_evaluations": 400, "mirror": True}, 0.0),
    "m2500": (sensing(2500), FREE | {"max_evaluations": 800}, 0.0),
    "m5000": (sensing(5000), FREE | {"max_evaluations": 300}, 0.0),
    "m5000-shrunk": (
        sensing(5000),
        FREE | {"max_evaluations": 150, "start_scale": 0.7638, "step_length": 1.0},
        0.0,
    ),
    "m5000-long": (sensing(5000), FREE | {"max_evaluations": 600}, 0.0),
    "hole": (HOLE, FREE | {"max_evaluations": 400, "project": True}, 0.0),
    "noise-0.05": (denoising(0.05), {"max_evaluations": 250, "start_scale": 0.35}, 0.005),
    "noise-0.1": (denoising(0.1), {"max_evaluations": 250, "start_scale": 0.35}, 0.03),
}


def main() -> None:
    """Print a line for each row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--faces", type=int, default=12)
    parser.add_argument("--evaluations", type=int)
    given = parser.parse_args()
    if unknown := set(given.rows) - set(ROWS):
        parser.error(f"there is no row {', '.join(sorted(unknown))}: rows are {', '.join(ROWS)}")
    data = Folder(path="faces/celeba_test12", size=64, colour="colour", interpolation="bilinear", count=given.faces)
    truth, labels = torch.stack([data[i] for i in range(len(data))]), [data.label(i) for i in range(len(data))]
    for name in given.rows or ROWS:
        forward, options, weight = ROWS[name]
        solver = {"name": "latent-map", "tolerance": 0.0, "images_at_once": len(data)} | options
        if given.evaluations:
            solver["max_evaluations"] = given.evaluations
        tables = {"shape": list(data.shape), "prior": {"name": "glow", "weights": "faces", "weight": weight}} | forward
        if "start_scale" in options and "start" not in options:
            solver["start"], tables["start"] = "encode", SHRUNK
        pipeline = Pipeline.from_dict(tables | {"solver": solver})
        found = pipeline.reconstruct(pipeline.simulate(truth, labels), labels, throw=False)
        spent, quality = found.details["evaluations"].mean(), psnr(found.x, truth)
        print(f"{name}: {quality.mean():.2f} dB (least {quality.min():.2f}) after {spent:.0f} evaluations", flush=True)


if __name__ == "__main__":
    main()
