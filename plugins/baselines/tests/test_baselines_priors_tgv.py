"""Total generalised variation: its kernel, its value and its proximal map against an independent convex solver."""

import math

import numpy as np
import pytest
import torch
from preimage_baselines import ADMM, PrimalDual, TotalGeneralizedVariation, TotalVariation, tgv_prox
from preimage_baselines.symmetrized_gradient import SymmetrizedGradient

from preimage import Basis, Diagonal, GaussianNoise, Key, LinearOperator, Problem, Status, dot, solve
from preimage.errors import BadParameter, ShapeMismatch
from preimage.testing import check_operator

SHAPE = (1, 5, 6)
DOUBLE = torch.zeros((), dtype=torch.float64)


def ramp(shape):
    i, j = (torch.arange(n, dtype=torch.float64) for n in shape[-2:])
    return (0.3 * i[:, None] - 0.1 * j + 0.5).expand(1, *shape)


@pytest.mark.parametrize("shape", [(2, 5, 6), (1, 2, 2), (1, 1, 4), (1, 4, 1), (1, 1, 1)])
def test_the_symmetrized_gradient_is_a_linear_operator(shape):
    check_operator(SymmetrizedGradient(shape))


def test_the_symmetrized_gradient_vanishes_on_the_gradients_of_affine_images_and_only_there():
    shape = (1, 6, 7)
    both = SymmetrizedGradient(shape) @ TotalVariation(shape).analysis()
    assert float(both(ramp(shape)).abs().max()) < 1e-14
    matrix = both(torch.eye(42, dtype=torch.float64).reshape(42, *shape)).flatten(1)
    assert int(torch.linalg.matrix_rank(matrix)) == 42 - 3


@pytest.mark.parametrize("coupled", [False, True])
def test_affine_images_cost_nothing_and_steps_what_they_cost_in_total_variation(coupled):
    prior = TotalGeneralizedVariation((2, 8, 9), coupled=coupled)
    x = torch.cat((ramp((2, 8, 9)), ramp((2, 8, 9)) + 0.2 * Key(1).normal((1, 2, 8, 9), DOUBLE)))
    energy = prior.energy(x)
    assert float(energy[0]) < 1e-4 * float(TotalVariation((2, 8, 9)).energy(x)[0])
    assert float(energy[1]) > 1
    assert bool((energy <= TotalVariation((2, 8, 9), coupled=coupled).energy(x) * (1 + 1e-4)).all())


def augmented(ratio):
    """K, E as dense matrices for one channel of SHAPE."""
    n = math.prod(SHAPE)
    k = TotalVariation(SHAPE).analysis()(torch.eye(n, dtype=torch.float64).reshape(n, *SHAPE)).flatten(1).mT.numpy()
    e = SymmetrizedGradient(SHAPE)
    e = e(torch.eye(2 * n, dtype=torch.float64).reshape(2 * n, *e.in_shape)).flatten(1).mT.numpy()
    return k, e


def smooth_minimum(x, ratio, step):
    """min over u, w by L-BFGS on sqrt(. + epsilon^2) with epsilon falling; u fixed to x if step is None."""
    optimize = pytest.importorskip("scipy.optimize")
    k, e = augmented(ratio)
    n, x = math.prod(SHAPE), x.flatten().numpy()

    def function(v, epsilon):
        u, w = (x, v) if step is None else (v[:n], v[n:])
        first, second = k @ u - w, e @ w
        a = np.sqrt((first.reshape(2, n) ** 2).sum(0) + epsilon**2)
        b = np.sqrt((second.reshape(3, n) ** 2).sum(0) + epsilon**2)
        s = 1 if step is None else step
        pull_a, pull_b = s * first / np.tile(a, 2), s * ratio * second / np.tile(b, 3)
        grad_w = e.T @ pull_b - pull_a
        value = s * (a.sum() + ratio * b.sum())
        if step is None:
            return value, grad_w
        return value + 0.5 * ((u - x) ** 2).sum(), np.concatenate((k.T @ pull_a + u - x, grad_w))

    v = np.zeros(2 * n) if step is None else np.concatenate((x, np.zeros(2 * n)))
    for epsilon in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        options = {"maxiter": 5000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-10, "maxcor": 40}
        v = optimize.minimize(function, v, (epsilon,), "L-BFGS-B", jac=True, options=options).x
    return function(v, 1e-12)[0], v[:n]


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_energy_and_proximal_map_agree_with_an_independent_minimisation(ratio):
    x = ramp(SHAPE) + 0.2 * Key(2).normal((1, *SHAPE), DOUBLE)
    prior = TotalGeneralizedVariation(SHAPE, ratio=ratio, tolerance=1e-6)
    expected, _ = smooth_minimum(x, ratio, None)
    assert float(prior.energy(x)) == pytest.approx(expected, rel=1e-3)
    assert float(prior.energy(x)) <= expected * (1 + 2e-6)
    value, u = smooth_minimum(x, ratio, 0.15)
    found = prior.prox(x, 0.15)
    mine = float(0.15 * prior.energy(found) + 0.5 * dot(found - x, found - x))
    assert mine <= value * (1 + 1e-5)
    np.testing.assert_allclose(found.flatten().numpy(), u, atol=2e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slopes_are_kept_where_total_variation_makes_stairs(dtype):
    shape = (1, 32, 32)
    i = torch.arange(32, dtype=torch.float64) / 32
    clean = (i[:, None] + 0.5 * i).expand(1, *shape)
    y = (clean + 0.05 * Key(3).normal((1, *shape), DOUBLE)).to(dtype)
    errors = {}
    for prior in (TotalGeneralizedVariation(shape), TotalVariation(shape)):
        u = prior.prox(y, 0.15)
        assert u.dtype == dtype
        errors[type(prior).__name__] = float((u - clean).square().mean())
    assert errors["TotalGeneralizedVariation"] < 0.5 * errors["TotalVariation"]


def test_units_do_not_matter():
    prior = TotalGeneralizedVariation(SHAPE, tolerance=1e-6)
    x = Key(2).normal((1, *SHAPE), DOUBLE)
    assert torch.allclose(prior.prox(255 * x, 255 * 0.1), 255 * prior.prox(x, 0.1), rtol=1e-6)
    assert torch.allclose(prior.energy(255 * x), 255 * prior.energy(x), rtol=1e-6)


def test_a_step_of_zero_and_a_flat_image_are_left_alone():
    prior, x = TotalGeneralizedVariation(SHAPE), Key(2).normal((2, *SHAPE), DOUBLE)
    assert torch.allclose(prior.prox(x, 0.0), x, atol=1e-12)
    flat = torch.full_like(x, 0.3)
    assert torch.allclose(prior.prox(flat, 0.5), flat, atol=1e-12)
    assert float(prior.energy(flat).max()) < 1e-100


def test_a_warm_start_saves_iterations():
    x = Key(2).normal((2, *SHAPE), DOUBLE)
    nearby = x + 1e-3 * Key(3).normal(x.shape, DOUBLE)
    exact, few = (TotalGeneralizedVariation(SHAPE, tolerance=1e-9, max_inner_steps=n).prox_from for n in (20000, 20))
    expected = exact(nearby, 0.1, None)[0]
    warm, cold = few(nearby, 0.1, exact(x, 0.1, None)[1])[0], few(nearby, 0.1, None)[0]
    assert float((warm - expected).norm()) < 0.05 * float((cold - expected).norm())


@pytest.mark.parametrize("solver", [ADMM(), PrimalDual(tolerance=1e-4)])
def test_solvers_do_not_stand_still_between_rough_proximal_maps(solver):
    """A result that is good enough for the step before, given back as it is, would stop them short."""
    shape = (1, 16, 16)
    mask = Key(4).uniform((1, *shape), DOUBLE) < 0.5

    class Half(LinearOperator):
        def forward(self, x):
            return x * mask

        def adjoint(self, y):
            return y * mask

        def normal_diagonal(self):
            return Diagonal(Basis.PIXEL, mask[0].double())

    y = (ramp(shape) + 0.1 * Key(3).normal((2, *shape), DOUBLE)) * mask

    def solved(**settings):
        prior = TotalGeneralizedVariation(shape, **settings)
        return solve(Problem(Half(shape, shape), y, GaussianNoise(sigma=0.1), prior, 0.1), solver)

    rough, fine = solved(tolerance=1e-2, max_inner_steps=100), solved(tolerance=1e-6)
    assert set(rough.status) == {Status.CONVERGED}, rough.reasons
    assert float((rough.x - fine.x).norm() / fine.x.norm()) < 2e-3
    assert sum(rough.steps) <= 1.5 * sum(fine.steps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("shape", [(3, 40, 33), (2, 5, 6), (2, 2, 2), (1, 1, 4), (1, 4, 1), (1, 1, 1), (3, 2, 1100)])
def test_the_compiled_iteration_is_the_portable_one(shape, coupled, dtype, monkeypatch):
    pytest.importorskip("numba")
    model = TotalGeneralizedVariation(shape, coupled=coupled, ratio=1.3)._model
    x = Key(3).normal((2, *shape), torch.zeros((), dtype=dtype))
    steps, like = torch.tensor([0.1, 0.3], dtype=dtype), 1e-4 if dtype == torch.float32 else 1e-10
    for fixed in (False, True):
        for count in (0, 1, 30):
            monkeypatch.undo()
            kept = x.clone()
            fast = tgv_prox.minimise(model, x, steps, None, 1e-30, count, fixed=fixed)
            again = tgv_prox.minimise(model, x, steps, fast[1], 1e-30, count, fixed=fixed)
            assert torch.equal(x, kept)
            monkeypatch.setattr(tgv_prox, "compiled", lambda: None)
            for found, memory in ((fast, None), (again, fast[1])):
                slow = tgv_prox.minimise(model, x, steps, memory, 1e-30, count, fixed=fixed)
                assert all(torch.allclose(a, b, atol=like) for a, b in zip(found[1], slow[1], strict=True))
                assert torch.allclose(found[2], slow[2], rtol=like, atol=1e-15)


def test_the_compiled_iteration_ends_where_the_portable_one_does(monkeypatch):
    pytest.importorskip("numba")
    prior, x = TotalGeneralizedVariation((1, 16, 16)), Key(2).normal((2, 1, 16, 16), DOUBLE)
    u, energy = prior.prox(x, 0.2), prior.energy(x)
    alone = torch.cat([prior.prox(image[None], 0.2) for image in x])
    assert torch.equal(u, alone)
    monkeypatch.setattr(tgv_prox, "compiled", lambda: None)
    assert torch.allclose(u, prior.prox(x, 0.2), atol=1e-9)
    assert torch.allclose(energy, prior.energy(x), rtol=1e-9)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")  # torch's own, on first use of forward mode
def test_derivatives_go_around_what_is_compiled():
    prior, x = TotalGeneralizedVariation((1, 5, 6), max_inner_steps=20), Key(2).normal((1, 1, 5, 6), DOUBLE)
    direction, small = Key(3).normal(x.shape, DOUBLE), 1e-6
    expected = (prior.prox(x + small * direction, 0.3) - prior.prox(x - small * direction, 0.3)) / (2 * small)
    _, forward = torch.func.jvp(lambda z: prior.prox(z, 0.3), (x,), (direction,))
    assert torch.allclose(forward, expected, atol=1e-5)
    with torch.autograd.forward_ad.dual_level():
        pair = torch.autograd.forward_ad.make_dual(x, direction)
        tangent = torch.autograd.forward_ad.unpack_dual(prior.prox(pair, 0.3)).tangent
    assert torch.allclose(tangent, expected, atol=1e-5)
    given = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(prior.prox(given, 0.3).sum(), given)
    assert float(dot(gradient, direction)) == pytest.approx(float(expected.sum()), abs=1e-5)


def test_bad_parameters_are_refused():
    for wrong in ({"ratio": 0.0}, {"tolerance": 0.0}, {"max_inner_steps": 0}):
        with pytest.raises(BadParameter, match=next(iter(wrong))):
            TotalGeneralizedVariation(SHAPE, **wrong)
    with pytest.raises(ShapeMismatch, match="channel"):
        TotalGeneralizedVariation((8, 8))
