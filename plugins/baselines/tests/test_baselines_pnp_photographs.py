"""Plug-and-play methods, half quadratic splitting and RED on photographs, with the operators of the other plugins."""

import pytest
import torch
from preimage_baselines import RED, HalfQuadraticSplitting, PnPADMM, PnPProximalGradient, TotalVariation

from preimage import Denoiser, GaussianNoise, Identity, Key, Problem, solve
from preimage.errors import Incompatible

SIGMA = 0.025
IMAGES = (1, 64, 64)


class CalibratedTV(Denoiser):
    """Total variation with the weight that suits noise of standard deviation sigma on photographs."""

    def __init__(self, shape):
        super().__init__(shape)
        self.prior = TotalVariation(shape, tolerance=1e-4)

    def denoise(self, x, sigma):
        return self.prior.prox(x, 0.5 * sigma)


def photographs():
    data = pytest.importorskip("preimage_data").Photographs(size=64, count=2)
    return torch.stack([data[0], data[1]])


def operator_named(name):
    if name == "identity":
        return Identity(IMAGES)
    if name == "gaussian-blur":
        return pytest.importorskip("preimage_gaussian_blur").GaussianBlur(IMAGES)
    if name == "inpainting":
        return pytest.importorskip("preimage_inpainting").Inpainting(IMAGES, mask="random", keep=0.5, key=Key(1))
    if name == "compressive-sensing":
        module = pytest.importorskip("preimage_compressive_sensing")
        return module.CompressiveSensing(IMAGES, measurements=2048, ensemble="dct", key=Key(2))
    return pytest.importorskip("preimage_perona_malik").PeronaMalik(IMAGES)


def psnr(x, truth):
    return -10 * torch.log10((x.clamp(0, 1) - truth).square().flatten(1).mean(1))


GAINS = {"identity": 0.3, "gaussian-blur": 3.5, "inpainting": 12, "compressive-sensing": 14, "perona-malik": 0.6}
FOR_LINEAR = [
    PnPProximalGradient(),
    PnPADMM(),
    RED(max_steps=150),
    HalfQuadraticSplitting(regularisation=0.23, levels=24),
]


@pytest.mark.parametrize("solver", FOR_LINEAR, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("name", GAINS)
def test_photographs_improve_on_the_start(name, solver):
    truth, operator, noise = photographs(), operator_named(name), GaussianNoise(sigma=SIGMA)
    problem = Problem(operator, noise.sample(operator(truth), Key(0)), noise, CalibratedTV(IMAGES), SIGMA**2 / 4)
    if not isinstance(operator, solver.operator_type):
        with pytest.raises(Incompatible):
            solve(problem, solver)
        return
    gain = psnr(solve(problem, solver).x, truth) - psnr(problem.start(), truth)
    assert float(gain.min()) > GAINS[name]
