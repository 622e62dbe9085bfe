"""Sparsity in cosine and wavelet bases, constraints, and smoothed total variation, against independent references."""

import math

import numpy as np
import pytest
import pywt
import scipy.fft
import torch
from preimage_baselines import Box, CosineSparsity, NonNegative, SmoothedTotalVariation, TotalVariation, WaveletSparsity
from preimage_baselines.sparsity import opponent_matrix
from preimage_baselines.wavelet_transform import WaveletTransform
from preimage_baselines.wavelets import orthogonal_filter

from preimage import Differentiable, GaussianNoise, Identity, Key, Problem, Status, dot, load, solve, sum_of_priors
from preimage.errors import BadParameter, ShapeMismatch
from preimage.testing import check_operator

DOUBLE = torch.zeros((), dtype=torch.float64)


def images(shape, count=2):
    return Key(3).uniform((count, *shape), DOUBLE)


ORTHOGONAL = ["haar", "db2", "db4", "db10", "sym5", "sym8", "coif1", "coif3", "coif5"]


@pytest.mark.parametrize("name", ORTHOGONAL)
@pytest.mark.parametrize(("size", "levels"), [((16, 24), 3), ((64, 32), 2), ((12, 20), 1)])
@pytest.mark.filterwarnings("ignore:Level value")
def test_the_wavelet_transform_is_that_of_pywavelets(name, size, levels):
    x = images((2, *size))
    found = WaveletTransform((2, *size), orthogonal_filter(name), levels)(x)
    for b, c in np.ndindex(2, 2):
        expected = pywt.wavedec2(x[b, c].numpy(), name, mode="periodization", level=levels)
        np.testing.assert_allclose(found[b, c].numpy(), pywt.coeffs_to_array(expected)[0], atol=1e-9)


@pytest.mark.parametrize("name", ORTHOGONAL)
@pytest.mark.parametrize("shape", [(1, 2, 8), (3, 8, 4)])
def test_the_wavelet_transform_is_orthonormal_even_where_the_filter_is_longer_than_the_image(name, shape):
    check_operator(WaveletTransform(shape, orthogonal_filter(name), 1, opponent=shape[0] == 3))
    size = math.prod(shape)
    basis = WaveletTransform(shape, orthogonal_filter(name), 1)(
        torch.eye(size, dtype=torch.float64).reshape(-1, *shape)
    )
    assert torch.allclose(basis.flatten(1) @ basis.flatten(1).mT, torch.eye(size, dtype=torch.float64), atol=1e-9)


def test_every_wavelet_of_pywavelets_is_taken_or_refused_by_what_it_is():
    for name in pywt.wavelist(kind="discrete"):
        if pywt.Wavelet(name).orthogonal and name != "dmey":
            WaveletSparsity((1, 8, 8), wavelet=name)
        else:
            with pytest.raises(BadParameter, match="not orthonormal"):
                WaveletSparsity((1, 8, 8), wavelet=name)


@pytest.mark.parametrize(("size", "levels"), [((64, 64), 6), ((96, 64), 5), ((6, 8), 1)])
def test_the_depth_is_the_largest_that_the_size_allows(size, levels):
    assert WaveletSparsity((1, *size)).levels == levels


def test_haar_in_full_depth_has_one_mean():
    x = images((1, 16, 16))
    assert torch.allclose(WaveletSparsity((1, 16, 16)).transform()(x)[:, 0, 0, 0], x.sum((1, 2, 3)) / 16)


def test_the_cosine_transform_is_that_of_scipy():
    x = images((3, 9, 14))
    found = CosineSparsity((3, 9, 14)).transform()(x).numpy()
    np.testing.assert_allclose(found, scipy.fft.dctn(x.numpy(), axes=(2, 3), norm="ortho"), atol=1e-12)


def test_the_opponent_basis_is_orthonormal_and_grey_is_brightness():
    matrix = opponent_matrix()
    assert torch.allclose(matrix @ matrix.mT, torch.eye(3, dtype=torch.float64), atol=1e-15)
    grey = images((1, 6, 6)).expand(-1, 3, -1, -1)
    coefficients = CosineSparsity((3, 6, 6), colour="opponent").transform()(grey)
    assert float(coefficients[:, 1:].abs().max()) < 1e-14
    x = images((3, 6, 6))
    by_hand = torch.einsum("dc,bchw->bdhw", matrix, x)
    assert torch.allclose(
        CosineSparsity((3, 6, 6), colour="opponent").transform()(x),
        CosineSparsity((3, 6, 6)).transform()(by_hand),
        atol=1e-13,
    )


def test_the_weights_are_the_power_of_the_frequency():
    prior = CosineSparsity((3, 8, 4), colour="opponent", exponent=1.5, chroma=2.0)
    for channel, i, j in np.ndindex(3, 8, 4):
        expected = math.hypot(i / 8, j / 4) ** 1.5 * (2.0 if channel else 1.0)
        assert float(prior.weights[channel, i, j]) == pytest.approx(expected)


@pytest.mark.parametrize(
    "prior",
    [
        CosineSparsity((3, 8, 8), exponent=1.0, colour="opponent", chroma=2.0),
        WaveletSparsity((3, 8, 8), wavelet="db2", penalise_approximation=False),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_proximal_map_meets_its_optimality_conditions(prior, dtype):
    x, step = images((3, 8, 8)).to(dtype), torch.tensor([0.05, 0.3], dtype=dtype)
    u = prior.prox(x, step)
    assert u.dtype == dtype
    transform, threshold = prior.transform(), step.reshape(-1, 1, 1, 1) * prior.weights.to(dtype)
    c, pull = transform(u), transform(x - u)
    small = 1e-5 if dtype == torch.float32 else 1e-12
    at_zero = c.abs() <= small
    assert 0.1 < float(at_zero.double().mean()) < 0.99
    assert bool((pull.abs() <= threshold + small).all())
    assert torch.allclose(pull[~at_zero], (threshold * c.sign())[~at_zero], atol=small)


def test_what_is_not_penalised_stays():
    x = images((1, 16, 16))
    coarse = WaveletSparsity((1, 16, 16), levels=2, penalise_approximation=False)
    assert torch.allclose(coarse.transform()(coarse.prox(x, 100.0))[..., :4, :4], coarse.transform()(x)[..., :4, :4])
    assert torch.allclose(
        CosineSparsity((1, 16, 16), exponent=1.0).prox(x, 1e3), x.mean((2, 3), keepdim=True).expand_as(x)
    )


@pytest.mark.parametrize(("make", "mentions"), [
    (lambda: WaveletSparsity((1, 7, 8)), "even"),
    (lambda: WaveletSparsity((1, 12, 8), levels=3), "levels"),
    (lambda: WaveletSparsity((1, 8, 8), levels=0), "levels"),
    (lambda: WaveletSparsity((1, 8, 8), wavelet="bior2.2"), "orthonormal"),
    (lambda: WaveletSparsity((1, 8, 8), wavelet="db99"), "PyWavelets"),
    (lambda: WaveletSparsity((1, 8, 8), colour="opponent"), "3 channels"),
    (lambda: CosineSparsity((1, 8, 8), chroma=2.0), "chroma"),
    (lambda: CosineSparsity((3, 8, 8), exponent=-1.0), "exponent"),
    (lambda: CosineSparsity((3, 8, 8), exponent=float("nan")), "exponent"),
    (lambda: Box((1, 8, 8), lower=1.0, upper=1.0), "box"),
    (lambda: Box((1, 8, 8), upper=float("inf")), "non-negative"),
    (lambda: SmoothedTotalVariation((1, 8, 8), epsilon=0.0), "epsilon"),
])  # fmt: skip
def test_bad_parameters_are_refused(make, mentions):
    with pytest.raises(BadParameter, match=mentions):
        make()


@pytest.mark.parametrize("cls", [CosineSparsity, WaveletSparsity, SmoothedTotalVariation])
def test_images_without_channels_are_refused(cls):
    with pytest.raises(ShapeMismatch, match="channel"):
        cls((8, 8))


# Constraints


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constraints_are_zero_inside_infinite_outside_and_forgive_rounding(dtype):
    box, positive = Box((1, 2, 2), lower=-1.0, upper=2.0), NonNegative((1, 2, 2))
    x = torch.tensor([[-1.0, 0.0, 1.0, 2.0], [-1.001, 0, 0, 0], [0, 0, 0, 2.001], [0, 0, 3, 7]], dtype=dtype)
    x = x.reshape(4, 1, 2, 2)
    assert box.energy(x).tolist() == [0.0, math.inf, math.inf, math.inf]
    assert positive.energy(x).tolist() == [math.inf, math.inf, 0.0, 0.0]
    assert bool((box.energy(box.prox(x, 0.3)) == 0).all())
    nearly = x[:1] * (1 + torch.finfo(dtype).eps)
    assert float(box.energy(nearly)) == 0
    assert torch.equal(positive.prox(x, 5.0), x.clamp_min(0))


@pytest.mark.parametrize("solver", ["fista", "admm"])
def test_total_variation_within_a_box_is_feasible_and_optimal(solver):
    shape = (1, 12, 12)
    clean = torch.zeros(1, *shape, dtype=torch.float64)
    clean[..., 3:9, 3:9] = 1
    y = clean + 0.3 * Key(1).normal(clean.shape, DOUBLE)
    prior = sum_of_priors([TotalVariation(shape, tolerance=1e-9), Box(shape)], [1.0, 1.0])
    problem = Problem(Identity(shape), y, GaussianNoise(sigma=0.3), prior, 0.1)
    cls = load("solver", solver)
    result = solve(problem, cls(tolerance=1e-7, max_steps=3000))
    assert Status.DIVERGED not in result.status
    assert 0 <= float(result.x.min()) <= float(result.x.max()) <= 1
    objective = problem.objective(result.x)
    assert bool(torch.isfinite(objective).all())
    # A long run of projected subgradient steps of falling length comes no lower.
    u, best = y.clamp(0, 1), math.inf
    tv = SmoothedTotalVariation(shape, epsilon=1e-4)
    for k in range(3000):
        u = (u - (u - y + 0.1 * tv.grad(u)) * 0.05 / (1 + k / 100)).clamp(0, 1)
        best = min(best, float(problem.objective(u)))
    assert float(objective) <= best * (1 + 1e-6)


# Smoothed total variation


def test_smoothed_total_variation_is_the_formula_and_near_total_variation():
    x = images((2, 6, 5))
    for coupled in (False, True):
        k = TotalVariation((2, 6, 5)).analysis()(x).numpy()
        square = (k**2).sum(1)
        square = square.sum(1) if coupled else square
        expected = (np.sqrt(square + 0.2**2) - 0.2).reshape(2, -1).sum(1)
        prior = SmoothedTotalVariation((2, 6, 5), epsilon=0.2, coupled=coupled)
        np.testing.assert_allclose(prior.energy(x).numpy(), expected, rtol=1e-12)
    tv = TotalVariation((2, 6, 5)).energy(x)
    near = SmoothedTotalVariation((2, 6, 5), epsilon=1e-3).energy(x)
    assert bool((near <= tv).all())
    assert bool((tv - near <= 1e-3 * 60).all())


@pytest.mark.parametrize("coupled", [False, True])
def test_the_gradient_of_smoothed_total_variation_and_its_constant(coupled):
    prior = SmoothedTotalVariation((2, 6, 5), epsilon=0.05, coupled=coupled)
    x, other = images((2, 6, 5)), images((2, 6, 5)) + 0.2 * Key(9).normal((2, 2, 6, 5), DOUBLE)
    assert torch.allclose(prior.grad(x), Differentiable.grad(prior, x), atol=1e-12)
    change = (prior.grad(x) - prior.grad(other)).flatten(1).norm(dim=1)
    assert bool((change <= prior.lipschitz() * (x - other).flatten(1).norm(dim=1)).all())
    # The constant is reached: a small chequerboard on a flat image.
    board = 1e-6 * (-1.0) ** torch.arange(900, dtype=torch.float64).reshape(1, 1, 30, 30)
    board = board * (-1.0) ** torch.arange(30, dtype=torch.float64)[:, None]
    flat = SmoothedTotalVariation((1, 30, 30), epsilon=0.05)
    assert float(flat.grad(board).norm() / board.norm()) > 0.9 * flat.lipschitz()


@pytest.mark.parametrize("coupled", [False, True])
def test_lagged_diffusivity_lies_above_and_touches(coupled):
    prior = SmoothedTotalVariation((2, 6, 5), epsilon=0.05, coupled=coupled)
    x = images((2, 6, 5))
    model = prior.majoriser(x)
    assert torch.allclose(model(x), prior.grad(x), atol=1e-12)
    assert torch.allclose(model.rows(torch.tensor([1]))(x[1:]), prior.grad(x)[1:], atol=1e-12)
    for seed in range(5):
        u = x + 0.3 * Key(seed).normal(x.shape, DOUBLE)
        above = prior.energy(x) + dot(model(x), u - x) + 0.5 * dot(u - x, model(u - x))
        assert bool((prior.energy(u) <= above + 1e-12).all())
    with pytest.raises(ShapeMismatch, match="diffusivities"):
        model(x[:1])
