"""Solves with A A^T + s I: every way to do it agrees with a dense solve in double precision."""

import pytest
import torch
from preimage_compressive_sensing import CompressiveSensing
from preimage_compressive_sensing._gram import GramSolver

from preimage import Key

DOUBLE = torch.zeros((), dtype=torch.float64)
SHIFTS = {
    "near": [1e-3, 0.01, 0.03, 0.05, 0.07],
    "one far": [100.0] * 5,
    "near and far": [1e-3, 0.01, 20.0, 40.0, 80.0],
    "many far": [10.0, 20.0, 30.0, 40.0, 50.0],
}


@pytest.mark.parametrize("shifts", SHIFTS.values(), ids=SHIFTS)
@pytest.mark.parametrize("m", [40, 100, 128])
def test_all_ways_agree_with_a_dense_solve(m, shifts):
    matrix = Key(0).normal((m, 128), DOUBLE) / m**0.5
    b, s = Key(1).normal((5, m), DOUBLE), torch.tensor(shifts, dtype=torch.float64)
    systems = matrix @ matrix.mT + s[:, None, None] * torch.eye(m, dtype=torch.float64)
    expected = torch.linalg.solve(systems, b)
    solver = GramSolver(matrix)
    found = solver.solve(b, s)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-11)
    alone = torch.cat([solver.solve(b[i : i + 1], s[i : i + 1]) for i in range(5)])
    assert torch.allclose(alone, found, rtol=1e-10, atol=1e-12)
    single = GramSolver(matrix.float()).solve(b.float(), s.float()).double()
    assert float((single - expected).norm() / expected.norm()) < 1e-3


def test_a_matrix_of_zeros_is_a_multiple_of_the_identity():
    found = GramSolver(torch.zeros(3, 8)).solve(torch.ones(2, 3), torch.tensor([2.0, 4.0]))
    assert torch.allclose(found, torch.tensor([[0.5] * 3, [0.25] * 3]))


@pytest.mark.parametrize("ensemble", ["dct", "hadamard"])
def test_rows_of_a_structured_matrix_are_orthogonal(ensemble):
    operator = CompressiveSensing((1, 8, 8), measurements=20, ensemble=ensemble, key=Key(0))
    diagonal, y = operator.T.normal_diagonal(), Key(1).normal((2, 20), DOUBLE)
    assert torch.allclose(diagonal.apply(y), operator(operator.adjoint(y)))
    assert CompressiveSensing((1, 8, 8), measurements=20, key=Key(0)).T.normal_diagonal() is None
