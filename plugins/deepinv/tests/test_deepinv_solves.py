"""Our solvers on deepinv's physics, from TOML."""

import tomllib

import pytest

from preimage import Pipeline, solve
from preimage._solver import Status

OPERATORS = {
    "deblurring": 'name = "deepinv/blur"\nsigma = 1.5\npadding = "circular"',
    "inpainting": 'name = "deepinv/inpainting"\nmask = 0.5',
    "mri": 'name = "deepinv/mri"\nacceleration = 3',
    "tomography": 'name = "deepinv/tomography"\nangles = 24',
    "compressive sensing": 'name = "deepinv/compressed-sensing"\nm = 400',
}
METHODS = {
    "fista, tv": ('name = "tv"\nweight = 0.003', 'name = "fista"\nmax_steps = 150'),
    "admm, tv": ('name = "tv"\nweight = 0.003', 'name = "admm"\nmax_steps = 150'),
    "cg, tikhonov": ('name = "tikhonov"\nweight = 0.003', 'name = "conjugate-gradients"\nmax_steps = 150'),
    "plug and play, bm3d": ('name = "bm3d"\nweight = 0.01', 'name = "hqs"'),
}
TEXT = """
seed = 1

[data]
name = "photographs"
names = ["camera"]
size = 32

[operator]
{operator}

[noise]
name = "deepinv/gaussian"
sigma = 0.01

[prior]
{prior}

[solver]
{solver}
"""


def psnr(estimate, truth):
    return float(-10 * (estimate - truth).square().mean().log10())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("problem", OPERATORS)
def test_better_than_the_adjoint_start(problem, method):
    prior, solver = METHODS[method]
    pipeline = Pipeline.from_dict(tomllib.loads(TEXT.format(operator=OPERATORS[problem], prior=prior, solver=solver)))
    truth = pipeline.data[0][None]
    y = pipeline.simulate(truth)
    given = pipeline.problem(y)
    result = solve(given, pipeline.solver)
    assert result.status[0] is not Status.DIVERGED
    start, end = psnr(given.start(), truth), psnr(result.x, truth)
    print(f"{problem}, {method}: {start:.2f} -> {end:.2f} dB, {result.status[0].name}")
    assert end > start + 2
