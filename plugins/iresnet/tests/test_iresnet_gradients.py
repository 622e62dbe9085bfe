"""Derivatives of the inverse, by implicit differentiation, against those of unrolled iterations in float64."""

import gc
import weakref
from functools import partial

import pytest
import torch
from preimage_iresnet.implicit import Accuracy, decode
from preimage_iresnet.inverse import Block, invert as invert_to_tolerance
from preimage_iresnet.network import InvertibleResNet
from preimage_iresnet.residual import Residual
from preimage_iresnet.terms import Terms, invert_block
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from preimage import Key
from preimage.errors import PreimageError
from preimage.trained import restore
from preimage.weights import load_weights

# torch compiles parts of forward mode on first use, and warns about its own use of torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")

TIGHT = Accuracy(1e-13, False, 1e-13)
SHIPPED = "perona-malik-0.025"


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = InvertibleResNet(lipschitz=0.99, blocks=3, channels=4, hidden=6).eval()
    made.certify(Key(0).uniform((2, 1, 12, 12)))
    return made


def drawn(seed, channels=4, size=(7, 9), dtype=torch.float64):
    return Key(seed).normal((2, channels, *size)).to(dtype)


def unrolled(residuals, z, terms=60):
    for residual in residuals:
        f, x = residual.to(z), z
        for _ in range(terms):
            x = z + f(x)
        z = x
    return z


def double(network):
    """Blocks in float64, whose tensors are leaves."""
    blocks = Block.of(network)
    return [
        block.to(torch.float64)._replace(
            residual=Residual(*(t.detach().double().requires_grad_() for t in block.residual))
        )
        for block in blocks
    ]


def tensors_of(blocks):
    return [tensor for block in blocks for tensor in block.residual]


def gradients(function, blocks, z, weights):
    z = z.clone().requires_grad_()
    loss = weights(function(z)) if callable(weights) else (function(z) * weights).sum()
    return torch.autograd.grad(loss, [z, *tensors_of(blocks)])


def error(found, wanted):
    flat, true = (torch.cat([t.double().flatten() for t in each]) for each in (found, wanted))
    return float((flat - true).norm() / true.norm()), float(1 - torch.cosine_similarity(flat, true, dim=0))


@pytest.mark.parametrize("solve", ["implicit", "terms"])
def test_gradients_are_those_of_unrolled_iterations(network, solve):
    blocks, z, weights = double(network), drawn(1), drawn(2)
    residuals = [block.residual for block in blocks]
    wanted = gradients(partial(unrolled, residuals), blocks, z, weights)
    function = partial(decode, blocks, accuracy=TIGHT)
    if solve == "terms":
        function = partial(network.invert, residuals, terms=Terms(60, 60))
    found = gradients(function, blocks, z, weights)
    for one, other in zip(found, wanted, strict=True):
        assert float((one - other).norm()) <= 1e-9 * float(other.norm())


def test_float32_gradients_are_accurate_to_1e_5(network):
    blocks, z, weights = double(network), drawn(1), drawn(2)
    wanted = gradients(partial(unrolled, [block.residual for block in blocks]), blocks, z, weights)
    single = [
        b.to(torch.float32)._replace(residual=Residual(*(t.detach().float() for t in b.residual))) for b in blocks
    ]
    for tensor in tensors_of(single):
        tensor.requires_grad_()
    found = gradients(partial(decode, single, accuracy=Accuracy(1e-7, False, 1e-7)), single, z.float(), weights.float())
    assert error(found, wanted)[0] <= 1e-5


@pytest.mark.parametrize("certified", [False, True])
def test_the_rule_of_the_inverse_does_not_change_its_derivatives(network, certified):
    blocks, z, weights = double(network), drawn(1), drawn(2)
    found = gradients(partial(decode, blocks, accuracy=Accuracy(1e-10, certified, 1e-12)), blocks, z, weights)
    wanted = gradients(partial(unrolled, [block.residual for block in blocks]), blocks, z, weights)
    assert error(found, wanted)[0] <= 1e-8


def test_derivatives_are_as_accurate_as_asked_for(network):
    blocks, z, weights = double(network), drawn(1), drawn(2)
    wanted = gradients(partial(unrolled, [block.residual for block in blocks]), blocks, z, weights)
    errors = [
        error(gradients(partial(decode, blocks, accuracy=Accuracy(1e-13, False, t)), blocks, z, weights), wanted)[0]
        for t in (1e-1, 1e-3, 1e-6)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] <= 3e-1
    assert errors[1] <= 3e-3
    assert errors[2] <= 3e-6


def test_forward_mode_is_the_adjoint_of_reverse_mode(network):
    blocks, z, v, w = double(network), drawn(1), drawn(2), drawn(3)
    function = partial(decode, blocks, accuracy=TIGHT)
    value, pushed = (t.detach() for t in torch.func.jvp(function, (z,), (v,)))
    again, pullback = torch.func.vjp(function, z)
    assert torch.equal(value, again)
    assert abs(float((pushed * w).sum() - (v * pullback(w)[0].detach()).sum())) <= 1e-10 * float(v.norm() * w.norm())
    step = 1e-6
    difference = (function(z + step * v) - function(z - step * v)).detach() / (2 * step)
    assert float((difference - pushed).norm()) <= 1e-6 * float(pushed.norm())


def test_forward_mode_in_the_weights(network):
    blocks, z, w = double(network), drawn(1), drawn(3)
    tensors = tuple(t.detach() for t in tensors_of(blocks))
    changes = tuple(Key(9).child(str(i)).normal(t.shape).double() for i, t in enumerate(tensors))
    count = len(Residual._fields)

    def function(code, *values):
        own = [b._replace(residual=Residual(*values[count * i : count * (i + 1)])) for i, b in enumerate(blocks)]
        return decode(own, code, TIGHT)

    _, pushed = torch.func.jvp(function, (z, *tensors), (w, *changes))
    pulled = torch.func.vjp(function, z, *tensors)[1](w)
    both = sum(float((a * b).sum()) for a, b in zip(pulled, (w, *changes), strict=True))
    assert abs(float((pushed * w).sum()) - both) <= 1e-9 * abs(both)
    _, some = torch.func.jvp(lambda t: function(z, t, *tensors[1:]), (tensors[0],), (changes[0],))
    assert abs(float((some * w).sum() - (pulled[1] * changes[0]).sum())) <= 1e-9 * abs(both)


def test_jacobians_and_maps_over_images(network):
    blocks, z = double(network), drawn(1, size=(5, 5))
    function = partial(decode, blocks, accuracy=TIGHT)
    v = drawn(2, size=(5, 5))

    def corner(code):
        return function(code)[1, :2, 2, :2]

    rows = torch.func.jacrev(corner)(z)
    assert torch.allclose((rows * v).sum((-4, -3, -2, -1)), torch.func.jvp(corner, (z,), (v,))[1], atol=1e-10)
    columns = torch.func.jacfwd(lambda t: corner(z + t * v))(torch.zeros((), dtype=torch.float64))
    assert torch.allclose(columns, (rows * v).sum((-4, -3, -2, -1)), atol=1e-10)
    each = torch.func.vmap(lambda code: function(code[None])[0])(z)
    assert torch.allclose(each, function(z), atol=1e-11)


def test_the_second_derivative_is_refused(network):
    blocks, z = double(network), drawn(1).requires_grad_()
    (first,) = torch.autograd.grad(decode(blocks, z, TIGHT).square().sum(), z, create_graph=True)
    with pytest.raises(NotImplementedError, match="once, not twice"):
        torch.autograd.grad(first.sum(), tensors_of(blocks))


class Held(TorchDispatchMode):
    """The most bytes that tensors made under it held at once."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(out)[0]:
            if isinstance(tensor, torch.Tensor) and (place := tensor.untyped_storage()._cdata) not in self.known:
                storage = tensor.untyped_storage()
                self.known.add(place)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.release, place, storage.nbytes())
        return out

    def release(self, place, size):
        self.known.discard(place)
        self.now -= size


def peak(function, blocks, z):
    gc.collect()
    z = z.clone().requires_grad_()
    with Held() as held:
        torch.autograd.grad(function(z).square().sum(), [z, *tensors_of(blocks)])
    return held.peak


def slow_block(pace=0.8):
    """A block that contracts by about its bound on smooth images, so that accuracy takes many iterations."""
    wide = torch.full((2, 2, 5, 5), 1 / 50, dtype=torch.float64)
    narrow = torch.full((2, 2, 1, 1), 0.5 * pace, dtype=torch.float64)
    tensors = (wide, torch.zeros(2).double(), torch.tensor(0.01).double(), narrow, torch.zeros(2).double())
    start = torch.zeros(2, 2, 3, 3).double()
    return Block(Residual(*(t.requires_grad_() for t in tensors)), pace, start, torch.zeros(2).double())


def by_terms(residuals, z, terms):
    for residual in residuals:
        z = invert_block(z, residual, terms, z.dtype, z)
    return z


def test_peak_memory_does_not_depend_on_the_iterations():
    blocks, z = [slow_block(), slow_block()], torch.ones(1, 2, 24, 24, dtype=torch.float64)
    residuals = [block.residual for block in blocks]
    fixed = [peak(partial(by_terms, residuals, terms=Terms(n, n)), blocks, z) for n in (5, 50)]
    assert fixed[0] == fixed[1]
    accuracies = [Accuracy(2.0, False, 2.0), Accuracy(1e-5, False, 1e-5)]
    counts = [int(invert_to_tolerance(blocks, z, a.tolerance, certified=False).evaluations) for a in accuracies]
    assert counts[0] <= 2 * 8
    assert counts[1] >= 2 * 40
    implicit = [peak(partial(decode, blocks, accuracy=accuracy), blocks, z) for accuracy in accuracies]
    assert implicit[0] == implicit[1]
    through = [peak(partial(unrolled, residuals, terms=n), blocks, z) for n in (5, 50)]
    assert through[1] > 5 * through[0]  # the measure sees what unrolled iterations keep


def trained():
    try:
        return restore(load_weights(SHIPPED, "prior/iresnet"), InvertibleResNet)
    except PreimageError as problem:
        pytest.skip(f"no trained network: {problem.found}")


def test_gradients_by_terms_on_a_trained_network():
    """At the settings of training, whose error is then below the differences between batches."""
    made = trained()
    blocks = double(made)
    residuals = [block.residual for block in blocks]
    images = Key(4).uniform((2, 1, 6, 6)).repeat_interleave(4, 2).repeat_interleave(4, 3).double()
    y = made.lift(images + 0.025 * Key(5).normal(images.shape).double())

    def weights(x):
        return (made.project(x) - images).square().mean()

    wanted = gradients(partial(unrolled, residuals, terms=30), blocks, y, weights)
    few, more = (
        error(gradients(partial(made.invert, residuals, terms=terms), blocks, y, weights)[1:], wanted[1:])
        for terms in (Terms(3, 2), Terms(6, 5))
    )
    assert few[0] <= 0.15
    assert few[1] <= 1e-3
    assert more[0] < few[0]
    tight = gradients(partial(decode, blocks, accuracy=Accuracy(1e-9, False, 1e-9)), blocks, y, weights)
    assert error(tight[1:], wanted[1:])[0] <= 1e-5
