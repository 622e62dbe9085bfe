import subprocess
import sys

import pytest
import torch
from preimage_baselines import (
    ADMM,
    FISTA,
    AdjointSolver,
    ConjugateGradients,
    DiscreteGradient,
    Tikhonov,
    TotalVariation,
)

from preimage import ForwardOperator, GaussianNoise, Identity, Key, Problem, solve
from preimage.errors import BadParameter, Incompatible, PreimageError, ShapeMismatch
from preimage.testing import check_operator

SHAPE = (1, 8, 8)


@pytest.mark.parametrize("shape", [(2, 9, 12), (1, 1, 7), (3, 6, 1), (1, 1, 1)])
def test_the_gradient_is_a_linear_operator_with_its_closed_forms(shape):
    check_operator(DiscreteGradient(shape))


@pytest.mark.parametrize("shape", [(1, 9, 12), (1, 1, 7)])
def test_the_bound_of_the_gradient_is_its_norm(shape):
    gradient = DiscreteGradient(shape)
    size = shape[1] * shape[2]
    columns = gradient(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).flatten(1)
    assert gradient.norm_bound() == pytest.approx(float(torch.linalg.matrix_norm(columns, 2)), rel=1e-12)


def test_the_entry_module_imports_no_torch():
    code = "import sys, preimage_baselines.plugin as p; p.preimage_components(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("make", "mentions"),
    [
        (lambda: ADMM(penalty=0.0), "penalty"),
        (lambda: ADMM(penalty=-1.0), "penalty"),
        (lambda: ADMM(relaxation=2.0), "relaxation"),
        (lambda: ADMM(relaxation=0.0), "relaxation"),
        (lambda: ADMM(tolerance=-1e-3), "tolerance"),
        (lambda: FISTA(step_size=0.0), "step_size"),
        (lambda: FISTA(step_size=float("nan")), "step_size"),
        (lambda: FISTA(tolerance=-1.0), "tolerance"),
        (lambda: ConjugateGradients(tolerance=float("inf")), "tolerance"),
        (lambda: TotalVariation(SHAPE, tolerance=0.0), "tolerance"),
        (lambda: TotalVariation(SHAPE, max_inner_steps=0), "max_inner_steps"),
    ],
)
def test_bad_parameters_are_refused_by_name(make, mentions):
    with pytest.raises(BadParameter, match=mentions):
        make()


def test_images_without_a_channel_axis_are_refused():
    with pytest.raises(ShapeMismatch, match="channel"):
        TotalVariation((8, 8))


class Square(ForwardOperator):
    def __init__(self):
        super().__init__(SHAPE, SHAPE)

    def forward(self, x):
        return x * x


@pytest.mark.parametrize("solver", [ADMM(), ConjugateGradients(), AdjointSolver()], ids=lambda s: type(s).__name__)
def test_linear_solvers_refuse_a_nonlinear_operator(solver):
    prior = None if isinstance(solver, AdjointSolver) else Tikhonov(SHAPE)
    problem = Problem(Square(), torch.rand(1, *SHAPE), GaussianNoise(sigma=0.1), prior)
    with pytest.raises(Incompatible, match="LinearOperator"):
        solve(problem, solver)


def test_conjugate_gradients_refuse_a_prior_that_is_not_quadratic():
    problem = Problem(Identity(SHAPE), torch.rand(1, *SHAPE), GaussianNoise(sigma=0.1), TotalVariation(SHAPE))
    with pytest.raises(Incompatible, match="Quadratic"):
        solve(problem, ConjugateGradients())


def test_admm_needs_a_prior_and_says_so():
    with pytest.raises(PreimageError, match="prior"):
        solve(Problem(Identity(SHAPE), torch.rand(1, *SHAPE), GaussianNoise(sigma=0.1)), ADMM())


def test_the_scaled_adjoint_fits_the_measurement_best():
    operator = 3.0 * Identity(SHAPE)
    x = Key(0).uniform((2, *SHAPE))
    problem = Problem(operator, operator(x), GaussianNoise(sigma=0.0))
    assert torch.allclose(solve(problem, AdjointSolver()).x, 9 * x)
    assert torch.allclose(solve(problem, AdjointSolver(scaled=True)).x, x)
