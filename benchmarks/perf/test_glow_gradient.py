"""One gradient in the latent of a flow of 145 steps: CPU time and memory of each way to compute it, in one run.

K = 48, L = 4, networks of 512 features, random weights, one image of 64 x 64 x 3, squared error to another image. The
peers: plain automatic differentiation with frozen weights, and with weights that require gradients, as the public code
of Asim et al. (2020) does it. All have the same folded network and memory layout.

Memory is the rise of the peak resident size over what is held before, weights included, in a process that does nothing
else.
"""

import subprocess
import sys
import time
from functools import cache

import pytest
import torch
from preimage_compare._memory import PeakMemory
from preimage_glow.flow import Flow
from preimage_glow.prior import GlowPrior

from preimage import Key

SHAPE, ROUNDS = (3, 64, 64), 3
OURS = ("masks", "checkpointed", "reversible")


def network(preset="paper"):
    """Random weights, the last layers of the coupling networks too, scaled so that 145 steps keep variances."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = Flow(preset).eval().requires_grad_(False)
        for steps in flow.steps():
            for step in steps:
                step.network.last.weight.normal_(0, 0.01 / step.network.last.weight.shape[1] ** 0.5)
        flow.initialise(Key(0).uniform((8, 3, 16, 16)))
    return flow


@cache
def paper():
    return network()


def prior(way, flow, precision="full"):
    frozen = way != "require gradients"
    made = GlowPrior.of(flow, SHAPE, gradient=way if frozen else "plain", precision=precision)
    if not frozen:
        for tensor in made.buffers():
            tensor.requires_grad_()
    return made


def gradient(made):
    z = Key(1).normal((1, *made.latent_shape)).requires_grad_()
    weights = list(made.buffers()) if any(b.requires_grad for b in made.buffers()) else []
    loss = (made.decode(z) - 0.5).square().sum()
    return torch.autograd.grad(loss, [z, *weights], allow_unused=True)[0]


def seconds(work):
    started = time.process_time()
    work()
    return time.process_time() - started


def megabytes(ways):
    """Of a gradient each, in a process of their own."""
    done = subprocess.run([sys.executable, __file__, *ways], capture_output=True, text=True, check=True)
    return {way: int(peak) / 2**20 for way, peak in zip(ways, done.stdout.split(), strict=True)}


def interleaved(works, rounds=ROUNDS):
    for work in works.values():
        work()
    found = {name: [] for name in works}
    for index in range(rounds):
        for name in list(works)[:: 1 if index % 2 else -1]:
            found[name].append(seconds(works[name]))
    return found


@pytest.fixture(scope="module")
def measured():
    priors = {way: prior(way, paper()) for way in ("require gradients", "plain", *OURS)}
    reference = gradient(priors["plain"])
    for way in OURS:
        gap = (gradient(priors[way]) - reference).norm() / reference.norm()
        assert float(gap) <= 1e-3, way
    times = interleaved({way: lambda made=made: gradient(made) for way, made in priors.items()})
    return times, megabytes([*OURS, "plain", "require gradients"])


# The goals of a latent gradient. The default, "masks", meets all three; the others save more memory, and what computes
# every network twice costs as much time as gradients of the weights.
TIME = {"plain": 1.6, "require gradients": 0.9}
MEMORY = 0.1


@pytest.mark.parametrize("way", OURS)
@pytest.mark.parametrize("peer", ["plain", "require gradients"])
def test_a_latent_gradient(way, peer, measured, record_row):
    times, memory = measured
    label = {"plain": "autograd, frozen", "require gradients": "autograd, weights require gradients"}[peer]
    note = f"{memory[way]:.0f} against {memory[peer]:.0f} MB beyond the weights"
    record_row(
        f'Glow, 145 steps, latent gradient, "{way}"',
        times[way],
        (label, times[peer]),
        TIME[peer],
        guard=None if way == "masks" else 1.5 * TIME[peer],
        note=note,
    )
    if peer == "plain":
        assert memory[way] <= MEMORY * memory[peer]


@pytest.mark.skipif(
    not torch.cpu.get_capabilities().get("amx_bf16"),
    reason="no instructions for products in bfloat16; without them it takes 2.7 times as long as float32, not half",
)
@pytest.mark.parametrize("images", [1, 4])
def test_bfloat16_networks_decode(images, record_row):
    full, low = (prior("masks", paper(), precision) for precision in ("full", "bfloat16"))
    z = Key(1).normal((images, *full.latent_shape))
    with torch.no_grad():
        times = interleaved({"low": lambda: low.decode(z), "full": lambda: full.decode(z)}, 3)
        x = full.decode(z)
        image = float((low.decode(z) - x).abs().max())
        trip = float((low.decode(low.encode(x)) - x).abs().max())
    note = f"images differ by at most {image:.1g}, round trip by {trip:.1g}"
    record_row(
        f"Glow, 145 steps, decode, images: {images}, networks in bfloat16",
        times["low"],
        ("float32", times["full"]),
        1 / 1.8,
        note=note,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    flow = network()
    for way in sys.argv[1:]:
        made = prior(way, flow)
        with torch.no_grad():
            made.decode(torch.zeros(1, *made.latent_shape))  # what libraries set up once
        memory = PeakMemory(torch.device("cpu"))
        gradient(made)
        print(memory.read()["cpu"])
        del made
