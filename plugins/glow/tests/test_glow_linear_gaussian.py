"""The linear Gaussian generator against scipy and against dense linear algebra written another way."""

import math

import numpy as np
import pytest
import torch
from preimage_glow import LinearGaussian
from scipy.fft import dctn
from scipy.stats import multivariate_normal

from preimage import GaussianNoise, Key, LinearOperator, Problem, solve
from preimage.errors import BadParameter, ShapeMismatch
from preimage.testing import check_component

SHAPE = (2, 3, 4)
N = math.prod(SHAPE)
DOUBLE = torch.zeros((), dtype=torch.float64)


class Matrix(LinearOperator):
    def __init__(self, rows, key):
        super().__init__(SHAPE, (rows,))
        self.register_buffer("matrix", key.normal((rows, N), DOUBLE) / math.sqrt(rows))

    def forward(self, x):
        return x.flatten(1) @ self.matrix.to(x).mT


def generator_of(prior):
    """S, column by column, (n, n)."""
    return (prior.decode(torch.eye(N).double()) - prior.mean).flatten(1).mT


def test_the_laws_hold():
    assert check_component("prior", "linear-gaussian") == 4


@pytest.mark.parametrize(
    ("spectrum", "expected"),
    [
        ("flat", np.ones(N)),
        ("inverse", 1 / np.arange(1, N + 1)),
        ("inverse-square", np.arange(1, N + 1) ** -2.0),
        ("step", np.r_[np.ones(2), np.full(N - 2, 1e-3)]),
        (tuple(range(N, 0, -1)), np.arange(N, 0, -1)),
    ],
)
@pytest.mark.parametrize("basis", ["identity", "dct", "random"])
def test_the_singular_values_are_those_asked_for(spectrum, expected, basis):
    prior = LinearGaussian(SHAPE, spectrum=spectrum, scale=0.7, basis=basis)
    found = torch.linalg.svdvals(generator_of(prior)).numpy()
    assert found == pytest.approx(0.7 * expected, rel=1e-10)


def test_bases():
    z = torch.eye(N).double()
    identity = LinearGaussian(SHAPE, spectrum="flat").decode(z)
    assert torch.equal(identity.flatten(1), z)
    waves = LinearGaussian(SHAPE, spectrum="flat", basis="dct").decode(z).numpy()
    coefficients = dctn(waves, axes=(2, 3), norm="ortho")
    channel, row, column = (
        np.argmax(np.abs(coefficients).reshape(N, -1), 1) // d % s for d, s in ((12, 2), (4, 3), (1, 4))
    )
    assert np.abs(coefficients).reshape(N, -1).max(1) == pytest.approx(1)
    assert list(zip(channel, row, column, strict=True))[:6] == [
        (0, 0, 0),
        (1, 0, 0),
        (0, 0, 1),
        (1, 0, 1),
        (0, 1, 0),
        (1, 1, 0),
    ]
    radius = (row / 3) ** 2 + (column / 4) ** 2
    assert (np.diff(radius) >= 0).all()
    one, other = (generator_of(LinearGaussian(SHAPE, spectrum="flat", basis="random", seed=s)) for s in (0, 1))
    assert torch.allclose(one.mT @ one, z, atol=1e-12)
    assert (one - other).abs().max() > 0.1
    again = generator_of(LinearGaussian(SHAPE, spectrum="flat", basis="random", seed=1))
    assert torch.equal(other, again)


def test_the_density_is_that_of_scipy():
    prior = LinearGaussian(SHAPE, spectrum="inverse", scale=0.5, mean=0.3, basis="random")
    s = generator_of(prior).numpy()
    x = prior.sample(5, Key(3), DOUBLE)
    expected = multivariate_normal(np.full(N, 0.3), s @ s.T).logpdf(x.flatten(1).numpy())
    assert prior.log_density(x).numpy() == pytest.approx(expected, rel=1e-9)
    assert prior.energy(x).numpy() == pytest.approx(-expected, rel=1e-9)


def test_samples_have_its_moments():
    prior = LinearGaussian((1, 1, 3), spectrum="inverse", mean=0.5, basis="random")
    x = prior.sample(20000, Key(0), DOUBLE).flatten(1).numpy()
    s = (prior.decode(torch.eye(3).double()) - 0.5).flatten(1).mT.numpy()
    assert x.mean(0) == pytest.approx(np.full(3, 0.5), abs=0.02)
    assert np.cov(x.T) == pytest.approx(s @ s.T, abs=0.03)


@pytest.mark.parametrize("rows", [5, N, 2 * N])
def test_the_posterior_is_the_one_of_the_covariance_form(rows):
    """mean + C A^T (A C A^T + sigma^2)^-1 (y - A mean), C = S S^T / weight: the form in the space of measurements."""
    prior = LinearGaussian(SHAPE, spectrum="inverse", mean=0.4, basis="dct")
    operator, sigma, weight = Matrix(rows, Key(1)), 0.05, 1.7
    y = operator(prior.sample(2, Key(2), DOUBLE)) + sigma * Key(4).normal((2, rows), DOUBLE)
    found = prior.posterior(operator, y, sigma, weight)
    s, a = generator_of(prior).numpy(), operator.matrix.numpy()
    c = s @ s.T / weight
    gain = c @ a.T @ np.linalg.inv(a @ c @ a.T + sigma**2 * np.eye(rows))
    mean = 0.4 + (y.numpy() - 0.4 * a.sum(1)) @ gain.T
    covariance = c - gain @ a @ c
    assert found.mean.flatten(1).numpy() == pytest.approx(mean, abs=1e-10)
    assert found.covariance.numpy() == pytest.approx(covariance, abs=1e-10)
    assert found.deviation.flatten().numpy() == pytest.approx(np.sqrt(np.diag(covariance)), abs=1e-10)
    assert prior.decode(found.latent_mean).numpy() == pytest.approx(found.mean.numpy(), abs=1e-12)
    assert (s @ found.latent_covariance.numpy() @ s.T) == pytest.approx(covariance, abs=1e-10)


def test_without_noise_the_posterior_is_the_least_norm_solution():
    prior, operator = LinearGaussian(SHAPE, spectrum="inverse", basis="random"), Matrix(7, Key(5))
    y = operator(prior.sample(2, Key(6), DOUBLE))
    found = prior.posterior(operator, y, 0.0)
    b = operator.matrix.numpy() @ generator_of(prior).numpy()
    assert found.latent_mean.numpy() == pytest.approx(y.numpy() @ np.linalg.pinv(b).T, abs=1e-10)
    assert operator(found.mean).numpy() == pytest.approx(y.numpy(), abs=1e-10)
    projection = np.eye(N) - np.linalg.pinv(b) @ b
    assert found.latent_covariance.numpy() == pytest.approx(projection, abs=1e-10)


def test_it_is_a_prior_of_other_solvers():
    """The minimiser of misfit + sigma^2 R is the posterior mean, by a solver that knows only the gradient."""
    from preimage_baselines import GradientDescent

    prior, operator, sigma = LinearGaussian(SHAPE, spectrum="flat", scale=0.5), Matrix(10, Key(7)), 0.3
    y = operator(prior.sample(2, Key(8), DOUBLE)) + sigma * Key(9).normal((2, 10), DOUBLE)
    problem = Problem(operator, y, GaussianNoise(sigma=sigma), prior, weight=sigma**2)
    found = solve(problem, GradientDescent(step_size=0.1, max_steps=500)).x
    assert torch.allclose(found, prior.posterior(operator, y, sigma).mean, atol=1e-3)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"scale": 0.0}, BadParameter, "scale is 0.0"),
        ({"scale": float("inf")}, BadParameter, "scale is inf"),
        ({"mean": float("nan")}, BadParameter, "mean is nan"),
        ({"rank": 3}, BadParameter, "rank is 3, for spectrum 'inverse'"),
        ({"spectrum": "step", "rank": 0}, BadParameter, "rank is 0"),
        ({"spectrum": "step", "rank": N + 1}, BadParameter, f"rank is {N + 1}"),
        ({"spectrum": "step", "floor": 0.0}, BadParameter, "floor is 0.0"),
        ({"spectrum": "cliff"}, BadParameter, "spectrum is 'cliff'"),
        ({"spectrum": (1.0, 2.0)}, BadParameter, "spectrum has 2 numbers"),
        ({"spectrum": (0.0,) * N}, BadParameter, f"spectrum has {N} numbers, the least 0.0"),
        ({"basis": "wavelet"}, BadParameter, "basis is 'wavelet'"),
        ({"basis": "random", "in_shape": (3, 64, 64)}, BadParameter, "for images of 12288 values"),
        ({"basis": "dct", "in_shape": (5,)}, ShapeMismatch, "images are"),
    ],
)
def test_values_out_of_range(given, error, message):
    with pytest.raises(error, match=message):
        LinearGaussian(**{"in_shape": SHAPE, **given})


def test_a_posterior_of_no_noise_model():
    prior, operator = LinearGaussian(SHAPE), Matrix(3, Key(0))
    with pytest.raises(BadParameter, match="sigma is -1"):
        prior.posterior(operator, torch.zeros(1, 3), -1.0)
    with pytest.raises(BadParameter, match="weight is 0"):
        prior.posterior(operator, torch.zeros(1, 3), 1.0, weight=0.0)
