"""Sizes, formulas and shapes of the trained networks."""

import pytest
import torch
from preimage_networks.convresnet import ConvResNet
from preimage_networks.dcgan import GenerativeAdversarialNetwork
from preimage_networks.diffnet import DiffNet, diffusion_step
from preimage_networks.unet import UNet

from preimage import Key
from preimage.errors import BadParameter

NETWORKS = [ConvResNet, UNet, DiffNet]


def parameters(module):
    return sum(weight.numel() for weight in module.parameters())


def images(*shape, seed=0):
    return Key(seed).uniform(shape).double()


@pytest.mark.parametrize(
    ("network", "published"), [(ConvResNet, 4_263_873), (UNet, 5_468_705), (DiffNet, 101_310)], ids=lambda v: str(v)
)
def test_the_paper_preset_has_the_published_number_of_parameters(network, published):
    assert parameters(network("paper")) == published


def test_docstrings_name_the_sizes_of_the_small_presets():
    for network in (ConvResNet, UNet, DiffNet):
        assert f"{parameters(network('small')):,}" in (network.__doc__ or "")


def test_dcgan_has_the_standard_sizes():
    # Radford et al., figure 1, with 64 features, as counted for the reference implementation on 3 x 64 x 64 images.
    whole = GenerativeAdversarialNetwork("paper")
    assert parameters(whole.generator) == 3_576_704
    assert parameters(whole.discriminator) == 2_765_568
    z = Key(0).normal((2, 100))
    assert whole.eval()(z).shape == (2, 3, 64, 64)
    assert whole.discriminator(whole(z)).shape == (2,)
    low, high = whole(z).detach().aminmax()
    assert 0 <= float(low) <= float(high) <= 1


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("size", [(48, 48), (17, 33), (50, 31)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_of_image(network, size, channels):
    module = network("small", image_channels=channels).double().eval()
    x = images(2, channels, *size)
    assert module(x).shape == x.shape


@pytest.mark.parametrize("network", NETWORKS)
def test_images_of_a_batch_do_not_influence_each_other(network):
    module = network("small").double().eval()
    x = images(3, 1, 32, 32)
    alone = torch.cat([module(row[None]) for row in x])
    assert torch.allclose(module(x), alone, atol=1e-12)


def laplacian(u):
    """The heat equation's right-hand side, reflecting boundary, pixel by pixel."""
    result = torch.zeros_like(u)
    height, width = u.shape[-2:]
    for i in range(height):
        for j in range(width):
            for k, m in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if 0 <= k < height and 0 <= m < width:
                    result[..., i, j] += u[..., k, m] - u[..., i, j]
    return result


@pytest.mark.parametrize("variant", ["divergence", "symmetric"])
def test_the_stencil_of_the_heat_equation_gives_one_explicit_step_of_diffusion(variant):
    u = images(2, 1, 7, 9)
    stencil = torch.tensor([1.0, 1, 1, 1, 0]).double().reshape(1, 5, 1, 1).expand(2, 5, 7, 9)
    assert torch.allclose(diffusion_step(u, stencil, 0.2, variant), u + 0.2 * laplacian(u), atol=1e-12)


def test_the_free_stencil_needs_its_own_centre():
    u = images(1, 1, 6, 5)
    stencil = torch.tensor([1.0, 1, 1, 1, -4]).double().reshape(1, 5, 1, 1).expand(1, 5, 6, 5)
    inside = (..., slice(1, -1), slice(1, -1))
    assert torch.allclose(diffusion_step(u, stencil, 0.2, "free")[inside], (u + 0.2 * laplacian(u))[inside], atol=1e-12)


@pytest.mark.parametrize("variant", ["divergence", "symmetric", "free"])
def test_a_network_whose_stencils_are_the_heat_equation_s_is_diffusion(variant):
    network = DiffNet("small", steps=1, variant=variant).double()
    layer = network.layers[0]
    stencil = [1.0, 1, 1, 1, -4 if variant == "free" else 0]
    with torch.no_grad():
        layer.stencil[-1].weight.zero_()
        layer.stencil[-1].bias.copy_(torch.tensor(stencil))
        layer.step.fill_(0.2)
    u = images(1, 1, 12, 10)
    assert torch.allclose(network(u), u + 0.2 * laplacian(u), rtol=0, atol=1e-6)


def test_the_symmetric_stencil_keeps_the_mean_and_is_symmetric():
    stencil = images(1, 5, 6, 7, seed=1)
    stencil[:, 4] = 0

    def step(u):
        return diffusion_step(u, stencil, 0.1, "symmetric")

    u, v = images(1, 1, 6, 7, seed=2), images(1, 1, 6, 7, seed=3)
    assert torch.allclose(step(u).mean(), u.mean(), atol=1e-12)
    assert torch.allclose((step(u) * v).sum(), (u * step(v)).sum(), atol=1e-12)
    general = diffusion_step(u, stencil, 0.1, "divergence")
    assert not torch.allclose(general.mean(), u.mean(), atol=1e-6)


def test_diffnet_s_network_sees_one_neighbour_in_each_direction():
    stencil = torch.zeros(1, 5, 5, 5).double()
    for n, (row, column) in enumerate([(1, 2), (3, 2), (2, 1), (2, 3)]):
        stencil.zero_()[:, n, 2, 2] = 1.0
        u = torch.zeros(1, 1, 5, 5).double()
        u[..., row, column] = 1.0
        assert float(diffusion_step(u, stencil, 1.0, "free")[0, 0, 2, 2]) == 1.0


@pytest.mark.parametrize(
    ("network", "wrong"),
    [
        (ConvResNet, {"blocks": 0}),
        (ConvResNet, {"image_channels": 0}),
        (UNet, {"features": -1}),
        (DiffNet, {"steps": 0}),
        (GenerativeAdversarialNetwork, {"latent": 0}),
    ],
)
def test_sizes_must_be_positive(network, wrong):
    with pytest.raises(BadParameter, match=next(iter(wrong))):
        network(**wrong)
