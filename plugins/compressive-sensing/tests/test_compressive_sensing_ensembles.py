"""What each ensemble is: its law, its row products, its transform."""

import math

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import torch
from preimage_compressive_sensing import CompressiveSensing, GaussianMatrix, SubsampledCosine, SubsampledHadamard
from preimage_compressive_sensing._hadamard import hadamard, radices
from preimage_compressive_sensing._structured import draw_rows, draw_signs
from torch import Tensor

from preimage import Key, operator_norm
from preimage.testing import check_component, check_operator

ENSEMBLES = ("gaussian", "dct", "hadamard")


def dense(operator: CompressiveSensing | SubsampledCosine | SubsampledHadamard | GaussianMatrix) -> Tensor:
    """The matrix of an operator, in float64: column j is A e_j."""
    n = math.prod(operator.in_shape)
    return operator(torch.eye(n, dtype=torch.float64).reshape(n, *operator.in_shape)).mT


def test_laws_hold_for_every_example():
    assert check_component("operator", "compressive-sensing") == 6


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 12, 48, 49, 96, 98, 134])
def test_laws_hold_for_every_length(n):
    for m in {1, max(1, n // 3), n}:
        check_operator(SubsampledCosine(n, measurements=m, key=Key(3)))
        if n == 1 or n % 2 == 0:
            check_operator(SubsampledHadamard(n, measurements=m, key=Key(3)))


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_norm_is_kept_on_average(ensemble):
    # ||A x||^2 / ||x||^2 has mean 1. Gaussian: chi-squared with m degrees of freedom over m, standard deviation
    # sqrt(2 / m). Structured, x spread out: sqrt(2 / m (1 - m / n)), of a sample without replacement. The mean of
    # `draws` ratios has that over sqrt(draws) as standard error; four of them are allowed, 1 failure in 16,000.
    shape, m, draws = (3, 16, 16), 100, 200
    n = math.prod(shape)
    x = Key(0).child("x").uniform((1, *shape), like=torch.zeros((), dtype=torch.float64))
    ratios = torch.stack(
        [
            CompressiveSensing(shape, measurements=m, ensemble=ensemble, key=Key(seed))(x).square().sum()
            / x.square().sum()
            for seed in range(draws)
        ]
    )
    spread = math.sqrt(2 / m * (1 if ensemble == "gaussian" else 1 - m / n))
    assert abs(float(ratios.mean()) - 1) < 4 * spread / math.sqrt(draws)
    # The standard deviation of a sample standard deviation is close to spread / sqrt(2 draws).
    assert abs(float(ratios.std()) - spread) < 5 * spread / math.sqrt(2 * draws)


@pytest.mark.parametrize("ensemble", ["dct", "hadamard"])
@pytest.mark.parametrize("where", ["one pixel", "constant", "one column"])
def test_structured_norm_is_kept_for_images_without_spread(ensemble, where):
    shape, m, draws = (3, 16, 16), 100, 200
    x = torch.zeros(1, *shape, dtype=torch.float64)
    {"one pixel": x[:, 1, 5:6, 7:8], "constant": x, "one column": x[:, :, :, :1]}[where].fill_(1)
    ratios = torch.stack(
        [
            CompressiveSensing(shape, measurements=m, ensemble=ensemble, key=Key(seed))(x).square().sum()
            / x.square().sum()
            for seed in range(draws)
        ]
    )
    assert abs(float(ratios.mean()) - 1) < 4 * float(ratios.std()) / math.sqrt(draws) + 1e-12
    assert float(ratios.std()) < 1.3 * math.sqrt(2 / m)


def test_gaussian_entries_are_standard_normal_over_sqrt_m():
    m, n = 300, 768
    entries = (dense(GaussianMatrix(n, measurements=m, key=Key(5))) * math.sqrt(m)).flatten()
    count = len(entries)
    assert abs(float(entries.mean())) < 4 / math.sqrt(count)
    assert abs(float(entries.square().mean()) - 1) < 4 * math.sqrt(2 / count)
    assert abs(float((entries**4).mean()) - 3) < 4 * math.sqrt(96 / count)
    assert abs(float((entries[:-1] * entries[1:]).mean())) < 4 / math.sqrt(count)


def test_gaussian_blocks_are_different(monkeypatch):
    # More than one block: two equal blocks would be two equal sets of measurements.
    monkeypatch.setattr("preimage_compressive_sensing._gaussian._BLOCK", 64)
    matrix = dense(GaussianMatrix(32, measurements=8, key=Key(0)))
    assert torch.unique(matrix, dim=0).shape == (8, 32)
    assert int((matrix == 0).sum()) == 0


@pytest.mark.parametrize("ensemble", ["dct", "hadamard"])
@pytest.mark.parametrize("m", [1, 77, 192])
def test_structured_rows_are_orthogonal(ensemble, m):
    operator = CompressiveSensing((3, 8, 8), measurements=m, ensemble=ensemble, key=Key(1))
    matrix = dense(operator)
    expected = 192 / m * torch.eye(m, dtype=torch.float64)
    assert torch.allclose(matrix @ matrix.mT, expected, rtol=0, atol=1e-12 * 192 / m)
    bound = operator.norm_bound()
    assert bound == pytest.approx(math.sqrt(192 / m))
    assert float(torch.linalg.matrix_norm(matrix, 2)) == pytest.approx(bound, rel=1e-12)


def test_cosine_rows_are_those_of_scipy():
    n, m, key = 45, 20, Key(2)
    full = scipy.fft.dct(np.eye(n), norm="ortho", axis=0) * draw_signs(key, n).numpy()
    expected = math.sqrt(n / m) * full[draw_rows(key, n, m).numpy()]
    found = dense(SubsampledCosine(n, measurements=m, key=key)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("n", "p", "q"), [(64, 64, 1), (512, 512, 1), (192, 64, 3), (98, 2, 49), (2, 2, 1)])
def test_hadamard_rows_are_those_of_scipy(n, p, q):
    m, key = n // 2, Key(2)
    cosine = scipy.fft.dct(np.eye(q), norm="ortho", axis=0)
    full = np.kron(scipy.linalg.hadamard(p) / math.sqrt(p), cosine) * draw_signs(key, n).numpy()
    expected = math.sqrt(n / m) * full[draw_rows(key, n, m).numpy()]
    found = dense(SubsampledHadamard(n, measurements=m, key=key)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


def test_hadamard_matrix_is_sylvester():
    for p in (1, 2, 16, 128):
        np.testing.assert_allclose(hadamard(p).numpy() * math.sqrt(p), scipy.linalg.hadamard(p), atol=1e-12)
        assert math.prod(radices(p)) == p


@pytest.mark.parametrize("ensemble", ["gaussian", "dct", "hadamard"])
@pytest.mark.parametrize("measurements", [24, 64])
@pytest.mark.parametrize("shifts", [[1e-3, 0.2, 5.0], [0.1, 0.1, 0.1], [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0]])
def test_solve_normal_is_the_dense_solution(ensemble, measurements, shifts):
    operator = CompressiveSensing((1, 8, 8), measurements=measurements, ensemble=ensemble, key=Key(4))
    matrix = dense(operator)
    b = Key(0).normal((len(shifts), 1, 8, 8), like=matrix)
    shifts = torch.tensor(shifts, dtype=torch.float64)
    found = operator.solve_normal(b, shifts)
    assert found is not None
    for image, shift, solved in zip(b, shifts, found, strict=True):
        expected = torch.linalg.solve(matrix.mT @ matrix + shift * torch.eye(64, dtype=torch.float64), image.flatten())
        torch.testing.assert_close(solved.flatten(), expected, rtol=1e-9, atol=1e-9)


def test_what_the_gaussian_matrix_remembers_does_not_change_its_solutions():
    b = Key(0).normal((1, 64), like=torch.zeros(()))
    used, fresh = (GaussianMatrix(64, measurements=24, key=Key(4)) for _ in range(2))
    for shift in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        used.solve_normal(b, shift)
    used.solve_normal(b.expand(6, 64), torch.linspace(0.1, 1, 6))
    for shift in (0.1, 0.6, 0.3):
        assert torch.equal(used.solve_normal(b, shift), fresh.solve_normal(b, shift))


def test_a_shift_below_the_precision_of_the_gaussian_matrix_gives_a_finite_solution():
    operator = GaussianMatrix(300, measurements=300, key=Key(0))
    assert bool(torch.isfinite(operator.solve_normal(torch.ones(1, 300), 1e-12)).all())


def test_gaussian_norm_is_estimated_near_its_limit():
    operator = CompressiveSensing((1, 32, 32), measurements=256, key=Key(0))
    assert operator.norm_bound() is None
    norm = operator_norm(operator, torch.zeros(1, 1, 32, 32))
    # ||A|| tends to 1 + sqrt(n / m) = 3.
    assert float(norm.value) == pytest.approx(3.0, rel=0.05)
