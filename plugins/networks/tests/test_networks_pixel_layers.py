"""Layers with derivatives written out, against automatic differentiation of the plain formulas."""

import pytest
import torch
from preimage_networks.decoder_network import DecoderNetwork
from preimage_networks.deep_decoder import DeepDecoder
from preimage_networks.fitting import keep_freed_memory
from preimage_networks.hourglass_network import HourglassNetwork
from preimage_networks.per_image_layers import convolve, enlarge, normalise
from preimage_networks.pixel_layers import enlarge_pixels, mix_normalised, products
from torch.autograd import Function

from preimage import GaussianNoise, Identity, Key, Problem, solve

LIKE = torch.zeros((), dtype=torch.float64)
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def normal(key, *shape):
    return Key(key).normal(shape, like=LIKE)


def drawn(network, count, like=LIKE):
    weights = torch.stack([network.draw_weights(Key(i), like) for i in range(count)])
    weights = weights + 0.1 * Key(5).normal(weights.shape, like=like)
    return weights, torch.stack([network.draw_input(Key(7).child(i), like) for i in range(count)])


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("planar", [True, False])
def test_normalising_and_mixing_is_the_plain_formula(planar, outputs):
    x, mixing = 3 + normal(0, 2, 35, 5), normal(1, 2, outputs, 5)
    scale, shift, slope = normal(2, 2, 5), normal(3, 2, 5), normal(4, 2, outputs, 35)
    arguments = [t.requires_grad_() for t in (x.clone(), mixing.clone(), scale.clone(), shift.clone())]
    image = normalise(arguments[0].mT.unflatten(2, (5, 7)), arguments[2], arguments[3])
    expected = convolve(image, arguments[1][..., None, None]).flatten(2)
    y, pullback = mix_normalised(x, mixing, scale, shift, planar=planar)
    torch.testing.assert_close(y if planar else y.mT, expected.detach(), **EXACT)
    gradients = torch.autograd.grad(expected, arguments, slope)
    torch.testing.assert_close(pullback(slope), gradients, **EXACT)
    torch.testing.assert_close(pullback(slope.mT.contiguous().mT), gradients, **EXACT)


def test_normalising_a_nearly_constant_channel_loses_no_digits():
    x = (1000 + 0.1 * normal(0, 1, 400, 1)).float()
    one = torch.ones(1, 1)
    y, _ = mix_normalised(x, one[None], one, 0 * one, planar=True)
    x = x.double()
    expected = (x - x.mean(1)) / (x.var(1, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(y[0, 0].double(), expected[0, :, 0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("larger", [(10, 14), (9, 13), (5, 8)])
@pytest.mark.parametrize("count", [1, 3])
def test_interpolation_is_torchs(count, larger):
    x, slope = normal(0, count, 35, 3).requires_grad_(), normal(1, count, larger[0] * larger[1], 3)
    expected = enlarge(x.mT.unflatten(2, (5, 7)), larger).flatten(2).mT
    y, pullback = enlarge_pixels(x.detach(), (5, 7), larger)
    torch.testing.assert_close(y, expected.detach(), **EXACT)
    torch.testing.assert_close(pullback(slope), torch.autograd.grad(expected, x, slope)[0], **EXACT)


def test_products_are_products_and_add_in_place():
    left, right, start = normal(0, 3, 4, 5), normal(1, 3, 5, 2), normal(2, 3, 4, 2)
    expected = start + left @ right
    torch.testing.assert_close(products(left, right), left @ right)
    assert products(left, right, start) is start
    torch.testing.assert_close(start, expected)


NETWORKS = [
    DecoderNetwork((3, 64, 64), channels=32, layers=4),
    DecoderNetwork((1, 13, 18), channels=5, layers=1),
    DecoderNetwork((2, 9, 30), channels=1, layers=9),
    DecoderNetwork((1, 8, 8), channels=4, layers=0),
    HourglassNetwork((2, 12, 16), channels=4, scales=2, input_channels=3),
]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{type(n).__name__}{n.out_shape}")
@pytest.mark.parametrize("count", [1, 2])
def test_linearising_is_automatic_differentiation(network, count):
    weights, inputs = drawn(network, count)
    slope = normal(3, count, *network.out_shape)
    kept = weights.clone(), inputs.clone(), slope.clone()
    image, pullback = network.linearise(weights, inputs)
    assert not image.requires_grad
    gradient = pullback(slope)
    assert all(torch.equal(t, k) for t, k in zip((weights, inputs, slope), kept, strict=True))
    weights.requires_grad_()
    expected = network(weights, inputs)
    torch.testing.assert_close(image, expected.detach(), **EXACT)
    # Up to rounding of the largest: a scale and a shift that the next layer nearly undoes have next to no gradient.
    (expected,) = torch.autograd.grad(expected, weights, slope)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max()))


def test_the_written_gradient_is_that_of_finite_differences():
    network = DecoderNetwork((2, 8, 9), channels=3, layers=1)
    weights, inputs = drawn(network, 2)

    class Written(Function):
        @staticmethod
        def forward(ctx, weights):
            image, ctx.pullback = network.linearise(weights, inputs)
            return image

        @staticmethod
        def backward(ctx, slope):
            return ctx.pullback(slope)

    torch.autograd.gradcheck(Written.apply, (weights.requires_grad_(),))


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 16, 16), (3, 64, 64), (2, 24, 24)])
def test_networks_computed_together_have_the_bits_of_each_alone(shape):
    network, like = DecoderNetwork(shape, channels=32, layers=4), torch.zeros(())
    weights, inputs = drawn(network, 4, like)
    slope = Key(1).normal((4, *shape), like=like)
    assert network.rows_at_once(like) == 4
    image, pullback = network.linearise(weights, inputs)
    gradient = pullback(slope)
    for rows in (slice(0, 1), slice(1, 2), slice(2, 4), slice(1, 4)):
        part, pullback = network.linearise(weights[rows].clone(), inputs[rows].clone())
        assert torch.equal(part, image[rows])
        assert torch.equal(pullback(slope[rows].clone()), gradient[rows])


@pytest.mark.parametrize(("shape", "channels"), [((3, 13, 18), 32), ((3, 16, 16), 10)])
def test_where_bits_would_depend_on_the_batch_networks_are_computed_alone(shape, channels):
    assert DecoderNetwork(shape, channels=channels, layers=2).rows_at_once(torch.zeros(())) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_fit_of_several_groups_is_its_images_alone(dtype):
    x = (0.5 + 0.1 * normal(0, 6, 1, 16, 16)).to(dtype)
    problem = Problem(Identity((1, 16, 16)), x, GaussianNoise(sigma=0.1))
    solver, keys = DeepDecoder(max_steps=30, stopping="none"), Key(1).rows(6)
    together = solve(problem, solver, key=keys).x
    order = torch.tensor([5, 3, 0])
    assert torch.equal(solve(problem.rows(order), solver, key=[keys[i] for i in order.tolist()]).x, together[order])
    for index in range(6):
        assert torch.equal(solve(problem.rows(torch.tensor([index])), solver, key=[keys[index]]).x[0], together[index])


def test_freed_memory_is_kept_without_being_used():
    """The block is never written to, so that the process does not grow."""
    resource = pytest.importorskip("resource")
    keep_freed_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        keep_freed_memory()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 1000  # of the 79360 pages of ten blocks
