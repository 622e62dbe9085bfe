"""Searches for the minima of many functions at once, by themselves: L-BFGS and Adam, back-off, restarts, counts."""

import numpy as np
import pytest
import torch
from preimage_baselines.line_search import Point
from preimage_glow.batched_adam import BatchedAdam
from preimage_glow.batched_lbfgs import BatchedLBFGS
from scipy.optimize import minimize, rosen, rosen_der

from preimage import Key
from preimage.errors import BadParameter

DOUBLE = torch.zeros((), dtype=torch.float64)


class Counted:
    """An objective from a function of (index, x) with values (b,), that knows how often each image was evaluated."""

    def __init__(self, function, count):
        self.function, self.calls, self.counts = function, [], torch.zeros(count, dtype=torch.int64)

    def __call__(self, index, x):
        self.calls.append(index.tolist())
        self.counts.index_add_(0, index, torch.ones_like(index))
        leaf = x.clone().requires_grad_()
        with torch.enable_grad():
            value = self.function(index, leaf)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), lambda: Point(x, value.detach(), gradient)


def rosenbrock(index, x):
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)


def starts(count, size=6):
    return torch.stack([Key(3).child(i).normal((size,), DOUBLE) for i in range(count)])


@pytest.mark.parametrize("memory", [2, 20])
def test_lbfgs_finds_the_minima_that_scipy_finds(memory):
    x = starts(3)
    found = BatchedLBFGS(memory=memory).minimise(Counted(rosenbrock, 3), x, 300, 2000)
    for row, start in zip(found.best.x.numpy(), x.numpy(), strict=True):
        reference = minimize(rosen, start, jac=rosen_der, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-15})
        assert np.allclose(row, reference.x, atol=1e-3)
    assert bool((found.best.value < 1e-8).all())
    assert not bool(found.failed.any())


def test_each_image_is_searched_as_if_alone():
    x, search = starts(5), BatchedLBFGS(memory=4)
    together = search.minimise(Counted(rosenbrock, 5), x, 40, 60)
    backwards = search.minimise(Counted(rosenbrock, 5), x.flip(0), 40, 60)
    assert torch.equal(backwards.best.x.flip(0), together.best.x)
    for i in range(5):
        alone = search.minimise(Counted(rosenbrock, 1), x[i : i + 1], 40, 60)
        assert torch.equal(alone.best.x[0], together.best.x[i])
        assert int(alone.evaluations[0]) == int(together.evaluations[i])


@pytest.mark.parametrize("search", [BatchedLBFGS(), BatchedAdam(learning_rate=0.05)])
def test_evaluations_are_counted_and_bounded(search):
    objective = Counted(rosenbrock, 4)
    found = search.minimise(objective, starts(4), 1000, 37)
    assert torch.equal(found.evaluations, objective.counts)
    assert found.evaluations.tolist() == [37] * 4


def test_only_images_whose_step_failed_are_evaluated_again():
    offset = torch.tensor([0.0, 0.0, 5.0], dtype=torch.float64)

    def function(index, x):  # the last does not fall to zero, and is near its minimum: its first step is too long
        return offset[index] + ((x - 1) ** 2).sum(1)

    objective = Counted(function, 3)
    search = BatchedLBFGS()
    near = starts(3)
    near[2] = 1.001
    state = search.start(objective, near)
    objective.calls.clear()
    search.step(objective, state, torch.full((3,), 100))
    assert objective.calls[0] == [0, 1, 2]
    assert all(call == [2] for call in objective.calls[1:])
    assert len(objective.calls) > 1


def test_an_image_without_budget_stays_as_it_is():
    objective, search = Counted(rosenbrock, 2), BatchedLBFGS()
    state = search.minimise(objective, starts(2), 5, 100)
    after = search.step(objective, state, torch.tensor([0, 9]))
    gradient = starts(2)
    assert torch.equal(after.memory.multiply(gradient)[0], state.memory.multiply(gradient)[0])
    assert not torch.equal(after.memory.multiply(gradient)[1], state.memory.multiply(gradient)[1])
    assert torch.equal(after.best.x[0], state.best.x[0])
    assert float(after.best.value[1]) < float(state.best.value[1])


BAD = [float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("search", [BatchedLBFGS(), BatchedAdam(learning_rate=0.5)])
def test_a_wall_of_bad_values_stops_one_image_and_no_other(bad, search):
    def walled(index, x):
        value = ((x - 3) ** 2).sum(1)
        return torch.where((index == 1) & (x > 1).any(1), value * 0 + bad, value)

    x = torch.zeros(3, 2, dtype=torch.float64)
    found = search.minimise(Counted(walled, 3), x, 120, 600)
    assert found.failed.tolist() == [False, True, False]
    assert torch.allclose(found.best.x[[0, 2]], torch.full((2, 2), 3.0).double(), atol=0.05)
    assert bool(torch.isfinite(found.best.x).all())
    assert float(found.best.x[1].max()) <= 1
    assert float(found.best.value[1]) < 18  # lower than at the start
    assert int(found.restarts[1]) <= search.max_restarts
    free = search.minimise(Counted(lambda i, u: ((u - 3) ** 2).sum(1), 3), x, 120, 600)
    assert torch.equal(free.best.x[[0, 2]], found.best.x[[0, 2]])


def test_a_bad_step_is_shortened_and_the_search_goes_on():
    def island(index, x):  # what lies between 10 and the minimum's surroundings is a number, beyond is none
        value = ((x - 3) ** 2).sum(1)
        return torch.where((x.abs() > 10).any(1), float("nan"), value) * 1e-3

    x = torch.full((1, 2), -9.9, dtype=torch.float64)
    found = BatchedLBFGS().minimise(Counted(island, 1), x, 100, 200)
    assert not bool(found.failed.any())
    assert torch.allclose(found.best.x, torch.full((1, 2), 3.0).double(), atol=1e-4)


def test_an_infinite_slope_is_no_point_to_go_to():
    def cusp(index, x):  # finite everywhere; the slope at exactly 0 is not
        return (x[:, 0] - 1).abs().sqrt() + x[:, 1] ** 2

    x = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    found = BatchedLBFGS().minimise(Counted(cusp, 1), x, 200, 200)
    assert bool(torch.isfinite(found.best.gradient).all())
    assert float(found.best.value) < 1.9


@pytest.mark.parametrize("search", [BatchedLBFGS(), BatchedAdam()])
def test_bad_starts_are_drawn_towards_zero(search):
    def bounded(index, x):
        return torch.where((x.abs() > 1.5).any(1), float("nan"), ((x - 1) ** 2).sum(1))

    x = torch.tensor([[5.0, 0.2], [0.1, 0.1], [float("nan"), 0.0], [1e30, 0.0]], dtype=torch.float64)
    found = search.start(Counted(bounded, 4), x)
    assert found.best.x.tolist() == [[1.25, 0.05], [0.1, 0.1], [0.0, 0.0], [0.0, 0.0]]
    assert found.evaluations.tolist() == [3, 1, 6, 6]
    assert not bool(found.failed.any())


def test_a_start_that_is_finite_but_useless_gives_way_to_zero():
    def steep(index, x):
        return torch.where(x[:, 0] > 100, float("inf"), (x**8).sum(1))

    found = BatchedLBFGS().start(Counted(steep, 1), torch.tensor([[300.0, 1.0]], dtype=torch.float64))
    assert found.best.x.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("search", [BatchedLBFGS(), BatchedAdam()])
def test_an_image_that_is_bad_everywhere_comes_back_as_zeros(search):
    def broken(index, x):
        return ((x - 1) ** 2).sum(1) + torch.where(index == 0, float("nan"), 0.0)

    objective = Counted(broken, 2)
    found = search.minimise(objective, starts(2), 100, 300)
    assert found.failed.tolist() == [True, False]
    assert found.best.x[0].tolist() == [0.0] * 6
    assert float(found.best.value[0]) == float("inf")
    assert int(objective.counts[0]) == 1 + search.max_restarts
    assert float(found.best.value[1]) < 0.5 * float(((starts(2)[1] - 1) ** 2).sum())


def test_rounding_ends_a_search_that_may_go_on_for_ever():
    found = BatchedLBFGS().minimise(Counted(rosenbrock, 3), starts(3), 5000, 5000)
    assert bool(found.stuck.all())
    assert not bool(found.failed.any())
    assert int(found.evaluations.max()) < 1000


def test_adam_is_torchs_adam():
    x = starts(3)
    search = BatchedAdam(learning_rate=0.03)
    found = search.minimise(Counted(rosenbrock, 3), x, 25, 26)
    leaf = x.clone().requires_grad_()
    optimiser = torch.optim.Adam([leaf], lr=0.03)
    for _ in range(25):
        optimiser.zero_grad()
        rosenbrock(None, leaf).sum().backward()
        optimiser.step()
    assert torch.allclose(found.current.x, leaf.detach(), atol=1e-12)
    assert bool((found.best.value <= found.current.value).all())


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (BatchedLBFGS, {"memory": 0}),
        (BatchedLBFGS, {"length": 0.0}),
        (BatchedLBFGS, {"trials": 0}),
        (BatchedAdam, {"learning_rate": 0.0}),
        (BatchedAdam, {"learning_rate": float("nan")}),
    ],
)
def test_parameters_out_of_range_are_refused(make, wrong):
    (name,) = wrong
    with pytest.raises(BadParameter, match=f"{name} is {wrong[name]}"):
        make(**wrong)
