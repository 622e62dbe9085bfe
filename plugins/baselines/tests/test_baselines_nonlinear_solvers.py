"""Solvers for nonlinear operators against SciPy, dense algebra and their own promises.

The operators are written here in a few plain lines, so that no other plugin is needed.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from preimage_baselines import (
    IRGNM,
    LBFGS,
    GaussNewton,
    GradientDescent,
    LevenbergMarquardt,
    SmoothedTotalVariation,
    Tikhonov,
)
from scipy.optimize import least_squares, minimize

from preimage import (
    Differentiable,
    ForwardOperator,
    GaussianNoise,
    Key,
    LinearOperator,
    NoNoise,
    PoissonNoise,
    Problem,
    Status,
    Trace,
    hookimpl,
    solve,
)
from preimage.errors import Incompatible
from preimage.testing import check_solver

SHAPE = (1, 8, 9)
SIZE = math.prod(SHAPE)
DOUBLE = torch.zeros((), dtype=torch.float64)
DESCENTS = [GradientDescent, LBFGS, GaussNewton, LevenbergMarquardt]


class Diffusion(ForwardOperator):
    """Two explicit steps of Perona-Malik diffusion."""

    def __init__(self, shape=SHAPE, contrast=0.3, step=0.2):
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


class Counting(ForwardOperator):
    """Another operator, counting F, F' and F'^T."""

    def __init__(self, inner):
        super().__init__(inner.in_shape, inner.out_shape)
        self.inner, self.count = inner, {"forward": 0, "jvp": 0, "vjp": 0}

    def forward(self, x):
        self.count["forward"] += 1
        return self.inner(x)

    def jvp(self, x, v):
        self.count["jvp"] += 1
        return self.inner.jvp(x, v)

    def vjp(self, x):
        self.count["forward"] += 1
        y, pullback = self.inner.vjp(x)

        def counted(w):
            self.count["vjp"] += 1
            return pullback(w)

        return y, counted


class Matrix(LinearOperator):
    def __init__(self, matrix):
        super().__init__(SHAPE, (len(matrix),))
        self.register_buffer("matrix", matrix)

    def forward(self, x):
        return x.flatten(1) @ self.matrix.to(x).mT

    def adjoint(self, y):
        return (y @ self.matrix.to(y)).reshape(-1, *self.in_shape)


class Cubic(ForwardOperator):
    """F(x) = M x + (M x)^3 / 2, smooth and invertible if M is."""

    def __init__(self, matrix):
        super().__init__(SHAPE, (len(matrix),))
        self.register_buffer("matrix", matrix)

    def forward(self, x):
        z = x.flatten(1) @ self.matrix.to(x).mT
        return z + 0.5 * z**3


class Wells(Differentiable):
    """R(x) = sum of (x^2 - 1)^2 / 4: not convex."""

    def energy(self, x):
        return 0.25 * (x.square() - 1).square().flatten(1).sum(1)


def images(count=2, shape=SHAPE):
    x = 0.1 * Key(3).normal((count, *shape), DOUBLE)
    x[..., 2:6, 3:7] += torch.linspace(0.7, 1.3, count, dtype=torch.float64).reshape(-1, 1, 1, 1)
    return x


def nonlinear(prior, weight=0.02, sigma=0.05, operator=None):
    operator, noise = operator or Diffusion(), GaussianNoise(sigma=sigma)
    return Problem(operator, noise.sample(operator(images()), Key(7)), noise, prior, weight)


def smoothed(x, epsilon):
    """Smoothed total variation by its formula, in one expression."""
    down = torch.nn.functional.pad(x.diff(dim=-2), (0, 0, 0, 1))
    along = torch.nn.functional.pad(x.diff(dim=-1), (0, 1))
    return ((down**2 + along**2 + epsilon**2).sqrt() - epsilon).sum()


def by_scipy(problem, row, value):
    """SciPy's minimiser of value(x), x one image with a batch axis, by L-BFGS-B from the problem's start."""

    def value_and_gradient(flat):
        x = torch.tensor(flat).reshape(1, *SHAPE).requires_grad_()
        with torch.enable_grad():
            total = value(x, row)
            (gradient,) = torch.autograd.grad(total, x)
        return float(total.detach()), gradient.numpy().ravel()

    start = problem.start()[row].numpy().ravel()
    options = {"maxiter": 20000, "maxfun": 40000, "ftol": 1e-16, "gtol": 1e-10, "maxcor": 30}
    found = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options)
    return torch.tensor(found.x).reshape(1, *SHAPE), found.fun


@pytest.mark.parametrize("cls", DESCENTS)
def test_the_minimiser_of_smoothed_total_variation_is_that_of_scipy(cls):
    problem = nonlinear(SmoothedTotalVariation(SHAPE, epsilon=0.05))
    result = solve(problem, cls(tolerance=1e-8, max_steps=3000))

    def value(x, row):
        return 0.5 * (problem.operator(x) - problem.y[row]).square().sum() + 0.02 * smoothed(x, 0.05)

    assert Status.MAX_STEPS not in result.status
    for row in range(2):
        x, best = by_scipy(problem, row, value)
        assert float(result.objective[row]) == pytest.approx(best, rel=1e-9)
        assert torch.allclose(result.x[row], x[0], atol=1e-5)


@pytest.mark.parametrize("cls", DESCENTS)
def test_nonlinear_least_squares_with_a_quadratic_prior_agree_with_scipy(cls):
    problem = nonlinear(Tikhonov(SHAPE), weight=0.1)
    result = solve(problem, cls(tolerance=1e-9, max_steps=3000))
    gradient = Tikhonov(SHAPE).analysis()
    for row in range(2):

        def residuals(flat, row=row):
            x = torch.tensor(flat).reshape(1, *SHAPE)
            data = problem.operator(x) - problem.y[row]
            return torch.cat((data.flatten(), 0.1**0.5 * gradient(x).flatten())).numpy()

        start = problem.y[row].numpy().ravel()
        found = least_squares(residuals, start, method="lm", xtol=1e-12, ftol=1e-14, gtol=1e-12)
        assert float(result.objective[row]) == pytest.approx(found.cost, rel=1e-9)
        assert torch.allclose(result.x[row].flatten(), torch.tensor(found.x), atol=1e-5)


@pytest.mark.parametrize("cls", [GradientDescent, LBFGS])
def test_photon_counts_agree_with_scipy(cls):
    operator, noise = Diffusion(), PoissonNoise(peak=200.0)
    y = noise.sample(operator(images().abs() + 0.3), Key(7))
    problem = Problem(operator, y, noise, SmoothedTotalVariation(SHAPE, epsilon=0.1), 0.02)
    result = solve(problem, cls(tolerance=1e-7, max_steps=3000))

    def value(x, row):
        p, counts = operator(x), y[row]
        return (p - counts + counts * (counts.clamp_min(1e-30) / p).log()).sum() + 0.02 * smoothed(x, 0.1)

    for row in range(2):
        _, best = by_scipy(problem, row, value)
        assert float(result.objective[row]) == pytest.approx(best, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("cls", DESCENTS)
def test_linear_problems_are_solved_to_the_normal_equations(cls):
    matrix = Key(2).normal((40, SIZE), DOUBLE) / 40**0.5
    operator, noise, weights = Matrix(matrix), GaussianNoise(sigma=0.05), torch.tensor([0.05, 0.5]).double()
    problem = Problem(operator, noise.sample(operator(images()), Key(7)), noise, Tikhonov(SHAPE), weights)
    result = solve(problem, cls(tolerance=1e-9, max_steps=3000))
    columns = Tikhonov(SHAPE).analysis()(torch.eye(SIZE, dtype=torch.float64).reshape(SIZE, *SHAPE)).flatten(1)
    for row in range(2):
        whole = matrix.mT @ matrix + weights[row] * columns @ columns.mT
        expected = torch.linalg.solve(whole, matrix.mT @ problem.y[row])
        assert torch.allclose(result.x[row].flatten(), expected, atol=1e-6)


@pytest.mark.parametrize("solver", [GaussNewton(forcing=0.0, max_inner_steps=90), GaussNewton(max_inner_steps=90)])
def test_gauss_newton_converges_quadratically_where_the_data_can_be_fitted(solver):
    operator = Cubic(torch.eye(SIZE, dtype=torch.float64) + 0.5 / SIZE**0.5 * Key(4).normal((SIZE, SIZE), DOUBLE))
    truth = images(1)
    problem = Problem(operator, operator(truth), NoNoise(), x0=torch.zeros_like(truth))

    def errors(method):
        seen = []

        class Recorder:
            @hookimpl
            def preimage_step(self, run):
                seen.append(float((run.estimate() - truth).norm()))

        solve(problem, replace(method, max_steps=12, tolerance=0.0), observers=[Recorder()])
        return seen

    found = [e for e in errors(solver) if 1e-11 < e < 0.5]
    assert len(found) >= 3
    orders = [math.log(c / b) / math.log(b / a) for a, b, c in zip(found, found[1:], found[2:], strict=False)]
    assert orders[-1] > 1.7
    slow = errors(GradientDescent())
    assert min(slow) > 1e-6


@pytest.mark.parametrize("cls", DESCENTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("prior", [SmoothedTotalVariation(SHAPE), Tikhonov(SHAPE), Wells(SHAPE), None])
def test_the_objective_never_rises(cls, dtype, prior):
    problem = nonlinear(prior, 0.05)
    problem = Problem(problem.operator, problem.y.to(dtype), problem.noise, prior, 0.05)
    trace = Trace()
    result = solve(problem, cls(tolerance=0.0, max_steps=20), observers=[trace])
    values = torch.stack(trace.objective)
    finite = torch.isfinite(values).all(0)
    assert bool(finite.all())
    assert bool((values.diff(dim=0) <= 0).all())
    assert bool((values[-1] < values[0]).all())
    assert torch.allclose(result.objective, problem.objective(result.x), rtol=1e-4 if dtype == torch.float32 else 1e-10)


@pytest.mark.parametrize("prior", [SmoothedTotalVariation(SHAPE), Tikhonov(SHAPE)], ids=["smoothed-tv", "tikhonov"])
@pytest.mark.parametrize(
    "solver", [*(cls(max_steps=8) for cls in DESCENTS), LevenbergMarquardt(damping=50.0, max_steps=8)]
)
def test_the_laws_hold_on_a_nonlinear_problem(solver, prior):
    check_solver(solver, problem=nonlinear(prior))


def test_irgnm_keeps_the_laws_on_a_nonlinear_problem():
    check_solver(IRGNM(), problem=nonlinear(Tikhonov(SHAPE)))


@pytest.mark.parametrize("cls", DESCENTS)
def test_a_run_ends_where_rounding_permits_no_more_and_says_so(cls):
    problem = nonlinear(Tikhonov(SHAPE), 0.1)
    problem = Problem(problem.operator, problem.y.float(), problem.noise, problem.prior, 0.1)
    result = solve(problem, cls(tolerance=0.0, max_steps=2000))
    assert set(result.status) == {Status.CONVERGED}
    assert "rounding" in result.reasons[0]
    again = solve(Problem(problem.operator, problem.y, problem.noise, problem.prior, 0.1, result.x), cls(tolerance=0.0))
    assert torch.allclose(again.x, result.x, atol=1e-4)


@pytest.mark.parametrize("cls", [*DESCENTS, IRGNM])
def test_a_measurement_of_zeros_gives_zeros_at_once(cls):
    zeros = torch.zeros(1, *SHAPE)
    result = solve(Problem(Diffusion(), zeros, GaussianNoise(sigma=0.0), Tikhonov(SHAPE)), cls())
    assert result.status == (Status.CONVERGED,)
    assert bool((result.x == 0).all())


@pytest.mark.parametrize("cls", [GaussNewton, LevenbergMarquardt, IRGNM])
def test_least_squares_methods_refuse_other_noise(cls):
    problem = Problem(Diffusion(), torch.ones(1, *SHAPE), PoissonNoise(peak=10.0), Tikhonov(SHAPE))
    with pytest.raises(Incompatible, match="LeastSquares"):
        solve(problem, cls())


@pytest.mark.parametrize(
    ("solver", "steps", "expected"),
    [
        (LBFGS(max_steps=6, tolerance=0.0), 6, {"forward": 7, "jvp": 1, "vjp": 7}),
        (GaussNewton(max_steps=4, tolerance=0.0, max_inner_steps=1), 4, {"forward": 5, "jvp": 6, "vjp": 10}),
        (GaussNewton(max_steps=4, tolerance=0.0, max_inner_steps=2, forcing=0.0), 4,
         {"forward": 5, "jvp": 11, "vjp": 15}),
        (LevenbergMarquardt(max_steps=4, tolerance=0.0, max_inner_steps=1), 4, {"forward": 5, "jvp": 6, "vjp": 10}),
    ],
)  # fmt: skip
def test_the_cost_is_what_the_documentation_says(solver, steps, expected):
    operator = Counting(Diffusion())
    problem = nonlinear(SmoothedTotalVariation(SHAPE, epsilon=0.3), 0.01)
    problem = Problem(operator, problem.y[:1], problem.noise, problem.prior, 0.01)
    result = solve(problem, solver)
    assert result.steps == (steps,)
    assert operator.count == expected


# IRGNM


def alphas(problem, solver):
    """alpha after every step, and the misfits."""
    seen = []

    class Recorder:
        @hookimpl
        def preimage_step(self, run):
            seen.append((float(run.state.strength[0]), float(run.state.misfit[0])))

    solve(problem, solver, observers=[Recorder()])
    return seen


@pytest.mark.parametrize("prior", [None, Tikhonov(SHAPE)])
def test_irgnm_stops_as_soon_as_the_residual_is_at_the_noise(prior):
    sigma, tau = 0.05, 1.2
    problem = nonlinear(prior, 1.0, sigma)
    flat = torch.full((2, *SHAPE), 0.5, dtype=torch.float64)
    problem = Problem(problem.operator, problem.y, problem.noise, prior, 1.0, flat)
    result = solve(problem, IRGNM(tau=tau, max_steps=60))
    goal = tau**2 * SIZE * sigma**2
    assert set(result.status) == {Status.CONVERGED}
    assert "discrepancy" in result.reasons[0]
    residual = (problem.operator(result.x) - problem.y).square().flatten(1).sum(1)
    assert bool((residual <= goal).all())
    for row, steps in enumerate(result.steps):
        one = problem.rows(torch.tensor([row]))
        before = solve(one, IRGNM(tau=tau, max_steps=steps - 1)).x
        assert steps == 1 or float((one.operator(before) - one.y).square().sum()) > goal
    assert max(solve(problem, IRGNM(tau=2.0, max_steps=60)).steps) <= max(result.steps)


def test_irgnm_lowers_alpha_geometrically_and_needs_a_noise_level_to_stop():
    problem = nonlinear(None)
    problem = Problem(problem.operator, problem.y, NoNoise(), x0=torch.zeros_like(problem.y)).rows(torch.tensor([0]))
    seen = alphas(problem, IRGNM(initial=2.0, ratio=0.3, max_steps=8))
    assert [a for a, _ in seen] == pytest.approx([2.0 * 0.3**k for k in range(1, 9)])
    misfits = [m for _, m in seen]
    assert misfits == sorted(misfits, reverse=True)
    result = solve(problem, IRGNM(max_steps=8))
    assert result.status == (Status.MAX_STEPS,)
    assert result.details["strength"].shape == (1,)


def test_a_step_of_irgnm_is_the_dense_formula():
    problem = nonlinear(None)
    x0 = 0.5 * images()
    problem = Problem(problem.operator, problem.y, NoNoise(), x0=x0)
    found = solve(problem, IRGNM(initial=0.7, max_steps=1, forcing=0.0, max_inner_steps=90)).x
    for row in range(2):
        jacobian = torch.autograd.functional.jacobian(problem.operator, x0[row : row + 1]).reshape(SIZE, SIZE)
        residual = (problem.y[row] - problem.operator(x0[row : row + 1])[0]).flatten()
        whole = jacobian.mT @ jacobian + 0.7 * torch.eye(SIZE, dtype=torch.float64)
        expected = x0[row].flatten() + torch.linalg.solve(whole, jacobian.mT @ residual)
        assert torch.allclose(found[row].flatten(), expected, atol=1e-8)


# On photographs, through the operators of the other plugins


@pytest.mark.parametrize(
    ("operator", "sigma", "weight"),
    [
        ("perona-malik", 0.025, 0.008),
        ("gaussian-blur", 0.01, 1e-3),
        ("inpainting", 0.025, 0.01),
        ("compressive-sensing", 0.0, 0.003),
    ],
)
@pytest.mark.parametrize("cls", DESCENTS)
def test_photographs_come_out_better_than_they_start(operator, sigma, weight, cls):
    from preimage import Pipeline

    data = pytest.importorskip("preimage_data")
    pytest.importorskip(f"preimage_{operator.replace('-', '_')}")
    tables = {
        "operator": {"name": operator, **({"measurements": 500} if operator == "compressive-sensing" else {})},
        "noise": {"name": "gaussian", "sigma": sigma},
        "prior": {"name": "smoothed-tv", "weight": weight},
        "solver": {"name": "l-bfgs", "max_steps": 200},
    }
    dataset = data.Photographs(size=32, count=2)
    pipeline = Pipeline.from_dict(tables, data=dataset)
    x = torch.stack([dataset[i] for i in range(2)])
    problem = pipeline.problem(pipeline.simulate(x))
    result = solve(problem, cls(max_steps=200))
    assert bool((data.psnr(result.x, x) > data.psnr(problem.start(), x) + 0.5).all())


def test_the_gradient_of_the_start_is_not_what_a_good_start_needs():
    """A start at the solution ends by rounding, not by a gradient relative to itself."""
    problem = nonlinear(Tikhonov(SHAPE), 0.1)
    best = solve(problem, GaussNewton(tolerance=1e-10)).x
    again = solve(Problem(problem.operator, problem.y, problem.noise, problem.prior, 0.1, best), GaussNewton())
    assert set(again.status) == {Status.CONVERGED}
    assert np.allclose(again.x.numpy(), best.numpy(), atol=1e-7)
