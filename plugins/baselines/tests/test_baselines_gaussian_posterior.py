import math

import numpy as np
import pytest
import torch
from preimage_baselines import GaussianPosterior, GaussianSpectrum, SpectrumModel, Tikhonov

from preimage import (
    Basis,
    Diagonal,
    GaussianNoise,
    Identity,
    Key,
    LinearOperator,
    Problem,
    Status,
    per_image_operator,
    solve,
)
from preimage.errors import BadParameter, Incompatible
from preimage.testing import check_solver
from preimage.transforms import dct2, idct2

SHAPE = (3, 6, 8)
SIZE = math.prod(SHAPE)
DOUBLE = torch.zeros((), dtype=torch.float64)


class Matrix(LinearOperator):
    def __init__(self, matrix):
        super().__init__(SHAPE, (len(matrix),))
        self.register_buffer("matrix", matrix)

    def forward(self, x):
        return x.flatten(1) @ self.matrix.to(x).mT

    def adjoint(self, y):
        return (y @ self.matrix.to(y)).reshape(-1, *SHAPE)


class Filter(LinearOperator):
    """A filter that the cosine transform makes diagonal; `hidden` says so to nobody."""

    def __init__(self, hidden=False, per_channel=False):
        super().__init__(SHAPE, SHAPE)
        radius = torch.arange(6)[:, None] + torch.arange(8).double()
        response = 1 / (1 + 0.3 * radius)[None]
        self.hidden = hidden
        self.response = response * torch.tensor([1.0, 0.8, 0.5])[:, None, None] if per_channel else response

    def forward(self, x):
        return idct2(dct2(x) * self.response.to(x))

    def normal_diagonal(self):
        return None if self.hidden else Diagonal(Basis.COSINE, self.response**2)


class Mask(LinearOperator):
    def __init__(self):
        super().__init__(SHAPE, SHAPE)
        self.mask = (Key(5).uniform(SHAPE, DOUBLE) < 0.5).double()

    def forward(self, x):
        return x * self.mask.to(x)

    def normal_diagonal(self):
        return Diagonal(Basis.PIXEL, self.mask)


class Shift(LinearOperator):
    """A circular mean of neighbours, diagonal in the Fourier basis."""

    def __init__(self):
        super().__init__(SHAPE, SHAPE)

    def forward(self, x):
        return 0.6 * x + 0.4 * x.roll(-1, -1)

    def normal_diagonal(self):
        angle = 2 * math.pi * torch.arange(8 // 2 + 1).double() / 8
        return Diagonal(Basis.FOURIER, (0.36 + 0.16 + 0.48 * torch.cos(angle))[None, None, :].expand(1, 6, -1))


OPERATORS = {
    "identity": Identity(SHAPE),
    "filter": Filter(),
    "filter that does not say so": Filter(hidden=True),
    "filter per channel": Filter(per_channel=True),
    "mask": Mask(),
    "shift": Shift(),
    "matrix": Matrix(Key(6).normal((40, SIZE), DOUBLE) / 40**0.5),
    "tall matrix": Matrix(Key(6).normal((200, SIZE), DOUBLE) / 200**0.5),
}


def prior(components=4):
    roots = Key(1).normal((6, 8, 3, 3), DOUBLE)
    radius = torch.arange(6)[:, None] + torch.arange(8) + 1
    spectrum = ((roots @ roots.mT + 0.1 * torch.eye(3)) / radius[..., None, None].double() ** 2).permute(2, 3, 0, 1)
    mean = 0.5 + 0.2 * Key(2).normal(SHAPE, DOUBLE)
    model = SpectrumModel(mean, spectrum, 0.5 * Key(3).normal((components, *SHAPE), DOUBLE))
    return GaussianSpectrum.of(SHAPE, model)


def dense(linear, size=SIZE, shape=SHAPE):
    """The matrix of a map of batches, by NumPy."""
    return linear(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).flatten(1).numpy().T


def dense_posterior(operator, prior, y, sigma, weight=1.0):
    """Mean and covariance of the posterior in float64 NumPy: the textbook formulas (Bishop 2006, section 2.3.3)."""
    a, root = dense(operator), dense(lambda z: prior.decode(z) - prior.mean)
    c, mean = root @ root.T / weight, prior.mean.flatten().numpy()
    gain = c @ a.T @ np.linalg.inv(a @ c @ a.T + sigma**2 * np.eye(len(a)))
    residual = y.flatten(1).numpy() - a @ mean
    return mean + residual @ gain.T, c - gain @ a @ c


def problem(operator, prior, sigma=0.1, count=2, weight=1.0):
    noise = GaussianNoise(sigma=sigma)
    y = noise.sample(operator(Key(7).uniform((count, *SHAPE), DOUBLE)), Key(8))
    return Problem(operator, y, noise, prior, weight)


METHOD = {
    "identity": "closed form",
    "filter": "closed form",
    "matrix": "factorised",
}


@pytest.mark.parametrize("components", [0, 4])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_mean_is_that_of_the_dense_posterior(name, components):
    given = problem(OPERATORS[name], prior(components))
    result = solve(given, GaussianPosterior(tolerance=1e-13))
    assert METHOD.get(name, "residual") in result.reasons[0]
    assert set(result.status) == {Status.CONVERGED}
    expected, _ = dense_posterior(given.operator, given.prior, given.y, 0.1)
    assert np.allclose(result.x.flatten(1), expected, atol=1e-8)


@pytest.mark.parametrize("method", ["dense", "iterative"])
@pytest.mark.parametrize("name", ["identity", "filter", "matrix", "tall matrix"])
def test_all_methods_agree(name, method):
    given = problem(OPERATORS[name], prior())
    expected, _ = dense_posterior(given.operator, given.prior, given.y, 0.1)
    result = solve(given, GaussianPosterior(method=method, tolerance=1e-13))
    assert np.allclose(result.x.flatten(1), expected, atol=1e-8)


@pytest.mark.parametrize("components", [0, 4])
@pytest.mark.parametrize(
    ("name", "method"), [("filter", "auto"), ("identity", "auto"), ("mask", "dense"), ("matrix", "auto")]
)
@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_exact_variances_are_the_diagonal_of_the_dense_covariance(name, method, components, weight):
    given = problem(OPERATORS[name], prior(components), weight=weight)
    result = solve(given, GaussianPosterior(method=method, variance=True))
    mean, covariance = dense_posterior(given.operator, given.prior, given.y, 0.1, weight)
    assert np.allclose(result.x.flatten(1), mean, atol=1e-8)
    assert np.allclose(result.details["variance"].flatten(1), np.diag(covariance), rtol=1e-8)


@pytest.mark.parametrize("weight", [1.0, 3.0])
@pytest.mark.parametrize("name", ["mask", "filter per channel"])
def test_the_variance_from_samples_is_unbiased_and_as_accurate_as_it_says(name, weight):
    given, samples = problem(OPERATORS[name], prior(), weight=weight, count=1), 1000
    found = (
        solve(given, GaussianPosterior(variance=True, samples=samples, tolerance=1e-4)).details["variance"].flatten(1)
    )
    _, covariance = dense_posterior(given.operator, given.prior, given.y, 0.1, weight)
    ratio = found.numpy() / np.diag(covariance)
    error = math.sqrt(2 / samples)
    assert abs(ratio.mean() - 1) < error
    assert abs(ratio - 1).max() < 5 * error
    assert 0.7 * error < ratio.std() < 1.4 * error


def test_samples_depend_on_the_key_alone():
    given, solver = problem(OPERATORS["mask"], prior()), GaussianPosterior(variance=True, samples=4)
    keys = [Key(3), Key(4)]
    both = solve(given, solver, key=keys).details["variance"]
    second = solve(given.rows(torch.tensor([1])), solver, key=keys[1:]).details["variance"]
    other = solve(given, solver, key=Key(5)).details["variance"]
    assert torch.allclose(both[1:], second, rtol=1e-6)
    assert not torch.allclose(both, other, rtol=1e-2)


@pytest.mark.parametrize("method", ["auto", "iterative"])
@pytest.mark.parametrize("kind", ["identity", "gradient"])
@pytest.mark.parametrize("name", ["identity", "filter", "mask", "shift", "matrix"])
def test_any_quadratic_prior_has_a_posterior(name, kind, method):
    given = problem(OPERATORS[name], Tikhonov(SHAPE, kind=kind), weight=2.0)
    result = solve(given, GaussianPosterior(method=method, tolerance=1e-12, variance=True, samples=100))
    a, k = dense(given.operator), dense(given.prior.analysis())
    precision = a.T @ a + 0.1**2 * 2.0 * k.T @ k
    expected = np.linalg.solve(precision, a.T @ given.y.flatten(1).numpy().T).T
    assert np.allclose(result.x.flatten(1), expected, atol=1e-7 * abs(expected).max())
    variance = 0.1**2 * np.diag(np.linalg.inv(precision))
    exact = "closed" in result.reasons[0]
    ratio = result.details["variance"].flatten(1).numpy() / variance
    assert np.allclose(ratio, 1, atol=1e-8 if exact else 5 * math.sqrt(2 / 100))


def test_operators_of_their_own_are_factorised_one_by_one():
    matrices = [Matrix(Key(index).normal((40, SIZE), DOUBLE)) for index in range(2)]
    given = problem(per_image_operator(matrices), prior())
    result = solve(given, GaussianPosterior(variance=True))
    assert "factorised" in result.reasons[0]
    for index, matrix in enumerate(matrices):
        mean, covariance = dense_posterior(matrix, given.prior, given.y[index : index + 1], 0.1)
        assert np.allclose(result.x[index].flatten(), mean[0], atol=1e-8)
        assert np.allclose(result.details["variance"][index].flatten(), np.diag(covariance), rtol=1e-8)


class Counting(Matrix):
    """Counts how many vectors the adjoint is applied to, in a list that is not the operator's own."""

    def __init__(self, matrix, seen):
        super().__init__(matrix)
        object.__setattr__(self, "seen", seen)

    def adjoint(self, y):
        self.seen.append(len(y))
        return super().adjoint(y)


def test_a_shared_operator_is_factorised_once_for_the_batch():
    seen = []
    operator = Counting(OPERATORS["matrix"].matrix, seen)
    solve(problem(operator, prior(), count=7), GaussianPosterior())
    assert sum(seen) == 40


@pytest.mark.parametrize("name", ["filter", "matrix", "mask"])
def test_it_keeps_the_laws_of_solvers(name):
    check_solver(GaussianPosterior(tolerance=1e-10), problem=problem(OPERATORS[name], prior(), count=3))


@pytest.mark.parametrize("name", ["filter", "matrix", "mask"])
def test_single_precision_is_enough(name):
    given = problem(OPERATORS[name], prior())
    expected, _ = dense_posterior(given.operator, given.prior, given.y, 0.1)
    single = Problem(given.operator, given.y.float(), given.noise, prior().float())
    result = solve(single, GaussianPosterior())
    assert result.x.dtype == torch.float32
    assert np.allclose(result.x.flatten(1), expected, atol=1e-3)


@pytest.mark.parametrize("name", ["filter", "matrix", "mask"])
def test_without_noise_the_measurement_is_kept(name):
    operator = OPERATORS[name]
    y = operator(Key(7).uniform((2, *SHAPE), DOUBLE))
    result = solve(Problem(operator, y, GaussianNoise(sigma=0.0), prior()), GaussianPosterior(tolerance=1e-9))
    assert torch.allclose(operator(result.x), y, atol=1e-5)


def test_the_objective_is_least_at_the_estimate():
    given = problem(OPERATORS["mask"], prior())
    result = solve(given, GaussianPosterior())
    scaled = Problem(given.operator, given.y, given.noise, given.prior, 0.1**2)
    assert torch.allclose(result.objective, scaled.objective(result.x))
    for size in (1e-2, 1e-1):
        assert bool(
            (scaled.objective(result.x + size * Key(1).normal(result.x.shape, DOUBLE)) > result.objective).all()
        )


def test_few_steps_are_reported_as_such():
    result = solve(problem(OPERATORS["mask"], prior()), GaussianPosterior(max_steps=2))
    assert set(result.status) == {Status.MAX_STEPS}


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [({"tolerance": -1.0}, "tolerance"), ({"samples": 0}, "samples"), ({"dense_limit": -1}, "dense_limit")],
)
def test_bad_parameters_are_refused(arguments, mentions):
    with pytest.raises(BadParameter, match=mentions):
        GaussianPosterior(**arguments)


def test_methods_that_are_not_there_are_refused():
    with pytest.raises(Incompatible, match="closed-form"):
        solve(problem(OPERATORS["matrix"], prior()), GaussianPosterior(method="closed-form"))
    with pytest.raises(Incompatible, match="dense"):
        solve(problem(OPERATORS["matrix"], Tikhonov(SHAPE)), GaussianPosterior(method="dense"))


def test_no_prior_has_no_variance():
    with pytest.raises(BadParameter, match="weight"):
        solve(problem(OPERATORS["mask"], prior(), weight=0.0), GaussianPosterior(variance=True))
