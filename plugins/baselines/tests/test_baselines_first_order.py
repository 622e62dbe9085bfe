"""ISTA, FISTA, ADMM and primal-dual splitting: they agree on convex problems, with certificates that hold."""

import math

import numpy as np
import pytest
import torch
from preimage_baselines import (
    ADMM,
    FISTA,
    ISTA,
    ConjugateGradients,
    DiscreteGradient,
    PrimalDual,
    Tikhonov,
    TotalVariation,
)
from preimage_baselines.duality import duality_gap
from preimage_baselines.fast_diagonal import apply_diagonal
from preimage_baselines.splitting import split

from preimage import (
    Basis,
    Constraint,
    Diagonal,
    GaussianNoise,
    Identity,
    Key,
    LinearOperator,
    Problem,
    Proximable,
    Quadratic,
    Splittable,
    Status,
    solve,
    sum_of_priors,
)
from preimage.errors import BadParameter, Incompatible
from preimage.testing import check_solver

SHAPE = (1, 8, 10)
DOUBLE = torch.zeros((), dtype=torch.float64)
STEPS = ("prox", "conjugate", "gradient")


class Dense(LinearOperator):
    def __init__(self, matrix, shape=SHAPE):
        super().__init__(shape, (len(matrix),))
        self.register_buffer("matrix", matrix)

    def forward(self, x):
        return x.flatten(1) @ self.matrix.to(x).mT

    def adjoint(self, y):
        return (y @ self.matrix.to(y)).reshape(-1, *self.in_shape)


class Mask(LinearOperator):
    def __init__(self):
        super().__init__(SHAPE, SHAPE)
        self.register_buffer("mask", (Key(1).uniform(SHAPE, DOUBLE) < 0.6).double())

    def forward(self, x):
        return x * self.mask.to(x)

    def adjoint(self, y):
        return y * self.mask.to(y)

    def normal_diagonal(self):
        return Diagonal(Basis.PIXEL, self.mask.double())


class Blur(LinearOperator):
    """Means of three neighbours along both axes with the half-sample symmetric boundary: the cosine basis."""

    def __init__(self):
        super().__init__(SHAPE, SHAPE)

    def forward(self, x):
        for axis in (-2, -1):
            first, last = x.narrow(axis, 0, 1), x.narrow(axis, -1, 1)
            wide = torch.cat((first, x, last), axis)
            n = x.shape[axis]
            x = (wide.narrow(axis, 0, n) + wide.narrow(axis, 1, n) + wide.narrow(axis, 2, n)) / 3
        return x

    def adjoint(self, y):
        return self(y)

    def norm_bound(self):
        return 1.0

    def normal_diagonal(self):
        down, along = ((1 + 2 * torch.cos(math.pi * torch.arange(n, dtype=torch.float64) / n)) / 3 for n in SHAPE[1:])
        return Diagonal(Basis.COSINE, (down[:, None] * along).square())


class L1(Proximable):
    def energy(self, x):
        return x.abs().flatten(1).sum(1)

    def prox(self, x, step):
        step = torch.as_tensor(step, dtype=x.dtype).reshape(-1, 1, 1, 1)
        return x.sign() * (x.abs() - step).clamp_min(0)


class Above(Constraint):
    def __init__(self, in_shape, level=0.1):
        super().__init__(in_shape)
        self.level = level

    def feasible(self, x):
        return x.clamp_min(self.level)


def clean(count=2):
    x = 0.2 * torch.linspace(0, 1, SHAPE[-1], dtype=torch.float64).expand(count, *SHAPE).clone()
    for index in range(count):
        x[index, :, 2 : 5 + index, 2:7] += 0.6
    return x


def problem(name="blur", weight=0.02, prior=None):
    size = math.prod(SHAPE)
    operators = {
        "identity": lambda: Identity(SHAPE),
        "blur": Blur,
        "mask": Mask,
        "dense": lambda: Dense(Key(2).normal((size // 2, size), DOUBLE) / (size // 2) ** 0.5),
    }
    operator, noise = operators[name](), GaussianNoise(sigma=0.02)
    return Problem(operator, noise.sample(operator(clean()), Key(3)), noise, prior or TotalVariation(SHAPE), weight)


def matrix_of(operator):
    size = math.prod(operator.in_shape)
    eye = torch.eye(size, dtype=torch.float64).reshape(size, *operator.in_shape)
    return operator(eye).flatten(1).mT.numpy()


CONVEX = {
    "tv deblurring": lambda: problem("blur"),
    "tv inpainting": lambda: problem("mask"),
    "tv from few measurements": lambda: problem("dense"),
    "l1": lambda: problem("dense", 0.01, L1(SHAPE)),
    "tv, bounded below": lambda: problem(
        "blur", 1.0, sum_of_priors([TotalVariation(SHAPE), Above(SHAPE)], [0.02, 1.0])
    ),
}


@pytest.mark.parametrize("name", CONVEX)
def test_all_methods_agree_on_convex_problems(name):
    given = CONVEX[name]()
    data_steps = STEPS[1:] if isinstance(given.operator, Dense) else STEPS
    runs = {
        "fista": FISTA(tolerance=1e-8, max_steps=4000),
        "ista": ISTA(tolerance=1e-7, max_steps=4000),
        "admm": ADMM(tolerance=1e-6, max_steps=4000),
        **{step: PrimalDual(data_step=step, tolerance=1e-5, max_steps=6000) for step in data_steps},
    }
    values = {which: given.objective(solve(given, solver).x) for which, solver in runs.items()}
    best = torch.stack(list(values.values())).amin(0)
    for which, value in values.items():
        assert torch.allclose(value, best, rtol=1e-4, atol=0), (which, ((value - best) / best).tolist())


@pytest.mark.parametrize("name", ["identity", "blur", "mask", "dense"])
def test_with_default_stopping_primal_dual_is_within_a_thousandth(name):
    given = problem(name)
    best = given.objective(solve(given, ADMM(tolerance=1e-7, max_steps=5000)).x)
    result = solve(given, PrimalDual())
    assert set(result.status) == {Status.CONVERGED}
    assert bool((result.objective <= best * (1 + 1e-3)).all())


# Certificates, against numpy in float64


def exact_denoising_gap(y, x, p, weight):
    """Primal minus dual objective of TV denoising at x and at p shrunk pixel by pixel to length `weight`."""
    gradient = matrix_of(DiscreteGradient(SHAPE))
    p = p.reshape(2, -1)
    p = p * np.minimum(1, weight / np.maximum(np.hypot(p[0], p[1]), 1e-300))
    d = (gradient @ x.ravel()).reshape(2, -1)
    primal = 0.5 * ((x - y) ** 2).sum() + weight * np.hypot(d[0], d[1]).sum()
    q = -(gradient.T @ p.ravel())
    return primal - (-0.5 * (q**2).sum() - (q * y.ravel()).sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gap_of_denoising_is_primal_minus_dual(dtype):
    given = problem("identity", 0.1)
    x = given.y + 0.05 * Key(8).normal(given.y.shape, given.y)
    p = 0.1 * Key(9).normal((2, 2, *SHAPE), given.y)
    narrow = Problem(given.operator, given.y.to(dtype), given.noise, given.prior, 0.1)
    gap = duality_gap(narrow, x.to(dtype), p.to(dtype))
    expected = [exact_denoising_gap(given.y[i].numpy(), x[i].numpy(), p[i].numpy(), 0.1) for i in range(2)]
    assert gap is not None
    assert gap.tolist() == pytest.approx(expected, rel=1e-10 if dtype == torch.float64 else 1e-4)


def test_the_gap_of_the_lasso_is_primal_minus_dual():
    from preimage_baselines import CosineSparsity

    given = problem("dense", 0.01, CosineSparsity(SHAPE))
    transform, a = matrix_of(given.prior.transform()), matrix_of(given.operator)
    x = clean() + 0.1 * Key(8).normal(given.y[:, None, None, :1].shape, given.y)
    gap = duality_gap(given, x)
    assert gap is not None
    for index in range(2):
        r = a @ x[index].numpy().ravel() - given.y[index].numpy()
        t = min(1.0, 0.01 / np.abs(transform @ a.T @ r).max())
        primal = 0.5 * (r**2).sum() + 0.01 * np.abs(transform @ x[index].numpy().ravel()).sum()
        dual = -0.5 * t**2 * (r**2).sum() - t * (r @ given.y[index].numpy())
        assert float(gap[index]) == pytest.approx(primal - dual, rel=1e-10)


@pytest.mark.parametrize("data_step", STEPS)
def test_the_certificate_bounds_the_distance_to_the_optimum(data_step):
    given = problem("identity", 0.1)
    best = given.objective(given.prior.prox(given.y, 0.1))
    for steps in (3, 10, 50):
        result = solve(given, PrimalDual(data_step=data_step, max_steps=steps, tolerance=1e-5))
        assert result.certificate is not None
        assert bool((result.objective - best <= result.certificate * (1 + 1e-9) + 1e-9).all())
    result = solve(given, PrimalDual(data_step=data_step, tolerance=1e-4))
    assert bool((result.objective - best <= (1e-4 if "gap" in "".join(result.reasons) else 1e-3) * best).all())


def test_there_is_no_certificate_where_none_is_known():
    assert solve(problem("mask"), PrimalDual(max_steps=3)).certificate is None
    assert solve(problem("identity", prior=Tikhonov(SHAPE)), ADMM(max_steps=3)).certificate is None


# Weights, one for each image


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "solver",
    [
        ISTA(max_steps=30),
        FISTA(max_steps=30),
        ADMM(max_steps=30),
        ConjugateGradients(max_steps=15),
        *(PrimalDual(data_step=step, max_steps=30) for step in STEPS),
    ],
    ids=lambda s: f"{type(s).__name__}-{getattr(s, 'data_step', '')}",
)
def test_one_weight_per_image_equals_separate_runs(solver, dtype, weight_dtype):
    prior = Tikhonov(SHAPE) if isinstance(solver, ConjugateGradients) else TotalVariation(SHAPE)
    given = problem("blur", prior=prior)
    y, weights = given.y.to(dtype), torch.tensor([0.1, 0.003], dtype=weight_dtype)
    together = solve(Problem(given.operator, y, given.noise, prior, weights), solver)
    assert together.x.dtype == dtype
    for index, weight in enumerate(weights.tolist()):
        alone = solve(Problem(given.operator, y[index : index + 1], given.noise, prior, weight), solver)
        assert together.steps[index] == alone.steps[0]
        tolerance = 1e-4 if torch.float32 in (dtype, weight_dtype) else 1e-9
        assert torch.allclose(together.x[index], alone.x[0], atol=tolerance)


# Constraints


@pytest.mark.parametrize("solver", [ADMM(max_steps=7), PrimalDual(max_steps=7), FISTA(max_steps=7), ISTA(max_steps=7)])
@pytest.mark.parametrize("parts", [[Above(SHAPE)], [TotalVariation(SHAPE), Above(SHAPE)]], ids=["alone", "with tv"])
def test_every_estimate_satisfies_the_constraint(solver, parts):
    prior = parts[0] if len(parts) == 1 else sum_of_priors(parts, [0.02, 1.0])
    result = solve(problem("dense", 1.0, prior), solver)
    assert float(result.x.min()) >= 0.1
    assert result.objective is not None
    assert bool(torch.isfinite(result.objective).all())


def test_bounded_least_squares_is_that_of_scipy():
    optimize = pytest.importorskip("scipy.optimize")
    size = math.prod(SHAPE)
    matrix = Key(5).normal((2 * size, size), DOUBLE) / size**0.5
    operator = Dense(matrix)
    y = operator(clean(1) - 0.1)
    expected = optimize.lsq_linear(matrix.numpy(), y[0].numpy(), (0.1, np.inf), tol=1e-12).x
    given = Problem(operator, y, GaussianNoise(sigma=0.0), Above(SHAPE))
    for solver in (ADMM(tolerance=1e-7), PrimalDual(tolerance=1e-7, max_steps=5000), FISTA(tolerance=1e-9)):
        assert np.allclose(solve(given, solver).x[0].numpy().ravel(), expected, atol=1e-5)


# Parts


class Target(Quadratic):
    def __init__(self, c):
        super().__init__(SHAPE)
        self.register_buffer("c", c)

    def analysis(self):
        return DiscreteGradient(SHAPE)

    def target(self):
        return self.c


def test_conjugate_gradients_draw_the_coefficients_to_the_target():
    given = problem("dense", 0.3, Target(Key(4).normal((2, *SHAPE), DOUBLE)))
    a, k = matrix_of(given.operator), matrix_of(DiscreteGradient(SHAPE))
    b = a.T @ given.y.numpy().T + 0.3 * (k.T @ given.prior.c.numpy().ravel())[:, None]
    expected = np.linalg.solve(a.T @ a + 0.3 * k.T @ k, b).T.reshape(2, *SHAPE)
    result = solve(given, ConjugateGradients(tolerance=1e-11))
    assert np.allclose(result.x.numpy(), expected, atol=1e-8)
    assert torch.allclose(result.objective, given.objective(result.x), rtol=1e-9)
    assert np.allclose(solve(given, ADMM(tolerance=1e-8, max_steps=3000)).x.numpy(), expected, atol=1e-5)


class Plain(Splittable):
    """The same prior as total variation, of another class, so that nothing is compiled for it."""

    def __init__(self, prior):
        super().__init__(prior.in_shape)
        self.prior = prior

    def energy(self, x):
        return self.prior.energy(x)

    def analysis(self):
        return self.prior.analysis()

    def prox_coefficients(self, coefficients, step):
        return self.prior.prox_coefficients(coefficients, step)


@pytest.mark.parametrize("variant", ["isotropic", "anisotropic"])
@pytest.mark.parametrize("shape", [(2, 9, 12), (1, 1, 7), (3, 6, 1), (1, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_compiled_split_is_the_portable_one(variant, shape, dtype):
    pytest.importorskip("numba")
    prior = TotalVariation(shape, variant=variant)
    analysis, like = prior.analysis(), torch.zeros((), dtype=dtype)
    x = Key(0).normal((2, *shape), like)
    z, u = (analysis(Key(index).normal((2, *shape), like)) for index in (1, 2))
    threshold = torch.tensor([0.3, 0.7], dtype=dtype)
    kept = [t.clone() for t in (x, z, u)]
    fast, slow = (split(p, analysis, x, z, u, 1.8, threshold) for p in (prior, Plain(prior)))
    assert all(torch.equal(a, b) for a, b in zip(kept, (x, z, u), strict=True))
    for name in ("z", "u", "pull", "norm_z", "norm_u", "primal", "dual"):
        assert torch.allclose(getattr(fast, name), getattr(slow, name), atol=1e-5 if dtype == torch.float32 else 1e-12)


def test_admm_with_the_compiled_split_and_without_agree():
    compiled, portable = (
        solve(problem(prior=p), ADMM()) for p in (TotalVariation(SHAPE), Plain(TotalVariation(SHAPE)))
    )
    assert compiled.steps == portable.steps
    assert torch.allclose(compiled.x, portable.x, atol=1e-10)


@pytest.mark.parametrize("basis", list(Basis))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_diagonal_operator_is_the_same_by_either_transform(basis, dtype):
    width = SHAPE[2] // 2 + 1 if basis is Basis.FOURIER else SHAPE[2]
    diagonal = Diagonal(basis, Key(0).uniform((2, 1, SHAPE[1], width), DOUBLE))
    x = Key(1).normal((2, *SHAPE), torch.zeros((), dtype=dtype))
    kept = x.clone()
    assert torch.allclose(
        apply_diagonal(diagonal, x), diagonal.apply(x), atol=1e-5 if dtype == torch.float32 else 1e-12
    )
    assert torch.equal(kept, x)


def test_admm_uses_the_closed_form_of_a_matrix_for_an_orthonormal_basis():
    from preimage_baselines import CosineSparsity

    class Closed(Dense):
        calls = 0

        def solve_normal(self, b, shift):
            type(self).calls += 1
            gram = self.matrix.to(b).mT @ self.matrix.to(b)
            shifts = torch.as_tensor(shift, dtype=b.dtype).expand(len(b)).reshape(-1, 1, 1)
            return torch.linalg.solve(gram + shifts * torch.eye(len(gram), dtype=b.dtype), b.flatten(1)).reshape(
                b.shape
            )

    given = problem("dense", 0.01, CosineSparsity(SHAPE))
    closed = Problem(Closed(given.operator.matrix), given.y, given.noise, given.prior, 0.01)
    one, other = (solve(p, ADMM(tolerance=1e-6, max_steps=3000)) for p in (given, closed))
    assert Closed.calls > 10
    assert torch.allclose(one.objective, other.objective, rtol=1e-6)


@pytest.mark.parametrize("name", ["blur", "dense"])
@pytest.mark.parametrize(
    "solver",
    [ISTA(max_steps=50), ADMM(max_steps=50), PrimalDual(), PrimalDual(data_step="gradient", max_steps=50)],
    ids=str,
)
def test_total_variation_keeps_the_laws_of_solvers(name, solver):
    check_solver(solver, problem=problem(name))


@pytest.mark.parametrize(
    ("make", "mentions"),
    [
        (lambda: ISTA(step_size=0.0), "step_size"),
        (lambda: ISTA(tolerance=-1.0), "tolerance"),
        (lambda: PrimalDual(step_size=-1.0), "step_size"),
        (lambda: PrimalDual(dual_step_size=float("inf")), "dual_step_size"),
        (lambda: PrimalDual(relaxation=2.0), "relaxation"),
        (lambda: PrimalDual(relaxation=0.5), "relaxation"),
        (lambda: PrimalDual(tolerance=float("nan")), "tolerance"),
        (lambda: PrimalDual(data_step="exact"), "data_step"),
    ],
)
def test_bad_parameters_of_first_order_methods_are_refused_by_name(make, mentions):
    with pytest.raises(BadParameter, match=mentions):
        make()


def test_the_exact_data_step_needs_a_closed_form_and_says_so():
    with pytest.raises(Incompatible, match="solve_normal"):
        solve(problem("dense"), PrimalDual(data_step="prox"))
