"""Latent search: an own L-BFGS for each image, against torch's over the batch as one vector, by evaluations.

Compressive sensing of the 12 published faces, 64 x 64, m = 1000 Gaussian measurements, noise of expected squared norm
0.01, no penalty, from z = 0. The peer has the settings of the code that Asim et al. published: torch.optim.LBFGS with
rate 0.1, 20 inner iterations, history 100 and no line search, the latents of all images one vector, the loss their mean
squared residual, 30 steps. One evaluation is one gradient of all images.

Compared is what it takes to reach the PSNR that the peer ends with, less 0.02 dB (its first evaluation from which it
stays there), by evaluations per image, which must be at most 0.55 of the peer's, and by CPU time. Both sides keep the
estimate of every evaluation; PSNR decides nothing but where the count is read.
"""

import math
import os
import time
from pathlib import Path

import pytest
import torch
from preimage_compressive_sensing import CompressiveSensing
from preimage_data.folder import Folder
from preimage_glow.latent_map import LatentMap

from preimage import GaussianNoise, Key, Problem, hookimpl, load, solve
from preimage.errors import PreimageError

SHAPE, MEASUREMENTS, STEPS, GOAL, NEAR = (3, 64, 64), 1000, 30, 0.55, 0.02
FACES = Path(os.environ.get("PREIMAGE_DATA", "nowhere")) / "faces" / "celeba_test12"

pytestmark = pytest.mark.skipif(not FACES.is_dir(), reason="needs PREIMAGE_DATA with faces/celeba_test12")


def faces():
    images = Folder(path=FACES, size=64, colour="colour", interpolation="bilinear")
    return torch.stack([images[i] for i in range(len(images))])


def psnr(estimate, x):
    return float(-10 * (estimate.clamp(0, 1) - x).square().flatten(1).mean(1).log10().mean())


class Curve:
    """Mean PSNR against evaluations per image and CPU time, which stands still while PSNR is computed."""

    def __init__(self, x):
        self.x, self.points, self.paused = x, [], 0.0
        self.started = time.process_time()

    def add(self, evaluations, estimate):
        at = time.process_time()
        self.points.append((evaluations, at - self.started - self.paused, psnr(estimate, self.x)))
        self.paused += time.process_time() - at

    def first_to_stay_at(self, level):
        """The first point from which PSNR is at least `level`."""
        low = [i for i, point in enumerate(self.points) if point[2] < level]
        return self.points[low[-1] + 1 if low else 0]


class Watch(Curve):
    """The curve of a run of ours."""

    @hookimpl
    def preimage_step(self, run):
        search = run.state.members[0].search if len(run.active) else None
        if search is not None:
            self.spent[run.active] = search.evaluations.double()
        self.add(float(self.spent.mean()), run.estimate())

    def __init__(self, x):
        super().__init__(x)
        self.spent = torch.ones(len(x), dtype=torch.float64)


def coupled(problem, x):
    """The published code's optimisation, over the whole batch."""
    curve = Curve(x)
    z = torch.zeros((len(x), *problem.prior.latent_shape), requires_grad=True)
    optimiser = torch.optim.LBFGS([z], lr=0.1)

    def closure():
        optimiser.zero_grad()
        image = problem.prior.decode(z)
        loss = (problem.operator(image) - problem.y).square().sum(1).mean()
        loss.backward()
        curve.add(len(curve.points) + 1, image.detach())
        return loss

    for _ in range(STEPS):
        optimiser.step(closure)
    return curve


def ours(problem, x, evaluations):
    curve = Watch(x)
    solver = LatentMap(penalty="none", max_evaluations=evaluations, max_steps=evaluations, tolerance=0.0)
    solve(problem, solver, observers=[curve])
    return curve


@pytest.mark.parametrize("name", ["glow"])
def test_evaluations_to_the_same_psnr(name, record_row):
    try:
        prior = load("prior", name)(SHAPE, weights="faces")
    except PreimageError as error:
        pytest.skip(f"prior/{name} has no weights for faces: {error}")
    x, operator = faces(), CompressiveSensing(SHAPE, measurements=MEASUREMENTS, key=Key(0))
    noise = GaussianNoise(sigma=0.1 / math.sqrt(MEASUREMENTS))
    problem = Problem(operator, noise.sample(operator(x), Key(1)), noise, prior, 0.0)
    theirs = coupled(problem, x)
    level = theirs.points[-1][2] - NEAR
    their_count, their_seconds, _ = theirs.first_to_stay_at(level)
    found = ours(problem, x, math.ceil(GOAL * their_count))
    reached = found.points[-1][2]
    assert reached >= level, f"{reached:.2f} dB after {found.points[-1][0]:.0f} evaluations, wanted {level:.2f}"
    count, seconds, _ = found.first_to_stay_at(level)
    note = f"{level:.2f} dB after {count:.0f} against {their_count} evaluations an image: {count / their_count:.2f}"
    record_row(
        f"latent search, prior/{name}, 12 faces, m = {MEASUREMENTS}, to equal PSNR",
        [seconds / len(x)],
        ("torch.optim.LBFGS over the batch, the published settings", [their_seconds / len(x)]),
        1.0,
        note=note,
    )
    assert count <= GOAL * their_count
