"""Solvers, and the one loop that runs them all."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Generic, TypeVar, cast, final

import torch
from torch import Tensor

from ._hookspecs import NOBODY, run_hooks
from ._key import Key, keys_for
from ._noise import Noise
from ._operator import ForwardOperator
from ._prior import Prior
from ._problem import Problem
from ._tensors import take_rows
from .errors import BadParameter, Diverged, Incompatible, raise_all

S = TypeVar("S")


@dataclass(frozen=True, kw_only=True)
class Solver(ABC, Generic[S]):
    """An algorithm: hyper-parameters only. All that changes during a run is in the state `S`.

    A solver is a frozen dataclass, so one instance may serve many runs at once. What it can be applied to is declared
    by the class attributes and checked before anything is computed. A state is a tensor or a (named) tuple, dataclass,
    list or dict of tensors whose first axis is the batch; numbers and None in it are shared by all images.
    The images of a batch never influence each other: sums and stopping rules are per image.

    - `max_steps`: >= 0, or `BadParameter` is raised; reaching it is not an error, the status says so.

    A subclass that checks parameters of its own in `__post_init__` calls `super().__post_init__()`.
    """

    operator_type: ClassVar[type[ForwardOperator]] = ForwardOperator
    noise_type: ClassVar[type[Noise]] = Noise
    prior_type: ClassVar[type[Prior] | None] = None
    """The capability needed of the prior; None if the solver takes no prior."""
    prior_optional: ClassVar[bool] = False
    """Whether the solver also works without a prior (of `prior_type`, where there is one)."""

    max_steps: int = 1000

    def __post_init__(self):
        if self.max_steps < 0:
            raise BadParameter(f"max_steps is {self.max_steps}", "an integer >= 0")

    @abstractmethod
    def init(self, problem: Problem, keys: Sequence[Key]) -> S:
        """The state before the first step. All randomness of image i comes from `keys[i]`."""

    @abstractmethod
    def step(self, problem: Problem, state: S) -> S:
        """One iteration for every image."""

    @abstractmethod
    def estimate(self, problem: Problem, state: S) -> Tensor:
        """The current reconstruction, (B, *in_shape)."""

    def done(self, problem: Problem, state: S) -> Tensor:
        """Which images need no further step by the solver's own criterion: bool, (B,)."""
        return torch.zeros(len(problem.y), dtype=torch.bool, device=problem.y.device)

    def objective(self, problem: Problem, state: S) -> Tensor | None:
        """The value that the solver decreases, (B,), or None. Only computed when asked for, so it may cost one F."""
        return None

    def certificate(self, problem: Problem, state: S) -> Tensor | None:
        """A bound on the error of each estimate, (B,), where the method gives one."""
        return None

    def criterion(self, problem: Problem, state: S) -> str | Sequence[str]:
        """Which rule ended the images that are done, as the end of the sentence "stopped because ...".

        One text for all, or one for each image of the state (of which only those of done images are read).
        """
        return "its own criterion was met"

    def verdict(self, problem: Problem, state: S) -> "Status | Sequence[Status]":
        """With which status the images that are done end, one for all or one for each; a solver that counts something
        else than steps, or that can give an image up with an estimate, says so here."""
        return Status.CONVERGED

    def diverged(self, problem: Problem, state: S) -> Tensor:
        """Which images go wrong, though their estimates are still finite: bool, (B,).

        A diverged image ends with the estimate it had before this step.
        """
        return torch.zeros(len(problem.y), dtype=torch.bool, device=problem.y.device)

    def remedy(self) -> str:
        """What to change if an image diverges, as an imperative."""
        return 'use step_size="auto", or one below 1 / ||F\'||^2'

    def details(self, problem: Problem, state: S) -> Mapping[str, Tensor]:
        """Further results by name, batch first (a posterior variance, say); asked for once, when an image ends."""
        return {}

    def uses_start(self) -> bool:
        """Whether it begins at `Problem.x0` where that is given: a pipeline's [start] would else be for nothing."""
        return True

    def objections(self, operator: ForwardOperator, noise: Noise, prior: Prior | None) -> list[Incompatible]:
        """What is wrong with parts that are of the right types, for this solver; asked when a pipeline is assembled."""
        return []

    def objections_to_start(self, operator: ForwardOperator, noise: Noise, prior: Prior | None) -> list[Incompatible]:
        """What is wrong with a run that begins at `Problem.start()`; asked of a pipeline without [start]."""
        return []

    def reference_problem(self, key: Key) -> Problem:
        """The small problem in float64 on which `preimage check` holds this solver to the laws.

        The default has a linear operator and a prior of every capability of core; a solver that needs a prior of its
        own kind gives its own.
        """
        from ._reference import reference_problem

        return reference_problem(self, key)


class DirectSolver(Solver[Tensor]):
    """A solver that needs no iteration: a closed form, or a trained network."""

    @abstractmethod
    def invert(self, problem: Problem, keys: Sequence[Key]) -> Tensor:
        """The reconstruction, (B, *in_shape)."""

    @final
    def init(self, problem: Problem, keys: Sequence[Key]) -> Tensor:
        return self.invert(problem, keys)

    @final
    def step(self, problem: Problem, state: Tensor) -> Tensor:
        return state

    @final
    def estimate(self, problem: Problem, state: Tensor) -> Tensor:
        return state

    @final
    def done(self, problem: Problem, state: Tensor) -> Tensor:
        return torch.ones(len(problem.y), dtype=torch.bool, device=problem.y.device)

    def criterion(self, problem: Problem, state: Tensor) -> str | Sequence[str]:
        return "it is not iterative"


class Status(Enum):
    """Why the run of one image ended."""

    CONVERGED = "converged"
    STOPPED = "an observer asked to stop"
    MAX_STEPS = "the number of steps allowed was used up"
    DIVERGED = "the iteration diverged"


@dataclass(frozen=True)
class Reconstruction:
    """What a run gives back; each tuple has one entry per image.

    - `x`: the estimates, (B, *in_shape); of an image that diverged, the last finite one (zeros if there was none), or
      the best, where the solver keeps it (`Solver.verdict`).
    - `status`, `reasons`: why each image stopped, the latter as a sentence. `steps`: how many it took.
    - `seconds`: time in the solver alone, device-synchronised, observers outside.
    - `objective`, `certificate`: (B,) at the end, where the solver gives one. `details`: its other results by name,
      batch first, NaN for images that have none.
    - `provenance`: everything needed to repeat the run, filled in by a pipeline.
    """

    x: Tensor
    status: tuple[Status, ...]
    reasons: tuple[str, ...]
    steps: tuple[int, ...]
    seconds: float
    objective: Tensor | None = None
    certificate: Tensor | None = None
    details: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Run:
    """A run in progress, as observers see it; they must change nothing.

    - `problem`, `state`: of the images still running, whose positions in the whole batch are `active`.
    - `step`: iterations taken so far. `seconds`: time in the solver alone.
    """

    def __init__(self, problem: Problem, solver: Solver[Any], keys: Sequence[Key]):
        self.problem, self.solver = problem, solver
        self.step, self.seconds = 0, 0.0
        self.active = torch.arange(len(problem.y))
        self.x = problem.y.new_zeros((len(problem.y), *problem.operator.in_shape))
        self.status: list[Status | None] = [None] * len(problem.y)
        self.reasons = [""] * len(problem.y)
        self.steps = [0] * len(problem.y)
        self._values: dict[str, Tensor] = {}
        self._details: dict[str, Tensor] = {}
        self.state: Any = self._timed(lambda: solver.init(problem, keys))

    def estimate(self) -> Tensor:
        """The current reconstruction of the whole batch, (B, *in_shape)."""
        whole = self.x.clone()
        if len(self.active):
            whole[self.active] = self.solver.estimate(self.problem, self.state)
        return whole

    def objective(self) -> Tensor | None:
        """The objective of the whole batch, (B,), if the solver knows it."""
        return self._value("objective", self.solver.objective)

    def advance(self) -> None:
        """One step, then retire the images that have converged or diverged."""
        previous = self.state
        self.state = self._timed(lambda: self.solver.step(self.problem, previous))
        self.step += 1
        self.retire(previous)

    def retire(self, previous: Any) -> None:
        """Take finished images out of the batch; a diverged one keeps its estimate from `previous`."""
        done = self._timed(lambda: self.solver.done(self.problem, self.state))
        wrong = self._timed(lambda: self.solver.diverged(self.problem, self.state))
        estimate = self.solver.estimate(self.problem, self.state)
        # Most steps end no image. A sum shows NaN and infinity at a fraction of the cost, and numbers are compared
        # sooner than tensors of a few elements; a suspicious sum is looked into, for it may overflow.
        sums = cast("list[float]", estimate.flatten(1).sum(1).tolist())
        if all(map(math.isfinite, sums)) and not any(done.tolist()) and not any(wrong.tolist()):
            return
        finite = torch.isfinite(estimate).flatten(1).all(1)
        sound = finite & ~wrong
        if bool((sound & done).any()):
            verdict = self.solver.verdict(self.problem, self.state)
            self._finish(sound & done, verdict, estimate, self.solver.criterion(self.problem, self.state))
        if not bool(sound.all()):
            last = torch.zeros_like(estimate) if previous is None else self.solver.estimate(self.problem, previous)
            advice = f"; {self.solver.remedy()}"
            self._finish(~finite, Status.DIVERGED, last, f"NaN or infinity appeared in the estimate{advice}")
            self._finish(finite & wrong, Status.DIVERGED, last, f"{Status.DIVERGED.value}{advice}")
        keep = (~done & sound).nonzero()[:, 0]
        self.active = self.active[keep.cpu()]
        if len(keep):  # a per-image operator cannot be one of no images
            self.problem, self.state = self.problem.rows(keep), take_rows(self.state, keep)

    def finish(self, status: Status) -> None:
        """End all images that still run."""
        if len(self.active):
            everything = torch.ones(len(self.active), dtype=torch.bool)
            self._finish(everything, status, self.solver.estimate(self.problem, self.state), status.value)
            self.active = self.active[:0]

    def result(self) -> Reconstruction:
        """The reconstruction, once every image has ended."""
        status = tuple(s for s in self.status if s is not None)
        name = type(self.solver).__name__
        reasons = tuple(f"{name} stopped after {n} steps: {r}" for r, n in zip(self.reasons, self.steps, strict=True))
        objective, certificate = self._values.get("objective"), self._values.get("certificate")
        return Reconstruction(
            self.x, status, reasons, tuple(self.steps), self.seconds, objective, certificate, self._details
        )

    def _finish(
        self, which: Tensor, status: Status | Sequence[Status], estimate: Tensor, reason: str | Sequence[str]
    ) -> None:
        if not bool(which.any()):
            return
        positions = self.active[which.cpu()]
        self.x[positions] = estimate[which].to(self.x)
        reasons = [reason] * len(self.active) if isinstance(reason, str) else reason
        statuses = [status] * len(self.active) if isinstance(status, Status) else status
        rows = cast("list[int]", which.nonzero()[:, 0].tolist())
        for row, position in zip(rows, cast("list[int]", positions.tolist()), strict=True):
            self.status[position], self.steps[position], self.reasons[position] = statuses[row], self.step, reasons[row]
        for name, of in (("objective", self.solver.objective), ("certificate", self.solver.certificate)):
            if (value := self._value(name, of)) is not None:
                self._values[name] = value
        for name, value in self._timed(lambda: self.solver.details(self.problem, self.state)).items():
            value = value if value.is_floating_point() else value.double()  # which has a NaN
            whole = self._details.setdefault(name, value.new_full((len(self.x), *value.shape[1:]), float("nan")))
            whole[positions] = value[which]

    def _value(self, name: str, of: Callable[[Problem, Any], Tensor | None]) -> Tensor | None:
        current = of(self.problem, self.state) if len(self.active) else None
        if current is None:
            return self._values.get(name)
        known = self._values.get(name)
        whole = current.new_full((len(self.x),), float("nan")) if known is None else known.clone()
        whole[self.active] = current
        return whole

    def _timed(self, work: Callable[[], Any]) -> Any:
        device = self.problem.y.device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        outcome = work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.seconds += time.perf_counter() - started
        return outcome


def misfits(solver: Solver[Any], operator: object, noise: object, prior: object) -> list[Incompatible]:
    """Every part that this solver cannot work with; empty if all fit."""
    name = type(solver).__name__
    parts: list[tuple[str, object, type]] = [
        ("operator", operator, solver.operator_type),
        ("noise", noise, solver.noise_type),
    ]
    if solver.prior_type is not None and not (prior is None and solver.prior_optional):
        parts.append(("prior", prior, solver.prior_type))
    found: list[Incompatible] = []
    if solver.prior_type is None and prior is not None:
        remedy = "leave the prior out, or choose a solver that uses it"
        found.append(
            Incompatible(f"prior {type(prior).__name__} would have no effect", f"no prior: {name} takes none", remedy)
        )
    for part, have, needed in parts:
        if not isinstance(have, needed):
            got = f"there is no {part}" if have is None else f"{part} {type(have).__name__} does not fit"
            article = "an" if needed.__name__[0] in "AEIOU" else "a"
            found.append(Incompatible(got, f"{article} {needed.__name__}, which {name} needs"))
    if not found:
        found += solver.objections(cast(ForwardOperator, operator), cast(Noise, noise), cast("Prior | None", prior))
    return found


@torch.no_grad()
def solve(
    problem: Problem,
    solver: Solver[Any],
    *,
    key: Key | Sequence[Key] = Key(0),
    observers: Iterable[object] = (),
    throw: bool = True,
) -> Reconstruction:
    """Run a solver on a problem, each image of the batch until it is done.

    An image that has converged leaves the batch, so its result and number of steps do not depend on the others.

    - `key`: of the solver's random numbers: one, or one for each image.
    - `observers`: objects with any of the methods of `RunHooks`, marked with `hookimpl`.
    - `throw`: raise `Diverged` if an image diverges (no longer finite, or by the solver's own test); otherwise only
      report it.

    Raises `Incompatible` if the parts do not fit.
    """
    raise_all(
        f"solver {type(solver).__name__} does not fit the problem",
        misfits(solver, problem.operator, problem.noise, problem.prior),
    )
    hook = run_hooks(observers) if observers else NOBODY
    run = Run(problem, solver, keys_for(key, len(problem.y)))
    hook.preimage_start(run=run)
    run.retire(None)
    while len(run.active):
        if run.step >= solver.max_steps:
            run.finish(Status.MAX_STEPS)
            break
        run.advance()
        if any(hook.preimage_step(run=run)):
            run.finish(Status.STOPPED)
    result = run.result()
    hook.preimage_finish(run=run, reconstruction=result)
    if throw and Status.DIVERGED in result.status:
        which = [i for i, status in enumerate(result.status) if status is Status.DIVERGED]
        raise Diverged(
            f"{result.reasons[which[0]].split(';')[0]} (images {which})",
            "an iteration that converges, or at least stays finite",
            f"{solver.remedy()}; solve(..., throw=False) gives the last estimates before that",
        )
    return result
