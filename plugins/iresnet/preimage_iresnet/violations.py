"""A search for pairs of images that break the bounds of an invertible residual network, in float64."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from preimage import Key

from .certificate import BlockNorms
from .network import InvertibleResNet, apply
from .residual import Residual
from .structured_images import crops, differences
from .true_norms import worst_wave

SIZES: Mapping[int, float] = {16: 30, 24: 18, 32: 14, 48: 10, 64: 8, 96: 5, 128: 2, 256: 0.4, 512: 0.2}
"""Sides of images, with the share of the pairs that have them."""

ROUNDING = 1e-9
"""By how much a ratio may be above its bound for rounding: the pairs differ by at least 1e-4 of their size."""

_CLIMBERS = 4
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
    every f_i at states that occur, and the inverse.
    """

    def __init__(self, network: InvertibleResNet, norms: Sequence[BlockNorms], photographs: Tensor, key: Key):
        self.network, self.norms, self.key, self.findings = network, norms, key, Findings()
        with torch.no_grad():
            self.residuals = [residual.to(torch.float64) for residual in network.residuals()]
        self.waves = [worst_wave(residual.wide) for residual in self.residuals]
        self.photographs = photographs.double()

    def run(
        self, checks: int, sizes: Mapping[int, float] = SIZES, progress: Callable[[int], None] = lambda done: None
    ) -> Findings:
        """At least so many checks: 70% passages of random and structured pairs, 20% ascent on the expansion of each
        f_i, 10% ascent on that of phi^-1; besides, every factor, and inverses computed from their images."""
        self.factors([size for size in (16, 48, 96) if size <= max(sizes)])
        progress(self.findings.checks)
        steps = max(2, math.ceil(0.2 * checks / _CLIMBERS / len(self.residuals)))
        for index in range(len(self.residuals)):
            self.climb_residual(index, steps)
            progress(self.findings.checks)
        self.climb_inverse(max(2, math.ceil(0.1 * checks / _CLIMBERS)))
        progress(self.findings.checks)
        self.inverses()
        pairs = (checks - self.findings.checks) / (len(self.residuals) + 1)
        for size, share in sizes.items():
            count = math.ceil(pairs * share / sum(sizes.values()))
            each = max(1, 16384 // size**2)
            for start in range(0, count, each):
                self.passages(size, min(each, count - start), start)
                progress(self.findings.checks)
        return self.findings

    @torch.no_grad()
    def passages(self, size: int, count: int, start: int = 0) -> None:
        """Pairs of images of a size, random and structured, through phi; half of the batches are not square."""
        key = self.key.child("passages", size, start)
        shape = (size, size) if key.generator().random() < 0.5 else (size, max(16, size * 3 // 4 + 1))
        base, amplitude = self._bases(count, shape, key)
        change, names = differences(count, self.network, shape, self.waves, self.photographs, key.child("change"))
        x, y = base, base + change * amplitude
        self._pass(x, y, f"{'/'.join(sorted(set(names)))}, {shape[0]} x {shape[1]}")

    def _pass(self, x: Tensor, y: Tensor, what: str) -> None:
        first, tally = _norm(x - y), self.findings
        for index in reversed(range(len(self.residuals))):
            residual, own = self.residuals[index], self.norms[index]
            features = residual.features(x), residual.features(y)
            fx, fy = (torch.nn.functional.conv2d(s, residual.narrow, residual.narrow_bias) for s in features)
            expansion = _norm(fx - fy) / _norm(x - y)
            tally.residuals.add(expansion / self.network.bounds[index], f"block {index + 1}, {what}")
            inner = _norm(features[0] - features[1])
            seen = inner > 1e-6 * _norm(features[0])
            if own.narrow and bool(seen.any()):
                ratio = _norm(fx - fy)[seen] / inner[seen] / own.narrow
                tally.narrow.add(ratio, f"block {index + 1}, {what}")
            x, y = x - fx, y - fy
        tally.inverse.add(first / _norm(x - y) * (1 - self.network.lipschitz), what)

    @torch.no_grad()
    def factors(self, sizes: Sequence[int], rounds: int = 10) -> None:
        """W1 on plane waves of the worst frequency and what power iteration makes of them, W2 on singular vectors."""
        for index, (residual, own) in enumerate(zip(self.residuals, self.norms, strict=True)):
            for size in sizes:
                x = self.waves[index].images(1, (size, size), self.key.child("factors", index, size))
                for _ in range(rounds):
                    image = torch.nn.functional.conv2d(x, residual.wide, padding=residual.wide.shape[-1] // 2)
                    if own.wide:
                        ratio = _norm(image) / _norm(x) / own.wide
                        self.findings.wide.add(ratio, f"block {index + 1}, plane wave, {size} x {size}")
                    x = torch.nn.functional.conv_transpose2d(image, residual.wide, padding=residual.wide.shape[-1] // 2)
                    x = x / _norm(x).clamp_min(1e-300)
            matrix = residual.narrow[:, :, 0, 0]
            vectors = torch.linalg.svd(matrix).Vh
            if own.narrow:
                ratio = (matrix @ vectors.mT).norm(dim=0) / own.narrow
                self.findings.narrow.add(ratio, f"block {index + 1}, singular vectors")

    def climb_residual(self, index: int, steps: int, size: int = 16) -> None:
        """Gradient ascent on ||f(x) - f(x')|| / ||x - x'|| in both, every step a check, from small and large states."""
        residual, shape = self.residuals[index], (size, size)
        key = self.key.child("residual", index)
        change = self.waves[index].images(_CLIMBERS, shape, key.child("wave"))
        start = key.child("start").normal(change.shape, change)
        start = start * torch.logspace(-1, 2, _CLIMBERS, dtype=start.dtype)[:, None, None, None]

        def expansion(x: Tensor, y: Tensor) -> Tensor:
            return _norm(residual(x) - residual(y)) / _norm(x - y) / self.network.bounds[index]

        for ratios in _ascent(expansion, start, change, steps):
            self.findings.residuals.add(ratios, f"block {index + 1}, ascent, {size} x {size}")

    def climb_inverse(self, steps: int, size: int = 16) -> None:
        """Gradient ascent on ||x - x'|| / ||phi(x) - phi(x')||, the expansion of phi^-1.

        Half of the pairs begin at what phi^-1 makes of measurements and of the same with noise, computed to the end.
        """
        shape, key = (size, size), self.key.child("inverse")
        start, _ = self._bases(_CLIMBERS, shape, key)
        change, _ = differences(_CLIMBERS, self.network, shape, self.waves, self.photographs, key.child("change"))
        half = _CLIMBERS // 2
        with torch.no_grad():
            z = self.network.lift(crops(self.photographs, half, shape, key.child("measurements")))
            start[:half] = _inverse(self.residuals, z)
            change[:half] = _inverse(self.residuals, z + 0.1 * key.child("noise").normal(z.shape, z)) - start[:half]

        def expansion(x: Tensor, y: Tensor) -> Tensor:
            images = apply(self.residuals, x), apply(self.residuals, y)
            return _norm(x - y) / _norm(images[0] - images[1]) * (1 - self.network.lipschitz)

        for ratios in _ascent(expansion, start, change, steps):
            self.findings.inverse.add(ratios, f"ascent, {size} x {size}")

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


def _ascent(expansion: Callable[[Tensor, Tensor], Tensor], x: Tensor, change: Tensor, steps: int) -> Iterator[Tensor]:
    """Ratios along the path of normalised gradients, in the state and in the direction, whose norm is kept."""
    length = 0.1 * math.sqrt(change[0].numel())
    change = _with_norm(change, length)
    for step in range(steps):
        x, change = x.detach().requires_grad_(True), change.detach().requires_grad_(True)
        ratios = expansion(x, x + change)
        yield ratios.detach()
        at, along = torch.autograd.grad(ratios.clamp_min(1e-12).log().sum(), (x, change))
        rate = 0.5 * (1 - step / steps)
        x = x.detach() + rate * _with_norm(at, length)
        change = _with_norm(change.detach() + rate * _with_norm(along, length), length)


def _with_norm(x: Tensor, length: float) -> Tensor:
    return x * (length / _norm(x).clamp_min(1e-300))[:, None, None, None]


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
