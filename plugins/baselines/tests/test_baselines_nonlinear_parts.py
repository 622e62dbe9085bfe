"""Line searches, the memory of L-BFGS, the Gauss-Newton model: each against dense algebra or its definition."""

import math

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
    TotalVariation,
    curvature,
)
from preimage_baselines.gauss_newton_model import GaussNewtonModel, truncated_conjugate_gradients
from preimage_baselines.lbfgs import Memory
from preimage_baselines.line_search import Point, cauchy_length, evaluate, line_search, lower, smooth

from preimage import Differentiable, GaussianNoise, Identity, Key, LinearOperator, Problem, dot
from preimage.errors import BadParameter, Incompatible

SHAPE = (1, 4, 5)
SIZE = math.prod(SHAPE)
DOUBLE = torch.zeros((), dtype=torch.float64)


class Matrix(LinearOperator):
    def __init__(self, matrix):
        super().__init__(SHAPE, (len(matrix),))
        self.register_buffer("matrix", matrix)

    def forward(self, x):
        return x.flatten(1) @ self.matrix.to(x).mT


class Wells(Differentiable):
    """R(x) = sum of (x^2 - 1)^2 / 4: two minima per pixel, and a Hessian 3 x^2 - 1 that is negative between them."""

    def energy(self, x):
        return 0.25 * (x.square() - 1).square().flatten(1).sum(1)


def random(name, count=3):
    return Key(0).child(name).normal((count, *SHAPE), DOUBLE)


def dense(apply, count=1, row=0):
    """The matrix that acts on row `row` of a batch."""
    units = torch.eye(SIZE, dtype=torch.float64).reshape(SIZE, 1, *SHAPE).expand(SIZE, count, *SHAPE)
    return torch.stack([apply(unit.clone())[row].flatten() for unit in units], 1)


# The line search


def wells(count=3, start=None):
    return Problem(
        Identity(SHAPE),
        torch.zeros(count, *SHAPE, dtype=torch.float64),
        GaussianNoise(sigma=0.1),
        Wells(SHAPE),
        5.0,
        start,
    )


@pytest.mark.parametrize("first", [1e-6, 1e-2, 1.0, 1e4])
def test_an_accepted_step_fulfils_the_wolfe_conditions(first):
    problem = wells()
    at = evaluate(problem, 0.7 * random("x"))
    direction = -at.gradient * torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    slope = dot(at.gradient, direction)
    new, taken, moved, *_ = line_search(
        smooth(problem), at, direction, torch.full((3,), first, dtype=torch.float64), wolfe=True
    )
    assert bool(moved.all())
    assert torch.allclose(new.x, at.x + taken.reshape(3, 1, 1, 1) * direction)
    assert torch.allclose(new.value, problem.objective(new.x))
    assert torch.allclose(new.gradient, evaluate(problem, new.x).gradient)
    assert bool((new.value <= at.value + 1e-4 * taken * slope).all())
    assert bool((dot(new.gradient, direction) >= 0.9 * slope).all())


def test_the_armijo_search_only_shortens():
    problem = wells()
    at = evaluate(problem, random("x"))
    _, taken, moved, *_ = line_search(smooth(problem), at, -at.gradient, torch.full((3,), 100.0).double(), wolfe=False)
    assert bool(moved.all())
    assert bool((taken < 100).all())
    _, taken, *_ = line_search(
        smooth(problem), at, -at.gradient, torch.full((3,), 1e-5, dtype=torch.float64), wolfe=False
    )
    assert torch.equal(taken, torch.full((3,), 1e-5, dtype=torch.float64))


def test_no_step_is_taken_uphill_or_on_the_spot():
    problem = wells()
    at = evaluate(problem, random("x"))
    direction = at.gradient * torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    new, taken, moved, *_ = line_search(
        smooth(problem), at, direction, torch.full((3,), 1e-3, dtype=torch.float64), wolfe=False
    )
    assert moved.tolist() == [False, False, True]
    assert torch.equal(new.x[:2], at.x[:2])
    assert taken.tolist() == [0.0, 0.0, 1e-3]


def test_a_known_trial_is_not_evaluated_again():
    calls = []

    def objective(index, x):
        calls.append(index.tolist())
        return x.square().flatten(1).sum(1)

    x = random("x")
    at = Point(x, objective(torch.arange(3), x), 2 * x)
    step = -x * torch.tensor([1.0, 4.0, 30.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    calls.clear()
    new, moved = lower(objective, at, step, (x + step).square().flatten(1).sum(1))
    assert bool(moved.all())
    assert bool((new.square().flatten(1).sum(1) < at.value).all())
    assert torch.equal(new[0], (x + step)[0])
    assert calls[0] == [1, 2]


def test_the_cauchy_length_minimises_a_quadratic():
    problem = Problem(
        Matrix(Key(1).normal((30, SIZE), DOUBLE)), Key(2).normal((3, 30), DOUBLE), GaussianNoise(sigma=0.1),
        Tikhonov(SHAPE), torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64), random("start"),
    )  # fmt: skip
    at = evaluate(problem, problem.start())
    length = cauchy_length(problem, at).reshape(3, 1, 1, 1)
    after = evaluate(problem, at.x - length * at.gradient)
    assert torch.allclose(dot(after.gradient, at.gradient), torch.zeros(3).double(), atol=1e-9 * float(at.value.max()))


# L-BFGS


def test_the_two_loop_recursion_is_the_bfgs_formula():
    memory = Memory.empty(3, torch.ones(2, dtype=torch.float64))
    pairs = []
    for index in range(5):
        s = random(f"s{index}", 2)
        q = 2 * s + 0.3 * random(f"q{index}", 2)
        pairs.append((s, q))
        memory = memory.then(s, q)
    g = random("g", 2)
    for row in range(2):
        s, q = (part[row].flatten() for part in pairs[-1])
        inverse = torch.eye(SIZE, dtype=torch.float64) * (s @ q) / (q @ q)
        for pair in pairs[-3:]:
            s, q = (part[row].flatten() for part in pair)
            left = torch.eye(SIZE, dtype=torch.float64) - torch.outer(s, q) / (s @ q)
            inverse = left @ inverse @ left.mT + torch.outer(s, s) / (s @ q)
        assert torch.allclose(memory.multiply(g)[row].flatten(), inverse @ g[row].flatten())


def test_a_pair_without_positive_curvature_is_not_remembered_and_each_image_has_its_own():
    s = random("s", 2)
    q = s * torch.tensor([-1.0, 2.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    memory = Memory.empty(2, torch.ones(2, dtype=torch.float64)).then(s, q)
    g = random("g", 2)
    assert torch.equal(memory.multiply(g)[0], g[0])
    assert torch.allclose(memory.multiply(g)[1], 0.5 * g[1])
    broken = memory.then(float("nan") * s, q)
    assert torch.equal(broken.multiply(g), memory.multiply(g))
    alone = Memory.empty(2, torch.ones(1, dtype=torch.float64)).then(s[1:], q[1:])
    assert torch.equal(alone.multiply(g[1:]), memory.multiply(g)[1:])


# The Gauss-Newton model


def test_the_curvature_of_a_prior_without_one_of_its_own_is_its_hessian():
    x = random("x")
    known = curvature(Wells(SHAPE), x)
    for row in range(3):
        expected = torch.diag(3 * x[row].flatten().square() - 1)
        assert torch.allclose(dense(known.apply, 3, row), expected)


def test_the_curvature_of_smoothed_total_variation_lies_above_its_hessian_and_is_nearly_what_preconditions():
    x = 0.1 * random("x")
    prior = SmoothedTotalVariation(SHAPE)
    known = curvature(prior, x)
    for row in range(3):
        exact = torch.autograd.functional.hessian(lambda u: prior.energy(u[None]).sum(), x[row])
        above = dense(known.apply, 3, row) - exact.reshape(SIZE, SIZE)
        assert float(torch.linalg.eigvalsh(above).min()) > -1e-10
        assert known.diagonal is not None
        near, true = dense(known.diagonal.apply, 3, row), dense(known.apply, 3, row)
        assert float(torch.linalg.eigvalsh(near - true).abs().max()) < float(torch.linalg.eigvalsh(true).max())


def test_a_prior_without_a_gradient_has_no_curvature():
    with pytest.raises(Incompatible, match="gradient"):
        curvature(TotalVariation(SHAPE), random("x"))


@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_the_exact_inner_solve_is_the_dense_one(damping):
    matrix = Key(1).normal((12, SIZE), DOUBLE)
    weights = torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64)
    x, g = random("x"), random("g")
    prior = Tikhonov(SHAPE, kind="identity")
    ones = torch.ones(3, dtype=torch.float64)
    model = GaussNewtonModel(Matrix(matrix), (curvature(prior, x), weights), damping * ones, ones)
    step = truncated_conjugate_gradients(model, g, 1e-12 * ones, 100)
    for row in range(3):
        whole = matrix.mT @ matrix + (float(weights[row]) + damping) * torch.eye(SIZE, dtype=torch.float64)
        s = -torch.linalg.solve(whole, g[row].flatten())
        assert torch.allclose(step.s[row].flatten(), s, atol=1e-9)
        assert torch.allclose(step.product[row].flatten(), whole @ s, atol=1e-9)
        promised = -(g[row].flatten() @ s) - 0.5 * s @ whole @ s
        assert float(step.decrease(g)[row]) == pytest.approx(float(promised))


def test_the_inner_solve_stops_at_its_forcing_term_image_by_image():
    matrix, g, ones = Key(1).normal((12, SIZE), DOUBLE), random("g"), torch.ones(3, dtype=torch.float64)
    model = GaussNewtonModel(Matrix(matrix), None, 0.1 * ones, ones)
    forcing = torch.tensor([0.5, 0.1, 1e-6], dtype=torch.float64)
    step = truncated_conjugate_gradients(model, g, forcing, 200)
    left = (step.product + g).flatten(1).norm(dim=1) / g.flatten(1).norm(dim=1)
    assert bool((left <= forcing).all())
    assert float(left[0]) > 1e-3
    for row in range(3):
        ones_ = ones[row : row + 1]
        alone = GaussNewtonModel(Matrix(matrix), None, 0.1 * ones_, ones_)
        one = truncated_conjugate_gradients(alone, g[row : row + 1], forcing[row : row + 1], 200)
        assert torch.allclose(one.s, step.s[row : row + 1], atol=1e-12)


def test_negative_curvature_still_gives_a_direction_of_descent():
    x, g, ones = 0.1 * random("x"), random("g"), torch.ones(3, dtype=torch.float64)
    zero = Matrix(torch.zeros(1, SIZE, dtype=torch.float64))
    model = GaussNewtonModel(zero, (curvature(Wells(SHAPE), x), 1.0), 0 * ones, ones)
    assert bool((dot(g, curvature(Wells(SHAPE), x).apply(g)) < 0).all())
    step = truncated_conjugate_gradients(model, g, 0.1 * ones, 10)
    assert bool((dot(g, step.s) < 0).all())


@pytest.mark.parametrize(
    ("make", "mentions"),
    [
        (lambda: GradientDescent(step_size=0.0), "step_size"),
        (lambda: GradientDescent(tolerance=-1.0), "tolerance"),
        (lambda: LBFGS(memory=0), "memory"),
        (lambda: LBFGS(tolerance=float("nan")), "tolerance"),
        (lambda: GaussNewton(forcing=1.0), "forcing"),
        (lambda: GaussNewton(max_inner_steps=0), "max_inner_steps"),
        (lambda: GaussNewton(tolerance=-1.0), "tolerance"),
        (lambda: LevenbergMarquardt(damping=0.0), "damping"),
        (lambda: LevenbergMarquardt(forcing=-0.1), "forcing"),
        (lambda: IRGNM(initial=0.0), "initial"),
        (lambda: IRGNM(ratio=1.0), "ratio"),
        (lambda: IRGNM(tau=0.9), "tau"),
        (lambda: IRGNM(forcing=1.0), "forcing"),
        (lambda: IRGNM(max_inner_steps=0), "max_inner_steps"),
        (lambda: IRGNM(max_steps=-1), "max_steps"),
    ],
)
def test_bad_parameters_are_refused_by_name(make, mentions):
    with pytest.raises(BadParameter, match=mentions):
        make()
