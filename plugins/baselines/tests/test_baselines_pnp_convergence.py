"""What plug-and-play methods say of their convergence, and when they say nothing."""

import pytest
import torch
from preimage_baselines import PnPADMM, PnPProximalGradient, TotalVariation

from preimage import AveragedDenoiser, Denoiser, GaussianNoise, Identity, LinearOperator, Problem, Status, solve
from preimage.errors import Diverged, LawBroken
from preimage.testing import check_prior

SHAPE = (1, 4, 5)


class Shrinking(AveragedDenoiser):
    """D(x) - 1/2 = (1 - 2 t) (x - 1/2), averaged: N turns the sign of x - 1/2."""

    def __init__(self, averaged=0.5, contraction=1.0, bounded=False):
        super().__init__(SHAPE)
        self.averaged, self.contraction, self.bounded = averaged, contraction, bounded

    def denoise(self, x, sigma):
        return 0.5 + (1 - self.averaged - self.averaged * self.contraction) * (x - 0.5)


class Undeclared(Denoiser):
    """The same without a proof."""

    def denoise(self, x, sigma):
        return 0.25 + 0.5 * x


class Halving(LinearOperator):
    """x / 2 without a closed form for its normal equations, and without a known norm unless one is given."""

    def __init__(self, bound=None):
        super().__init__(SHAPE, SHAPE)
        self.bound = bound

    def forward(self, x):
        return 0.5 * x

    def norm_bound(self):
        return self.bound


def problem(operator=None, prior=None):
    operator = Identity(SHAPE) if operator is None else operator
    y = torch.linspace(0, 1, 40, dtype=torch.float64).reshape(2, *SHAPE)
    return Problem(operator, y, GaussianNoise(sigma=0.1), Shrinking() if prior is None else prior, weight=0.01)


def reasons(given, solver):
    found = solve(given, solver)
    assert found.status == (Status.CONVERGED,) * 2
    return found.reasons


def test_forward_backward_names_the_step_its_bound_and_the_average():
    for reason in reasons(problem(), PnPProximalGradient(acceleration=False, step_size=1.5)):
        assert "theory: converges to a fixed point, if there is one, as D is averaged with t = 0.5 < 1" in reason
        assert "the step 1.5 < 2 / ||A||^2 = 2 (Bauschke" in reason
    assert "0.9 < 1" in reasons(problem(prior=Shrinking(0.9)), PnPProximalGradient(acceleration=False))[0]
    bounded = reasons(problem(prior=Shrinking(bounded=True)), PnPProximalGradient(acceleration=False))[0]
    assert "converges to a fixed point, as" in bounded
    both = reasons(problem(prior=Shrinking(contraction=0.9, bounded=True)), PnPProximalGradient(acceleration=False))[0]
    assert "converges to the only fixed point, as" in both
    estimated = reasons(problem(Halving()), PnPProximalGradient(acceleration=False))[0]
    assert "(||A|| by power iteration)" in estimated
    assert (
        "(||A|| by power iteration)" not in reasons(problem(Halving(0.5)), PnPProximalGradient(acceleration=False))[0]
    )


def test_douglas_rachford_names_the_average():
    for reason in reasons(problem(prior=Shrinking(0.4)), PnPADMM(sigma=0.2)):
        assert "theory: converges to a fixed point, if there is one, for every rho (here 0.25)" in reason
        assert "t = 0.4 <= 1/2" in reason


@pytest.mark.parametrize(
    ("given", "solver"),
    [
        (problem(), PnPProximalGradient()),
        (problem(), PnPProximalGradient(acceleration=False, step_size=2.0)),
        (problem(prior=Undeclared(SHAPE)), PnPProximalGradient(acceleration=False)),
        (problem(prior=TotalVariation(SHAPE)), PnPProximalGradient(acceleration=False)),
        (problem(prior=Undeclared(SHAPE)), PnPADMM()),
        (problem(prior=Shrinking(0.6, 0.5)), PnPADMM()),
        (problem(), PnPADMM(growth=1.1)),
        (problem(Halving(0.5)), PnPADMM()),
    ],
    ids=["momentum", "long step", "unproved", "proximal", "unproved admm", "t > 1/2", "penalty grows", "inexact"],
)
def test_nothing_is_said_where_the_theorem_does_not_apply(given, solver):
    for reason in reasons(given, solver):
        assert "residual is" in reason
        assert "theory" not in reason


def test_above_one_half_admm_may_diverge_where_proximal_gradient_descent_converges():
    given = problem(prior=Shrinking(0.9))
    with pytest.raises(Diverged):
        solve(given, PnPADMM(sigma=100.0, max_steps=2000))
    assert reasons(given, PnPProximalGradient(acceleration=False))


def test_the_law_of_averaged_denoisers():
    for averaged, contraction in ((0.5, 1.0), (0.9, 0.7)):
        check_prior(Shrinking(averaged, contraction))
    for averaged, contraction in ((0.4, 1.0), (0.5, 0.5), (1.0, 1.0), (0.5, 1.5)):
        prior = Shrinking()  # (1 - t) Id + t N with N = -Id at t = 1/2: not for a smaller t, nor a contraction
        prior.denoise = lambda x, sigma: 0 * x
        prior.averaged, prior.contraction = averaged, contraction
        with pytest.raises(LawBroken):
            check_prior(prior)
