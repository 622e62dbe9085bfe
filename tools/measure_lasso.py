"""The l1 baseline of compressive sensing with generative priors, in its published conventions, over many draws.

    python tools/measure_lasso.py 2500 --draws 12          # PREIMAGE_DATA names the folder with faces/celeba_test12

Faces of 64 x 64 x 3, A_ij ~ N(0, 1/m), noise of expected norm 0.1, Haar wavelets, weight 0.005 (Bora et al. 2017; Asim
et al. 2020). For each draw of matrix and noise: the mean PSNR of the exact minimiser as it is, and after each way of
scaling it to the display range that the published code may be read as. Then mean and standard deviation over the draws.
`--peer` takes scikit-learn's Lasso in its published setting instead (alpha 0.01 on rows times sqrt(2 m), tolerance
1e-4, 1000 sweeps), on the same matrices and noise: it stops before the minimum, at a point that depends on the order of
the coordinates, which it descends along in turn. `--order` is that order: pixel by pixel with the channels last, as
published, channel by channel, or the latter backwards.
"""

import argparse
import math
import os
import statistics
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from preimage_baselines import Lasso, WaveletSparsity
from preimage_compressive_sensing import CompressiveSensing

from preimage import GaussianNoise, Key, Problem, solve

SHAPE = (3, 64, 64)
IMAGE = (1, 2, 3)


def largest(x: torch.Tensor, axes: tuple[int, ...] = IMAGE) -> torch.Tensor:
    """The maximum over these axes, which stay."""
    return x.amax(axes, keepdim=True)


SCALINGS = {
    "as it is": lambda x: x,
    "over max |x|": lambda x: x / largest(x.abs()),
    "over max x": lambda x: x / largest(x),
    "over max |x| of each channel": lambda x: x / largest(x.abs(), (2, 3)),
    "minimum to 0, maximum to 1": lambda x: (x + largest(-x)) / (largest(x) + largest(-x)),
    "clipped, then over the maximum": lambda x: x.clamp(0, 1) / largest(x.clamp(0, 1)),
    "over max |x| of all images": lambda x: x / x.abs().max(),
}


def faces() -> torch.Tensor:
    """The twelve, (12, 3, 64, 64)."""
    files = sorted((Path(os.environ["PREIMAGE_DATA"]) / "faces" / "celeba_test12").glob("*.jpg"))
    small = [Image.open(file).convert("RGB").resize((64, 64), Image.Resampling.BILINEAR) for file in files]
    return torch.stack([torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1) for image in small])


def order_of(name: str) -> np.ndarray:
    """The positions of the coefficients of an image, (3, 64, 64) flattened, in the order of the descent."""
    positions = np.arange(math.prod(SHAPE)).reshape(SHAPE)
    return {
        "channels last": positions.transpose(1, 2, 0).ravel(),
        "channels first": positions.ravel(),
        "backwards": positions.ravel()[::-1],
    }[name]


def published(problem: Problem, order: np.ndarray) -> torch.Tensor:
    """scikit-learn's stopped iterate."""
    from sklearn.linear_model import Lasso as CoordinateDescent

    transform, rows = problem.prior.transform(), problem.operator.matrix.tables(problem.y)
    factor = math.sqrt(2 * len(rows))
    design = np.asfortranarray(transform(rows.reshape(-1, *SHAPE)).flatten(1).numpy()[:, order] * factor)
    model = CoordinateDescent(alpha=0.01, fit_intercept=True, tol=1e-4, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not all of its runs converge
        found = np.stack([model.fit(design, y).coef_ for y in (problem.y * factor).numpy()])
    coefficients = np.empty_like(found)
    coefficients[:, order] = found
    return transform.adjoint(torch.from_numpy(coefficients).float().reshape(-1, *SHAPE))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("measurements", type=int)
    parser.add_argument("--draws", type=int, default=12)
    parser.add_argument("--peer", action="store_true", help="scikit-learn's stopped iterate")
    parser.add_argument("--order", choices=("channels last", "channels first", "backwards"), default="channels last")
    given = parser.parse_args()
    torch.set_num_threads(1)
    clean, prior = faces(), WaveletSparsity(SHAPE)
    found: dict[str, list[float]] = {name: [] for name in SCALINGS}
    for draw in range(given.draws):
        operator = CompressiveSensing(SHAPE, measurements=given.measurements, key=Key(draw))
        noise = GaussianNoise(sigma=0.1 / math.sqrt(given.measurements))
        y = noise.sample(operator(clean), Key(1000 + draw))
        problem = Problem(operator, y, noise, prior, 0.005)
        x = published(problem, order_of(given.order)) if given.peer else solve(problem, Lasso()).x
        for name, scaled in SCALINGS.items():
            errors = (scaled(x).clamp(0, 1) - clean).square().flatten(1).mean(1)
            found[name].append(float(-10 * errors.log10().mean()))
        print(draw, ", ".join(f"{name} {values[-1]:.2f}" for name, values in found.items()), flush=True)
    for name, values in found.items():
        deviation = statistics.stdev(values) if len(values) > 1 else math.nan
        error = deviation / math.sqrt(len(values))
        print(f"{name}: {statistics.mean(values):.2f} dB, sd {deviation:.2f}, standard error {error:.2f}")


if __name__ == "__main__":
    main()
