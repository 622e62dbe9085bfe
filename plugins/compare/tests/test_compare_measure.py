"""One cell: the same measurement for all, numbers that agree with a pipeline run by hand, and exact counts."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from preimage_compare import load_suite
from preimage_compare._memory import PeakMemory
from preimage_compare._trace import QualityTrace
from preimage_compare.cells import plan
from preimage_compare.counting import Counter, OverLimit
from preimage_compare.measure import Laboratory, OtherMeasurement, Task, WrongEnvironment
from preimage_compare.suite import Limits
from preimage_data import psnr, ssim
from safetensors.torch import load as load_tensors

from preimage import Identity, Pipeline, Solver, load, solve
from preimage._noise import GaussianNoise

METHODS = (
    '[[method]]\nlabel = "tv"\nprior = { name = "tv", weight = 0.05 }\nsolver = { name = "fista", max_steps = 20 }\n'
    '[[method]]\nlabel = "cg"\nprior = { name = "tikhonov", weight = 0.1 }\n'
    'solver = { name = "conjugate-gradients", max_steps = 3 }\n'
)


def tasks(path, **changes) -> list[Task]:
    whole = plan(load_suite(path))
    suite = whole.suite
    return [
        replace(Task(suite.tables(each.cell), each.cell._asdict(), each.index, each.key, Limits(), 1, {}), **changes)
        for each in whole.cells
    ]


def test_a_cell_is_what_its_pipeline_gives_by_hand(write_suite):
    for task in tasks(write_suite(METHODS, count=2, seeds="[3]")):
        record = Laboratory().compute(task).record
        pipeline = Pipeline.from_dict(record["config"])  # the configuration that a cell keeps is all it takes
        index, label = task.index, task.labels["image"]
        assert pipeline.data is not None
        x = pipeline.data[index][None]
        y = pipeline.simulate(x, [label])
        result = pipeline.reconstruct(y, [label])
        assert record["metrics"]["psnr"] == float(psnr(result.x, x))
        assert record["metrics"]["ssim"] == float(ssim(result.x, x))
        error = float((result.x - x).double().norm() ** 2 / x.double().norm() ** 2)
        assert record["metrics"]["nmse"] == pytest.approx(error, rel=1e-12)
        assert record["metrics"]["misfit"] == float(pipeline.problem(y, [label]).misfit(result.x))
        assert (record["steps"], record["status"]) == (result.steps[0], result.status[0].name.lower())
        assert record["seconds"] > 0
        start = pipeline.problem(y, [label]).start()
        assert record["start_metrics"]["psnr"] == float(psnr(start, x))


STARTED = (
    '[[method]]\nlabel = "warm"\nprior = { name = "tv", weight = 0.05 }\nsolver = { name = "fista", max_steps = 2 }\n'
    'start = { prior = { name = "tikhonov", weight = 0.1 }, solver = { name = "conjugate-gradients", max_steps = 3} }\n'
)


def test_what_a_start_costs_belongs_to_the_cell(write_suite):
    """Its calls are those of a cell of its own; time is counted from before it; the result is that of the pipeline."""
    alone = (
        '[[method]]\nlabel = "first"\nprior = { name = "tikhonov", weight = 0.1 }\n'
        'solver = { name = "conjugate-gradients", max_steps = 3 }\n'
    )
    warm, first = (Laboratory().compute(task) for task in tasks(write_suite(STARTED + alone, count=1)))
    pipeline = Pipeline.from_dict(warm.record["config"])
    x = pipeline.data[0][None]
    label = warm.record["image"]
    y = pipeline.simulate(x, [label])
    result = pipeline.reconstruct(y, [label])
    assert warm.record["metrics"]["psnr"] == float(psnr(result.x, x))
    assert (warm.record["steps"], warm.record["reason"]) == (2, result.reasons[0])

    counter = Counter(Limits())
    problem = replace(pipeline.problem(y, [label]), x0=result.details["start"])
    counted = replace(problem, operator=counter.operator(problem.operator), prior=counter.prior(problem.prior))
    solve(counted, counter.solver(pipeline.solver))
    for name, number in warm.record["evaluations"].items():
        assert number == counter.counts[name] + first.record["evaluations"][name], name
    assert first.record["evaluations"]["forward"] > 0

    trace = load_tensors(warm.image)["trace_seconds"]
    assert 0 < trace[0] < trace[-1] == warm.record["seconds"]
    assert trace[0] > load_tensors(first.image)["trace_seconds"][0]


def test_an_evaluation_too_many_in_a_start_ends_the_cell(write_suite):
    (task,) = tasks(write_suite(STARTED, count=1), limits=Limits(evaluations=2))
    record = Laboratory().compute(task).record
    assert (record["outcome"], record["error"]["type"]) == ("failed", "OverLimit")


def test_all_methods_get_the_same_bytes(write_suite):
    found = [Laboratory().compute(task) for task in tasks(write_suite(METHODS, count=1))]
    assert len({outcome.record["measurement"] for outcome in found}) == 1
    assert len({outcome.measurement for outcome in found}) == 1


def test_measurements_depend_on_seed_and_image_alone(write_suite):
    path = write_suite(METHODS, count=2, seeds="[0, 1]")
    digests = {(t.labels["image"], t.labels["seed"]): set() for t in tasks(path)}
    for task in reversed(tasks(path)):
        digests[task.labels["image"], task.labels["seed"]].add(Laboratory().compute(task).record["measurement"])
    assert all(len(found) == 1 for found in digests.values())
    assert len(set.union(*digests.values())) == 4


def test_another_measurement_is_noticed_and_the_given_one_used(write_suite):
    from safetensors.torch import load as tensors

    path = write_suite(METHODS, count=1)
    own = Laboratory().compute(tasks(path)[0])
    assert own.measurement is not None
    moved = tensors(own.measurement)
    moved["measurement"] += 1e-3
    laboratory = Laboratory()
    with pytest.raises(OtherMeasurement):
        laboratory.compute(tasks(path, measurement="0" * 64)[1])
    second = tasks(path)[1]
    given = laboratory.compute(second, moved).record
    again = laboratory.compute(replace(second, measurement=given["measurement"]), moved).record
    assert given["measurement"] == again["measurement"] != own.record["measurement"]
    assert (
        given["metrics"]["psnr"] == again["metrics"]["psnr"] != Laboratory().compute(second).record["metrics"]["psnr"]
    )


def test_a_worker_whose_cell_would_be_another_refuses(write_suite):
    with pytest.raises(WrongEnvironment, match=r"torch is .*, not 1\.0"):
        Laboratory().compute(tasks(write_suite(METHODS, count=1), key="0" * 64, depends={"torch": "1.0"})[0])


@dataclass(frozen=True, kw_only=True)
class Asks(Solver[Any]):
    """Asks for known numbers of everything."""

    prior_optional: ClassVar[bool] = True
    max_steps: int = 3

    def init(self, problem, keys):
        self.estimate(problem, problem.operator.adjoint(problem.y))  # 1 adjoint
        return problem.start() if problem.x0 is None else problem.x0.clone()

    def step(self, problem, state):
        y, pullback = problem.operator.vjp(state)  # 1 forward
        pullback(y)
        pullback(y)  # 2 adjoints
        problem.operator.normal(state)  # 1 forward, 1 adjoint
        _, jacobian = problem.operator.linearize(state)
        jacobian.T(jacobian(state))  # 1 forward, 1 adjoint, beside those of linearize
        problem.operator.solve_normal(state, 1.0)
        return state.clone()

    def estimate(self, problem, state):
        problem.operator(state)  # counts where it is called by init, and not where the loop asks for it
        return state

    def objective(self, problem, state):
        return problem.misfit(state)


def count(operator, solver, prior=None, x0=None) -> dict[str, int]:
    x = torch.rand(1, *operator.in_shape)
    noise = GaussianNoise(sigma=0.1)
    counter = Counter(Limits())
    pipeline = counter.instrument(Pipeline(operator=operator, noise=noise, solver=solver, prior=prior), operator)
    before = dict(operator.__dict__)
    problem = replace(pipeline.problem(operator(x)), x0=x0)
    solve(problem, pipeline.solver, observers=[QualityTrace(x)])
    assert operator.__dict__ == before  # the operator itself is as it was
    return {name: number for name, number in counter.counts.items() if number}


def test_counts_of_a_linear_operator_are_exact():
    x0 = torch.rand(1, 1, 16, 16)
    blur = load("operator", "gaussian-blur")((1, 16, 16))
    # init: 1 adjoint, 1 forward; each of 3 steps: 3 + 1 (linearize) forward, 4 adjoints.
    assert count(blur, Asks(), x0=x0) == {"forward": 13, "adjoint": 13, "linearize": 3, "solve_normal": 3}


def test_a_composition_counts_once():
    shape = (1, 16, 16)
    blur = load("operator", "gaussian-blur")(shape, size=3)
    whole = blur @ Identity(shape)
    expected = {"forward": 13, "adjoint": 13, "linearize": 3}  # the composition has no closed form
    assert count(whole, Asks(), x0=torch.rand(1, *shape)) == expected


@dataclass(frozen=True, kw_only=True)
class Newton(Solver[Any]):
    """Derivatives of a nonlinear operator."""

    max_steps: int = 2

    def init(self, problem, keys):
        return problem.start()

    def step(self, problem, state):
        y, jacobian = problem.operator.linearize(state)
        jacobian.T(jacobian(state))
        jacobian.adjoint(y)
        problem.operator.jvp(state, state)
        _, gradient = problem.misfit_and_grad(state)
        return state - 0.1 * gradient

    def estimate(self, problem, state):
        return state


def test_counts_of_a_nonlinear_operator_are_exact():
    diffusion = load("operator", "perona-malik")((1, 16, 16))
    # Each step: linearize (F), J v, J^T w twice, jvp, and misfit_and_grad (F and one pullback).
    assert count(diffusion, Newton()) == {"forward": 4, "jvp": 4, "vjp": 6, "linearize": 2}


def test_the_counts_of_a_known_iteration():
    tv = load("prior", "tv")((1, 16, 16))
    ista = load("solver", "fista")(step_size=0.9, max_steps=4, tolerance=0.0)
    counts = count(load("operator", "gaussian-blur")((1, 16, 16)), ista, tv)
    assert counts["prox"] == 4
    assert counts["adjoint"] == 4 + 1  # one gradient a step, and one in the starting image


def test_the_counting_solver_is_still_the_solver():
    solver = load("solver", "fista")()
    counted = Counter(Limits()).solver(solver)
    assert isinstance(counted, type(solver))
    assert type(counted).__name__ == "FISTA"
    assert replace(counted, max_steps=5).max_steps == 5
    assert type(solver) is load("solver", "fista")


def test_an_evaluation_too_many_ends_the_run():
    operator = Identity((1, 8, 8))
    counter = Counter(Limits(evaluations=5))
    pipeline = Pipeline(operator=operator, noise=GaussianNoise(sigma=0.1), solver=Asks(max_steps=100))
    with pytest.raises(OverLimit, match="more than the 5 evaluations"):
        counter.instrument(pipeline, operator).reconstruct(torch.rand(1, 1, 8, 8))
    assert counter.evaluations() <= 6


def test_traces_are_short_rise_and_end_with_the_result(write_suite):
    from safetensors.torch import load as tensors

    method = METHODS.partition('[[method]]\nlabel = "cg"')[0]
    method = method.replace('name = "fista", max_steps = 20', 'name = "admm", max_steps = 200, tolerance = 0.0')
    outcome = Laboratory().compute(tasks(write_suite(method, count=1))[0])
    assert outcome.image is not None
    trace = tensors(outcome.image)
    steps = trace["trace_steps"].tolist()
    assert steps[:5] == [0, 1, 2, 3, 4]
    assert steps[-1] == outcome.record["steps"] == 200
    assert len(steps) < 40
    assert (trace["trace_seconds"].diff() > 0).all()
    assert float(trace["trace_psnr"][-1]) == outcome.record["metrics"]["psnr"]
    assert trace["trace_objective"][-1] < trace["trace_objective"][0]


def test_peak_memory_is_that_of_the_work_alone():
    memory = PeakMemory(torch.device("cpu"))
    if memory.read()["cpu"] is None:
        pytest.skip("this system does not tell")
    kept = torch.ones(5_000_000)  # 20 MB
    del kept
    peak = memory.read()["cpu"]
    assert peak is not None
    assert 15e6 < peak < 60e6
    after = PeakMemory(torch.device("cpu")).read()["cpu"]
    assert after is not None
    assert after < 5e6


def test_small_images_have_no_ssim(write_suite):
    record = Laboratory().compute(tasks(write_suite(METHODS, count=1, size=8))[0]).record
    assert record["metrics"]["ssim"] is None
    assert record["metrics"]["psnr"] > 10
