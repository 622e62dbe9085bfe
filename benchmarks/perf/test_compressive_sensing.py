"""Structured ensembles against a dense matrix product: n = 12,288 (3 x 64 x 64), m = 5,000, batch 32."""

import pytest
import torch
from preimage_compressive_sensing import CompressiveSensing

from preimage import Key

SHAPE, MEASUREMENTS, BATCH = (3, 64, 64), 5000, 32


@pytest.fixture(scope="module")
def dense():
    return torch.randn(MEASUREMENTS, 12288, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("direction", ["forward", "adjoint"])
@pytest.mark.parametrize("ensemble", ["dct", "hadamard"])
def test_structured_against_dense(compare, dense, ensemble, direction):
    operator = CompressiveSensing(SHAPE, measurements=MEASUREMENTS, ensemble=ensemble, key=Key(0))
    x, y = torch.rand(BATCH, *SHAPE), torch.rand(BATCH, MEASUREMENTS)
    flat = x.flatten(1)
    ours, theirs = {
        "forward": (lambda: operator(x), lambda: flat @ dense.mT),
        "adjoint": (lambda: operator.adjoint(y), lambda: y @ dense),
    }[direction]
    note = "equal sizes, another ensemble"
    compare(f"sensing, {ensemble}, {direction}", ours, ("torch matmul, Gaussian", theirs), 0.1, note=note)
