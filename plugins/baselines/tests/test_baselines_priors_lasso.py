"""The exact Lasso: laws, certificate, agreement with scikit-learn, and published figures."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from preimage_baselines import FISTA, CosineSparsity, Lasso, Tikhonov, WaveletSparsity

from preimage import GaussianNoise, Identity, Key, LinearOperator, Problem, Status, solve
from preimage.errors import BadParameter, Incompatible
from preimage.testing import check_solver

SHAPE = (1, 8, 8)
DOUBLE = torch.zeros((), dtype=torch.float64)


class Transposed(LinearOperator):
    """A^T of a matrix that solves with A A^T."""

    def __init__(self, operator):
        super().__init__(operator.out_shape, operator.in_shape)
        self.operator = operator

    def forward(self, x):
        return self.operator.adjoint(x)

    def adjoint(self, y):
        return self.operator(y)

    def solve_normal(self, b, shift):
        matrix = self.operator.matrix.to(b)
        shifts = torch.as_tensor(shift, dtype=b.dtype).expand(len(b))
        eye = torch.eye(len(matrix), dtype=b.dtype)
        return torch.stack(
            [torch.linalg.solve(matrix @ matrix.mT + s * eye, r) for s, r in zip(shifts, b, strict=True)]
        )


class Matrix(LinearOperator):
    """`solves`: "gram" with A A^T, "normal" with A^T A, "nothing"."""

    def __init__(self, matrix, solves):
        super().__init__(SHAPE, (len(matrix),))
        self.register_buffer("matrix", matrix)
        self.solves = solves

    def forward(self, x):
        return x.flatten(1) @ self.matrix.to(x).mT

    def adjoint(self, y):
        return (y @ self.matrix.to(y)).reshape(-1, *self.in_shape)

    @property
    def T(self):  # noqa: N802
        return Transposed(self) if self.solves == "gram" else super().T

    def solve_normal(self, b, shift):
        if self.solves != "normal":
            return None
        matrix, shifts = self.matrix.to(b), torch.as_tensor(shift, dtype=b.dtype).expand(len(b))
        eye = torch.eye(matrix.shape[1], dtype=b.dtype)
        rows = [torch.linalg.solve(matrix.mT @ matrix + s * eye, r.flatten()) for s, r in zip(shifts, b, strict=True)]
        return torch.stack(rows).reshape(b.shape)


def problem_of(solves="gram", prior=None, weight=0.02, dtype=torch.float64):
    matrix = Key(5).normal((40, 64), DOUBLE) / 40**0.5
    operator, noise = Matrix(matrix, solves), GaussianNoise(sigma=0.02)
    prior = CosineSparsity(SHAPE) if prior is None else prior
    coefficients = prior.prox(Key(6).normal((3, *SHAPE), DOUBLE), 1.2)
    y = noise.sample(operator(coefficients), Key(7)).to(dtype)
    return Problem(operator, y, noise, prior, weight)


SOLVES = ["gram", "normal", "nothing"]


@pytest.mark.parametrize("solves", SOLVES)
@pytest.mark.parametrize("prior", [CosineSparsity(SHAPE), WaveletSparsity(SHAPE, wavelet="db2")])
def test_lasso_keeps_the_laws_of_solvers(solves, prior):
    check_solver(Lasso(tolerance=1e-7), problem=problem_of(solves, prior))
    check_solver(Lasso(penalty=0.1, max_steps=25), problem=problem_of(solves, prior))


@pytest.mark.parametrize("solves", SOLVES)
def test_lasso_is_that_of_scikit_learn(solves):
    linear_model = pytest.importorskip("sklearn.linear_model")
    problem = problem_of(solves)
    result = solve(problem, Lasso(tolerance=1e-12, max_steps=20000))
    assert set(result.status) == {Status.CONVERGED}
    basis = problem.prior.transform()(problem.operator.matrix.reshape(-1, *SHAPE)).flatten(1).numpy()
    model = linear_model.Lasso(alpha=0.02 / 40, fit_intercept=False, tol=1e-13, max_iter=100000)
    expected = np.stack([model.fit(basis, y).coef_ for y in problem.y.numpy()])
    found = problem.prior.transform()(result.x).flatten(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert 0.3 < float((np.abs(found) < 1e-10).mean()) < 0.95


@pytest.mark.parametrize("solves", SOLVES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-3), (torch.float64, 1e-6)])
def test_the_certificate_bounds_the_distance_to_the_minimum(solves, dtype, tolerance):
    problem = problem_of(solves, dtype=dtype)
    result = solve(problem, Lasso(tolerance=tolerance))
    assert all("duality gap" in reason for reason in result.reasons)
    assert bool((result.certificate <= tolerance * problem.y.square().sum(1) * (1 + 1e-5)).all())
    double = problem_of(solves)
    double = Problem(double.operator, problem.y.double(), double.noise, double.prior, double.weight)
    best = double.objective(solve(double, FISTA(tolerance=1e-9, max_steps=5000)).x)
    excess = double.objective(result.x.double()) - best
    assert bool((excess <= result.certificate.double() + 1e-7).all())


def test_an_operator_that_is_diagonal_is_soft_thresholding():
    prior = CosineSparsity(SHAPE)
    y = Key(1).normal((2, *SHAPE), DOUBLE)
    result = solve(Problem(Identity(SHAPE), y, GaussianNoise(sigma=1.0), prior, 0.7), Lasso(tolerance=1e-14))
    assert torch.allclose(result.x, prior.prox(y, 0.7), atol=1e-6)


def test_lasso_refuses_what_it_cannot_do():
    with pytest.raises(Incompatible, match="OrthonormalSparsity"):
        solve(Problem(Identity(SHAPE), torch.ones(1, *SHAPE), GaussianNoise(sigma=1.0), Tikhonov(SHAPE)), Lasso())
    for wrong in ({"penalty": 0.0}, {"tolerance": -1.0}):
        with pytest.raises(BadParameter, match=next(iter(wrong))):
            Lasso(**wrong)


# Convention of Bora et al. (2017) and Asim et al. (2020): 64 x 64 x 3 faces, A_ij ~ N(0, 1/m), noise 0.1 / sqrt(m),
# scikit-learn's alpha 0.01 with matrix and data times sqrt(2 m), which is weight 0.005 here. Expected PSNR are those of
# the optimum by an independent program (accelerated proximal gradient) on the draw that `published_draw` repeats:
# one pixel, the largest, decides a max-normalised figure, and another draw is up to 0.6 dB away.

FACES = Path(os.environ.get("PREIMAGE_DATA", ".")) / "faces" / "celeba_test12"
ROWS = [
    ("dct", 1000, 17.1, None, 0.15),
    ("dct", 2500, 21.4, None, 0.15),
    ("dct", 5000, 26.4, None, 0.15),
    ("haar", 1000, 15.2, 13.5, 0.2),
    ("haar", 2500, 19.3, 18.0, 0.2),
]


def psnr(x, clean):
    return float(-10 * (x.clamp(0, 1) - clean).square().flatten(1).mean(1).log10().mean())


def faces():
    image = pytest.importorskip("PIL.Image")
    files = sorted(FACES.glob("*.jpg"))
    if not files:
        pytest.skip(f"no images in {FACES}: set PREIMAGE_DATA")
    small = [image.open(f).convert("RGB").resize((64, 64), image.Resampling.BILINEAR) for f in files]
    return torch.stack([torch.from_numpy(np.asarray(i, np.float32) / 255).permute(2, 0, 1) for i in small])


def published_draw(measurements, images):
    """The operator and the noise as GlowIP draws them: NumPy's seed 0, a transposed matrix, channels last."""
    sensing = pytest.importorskip("preimage_compressive_sensing")
    generator, shape = np.random.RandomState(0), (3, 64, 64)
    matrix = generator.randn(math.prod(shape), measurements).T / math.sqrt(measurements)
    noise = generator.randn(images, measurements) * 0.1 / math.sqrt(measurements)

    class Published(sensing.GaussianMatrix):
        def draw(self, dtype, device):
            channels_last = torch.from_numpy(matrix.reshape(-1, 64, 64, 3)).to(device, dtype)
            return channels_last.permute(0, 3, 1, 2).flatten(1).contiguous()

    operator = sensing.CompressiveSensing(shape, measurements=measurements, key=Key(0))
    operator.matrix = Published(math.prod(shape), measurements=measurements, key=Key(0))
    return operator, torch.from_numpy(noise).float()


@pytest.mark.slow
@pytest.mark.parametrize(("basis", "measurements", "raw", "normalised", "tolerance"), ROWS)
def test_published_compressive_sensing_of_faces(basis, measurements, raw, normalised, tolerance):
    clean, shape = faces(), (3, 64, 64)
    operator, noise = published_draw(measurements, len(clean))
    prior = CosineSparsity(shape) if basis == "dct" else WaveletSparsity(shape)
    y, law = operator(clean) + noise, GaussianNoise(sigma=0.1 / math.sqrt(measurements))
    result = solve(Problem(operator, y, law, prior, 0.005), Lasso())
    assert set(result.status) == {Status.CONVERGED}
    found = psnr(result.x, clean), psnr(result.x / result.x.abs().amax((1, 2, 3), keepdim=True), clean)
    print(f"Lasso-{basis} m={measurements}: {found[0]:.2f} dB, max-normalised {found[1]:.2f} dB, steps {result.steps}")
    assert found[0] == pytest.approx(raw, abs=tolerance)
    if normalised is not None:
        assert found[1] == pytest.approx(normalised, abs=tolerance)
