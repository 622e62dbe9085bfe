"""What a training step of an invertible residual network costs beside an ordinary residual network of its size, and
beside the same step with many terms and power iterations from the beginning.

All sides take forward, backward, clip and Adam on 4 crops of 48 x 48 with 12 blocks of 32 and 64 channels. The long
step has 20 terms forward and 20 backward, differentiated implicitly as ours, and 10 power iterations for each block.
"""

import time

import pytest
import torch
from preimage_iresnet.network import InvertibleResNet
from preimage_iresnet.norms import GRID, torus_adjoint, torus_convolution
from preimage_iresnet.terms import Terms
from preimage_iresnet.training import InvertibleReconstruction
from preimage_networks.convresnet import ConvResNet
from torch.nn.functional import mse_loss
from torch.nn.utils import clip_grad_norm_

from preimage import Key

ROUNDS = 7

SIZES = {
    (2, 1): "4 x 48², 12 blocks of 32 and 64; 85 % of the steps of a recipe",
    (3, 2): "4 x 48², 12 blocks of 32 and 64; the last 15 %",
}


class ColdNorms(InvertibleResNet):
    """The same network, norms by 10 power iterations on an image of the crop's size from a random start."""

    def residuals(self):
        found = []
        for index, (block, bound) in enumerate(zip(self.blocks, self.bounds, strict=True)):
            v = Key(0).child("power", index).normal((1, self.channels, GRID, GRID))
            with torch.no_grad():
                for _ in range(10):
                    v = torus_adjoint(block.wide, torus_convolution(block.wide, v))
                    v = v / v.norm()
            found.append(block.divided(torus_convolution(block.wide, v).norm(), bound))
        return found


class Step:
    """Forward, backward, clip and step, again and again on one batch."""

    def __init__(self, network, loss, low):
        self.network = network.train().to(memory_format=torch.channels_last)
        self.loss, self.low = loss, low
        self.optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)

    def seconds(self):
        started = time.process_time()
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.low):
            loss = self.loss(self.network)
        loss.backward()
        clip_grad_norm_(self.network.parameters(), 0.2)
        self.optimiser.step()
        return time.process_time() - started


def batch():
    images = Key(0).uniform((4, 1, 48, 48))
    return images, images + 0.025 * Key(1).normal(images.shape)


def invertible(network, terms, low=False):
    images, measured = batch()
    objective = InvertibleReconstruction(terms=terms, final=0.0)
    return Step(network, lambda phi: objective.loss("network", phi, 0.0, measured, images, images), low)


def plain(low=False):
    images, measured = batch()
    network = ConvResNet("small", channels=32, hidden=64)
    return Step(network, lambda net: mse_loss(net(measured).float(), images), low)


def alternate(one, other):
    one.seconds(), other.seconds()
    pairs = []
    for index in range(ROUNDS):
        sides = (one, other) if index % 2 else (other, one)
        times = [side.seconds() for side in sides]
        pairs.append(times if index % 2 else times[::-1])
    return [a for a, _ in pairs], [b for _, b in pairs]


@pytest.mark.parametrize(
    ("terms", "low", "goal"), [((2, 1), False, 3.0), ((3, 2), False, 3.0), ((2, 1), True, 2.2), ((3, 2), True, 2.5)]
)
def test_a_step_beside_a_residual_network(record_row, terms, low, goal):
    if low and not torch.cpu.get_capabilities().get("amx_bf16"):
        pytest.skip("no instructions for products in bfloat16, which without them nobody computes in")
    ours, theirs = alternate(invertible(InvertibleResNet("small"), terms, low), plain(low))
    precision = "bfloat16" if low else "float32"
    name = f"iResNet small, training step, terms {terms[0]} and {terms[1]}, {precision}"
    record_row(name, ours, ("ConvResNet of the same size", theirs), goal, note=SIZES[terms])


def test_a_step_beside_many_terms(record_row):
    ours, theirs = alternate(
        invertible(InvertibleResNet("small"), Terms(2, 1)), invertible(ColdNorms("small"), Terms(20, 20))
    )
    name = "iResNet small, training step, terms 2 and 1, followed norms"
    record_row(name, ours, ("terms 20 and 20, 10 power iterations", theirs), 0.2, note="4 x 48², float32")
