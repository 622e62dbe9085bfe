"""Measure the inverse of the invertible networks that ship against a reference in float64, and print three tables.

python tools/measure_inverse.py                     # all that ship; images of bsds500/val below PREIMAGE_DATA
python tools/measure_inverse.py NAME ... --parts accuracy bounds round-trips
python tools/measure_inverse.py --record results/inverse.jsonl         # can be stopped, and goes on where it was

- accuracy: evaluations, errors, bounds and PSNR of both rules on photographs. Evaluations are of residuals, one for
  each block and step; errors and bounds are relative to the norm of the exact state.
- bounds: whether the proved bound is ever below the error, on pieces of measurements and noise of all magnitudes.
- round-trips: ||decode(encode(u)) - u|| / ||u|| and ||encode(decode(z)) - z|| / ||z||, z = encode(u), for copies of
  photographs and noise, of the networks that ship and of two with random weights at L = 0.999.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from preimage_data import Folder, Photographs, psnr
from preimage_iresnet.network import InvertibleResNet
from preimage_iresnet.prior import InvertibleResNetPrior
from torch import Tensor

from preimage import ForwardModel, Key, norms
from preimage._plugins import discover
from preimage.weights import load_weights

REFERENCE = 1e-8
"""To which the exact states are certified."""

RULES = {"estimated": False, "certified": True}
COARSER = {"estimated, twice the tolerance": False}
"""Enough for the picture: measured by `accuracy` alone."""

TRIPS = {(17, 33): 2, (64, 64): 2, (256, 256): 1}
"""Sizes of round trips, with the number of states of each."""

RANDOM = ("random tiny", "random small")
ACCURACIES = {"float32": 1e-6, "float64": 1e-12}


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


def accuracy(name: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Evaluations, errors and PSNR of both rules on photographs."""
    data = simulated(name, given.data, given.images, given.size)
    prior = InvertibleResNetPrior(tuple(data.images.shape[1:]), weights=name)
    z = prior.lift(data.measured)
    true, uncertain = (torch.cat(each) for each in zip(*(exact(prior, part) for part in z.split(1)), strict=True))
    sizes, rows = norms(true), list[dict[str, Any]]()
    best = float(psnr(prior.project(true).float(), data.images).mean())
    for rule, certified in (RULES | COARSER).items():
        tolerance = given.tolerance * (2 if rule in COARSER else 1)
        found = [prior.invert(part, tolerance, certified) for part in z.split(4)]
        x, bound, evaluations = (torch.cat(each) for each in list(zip(*found, strict=True))[:3])
        error = norms(x.double() - true)
        reached = float(psnr(prior.project(x), data.images).mean())
        rows.append(
            {
                "weights": name,
                "rule": rule,
                "evaluations": round(float(evaluations.double().mean()), 1),
                "most": int(evaluations.max()),
                "largest error": float((error / sizes).max()),
                "largest bound": float((bound / sizes).max()),
                "bounds below the error": int((bound < error - uncertain).sum()),
                "PSNR": round(reached, 3),
                "less than the exact inverse": round(best - reached, 4),
            }
        )
    return rows


def bounds(name: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Bounds against errors on pieces of measurements and as many images of noise of all magnitudes."""
    count, size = given.reconstructions, given.piece
    wanted = -(-count // (2 * (given.size // size) ** 2))
    data = simulated(name, given.data, wanted, given.size)
    prior = InvertibleResNetPrior((1, size, size), weights=name)
    pieces = data.measured.unfold(2, size, size).unfold(3, size, size).reshape(-1, 1, size, size)[: count // 2]
    scales = 10 ** torch.linspace(-3, 1, count - len(pieces))
    noise = Key(0).child("noise").normal((len(scales), 1, size, size)) * scales[:, None, None, None]
    rows = list[dict[str, Any]]()
    for kind, z in {"measurements": prior.lift(pieces), "noise": prior.lift(noise)}.items():
        z[::4] += Key(0).child("unlike", kind).normal(z[::4].shape) * 0.1  # states whose copies differ are codes too
        below, smallest, largest = 0, float("inf"), dict.fromkeys(RULES, 0.0)
        for number, part in enumerate(z.split(10)):
            true, uncertain = exact(prior, part)
            rule = list(RULES)[number % 2]
            found = prior.invert(part, given.tolerance, RULES[rule])
            error = norms(found.x.double() - true)
            below += int((found.bound < error - uncertain).sum())
            smallest = min(smallest, float((found.bound / error).min()))
            largest[rule] = max(largest[rule], float((error / norms(true)).max()) / given.tolerance)
        shares = {f"largest error / tolerance, {rule}": round(share, 2) for rule, share in largest.items()}
        counts = {"weights": name, "codes": kind, "reconstructions": len(z), "bounds below the error": below}
        rows.append(counts | {"smallest bound / error": round(smallest, 1)} | shares)
    return rows


@torch.no_grad()
def round_trips(name: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """The largest relative errors over sizes, in both precisions."""
    photographs, row, held = Photographs(size=256, colour="grey"), dict[str, Any](weights=name), True
    for precision, wanted in ACCURACIES.items():
        for shape, count in TRIPS.items():
            if max(shape) > given.largest:
                continue
            prior = prior_of(name, (1, *shape), wanted / 100)
            image = photographs[count][:, : shape[0], : shape[1]]
            noise = Key(0).child("round trips", *shape).normal(prior.latent_shape, image)
            u = torch.cat([prior.lift(image[None]), noise[None]])[:count].to(getattr(torch, precision))
            z = prior.encode(u)
            x = prior.decode(z)
            there, back = norms(x - u) / norms(u), norms(prior.encode(x) - z) / norms(z)
            worst = float(torch.cat([there, back]).max())
            row[f"{precision}, {shape[0]} x {shape[1]}"], held = worst, held and worst <= wanted
    return [row | {"all within 1e-6, 1e-12": held}]


def prior_of(name: str, shape: tuple[int, int, int], tolerance: float) -> InvertibleResNetPrior:
    """The prior with the weights of this name, or with random ones."""
    if name not in RANDOM:
        return InvertibleResNetPrior(shape, weights=name, tolerance=tolerance)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = InvertibleResNet(preset="tiny" if name == RANDOM[0] else "small").eval().requires_grad_(False)
    network.certify(Key(0).uniform((2, 1, 24, 24)))
    return InvertibleResNetPrior.of(network, shape, tolerance=tolerance)


Part = Callable[[str, argparse.Namespace], list[dict[str, Any]]]
PARTS: dict[str, Part] = {"accuracy": accuracy, "bounds": bounds, "round-trips": round_trips}
ARGUMENTS = {
    "accuracy": ("data", "images", "size", "tolerance"),
    "bounds": ("data", "size", "tolerance", "reconstructions", "piece"),
    "round-trips": ("largest",),
}


def measured(part: str, name: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one part for one network, now or, for the same weights and arguments, before."""
    weights = None if name in RANDOM else load_weights(name, "prior/iresnet").facts["certificate"]["digest"]
    used = {key: str(getattr(given, key)) for key in ARGUMENTS[part]}
    identity = {"part": part, "name": name, "digest": weights, "arguments": used}
    file: Path | None = given.record
    if file is not None and file.exists():
        for line in file.read_text().splitlines():
            read = json.loads(line)
            if {key: read[key] for key in identity} == identity:
                return read["rows"]
    rows = PARTS[part](name, given)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as lines:
            lines.write(json.dumps(identity | {"rows": rows}) + "\n")
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown."""
    cells = [[f"{v:.1e}" if isinstance(v, float) and 0 < v < 1e-2 else str(v) for v in row.values()] for row in rows]
    lines = [list(rows[0]), ["---"] * len(rows[0]), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="*", help="names, or files; default: all that ship")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--data", type=Path, default=Path("bsds500/val"), help="folder of photographs")
    parser.add_argument("--images", type=int, default=4, help="of accuracy")
    parser.add_argument("--size", type=int, default=96, help="of these images")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--reconstructions", type=int, default=144, help="of bounds, for each network")
    parser.add_argument("--piece", type=int, default=24, help="the size of their images")
    parser.add_argument("--largest", type=int, default=256, help="side of round trips")
    parser.add_argument("--record", type=Path, metavar="FILE", help="what is found, a line for each part and network")
    given = parser.parse_args()
    torch.set_num_threads(1)
    shipped = sorted(w.name for w in discover().weights if w.component == "prior/iresnet")
    for part in given.parts:
        names = given.weights or [*shipped, *(RANDOM if part == "round-trips" else ())]
        print(f"\n{part}\n", flush=True)
        print(table([row for name in names for row in measured(part, name, given)]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
