"""Fitting untrained networks to 12 images together, against one after the other: CPU time per image, equal results.

12 images of 64 x 64 x 3 values, a Gaussian matrix of 2500 measurements or denoising. What a batch shares is the
operator: the matrix is read once for all. Networks with weights of their own have no work in common but the starting of
operations. How much of an image's time that is bounds what a batch could save, and is measured by a network of one
channel, which starts as many operations.
"""

import math
import time
from dataclasses import replace

import pytest
import torch
from preimage_compressive_sensing import CompressiveSensing
from preimage_networks.deep_decoder import DeepDecoder
from preimage_networks.deep_image_prior import DeepImagePrior

from preimage import GaussianNoise, Identity, Key, Problem, solve

SHAPE, COUNT, ROUNDS = (3, 64, 64), 12, 3


def problem_of(operator, sigma, dtype):
    rows, columns = torch.linspace(0, 6, 64), torch.linspace(0, 8, 64)
    phases = torch.arange(COUNT * 3).reshape(COUNT, 3, 1, 1)
    x = (0.5 + 0.4 * torch.sin(rows[:, None] + phases) * torch.cos(columns + phases)).to(dtype)
    noise = GaussianNoise(sigma=sigma)
    return x, Problem(operator, noise.sample(operator(x), Key(1)), noise)


def timed(work):
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def psnr(estimate, x):
    return -10 * (estimate.clamp(0, 1) - x).square().flatten(1).mean(1).log10()


@pytest.mark.parametrize("solver", [DeepDecoder, DeepImagePrior], ids=lambda s: s.__name__)
@pytest.mark.parametrize(
    ("task", "dtype", "guard"),
    [
        ("m = 2500", torch.float64, None),
        ("m = 2500", torch.float32, None),
        ("denoising", torch.float32, 1.0),
    ],
    ids=["cs-float64", "cs-float32", "denoising"],
)
def test_twelve_images_together(task, dtype, guard, solver, record_row):
    if task == "denoising":
        x, problem = problem_of(Identity(SHAPE), 0.1, dtype)
    else:
        x, problem = problem_of(CompressiveSensing(SHAPE, measurements=2500, key=Key(0)), 0.1 / math.sqrt(2500), dtype)
    made = solver(max_steps=12, stopping="none")
    keys = Key(2).rows(COUNT)
    ours, theirs, alone = [], [], torch.zeros_like(x)
    for _ in range(ROUNDS):
        seconds, together = timed(lambda: solve(problem, made, key=keys).x)
        ours.append(seconds / COUNT)
        spent = 0.0
        for index in range(COUNT):
            row = torch.tensor([index])
            seconds, alone[index] = timed(
                lambda row=row, index=index: solve(problem.rows(row), made, key=[keys[index]]).x[0]
            )
            spent += seconds
        theirs.append(spent / COUNT)
    gap = float((psnr(together, x) - psnr(alone, x)).abs().max())
    assert gap <= 1e-3
    name = f"{solver.__name__}, {task}, {str(dtype).removeprefix('torch.')}, 12 images, per image"
    note = f"{made.max_steps} steps each; results differ by at most {gap:.1g} dB"
    record_row(name, ours, ("one image after the other", theirs), 0.5, guard=guard, note=note)


@pytest.mark.parametrize(
    ("full", "thin"),
    [
        (DeepDecoder(max_steps=12, stopping="none"), {"channels": 1}),
        (DeepImagePrior(max_steps=12, stopping="none"), {"channels": 1, "skip_channels": 1, "input_channels": 1}),
    ],
    ids=lambda s: type(s).__name__,
)
def test_what_a_batch_could_save_in_denoising(full, thin, record_row):
    """An upper bound: one image with one channel, which starts every operation and computes next to nothing."""
    _, problem = problem_of(Identity(SHAPE), 0.1, torch.float32)
    problem = problem.rows(torch.tensor([0]))
    solvers, times = (replace(full, **thin), full), ([], [])
    for _ in range(9):
        for solver, found in zip(solvers, times, strict=True):
            found.append(timed(lambda solver=solver: solve(problem, solver, key=Key(2)))[0])
    name = f"{type(full).__name__}, denoising, one channel, one image"
    note = "at most so much of an image's time is not arithmetic, which is all that a batch could save"
    record_row(name, times[0], ("the network as it is", times[1]), 1.0, note=note)
