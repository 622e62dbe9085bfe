"""Data-consistent refinement: the minimiser it claims, when it stops, and that no image depends on another."""

import math

import numpy as np
import pytest
import torch
from preimage_iresnet.map_inverse import MapInverse
from preimage_iresnet.reference import FORWARD, ReferenceMap
from preimage_iresnet.refinement import MapRefinement
from scipy.optimize import minimize

from preimage import (
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
    load,
    solve,
)
from preimage._algebra import per_image_operator
from preimage.errors import BadData, BadParameter, Incompatible, ShapeMismatch
from preimage.testing import check_solver

SHAPE = (1, 6, 7)
NOISE = GaussianNoise(sigma=0.05)


class Dense(LinearOperator):
    """A matrix with singular values from 1 to 0.01."""

    def __init__(self):
        super().__init__(SHAPE, SHAPE)
        matrix = np.random.default_rng(0).normal(size=(42, 42))
        left, _, right = np.linalg.svd(matrix)
        self.register_buffer("matrix", torch.from_numpy(left @ np.diag(np.logspace(0, -2, 42)) @ right))

    def forward(self, x):
        return (x.flatten(1) @ self.matrix.to(x).mT).reshape(x.shape)


class Bent(ForwardOperator):
    """F(x) = s + s^2 / 2, s the mean of an image and its right neighbours."""

    def __init__(self, shape=SHAPE):
        super().__init__(shape, shape)

    def forward(self, x):
        s = 0.5 * (x + x.roll(-1, -1))
        return s + 0.5 * s * s


def problem(operator=None, noise=NOISE, weight=0.1, count=3, sigma=0.01, dtype=torch.float64, forward=FORWARD):
    operator = operator or Bent()
    x = Key(1).uniform((count, *SHAPE), like=torch.zeros((), dtype=dtype))
    y = operator(x) + sigma * Key(2).normal(x.shape, like=x)
    return Problem(operator, y, noise, ReferenceMap(SHAPE, forward), weight)


def refined(given, **parameters):
    return solve(given, MapRefinement(allow_mismatch=True, **parameters))


def reference_of(given, tolerance=1e-3):
    return solve(given, MapInverse(allow_mismatch=True, tolerance=tolerance)).x


@pytest.mark.parametrize("operator", [Identity(SHAPE), Dense(), Bent()], ids=["identity", "dense", "bent"])
@pytest.mark.parametrize("parameters", [{}, {"tau": 0.0}, {"tau": 0.0, "max_steps": 3}])
def test_the_laws_of_solvers(operator, parameters):
    check_solver(MapRefinement(allow_mismatch=True, **parameters), problem=problem(operator, NOISE))


def test_linear_problems_end_at_the_minimiser_in_closed_form():
    operator = Dense()
    given = problem(operator, weight=0.02)
    result = refined(given, tau=0.0, tolerance=1e-9, max_steps=2000)
    matrix, reference = operator.matrix, reference_of(given).flatten(1)
    left = matrix.T @ matrix + 0.02 * torch.eye(42, dtype=torch.float64)
    exact = torch.linalg.solve(left, (given.y.flatten(1) @ matrix + 0.02 * reference).T).T
    assert result.status == (Status.CONVERGED,) * 3
    assert torch.allclose(result.x.flatten(1), exact, rtol=0, atol=1e-7)


@pytest.mark.parametrize("noise", [NOISE, PoissonNoise(peak=200.0)])
def test_nonlinear_problems_end_where_another_method_does(noise):
    given = problem(Bent(), noise)
    result = refined(given, tau=0.0, tolerance=1e-8, max_steps=2000)
    reference = reference_of(given)
    for index in range(3):
        y, r = given.y[index].numpy(), reference[index].numpy()

        def objective(flat, y=y, r=r):
            x = flat.reshape(y.shape)
            s = (x + np.roll(x, -1, -1)) / 2
            f = s + s * s / 2
            if noise is NOISE:
                misfit = 0.5 * ((f - y) ** 2).sum()
            else:
                p = np.maximum(f, 1e-6)
                misfit = (y * np.log(np.maximum(y, 1e-6) / p) - y + p).sum()
            return misfit + 0.05 * ((x - r) ** 2).sum()

        found = minimize(objective, r.ravel(), method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 500})
        assert float(result.objective[index]) == pytest.approx(found.fun, rel=1e-6)
        assert np.abs(result.x[index].numpy().ravel() - found.x).max() < 1e-4


def test_the_objective_never_rises_and_the_last_iterate_is_the_best():
    seen = []

    class Watch:
        @hookimpl
        def preimage_step(self, run):
            seen.append(run.objective())

    given = problem(Bent(), weight=0.0)
    result = solve(given, MapRefinement(allow_mismatch=True, tau=0.0, tolerance=1e-4), observers=[Watch()])
    values = torch.stack(seen)
    assert len(values) > 5
    assert bool((values[1:] <= values[:-1]).all())
    assert torch.equal(result.objective, values[-1])
    assert torch.allclose(result.objective, given.misfit(result.x))


def test_it_stops_at_the_first_image_that_fits_as_well_as_noise_allows():
    given = problem(Dense(), GaussianNoise(sigma=0.02), weight=1e-5, count=6, sigma=0.02)
    expected = given.noise.expected_misfit(given.y)
    result = refined(given, tolerance=0.0)
    assert bool((given.misfit(result.x) <= expected).all())
    assert all("discrepancy principle" in reason for reason in result.reasons)
    before = solve(given, MapRefinement(allow_mismatch=True, max_steps=min(result.steps) - 1))
    assert bool((given.misfit(before.x) > expected).all())
    looser = refined(given, tau=2.0)
    assert sum(looser.steps) < sum(result.steps)
    assert bool((given.misfit(looser.x) <= 4 * expected).all())


def test_a_reconstruction_that_fits_already_is_left_alone():
    given = problem(Bent(), GaussianNoise(sigma=2.0))
    result = refined(given)
    assert result.steps == (0,) * 3
    assert torch.equal(result.x, reference_of(given))


def test_noise_of_unknown_level_or_none_ends_by_the_gradient():
    result = refined(problem(Bent(), NoNoise()))
    assert all("norm of the gradient is at most 0.01 times" in reason for reason in result.reasons)


def test_the_reference_is_the_inverse_and_large_weights_keep_to_it():
    given = problem(Dense(), weight=1e6)
    result = refined(given, tau=0.0)
    assert torch.equal(result.details["reference"], reference_of(given))
    assert torch.allclose(result.x, reference_of(given), atol=1e-5)
    bound = solve(given, MapInverse(allow_mismatch=True)).certificate
    assert torch.equal(result.details["reference_bound"], bound)
    assert set(result.details) == {"reference", "reference_bound", "evaluations", "contraction"}


def test_the_map_from_data_to_the_minimiser_is_as_stable_as_claimed():
    operator, weight = Dense(), 0.01
    given = problem(operator, weight=weight, count=8)
    moved = given.y + 0.1 * Key(4).normal(given.y.shape, like=given.y)
    exact = {"tau": 0.0, "tolerance": 1e-5, "max_steps": 500, "inverse_tolerance": 1e-9}
    other = Problem(operator, moved, NOISE, given.prior, weight)
    apart = (refined(given, **exact).x - refined(other, **exact).x).flatten(1).norm(dim=1)
    limit = 1 / (1 - ReferenceMap.lipschitz) + 1 / (2 * math.sqrt(weight))
    assert bool((apart <= limit * (moved - given.y).flatten(1).norm(dim=1)).all())


def test_it_starts_where_it_is_told():
    given = problem(Bent(), weight=0.5)
    x0 = torch.full((3, *SHAPE), 0.3, dtype=torch.float64)
    told = Problem(given.operator, given.y, NOISE, given.prior, 0.5, x0)
    assert torch.equal(refined(told, max_steps=0).x, x0)
    exact = {"tau": 0.0, "tolerance": 1e-8, "max_steps": 500}
    assert torch.allclose(refined(told, **exact).x, refined(given, **exact).x, atol=1e-5)


def test_images_with_operators_of_their_own():
    masks = [load("operator", "inpainting")(SHAPE, mask="random", key=Key(i)) for i in range(3)]
    given = problem(per_image_operator(masks), weight=0.3)
    together = refined(given, tau=0.0, tolerance=1e-6)
    for index, mask in enumerate(masks):
        alone = refined(Problem(mask, given.y[index : index + 1], NOISE, given.prior, 0.3), tau=0.0, tolerance=1e-6)
        assert torch.allclose(together.x[index : index + 1], alone.x, atol=1e-9)
        assert together.steps[index] == alone.steps[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_ends_a_run_that_asks_for_too_much(dtype):
    result = refined(problem(Dense(), dtype=dtype), tau=0.0, tolerance=0.0, max_steps=5000)
    assert result.x.dtype == dtype
    assert all(s is Status.CONVERGED for s in result.status)
    assert all("no step along the gradient" in reason for reason in result.reasons)


def test_a_mismatch_is_refused_or_said():
    with pytest.raises(Incompatible, match=r"another operator than this Bent[\s\S]*allow_mismatch"):
        solve(problem(), MapRefinement())
    with pytest.raises(Incompatible, match="does not say which operator"):
        solve(problem(Identity(SHAPE), forward=None), MapRefinement())
    with pytest.raises(Incompatible, match="another noise"):
        solve(problem(Identity(SHAPE), GaussianNoise(sigma=0.3)), MapRefinement())
    assert "mismatch allowed" not in solve(problem(Identity(SHAPE)), MapRefinement()).reasons[0]
    assert "mismatch allowed" in refined(problem()).reasons[0]


def test_measurements_must_have_the_shape_of_images():
    operator = load("operator", "compressive-sensing")(SHAPE, measurements=20, key=Key(0))
    given = Problem(operator, torch.zeros(1, 20), NOISE, ReferenceMap(SHAPE))
    with pytest.raises(Incompatible, match=r"makes \(20,\) of images"):
        refined(given)


def test_bad_data_is_refused():
    y = torch.zeros(2, *SHAPE)
    y[0, 0, 0, 0] = float("inf")
    with pytest.raises(BadData, match="not finite"):
        Problem(Bent(), y, NOISE, ReferenceMap(SHAPE))
    with pytest.raises(ShapeMismatch, match="measurement y has shape"):
        Problem(Bent(), torch.zeros(2, 1, 5, 5), NOISE, ReferenceMap(SHAPE))


@pytest.mark.parametrize(
    "wrong",
    [{"tau": -1.0}, {"tau": float("inf")}, {"tolerance": -1e-3}, {"inverse_tolerance": 1.0}, {"max_steps": -1}],
)
def test_parameters_out_of_range_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(BadParameter, match=f"{name} is {wrong[name]}"):
        MapRefinement(**wrong)
