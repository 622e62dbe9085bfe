"""States with structure, at which bounds may be tight: waves, edges, checkerboards, constants, photographs."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from preimage import Key

from .network import InvertibleResNet

KINDS = ("noise", "plane wave", "constant", "checkerboard", "edge", "photograph")


class Waves(NamedTuple):
    """Re(e^{ia} v e^{i theta.p}) at the pixels p: plane waves of frequency theta, vector v in C^M, any phase a."""

    frequency: tuple[float, float]
    vector: Tensor

    def images(self, count: int, shape: tuple[int, int], key: Key) -> Tensor:
        """Waves of random phases, (count, M, h, w)."""
        rows, columns = (torch.arange(n, dtype=torch.float64) * t for n, t in zip(shape, self.frequency, strict=True))
        phases = key.uniform((count,), rows)[:, None, None] * 2 * math.pi
        angles = (rows[:, None] + columns + phases)[:, None]
        waves = torch.polar(torch.ones_like(angles), angles)
        return (waves * self.vector[:, None, None]).real


def crops(photographs: Tensor, count: int, shape: tuple[int, int], key: Key) -> Tensor:
    """Random crops of random photographs, repeated where they are too small: (count, C, h, w)."""
    repeats = [math.ceil(wanted / there) for wanted, there in zip(shape, photographs.shape[-2:], strict=True)]
    draws, found = key.uniform((count, 3), photographs), list[Tensor]()
    for which, top, left in draws.tolist():
        image = photographs[int(which * len(photographs))].repeat(1, *repeats)
        row, column = (int(t * (n - w + 1)) for t, n, w in zip((top, left), image.shape[1:], shape, strict=True))
        found.append(image[:, row : row + shape[0], column : column + shape[1]])
    return torch.stack(found)


def differences(
    count: int,
    network: InvertibleResNet,
    shape: tuple[int, int],
    waves: Sequence[Waves],
    photographs: Tensor,
    key: Key,
) -> tuple[Tensor, list[str]]:
    """Differences of states of the kinds in turn, (count, M, h, w) with root mean square 1, and their names."""
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")
    start = int(key.child("kind").generator().integers(len(KINDS)))
    found, names = list[Tensor](), list[str]()
    for index, own in enumerate(key.rows(count)):
        kind = KINDS[(start + index) % len(KINDS)]
        vector = own.child("vector").normal((network.channels, 1, 1), rows)
        draw = own.generator()
        if kind == "noise":
            change = own.normal((network.channels, *shape), rows)
        elif kind == "plane wave":
            change = waves[int(draw.integers(len(waves)))].images(1, shape, own)[0]
        elif kind == "constant":
            change = vector.expand(-1, *shape)
        elif kind == "checkerboard":
            change = vector * (-1) ** (rows + columns)
        elif kind == "edge":
            angle = draw.uniform(0, 2 * math.pi)
            along = (rows - shape[0] / 2) * math.cos(angle) + (columns - shape[1] / 2) * math.sin(angle)
            change = vector * (along >= 0)
        else:
            change = network.lift(crops(photographs, 1, shape, own))[0]
        found.append(change / change.square().mean().sqrt().clamp_min(1e-12))
        names.append(kind)
    return torch.stack(found), names
