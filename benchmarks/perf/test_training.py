"""What the training loop costs beside the network's own work, and the U-Net's inference beside deepinv's.

The loop is timed from within: between two calls of its listener, one step lies. The bare steps, in turn with it, are
the same network, optimiser, clip and inputs in five lines of PyTorch; the average of weights is torch's own.
Checkpoints and validation are off, for they happen once a minute and once in hundreds of steps; the log is on, as in a
real run.
"""

import time
from dataclasses import replace

import pytest
import torch
from deepinv.models import UNet as PeerUNet
from lightning_fabric import Fabric
from preimage_networks.reconstruction import UNetSolver
from preimage_networks.unet import UNet
from preimage_train import Images, Reconstruction, Slice, Training, parse
from preimage_train.log import Log
from preimage_train.train import Reporter
from rich.console import Console
from torch.nn.functional import mse_loss
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.flop_counter import FlopCounterMode

from preimage import GaussianNoise, Identity, Key, Problem
from preimage.weights import save_weights

STEPS, ROUNDS = 4, 9
"""Steps timed in a row, and how often loop and bare steps take turns."""

RECIPE = {
    "model": {"name": "solver/unet", "preset": "small"},
    "data": {"name": "photographs", "size": 256, "count": 8},
    "batches": {"size": 8, "crop": 48, "turns": True},
    "validation": {"every": 10**9},
    "operator": {"name": "gaussian-blur"},
    "noise": {"name": "gaussian", "sigma": 0.025},
    "objective": {"name": "reconstruction"},
    "budget": {"steps": 10**6},
}


class Prepared(Reconstruction):
    """The same objective, whose inputs are always these."""

    def __init__(self, inputs):
        super().__init__()
        self.inputs = inputs

    def prepare(self, network, images, labels, key, forward):
        return self.inputs


class PreparedFeed:
    """A feed that costs nothing."""

    def __init__(self, feed):
        self.batch, self.shape = feed[0], feed.shape

    def __getitem__(self, step):
        return self.batch


class Clock:
    """A listener that passes everything on, and notes the CPU time after each step."""

    def __init__(self, reporter):
        self.reporter, self.times = reporter, []

    def stepped(self, position, losses, rate, norms):
        self.reporter.stepped(position, losses, rate, norms)
        self.times.append(time.process_time())

    def validated(self, position, scores, pictures, best):
        self.reporter.validated(position, scores, pictures, best)

    def said(self, text):
        self.reporter.said(text)


class Loop:
    """The real loop on a recipe, in slices of some steps."""

    def __init__(self, recipe, images, folder):
        folder.mkdir()
        self.clock = Clock(Reporter(None, Console(quiet=True), folder))
        self.training = Training(recipe, images, None, folder, Fabric(accelerator="cpu", devices=1), self.clock)
        self.clock.reporter.log = Log(folder, self.training.position)

    def seconds(self):
        """CPU seconds for each of STEPS steps; the first of a slice, which starts the data loader, is not counted."""
        last = self.training.position.step + STEPS + 1
        self.clock.times.clear()
        self.training.run(Slice(checkpoint_seconds=1e9, stop=lambda: self.training.position.step >= last))
        return (self.clock.times[-1] - self.clock.times[0]) / STEPS


class Bare:
    """Forward, backward, clip and step by hand, at the same rate."""

    def __init__(self, recipe, inputs):
        self.settings, self.inputs = recipe.optimiser, inputs
        self.network = recipe.network().to(memory_format=torch.channels_last).train()
        self.optimiser = torch.optim.Adam(
            self.network.parameters(), lr=self.settings.learning_rate, betas=self.settings.betas
        )
        decay = self.settings.average
        self.averaged = None
        if decay is not None:
            self.averaged = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)

    def step(self):
        given, wanted = self.inputs
        self.optimiser.zero_grad(set_to_none=True)
        mse_loss(self.network(given), wanted).backward()
        clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self.optimiser.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)

    def seconds(self):
        self.step()
        started = time.process_time()
        for _ in range(STEPS):
            self.step()
        return (time.process_time() - started) / STEPS


@pytest.mark.parametrize("average", [None, 0.999], ids=["weights", "averaged"])
@pytest.mark.parametrize("fresh", [False, True], ids=["loop", "input"])
def test_the_loop_beside_bare_steps(record_row, tmp_path, average, fresh):
    """Inputs prepared beforehand: what the loop costs. Drawn as always: that and the input, by the same process."""
    recipe = parse(RECIPE | {"optimiser": {} if average is None else {"average": average}})
    images = Images.of(recipe.datasets(recipe.data, "data"))
    loop = Loop(recipe, images, tmp_path / "drawn")
    batch, labels = loop.training.feed[0]
    key = recipe.key.child("train")
    inputs = recipe.objective.prepare(loop.training.network, batch, labels, key, loop.training.forward_model)
    inputs = tuple(t.contiguous(memory_format=torch.channels_last) for t in inputs)
    bare = Bare(recipe, inputs)
    if not fresh:
        prepared = Loop(replace(recipe, objective=Prepared(inputs)), images, tmp_path / "prepared")
        prepared.training.feed = PreparedFeed(prepared.training.feed)
        loop = prepared
    loop.seconds(), bare.seconds()
    pairs = []
    for index in range(ROUNDS):
        sides = [loop.seconds, bare.seconds]
        times = [side() for side in (sides if index % 2 else sides[::-1])]
        pairs.append(tuple(times) if index % 2 else tuple(times[::-1]))
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    what = "and its input" if fresh else "input prepared"
    extra = ", averaged" if average is not None else ""
    record_row(
        f"training step, U-Net small, 8 x 48², {what}{extra}",
        ours,
        ("forward, backward, clip, step by hand", theirs),
        1.10 if fresh else 1.03,
        note=f"{STEPS * ROUNDS} steps each" + ("; the goal is of the loop, without input" if fresh else ""),
    )


def test_preparing_the_input(record_row, tmp_path):
    """Crops, keys, symmetries, measurements: for one process to keep up, less than a step of the network."""
    recipe = parse(RECIPE)
    images = Images.of(recipe.datasets(recipe.data, "data"))
    training = Loop(recipe, images, tmp_path / "drawn").training
    key = recipe.key.child("train")

    def prepare(step):
        batch, labels = training.feed[step]
        return recipe.objective.prepare(training.network, batch, labels, key, training.forward_model)

    bare = Bare(recipe, tuple(t.contiguous(memory_format=torch.channels_last) for t in prepare(0)))
    ours, theirs = [], []
    for index in range(ROUNDS):
        theirs.append(bare.seconds())
        started = time.process_time()
        for step in range(STEPS):
            prepare(1 + index * STEPS + step)
        ours.append((time.process_time() - started) / STEPS)
    name = "preparing a step's input: 8 crops of 48², blurred, noise drawn"
    record_row(name, ours, ("forward, backward, clip, step by hand", theirs), 0.10, note=f"{STEPS * ROUNDS} steps each")


def multiply_adds(network, x):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(x)
    return counter.get_total_flops() // 2


def test_unet_inference(compare, tmp_path):
    """As the solver does it, weights from a file; deepinv's with five scales too, of widths for equal work."""
    shape, count = (1, 96, 96), 32
    network = UNet(preset="paper")
    save_weights(
        tmp_path / "unet.safetensors", network.state_dict(), component="solver/unet", config={"preset": "paper"},
        facts={},
    )  # fmt: skip
    solver = UNetSolver(weights=str(tmp_path / "unet.safetensors"), allow_mismatch=True)
    peer = PeerUNet(1, 1, channels_per_scale=[24 * 2**scale for scale in range(5)]).eval()
    x = Key(0).uniform((count, *shape))
    ours, theirs = multiply_adds(network.eval(), x), multiply_adds(peer, x)
    assert theirs == pytest.approx(ours, rel=0.05)
    problem = Problem(Identity(shape), x, GaussianNoise(sigma=0.025))
    with torch.no_grad():
        expected = network(x)
        assert torch.allclose(solver.invert(problem, ()), expected, atol=1e-5)
        compare(
            "U-Net paper, inference, 32 x 96²",
            lambda: solver.invert(problem, ()),
            ("deepinv's UNet, widths 24 to 384", lambda: peer(x)),
            1.0,
            rounds=5,
            note=f"{ours / 1e9 / count:.3g} and {theirs / 1e9 / count:.3g} billion multiply-adds an image",
        )
