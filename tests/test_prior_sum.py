"""Sums of priors: the laws, the right proximal map, and pipelines with several [[prior]] tables."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from preimage import (
    Constraint,
    Denoiser,
    Differentiable,
    GaussianNoise,
    Identity,
    Key,
    Pipeline,
    Problem,
    Proximable,
    Quadratic,
    Splittable,
    load,
    solve,
    sum_of_priors,
)
from preimage.errors import BadParameter, Incompatible, ShapeMismatch
from preimage.testing import check_prior

SHAPE = (1, 5, 6)


class Between(Constraint):
    """0.2 <= x <= 0.6 at every pixel."""

    def feasible(self, x: Tensor) -> Tensor:
        return x.clamp(0.2, 0.6)


class Smooth(Differentiable):
    """R(x) = sum sqrt(x^2 + 0.01)."""

    def energy(self, x: Tensor) -> Tensor:
        return (x.square() + 0.01).sqrt().flatten(1).sum(1)


class Blind(Denoiser):
    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return x.clone()


def tv(shape=SHAPE):
    return load("prior", "tv")(in_shape=shape)


def tikhonov(kind="gradient"):
    return load("prior", "tikhonov")(in_shape=SHAPE, kind=kind)


def images(count=2):
    return Key(3).child("x").uniform((count, *SHAPE), like=torch.zeros((), dtype=torch.float64))


@pytest.mark.parametrize(
    ("parts", "capability"),
    [
        (lambda: [tv(), Between(SHAPE)], Proximable),
        (lambda: [Between(SHAPE), tv(), tv()], Proximable),
        (lambda: [tikhonov(), tikhonov("identity")], Quadratic),
        (lambda: [tv(), tikhonov()], Splittable),
        (lambda: [Smooth(SHAPE), tikhonov()], Differentiable),
    ],
)
def test_a_sum_keeps_the_laws_and_the_shared_capabilities(parts, capability):
    whole = sum_of_priors(parts(), [0.3, 0.7, 0.2][: len(parts())])
    assert isinstance(whole, capability)
    check_prior(whole)


def test_energy_and_gradient_are_weighted_sums():
    parts, x = [Smooth(SHAPE), tikhonov()], images()
    whole = sum_of_priors(parts, [0.3, 2.0])
    torch.testing.assert_close(whole.energy(x), 0.3 * parts[0].energy(x) + 2 * parts[1].energy(x))
    torch.testing.assert_close(whole.grad(x), 0.3 * parts[0].grad(x) + 2 * parts[1].grad(x))


def test_quadratic_sum_is_half_a_square_with_its_target():
    class Towards(Quadratic):
        def analysis(self):
            return 2.0 * Identity(SHAPE)

        def target(self):
            return torch.full(SHAPE, 0.8, dtype=torch.float64)

    whole, x = sum_of_priors([tikhonov(), Towards(SHAPE)], [0.5, 3.0]), images()
    assert isinstance(whole, Quadratic)
    direct = 0.5 * tikhonov().energy(x) + 3 * 0.5 * (2 * x - 0.8).flatten(1).square().sum(1)
    torch.testing.assert_close(whole.energy(x), direct)
    torch.testing.assert_close(Quadratic.energy(whole, x), direct)


def test_proximal_map_of_a_sum_against_an_independent_optimiser():
    """prox of l1-like TV plus a box, as a bound-constrained smooth problem solved by scipy."""
    shape, x = (1, 3, 4), images(1)[:, :, :3, :4] * 1.4 - 0.2
    quadratic = load("prior", "tikhonov")(in_shape=shape, kind="gradient")
    found = sum_of_priors([quadratic, Between(shape)], [0.4, 1.0]).prox(x, 0.5)

    def value(flat: np.ndarray) -> float:
        u = torch.from_numpy(flat.reshape(1, *shape))
        return float(0.5 * 0.4 * quadratic.energy(u) + 0.5 * (u - x).square().sum())

    best = minimize(value, np.full(12, 0.4), bounds=[(0.2, 0.6)] * 12, method="L-BFGS-B", options={"ftol": 1e-15})
    assert np.abs(best.x.reshape(shape) - found[0].numpy()).max() < 1e-5


def test_a_constraint_is_applied_last_whatever_the_order():
    x = images() * 2 - 0.5
    for parts in ([tv(), Between(SHAPE)], [Between(SHAPE), tv()]):
        u = sum_of_priors(parts, [0.1, 1.0]).prox(x, 1.0)
        assert float(u.min()) >= 0.2
        assert float(u.max()) <= 0.6


def test_weight_zero_takes_a_part_out():
    x = images() * 2 - 0.5
    whole = sum_of_priors([tv(), Between(SHAPE)], [0.1, 0.0])
    torch.testing.assert_close(whole.prox(x, 1.0), tv().prox(x, 0.1), rtol=1e-6, atol=1e-8)
    assert bool(torch.isfinite(whole.energy(x)).all())


def test_solvers_agree_on_a_sum():
    y = images()
    prior = sum_of_priors([tv(), Between(SHAPE)], [0.1, 1.0])
    problem = Problem(Identity(SHAPE), y, GaussianNoise(sigma=0.1), prior, 1.0)
    fista = solve(problem, load("solver", "fista")(tolerance=1e-9)).x
    admm = solve(problem, load("solver", "admm")(tolerance=1e-9, max_steps=5000)).x
    # As near as the proximal map of TV, by an inner iteration, is exact.
    torch.testing.assert_close(problem.objective(fista), problem.objective(prior.feasible(admm)), rtol=1e-6, atol=0)
    torch.testing.assert_close(fista, admm, rtol=0, atol=1e-3)


def test_bad_sums_are_refused():
    with pytest.raises(Incompatible, match=r"Blind.*no energy"):
        sum_of_priors([tv(), Blind(SHAPE)], [1, 1])
    with pytest.raises(ShapeMismatch, match="images of one shape"):
        sum_of_priors([tv(), tv((1, 4, 4))], [1, 1])
    with pytest.raises(BadParameter, match="finite number >= 0"):
        sum_of_priors([tv(), tv()], [1, -1])
    with pytest.raises(Incompatible, match="no priors"):
        sum_of_priors([], [])


TABLES = {
    "shape": [1, 16, 16],
    "operator": {"name": "gaussian-blur"},
    "noise": {"name": "gaussian", "sigma": 0.02},
    "prior": [{"name": "tv", "weight": 0.002}, {"name": "tikhonov", "weight": 0.01}],
    "solver": {"name": "fista"},
}


def test_a_pipeline_with_two_priors_runs_and_records_both():
    pipeline = Pipeline.from_dict(TABLES)
    y = pipeline.simulate(Key(1).uniform((2, 1, 16, 16)))
    again = Pipeline.from_dict(pipeline.reconstruct(y).provenance["pipeline"])
    assert [table["weight"] for table in again.config["prior"]] == [0.002, 0.01]
    assert torch.equal(again.reconstruct(y).x, pipeline.reconstruct(y).x)


def test_a_pipeline_whose_sum_does_not_fit_names_what_would():
    with pytest.raises(
        Incompatible, match=r"sum of 'tv' and 'tikhonov' is Proximable, Splittable, Energy(.|\n)*Quadratic"
    ):
        Pipeline.from_dict({**TABLES, "solver": {"name": "conjugate-gradients"}})
