"""The Gaussian prior on the published compressive-sensing problems: 12 faces, 64 x 64, fitted on other faces."""

import os
import time
from pathlib import Path

import pytest
import torch
from preimage_baselines import GaussianPosterior, GaussianSpectrum, SpectrumModel, fit_spectrum
from preimage_baselines.fit_images import folder_images

from preimage import GaussianNoise, Key, Problem, solve

pytestmark = pytest.mark.skipif(
    "PREIMAGE_DATA" not in os.environ, reason="PREIMAGE_DATA, the root of the faces, is not set"
)
SHAPE = (3, 64, 64)
STATIONARY = {1000: 26.1, 2500: 31.3, 5000: 37.5}
LOW_RANK = {1000: 27.2, 2500: 32.3}


@pytest.fixture(scope="module")
def faces():
    """(to fit, to test), bilinear with antialiasing."""
    folders = [Path("faces") / name for name in ("celeba_train", "celeba_test12")]
    return [folder_images(folder, size=64, channels=3, crop="resize")[0] for folder in folders]


@pytest.fixture(scope="module")
def stationary(faces):
    return fit_spectrum(faces[0], flip=True)[0]


@pytest.fixture(scope="module")
def low_rank(faces):
    return fit_spectrum(faces[0], mean="image", components=1400, flip=True, shift=True)[0]


def decibels(x, truth):
    return float((-10 * (x.clamp(0, 1) - truth).square().mean((1, 2, 3)).log10()).mean())


def study(model: SpectrumModel, truth: torch.Tensor, measurements: int, capsys, label: str) -> float:
    """y = A x + e, A_ij ~ N(0, 1/m), e_i ~ N(0, 0.01/m): the convention of the published tables."""
    compressive_sensing = pytest.importorskip("preimage_compressive_sensing")
    operator = compressive_sensing.CompressiveSensing(SHAPE, measurements=measurements, key=Key(0))
    noise = GaussianNoise(sigma=0.1 / measurements**0.5)
    y = noise.sample(operator(truth), Key(0).child("noise"))
    started = time.process_time()
    result = solve(Problem(operator, y, noise, GaussianSpectrum.of(SHAPE, model).float()), GaussianPosterior())
    cpu, found = time.process_time() - started, decibels(result.x, truth)
    with capsys.disabled():
        print(f"\ngaussian-spectrum, {label}, m = {measurements}: {found:.2f} dB, {cpu:.1f} s CPU for 12 images")
    return found


def test_a_thousand_measurements(faces, stationary, capsys):
    assert study(stationary, faces[1], 1000, capsys, "stationary") >= STATIONARY[1000]


@pytest.mark.slow
@pytest.mark.parametrize("measurements", [2500, 5000])
def test_more_measurements(faces, stationary, measurements, capsys):
    assert study(stationary, faces[1], measurements, capsys, "stationary") >= STATIONARY[measurements]


@pytest.mark.slow
@pytest.mark.parametrize("measurements", LOW_RANK)
def test_with_a_low_rank_part(faces, low_rank, measurements, capsys):
    assert study(low_rank, faces[1], measurements, capsys, "1400 components") >= LOW_RANK[measurements]


def test_the_shipped_faces_are_those_of_the_training_images(faces):
    fitted, _ = fit_spectrum(faces[0], mean="image", flip=True)
    shipped = SpectrumModel.load("faces")
    assert torch.allclose(shipped.mean, fitted.mean, atol=1e-6)
    assert torch.allclose(shipped.spectrum, fitted.spectrum, rtol=1e-3, atol=1e-6)
