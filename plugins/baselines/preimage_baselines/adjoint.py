"""The adjoint as a reconstruction: back-projection."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, cast

from torch import Tensor

from preimage import DirectSolver, ForwardOperator, Key, LinearOperator, Problem


@dataclass(frozen=True, kw_only=True)
class AdjointSolver(DirectSolver):
    """x = t A^T y: the crudest reconstruction, and the first thing to look at.

    - `scaled`: False for t = 1; True for the t that fits the measurement best, t = ||A^T y||^2 / ||A A^T y||^2 for
      each image (one step of steepest descent on 1/2 ||A x - y||^2 from zero). t = 1 is right where A A^T is near the
      identity (masks, orthonormal rows); elsewhere the unscaled image has the wrong brightness.

    Takes no prior, and a linear operator.
    """

    operator_type: ClassVar[type[ForwardOperator]] = LinearOperator

    scaled: bool = False

    def uses_start(self) -> bool:
        return False

    def invert(self, problem: Problem, keys: Sequence[Key]) -> Tensor:
        if self.scaled:
            return replace(problem, x0=None).start()
        return cast(LinearOperator, problem.operator).adjoint(problem.y)
