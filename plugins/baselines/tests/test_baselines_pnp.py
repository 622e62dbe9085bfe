"""Plug-and-play methods, half quadratic splitting and RED: against convex optima, dense algebra and published formulas.

The denoisers and operators are written here; test_baselines_pnp_photographs.py has those of the other plugins.
"""

import math

import numpy as np
import pytest
import torch
from preimage_baselines import (
    ADMM,
    FISTA,
    RED,
    HalfQuadraticSplitting,
    PnPADMM,
    PnPProximalGradient,
    Tikhonov,
    TotalVariation,
)
from preimage_baselines.half_quadratic_splitting import decreasing

from preimage import (
    Denoiser,
    ForwardOperator,
    GaussianNoise,
    Identity,
    Key,
    LinearOperator,
    NoNoise,
    PoissonNoise,
    Problem,
    Status,
    hookimpl,
    solve,
)
from preimage.errors import BadParameter, Diverged, Incompatible
from preimage.testing import check_solver

SHAPE = (1, 12, 14)
SIZE = math.prod(SHAPE)
DOUBLE = torch.zeros((), dtype=torch.float64)
PLUG_AND_PLAY = (PnPProximalGradient, PnPADMM, HalfQuadraticSplitting, RED)


class Matrix(LinearOperator):
    """A dense matrix without a closed form for its normal equations."""

    def __init__(self, rows, key=Key(2), factor=1.0):
        super().__init__(SHAPE, (rows,))
        self.register_buffer("matrix", factor * key.normal((rows, SIZE), DOUBLE) / rows**0.5)

    def forward(self, x):
        return x.flatten(1) @ self.matrix.to(x).mT

    def adjoint(self, y):
        return (y @ self.matrix.to(y)).reshape(-1, *SHAPE)


class Solvable(Matrix):
    """The same, with the normal equations solved by dense algebra."""

    def solve_normal(self, b, shift):
        a = self.matrix.to(b)
        eye = torch.eye(SIZE, dtype=b.dtype)
        shifts = torch.as_tensor(shift, dtype=b.dtype).expand(len(b))
        rows = [torch.linalg.solve(a.mT @ a + t * eye, r.flatten()) for t, r in zip(shifts, b, strict=True)]
        return torch.stack(rows).reshape(b.shape)


class Bend(ForwardOperator):
    """x + x^2 / 2, smoothed along rows: not linear, and steeper where the image is bright."""

    def __init__(self, shape=SHAPE):
        super().__init__(shape, shape)

    def forward(self, x):
        bent = x + 0.5 * x * x
        return 0.5 * bent + 0.25 * (bent.roll(1, -1) + bent.roll(-1, -1))


class ProximalDenoiser(Denoiser):
    """prox of sigma^2 R as a denoiser, which hides from the solver that R exists."""

    def __init__(self, prior):
        super().__init__(prior.in_shape)
        self.prior = prior

    def denoise(self, x, sigma):
        return self.prior.prox(x, sigma**2)


class GaussianFilter(Denoiser):
    """Mixes every pixel with its neighbours, the more the stronger the noise: linear, symmetric, non-expansive."""

    def denoise(self, x, sigma):
        share = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        share = share / (share + 0.05)
        around = 0.25 * sum(x.roll(step, axis) for axis in (-1, -2) for step in (-1, 1))
        return (1 - 0.5 * share) * x + 0.5 * share * around


class Amplifier(Denoiser):
    """No denoiser at all: it doubles and turns the sign, so that every iteration around it runs away."""

    def denoise(self, x, sigma):
        return -2 * x


def images(count=2):
    x = 0.2 * torch.linspace(0, 1, SHAPE[-1], dtype=torch.float64).expand(count, *SHAPE).clone()
    for index in range(count):
        x[index, :, 3 : 7 + index, 2:9] += 0.6
    return x


def problem_of(operator, prior, weight, sigma=0.02):
    noise = GaussianNoise(sigma=sigma)
    return Problem(operator, noise.sample(operator(images()), Key(3)), noise, prior, weight)


def dense_solution(problem, penalty, target):
    """argmin 1/2 ||A x - y||^2 + penalty/2 ||x - target||^2 by dense algebra."""
    a = problem.operator.matrix
    left = a.mT @ a + penalty * torch.eye(SIZE, dtype=a.dtype)
    return torch.linalg.solve(left, (problem.y @ a + penalty * target.flatten(1)).mT).mT.reshape(target.shape)


OPERATORS = {
    "identity": Identity(SHAPE),
    "matrix": Matrix(90),
    "solvable": Solvable(90),
    "steep": Matrix(90, factor=20),
}


# A convex prior behind the denoiser


@pytest.mark.parametrize("prior", [TotalVariation(SHAPE), Tikhonov(SHAPE)], ids=["tv", "tikhonov"])
@pytest.mark.parametrize("name", OPERATORS)
def test_with_a_proximal_map_the_minimiser_is_that_of_admm(name, prior):
    if name == "solvable" and isinstance(prior, TotalVariation):
        pytest.skip("the reference takes seconds, and it is that of the same matrix without a closed form")
    weight = (0.02 if isinstance(prior, TotalVariation) else 0.2) * (400 if name == "steep" else 1)
    convex = problem_of(OPERATORS[name], prior, weight)
    best = convex.objective(solve(convex, ADMM(tolerance=1e-6, max_steps=3000)).x)
    plain = PnPProximalGradient(acceleration=False, tolerance=1e-6, max_steps=3000)
    solvers = (PnPProximalGradient(tolerance=1e-6, max_steps=1000), plain, PnPADMM(tolerance=1e-5))
    for solver in solvers:
        for given in (prior, ProximalDenoiser(prior)):
            result = solve(problem_of(OPERATORS[name], given, weight), solver)
            assert set(result.status) == {Status.CONVERGED}
            assert torch.allclose(convex.objective(result.x), best, rtol=1e-5)


@pytest.mark.parametrize("sigma", [0.03, 0.1, 0.3])
def test_the_strength_of_a_proximal_map_does_not_move_the_limit_of_admm(sigma):
    problem = problem_of(Matrix(90), TotalVariation(SHAPE), 0.02)
    best = solve(problem, FISTA(tolerance=1e-6)).objective
    result = solve(problem, PnPADMM(sigma=sigma, tolerance=1e-5, max_steps=1000))
    assert torch.allclose(result.objective, best, rtol=1e-4)


def test_a_strength_is_a_weight():
    """A denoiser of strength sigma in steps of length t has the weight sigma^2 / t."""
    problem = problem_of(Matrix(90), TotalVariation(SHAPE), 123.0)
    step = 0.1
    by_sigma = solve(problem, PnPProximalGradient(sigma=0.05, step_size=step, tolerance=1e-7, max_steps=5000)).x
    problem = problem_of(Matrix(90), TotalVariation(SHAPE), 0.05**2 / step)
    by_weight = solve(problem, PnPProximalGradient(step_size=step, tolerance=1e-7, max_steps=5000)).x
    assert torch.allclose(by_sigma, by_weight, atol=1e-6)


def test_each_image_may_have_its_own_weight():
    weights = torch.tensor([0.005, 0.05], dtype=torch.float64)
    whole = problem_of(Matrix(90), TotalVariation(SHAPE), weights)
    for solver in (PnPProximalGradient(), PnPADMM(), HalfQuadraticSplitting(), RED(), RED(method="gradient")):
        x = solve(whole, solver).x
        for index in range(2):
            alone = problem_of(Matrix(90), TotalVariation(SHAPE), float(weights[index])).rows(torch.tensor([index]))
            assert torch.allclose(solve(alone, solver).x, x[index : index + 1], rtol=1e-5, atol=1e-7)


def test_nonlinear_operators_reach_a_stationary_point_of_the_objective():
    problem = problem_of(Bend(), TotalVariation(SHAPE), 0.02)
    best = solve(problem, FISTA(tolerance=1e-6)).objective
    for acceleration in (True, False):
        solver = PnPProximalGradient(acceleration=acceleration, tolerance=1e-6, max_steps=1000)
        assert torch.allclose(solve(problem, solver).objective, best, rtol=1e-5)


def test_a_step_that_is_too_long_for_a_nonlinear_operator_is_shortened():
    """The derivative at the start, a dark image, is much shorter than at the solution."""
    problem = problem_of(Bend(), TotalVariation(SHAPE), 0.02)
    dark = Problem(Bend(), 10 * problem.y, problem.noise, problem.prior, 0.02, x0=-0.9 + 0 * problem.y)
    for solver in (PnPProximalGradient(max_steps=3000), RED(max_steps=3000)):
        result = solve(dark, solver)
        assert set(result.status) == {Status.CONVERGED}
        assert bool((dark.misfit(result.x) < 1e-2 * dark.misfit(dark.x0)).all())


def test_photon_counts():
    noise, operator = PoissonNoise(peak=50.0), Identity(SHAPE)
    y = noise.sample(images() + 0.3, Key(3))
    problem = Problem(operator, y, noise, TotalVariation(SHAPE), 0.02)
    best = solve(problem, FISTA(tolerance=1e-6, max_steps=3000)).objective
    result = solve(problem, PnPProximalGradient(tolerance=1e-5, max_steps=1000))
    assert torch.allclose(result.objective, best, rtol=1e-4)


# Fixed points with a denoiser that is no proximal map of anything known here


@pytest.mark.parametrize("name", OPERATORS)
def test_the_limits_are_fixed_points(name):
    problem = problem_of(OPERATORS[name], GaussianFilter(SHAPE), 0.01)
    operator, prior = problem.operator, problem.prior
    sigma, step = 0.1, 0.5 / (900 * 20 if name == "steep" else 9)

    def slope(x):
        return operator.adjoint(operator(x) - problem.y)

    solver = PnPProximalGradient(sigma=sigma, step_size=step, tolerance=1e-9, max_steps=50000)
    x = solve(problem, solver).x
    assert torch.allclose(prior.denoise(x - step * slope(x), sigma), x, atol=1e-6)

    z = solve(problem, PnPADMM(sigma=sigma, tolerance=1e-8, max_steps=20000)).x
    penalty = 0.01 / sigma**2
    # x = z at rest, so u = -A^T (A z - y) / penalty by the data step.
    assert torch.allclose(prior.denoise(z - slope(z) / penalty, sigma), z, atol=1e-5)


@pytest.mark.parametrize("method", ["gradient", "fixed-point"])
@pytest.mark.parametrize("name", OPERATORS)
def test_red_balances_misfit_and_denoiser(name, method):
    problem = problem_of(OPERATORS[name], GaussianFilter(SHAPE), 0.05 * (400 if name == "steep" else 1))
    sigma = 0.1
    x = solve(problem, RED(method=method, sigma=sigma, tolerance=1e-10, max_steps=50000)).x
    gradient = problem.operator.adjoint(problem.operator(x) - problem.y)
    balance = gradient + problem.weight / sigma**2 * (x - problem.prior.denoise(x, sigma))
    assert float(balance.norm()) < 1e-5 * float(problem.operator.adjoint(problem.y).norm())


def test_red_balances_them_for_a_nonlinear_operator():
    problem = problem_of(Bend(), GaussianFilter(SHAPE), 0.05)
    x = solve(problem, RED(sigma=0.1, tolerance=1e-10, max_steps=50000)).x
    _, gradient = problem.misfit_and_grad(x)
    assert float((gradient + 5 * (x - problem.prior.denoise(x, 0.1))).norm()) < 1e-6


@pytest.mark.parametrize("method", ["gradient", "fixed-point"])
def test_red_with_a_proximal_map_minimises_the_moreau_envelope(method):
    """By automatic differentiation of a smooth function, through neither RED nor the proximal map: the envelope of
    1/2 ||x||^2 is 1/2 ||x||^2 / (1 + sigma^2)."""
    problem = problem_of(Matrix(90), Tikhonov(SHAPE, kind="identity"), 0.3)
    sigma = 0.5
    result = solve(problem, RED(method=method, sigma=sigma, tolerance=1e-10, max_steps=20000))
    expected = dense_solution(problem, 0.3 / (1 + sigma**2), torch.zeros_like(result.x))
    assert torch.allclose(result.x, expected, atol=1e-7)
    value = problem.misfit(expected) + 0.15 * expected.flatten(1).square().sum(1) / (1 + sigma**2)
    assert torch.allclose(result.objective, value, rtol=1e-9)
    assert solve(problem_of(Matrix(90), GaussianFilter(SHAPE), 0.3), RED(max_steps=3)).objective is None


def test_both_methods_of_red_agree_and_the_automatic_one_is_the_cheaper():
    problem = problem_of(Matrix(90), GaussianFilter(SHAPE), 0.3)
    runs = [solve(problem, RED(method=m, tolerance=1e-8, max_steps=20000)) for m in ("gradient", "fixed-point", "auto")]
    assert torch.allclose(runs[0].x, runs[1].x, atol=1e-5)
    assert torch.equal(runs[1].x, runs[2].x)
    assert max(runs[1].steps) < min(runs[0].steps)


# Half quadratic splitting


def published_schedule(noise, count, first=49.0, factor=0.23):
    """Denoiser strengths and penalties as in DPIR's published code (utils_pnp.get_rho_sigma, w = 1)."""
    sigmas = np.logspace(np.log10(first), np.log10(255 * noise), count).astype(np.float64) / 255
    return sigmas, np.array([factor * max(0.255 / 255, noise) ** 2 / s**2 for s in sigmas])


@pytest.mark.parametrize("noise", [0.01, 7.65 / 255])
@pytest.mark.parametrize("operator", [Matrix(90), Solvable(90)], ids=["conjugate gradients", "closed form"])
def test_the_schedule_and_the_steps_are_the_published_ones(operator, noise):
    problem = problem_of(operator, GaussianFilter(SHAPE), 1.0, noise)
    seen = []

    class Watch:
        @hookimpl
        def preimage_step(self, run):
            seen.append(run.estimate().clone())

    solve(problem, HalfQuadraticSplitting(regularisation=0.23), observers=[Watch()])
    sigmas, penalties = published_schedule(noise, 8)
    z = problem.start()
    assert len(seen) == 8
    for sigma, penalty, ours in zip(sigmas, penalties, seen, strict=True):
        z = problem.prior.denoise(dense_solution(problem, penalty, z), float(sigma))
        assert float((ours - z).norm()) < (1e-10 if isinstance(operator, Solvable) else 5e-3) * float(z.norm())


def test_a_weight_is_the_published_factor_times_the_variance():
    by_factor = problem_of(Solvable(90), GaussianFilter(SHAPE), 1.0, 0.03)
    by_weight = problem_of(Solvable(90), GaussianFilter(SHAPE), 0.23 * 0.03**2, 0.03)
    first = solve(by_factor, HalfQuadraticSplitting(regularisation=0.23)).x
    assert torch.allclose(first, solve(by_weight, HalfQuadraticSplitting()).x, rtol=1e-12)


def test_the_ends_of_the_schedule():
    last = torch.tensor([0.001, 0.5], dtype=torch.float64)
    assert decreasing(0.2, last, 1).tolist() == [[0.001], [0.2]]
    assert torch.allclose(decreasing(0.2, last, 3)[0], torch.tensor([0.2, (0.2 * 0.001) ** 0.5, 0.001]).double())
    assert torch.allclose(decreasing(0.2, last, 3)[1], torch.tensor(0.2).double())


def test_the_status_names_the_schedule():
    result = solve(problem_of(Solvable(90), GaussianFilter(SHAPE), 1e-3), HalfQuadraticSplitting(levels=5))
    assert result.steps == (5, 5)
    assert set(result.status) == {Status.CONVERGED}
    assert "schedule of 5" in result.reasons[0]


def test_without_noise_the_last_strength_is_the_published_least_one():
    problem = Problem(Identity(SHAPE), images(), NoNoise(), GaussianFilter(SHAPE), 1e-4)
    assert torch.equal(
        solve(problem, HalfQuadraticSplitting()).x, solve(problem, HalfQuadraticSplitting(sigma_last=0.001)).x
    )


# Stopping and divergence


def test_the_status_says_which_rule_and_the_details_how_far():
    problem = problem_of(Matrix(90), TotalVariation(SHAPE), 0.02)
    for solver in (PnPProximalGradient(tolerance=1e-3), PnPADMM(), RED(tolerance=1e-3)):
        result = solve(problem, solver)
        assert "fixed-point residual" in result.reasons[0]
        assert bool((result.details["residual"] <= 1e-3).all())


@pytest.mark.parametrize("solver", [PnPProximalGradient(), PnPADMM(), RED()], ids=lambda s: type(s).__name__)
def test_a_runaway_is_stopped_and_told(solver):
    problem = problem_of(Matrix(90), Amplifier(SHAPE), 0.1)
    result = solve(problem, solver, throw=False)
    assert set(result.status) == {Status.DIVERGED}
    assert max(result.steps) < 100
    assert bool(torch.isfinite(result.x).all())
    assert "use" in result.reasons[0]
    with pytest.raises(Diverged, match="use"):
        solve(problem, solver)


def test_a_fixed_step_that_is_too_long_is_told_and_auto_is_the_remedy():
    problem = problem_of(Matrix(90), GaussianFilter(SHAPE), 0.01)
    result = solve(problem, PnPProximalGradient(step_size=1.0, sigma=0.01), throw=False)
    assert set(result.status) == {Status.DIVERGED}
    assert "auto" in result.reasons[0]
    assert Status.DIVERGED not in solve(problem, PnPProximalGradient(sigma=0.01), throw=False).status


def test_growth_brings_a_restless_denoiser_to_rest():
    """It moves every pixel by sigma, up or down: bounded (Chan et al. 2017, definition 1), far from non-expansive."""

    class Restless(Denoiser):
        def denoise(self, x, sigma):
            return x + torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1, 1, 1) * torch.sign(torch.sin(1e4 * x))

    problem = problem_of(Solvable(90), Restless(SHAPE), 0.001)
    assert Status.CONVERGED not in solve(problem, PnPADMM(), throw=False).status
    assert set(solve(problem, PnPADMM(growth=1.1)).status) == {Status.CONVERGED}


def test_a_denoiser_that_returns_its_argument_is_not_modified():
    class Nothing(Denoiser):
        def denoise(self, x, sigma):
            return x

    problem = problem_of(Matrix(500), Nothing(SHAPE), 0.1)
    expected = torch.linalg.lstsq(problem.operator.matrix, problem.y.mT).solution.mT.reshape(2, *SHAPE)
    for solver in (PnPProximalGradient(), PnPADMM(), RED()):
        x = solve(problem, type(solver)(tolerance=1e-8, max_steps=3000)).x
        assert torch.allclose(x, expected, atol=1e-5)


# Laws, dtypes and refusals


@pytest.mark.parametrize(
    "solver",
    [PnPProximalGradient(), PnPADMM(), HalfQuadraticSplitting(), RED(), RED(method="gradient")],
    ids=lambda s: f"{type(s).__name__}{'-gradient' if s == RED(method='gradient') else ''}",
)
@pytest.mark.parametrize("prior", [TotalVariation(SHAPE), GaussianFilter(SHAPE)], ids=["proximable", "denoiser"])
def test_the_laws_hold_without_a_closed_form(solver, prior):
    check_solver(solver, problem=problem_of(Matrix(90), prior, 0.02))


@pytest.mark.parametrize("solver", [PnPProximalGradient(), RED()], ids=lambda s: type(s).__name__)
def test_the_laws_hold_for_a_nonlinear_operator(solver):
    check_solver(solver, problem=problem_of(Bend(), GaussianFilter(SHAPE), 0.02))


@pytest.mark.parametrize("make", PLUG_AND_PLAY)
def test_single_precision_gives_nearly_the_same(make):
    problem = problem_of(Matrix(90), TotalVariation(SHAPE), 0.02)
    single = Problem(problem.operator, problem.y.float(), problem.noise, problem.prior, 0.02)
    x, y = (solve(p, make(max_steps=30)).x for p in (single, problem))
    assert x.dtype == torch.float32
    assert torch.allclose(x.double(), y, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "mentions"),
    [
        (lambda: PnPProximalGradient(sigma=0.0), "sigma"),
        (lambda: PnPProximalGradient(step_size=-1.0), "step_size"),
        (lambda: PnPProximalGradient(tolerance=-1.0), "tolerance"),
        (lambda: PnPADMM(sigma=float("nan")), "sigma"),
        (lambda: PnPADMM(growth=0.9), "growth"),
        (lambda: PnPADMM(tolerance=-1.0), "tolerance"),
        (lambda: HalfQuadraticSplitting(levels=0), "levels"),
        (lambda: HalfQuadraticSplitting(sigma_first=0.0), "sigma_first"),
        (lambda: HalfQuadraticSplitting(sigma_last=0.5), "sigma_last"),
        (lambda: HalfQuadraticSplitting(sigma_last=-0.5), "sigma_last"),
        (lambda: HalfQuadraticSplitting(regularisation=0.0), "regularisation"),
        (lambda: RED(sigma=0.0), "sigma"),
        (lambda: RED(step_size=0.0), "step_size"),
        (lambda: RED(tolerance=-1.0), "tolerance"),
    ],
)
def test_bad_parameters_are_refused_by_name(make, mentions):
    with pytest.raises(BadParameter, match=mentions):
        make()


@pytest.mark.parametrize("make", PLUG_AND_PLAY)
def test_a_weight_of_zero_is_refused(make):
    with pytest.raises(BadParameter, match="weight"):
        solve(problem_of(Matrix(90), GaussianFilter(SHAPE), 0.0), make())


@pytest.mark.parametrize("solver", [PnPADMM(), HalfQuadraticSplitting()], ids=lambda s: type(s).__name__)
def test_splitting_refuses_nonlinear_operators(solver):
    with pytest.raises(Incompatible, match="LinearOperator"):
        solve(problem_of(Bend(), GaussianFilter(SHAPE), 0.1), solver)


def test_the_fixed_point_method_refuses_nonlinear_operators_and_names_the_other():
    with pytest.raises(Incompatible, match="gradient"):
        solve(problem_of(Bend(), GaussianFilter(SHAPE), 0.1), RED(method="fixed-point"))


@pytest.mark.parametrize("make", PLUG_AND_PLAY)
def test_a_prior_that_cannot_denoise_is_refused(make):
    class Flat(Tikhonov.__mro__[1]):
        def analysis(self):
            return Identity(SHAPE)

    with pytest.raises(Incompatible, match="DenoiserOrProximable"):
        solve(problem_of(Identity(SHAPE), Flat(SHAPE), 0.1), make())
