"""The one loop: per-image stopping, statuses, observers, keys."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from preimage import (
    DirectSolver,
    GaussianNoise,
    Identity,
    Key,
    LinearOperator,
    NoNoise,
    PoissonNoise,
    Problem,
    Solver,
    Status,
    Trace,
    hookimpl,
    per_image_operator,
    solve,
)
from preimage._reference import ReferencePrior
from preimage.errors import BadData, BadParameter, Diverged, Incompatible, SeveralProblems, ShapeMismatch

SHAPE = (1, 4, 4)


@dataclass(frozen=True, kw_only=True)
class Halving(Solver[Tensor]):
    """x <- x + rate (y - x): image i converges after a number of steps that depends on its size alone."""

    rate: float = 0.5
    tolerance: float = 1e-3

    def init(self, problem: Problem, keys: Sequence[Key]) -> Tensor:
        return torch.zeros_like(problem.y)

    def step(self, problem: Problem, state: Tensor) -> Tensor:
        return state + self.rate * (problem.y - state)

    def estimate(self, problem: Problem, state: Tensor) -> Tensor:
        return state

    def done(self, problem: Problem, state: Tensor) -> Tensor:
        return (state - problem.y).flatten(1).norm(dim=1) < self.tolerance

    def objective(self, problem: Problem, state: Tensor) -> Tensor:
        return problem.misfit(state)

    def certificate(self, problem: Problem, state: Tensor) -> Tensor:
        return (state - problem.y).flatten(1).norm(dim=1)


def problem(*sizes: float) -> Problem:
    y = torch.stack([torch.full(SHAPE, size) for size in sizes])
    return Problem(Identity(SHAPE), y, GaussianNoise(sigma=0.0))


def test_images_leave_the_batch_when_they_are_done():
    result = solve(problem(1.0, 1e3, 1e-6), Halving())
    assert result.status == (Status.CONVERGED,) * 3
    assert result.steps == (12, 22, 0)
    for index, size in enumerate((1.0, 1e3, 1e-6)):
        alone = solve(problem(size), Halving())
        assert torch.equal(alone.x[0], result.x[index])
        assert alone.steps == result.steps[index : index + 1]
    assert result.certificate is not None
    assert bool((result.certificate < 1e-3).all())
    assert "stopped after 12 steps" in result.reasons[0]


def test_running_out_of_steps_is_a_status():
    result = solve(problem(1.0, 1e3), Halving(max_steps=15))
    assert result.status == (Status.CONVERGED, Status.MAX_STEPS)
    assert result.steps == (12, 15)


def test_a_diverged_image_keeps_its_last_finite_estimate_and_spares_the_others():
    class Explodes(Halving):
        def step(self, problem, state):
            blown = torch.where(problem.y > 10, torch.full_like(state, float("nan")), state)
            return super().step(problem, state if float(state.abs().max()) == 0 else blown)

    result = solve(problem(1.0, 1e3), Explodes(), throw=False)
    assert result.status == (Status.CONVERGED, Status.DIVERGED)
    assert torch.equal(result.x[1], torch.full(SHAPE, 500.0))
    with pytest.raises(Diverged, match=r"images \[1\]"):
        solve(problem(1.0, 1e3), Explodes())


def test_divergence_at_the_start():
    class Nothing(Halving):
        def init(self, problem, keys):
            return torch.full_like(problem.y, float("inf"))

    result = solve(problem(1.0), Nothing(), throw=False)
    assert result.status == (Status.DIVERGED,)
    assert torch.equal(result.x, torch.zeros(1, *SHAPE))


def test_observers_see_the_whole_batch_and_may_stop_it():
    seen = []

    class Stop:
        @hookimpl
        def preimage_step(self, run):
            seen.append(run.estimate().shape)
            return run.step == 15

    trace = Trace()
    result = solve(problem(1.0, 1e3), Halving(), observers=[Stop(), trace])
    assert result.status == (Status.CONVERGED, Status.STOPPED)
    assert seen == [torch.Size((2, *SHAPE))] * 15
    values = torch.stack(trace.objective)
    assert values.shape == (16, 2)
    assert not torch.isnan(values).any()
    assert bool((values.diff(dim=0) <= 0).all())
    assert trace.seconds == sorted(trace.seconds)


def test_an_observer_with_an_unknown_hook_argument_is_refused():
    class Wrong:
        @hookimpl
        def preimage_step(self, iteration):
            return None

    with pytest.raises(Exception, match="iteration"):
        solve(problem(1.0), Halving(), observers=[Wrong()])


def test_direct_solvers_take_no_step():
    @dataclass(frozen=True, kw_only=True)
    class Copy(DirectSolver):
        def invert(self, problem: Problem, keys: Sequence[Key]) -> Tensor:
            return problem.y.clone()

    result = solve(problem(1.0, 2.0), Copy())
    assert result.status == (Status.CONVERGED,) * 2
    assert result.steps == (0, 0)
    assert "not iterative" in result.reasons[0]


def test_everything_that_does_not_fit_is_reported():
    class Needs(Halving):
        operator_type = LinearOperator
        noise_type = PoissonNoise
        prior_type = ReferencePrior

    with pytest.raises(SeveralProblems) as caught:
        solve(problem(1.0), Needs())
    assert len(caught.value.problems) == 2
    with pytest.raises(Incompatible, match="no effect"):
        solve(Problem(Identity(SHAPE), torch.zeros(1, *SHAPE), NoNoise(), ReferencePrior(SHAPE)), Halving())


def test_random_numbers_of_an_image_come_from_its_own_key():
    @dataclass(frozen=True, kw_only=True)
    class Draws(DirectSolver):
        def invert(self, problem: Problem, keys: Sequence[Key]) -> Tensor:
            return torch.stack([key.normal(problem.operator.in_shape) for key in keys])

    both = solve(problem(1.0, 2.0), Draws(), key=Key(3)).x
    assert torch.equal(solve(problem(2.0), Draws(), key=[Key(3).child(1)]).x[0], both[1])
    assert not torch.equal(both[0], both[1])
    with pytest.raises(ValueError, match="2 keys for a batch of 1"):
        solve(problem(1.0), Draws(), key=Key(0).rows(2))


def test_problems_check_what_they_are_given():
    good = torch.zeros(2, *SHAPE)
    with pytest.raises(ShapeMismatch, match="measurement y"):
        Problem(Identity(SHAPE), torch.zeros(2, 1, 5, 4), NoNoise())
    with pytest.raises(ShapeMismatch, match="add the batch axis"):
        Problem(Identity(SHAPE), good[0], NoNoise())
    bad = good.clone()
    bad[0, 0, 0, :3] = float("nan")
    with pytest.raises(BadData, match="3 values that are not finite"):
        Problem(Identity(SHAPE), bad, NoNoise())
    with pytest.raises(BadParameter, match="weight"):
        Problem(Identity(SHAPE), good, NoNoise(), weight=-1.0)
    with pytest.raises(ShapeMismatch, match="prior"):
        Problem(Identity(SHAPE), good, NoNoise(), ReferencePrior((1, 5, 5)))
    with pytest.raises(ShapeMismatch, match="x0"):
        Problem(Identity(SHAPE), good, NoNoise(), x0=good[:, :, :3])


def test_float64_and_float32_agree_from_one_key():
    y = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    low = solve(Problem(Identity(SHAPE), y, NoNoise()), Halving()).x
    high = solve(Problem(Identity(SHAPE), y.double(), NoNoise()), Halving()).x
    assert high.dtype == torch.float64
    assert torch.allclose(low.double(), high, atol=1e-6)


def test_keys_are_values():
    key = Key(5).child("noise", 3)
    assert torch.equal(key.normal((4,)), Key(5, ("noise", 3)).normal((4,)))
    assert torch.equal(key.normal((4,), like=torch.zeros(1, dtype=torch.float64)).float(), key.normal((4,)))
    draws = {tuple(Key(seed).child(label).uniform((2,)).tolist()) for seed in range(30) for label in ("a", "b", 0, "0")}
    assert len(draws) == 120
    # torch's generators keep 32 bits of a seed: seeds that differ only above must not collide here
    assert not torch.equal(Key(5).normal((4,)), Key(5 + (7 << 32)).normal((4,)))
    assert sorted(key.permutation(9).tolist()) == list(range(9))


def test_poisson_counts():
    clean = torch.full((1, 1, 200, 200), 0.3)
    y = PoissonNoise(peak=20.0).sample(clean, Key(0))
    assert abs(float(y.mean()) - 0.3) < 4 * (0.3 / 20 / 40000) ** 0.5
    assert abs(float(y.var()) - 0.3 / 20) < 0.002
    assert torch.equal((y * 20).round(), y * 20)
    with pytest.raises(BadData, match="nowhere negative"):
        PoissonNoise(peak=20.0).sample(-clean, Key(0))


@dataclass(frozen=True, kw_only=True)
class Judged(Halving):
    """Halving that gives a sentence per image, calls large images diverged, and reports a map of its own."""

    def criterion(self, problem: Problem, state: Tensor) -> list[str]:
        return [f"image of size {float(y.max()):g} is near" for y in problem.y]

    def diverged(self, problem: Problem, state: Tensor) -> Tensor:
        return state.flatten(1).amax(1) > 10

    def remedy(self) -> str:
        return "use smaller images"

    def details(self, problem: Problem, state: Tensor) -> dict[str, Tensor]:
        return {"distance": (state - problem.y).abs()}


def test_each_image_has_its_own_reason_and_details():
    result = solve(problem(1.0, 8.0), Judged())
    assert [reason.partition(": ")[2] for reason in result.reasons] == [
        "image of size 1 is near",
        "image of size 8 is near",
    ]
    assert result.details["distance"].shape == (2, *SHAPE)
    torch.testing.assert_close(result.details["distance"], (result.x - problem(1.0, 8.0).y).abs())


def test_a_finite_iteration_can_diverge_and_says_what_to_change():
    with pytest.raises(Diverged, match=r"diverged \(images \[1\]\)(.|\n)*use smaller images"):
        solve(problem(1.0, 16.0), Judged())
    result = solve(problem(1.0, 16.0), Judged(), throw=False)
    assert result.status == (Status.CONVERGED, Status.DIVERGED)
    assert result.reasons[1].endswith("the iteration diverged; use smaller images")
    assert float(result.x[1].max()) == 8  # the estimate before the step that went wrong


def test_one_weight_per_image_travels_with_its_image():
    y = problem(1.0, 2.0, 3.0).y
    weights = torch.tensor([0.1, 0.2, 0.3])
    whole = Problem(Identity(SHAPE), y, NoNoise(), ReferencePrior(SHAPE), weights)
    assert torch.equal(whole.rows(torch.tensor([2, 0])).weight, torch.tensor([0.3, 0.1]))
    torch.testing.assert_close(whole.objective(y), weights * 0.5 * y.flatten(1).square().sum(1))
    with pytest.raises(ShapeMismatch, match="one for each of the 3 images"):
        Problem(Identity(SHAPE), y, NoNoise(), ReferencePrior(SHAPE), weights[:2])
    with pytest.raises(BadParameter, match="finite number >= 0"):
        Problem(Identity(SHAPE), y, NoNoise(), ReferencePrior(SHAPE), -weights)


@pytest.mark.parametrize("noise", [GaussianNoise(sigma=0.3), PoissonNoise(peak=200.0), NoNoise()])
def test_expected_misfit_is_the_mean_misfit_of_the_truth(noise):
    clean = 0.5 + Key(0).uniform((400, *SHAPE), like=torch.zeros((), dtype=torch.float64))
    y = noise.sample(clean, Key(1))
    mean, expected = float(noise.misfit(clean, y).mean()), float(noise.expected_misfit(y)[0])
    assert abs(mean - expected) <= 0.05 * expected


def test_per_image_operators_run_to_the_last_image():
    operator = per_image_operator([Identity(SHAPE), Identity(SHAPE)])
    y = problem(1.0, 2.0).y
    result = solve(Problem(operator, y, GaussianNoise(sigma=0.0)), Halving())
    assert result.status == (Status.CONVERGED, Status.CONVERGED)
    torch.testing.assert_close(result.x, y, rtol=0, atol=1e-2)
