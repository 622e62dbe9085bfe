"""Compressive sensing by the closed form of a fitted Gaussian prior, against the published sparsity baseline.

The peer is scikit-learn's Lasso on the coefficients of an orthonormal DCT of every channel, with the parameters of the
published comparison (alpha 0.01 for the rows scaled by sqrt(2 m), tolerance 1e-4, at most 1000 sweeps). It gets the
matrix of the sensing operator in that basis for nothing; ours gets the operator, and starts from there: both solve from
the measurements to the images. All twelve images of the published problem share one operator, so that ours factorises
once, and the peer starts again for every image: at m = 5000 the peer is the faster one for up to four images.
"""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from preimage_baselines import GaussianPosterior, GaussianSpectrum, fit_spectrum
from preimage_baselines.fit_images import folder_images
from preimage_compressive_sensing import CompressiveSensing
from preimage_data import Photographs

from preimage import GaussianNoise, Key, Problem, solve
from preimage.transforms import dct2, idct2

linear_model = pytest.importorskip("sklearn.linear_model")

SHAPE, COUNT = (3, 64, 64), 12


@pytest.fixture(scope="module")
def images():
    """What is shown, the prior and the images: faces, fitted on other faces, where there are any; else photographs."""
    if "PREIMAGE_DATA" in os.environ:
        train, test = (
            folder_images(Path("faces") / name, size=64, channels=3, crop="resize")[0]
            for name in ("celeba_train", "celeba_test12")
        )
        return "faces", GaussianSpectrum.of(SHAPE, fit_spectrum(train, flip=True)[0]).float(), test[:COUNT]
    photographs = Photographs(size=64, colour="colour", count=COUNT)
    x = torch.stack([photographs[index] for index in range(COUNT)])
    return "photographs", GaussianSpectrum(SHAPE).float(), x


def decibels(x, truth):
    return float((-10 * (x.clamp(0, 1) - truth).square().mean((1, 2, 3)).log10()).mean())


def lasso(matrix: np.ndarray, y: np.ndarray) -> torch.Tensor:
    """The published call, image by image; `matrix` maps DCT coefficients, channels last, to measurements.

    The order of the coefficients is the published one, too: it is the order of the sweeps, and with this one they stop
    after half as many as with channels first, at a better image.
    """
    scale = (2 * len(matrix)) ** 0.5
    found = []
    for measured in y:
        model = linear_model.Lasso(alpha=0.01, fit_intercept=True, tol=1e-4, max_iter=1000)
        found.append(model.fit(matrix * scale, measured * scale).coef_)
    channels, height, width = SHAPE
    return idct2(torch.as_tensor(np.stack(found)).float().reshape(-1, height, width, channels).permute(0, 3, 1, 2))


@pytest.mark.parametrize("measurements", [1000, 2500, 5000])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_compressive_sensing_against_lasso(record_row, images, measurements):
    shown, prior, x = images
    operator = CompressiveSensing(SHAPE, measurements=measurements, key=Key(0))
    noise = GaussianNoise(sigma=0.1 / measurements**0.5)
    y = noise.sample(operator(x), Key(0).child("noise"))
    rows = operator.adjoint(torch.eye(measurements))
    matrix = np.asfortranarray(dct2(rows).permute(0, 2, 3, 1).flatten(1).numpy())
    started = time.process_time()
    found = solve(Problem(operator, y, noise, prior), GaussianPosterior()).x
    ours = time.process_time() - started
    started = time.process_time()
    sparse = lasso(matrix, y.numpy())
    theirs = time.process_time() - started
    quality = [decibels(found, x), decibels(sparse, x)]
    assert quality[0] > quality[1] + 3
    record_row(
        f"gaussian-spectrum, compressive sensing, {COUNT} {shown}, m = {measurements}",
        [ours],
        ("scikit-learn Lasso, DCT, published parameters", [theirs]),
        1.0,
        note=f"{quality[0]:.2f} dB against {quality[1]:.2f} dB",
    )
