"""The flow: its density against dense Jacobians and integrals, its folded form, its Gaussian first layer."""

import copy
import math

import pytest
import torch
from preimage_glow.flow import PRESETS, Flow, level_shapes
from preimage_glow.folded import FoldedFlow
from preimage_glow.prior import GlowPrior
from preimage_glow.step import FlowStep

from preimage import Key
from preimage.errors import BadData, BadParameter, Incompatible, ShapeMismatch

SMALL = {"levels": 2, "steps": 2, "last_steps": 1, "hidden": 8}
CASES = [
    ({**SMALL}, (3, 8, 12)),
    ({**SMALL, "levels": 3, "last_steps": 1, "image_channels": 1}, (1, 16, 8)),
    ({**SMALL, "first_layer": "gaussian", "height": 8, "width": 12}, (3, 8, 12)),
]


def double(flow):
    return copy.deepcopy(flow).double()


def normal_log_density(z):
    return -0.5 * z.square().sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)


@pytest.mark.parametrize(("arguments", "shape"), CASES)
def test_folding_changes_nothing(random_flow, arguments, shape):
    flow = double(random_flow(**arguments))
    folded, x = FoldedFlow(flow), Key(1).uniform((2, *shape), torch.zeros(()).double())
    z, log_determinant = flow.encode(x)
    for a, b in zip(folded.encode(x), (z, log_determinant), strict=True):
        assert torch.allclose(a, b, atol=1e-10, rtol=1e-12)
    for a, b in zip(folded.decode(z, *shape[1:]), flow.decode(z, *shape[1:]), strict=True):
        assert torch.allclose(a, b, atol=1e-10, rtol=1e-12)
    assert not list(folded.parameters())
    assert torch.equal(flow.log_density(x), normal_log_density(z) + log_determinant)


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ({"levels": 1, "last_steps": 2, "hidden": 6}, (3, 2, 4)),
        ({"levels": 2, "steps": 2, "hidden": 6, "image_channels": 1}, (1, 4, 8)),
        ({"levels": 1, "last_steps": 2, "hidden": 6, "first_layer": "gaussian", "height": 4, "width": 2}, (3, 4, 2)),
    ],
)
def test_log_determinants_against_dense_jacobians(random_flow, arguments, shape):
    flow = double(random_flow(**arguments))
    prior = GlowPrior.of(flow, shape, gradient="plain")
    x = Key(2).uniform((1, *shape), torch.zeros(()).double())
    n = x.numel()
    z, log_determinant = prior.encode_with_log_determinant(x)
    forward = torch.func.jacrev(lambda u: flow.encode(u)[0])(x).reshape(n, n)
    back = torch.func.jacrev(prior.decode)(z).reshape(n, n)
    assert abs(float(torch.linalg.slogdet(forward)[1] - log_determinant)) <= 1e-8
    assert abs(float(torch.linalg.slogdet(back)[1] - prior.decode_with_log_determinant(z)[1])) <= 1e-8
    expected = normal_log_density(z) + torch.linalg.slogdet(forward)[1]
    assert abs(float(prior.log_density(x) - expected)) <= 1e-8
    assert torch.equal(prior.energy(x), -prior.log_density(x))
    identity = torch.eye(n, dtype=x.dtype)
    assert torch.allclose(forward @ back, identity, atol=1e-9)


def test_the_density_of_two_values_integrates_to_one():
    """The least flow there is, a step on one pixel of two channels, over the plane by the trapezoidal rule."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        step = FlowStep(2, 16, 1.0).double().requires_grad_(False)
        for tensor in step.parameters():
            tensor.add_(0.3 * torch.randn_like(tensor))
    axis = torch.linspace(-20, 20, 401, dtype=torch.float64)
    u = torch.cartesian_prod(axis, axis)
    v, log_determinant = step.encode(u[:, :, None, None])
    density = (normal_log_density(v.flatten(1)) + log_determinant).exp()
    assert float(step.network(torch.linspace(-2, 2, 9).double()[:, None, None, None])[0].std()) > 0.05
    assert float(density.sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1, abs=1e-4)


def test_the_density_of_four_pixels_integrates_to_one(random_flow):
    """A whole flow on grey images of 2 x 2, by importance sampling from a wide normal distribution."""
    flow = double(random_flow(levels=1, last_steps=3, hidden=8, image_channels=1, strength=1.0))
    prior = GlowPrior.of(flow, (1, 2, 2))
    drawn = prior.sample(2000, Key(4), torch.zeros(()).double()).flatten(1)
    mean, deviation = drawn.mean(0), 1.5 * drawn.std(0)
    w = Key(5).normal((40000, 4), drawn)
    x = (mean + deviation * w).reshape(-1, 1, 2, 2)
    ratio = (prior.log_density(x) - normal_log_density(w) + deviation.log().sum()).exp()
    error = float(ratio.std() / len(ratio) ** 0.5)
    assert error <= 0.02
    assert abs(float(ratio.mean()) - 1) <= 4 * error


def test_a_new_flow_with_a_gaussian_first_layer_is_that_gaussian():
    colours, size = 2, (4, 4)
    rough = Key(6).normal((300, colours, *size)).double()
    images = 0.5 + 0.1 * (rough + rough.roll(1, 3) + 0.5 * rough.flip(1))
    with torch.random.fork_rng():
        flow = Flow(
            levels=1, last_steps=2, hidden=4, image_channels=2, first_layer="gaussian", height=4, width=4
        ).double()
    assert flow.examples_wanted > 300
    flow.first.fit(images)
    with torch.no_grad():
        for step in flow.steps()[0]:  # random rotations are orthogonal in single precision only
            step.mixing.copy_(torch.eye(8))
    n = colours * 16
    k, j = torch.arange(4.0, dtype=torch.float64)[:, None], torch.arange(4.0, dtype=torch.float64)
    cosine = torch.cos(math.pi * k * (j + 0.5) / 4) * torch.where(k > 0, 0.5, 0.25).double().sqrt()
    basis = torch.einsum("ka,lb,cd->cklabd", cosine, cosine, torch.eye(2).double())  # (C, k, l, rows, columns, C)
    basis = basis.permute(0, 1, 2, 5, 3, 4).reshape(n, n)
    c = ((images - images.mean(0)).flatten(1) @ basis.mT).reshape(-1, colours, 16)
    covariance = torch.zeros(n, n).double().reshape(colours, 16, colours, 16)
    for f in range(16):
        covariance[:, f, :, f] = torch.cov(c[:, :, f].mT) + 0.25 / 255**2 * torch.eye(2)
    dense = basis.mT @ covariance.reshape(n, n) @ basis
    gaussian = torch.distributions.MultivariateNormal(images.mean(0).flatten(), (dense + dense.mT) / 2)
    assert torch.allclose(flow.log_density(images[:5]), gaussian.log_prob(images[:5].flatten(1)), rtol=1e-9)
    z, log_determinant = flow.encode(images[:5])
    x, back = flow.decode(z, 4, 4)
    assert torch.allclose(x, images[:5], atol=1e-12)
    assert torch.allclose(back, -log_determinant)


def test_initialise_fits_the_first_layer_to_all_examples_and_norms_to_some():
    images = Key(7).uniform((40, 1, 4, 4))
    with torch.random.fork_rng():
        flow = Flow(levels=1, last_steps=1, hidden=4, image_channels=1, first_layer="gaussian", height=4, width=4)
    flow.initialise(images)
    assert torch.allclose(flow.first.mean, images.mean(0), atol=1e-6)
    z = flow.encode(images[:16])[0].reshape(16, 4, 4)
    mixed = torch.linalg.solve(flow.steps()[0][0].mixing, z.permute(1, 0, 2).flatten(1))
    deviation, mean = torch.std_mean(mixed, 1)
    assert torch.allclose(mean, torch.zeros(4), atol=1e-5)
    assert torch.allclose(deviation, torch.ones(4), atol=1e-5)
    with pytest.raises(BadData, match="fitted to 1 images"):
        flow.first.fit(images[:1])


def test_presets():
    counts = {"small": 24, "medium": 72, "paper": 145}
    with torch.random.fork_rng():
        for preset, count in counts.items():
            flow = Flow(preset, hidden=1)
            assert sum(map(len, flow.steps())) == count
            assert len(flow.steps()) == PRESETS[preset].levels
    assert [len(steps) for steps in flow.steps()] == [48, 48, 48, 1]
    assert Flow("small", levels=1, last_steps=1, hidden=2).shapes(64, 64) == [(12, 32, 32)]
    assert level_shapes(3, 4, 64, 32) == [(6, 32, 16), (12, 16, 8), (24, 8, 4), (96, 4, 2)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 0}, "levels is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"hidden": -1}, "hidden is -1"),
        ({"image_channels": 0}, "image_channels is 0"),
        ({"bound": 0.0}, "bound is 0"),
        ({"bound": float("nan")}, "bound is nan"),
        ({"first_layer": "wavelet"}, "first_layer is 'wavelet'"),
        ({"first_layer": "gaussian"}, "height is None, width None"),
        ({"height": 8, "width": 8}, "without a Gaussian first layer"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(BadParameter, match=message):
        Flow(**{"levels": 1, "steps": 1, "last_steps": 1, "hidden": 1, **arguments})


def test_sizes_that_do_not_fit(random_flow):
    flow = random_flow(**SMALL)
    for size, near in (((10, 8), "8 x 8"), ((8, 7), "8 x 8"), ((2, 8), "4 x 8"), ((0, 8), "4 x 8")):
        with pytest.raises(ShapeMismatch, match=f"crop or resize to {near}"):
            flow.shapes(*size)
    fixed = random_flow(**CASES[2][0])
    with pytest.raises(ShapeMismatch, match="Gaussian first layer for 8 x 12"):
        fixed.shapes(16, 16)
    with pytest.raises(ShapeMismatch, match="each of 2 levels halves the size"):
        Flow(**SMALL, first_layer="gaussian", height=6, width=8)


@pytest.mark.parametrize("wrong", ["singular", "huge", "not finite"])
def test_weights_without_an_inverse_are_refused(random_flow, wrong):
    flow = copy.deepcopy(random_flow(**SMALL))
    step = flow.steps()[1][0]
    if wrong == "singular":
        step.mixing[1] = step.mixing[0]
    else:
        step.log_scale.fill_(1e4 if wrong == "huge" else float("nan"))
    with pytest.raises(Incompatible, match="step 1 of level 2 overflows, or is not invertible"):
        FoldedFlow(flow)
