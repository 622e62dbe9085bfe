"""The network: sizes, bounds, and that what it computes is what its docstring says."""

import math

import pytest
import torch
from preimage_iresnet.network import InvertibleResNet, ResidualBlock, apply, split_bounds
from preimage_iresnet.norms import grid_norm, seed_vector, torus_adjoint, torus_convolution, warm_norm
from preimage_iresnet.residual import Residual
from preimage_iresnet.terms import Terms

from preimage._tensors import directional_derivative
from preimage.errors import BadParameter


def network(**settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return InvertibleResNet(**({"blocks": 3, "channels": 4, "hidden": 6} | settings))


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(("preset", "count"), [("big", 4_263_700), ("small", 640_140), ("tiny", 160_332)])
def test_presets_have_the_published_numbers_of_parameters(preset, count):
    assert sum(p.numel() for p in InvertibleResNet(preset).parameters()) == count


@pytest.mark.parametrize("lipschitz", [0.5, 0.95, 0.999])
def test_equal_bounds_multiply_out(lipschitz):
    bounds = split_bounds(lipschitz, 12)
    assert len(set(bounds)) == 1
    assert math.isclose(math.prod(1 - bound for bound in bounds), 1 - lipschitz, rel_tol=1e-12)


def test_the_paper_s_bounds():
    assert round(split_bounds(0.999, 12)[0], 3) == 0.438
    assert round(split_bounds(0.999, 20)[0], 3) == 0.292


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"lipschitz": 1.0}, "lipschitz is 1.0"),
        ({"lipschitz": 0.0}, "lipschitz is 0.0"),
        ({"lipschitz": -0.5}, "lipschitz is -0.5"),
        ({"lipschitz": float("nan")}, "lipschitz is nan"),
        ({"lipschitz": 0.75, "split": [0.5, 0.5, 0.5]}, "the split stands for lipschitz = 0.875, not 0.75"),
        ({"lipschitz": 0.75, "split": [0.5, 0.5]}, "split is [0.5, 0.5]"),
        ({"lipschitz": 0.75, "split": [0.5, 0.5, 0.0]}, "split is [0.5, 0.5, 0.0]"),
        ({"image_channels": 3}, "channels is 4 for images of 3"),
        ({"blocks": 0}, "blocks is 0"),
    ],
)
def test_bad_arguments_are_named(settings, found):
    with pytest.raises(BadParameter) as caught:
        network(**settings)
    assert found in str(caught.value)


def test_any_split_is_allowed():
    bounds = network(lipschitz=0.75, split=[0.5, 0.2, 0.375]).bounds
    assert bounds == (0.5, 0.2, 0.375)


@pytest.mark.parametrize("terms", [Terms(0, 1), Terms(2, -1)])
def test_terms_that_make_no_sense(terms):
    with pytest.raises(BadParameter, match="forward >= 1, backward >= 0"):
        terms.checked()


def test_lift_copies_and_project_averages():
    phi = network(channels=6, image_channels=3)
    images = drawn(2, 3, 7, 9)
    states = phi.lift(images)
    assert states.shape == (2, 6, 7, 9)
    assert torch.equal(phi.project(states), images)
    states[:, :3] += 1
    torch.testing.assert_close(phi.project(states), images + 0.5)


def test_the_formula():
    """phi = phi_1 o phi_2 o phi_3, each Id - W2 shrink(W1 x + b1) - b2, from the definitions of convolution."""
    phi = network().double().eval()
    x = drawn(2, 4, 8, 6)
    wanted = x
    for f in reversed(phi.residuals()):
        wide = torch.nn.functional.conv2d(wanted, f.wide, f.wide_bias, padding=2)
        shrunk = wide.sign() * (wide.abs() - f.threshold).clamp_min(0)
        wanted = wanted - torch.einsum("mhij,bhyx->bmyx", f.narrow, shrunk) - f.narrow_bias[:, None, None]
    torch.testing.assert_close(apply(phi.residuals(), x), wanted)


def test_the_inverse_inverts():
    phi = network(lipschitz=0.9).double().eval()
    x = drawn(2, 4, 8, 6)
    residuals = phi.residuals()
    torch.testing.assert_close(phi.invert(residuals, apply(residuals, x), Terms(60, 0)), x, rtol=0, atol=1e-12)


def residual(dtype=torch.float64, scale=0.1):
    f = Residual(drawn(6, 4, 5, 5), drawn(6, seed=1), torch.tensor(0.3), drawn(4, 6, 1, 1, seed=2), drawn(4, seed=3))
    return Residual(scale * f.wide, 0.1 * f.wide_bias, f.threshold, scale * f.narrow, f.narrow_bias).to(dtype)


def test_derivatives_of_a_residual_are_those_of_autograd():
    f, x = residual(), drawn(2, 4, 7, 8, seed=5)
    v, w = drawn(2, 4, 7, 8, seed=6), drawn(2, 4, 7, 8, seed=7)
    features = f.features(x)
    torch.testing.assert_close(f.jvp(features, v), directional_derivative(f, x, v))
    torch.testing.assert_close(f.vjp(features, w), torch.func.vjp(f, x)[1](w)[0])

    def value(*tensors):
        return (Residual(*tensors)(x) * w).sum()

    wanted = torch.func.grad(value, argnums=(0, 1, 2, 3, 4))(*f)
    for found, expected in zip(f.weights_vjp(x, features, w), wanted, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("terms", [Terms(80, 80)])
def test_the_implicit_gradient_is_that_of_the_unrolled_iteration(terms):
    phi = network(lipschitz=0.9).double().eval()
    z, w = drawn(2, 4, 8, 6), drawn(2, 4, 8, 6, seed=4)
    tensors = [[t.detach().requires_grad_() for t in f] for f in phi.residuals()]
    leaves = [z.requires_grad_(), *(t for f in tensors for t in f)]

    def unrolled(z):
        for f in tensors:
            x = z
            for _ in range(terms.forward):
                x = z + Residual(*f)(x)
            z = x
        return z

    wanted = torch.autograd.grad((unrolled(z) * w).sum(), leaves)
    found = torch.autograd.grad((phi.invert([Residual(*f) for f in tensors], z, terms) * w).sum(), leaves)
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).norm() <= 1e-9 * b.norm()


def test_the_seed_finds_the_largest_mode():
    """On the torus the operator is diagonal in frequency, so its norm is known exactly."""
    kernel = drawn(6, 4, 5, 5)
    v = seed_vector(kernel)
    exact = grid_norm(kernel)
    for _ in range(3):
        estimate, v = warm_norm(kernel, v)
    assert 0.99 * exact <= estimate <= exact * (1 + 1e-12)


def test_the_torus_adjoint():
    kernel, v, u = drawn(6, 4, 5, 5), drawn(1, 4, 32, 32, seed=1), drawn(1, 6, 32, 32, seed=2)
    torch.testing.assert_close((torus_convolution(kernel, v) * u).sum(), (v * torus_adjoint(kernel, u)).sum())


def test_a_mode_that_overtakes_is_found():
    """The trap of warm starts: a vector that sits in one mode does not see another grow past it, until seeded anew."""
    block = ResidualBlock(1, 1).double()
    low = torch.ones(1, 1, 5, 5, dtype=torch.float64) / 25
    checkers = torch.tensor([[(-1.0) ** (i + j) for j in range(5)] for i in range(5)], dtype=torch.float64)[None, None]
    found = list[float]()
    for step in range(110):
        with torch.no_grad():
            block.wide.copy_(low + min(1.5, 0.02 * step) * checkers / 25)
            block.followed(0.5)
            found.append(float(warm_norm(block.wide, block.norm.vector)[0] / grid_norm(block.wide)))
    assert min(found[:100]) < 0.8
    assert min(found[100:]) > 0.99


def test_training_keeps_the_bounds_that_its_estimates_promise():
    phi = network().train().requires_grad_(False)
    for _ in range(3):
        residuals = phi.residuals()
    for f, bound in zip(residuals, phi.bounds, strict=True):
        lipschitz = float(grid_norm(f.wide) * torch.linalg.matrix_norm(f.narrow[:, :, 0, 0], 2))
        assert 0.98 * bound <= lipschitz <= 1.03 * bound


def test_training_ends_a_certificate():
    phi = network()
    phi.certified.fill_(True)
    assert torch.equal(phi.eval().residuals()[0].wide, phi.blocks[0].wide)
    phi.train().residuals()
    assert not phi.certified
