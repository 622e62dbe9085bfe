"""The solvers against dense algebra, a slow independent solver, and their own promises.

The operators are written here in a few plain lines, so that no other plugin is needed.
"""

import math

import pytest
import torch
from preimage_baselines import ADMM, FISTA, ConjugateGradients, Tikhonov, TotalVariation

from preimage import (
    Basis,
    Diagonal,
    ForwardOperator,
    GaussianNoise,
    Identity,
    Key,
    LinearOperator,
    PoissonNoise,
    Problem,
    Status,
    hookimpl,
    solve,
)
from preimage.testing import check_solver

SHAPE = (1, 12, 14)
DOUBLE = torch.zeros((), dtype=torch.float64)


class Matrix(LinearOperator):
    def __init__(self, shape, matrix):
        super().__init__(shape, (len(matrix),))
        self.register_buffer("matrix", matrix)

    def forward(self, x):
        return x.flatten(1) @ self.matrix.to(x).mT

    def adjoint(self, y):
        return (y @ self.matrix.to(y)).reshape(-1, *self.in_shape)


class Mask(LinearOperator):
    def __init__(self, shape, mask):
        super().__init__(shape, shape)
        self.register_buffer("mask", mask)

    def forward(self, x):
        return x * self.mask.to(x)

    def adjoint(self, y):
        return y * self.mask.to(y)

    def normal_diagonal(self):
        return Diagonal(Basis.PIXEL, self.mask.double())


class Smoothing(LinearOperator):
    """A separable symmetric blur, diagonal in the cosine basis, applied as two banded matrices."""

    def __init__(self, shape, sigma=5 / 3, radius=5):
        super().__init__(shape, shape)
        weights = torch.exp(-torch.arange(-radius, radius + 1, dtype=torch.float64).square() / (2 * sigma**2))
        weights /= weights.sum()
        for name, n in zip(("down", "along"), shape[-2:], strict=True):
            matrix = torch.zeros(n, n, dtype=torch.float64)
            for i in range(n):
                for offset, weight in zip(range(-radius, radius + 1), weights, strict=True):
                    j = (i + offset) % (2 * n)
                    matrix[i, j if j < n else 2 * n - 1 - j] += weight
            frequency = torch.arange(n, dtype=torch.float64) * math.pi / n
            offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
            self.register_buffer(name, matrix)
            self.register_buffer(f"{name}_response", torch.cos(frequency[:, None] * offsets) @ weights)

    def forward(self, x):
        return self.down.to(x) @ x @ self.along.to(x).mT

    def adjoint(self, y):
        return self.down.to(y).mT @ y @ self.along.to(y)

    def norm_bound(self):
        return 1.0

    def normal_diagonal(self):
        return Diagonal(Basis.COSINE, (self.down_response[:, None] * self.along_response) ** 2)


class Diffusion(ForwardOperator):
    """Two explicit steps of Perona-Malik diffusion: not linear, and its derivative can be longer than one."""

    def __init__(self, shape, contrast=0.1, step=0.2):
        super().__init__(shape, shape)
        self.contrast, self.time = contrast, step

    def forward(self, x):
        for _ in range(2):
            down, along = x.diff(dim=-2), x.diff(dim=-1)
            down, along = (d / (1 + (d / self.contrast) ** 2) for d in (down, along))
            pad = torch.nn.functional.pad
            x = x + self.time * (
                pad(down, (0, 0, 0, 1)) - pad(down, (0, 0, 1, 0)) + pad(along, (0, 1)) - pad(along, (1, 0))
            )
        return x


def operators(shape=SHAPE):
    size = math.prod(shape)
    rows = size // 2
    return {
        "identity": Identity(shape),
        "blur": Smoothing(shape),
        "mask": Mask(shape, (Key(1).uniform(shape, DOUBLE) < 0.5).double()),
        "matrix": Matrix(shape, Key(2).normal((rows, size), DOUBLE) / rows**0.5),
        "large matrix": Matrix(shape, 30 * Key(2).normal((rows, size), DOUBLE) / rows**0.5),
    }


def images(count=2, shape=SHAPE):
    """Blocks and a ramp, float64, in [0, 1]."""
    x = 0.2 * torch.linspace(0, 1, shape[-1], dtype=torch.float64).expand(count, *shape).clone()
    for index in range(count):
        x[index, :, 3 : 7 + index, 2:9] += 0.6
    return x


def differences(x):
    """Forward differences, zero in the last row and column: (B, C, H, W) -> (B, 2, C, H, W)."""
    pad = torch.nn.functional.pad
    return torch.stack((pad(x.diff(dim=-2), (0, 0, 0, 1)), pad(x.diff(dim=-1), (0, 1))), 1)


def total_variation(x, variant="isotropic"):
    d = differences(x)
    return (d.norm(dim=1) if variant == "isotropic" else d.abs()).flatten(1).sum(1)


def primal_dual(operator, y, weight, norm, variant="isotropic", steps=2500):
    """The minimiser of 1/2 ||A x - y||^2 + weight TV(x) by Chambolle & Pock (2011), algorithm 1; all by autograd."""
    x = operator.adjoint(y) * 0
    ahead, p, q = x, differences(x) * 0, y * 0
    size = math.sqrt(8 + norm**2)
    ratio = 10 / max(norm, 1.0)
    tau, sigma = ratio / size, 1 / (ratio * size)

    def divergence(p):
        return torch.func.vjp(differences, x)[1](p)[0]

    for _ in range(steps):
        p = p + sigma * differences(ahead)
        length = p.norm(dim=1, keepdim=True) if variant == "isotropic" else p.abs()
        p = p / (length / weight).clamp_min(1)
        q = (q + sigma * (operator(ahead) - y)) / (1 + sigma)
        new = x - tau * (divergence(p) + operator.adjoint(q))
        ahead, x = 2 * new - x, new
    return x


def dense(operator):
    """The matrix of a linear operator, one column per pixel."""
    size = math.prod(operator.in_shape)
    return operator(torch.eye(size, dtype=torch.float64).reshape(size, *operator.in_shape)).flatten(1).mT


def normal_equations(problem):
    """(A^T A + weight K^T K)^-1 A^T y by dense algebra."""
    a, k = dense(problem.operator), dense(problem.prior.analysis())
    solution = torch.linalg.solve(a.mT @ a + problem.weight * k.mT @ k, a.mT @ problem.y.flatten(1).mT)
    return solution.mT.reshape(-1, *SHAPE)


def problem_of(name, weight, prior=None, sigma=0.02):
    operator, noise = operators()[name], GaussianNoise(sigma=sigma)
    return Problem(operator, noise.sample(operator(images()), Key(3)), noise, prior or TotalVariation(SHAPE), weight)


def objectives(problem, solver):
    """The objective of each image after every step, as an observer sees it, and the reconstruction."""
    seen = []

    class Watch:
        @hookimpl
        def preimage_step(self, run):
            seen.append(run.objective())

    result = solve(problem, solver, observers=[Watch()])
    return torch.stack(seen), result


# ADMM


@pytest.mark.parametrize("variant", ["isotropic", "anisotropic"])
@pytest.mark.parametrize("name", operators())
def test_admm_reaches_the_optimum_of_an_independent_solver(name, variant):
    norm = float(torch.linalg.matrix_norm(dense(operators()[name]), 2))
    weight = 0.02 * norm**2
    problem = problem_of(name, weight, TotalVariation(SHAPE, variant=variant))
    # The same problem in units in which the norm is one, which the slow solver needs.
    expected = primal_dual((1 / norm) * problem.operator, problem.y / norm, weight / norm**2, 1.0, variant)
    best = 0.5 * (problem.operator(expected) - problem.y).flatten(1).square().sum(1)
    best = best + weight * total_variation(expected, variant)
    result = solve(problem, ADMM(tolerance=1e-6, max_steps=5000))
    assert set(result.status) == {Status.CONVERGED}
    assert torch.allclose(problem.objective(result.x), best, rtol=1e-4)
    assert torch.equal(result.objective, problem.objective(result.x))


@pytest.mark.parametrize("name", operators())
@pytest.mark.parametrize("weight", [1e-4, 1e-2, 1.0])
def test_the_automatic_penalty_serves_every_scale(name, weight):
    scale = 900 if name == "large matrix" else 1
    problem = problem_of(name, weight * scale)
    exact = problem.objective(solve(problem, ADMM(tolerance=5e-5, max_steps=1000)).x)
    result = solve(problem, ADMM(max_steps=300))
    assert set(result.status) == {Status.CONVERGED}
    assert torch.allclose(problem.objective(result.x), exact, rtol=2e-3)


def test_admm_is_equivariant_to_the_units_of_the_image():
    problem = problem_of("blur", 0.01)
    scaled = Problem(problem.operator, 255 * problem.y, problem.noise, problem.prior, 255 * problem.weight)
    one, other = (solve(p, ADMM()) for p in (problem, scaled))
    assert one.steps == other.steps
    assert torch.allclose(255 * one.x, other.x, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "prior"),
    [("matrix", TotalVariation(SHAPE)), ("blur", Tikhonov(SHAPE, kind="identity")), ("mask", TotalVariation(SHAPE))],
)
def test_admm_keeps_the_laws_of_solvers_for_every_way_to_update_x(name, prior):
    check_solver(ADMM(), problem=problem_of(name, 0.02, prior))


def test_admm_with_a_quadratic_prior_solves_the_normal_equations():
    problem = problem_of("matrix", 0.1, Tikhonov(SHAPE))
    result = solve(problem, ADMM(tolerance=1e-9, max_steps=3000))
    assert torch.allclose(result.x, normal_equations(problem), atol=1e-6)


def test_admm_without_weight_is_least_squares():
    problem = problem_of("identity", 0.0)
    result = solve(problem, ADMM())
    assert set(result.status) == {Status.CONVERGED}
    assert torch.allclose(result.x, problem.y, atol=1e-3)


def test_a_strong_prior_gives_a_flat_image():
    problem = problem_of("blur", 1e3)
    result = solve(problem, ADMM())
    assert set(result.status) == {Status.CONVERGED}
    assert torch.allclose(result.x, problem.y.mean((1, 2, 3), keepdim=True).expand_as(result.x), atol=1e-3)


def test_a_measurement_of_zeros_gives_zeros():
    problem = Problem(Smoothing(SHAPE), torch.zeros(1, *SHAPE), GaussianNoise(sigma=0.0), TotalVariation(SHAPE))
    for solver in (ADMM(), FISTA()):
        result = solve(problem, solver)
        assert result.status == (Status.CONVERGED,)
        assert bool((result.x == 0).all())


def test_deconvolution_of_a_photograph_takes_at_most_25_iterations_to_a_thousandth_of_the_optimum():
    data, transform = pytest.importorskip("skimage.data"), pytest.importorskip("skimage.transform")
    shape = (1, 256, 256)
    clean = torch.as_tensor(transform.resize(data.camera().astype(float), (256, 256), anti_aliasing=True) / 255)
    operator, noise = Smoothing(shape), GaussianNoise(sigma=0.025)
    y = noise.sample(operator(clean[None, None]), Key(0)).float()
    problem = Problem(operator, y, noise, TotalVariation(shape), 2e-3)
    best = float(problem.objective(solve(problem, ADMM(penalty=0.02, tolerance=1e-4)).x))
    values, _ = objectives(problem, ADMM(max_steps=25, tolerance=0.0))
    assert float(values[-1]) <= 1.001 * best


# Conjugate gradients


@pytest.mark.parametrize("kind", ["identity", "gradient"])
@pytest.mark.parametrize("name", operators())
def test_conjugate_gradients_solve_the_regularised_normal_equations(name, kind):
    problem = problem_of(name, 0.1, Tikhonov(SHAPE, kind=kind))
    result = solve(problem, ConjugateGradients(tolerance=1e-11))
    assert set(result.status) == {Status.CONVERGED}
    assert torch.allclose(result.x, normal_equations(problem), atol=1e-8)
    assert torch.allclose(result.objective, problem.objective(result.x), rtol=1e-10)


def test_conjugate_gradients_need_no_prior_and_start_where_they_are_told():
    matrix = Key(5).normal((200, math.prod(SHAPE)), DOUBLE)
    operator = Matrix(SHAPE, matrix)
    y = Key(6).normal((2, 200), DOUBLE)
    expected = torch.linalg.lstsq(matrix, y.mT).solution.mT.reshape(2, *SHAPE)
    for x0 in (None, torch.ones(2, *SHAPE, dtype=torch.float64)):
        problem = Problem(operator, y, GaussianNoise(sigma=0.1), x0=x0)
        assert torch.allclose(solve(problem, ConjugateGradients(tolerance=1e-11)).x, expected, atol=1e-8)


def test_each_image_stops_on_its_own():
    operator = operators()["matrix"]
    hard, easy = images()[:1], torch.zeros(1, *SHAPE, dtype=torch.float64)
    y = operator(torch.cat((hard, easy)))
    result = solve(Problem(operator, y, GaussianNoise(sigma=0.1)), ConjugateGradients())
    assert result.steps[1] == 0 < result.steps[0]


def test_few_steps_regularise():
    problem = problem_of("blur", 0.0, Tikhonov(SHAPE), sigma=0.05)
    problem = Problem(problem.operator, problem.y, problem.noise)
    early, late = (solve(problem, ConjugateGradients(max_steps=n, tolerance=0.0)).x for n in (6, 400))
    error = [float((x - images()).square().mean()) for x in (early, late)]
    assert error[0] < 0.2 * error[1]


# FISTA


@pytest.mark.parametrize("name", operators())
def test_fista_and_admm_agree(name):
    problem = problem_of(name, 18.0 if name == "large matrix" else 0.02)
    exact = problem.objective(solve(problem, ADMM(tolerance=1e-7, max_steps=5000)).x)
    result = solve(problem, FISTA(tolerance=1e-7, max_steps=5000))
    assert torch.allclose(result.objective, exact, rtol=1e-5)
    assert torch.allclose(result.objective, problem.objective(result.x), rtol=1e-12)


@pytest.mark.parametrize("step_size", ["auto", 0.01, 100.0])
@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_objective_never_rises_on_a_nonlinear_operator(step_size, restart, dtype):
    operator, noise = Diffusion(SHAPE), GaussianNoise(sigma=0.03)
    y = noise.sample(operator(images()), Key(7)).to(dtype)
    problem = Problem(operator, y, noise, TotalVariation(SHAPE), 0.01)
    solver = FISTA(step_size=step_size, restart=restart, max_steps=400)
    values, result = objectives(problem, solver)
    assert bool((values.diff(dim=0) <= 0).all())
    assert Status.DIVERGED not in result.status
    exact = solve(problem, FISTA(tolerance=1e-7, max_steps=3000)).objective
    assert torch.allclose(result.objective, exact, rtol=2e-2 if step_size == 0.01 else 1e-3)


def test_a_fixed_step_would_have_diverged():
    """The nonlinear operator above is a fair test only if its derivative is longer than one."""
    from preimage import operator_norm

    assert float(operator_norm(Diffusion(SHAPE), images()).value.max()) > 1


def test_fista_on_a_nonlinear_operator_keeps_the_laws_of_solvers():
    operator, noise = Diffusion(SHAPE), GaussianNoise(sigma=0.03)
    y = noise.sample(operator(images()), Key(7))
    check_solver(FISTA(), problem=Problem(operator, y, noise, TotalVariation(SHAPE), 0.01))


def test_fista_handles_photon_counts():
    noise = PoissonNoise(peak=50.0)
    operator = operators()["blur"]
    y = noise.sample(operator(images() + 0.3), Key(3))
    problem = Problem(operator, y, noise, TotalVariation(SHAPE), 0.02)
    values, result = objectives(problem, FISTA(max_steps=2000, tolerance=1e-6))
    assert set(result.status) == {Status.CONVERGED}
    assert bool((values.diff(dim=0) <= 0).all())
    again = solve(problem, FISTA(max_steps=5000, tolerance=1e-6, step_size=1e-3))
    assert torch.allclose(result.objective, again.objective, rtol=1e-4)


def test_fista_without_a_prior_is_least_squares():
    matrix = Key(5).normal((400, math.prod(SHAPE)), DOUBLE) / 20
    y = Key(6).normal((2, 400), DOUBLE)
    expected = torch.linalg.lstsq(matrix, y.mT).solution.mT.reshape(2, *SHAPE)
    problem = Problem(Matrix(SHAPE, matrix), y, GaussianNoise(sigma=0.1))
    assert torch.allclose(solve(problem, FISTA(tolerance=1e-9)).x, expected, atol=1e-6)
