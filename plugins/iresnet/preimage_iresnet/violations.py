"""A search for pairs of images that break the bounds of an invertible residual network, in float64."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from preimage import Key

from .certificate import BlockNorms
from .convolution import convolve
from .network import InvertibleResNet, apply
from .residual import Residual
from .structured_images import crops, differences
from .true_norms import worst_wave

SIZES: Mapping[int, float] = {16: 34, 24: 20, 32: 16, 48: 11, 64: 9, 96: 6, 128: 2, 256: 0.7, 512: 0.2}
"""Sides of images, with the share of the groups of pairs that have them."""

ROUNDING = 1e-9
"""By how much a ratio may be above its bound for rounding: the pairs differ by at least 1e-4 of their size."""

_CLIMBERS = 4
_GROUP = 4
_LARGE = 256
_TERMS = 8
_FLOAT64_STEP = 1e-15


@dataclass
class Tally:
    """What was found for one kind of bound: `checks`, pairs looked at; `largest`, the largest ratio to the bound and
    `where` it was; `violations`, how many were above 1."""

    checks: int = 0
    largest: float = 0.0
    where: str = ""
    violations: int = 0

    def add(self, ratios: Tensor, where: str) -> None:
        """Count ratios of expansions to their bound, one for each pair."""
        self.checks += len(ratios)
        self.violations += int((~(ratios <= 1 + ROUNDING)).sum())
        if float(ratios.max()) > self.largest:
            self.largest, self.where = float(ratios.max()), where


@dataclass
class Findings:
    """The tallies of Lip(f_i) <= L_i and Lip(phi^-1) <= 1 / (1 - L), which the checks are counted by, and besides of
    ||W1_i|| and ||W2_i||, as the certificate has them."""

    residuals: Tally = field(default_factory=Tally)
    inverse: Tally = field(default_factory=Tally)
    wide: Tally = field(default_factory=Tally)
    narrow: Tally = field(default_factory=Tally)

    @property
    def checks(self) -> int:
        return self.residuals.checks + self.inverse.checks

    @property
    def violations(self) -> int:
        return sum(t.violations for t in (self.residuals, self.inverse, self.wide, self.narrow))


class Search:
    """Looks for violations of the bounds of a network, whose weights are taken as they are.

    - `norms`: the certified bounds of each block. `photographs`: (B, C, h, w), images to look at.
    - `findings`: what was found so far.

    Pairs x, x' and their phi(x), phi(x') are at once pairs of phi^-1, so that one passage through the network checks
    every f_i at states that occur, and the inverse. Where to look is computed in float32, what is found in float64.
    """

    def __init__(self, network: InvertibleResNet, norms: Sequence[BlockNorms], photographs: Tensor, key: Key):
        self.network, self.norms, self.key, self.findings = network, norms, key, Findings()
        with torch.no_grad():
            self.residuals = [residual.to(torch.float64) for residual in network.residuals()]
            self.single = [residual.to(torch.float32) for residual in self.residuals]
        self.waves = [worst_wave(residual.wide) for residual in self.residuals]
        self.photographs = photographs.double()

    def run(
        self, checks: int, sizes: Mapping[int, float] = SIZES, progress: Callable[[int], None] = lambda done: None
    ) -> Findings:
        """At least so many checks: 20% along the ascent on the expansion of each f_i, 20% along that of phi^-1, 60% in
        passages of random and structured pairs; besides, every factor, and inverses computed from their images."""
        self.factors([size for size in (16, 48, 96) if size <= max(sizes)])
        progress(self.findings.checks)
        blocks = len(self.residuals)
        steps = max(2, math.ceil(0.2 * checks / _CLIMBERS / blocks))
        for index in range(blocks):
            self.climb_residual(index, steps)
            progress(self.findings.checks)
        self.climb_inverse(max(2, math.ceil(0.2 * checks / _CLIMBERS / (blocks + 1))))
        progress(self.findings.checks)
        self.inverses()
        each = {size: _GROUP if size <= _LARGE else 2 for size in sizes}
        pairs = {size: share * math.comb(each[size], 2) for size, share in sizes.items()}
        wanted = (checks - self.findings.checks) / (blocks + 1) / sum(pairs.values())
        for size, share in sizes.items():
            for number in range(math.ceil(wanted * share)):
                self.passage(size, each[size], number)
                progress(self.findings.checks)
        return self.findings

    @torch.no_grad()
    def passage(self, size: int, count: int, number: int = 0) -> None:
        """A state and count - 1 others that differ from it by random and structured images, all pairs of them, through
        phi; about half of the passages are not square."""
        key = self.key.child("passage", size, number)
        shape = (size, size) if key.generator().random() < 0.5 else (size, max(16, size * 3 // 4 + 1))
        base, amplitude = self._bases(count, shape, key)
        change, names = differences(count, self.network, shape, self.waves, self.photographs, key.child("change"))
        states = base[:1] + change * amplitude
        states[0] = base[0]
        self._pass(states[None], f"{'/'.join(sorted(set(names[1:])))}, {shape[0]} x {shape[1]}")

    def _pass(self, states: Tensor, what: str) -> None:
        """All pairs within each group of states, (groups, states, M, h, w), through phi."""
        count, tally = states.shape[1], self.findings
        x = states.flatten(0, 1)
        first = before = _apart(x, count)
        for index in reversed(range(len(self.residuals))):
            residual, own = self.residuals[index], self.norms[index]
            features = residual.features(x)
            fx = torch.nn.functional.conv2d(features, residual.narrow, residual.narrow_bias)
            outer, inner = _apart(fx, count), _apart(features, count)
            tally.residuals.add(outer / before / self.network.bounds[index], f"block {index + 1}, {what}")
            seen = inner > 1e-6 * _norm(features).max()
            if own.narrow and bool(seen.any()):
                tally.narrow.add(outer[seen] / inner[seen] / own.narrow, f"block {index + 1}, {what}")
            x = x - fx
            before = _apart(x, count)
        tally.inverse.add(first / before * (1 - self.network.lipschitz), what)

    @torch.no_grad()
    def factors(self, sizes: Sequence[int], rounds: int = 10) -> None:
        """W1 on plane waves of the worst frequency and what power iteration makes of them, W2 on singular vectors."""
        for index, (residual, own) in enumerate(zip(self.residuals, self.norms, strict=True)):
            for size in sizes:
                x = self.waves[index].images(1, (size, size), self.key.child("factors", index, size))
                for _ in range(rounds):
                    image = convolve(x, residual.wide)
                    if own.wide:
                        ratio = _norm(image) / _norm(x) / own.wide
                        self.findings.wide.add(ratio, f"block {index + 1}, plane wave, {size} x {size}")
                    x = convolve(image, residual.wide.transpose(0, 1).flip(2, 3))
                    x = x / _norm(x).clamp_min(1e-300)
            matrix = residual.narrow[:, :, 0, 0]
            vectors = torch.linalg.svd(matrix).Vh
            if own.narrow:
                ratio = (matrix @ vectors.mT).norm(dim=0) / own.narrow
                self.findings.narrow.add(ratio, f"block {index + 1}, singular vectors")

    @torch.no_grad()
    def climb_residual(self, index: int, steps: int, size: int = 16) -> None:
        """Gradient ascent on ||f(x) - f(x')|| / ||x - x'|| in both, every step a check, from small and large states."""
        residual, single, shape = self.residuals[index], self.single[index], (size, size)
        key = self.key.child("residual", index)
        change = self.waves[index].images(_CLIMBERS, shape, key.child("wave"))
        start = key.child("start").normal(change.shape, change)
        start = start * torch.logspace(-1, 2, _CLIMBERS, dtype=start.dtype)[:, None, None, None]

        def expansion(x: Tensor, y: Tensor) -> Tensor:
            return _norm(single(x) - single(y)) / _norm(x - y)

        for x, y in _ascent(expansion, start.float(), change.float(), steps):
            ratios = _norm(residual(x) - residual(y)) / _norm(x - y) / self.network.bounds[index]
            self.findings.residuals.add(ratios, f"block {index + 1}, ascent, {size} x {size}")

    @torch.no_grad()
    def climb_inverse(self, steps: int, size: int = 16) -> None:
        """Gradient ascent on ||x - x'|| / ||phi(x) - phi(x')||, the expansion of phi^-1, every step a check of that and
        of every f_i.

        Half of the pairs begin at what phi^-1 makes of measurements, computed to the end. All begin with the difference
        that the derivative of phi^-1 there enlarges most, as far as ten rounds of power iteration find it.
        """
        shape, key = (size, size), self.key.child("inverse")
        start, _ = self._bases(_CLIMBERS, shape, key)
        change, _ = differences(_CLIMBERS, self.network, shape, self.waves, self.photographs, key.child("change"))
        half = _CLIMBERS // 2
        z = self.network.lift(crops(self.photographs, half, shape, key.child("measurements")))
        start[:half] = _inverse(self.residuals, z)
        change = _most_enlarged(self.single, start.float(), change.float())

        def expansion(x: Tensor, y: Tensor) -> Tensor:
            return _norm(x - y) / _norm(apply(self.single, x) - apply(self.single, y))

        for x, y in _ascent(expansion, start.float(), change, steps):
            self._pass(torch.stack((x, y), 1), f"ascent, {size} x {size}")

    @torch.no_grad()
    def inverses(self, size: int = 16, count: int = 4) -> None:
        """phi^-1 of pairs of measurements that differ by noise, computed until nothing changes in float64."""
        z = self.network.lift(crops(self.photographs, count, (size, size), self.key.child("inverses")))
        noise = self.key.child("inverse noise").normal(z.shape, z)
        w = z + noise * torch.logspace(-2, 0, count, dtype=z.dtype)[:, None, None, None]
        x, y = (_inverse(self.residuals, states) for states in (z, w))
        ratio = _norm(x - y) / _norm(z - w) * (1 - self.network.lipschitz)
        self.findings.inverse.add(ratio, f"converged inverses, {size} x {size}")

    def _bases(self, count: int, shape: tuple[int, int], key: Key) -> tuple[Tensor, Tensor]:
        """States at which pairs begin, zero, photographs and noise of several sizes, and amplitudes of the change."""
        images = self.network.lift(crops(self.photographs, count, shape, key.child("base")))
        noise = key.child("noise").normal(images.shape, images)
        draw = key.child("amplitudes").uniform((3, count), images)[:, :, None, None, None]
        size = 10 ** (3 * draw[0] - 2)
        base = torch.where(draw[1] < 0.2, 0.0 * images, torch.where(draw[1] < 0.6, images, noise * size))
        return base, 10 ** (3 * draw[2] - 2)


def _ascent(
    expansion: Callable[[Tensor, Tensor], Tensor], x: Tensor, change: Tensor, steps: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The pairs x, x + change, in float64, along the path of normalised gradients in the state and in the change, whose
    norm is kept."""
    length = 0.1 * math.sqrt(change[0].numel())
    change = _with_norm(change, length)
    for step in range(steps):
        yield x.double(), x.double() + change.double()
        x, change = x.detach().requires_grad_(True), change.detach().requires_grad_(True)
        with torch.enable_grad():
            rise = expansion(x, x + change).clamp_min(1e-12).log().sum()
        at, along = torch.autograd.grad(rise, (x, change))
        rate = 0.5 * (1 - step / steps)
        x = x.detach() + rate * _with_norm(at, length)
        change = _with_norm(change.detach() + rate * _with_norm(along, length), length)


def _most_enlarged(residuals: Sequence[Residual], x: Tensor, v: Tensor, rounds: int = 10) -> Tensor:
    """v after rounds of v <- J^-1 J^-T v with the derivative J of phi at x, its blocks inverted by Neumann series."""
    linear = list[tuple[Residual, Tensor]]()
    for residual in reversed(residuals):
        linear.append((residual, residual.features(x)))
        x = x - residual(x)

    def solved(g: Tensor, product: Callable[[Tensor, Tensor], Tensor], features: Tensor) -> Tensor:
        w = g
        for _ in range(_TERMS):
            w = g + product(features, w)
        return w

    for _ in range(rounds):
        for residual, features in linear:
            v = solved(v, residual.vjp, features)
        for residual, features in reversed(linear):
            v = solved(v, residual.jvp, features)
        v = _with_norm(v, 1.0)
    return v


def _with_norm(x: Tensor, length: float) -> Tensor:
    return x * (length / _norm(x).clamp_min(1e-30))[:, None, None, None]


def _inverse(residuals: Sequence[Residual], z: Tensor) -> Tensor:
    for residual in residuals:
        x = z
        for _ in range(500):
            following = z + residual(x)
            step = float(((following - x).abs().max() / following.abs().max()).nan_to_num(0))
            x = following
            if step < _FLOAT64_STEP:
                break
        z = x
    return z


def _norm(x: Tensor) -> Tensor:
    """The Euclidean norm of each: (B, ...) -> (B,)."""
    return x.flatten(1).norm(dim=1)


def _apart(x: Tensor, count: int) -> Tensor:
    """Distances of all pairs within each group of `count` states in a row: (groups * count, ...) -> (pairs,)."""
    groups = x.unflatten(0, (-1, count))
    pairs = itertools.combinations(range(count), 2)
    return torch.cat([_norm(groups[:, i] - groups[:, j]) for i, j in pairs])
