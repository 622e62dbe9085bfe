"""Landweber, LSQR and Richardson-Lucy: against NumPy loops, SciPy, scikit-image and their own conservation laws."""

import math

import numpy as np
import pytest
import torch
from preimage_baselines import LSQR, ConjugateGradients, Landweber, RichardsonLucy

from preimage import (
    ForwardOperator,
    GaussianNoise,
    Identity,
    Key,
    LinearOperator,
    NoNoise,
    PoissonNoise,
    Problem,
    Status,
    hookimpl,
    solve,
)
from preimage.errors import BadData, BadParameter, Diverged, Incompatible
from preimage.testing import check_solver

SHAPE = (1, 8, 10)
SIZE = math.prod(SHAPE)
DOUBLE = torch.zeros((), dtype=torch.float64)


class Matrix(LinearOperator):
    def __init__(self, matrix):
        super().__init__(SHAPE, (len(matrix),))
        self.register_buffer("matrix", matrix)

    def forward(self, x):
        return x.flatten(1) @ self.matrix.to(x).mT

    def adjoint(self, y):
        return (y @ self.matrix.to(y)).reshape(-1, *SHAPE)


class Convolution(LinearOperator):
    """Zero outside of the image, as scikit-image's Richardson-Lucy has it."""

    def __init__(self, shape, kernel):
        super().__init__(shape, shape)
        self.register_buffer("kernel", kernel[None, None])

    def forward(self, x):
        return torch.nn.functional.conv2d(x, self.kernel.flip(-1, -2).to(x), padding="same")

    def adjoint(self, y):
        return torch.nn.functional.conv2d(y, self.kernel.to(y), padding="same")


class Bend(ForwardOperator):
    """x + x^2 / 2, smoothed along rows."""

    def __init__(self):
        super().__init__(SHAPE, SHAPE)

    def forward(self, x):
        bent = x + 0.5 * x * x
        return 0.5 * bent + 0.25 * (bent.roll(1, -1) + bent.roll(-1, -1))


def matrix(rows=60, decay=0.0):
    """Singular values 1, ..., 10^-decay."""
    u, s, v = torch.linalg.svd(Key(2).normal((rows, SIZE), DOUBLE), full_matrices=False)
    return u * torch.logspace(0, -decay, len(s), dtype=torch.float64) @ v


def noisy(operator, noise=None, count=2):
    noise = noise or GaussianNoise(sigma=0.02)
    x = Key(5).uniform((count, *operator.in_shape), DOUBLE)
    return Problem(operator, noise.sample(operator(x), Key(3)), noise), x


def iterates(problem, solver):
    """Every estimate after a step, (steps, B, ...)."""
    seen = []

    class Watch:
        @hookimpl
        def preimage_step(self, run):
            seen.append(run.estimate().clone())

    result = solve(problem, solver, observers=[Watch()])
    return torch.stack(seen), result


# Landweber


@pytest.mark.parametrize("box", [None, (0.2, 0.8)])
def test_landweber_is_the_plain_loop(box):
    problem, _ = noisy(Matrix(matrix()))
    ours, _ = iterates(problem, Landweber(step_size=0.7, tau=0.0, tolerance=0.0, max_steps=30, box=box))
    a, y = problem.operator.matrix.numpy(), problem.y.numpy()
    for index in range(2):
        x = problem.start()[index].numpy().ravel()
        x = x if box is None else np.clip(x, *box)
        for step in range(30):
            x = x + 0.7 * a.T @ (y[index] - a @ x)
            x = x if box is None else np.clip(x, *box)
            assert np.allclose(ours[step, index].numpy().ravel(), x, rtol=1e-12, atol=1e-14)


def test_landweber_on_a_nonlinear_operator_is_the_plain_loop():
    problem, _ = noisy(Bend())
    ours, _ = iterates(problem, Landweber(step_size=0.2, tau=0.0, tolerance=0.0, max_steps=30))
    x, y = problem.start().numpy(), problem.y.numpy()
    for step in range(30):
        smooth = 0.5 * (b := x + 0.5 * x * x) + 0.25 * (np.roll(b, 1, -1) + np.roll(b, -1, -1))
        r = y - smooth
        x = x + 0.2 * (1 + x) * (0.5 * r + 0.25 * (np.roll(r, 1, -1) + np.roll(r, -1, -1)))
        assert np.allclose(ours[step].numpy(), x, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    "operator", [Matrix(matrix()), Matrix(30 * matrix(decay=2.0)), Bend()], ids=["1", "30", "bend"]
)
@pytest.mark.parametrize("tau", [1.02, 1.5])
def test_landweber_stops_at_the_first_image_that_fits_the_noise(operator, tau):
    problem, _ = noisy(operator, GaussianNoise(sigma=0.05))
    problem = Problem(operator, problem.y, problem.noise, x0=torch.zeros(2, *SHAPE, dtype=torch.float64))
    # Fewer measurements than pixels can be fitted exactly, so the level is reached.
    ours, result = iterates(problem, Landweber(tau=tau, max_steps=5000))
    assert set(result.status) == {Status.CONVERGED}
    level = tau * 0.05 * math.sqrt(problem.y[0].numel())
    for index, steps in enumerate(result.steps):
        distances = [float((operator(x[index : index + 1]) - problem.y[index]).norm()) for x in ours[:steps]]
        assert distances[-1] <= level < min(distances[:-1], default=math.inf)
        assert "misfit over its expected value" in result.reasons[index]


def test_stopping_early_beats_the_end():
    problem, truth = noisy(Matrix(matrix(80, decay=3.0)), GaussianNoise(sigma=0.1))
    for solver in (Landweber, LSQR):
        early = solve(problem, solver()).x
        late = solve(problem, solver(tau=0.0, max_steps=5000)).x
        error = [(x - truth).flatten(1).norm(dim=1) for x in (early, late)]
        assert bool((error[0] < 0.7 * error[1]).all())


def test_the_automatic_step_is_safe_where_the_derivative_grows():
    """The start is dark, where the derivative is a tenth of what it is at the solution."""
    problem, truth = noisy(Bend(), NoNoise())
    dark = Problem(Bend(), 10 * problem.y, problem.noise, x0=-0.9 + 0 * truth)
    ours, result = iterates(dark, Landweber(max_steps=200))
    misfits = torch.stack([dark.misfit(x) for x in ours])
    assert bool((misfits.diff(dim=0) <= 1e-12 * misfits[:-1]).all())
    assert bool((misfits[-1] < 1e-2 * dark.misfit(dark.x0)).all())
    assert Status.DIVERGED not in result.status


def test_landweber_without_noise_stops_when_nothing_moves():
    problem, _ = noisy(Matrix(matrix(120, decay=0.5)), NoNoise())
    result = solve(problem, Landweber(max_steps=5000))
    assert set(result.status) == {Status.CONVERGED}
    assert "relative change" in result.reasons[0]
    expected = torch.linalg.lstsq(problem.operator.matrix, problem.y.mT).solution.mT.reshape(2, *SHAPE)
    assert torch.allclose(result.x, expected, atol=1e-4)


def test_a_step_that_is_too_long_is_told():
    problem, _ = noisy(Matrix(matrix(120, decay=1.0)))
    with pytest.raises(Diverged, match="step_size"):
        solve(problem, Landweber(step_size=3.0, tau=0.0))


# LSQR


@pytest.mark.parametrize("damping", [0.0, 0.1])
@pytest.mark.parametrize("start", [None, 0.3])
@pytest.mark.parametrize(
    "a", [matrix(decay=0.5), matrix(120, decay=2.0), 30 * matrix(SIZE, decay=1.0)], ids=["wide", "tall", "30"]
)
def test_lsqr_is_scipy_step_by_step(a, start, damping):
    linalg = pytest.importorskip("scipy.sparse.linalg")
    problem, _ = noisy(Matrix(a))
    x0 = None if start is None else torch.full((2, *SHAPE), start, dtype=torch.float64)
    problem = Problem(problem.operator, problem.y, problem.noise, x0=x0)
    ours, result = iterates(problem, LSQR(damping=damping, tau=0.0, atol=0, btol=0, conlim=1e16, max_steps=12))
    zero = np.zeros(SIZE) if x0 is None else x0[0].numpy().ravel()
    for index in range(2):
        for count in range(1, 13):
            peer = linalg.lsqr(
                a.numpy(),
                problem.y[index].numpy(),
                damp=damping,
                atol=0,
                btol=0,
                conlim=0,
                iter_lim=count,
                x0=zero.copy(),
            )
            assert np.allclose(ours[count - 1, index].numpy().ravel(), peer[0], rtol=1e-9, atol=1e-11)
        assert float(result.objective[index]) == pytest.approx(0.5 * peer[4] ** 2, rel=1e-9)


# Each is met long before the rounding errors of one processor or another could decide when.
@pytest.mark.parametrize("tolerances", [{"atol": 1e-4, "btol": 0.0}, {"atol": 0.0, "btol": 0.1}, {"conlim": 4.0}])
def test_lsqr_stops_where_scipy_does(tolerances):
    linalg = pytest.importorskip("scipy.sparse.linalg")
    problem, _ = noisy(Matrix(matrix(120, decay=0.7)))
    whole = {"atol": 0.0, "btol": 0.0, "conlim": 1e16} | tolerances
    result = solve(problem, LSQR(tau=0.0, **whole))
    for index in range(2):
        peer = linalg.lsqr(problem.operator.matrix.numpy(), problem.y[index].numpy(), iter_lim=1000, **whole)
        assert result.steps[index] == peer[2]
        assert np.allclose(result.x[index].numpy().ravel(), peer[0], rtol=1e-8, atol=1e-10)


def test_lsqr_solves_the_damped_normal_equations():
    a = matrix(50, decay=3.0)
    problem, _ = noisy(Matrix(a))
    result = solve(problem, LSQR(damping=0.05, tau=0.0, atol=1e-12, btol=1e-12))
    assert set(result.status) == {Status.CONVERGED}
    eye = torch.eye(SIZE, dtype=torch.float64)
    expected = torch.linalg.solve(a.mT @ a + 0.05**2 * eye, (problem.y @ a).mT).mT.reshape(2, *SHAPE)
    assert torch.allclose(result.x, expected, atol=1e-8)
    assert "gradient" in result.reasons[0]


def test_lsqr_and_conjugate_gradients_take_the_same_steps():
    problem, _ = noisy(Matrix(matrix(120, decay=1.0)))
    ours, _ = iterates(problem, LSQR(tau=0.0, atol=0, btol=0, max_steps=10))
    theirs, _ = iterates(problem, ConjugateGradients(tolerance=0.0, max_steps=10))
    assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("damping", [0.0, 0.2])
def test_lsqr_keeps_account_of_its_misfit(damping):
    """By recurrence, never by another A x: so the discrepancy principle costs nothing."""
    problem, _ = noisy(Matrix(matrix(120, decay=1.0)), GaussianNoise(sigma=0.05))
    solver = LSQR(damping=damping, tau=1.3)
    ours, result = iterates(problem, solver)
    limit = 1.3**2 * problem.noise.expected_misfit(problem.y)
    for index, steps in enumerate(result.steps):
        misfits = [float(problem.misfit(x)[index]) for x in ours[:steps]]
        if "misfit over" in result.reasons[index]:
            assert misfits[-1] <= float(limit[index]) * (1 + 1e-9) < min(misfits[:-1], default=math.inf)
    assert damping > 0 or all("misfit over" in reason for reason in result.reasons)


@pytest.mark.parametrize("solver", [LSQR(), LSQR(damping=0.1), Landweber()], ids=["lsqr", "damped", "landweber"])
def test_a_measurement_of_zeros_gives_zeros(solver):
    y = torch.zeros(2, 60, dtype=torch.float64)
    result = solve(Problem(Matrix(matrix()), y, NoNoise()), solver)
    assert set(result.status) == {Status.CONVERGED}
    assert bool((result.x == 0).all())


def test_a_row_space_of_one_dimension_is_left_after_one_step():
    """The bidiagonalisation ends: beta or alpha is zero, and nothing may be divided by it."""
    problem = Problem(Identity(SHAPE), Key(1).normal((2, *SHAPE), DOUBLE), NoNoise())
    for dtype in (torch.float32, torch.float64):
        given = Problem(problem.operator, problem.y.to(dtype), problem.noise)
        for solver in (LSQR(), LSQR(atol=0, btol=0, max_steps=5)):
            result = solve(given, solver)
            assert torch.allclose(result.x, given.y, rtol=1e-5)


# Richardson-Lucy


def kernel():
    k = torch.tensor([[0.05, 0.1, 0.05], [0.1, 0.3, 0.2], [0.05, 0.1, 0.05]], dtype=torch.float64)
    return k / k.sum()


def blocks(size=48, count=2):
    x = torch.full((count, 1, size, size), 0.2, dtype=torch.float64)
    for index in range(count):
        x[index, :, 14 : 24 + index, 16:33] = 0.8
    return x


def test_richardson_lucy_is_that_of_scikit_image_away_from_the_border():
    """There A^T 1 = 1; near the border, scikit-image's leaves the normalisation out."""
    restoration = pytest.importorskip("skimage.restoration")
    truth = blocks()
    operator, noise = Convolution(truth.shape[1:], kernel()), PoissonNoise(peak=200.0)
    y = noise.sample(operator(truth), Key(0))
    count = 6
    problem = Problem(operator, y, noise, x0=torch.full_like(truth, 0.5))
    x = solve(problem, RichardsonLucy(tau=0.0, tolerance=0.0, max_steps=count)).x
    inside = slice(2 * count, -2 * count)
    for index in range(2):
        peer = restoration.richardson_lucy(y[index, 0].numpy(), kernel().numpy(), num_iter=count, clip=False)
        ours = x[index, 0].numpy()
        assert np.allclose(ours[inside, inside], peer[inside, inside], rtol=1e-8)
        assert not np.allclose(ours, peer, rtol=1e-2)


def test_every_step_keeps_the_flux_and_lowers_the_divergence():
    truth = blocks()
    operator, noise = Convolution(truth.shape[1:], kernel()), PoissonNoise(peak=200.0)
    problem = Problem(operator, noise.sample(operator(truth), Key(0)), noise)
    ours, result = iterates(problem, RichardsonLucy(tau=0.0, max_steps=25, tolerance=0.0))
    sensitivity = operator.adjoint(torch.ones_like(truth))
    assert float(sensitivity.min()) < 0.9
    for x in ours:
        assert bool((x >= 0).all())
        assert torch.allclose((sensitivity * x).sum((1, 2, 3)), problem.y.sum((1, 2, 3)), rtol=1e-10)
    divergence = torch.stack([noise.misfit(operator(x), problem.y) for x in ours])
    assert bool((divergence.diff(dim=0) <= 0).all())
    assert torch.allclose(result.objective, divergence[-1], rtol=1e-9)


def test_richardson_lucy_stops_when_the_counts_are_explained():
    truth = blocks()
    operator, noise = Convolution(truth.shape[1:], kernel()), PoissonNoise(peak=1000.0)
    problem = Problem(operator, noise.sample(operator(truth), Key(0)), noise)
    result = solve(problem, RichardsonLucy())
    late = solve(problem, RichardsonLucy(tau=0.0, tolerance=0.0, max_steps=500)).x
    assert all("misfit over its expected value" in reason for reason in result.reasons)
    assert max(result.steps) < 100
    start = (problem.start() - truth).square().mean()
    assert float((result.x - truth).square().mean()) < 0.8 * float(start)
    assert float((result.x - truth).square().mean()) < 0.5 * float((late - truth).square().mean())


def test_pixels_that_nothing_measures_keep_their_value():
    mask = torch.ones(SHAPE, dtype=torch.float64)
    mask[..., 3:5] = 0

    class Mask(LinearOperator):
        def __init__(self):
            super().__init__(SHAPE, SHAPE)

        def forward(self, x):
            return x * mask.to(x)

        def adjoint(self, y):
            return y * mask.to(y)

    y = mask * Key(1).uniform((2, *SHAPE), DOUBLE)
    x = solve(Problem(Mask(), y, PoissonNoise(peak=100.0)), RichardsonLucy(tau=0.0, max_steps=5)).x
    assert torch.allclose(x * mask, y, rtol=1e-12)
    mean = y.sum((1, 2, 3)) / mask.sum()
    assert torch.allclose(x[..., 3:5], mean.reshape(-1, 1, 1, 1).expand(2, 1, 8, 2))


def test_dark_measurements_and_images_of_zeros_are_no_trouble():
    operator = Convolution((1, 12, 12), kernel())
    y = torch.zeros(2, 1, 12, 12, dtype=torch.float64)
    y[1, :, 6, 6] = 1.0
    for dtype in (torch.float32, torch.float64):
        x = solve(Problem(operator, y.to(dtype), PoissonNoise(peak=50.0)), RichardsonLucy(tau=0.0, max_steps=40)).x
        assert bool(torch.isfinite(x).all())
        assert bool((x[0] == 0).all())
        assert float(x[1].sum()) == pytest.approx(1.0, rel=1e-5)


def test_negative_measurements_are_refused_and_the_remedy_works():
    y = torch.tensor([0.5, -0.25, 1.0, -0.125]).reshape(1, 1, 2, 2)
    problem = Problem(Identity((1, 2, 2)), y, GaussianNoise(sigma=0.1))
    with pytest.raises(BadData, match=r"2 negative values, the least -0\.25"):
        solve(problem, RichardsonLucy())
    result = solve(problem, RichardsonLucy(clip_negative=True, tau=0.0))
    assert torch.allclose(result.x, y.clamp_min(0), atol=1e-6)
    assert float(problem.y.min()) == -0.25


def test_a_negative_start_is_refused():
    problem = Problem(Identity(SHAPE), torch.ones(1, *SHAPE), NoNoise(), x0=-torch.ones(1, *SHAPE))
    with pytest.raises(BadData, match="x0"):
        solve(problem, RichardsonLucy())


def test_a_matrix_with_negative_entries_is_refused():
    problem, _ = noisy(Matrix(matrix()))
    with pytest.raises(Incompatible, match="negative entries"):
        solve(Problem(problem.operator, problem.y.abs(), NoNoise()), RichardsonLucy())


# Laws and refusals


@pytest.mark.parametrize(
    ("solver", "operator"),
    [
        (Landweber(), Matrix(matrix())),
        (Landweber(), Bend()),
        (Landweber(box=(0.0, 1.0), tau=0.0, max_steps=50), Bend()),
        (LSQR(), Matrix(matrix(120, decay=2.0))),
        (LSQR(damping=0.1, tau=0.0), Matrix(matrix())),
    ],
)
def test_the_laws_hold_on_harder_problems(solver, operator):
    check_solver(solver, problem=noisy(operator)[0])


def test_the_laws_hold_for_photon_counts():
    operator, noise = Convolution((1, 12, 12), kernel()), PoissonNoise(peak=100.0)
    check_solver(RichardsonLucy(), problem=noisy(operator, noise)[0])


@pytest.mark.parametrize("make", [LSQR, RichardsonLucy])
def test_linear_solvers_refuse_a_nonlinear_operator(make):
    with pytest.raises(Incompatible, match="LinearOperator"):
        solve(noisy(Bend())[0], make())


@pytest.mark.parametrize(
    ("make", "mentions"),
    [
        (lambda: Landweber(tau=-1.0), "tau"),
        (lambda: Landweber(step_size=0.0), "step_size"),
        (lambda: Landweber(box=(1.0, 0.0)), "box"),
        (lambda: Landweber(tolerance=-1.0), "tolerance"),
        (lambda: LSQR(damping=-0.1), "damping"),
        (lambda: LSQR(tau=-1.0), "tau"),
        (lambda: LSQR(atol=-1.0), "atol"),
        (lambda: LSQR(btol=float("nan")), "btol"),
        (lambda: LSQR(conlim=0.0), "conlim"),
        (lambda: RichardsonLucy(tau=float("nan")), "tau"),
        (lambda: RichardsonLucy(tolerance=-1.0), "tolerance"),
    ],
)
def test_bad_parameters_are_refused_by_name(make, mentions):
    with pytest.raises(BadParameter, match=mentions):
        make()


# Photographs


def psnr(x, truth):
    return -10 * torch.log10((x.clamp(0, 1) - truth).square().flatten(1).mean(1))


@pytest.mark.parametrize(
    ("solver", "name", "gain"),
    [
        (Landweber(box=(0.0, 1.0)), "gaussian-blur", 2.0),
        (LSQR(), "gaussian-blur", 2.0),
        (RichardsonLucy(clip_negative=True), "gaussian-blur", 2.0),
        (Landweber(box=(0.0, 1.0)), "compressive-sensing", 2.0),
        (LSQR(), "compressive-sensing", 1.2),
        (RichardsonLucy(clip_negative=True), "inpainting", 5.0),
    ],
)
def test_photographs_improve_on_the_start(solver, name, gain):
    data = pytest.importorskip("preimage_data").Photographs(size=64, count=2)
    truth, shape = torch.stack([data[0], data[1]]), (1, 64, 64)
    if name == "gaussian-blur":
        operator = pytest.importorskip("preimage_gaussian_blur").GaussianBlur(shape)
    elif name == "inpainting":
        operator = pytest.importorskip("preimage_inpainting").Inpainting(shape, mask="random", keep=0.5, key=Key(1))
    else:
        sensing = pytest.importorskip("preimage_compressive_sensing").CompressiveSensing
        operator = sensing(shape, measurements=2048, key=Key(2))
    noise = GaussianNoise(sigma=0.025)
    problem = Problem(operator, noise.sample(operator(truth), Key(0)), noise)
    better = psnr(solve(problem, solver).x, truth) - psnr(problem.start(), truth)
    assert float(better.min()) > gain


def test_landweber_sharpens_what_perona_malik_diffusion_has_flattened():
    """From data with little noise, since without a prior noise is all that a few steps would fit."""
    data = pytest.importorskip("preimage_data").Photographs(size=64, count=2)
    truth = torch.stack([data[0], data[1]])
    operator, noise = pytest.importorskip("preimage_perona_malik").PeronaMalik((1, 64, 64)), GaussianNoise(sigma=0.002)
    problem = Problem(operator, noise.sample(operator(truth), Key(0)), noise)
    result = solve(problem, Landweber())
    assert all("misfit over its expected value" in reason for reason in result.reasons)
    assert float((psnr(result.x, truth) - psnr(problem.start(), truth)).min()) > 3
