"""Derivatives of flows: every mode against automatic differentiation, to any order, and what they keep for it."""

import copy

import pytest
import torch
from preimage_glow import packed_signs
from preimage_glow.packed_signs import mask_by_signs, pack_signs
from preimage_glow.prior import GlowPrior

from preimage import Key

MODES = ("masks", "checkpointed", "reversible")
TINY = {"levels": 1, "last_steps": 2, "hidden": 6, "image_channels": 1}
SMALL = {"levels": 2, "steps": 2, "last_steps": 2, "hidden": 9}
DOUBLE = torch.zeros((), dtype=torch.float64)

# Forward mode compiles parts of itself on first use, and warns about its own use of torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")


def prior_of(flow, shape, gradient="masks", precision="full"):
    return GlowPrior.of(copy.deepcopy(flow).double(), shape, gradient=gradient, precision=precision)


def pulled(function, x, key=11):
    """The gradient of a random combination of both results."""
    x = x.clone().requires_grad_()
    value, log_determinant = function(x)
    weights = Key(key).normal(value.shape, value), Key(key + 1).normal(log_determinant.shape, value)
    return torch.autograd.grad((value * weights[0]).sum() + (log_determinant * weights[1]).sum(), x)[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        (SMALL, (3, 8, 12)),
        ({**SMALL, "image_channels": 1, "last_steps": 1}, (1, 12, 4)),
        ({**SMALL, "first_layer": "gaussian", "height": 8, "width": 8}, (3, 8, 8)),
    ],
)
def test_gradients_are_those_of_autograd(random_flow, arguments, shape, mode):
    flow = random_flow(**arguments)
    ours, plain = (prior_of(flow, shape, gradient) for gradient in (mode, "plain"))
    x = Key(1).uniform((2, *shape), DOUBLE)
    for direction in ("encode", "decode"):
        maps = [getattr(prior, f"{direction}_with_log_determinant") for prior in (ours, plain)]
        argument = x if direction == "encode" else plain.encode(x)
        a, b = (pulled(function, argument) for function in maps)
        assert float((a - b).norm() / b.norm()) <= 1e-10
        leaf = argument.clone().requires_grad_()
        for mine, other in zip(maps[0](leaf), maps[1](argument), strict=True):
            assert torch.allclose(mine, other, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_the_gradient_of_one_result_alone_and_under_autocast(random_flow, mode):
    ours, plain = (prior_of(random_flow(**SMALL), (3, 8, 8), gradient) for gradient in (mode, "plain"))
    z = Key(1).normal((2, *ours.latent_shape), DOUBLE).requires_grad_()
    for index in (0, 1):
        a, b = (torch.autograd.grad(p.decode_with_log_determinant(z)[index].sum(), z)[0] for p in (ours, plain))
        assert torch.allclose(a, b, atol=1e-10)
    none = z.detach()[:0].requires_grad_()
    assert torch.autograd.grad(ours.decode(none).sum(), none)[0].shape == none.shape
    single, y = GlowPrior.of(random_flow(**SMALL), (3, 8, 8), gradient=mode), z.detach().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        cast = torch.autograd.grad(single.decode(y).sum(), y)[0]
    assert torch.equal(cast, torch.autograd.grad(single.decode(y).sum(), y)[0])


@pytest.mark.parametrize("mode", MODES)
def test_transforms_of_torch_func(random_flow, mode):
    ours, plain = (prior_of(random_flow(**TINY), (1, 2, 4), gradient) for gradient in (mode, "plain"))
    z, v = (Key(seed).normal((2, 8), DOUBLE) for seed in (1, 2))
    jacobian = torch.func.jacrev(plain.decode)(z)
    assert torch.allclose(torch.func.jacrev(ours.decode)(z), jacobian, atol=1e-12)
    assert torch.allclose(torch.func.jacfwd(ours.decode)(z), jacobian, atol=1e-12)
    each = torch.func.vmap(torch.func.grad(lambda one: ours.decode(one[None]).square().sum()))(z)
    assert torch.allclose(each, torch.func.grad(lambda whole: plain.decode(whole).square().sum())(z), atol=1e-12)

    def energy(prior, z):
        return prior.energy(prior.decode(z)).sum() + prior.decode_with_log_determinant(z)[1].square().sum()

    curved = torch.func.hessian(lambda z: energy(plain, z))(z)
    assert torch.allclose(torch.func.hessian(lambda z: energy(ours, z))(z), curved, atol=1e-9)
    pushed = torch.func.jvp(torch.func.grad(lambda z: energy(ours, z)), (z,), (v,))[1]
    assert torch.allclose(pushed, (curved * v).sum((-2, -1)), atol=1e-9)
    assert torch.autograd.gradgradcheck(ours.decode, z[:1].clone().requires_grad_())


def kept(prior, count=1):
    """Bytes held for the gradient of decode, each storage once, without the buffers' and the argument's."""
    own = {buffer.untyped_storage().data_ptr() for buffer in prior.buffers()}
    found = {}
    z = Key(1).normal((count, *prior.latent_shape)).requires_grad_()
    own.add(z.untyped_storage().data_ptr())

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        prior.decode(z)
    return sum(size for size, _ in found.values())


def test_what_is_kept(random_flow):
    """For 8 x 8 x 3 values: a level of 12 channels on 16 pixels."""
    sizes = {}
    for steps in (2, 4):
        flow = random_flow(levels=1, last_steps=steps, hidden=64)
        for mode in (*MODES, "plain"):
            sizes[mode, steps] = kept(GlowPrior.of(flow, (3, 8, 8), gradient=mode))
    image, half = 3 * 64 * 4, 6 * 16 * 4
    for steps in (2, 4):
        assert sizes["reversible", steps] == image
        assert sizes["checkpointed", steps] == image + steps * half
        assert sizes["masks", steps] == image + steps * (2 * half + 2 * 64 * 16 // 8)
        assert sizes["plain", steps] >= 8 * sizes["masks", steps] - 8 * image


@pytest.mark.parametrize("shape", [(2, 3, 2, 4), (1, 5, 3, 1), (2, 8, 1, 1), (3, 1, 1, 1), (0, 4, 2, 2), (2, 7, 9, 3)])
def test_packed_signs(shape, monkeypatch):
    monkeypatch.setattr(packed_signs, "PIECE", 40)  # so that there are several pieces
    h, g = torch.relu(Key(3).normal(shape)), Key(4).normal(shape)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        packed = pack_signs(h.to(dtype))
        assert packed.shape == (shape[0], -(-shape[1] * shape[2] * shape[3] // 8))
        assert torch.equal(packed, pack_signs(h.to(dtype, memory_format=torch.channels_last)))
        for layout in (torch.contiguous_format, torch.channels_last):
            found = mask_by_signs(g.to(dtype, memory_format=layout, copy=True), packed)
            assert found.dtype == dtype
            assert torch.equal(found, g.to(dtype) * (h > 0))


def test_not_a_number_counts_as_active():
    h = torch.tensor([0.0, float("nan"), float("inf"), 1e-30]).reshape(1, 4, 1, 1)
    assert mask_by_signs(torch.ones_like(h), pack_signs(h)).flatten().tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("mode", [*MODES, "plain"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_an_image_that_goes_wrong_does_so_alone(random_flow, mode, bad):
    prior = GlowPrior.of(random_flow(**SMALL), (3, 8, 8), gradient=mode)
    z = Key(1).normal((3, *prior.latent_shape))
    x = Key(2).uniform((3, 3, 8, 8))
    for function, argument in ((prior.decode_with_log_determinant, z), (prior.encode_with_log_determinant, x)):
        spoilt = argument.clone()
        spoilt[1].view(-1)[5] = bad
        good = torch.tensor([0, 2])
        for a, b in zip(function(spoilt), function(argument), strict=True):
            assert torch.allclose(a[good], b[good], atol=1e-5)
        assert torch.allclose(pulled(function, spoilt)[good], pulled(function, argument)[good], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_networks_in_bfloat16(random_flow, mode):
    full, low = (prior_of(random_flow(**SMALL), (3, 8, 8), mode, precision) for precision in ("full", "bfloat16"))
    z = Key(1).normal((2, *full.latent_shape), DOUBLE)
    a, b = (pulled(prior.decode_with_log_determinant, z) for prior in (low, full))
    assert 1e-6 <= float((a - b).norm() / b.norm()) <= 0.1
    assert a.dtype == torch.float64
