"""Counting what a solver asks of the operator and the prior, and stopping it when that is too much.

What is counted is what the solver's own seconds contain: calls from `init`, `step`, `done`, `diverged` and `details`.
The objective that the loop asks for, and what observers compute, do not count. Of nested calls only the outermost
counts: a composition is one evaluation, as is a Jacobian that calls the operator's jvp.

Operators, priors and solvers are shared and stay as they are: the solver runs with shallow copies whose methods count.
"""

import copy
import functools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, cast

from torch import Tensor

from preimage import ForwardOperator, LinearOperator, Pipeline, Prior, Solver, Start

from .suite import Limits

OPERATOR = ("forward", "adjoint", "jvp", "vjp", "linearize", "solve_normal")
PRIOR = ("prox", "denoise", "decode", "encode", "energy", "grad")

EVALUATIONS = ("forward", "adjoint", "jvp", "vjp", "solve_normal")
_METHODS = {"prox_from": "prox", "prox_coefficients": "prox"} | {name: name for name in PRIOR}
_COUNTED_PARTS_OF_A_SOLVER = ("init", "step", "done", "diverged", "details")

M = TypeVar("M", bound=ForwardOperator)
R = TypeVar("R", Pipeline, Start)


class OverLimit(Exception):
    """A cell has used up what it may use."""


class Counter:
    """Counts of one run: every image of a batch that goes through a call counts as one.

    - `forward`, `adjoint`: of a linear operator, also through its jvp and vjp. `jvp`, `vjp`: products with the
      derivative of a nonlinear one or its transpose, also through `linearize`; F(x) itself counts as `forward` there.
      `solve_normal`: closed-form solves of the operator (those in a basis that a solver makes of it are not).
    - `prox` also counts proximal maps that are warm-started or act on coefficients.
    """

    def __init__(self, limits: Limits):
        self.counts: dict[str, int] = dict.fromkeys((*OPERATOR, *PRIOR), 0)
        self.steps, self.seconds = 0, 0.0
        self._limits = limits
        self._solver_depth = 0
        self._busy = False

    def instrument(self, pipeline: Pipeline, operator: ForwardOperator) -> Pipeline:
        """The pipeline with this operator, and with everything counted."""
        counted = replace(self.method(pipeline), operator=self.operator(operator))
        return counted if pipeline.start is None else replace(counted, start=self.method(pipeline.start))

    def method(self, method: R) -> R:
        """The pipeline or start with prior and solver that count."""
        prior = None if method.prior is None else self.prior(method.prior)
        return replace(method, prior=prior, solver=self.solver(method.solver))

    def operator(self, operator: M, *, derivative: bool = False) -> M:
        """A copy that counts; `derivative`: it is the Jacobian of a nonlinear operator."""
        counted = copy.copy(operator)
        linear = isinstance(operator, LinearOperator)
        ahead, back = ("jvp", "vjp") if derivative else ("forward", "adjoint" if linear else "vjp")

        def vjp(original: Callable[[Tensor], Any], x: Tensor) -> Any:
            y, pullback = self._call(original, (ahead,), x)
            return y, functools.partial(self._call, pullback, (back,))

        def linearize(original: Callable[[Tensor], Any], x: Tensor) -> Any:
            y, jacobian = self._call(original, ("linearize", ahead), x)
            return y, counted if jacobian is counted else self.operator(jacobian, derivative=not linear or derivative)

        def rows(original: Callable[[Tensor], Any], index: Tensor) -> Any:
            chosen = original(index)
            return counted if chosen is counted else self.operator(chosen, derivative=derivative)

        self._replace(counted, "forward", functools.partial(self._call, counted.forward, (ahead,)))
        self._replace(counted, "jvp", functools.partial(self._call, counted.jvp, (ahead if linear else "jvp",)))
        self._replace(counted, "vjp", functools.partial(vjp, counted.vjp))
        self._replace(counted, "linearize", functools.partial(linearize, counted.linearize))
        self._replace(counted, "rows", functools.partial(rows, counted.rows))
        if isinstance(counted, LinearOperator):
            self._replace(counted, "adjoint", functools.partial(self._call, counted.adjoint, (back,)))
            self._replace(counted, "normal", functools.partial(self._call, counted.normal, (ahead, back)))
            solve = functools.partial(self._call, counted.solve_normal, ("solve_normal",))
            self._replace(counted, "solve_normal", solve)
        return counted

    def prior(self, prior: Prior) -> Prior:
        """A copy that counts."""
        counted = copy.copy(prior)
        for method, name in _METHODS.items():
            if callable(original := getattr(counted, method, None)):
                self._replace(counted, method, functools.partial(self._call, original, (name,)))
        return counted

    def solver(self, solver: Solver[Any]) -> Solver[Any]:
        """A copy during whose work calls count; also of solvers that are made from it by `dataclasses.replace`."""
        cls = type(solver)
        methods = {name: self._active(cls, name) for name in _COUNTED_PARTS_OF_A_SOLVER}
        counted_class = type(cls.__name__, (cls,), {"__module__": cls.__module__, "__doc__": cls.__doc__, **methods})
        counted = copy.copy(solver)
        object.__setattr__(counted, "__class__", counted_class)
        return cast("Solver[Any]", counted)

    def evaluations(self) -> int:
        """Evaluations of the operator, its adjoint and derivatives so far, closed-form solves among them."""
        return sum(self.counts[name] for name in EVALUATIONS)

    def _active(self, cls: type, name: str) -> Callable[..., Any]:
        original = getattr(cls, name)

        @functools.wraps(original)
        def method(solver: Any, *arguments: Any) -> Any:
            if self._solver_depth == 0:
                self._check_seconds()
            started = time.perf_counter()
            self._solver_depth += 1
            try:
                return original(solver, *arguments)
            finally:
                self._solver_depth -= 1
                if self._solver_depth == 0:
                    self.seconds += time.perf_counter() - started
                    self.steps += name == "step"

        return method

    def _call(self, original: Callable[..., Any], names: tuple[str, ...], *arguments: Any, **named: Any) -> Any:
        if self._busy or not self._solver_depth:
            return original(*arguments, **named)
        self._busy = True
        try:
            outcome = original(*arguments, **named)
        finally:
            self._busy = False
        for name in names if outcome is not None else ():
            self.counts[name] += len(arguments[0])
        allowed = self._limits.evaluations
        if allowed is not None and self.evaluations() > allowed:
            raise OverLimit(f"it needed more than the {allowed} evaluations of the operator that it may use")
        return outcome

    def _check_seconds(self) -> None:
        allowed = self._limits.seconds
        if allowed is not None and self.seconds > allowed:
            raise OverLimit(f"it needed more than the {allowed:g} s that it may use")

    @staticmethod
    def _replace(instance: Any, name: str, method: Callable[..., Any]) -> None:
        instance.__dict__[name] = method
