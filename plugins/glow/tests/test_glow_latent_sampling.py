"""The sampler against the closed form of a linear generator, and against quadrature of a nonlinear one."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from preimage_glow import LatentSampling, LinearGaussian, latent_sampling
from preimage_glow.effective_sample_size import chain_diagnostics
from preimage_glow.gaussian_approximation import Curvature, laplace_approximation
from preimage_glow.latent_curvature import latent_curvature

from preimage import (
    GaussianNoise,
    Generative,
    Identity,
    Key,
    LinearOperator,
    NoNoise,
    PoissonNoise,
    Problem,
    Status,
    solve,
)
from preimage.errors import BadParameter, Diverged, Incompatible
from preimage.testing import check_component

SHAPE = (1, 2, 3)
N = math.prod(SHAPE)
SIGMA = 0.3
DOUBLE = torch.zeros((), dtype=torch.float64)


class Matrix(LinearOperator):
    def __init__(self, rows, key=Key(1)):
        super().__init__(SHAPE, (rows,))
        self.register_buffer("matrix", key.normal((rows, N), DOUBLE) / math.sqrt(rows))

    def forward(self, x):
        return x.flatten(1) @ self.matrix.to(x).mT


class Cubic(Generative):
    """x = z + z^3 / 2, value by value: one to one, and far from linear."""

    def __init__(self, in_shape):
        super().__init__(in_shape)
        self.latent_shape = in_shape

    def decode(self, z):
        return z + 0.5 * z**3


def linear_problem(count=2, weight=1.0, sigma=SIGMA):
    prior, operator = LinearGaussian(SHAPE, spectrum="inverse", mean=0.5, basis="dct"), Matrix(4)
    y = operator(prior.sample(count, Key(2), DOUBLE)) + sigma * Key(3).normal((count, 4), DOUBLE)
    return Problem(operator, y, GaussianNoise(sigma=sigma), prior, weight), prior.posterior(operator, y, sigma, weight)


def errors_in_deviations(result, exact):
    """Errors of mean and deviation, in standard errors of independent draws: of a Gaussian, dev / sqrt(N) and
    dev / sqrt(2 N)."""
    worth = result.details["effective_sample_size"].to(result.x).reshape(-1, 1, 1, 1)
    mean = (result.x - exact.mean) / exact.deviation * worth.sqrt()
    return mean.abs(), ((result.details["deviation"] / exact.deviation - 1) * (2 * worth).sqrt()).abs()


BLIND = LatentSampling(leapfrog_steps=2, search_evaluations=0, step_size=0.5, chains=64, warmup=15, draws=50)
"""Of an acceptance well below 1, for its reference knows nothing of the data: the correction matters."""


@pytest.mark.parametrize(
    "solver",
    [
        LatentSampling(warmup=0, draws=30, leapfrog_steps=1, chains=32),
        LatentSampling(warmup=40, draws=30, leapfrog_steps=2, rank=2, chains=64),
        LatentSampling(warmup=40, draws=30, leapfrog_steps=3, search_evaluations=0, start="random", chains=64),
        LatentSampling(warmup=20, draws=50, leapfrog_steps=1, search_evaluations=0, step_size=0.6, chains=64),
        BLIND,
    ],
    ids=["laplace", "two-directions", "prior", "langevin", "blind"],
)
def test_mean_and_deviation_are_those_of_the_closed_form(solver):
    problem, exact = linear_problem()
    result = solve(problem, solver, key=Key(7))
    assert result.status == (Status.CONVERGED,) * 2
    mean, deviation = errors_in_deviations(result, exact)
    assert mean.max() < 3
    assert deviation.max() < 3
    assert (result.details["effective_sample_size"] > 80).all()


def test_with_the_curvature_known_draws_are_independent():
    problem, exact = linear_problem()
    found = solve(problem, LatentSampling(warmup=0, draws=50, leapfrog_steps=1, chains=32), key=Key(4)).details
    assert (found["acceptance"] > 0.9999).all()
    assert (found["effective_sample_size"] > 0.7 * 1600).all()
    assert (found["scale_reduction"] < 1.05).all()
    assert torch.allclose(found["mode"], exact.mean, atol=1e-2)


def test_the_weight_is_the_precision_of_the_prior():
    problem, exact = linear_problem(weight=5.0)
    result = solve(problem, LatentSampling(warmup=0, draws=30, leapfrog_steps=1, chains=64), key=Key(6))
    assert max(float(e.max()) for e in errors_in_deviations(result, exact)) < 3
    other = problem.prior.posterior(problem.operator, problem.y, SIGMA, 1.0)
    assert max(float(e.max()) for e in errors_in_deviations(result, other)) > 8


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("acceptance_probability", lambda gain: torch.ones_like(gain)),
        ("acceptance_probability", lambda gain: (0.5 * gain).clamp_max(0).exp()),
        ("dispersion", lambda noise: 2 * noise.sigma**2),
        ("dispersion", lambda noise: noise.sigma),
    ],
    ids=["no-rejection", "half-the-energy", "twice-the-variance", "sigma-not-squared"],
)
def test_a_sampler_of_another_density_is_found_out(monkeypatch, name, wrong):
    """The test of the closed form fails, and by far, if the correction or the temperature is wrong."""
    problem, exact = linear_problem()
    monkeypatch.setattr(latent_sampling, name, wrong)
    result = solve(problem, BLIND, key=Key(7))
    assert max(float(e.max()) for e in errors_in_deviations(result, exact)) > 4


def test_a_posterior_that_is_not_gaussian():
    """Cubic generator, three pixels measured one by one: each is a one-dimensional integral."""
    shape = (1, 1, 3)
    prior, operator = Cubic(shape), Identity(shape)
    y = torch.tensor([[[[0.2, 1.5, -4.0]]]], dtype=torch.float64)
    grid = np.linspace(-4, 4, 20001)
    density = np.exp(-((grid + 0.5 * grid**3 - y.numpy().reshape(3, 1)) ** 2) / 2 / 0.5**2 - grid**2 / 2)
    density /= density.sum(1, keepdims=True)
    x = grid + 0.5 * grid**3
    mean = (density * x).sum(1)
    deviation = np.sqrt((density * x**2).sum(1) - mean**2)
    solver = LatentSampling(warmup=40, draws=50, leapfrog_steps=2, chains=128)
    result = solve(Problem(operator, y, GaussianNoise(sigma=0.5), prior), solver, key=Key(8))
    worth = float(result.details["effective_sample_size"][0])
    assert worth > 500
    assert np.abs(result.x.numpy().ravel() - mean) == pytest.approx(
        0, abs=float(3 / math.sqrt(worth) * deviation.max())
    )
    assert result.details["deviation"].numpy().ravel() == pytest.approx(deviation, rel=4 / math.sqrt(2 * worth))
    assert 0.5 < float(result.details["acceptance"][0]) < 0.99


class Exponential(Generative):
    """x = exp(z), log-normal and positive."""

    def __init__(self, in_shape):
        super().__init__(in_shape)
        self.latent_shape = in_shape

    def decode(self, z):
        return z.exp()


def test_photon_counts():
    """One pixel: the posterior of a log-normal rate given one count, by quadrature."""
    prior, peak = Exponential((1, 1, 1)), 8.0
    y = torch.full((1, 1, 1, 1), 12 / peak, dtype=torch.float64)
    grid = np.linspace(-5, 5, 20001)
    density = np.exp(12 * grid - peak * np.exp(grid) - grid**2 / 2)  # exp(z) is the mean of the count / peak
    density /= density.sum()
    mean = (density * np.exp(grid)).sum()
    deviation = math.sqrt((density * np.exp(2 * grid)).sum() - mean**2)
    solver = LatentSampling(warmup=30, draws=40, leapfrog_steps=1, chains=128)
    result = solve(Problem(Identity((1, 1, 1)), y, PoissonNoise(peak=peak), prior), solver, key=Key(9))
    worth = float(result.details["effective_sample_size"][0])
    assert float(result.x) == pytest.approx(mean, abs=3 * deviation / math.sqrt(worth))
    assert float(result.details["deviation"]) == pytest.approx(deviation, rel=4 / math.sqrt(2 * worth))


def test_the_laws_hold():
    assert check_component("solver", "latent-sampling") > 1


class Torn(Cubic):
    """NaN in one half of latent space, infinite slopes at its border."""

    def decode(self, z):
        return z.sqrt() + 0.5


def test_nan_is_rejected_and_never_comes_back():
    y = torch.tensor([[[[0.6, 0.7, 1.0]]], [[[0.9, 0.8, 0.7]]]], dtype=torch.float64)
    problem = Problem(Identity((1, 1, 3)), y, GaussianNoise(sigma=0.5), Torn((1, 1, 3)), x0=None)
    solver = LatentSampling(warmup=40, draws=60, leapfrog_steps=2, start="random", search_evaluations=0, chains=1)
    keys = [key for key in Key(0).rows(200) if float(key.child("chain", 0, "start").normal((1, 1, 3)).min()) > 0.2]
    result = solve(problem, solver, key=keys[:2])
    assert torch.isfinite(result.x).all()
    assert torch.isfinite(result.details["deviation"]).all()
    assert (result.details["acceptance"] > 0.1).all()
    assert (result.x > 0.5).all()  # nothing from where G is NaN


def test_an_image_without_a_finite_start_says_so_and_its_batch_mates_go_on():
    y = torch.tensor([[[[0.6, 0.7, 1.0]]], [[[0.9, 0.8, 0.7]]]], dtype=torch.float64)
    problem = Problem(Identity((1, 1, 3)), y, GaussianNoise(sigma=0.5), Torn((1, 1, 3)))
    solver = LatentSampling(warmup=5, draws=8, leapfrog_steps=1, start="random", search_evaluations=0, chains=1)
    starts = {key: float(key.child("chain", 0, "start").normal((1, 1, 3)).min()) for key in Key(0).rows(200)}
    good = next(key for key, lowest in starts.items() if lowest > 0.2)
    bad = next(key for key, lowest in starts.items() if lowest < -0.2)
    result = solve(problem, solver, key=[bad, good], throw=False)
    assert result.status == (Status.DIVERGED, Status.CONVERGED)
    assert "use another start" in result.reasons[0]
    assert torch.isfinite(result.x).all()
    with pytest.raises(Diverged, match="use another start"):
        solve(problem, solver, key=[bad, good])


def test_evaluations_are_counted():
    calls = []

    class Counted(LinearGaussian):
        def decode(self, z):
            calls.append(len(z))
            return super().decode(z)

    problem, _ = linear_problem(count=1)
    counted = replace(problem, prior=Counted(SHAPE))
    found = solve(counted, LatentSampling(warmup=3, draws=8, leapfrog_steps=2, chains=3, rank=2), key=Key(0))
    assert float(found.details["evaluations"][0]) == sum(calls)


def test_stopped_in_the_warm_up_it_says_what_it_does_not_know():
    problem, _ = linear_problem()
    found = solve(problem, LatentSampling(warmup=10, leapfrog_steps=1, max_steps=5), key=Key(0))
    assert found.status == (Status.MAX_STEPS,) * 2
    assert torch.isfinite(found.x).all()
    assert all(torch.isnan(found.details[k]).all() for k in ("deviation", "effective_sample_size", "acceptance"))


def test_an_image_is_encoded_for_the_start():
    problem, exact = linear_problem()
    solver = LatentSampling(start="encode", start_scale=1.0, search_evaluations=0, warmup=0, draws=1, leapfrog_steps=1)
    found = solve(replace(problem, x0=exact.mean), solver, key=Key(0))
    assert torch.allclose(found.details["mode"], exact.mean)
    with pytest.raises(Incompatible, match="has no image"):
        solve(problem, solver, key=Key(0))
    with pytest.raises(Incompatible, match="cannot tell"):
        solve(Problem(Identity(SHAPE), torch.zeros(1, *SHAPE), GaussianNoise(sigma=0.1), Cubic(SHAPE)), solver)


def test_float32():
    problem, exact = linear_problem()
    result = solve(
        replace(problem, y=problem.y.float()), LatentSampling(warmup=0, draws=30, leapfrog_steps=1, chains=32)
    )
    assert result.x.dtype == torch.float32
    assert max(float(e.max()) for e in errors_in_deviations(result, exact)) < 3.5


def test_a_likelihood_is_needed():
    problem, _ = linear_problem()
    for noise, said in ((NoNoise(), "NoNoise has no"), (GaussianNoise(sigma=0.0), "without a level above zero")):
        with pytest.raises(Incompatible, match=said):
            solve(replace(problem, noise=noise), LatentSampling())
    with pytest.raises(BadParameter, match="weight is 0"):
        solve(replace(problem, weight=0.0), LatentSampling())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"chains": 0}, "chains is 0"),
        ({"warmup": -1}, "warmup is -1"),
        ({"draws": 0}, "draws is 0"),
        ({"leapfrog_steps": 0}, "leapfrog_steps is 0"),
        ({"rank": -1}, "rank is -1"),
        ({"search_evaluations": -1}, "search_evaluations is -1"),
        ({"images_at_once": 0}, "images_at_once is 0"),
        ({"acceptance": 1.0}, "acceptance is 1.0"),
        ({"step_size": 0.0}, "step_size is 0.0"),
        ({"step_size": 0.8, "leapfrog_steps": 2}, r"\(0, 0.7854\]"),
        ({"start_scale": -1.0}, "start_scale is -1.0"),
        ({"max_steps": -1}, "max_steps is -1"),
    ],
)
def test_values_out_of_range(given, message):
    with pytest.raises(BadParameter, match=message):
        LatentSampling(**given)


# Parts


def autoregression(rho, chains, draws, count=20):
    normal = np.random.default_rng(0).standard_normal((count, chains, draws))
    x = np.empty_like(normal)
    x[..., 0] = normal[..., 0]
    for t in range(1, draws):
        x[..., t] = rho * x[..., t - 1] + math.sqrt(1 - rho**2) * normal[..., t]
    return torch.from_numpy(x)


@pytest.mark.parametrize("rho", [-0.3, 0.0, 0.5, 0.9])
def test_effective_sample_size_of_an_autoregression(rho):
    """N (1 - rho) / (1 + rho)."""
    found = chain_diagnostics(autoregression(rho, 4, 1000))
    expected = 4000 * (1 - rho) / (1 + rho)
    assert float(found.effective.mean()) == pytest.approx(expected, rel=0.12)
    assert (found.scale_reduction < 1.05).all()


def test_chains_in_different_places_are_worth_little():
    draws = autoregression(0.0, 4, 200) + 3 * torch.arange(4)[:, None]
    found = chain_diagnostics(draws)
    assert (found.effective < 10).all()
    assert (found.scale_reduction > 2).all()
    still = chain_diagnostics(torch.ones(2, 3, 40))
    assert (still.effective == 0).all()
    assert torch.isnan(chain_diagnostics(torch.ones(2, 3, 7)).effective).all()


@pytest.mark.parametrize("rank", [0, 2, 4, 9])
def test_a_laplace_approximation_has_the_largest_curvatures(rank):
    """Four large eigenvalues of J^T W J, two of them equal for one image: where its Krylov space ends, others go on."""
    n = 9
    q, _ = torch.linalg.qr(Key(0).normal((2, n, n), DOUBLE))
    values = torch.tensor([[50.0, 50, 9, 8, 0, 0, 0, 0, 0], [70.0, 40, 30, 20, 0, 0, 0, 0, 0]]).double()
    scale, jacobian = torch.tensor([1.0, 4.0]).double(), values.sqrt()[:, :, None] * q.mT
    jacobian = jacobian / scale.sqrt()[:, None, None]

    def curvature(v):
        tangent = torch.einsum("bij,bj->bi", jacobian, v)
        weighed = scale[:, None] * tangent
        return Curvature(tangent, weighed, torch.einsum("bij,bi->bj", jacobian, weighed))

    found = laplace_approximation(curvature, torch.zeros(2, n).double(), torch.ones(2).double(), rank, Key(1).rows(2))
    u, eye = Key(2).normal((2, 3, n), DOUBLE), torch.eye(n).double().expand(2, n, n)
    assert torch.allclose(found.covariance(found.precision(u)), u, atol=1e-8)
    square = found.draw(eye)
    assert torch.allclose(square @ square.mT, found.covariance(eye), atol=1e-8)
    assert torch.allclose(found.quadratic(u), 0.5 * (u * found.precision(u)).sum(-1))
    overlap = found.directions @ found.directions.mT
    assert torch.allclose(overlap, torch.eye(rank).double().expand(2, rank, rank), atol=1e-8)
    assert (found.precisions >= 1 - 1e-9).all()
    assert (found.precisions <= 1 + values[:, :1] + 1e-9).all()
    if rank == n:
        assert torch.allclose(found.precision(eye), eye + q @ torch.diag_embed(values) @ q.mT, atol=1e-8)


@pytest.mark.parametrize("noise", [GaussianNoise(sigma=0.2), PoissonNoise(peak=9.0)], ids=["gaussian", "poisson"])
def test_the_curvature_of_a_latent_is_that_of_automatic_differentiation(noise):
    """J^T W J from torch's Jacobian of the map and its Hessian of the misfit."""
    prior, operator = Exponential(SHAPE), Matrix(4)
    operator.matrix.abs_()
    y = Key(1).uniform((2, 4), DOUBLE) + 0.5
    z = Key(2).normal((2, N), DOUBLE)
    problem = Problem(operator, y, noise, prior)
    curvature = latent_curvature(problem, z, 0.04)
    v = Key(3).normal((2, N), DOUBLE)
    found = curvature(v)
    for i in range(2):
        j = torch.func.jacrev(lambda u: operator(u.exp().reshape(1, *SHAPE))[0])(z[i])
        p = operator(z[i].exp().reshape(1, *SHAPE))
        w = torch.func.jacrev(torch.func.jacrev(lambda p, i=i: noise.misfit(p, y[i : i + 1])[0]))(p)[0, :, 0] / 0.04
        assert torch.allclose(found.tangent[i], j @ v[i], rtol=1e-5, atol=1e-7)
        assert torch.allclose(found.weighed[i], w @ j @ v[i], rtol=1e-5, atol=1e-6)
        assert torch.allclose(found.product[i], j.T @ w @ j @ v[i], rtol=1e-5, atol=1e-6)
