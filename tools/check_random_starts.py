"""Random starts of latent-map on the paper preset of glow, all 145 steps of 512 features: is any image lost?

python tools/check_random_starts.py [--starts 200] [--first 0] [--batch 25] [--size 16] [--scale 10] [--evaluations 8]

The weights are those of a new network, but for the last convolutions of the coupling networks, normal numbers of
deviation `--scale`: with 10 the image of every random start overflows. Each start is an image of its own, as in a batch
of so many. One line for each batch says how many starts were not finite and what came back; exits with 1 if an image is
lost: not finite, not in the result, or worse than that of z = 0. Takes some CPU-seconds for each start;
`--first` and `--starts` let it be done in parts.
"""

import argparse
import sys

import torch
from preimage_glow import GlowPrior, LatentMap
from preimage_glow.flow import Flow
from torch import Tensor

from preimage import GaussianNoise, Identity, Key, Problem, Status, solve


def wild(scale: float) -> Flow:
    """The preset, with weights that no training gives."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = Flow("paper").eval().requires_grad_(False)
    for name, weights in flow.named_parameters():
        if name.endswith("network.last.weight"):
            weights.copy_(scale * Key(1).child(name).normal(tuple(weights.shape)))
    return flow


def searched(prior: GlowPrior, first: int, count: int, evaluations: int) -> tuple[int, int]:
    """Prints what became of these starts. Returns how many were lost, and how many failed and said so."""
    y = torch.full((count, *prior.in_shape), 0.4)
    given = Problem(Identity(prior.in_shape), y, GaussianNoise(sigma=0.05), prior, 1e-3)
    keys = [Key(0).child(first + i) for i in range(count)]

    def misfit(z: Tensor) -> Tensor:
        with torch.no_grad():
            return given.misfit(prior.decode(z))

    starts = torch.stack([key.child("start").normal(prior.latent_shape) for key in keys])
    finite = int(torch.isfinite(misfit(starts)).sum())
    solver = LatentMap(start="random", max_evaluations=evaluations, images_at_once=count)
    found = solve(given, solver, key=keys, throw=False)
    here = torch.isfinite(found.x).flatten(1).all(1)
    assert found.objective is not None
    lower = found.objective <= misfit(torch.zeros_like(starts))
    failed = sum(status is Status.DIVERGED for status in found.status)
    restarts, spent = found.details["restarts"], found.details["evaluations"]
    print(
        f"starts {first}..{first + count - 1}: {finite} finite at first; returned {len(found.status)}, finite "
        f"{int(here.sum())}, at least as good as z = 0 {int(lower.sum())}, named as failed {failed}; "
        f"restarts {float(restarts.mean()):.1f}, evaluations {float(spent.mean()):.1f} each",
        flush=True,
    )
    return count - int((here & lower).sum()), failed


def main() -> None:
    """Run by hand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"starts": 200, "first": 0, "batch": 25, "size": 16, "evaluations": 8}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--scale", type=float, default=10.0)
    given = parser.parse_args()
    prior = GlowPrior.of(wild(given.scale), (3, given.size, given.size))
    lost = failed = 0
    end = given.first + given.starts
    for first in range(given.first, end, given.batch):
        some = searched(prior, first, min(given.batch, end - first), given.evaluations)
        lost, failed = lost + some[0], failed + some[1]
    print(f"{given.starts} random starts: {lost} lost, {failed} came back as failed")
    sys.exit(lost > 0)


if __name__ == "__main__":
    main()
