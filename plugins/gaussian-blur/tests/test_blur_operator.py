import itertools
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
import torch
from preimage_gaussian_blur import GaussianBlur
from preimage_gaussian_blur.matrix import BOUNDARIES
from scipy import ndimage

from preimage import Basis, Key, load, operator_norm, power_iteration
from preimage.errors import BadParameter, PreimageError, ShapeMismatch
from preimage.testing import check_component, check_operator

SCIPY = {"symmetric": "reflect", "zero": "constant", "circular": "wrap", "mirror": "mirror", "replicate": "nearest"}
KERNELS = [(1, 1.0), (3, 0.7), (5, 1.0), (7, 1.3), (11, 5 / 3), (15, 2.0), (31, 4.0)]
SHAPES = [(40, 23), (23, 40), (12, 11), (13, 14), (6, 5), (2, 3), (1, 7), (1, 1)]


def images(*shape, seed=0):
    return Key(seed).child("images").normal(shape, like=torch.zeros((), dtype=torch.float64))


def dense_matrix(operator):
    """A as a matrix, from the images of all unit impulses."""
    pixels = operator.in_shape[0] * operator.in_shape[1] * operator.in_shape[2]
    impulses = torch.eye(pixels, dtype=torch.float64).reshape(pixels, *operator.in_shape)
    return operator(impulses).reshape(pixels, pixels).mT


def test_the_laws_of_operators():
    assert check_component("operator", "gaussian-blur") >= 5


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 12, 25), (1, 1, 9)])
def test_the_laws_for_images_around_the_size_of_the_kernel(boundary, shape):
    check_operator(GaussianBlur(shape, boundary=boundary))


def test_the_registry_finds_it():
    assert load("operator", "gaussian-blur") is GaussianBlur
    assert "gaussian-blur" in {point.name for point in entry_points(group="preimage")}


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_agrees_with_scipy(boundary):
    for (height, width), (size, sigma) in itertools.product(SHAPES, KERNELS):
        operator = GaussianBlur((2, height, width), size=size, sigma=sigma, boundary=boundary)
        x, kernel = images(3, 2, height, width), operator.kernel.numpy()
        expected = ndimage.correlate1d(x.numpy(), kernel, axis=-1, mode=SCIPY[boundary])
        expected = ndimage.correlate1d(expected, kernel, axis=-2, mode=SCIPY[boundary])
        gap = np.abs(operator(x).numpy() - expected).max()
        assert gap <= 1e-12, (height, width, size, sigma)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_agrees_with_a_two_dimensional_convolution_of_scipy(boundary):
    operator = GaussianBlur((1, 29, 22), boundary=boundary)
    x = images(1, 1, 29, 22)
    kernel = np.outer(operator.kernel.numpy(), operator.kernel.numpy())
    expected = ndimage.convolve(x[0, 0].numpy(), kernel, mode=SCIPY[boundary])
    assert np.abs(operator(x)[0, 0].numpy() - expected).max() <= 1e-12


def test_agrees_with_the_gaussian_filter_of_scipy():
    operator = GaussianBlur((1, 30, 41))
    x = images(1, 1, 30, 41)
    expected = ndimage.gaussian_filter(x[0, 0].numpy(), 5 / 3, mode="reflect", radius=5)
    assert np.abs(operator(x)[0, 0].numpy() - expected).max() <= 1e-12


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_adjoint_is_the_transposed_matrix(boundary):
    for (height, width), (size, sigma) in itertools.product([(9, 14), (14, 9), (13, 13), (3, 5)], KERNELS):
        operator = GaussianBlur((1, height, width), size=size, sigma=sigma, boundary=boundary)
        impulses = torch.eye(height * width, dtype=torch.float64).reshape(-1, 1, height, width)
        transposed = operator.adjoint(impulses).reshape(height * width, -1).mT
        assert torch.allclose(transposed, dense_matrix(operator).mT, rtol=0, atol=1e-15), (height, width, size)


def test_which_boundaries_are_self_adjoint():
    x = images(1, 1, 12, 15)
    gaps = {
        boundary: float((operator.adjoint(x) - operator(x)).abs().max())
        for boundary in BOUNDARIES
        for operator in [GaussianBlur((1, 12, 15), boundary=boundary)]
    }
    assert {boundary for boundary, gap in gaps.items() if gap == 0} == {"symmetric", "zero", "circular"}


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_constant_image_stays_unless_zeros_come_in(boundary):
    operator = GaussianBlur((1, 16, 20), boundary=boundary)
    y = operator(torch.full((1, 1, 16, 20), 0.7, dtype=torch.float64))
    stays = float((y - 0.7).abs().max()) < 1e-14
    assert stays == (boundary != "zero")


def test_the_kernel_is_the_sampled_gaussian():
    kernel = GaussianBlur((1, 16, 16)).kernel
    k = torch.arange(-5, 6, dtype=torch.float64)
    expected = torch.exp(-(k**2) / (2 * (5 / 3) ** 2))
    assert torch.allclose(kernel, expected / expected.sum(), rtol=1e-14, atol=0)
    assert GaussianBlur((1, 16, 16), sigma=1e-200).kernel.tolist() == [0] * 5 + [1] + [0] * 5
    assert torch.allclose(GaussianBlur((1, 16, 16), sigma=1e200).kernel, torch.full((11,), 1 / 11, dtype=torch.float64))


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("size", "sigma"), [(11, 5 / 3), (31, 6.0), (3, 50.0)])
def test_the_norm_bound_is_rigorous_and_tight(boundary, size, sigma):
    operator = GaussianBlur((1, 18, 13), size=size, sigma=sigma, boundary=boundary)
    exact = float(torch.linalg.matrix_norm(dense_matrix(operator), 2))
    assert exact * (1 - 1e-13) <= operator.norm_bound() <= exact * (1 + 1e-6)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_norm_bound_of_a_large_image(boundary):
    operator = GaussianBlur((1, 700, 8), size=21, sigma=4.0, boundary=boundary)
    column = GaussianBlur((1, 8, 700), size=21, sigma=4.0, boundary=boundary)
    assert operator.norm_bound() == pytest.approx(column.norm_bound(), rel=1e-14)
    found = float(power_iteration(operator, images(1, 1, 700, 8), steps=200)[0])
    assert found <= operator.norm_bound() <= found * (1 + 2e-3)


def test_the_norm_is_at_most_one_where_the_blur_averages():
    for boundary in ("symmetric", "zero", "circular"):
        operator = GaussianBlur((1, 600, 640), boundary=boundary)
        assert operator.norm_bound() <= 1
        assert float(operator_norm(operator, images(2, 1, 600, 640)).safe[0]) <= 1


@pytest.mark.parametrize(("boundary", "basis"), [("symmetric", Basis.COSINE), ("circular", Basis.FOURIER)])
@pytest.mark.parametrize("shape", [(2, 16, 16), (1, 15, 22), (1, 22, 15), (1, 4, 3)])
def test_the_closed_form_solves_the_normal_equations(boundary, basis, shape):
    operator = GaussianBlur(shape, boundary=boundary)
    diagonal = operator.normal_diagonal()
    assert diagonal is not None
    assert diagonal.basis is basis
    b, matrix = images(2, *shape), dense_matrix(GaussianBlur((1, *shape[1:]), boundary=boundary))
    expected = torch.linalg.solve(
        matrix.mT @ matrix + 1e-3 * torch.eye(len(matrix), dtype=b.dtype), b.flatten(2)[..., None]
    )
    solved = operator.solve_normal(b, 1e-3)
    assert torch.allclose(solved, expected[..., 0].reshape(b.shape), rtol=0, atol=1e-9 * float(expected.abs().max()))
    each = operator.solve_normal(b, torch.tensor([1e-3, 1e-1], dtype=torch.float64))
    assert torch.allclose(each[:1], solved[:1], rtol=1e-12)
    assert not torch.allclose(each[1:], solved[1:])


@pytest.mark.parametrize("boundary", ["zero", "mirror", "replicate"])
def test_no_closed_form_where_none_is_known(boundary):
    operator = GaussianBlur((1, 16, 16), boundary=boundary)
    assert operator.normal_diagonal() is None
    assert operator.solve_normal(images(1, 1, 16, 16), 0.1) is None


def test_channels_and_images_are_blurred_by_themselves():
    operator, single = GaussianBlur((3, 20, 17)), GaussianBlur((1, 20, 17))
    x = images(4, 3, 20, 17)
    assert torch.equal(operator(x).reshape(12, 1, 20, 17), single(x.reshape(12, 1, 20, 17)))


def test_an_empty_batch_and_strided_images():
    operator = GaussianBlur((3, 20, 17), boundary="mirror")
    assert operator(torch.zeros(0, 3, 20, 17)).shape == (0, 3, 20, 17)
    x = images(2, 20, 17, 3).permute(0, 3, 1, 2)
    assert torch.equal(operator(x), operator(x.contiguous()))
    assert torch.equal(operator.adjoint(x.flip(-1)), operator.adjoint(x.flip(-1).contiguous()))


BAD = [
    ({"size": 4}, "size is 4", "use 3 or 5"),
    ({"size": 0}, "size is 0", "use 1, 3 or 11"),
    ({"size": -3}, "size is -3", "use 1, 3 or 11"),
    ({"sigma": 0.0}, "sigma is 0.0", "size 1 for no blur"),
    ({"sigma": -1.0}, "sigma is -1.0", "size 1 for no blur"),
    ({"sigma": float("nan")}, "sigma is nan", "size 1 for no blur"),
    ({"sigma": float("inf")}, "sigma is inf", "size 1 for no blur"),
    ({"boundary": "reflect"}, "boundary is 'reflect'", "symmetric"),
]


@pytest.mark.parametrize(("parameters", "found", "remedy"), BAD)
def test_bad_parameters(parameters, found, remedy):
    with pytest.raises(BadParameter) as caught:
        GaussianBlur((1, 16, 16), **parameters)
    assert found in caught.value.found
    assert caught.value.expected
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("shape", [(16, 16), (16,), (1, 0, 16), (1, 1, 16, 16)])
def test_bad_shapes(shape):
    with pytest.raises(ShapeMismatch, match=r"images \(C, H, W\)"):
        GaussianBlur(shape)


def test_a_batch_of_another_shape_is_refused():
    operator = GaussianBlur((1, 16, 16))
    for call in (operator, operator.adjoint):
        with pytest.raises(PreimageError, match="add the batch axis"):
            call(torch.zeros(1, 16, 16))
        with pytest.raises(ShapeMismatch, match="of GaussianBlur has shape"):
            call(torch.zeros(2, 1, 16, 17))


def test_the_example_of_the_readme_names_parameters_that_exist():
    text = (Path(__file__).parents[1] / "README.md").read_text()
    table = tomllib.loads(text.split("```toml\n")[1].split("```")[0])["operator"]
    assert table.pop("name") == "gaussian-blur"
    GaussianBlur((1, 96, 96), **table)
