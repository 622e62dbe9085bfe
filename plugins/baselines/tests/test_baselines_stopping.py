"""Stopping rules: each image by its own rule, which is named; runs that go wrong are ended before NaN appears."""

import pytest
import torch
from preimage_baselines import ADMM, FISTA, ISTA, ConjugateGradients, PrimalDual, Tikhonov, TotalVariation
from preimage_baselines.stopping import Event, Growth, Rule, Window, any_met, relative_change, which_met

from preimage import GaussianNoise, Identity, Key, LinearOperator, Problem, Status, solve
from preimage.errors import Diverged

SHAPE = (1, 10, 12)


class Blur(LinearOperator):
    """Means of neighbouring columns, circular; norm 1."""

    def __init__(self):
        super().__init__(SHAPE, SHAPE)

    def forward(self, x):
        return 0.5 * (x + x.roll(-1, -1))

    def adjoint(self, y):
        return 0.5 * (y + y.roll(1, -1))


def problem(count=2, dtype=torch.float64, weight=0.02, prior=None):
    y = Key(0).normal((count, *SHAPE), torch.zeros((), dtype=dtype)) * 0.1
    y[..., 3:7, 2:9] += 1
    return Problem(Blur(), y, GaussianNoise(sigma=0.1), prior or TotalVariation(SHAPE), weight)


def test_the_first_rule_that_is_met_is_named_for_each_image():
    rules = (
        Rule("the gap", torch.tensor([1.0, 1e-5, float("nan"), 2.0]), 1e-4),
        Event("no descent", torch.tensor([False, True, False, True])),
        Rule("the change", torch.tensor([1e-9, 1e-9, 1.0, 1.0]), torch.tensor([1e-8, 1e-8, 1e-8, 1e-8])),
    )
    assert any_met(rules).tolist() == [True, True, False, True]
    assert which_met(rules) == [
        "the change is 1e-09, at most 1e-08",
        "the gap is 1e-05, at most 0.0001",
        "no rule was met",
        "no descent",
    ]


def test_a_window_needs_to_be_full_and_looks_at_more_than_one_step():
    window = Window.of(torch.tensor([8.0, 8.0]), 3)
    values = [(4.0, 8.0), (4.0, 8.0), (2.0, 8.0)]
    changes = []
    for pair in values:
        window = window.then(torch.tensor(pair))
        changes.append(window.change().tolist())
    # The second step of the first image changes nothing, and does not look like the end.
    assert changes[0] == changes[1] == [float("inf")] * 2
    assert changes[2] == [3.0, 0.0]


@pytest.mark.parametrize("length", [1, 10])
def test_a_window_of_infinite_values_ends_nothing(length):
    window = Window.of(torch.full((1,), float("inf")), length)
    for _ in range(12):
        assert not bool(Rule("the change", window.change(), 1e-3).met)
        window = window.then(torch.full((1,), float("inf")))


def test_growth_is_what_lasts_or_is_enormous():
    growth = Growth.of(torch.tensor([1.0, 1.0, 1.0, 0.0]), 1e-6)
    for step in range(5):
        # A peak of four steps; a lasting rise; NaN; and rounding errors about zero.
        growth = growth.then(torch.tensor([1e3 if step < 4 else 1.0, 101.0, float("nan"), 1e-5]))
        assert growth.out_of_hand.tolist() == [False, step == 4, True, False]


def test_a_relative_change_of_nothing_is_zero():
    x = torch.zeros(1, 2)
    assert relative_change(x, x).tolist() == [0.0]
    assert relative_change(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 4.5]])).tolist() == pytest.approx([0.1])


def test_images_of_one_batch_stop_for_different_reasons_and_say_so():
    given = problem(3)
    y = given.y.clone()
    y[1] = 0
    result = solve(Problem(given.operator, y, given.noise, given.prior, 0.02), FISTA(tolerance=1e-6))
    assert set(result.status) == {Status.CONVERGED}
    assert [reason.split(" steps: ")[1] for reason in result.reasons] == [
        "3 steps in a row could not lower the objective",
        "the relative fixed-point residual is 0, at most 1e-06",
        "3 steps in a row could not lower the objective",
    ]
    assert result.steps[1] == 1 < min(result.steps[0], result.steps[2])


def test_a_gap_and_a_residual_end_two_images_of_one_batch():
    noisy = problem(2).y
    y = torch.stack((noisy[0], torch.full(SHAPE, 0.5, dtype=noisy.dtype)))
    given = Problem(Identity(SHAPE), y, GaussianNoise(sigma=0.1), TotalVariation(SHAPE), 0.1)
    result = solve(given, PrimalDual(tolerance=1e-4))
    assert "duality gap" in result.reasons[0]
    assert "residuals" in result.reasons[1]


@pytest.mark.parametrize(
    "solver",
    [ISTA(), FISTA(), ADMM(), PrimalDual(), ConjugateGradients()],
    ids=lambda solver: type(solver).__name__,
)
def test_the_reason_gives_the_number_that_was_reached(solver):
    prior = Tikhonov(SHAPE) if isinstance(solver, ConjugateGradients) else None
    result = solve(problem(prior=prior), solver)
    assert set(result.status) == {Status.CONVERGED}
    for reason in result.reasons:
        reached, limit = (float(part) for part in reason.split(" is ")[-1].split(", at most "))
        assert 0 <= reached <= 1.05 * limit


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [2.2, 20.0, 1e6])
@pytest.mark.parametrize(
    "make",
    [
        lambda step: ISTA(step_size=step, backtracking=False),
        lambda step: PrimalDual(data_step="gradient", step_size=step),
        lambda step: PrimalDual(data_step="gradient", step_size=step, dual_step_size=0.1),
    ],
    ids=["ista", "condat-vu", "condat-vu-both-steps"],
)
def test_an_overlong_step_is_detected_while_everything_is_finite(make, factor, dtype):
    solver = make(factor)
    result = solve(problem(dtype=dtype), solver, throw=False)
    assert set(result.status) == {Status.DIVERGED}
    assert bool(torch.isfinite(result.x).all())
    for reason in result.reasons:
        assert "the iteration diverged" in reason
        assert "step_size" in reason
    with pytest.raises(Diverged, match="step_size"):
        solve(problem(dtype=dtype), solver)


@pytest.mark.parametrize("solver", [ISTA(), ISTA(step_size=1.9, backtracking=False), PrimalDual(), FISTA(), ADMM()])
@pytest.mark.parametrize("start", [0.0, 1e3])
def test_what_converges_is_not_called_diverged(solver, start):
    given = problem()
    x0 = torch.full_like(given.y, start)
    result = solve(Problem(given.operator, given.y, given.noise, given.prior, given.weight, x0), solver)
    assert set(result.status) <= {Status.CONVERGED, Status.MAX_STEPS}
