"""Measure the inverse of shipped invertible networks against a reference in float64, and print two tables.

python tools/measure_inverse.py perona-malik-0.025 ...      # images are those of bsds500/val below PREIMAGE_DATA

Evaluations are of residuals, one for each block and step; errors and bounds are relative to the exact state's norm.
"""

import argparse
import itertools
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from preimage_data import Folder, psnr
from preimage_iresnet.prior import InvertibleResNetPrior
from torch import Tensor

from preimage import ForwardModel, Key, norms

REFERENCE = 1e-11
COUNTS = (
    "weights",
    "rule",
    "tolerance",
    "evaluations",
    "most",
    "largest error",
    "largest bound",
    "PSNR",
    "of the exact inverse",
)
CHECKS = ("weights", "reconstructions", "bounds below the error", "smallest bound / error", "largest error / tolerance")


class Data(NamedTuple):
    """Photographs and their simulated measurements, (B, 1, size, size)."""

    images: Tensor
    measured: Tensor


def simulated(name: str, folder: Path, count: int, size: int) -> Data:
    """Measurements as the weights were trained for."""
    data = Folder(path=folder, size=size, crop="centre", count=count)
    images = torch.stack([data[i] for i in range(len(data))])
    labels = [data.label(i) for i in range(len(data))]
    prior = InvertibleResNetPrior((1, size, size), weights=name)
    forward = ForwardModel.from_tables(prior.trained.facts["forward_model"], (1, size, size), name)
    return Data(images, forward.simulate(images, labels))


def exact(prior: InvertibleResNetPrior, z: Tensor) -> tuple[Tensor, Tensor]:
    """phi^-1(z) in float64, and the bound on how far it is off."""
    found = prior.invert(z.double(), REFERENCE, certified=True)
    return found.x, found.bound


def counts(name: str, data: Data, tolerances: list[float]) -> list[tuple[str, ...]]:
    """Evaluations, errors and PSNR of both rules on photographs."""
    prior = InvertibleResNetPrior(tuple(data.images.shape[1:]), weights=name)
    z = prior.lift(data.measured)
    references = [exact(prior, part)[0] for part in z.split(4)]
    true = torch.cat(references)
    sizes, rows = norms(true), list[tuple[str, ...]]()
    best = float(psnr(prior.project(true).float(), data.images).mean())
    for certified, tolerance in itertools.product((False, True), tolerances):
        found = [prior.invert(part, tolerance, certified) for part in z.split(4)]
        x, bound, evaluations = (torch.cat(each) for each in list(zip(*found, strict=True))[:3])
        reached = float(psnr(prior.project(x), data.images).mean())
        rows.append(
            (
                name,
                "certified" if certified else "estimated",
                f"{tolerance:.0e}",
                f"{float(evaluations.double().mean()):.1f}",
                str(int(evaluations.max())),
                f"{float((norms(x.double() - true) / sizes).max()):.1e}",
                f"{float((bound / sizes).max()):.1e}",
                f"{reached:.3f}",
                f"{best:.3f}",
            )
        )
    return rows


def check(name: str, data: Data, count: int, size: int, tolerance: float) -> tuple[str, ...]:
    """Bounds against errors on pieces of measurements and as many images of noise of all magnitudes."""
    prior = InvertibleResNetPrior((1, size, size), weights=name)
    pieces = data.measured.unfold(2, size, size).unfold(3, size, size).reshape(-1, 1, size, size)[: count // 2]
    scales = 10 ** torch.linspace(-3, 1, count - len(pieces))
    noise = Key(0).child("noise").normal((len(scales), 1, size, size)) * scales[:, None, None, None]
    z = torch.cat([prior.lift(pieces), prior.lift(noise)])
    unlike = Key(0).child("unlike").normal(z[::4].shape) * 0.1
    z[::4] += unlike  # states whose copies differ are codes too
    below, smallest, largest = 0, float("inf"), 0.0
    for number, part in enumerate(z.split(50)):
        true, uncertain = exact(prior, part)
        certified = number % 2 == 0
        found = prior.invert(part, tolerance, certified)
        error = norms(found.x.double() - true)
        below += int((found.bound < error - uncertain).sum())
        smallest = min(smallest, float((found.bound / error).min()))
        largest = max(largest, float((error / norms(true)).max()) / tolerance)
    return name, str(len(z)), str(below), f"{smallest:.1f}", f"{largest:.2f}"


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """As Markdown."""
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+", help="names that ship, or files")
    parser.add_argument("--data", type=Path, default=Path("bsds500/val"), help="folder of photographs")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--tolerances", type=float, nargs="+", default=[1e-2, 1e-3])
    parser.add_argument("--reconstructions", type=int, default=2000, help="whose bounds are held against errors")
    parser.add_argument("--piece", type=int, default=24, help="the size of their images")
    given = parser.parse_args()
    pieces = (given.size // given.piece) ** 2
    wanted = max(given.images, -(-given.reconstructions // (2 * pieces)))
    rows, checks = list[tuple[str, ...]](), list[tuple[str, ...]]()
    for name in given.weights:
        data = simulated(name, given.data, wanted, given.size)
        few = Data(data.images[: given.images], data.measured[: given.images])
        rows += counts(name, few, given.tolerances)
        if given.reconstructions:
            checks.append(check(name, data, given.reconstructions, given.piece, min(given.tolerances)))
    print(table(COUNTS, rows))
    if checks:
        print()
        print(table(CHECKS, checks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
