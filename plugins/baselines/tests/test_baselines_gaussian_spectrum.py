import math

import numpy as np
import pytest
import torch
from preimage_baselines import GaussianSpectrum, SpectrumModel, fit_spectrum
from scipy.fft import dctn

from preimage import Basis, Key, dot
from preimage.errors import BadFile, ShapeMismatch
from preimage.testing import check_operator, check_prior

DOUBLE = torch.zeros((), dtype=torch.float64)


def model(shape=(3, 6, 8), components=4, mean=True):
    """A made-up model: random colour covariances under a falling spectrum, a mean image, random components."""
    channels, height, width = shape
    roots = Key(1).normal((height, width, channels, channels), DOUBLE)
    radius = torch.arange(height)[:, None] + torch.arange(width) + 1
    spectrum = (roots @ roots.mT + 0.1 * torch.eye(channels)) / radius[..., None, None].double() ** 2
    average = 0.5 + 0.2 * Key(2).normal(shape, DOUBLE) if mean else torch.zeros(shape, dtype=torch.float64)
    return SpectrumModel(average, spectrum.permute(2, 3, 0, 1), 0.5 * Key(3).normal((components, *shape), DOUBLE))


def cosine_matrix(shape):
    """The orthonormal DCT-II of every channel as a matrix, by SciPy."""
    size = math.prod(shape)
    images = np.eye(size).reshape(size, *shape)
    return dctn(images, axes=(2, 3), norm="ortho").reshape(size, size).T


def covariance(model):
    """C as a matrix, straight from the definition."""
    channels, height, width = model.shape
    blocks = np.zeros((channels, height, width, channels, height, width))
    for row in range(height):
        for column in range(width):
            blocks[:, row, column, :, row, column] = model.spectrum[:, :, row, column]
    size = math.prod(model.shape)
    q, loads = cosine_matrix(model.shape), model.components.flatten(1).numpy()
    return q.T @ blocks.reshape(size, size) @ q + loads.T @ loads


@pytest.fixture(params=[0, 4], ids=["stationary", "low-rank"])
def pair(request):
    """A prior, and its covariance as a matrix."""
    made = model(components=request.param)
    return GaussianSpectrum.of(made.shape, made), covariance(made)


def images(prior, count=3):
    return Key(4).uniform((count, *prior.in_shape), DOUBLE)


def vectors(x):
    return x.flatten(1).numpy()


@pytest.mark.parametrize("components", [0, 4])
def test_without_a_mean_it_keeps_the_laws(components):
    made = model(components=components, mean=False)
    check_prior(GaussianSpectrum.of(made.shape, made))


def test_the_energy_and_its_gradient_are_those_of_the_dense_gaussian(pair):
    prior, c = pair
    x = images(prior)
    deviation = vectors(x - prior.mean)
    weighted = np.linalg.solve(c, deviation.T).T
    assert np.allclose(prior.energy(x), 0.5 * (deviation * weighted).sum(1), rtol=1e-9)
    assert np.allclose(vectors(prior.grad(x)), weighted, rtol=1e-8, atol=1e-8 * abs(weighted).max())


def test_the_proximal_map_is_the_dense_solution(pair):
    prior, c = pair
    x, steps = images(prior), torch.tensor([0.0, 0.01, 3.0], dtype=torch.float64)
    for row, step in enumerate(steps.tolist()):
        gain = c @ np.linalg.inv(c + step * np.eye(len(c)))
        expected = prior.mean.flatten().numpy() + vectors(x - prior.mean)[row] @ gain.T
        assert np.allclose(vectors(prior.prox(x, steps))[row], expected, atol=1e-10)
        assert np.allclose(vectors(prior.prox(x, step))[row], expected, atol=1e-10)
        assert torch.allclose(prior.denoise(x, step**0.5), prior.prox(x, step), atol=1e-12)


def test_decode_is_a_square_root_of_the_covariance_and_encode_its_inverse(pair):
    prior, c = pair
    size = len(c)
    root = vectors(prior.decode(torch.eye(size).double().reshape(size, *prior.in_shape)) - prior.mean).T
    assert np.allclose(root @ root.T, c, atol=1e-10 * c.max())
    assert torch.allclose(prior.decode(prior.encode(images(prior))), images(prior), atol=1e-10)
    assert np.allclose(prior.variance().flatten(), np.diag(c), rtol=1e-10)


def test_whitening_is_a_linear_operator_and_the_prior_its_quadratic(pair):
    prior, _ = pair
    check_operator(prior.analysis())
    c = prior.analysis()(images(prior)) - prior.target()
    assert torch.allclose(prior.energy(images(prior)), 0.5 * dot(c, c), rtol=1e-9)


def test_a_grey_stationary_prior_is_diagonal_in_the_cosine_basis():
    made = model((1, 6, 8), 0)
    diagonal = GaussianSpectrum.of(made.shape, made).analysis().normal_diagonal()
    assert diagonal is not None
    assert diagonal.basis is Basis.COSINE
    assert torch.allclose(diagonal.eigenvalues, 1 / made.spectrum[0, 0])


def test_samples_have_the_mean_and_the_covariance():
    made = model((1, 3, 4), 2)
    prior = GaussianSpectrum.of(made.shape, made)
    drawn = vectors(prior.sample(20000, Key(9), DOUBLE))
    c = covariance(made)
    error = 5 * math.sqrt(2 / 20000) * c.diagonal().max()
    assert np.allclose(drawn.mean(0), made.mean.flatten(), atol=5 * math.sqrt(c.diagonal().max() / 20000))
    assert np.allclose(np.cov(drawn.T), c, atol=error)


# Other shapes


def test_one_channel_is_the_luminance_of_three():
    made = model()
    weights = np.array([0.2125, 0.7154, 0.0721])
    small = made.to_shape((1, 6, 8))
    mixing = np.kron(weights, np.eye(48))
    assert np.allclose(covariance(small), mixing @ covariance(made) @ mixing.T, atol=1e-12)
    assert np.allclose(small.mean.flatten(), mixing @ made.mean.flatten().numpy())


def test_other_numbers_of_channels_are_independent():
    two = covariance(model().to_shape((2, 6, 8)))
    one = covariance(model().to_shape((1, 6, 8)))
    assert np.allclose(two[:48, :48], one)
    assert np.allclose(two[48:, 48:], one)
    assert not two[:48, 48:].any()


def power_law(size, exponent=-2.0):
    index = torch.arange(size, dtype=torch.float64)
    radius = (index.square()[:, None] + index.square()).sqrt().clamp_min(0.5)
    spectrum = radius**exponent
    return SpectrumModel(torch.full((1, size, size), 0.4).double(), spectrum[None, None], torch.zeros(0, 1, size, size))


@pytest.mark.parametrize(("size", "exponent"), [(16, -2.0), (64, -2.0), (48, -3.0)])
def test_a_power_law_is_carried_to_any_resolution(size, exponent):
    """The same scene on a finer grid: coefficient k of an orthonormal transform grows with the zoom."""
    made = power_law(32, exponent).to_shape((1, size, size))
    expected = (size / 32) ** 2 * power_law(size, exponent).spectrum
    assert torch.allclose(made.spectrum, expected, rtol=0.02)
    assert torch.allclose(made.mean, torch.full_like(made.mean, 0.4))


def test_shrinking_equals_fitting_to_shrunken_images():
    """Low frequencies of an image and of its block means agree, so the variances of pixels must."""
    prior = GaussianSpectrum((1, 64, 64), weights="natural")
    half = GaussianSpectrum((1, 32, 32), weights="natural")
    drawn = prior.sample(200, Key(0), DOUBLE)
    means = torch.nn.functional.avg_pool2d(drawn, 2)
    assert float(half.variance().mean()) == pytest.approx(float((means - half.mean).square().mean()), rel=0.1)


@pytest.mark.parametrize("weights", ["natural", "faces"])
@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 96, 96), (3, 33, 70), (5, 16, 9), (1, 1, 7), (1, 1, 1)])
def test_any_shape_is_served(weights, shape):
    prior = GaussianSpectrum(shape, weights=weights)
    x = Key(0).uniform((2, *shape), DOUBLE)
    assert bool(torch.isfinite(prior.energy(x)).all())
    assert torch.allclose(prior.decode(prior.encode(x)), x, atol=1e-9)


@pytest.mark.parametrize("weights", ["natural", "faces"])
def test_shipped_weights_are_plausible_and_say_where_they_come_from(weights):
    from preimage.weights import load_weights

    prior = GaussianSpectrum((3, 64, 64), weights=weights)
    deviation = prior.variance().sqrt()
    assert 0.1 < float(deviation.mean()) < 0.4
    assert 0.2 < float(prior.mean.mean()) < 0.7
    facts = load_weights(weights, "prior/gaussian-spectrum").facts
    assert facts["data"]["images"] >= 896
    assert len(facts["data"]["sha256"]) == 64
    assert "research" in facts["note"]


def test_photographs_are_far_more_likely_than_noise_and_faces_prefer_faces():
    photographs = pytest.importorskip("preimage_data").Photographs(size=64, colour="colour", count=8)
    x = torch.stack([photographs[index] for index in range(8)]).double()
    noise = x.mean() + x.std() * Key(0).normal(x.shape, x)
    prior = GaussianSpectrum((3, 64, 64))
    assert float(prior.energy(x).median()) < 0.05 * float(prior.energy(noise).median())


def test_single_precision_is_enough():
    made = model()
    double = GaussianSpectrum.of(made.shape, made)
    single = GaussianSpectrum.of(made.shape, made).float()
    x = images(double)
    assert single.prox(x.float(), 0.1).dtype == torch.float32
    assert torch.allclose(single.prox(x.float(), 0.1).double(), double.prox(x, 0.1), atol=1e-5)
    assert torch.allclose(single.energy(x.float()).double(), double.energy(x), rtol=1e-3)


def test_images_without_a_channel_axis_are_refused():
    with pytest.raises(ShapeMismatch, match="channel"):
        GaussianSpectrum((8, 8))


def test_unknown_weights_are_refused_with_the_names_there_are():
    with pytest.raises(BadFile, match="natural"):
        GaussianSpectrum((1, 8, 8), weights="natrual")


def test_a_saved_model_is_read_back(tmp_path):
    made, _ = fit_spectrum(Key(0).uniform((40, 3, 8, 8)), mean="image", components=5, share=0.4)
    made.save(tmp_path / "model.safetensors", {"note": "made up"})
    read = SpectrumModel.load(str(tmp_path / "model.safetensors"))
    assert torch.allclose(read.spectrum, made.spectrum, rtol=1e-6)
    assert torch.allclose(read.mean, made.mean, atol=1e-7)
    assert torch.allclose(read.components, made.components, atol=1e-3)
