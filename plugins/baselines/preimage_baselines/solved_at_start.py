"""Problems whose start is a solution already, so that a solver without a prior has nothing to do."""

from typing import Any

from preimage import ForwardOperator, LinearOperator, Solver
from preimage.errors import Incompatible


def solved_at_start(solver: Solver[Any], operator: ForwardOperator) -> list[Incompatible]:
    """The objection to a solver without a prior, if A is a multiple of an isometry of some images and zero on those
    orthogonal to them: the identity, masks, orthonormal rows.

    All eigenvalues of A^T A are then 0 or c, and the start, A^T y / c (`Problem.start`), is the least-squares solution
    of least norm.
    """
    if not isinstance(operator, LinearOperator) or not _is_partial_isometry(operator):
        return []
    found = f"without a prior {type(solver).__name__} has nothing to do: with {type(operator).__name__} it starts at"
    return [
        Incompatible(
            f"{found} the least-squares solution",
            "a prior, or an operator that mixes pixels",
            "take a solver that uses a prior, such as admm, fista or l-bfgs, with tv, tikhonov or wavelet-l1, say; or "
            "give a [start] that does not fit the data",
        )
    ]


def _is_partial_isometry(operator: LinearOperator) -> bool:
    for diagonal in (operator.normal_diagonal(), operator.T.normal_diagonal()):
        if diagonal is not None:
            values = diagonal.eigenvalues.double()
            largest = float(values.max())
            return largest > 0 and bool(((values <= 1e-6 * largest) | (values >= (1 - 1e-6) * largest)).all())
    return False
