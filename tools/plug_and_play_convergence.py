"""What is claimed of plug-and-play methods with the averaged denoiser, measured.

python tools/plug_and_play_convergence.py [convergence] [uniqueness] [quality]      # default: all three

Blur, inpainting and compressive sensing of crops from BSDS500 (first names of its validation images; PREIMAGE_DATA is
where the data are), 96 x 96, grey, noise 0.025, in float64 (quality: in float32):

- convergence: steps until the relative fixed-point residual is below 1e-5, and the largest factor by which the absolute
  one, the change of the variable in which the iteration is an averaged operator, ever grew in a step;
- uniqueness: how far the limits of both solvers from three starts lie apart, with and without a contraction;
- quality: PSNR beside TV and BM3D, strengths chosen from the same number of values for each on a crop of its own.
"""

import argparse
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from preimage_baselines import ADMM, BM3D, PnPADMM, PnPProximalGradient, TotalVariation
from preimage_compressive_sensing import CompressiveSensing
from preimage_data import Folder, psnr
from preimage_gaussian_blur import GaussianBlur
from preimage_inpainting import Inpainting
from preimage_iresnet.averaged_denoiser import AveragedNetworkDenoiser
from torch import Tensor

from preimage import Denoiser, GaussianNoise, Key, LinearOperator, Problem, Solver, hookimpl, norms, solve

NOISE = 0.025
SIDE = 96
SIGMA = {"gaussian-blur": 0.01, "inpainting": 0.06, "compressive-sensing": 0.06}
"""Of the denoiser, where one is shown: about the best of those that `quality` tries."""

RESIDUAL = 1e-5
STEPS = 20_000


class Residuals:
    """An observer of a run of one image: ||s' - s|| of every step, s the variable of the averaged operator.

    That is x for proximal gradient descent, and x' + u = z + u (after the step) for ADMM, which is Douglas-Rachford
    splitting of it.
    """

    def __init__(self) -> None:
        self.last: Tensor | None = None
        self.values: list[float] = []

    @hookimpl
    def preimage_step(self, run: Any) -> None:
        s = run.state.z + run.state.u if isinstance(run.solver, PnPADMM) else run.state.x
        if self.last is not None:
            self.values.append(float(norms(s - self.last)))
        self.last = s

    def growth(self) -> float:
        """The largest ratio of two residuals in a row, minus one."""
        return max(b / a - 1 for a, b in itertools.pairwise(self.values))


def operators(side: int) -> dict[str, LinearOperator]:
    """The three operators, for grey images."""
    shape, key = (1, side, side), Key(0).child("operator")
    return {
        "gaussian-blur": GaussianBlur(shape),
        "inpainting": Inpainting(shape, mask="random", keep=0.5, key=key),
        "compressive-sensing": CompressiveSensing(shape, measurements=3 * side**2 // 10, ensemble="dct", key=key),
    }


def crops(count: int, side: int) -> Tensor:
    """(count, 1, side, side), float64."""
    folder = Path(os.environ["PREIMAGE_DATA"]) / "bsds500" / "val"
    images = Folder(path=folder, colour="grey", size=side, crop="centre", count=count)
    return torch.stack([images[index] for index in range(count)]).double()


def measured(operator: LinearOperator, images: Tensor) -> Problem:
    """The problem of these images."""
    noise = GaussianNoise(sigma=NOISE)
    return Problem(operator, noise.sample(operator(images), Key(0).child("noise")), noise)


def pair(problem: Problem, prior: Denoiser, sigma: float, tolerance: float) -> list[tuple[Problem, Solver[Any]]]:
    """Proximal gradient descent and ADMM with the same fixed points: step = 1 / rho = 1 / ||A||^2."""
    norm = problem.operator.norm_bound()
    assert norm is not None
    given = replace(problem, prior=prior, weight=(sigma * norm) ** 2)
    options: dict[str, Any] = {"sigma": sigma, "tolerance": tolerance, "max_steps": STEPS}
    return [(given, PnPProximalGradient(acceleration=False, **options)), (given, PnPADMM(**options))]


def convergence(images: Tensor, weights: str) -> None:
    """Prints a line for every operator, solver and image."""
    print("operator, solver, image: steps, first and last relative residual, largest growth of the absolute; reason")
    prior = AveragedNetworkDenoiser(tuple(images.shape[1:]), weights=weights).double()
    for name, operator in operators(images.shape[-1]).items():
        for index in range(len(images)):
            for problem, solver in pair(measured(operator, images[index : index + 1]), prior, SIGMA[name], RESIDUAL):
                watched = Residuals()
                found = solve(problem, solver, observers=[watched])
                first, last = (value / float(norms(found.x)) for value in (watched.values[0], watched.values[-1]))
                line = f"{found.steps[0]} steps, {first:.1e} to {last:.1e}, growth {watched.growth():+.1e}"
                print(f"{name}, {type(solver).__name__}, {index}: {line}; {found.reasons[0].partition(': ')[2]}")


def uniqueness(images: Tensor, weights: str, contractions: Sequence[float] = (1.0, 0.98)) -> None:
    """Prints a line for every operator and contraction."""
    print("operator, contraction: largest relative distance of limits, two solvers from three starts; steps; PSNR")
    for name, operator in operators(images.shape[-1]).items():
        for contraction in contractions:
            prior = AveragedNetworkDenoiser(tuple(images.shape[1:]), weights=weights, contraction=contraction).double()
            problem, limits, steps = measured(operator, images[:1]), list[Tensor](), list[int]()
            drawn = Key(0).child("start").uniform(images[:1].shape, images)
            for start in (problem.start(), torch.zeros_like(drawn), drawn):
                for given, solver in pair(replace(problem, x0=start), prior, SIGMA[name], 0.01 * RESIDUAL):
                    found = solve(given, solver)
                    limits.append(found.x)
                    steps += found.steps
            far = max(float(norms(a - b) / norms(b)) for a, b in itertools.combinations(limits, 2))
            quality = float(psnr(limits[0], images[:1]))
            print(f"{name}, {contraction}: {far:.1e}; {min(steps)} to {max(steps)} steps; {quality:.2f} dB")


def quality(images: Tensor, weights: str) -> None:
    """Prints a table with a row for every operator; the last image is the one that strengths are chosen on."""
    shape, images = tuple(images.shape[1:]), images.float()
    averaged, bm3d = AveragedNetworkDenoiser(shape, weights=weights), BM3D(shape)

    def plug_and_play(prior: Denoiser, steps: int) -> Callable[[Problem, float], Tensor]:
        def run(problem: Problem, sigma: float) -> Tensor:
            ((given, _), (_, solver)) = pair(problem, prior, sigma, 1e-4)
            return solve(given, replace(solver, max_steps=steps), throw=False).x

        return run

    def total_variation(problem: Problem, weight: float) -> Tensor:
        given = replace(problem, prior=TotalVariation(shape), weight=weight)
        return solve(given, ADMM(max_steps=500)).x

    methods: dict[str, tuple[Callable[[Problem, float], Tensor], Sequence[float]]] = {
        "averaged": (plug_and_play(averaged, 500), (0.007, 0.015, 0.03, 0.06)),
        "tv": (total_variation, (5e-4, 2e-3, 6e-3, 2e-2)),
        "bm3d": (plug_and_play(bm3d, 20), (0.007, 0.015, 0.03, 0.06)),
    }
    heads = ["operator", "start", *(f"{method} (strength)" for method in methods)]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    for name, operator in operators(images.shape[-1]).items():
        problem, other = measured(operator, images[:-1]), measured(operator, images[-1:])
        cells = [name, f"{float(psnr(problem.start(), images[:-1]).mean()):.2f}"]
        for run, strengths in methods.values():
            scores = {strength: float(psnr(run(other, strength), images[-1:])) for strength in strengths}
            best = max(strengths, key=scores.__getitem__)
            cells.append(f"{float(psnr(run(problem, best), images[:-1]).mean()):.2f} ({best:g})")
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Run the parts that are named, all of them without a name."""
    parts: dict[str, Callable[[Tensor, str], None]] = {
        "convergence": convergence,
        "uniqueness": uniqueness,
        "quality": quality,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=", ".join(parts))
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--side", type=int, default=SIDE)
    parser.add_argument("--weights", default="denoiser", help="a name that ships, or a file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    images = crops(given.images, given.side)
    for name in given.parts or parts:
        print(f"\n{name}", flush=True)
        parts[name](crops(given.images + 1, given.side) if name == "quality" else images, given.weights)


if __name__ == "__main__":
    main()
