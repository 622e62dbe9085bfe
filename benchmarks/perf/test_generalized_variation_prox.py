"""The proximal map of total generalised variation, 4 noisy crops of 96 x 96, float32: ours against deepinv.

Ours minimises over u and w 0.1 (sum |K u - w| + 1.5 sum |E w|) + 1/2 ||u - x||^2, E the symmetrised derivative; the
peer the same with the whole Jacobian of w in place of E w, the same differences and the same ratio, which it fixes. So
each is judged by its own problem: accuracy is how far the value of what it found lies above that of a long run of the
same code in double precision, over the latter. How many iterations the peer needs until every image is there is
counted first, for the best of five step sizes, its default among them, with its stopping rule switched off; ours runs
as it is, with `tolerance` at that accuracy, its evaluations of the gap included. Then they are timed in turn.
"""

import deepinv
import pytest
import torch
from preimage_baselines import TotalGeneralizedVariation, tgv_prox
from preimage_baselines.tgv_prox import minimise
from preimage_data import Photographs
from torch import Tensor

from preimage import Key

SHAPE, STEP, RATIO = (1, 96, 96), 0.1, 1.5
TAUS = (0.01, 0.03, 0.1, 0.003, 0.3)  # the peer's default first
MOST, LONG = 2000, 5000
PIECE = 20


@pytest.fixture(scope="module")
def noisy() -> Tensor:
    photographs = Photographs(size=96, crop="centre")
    clean = torch.stack([photographs[index] for index in range(4)])
    return clean + 0.1 * Key(0).normal(clean.shape, clean)


def ours(noisy: Tensor, tolerance: float, most: int = 5000) -> Tensor:
    """The value that our iteration ended with, (B,)."""
    prior = TotalGeneralizedVariation(SHAPE, ratio=RATIO)
    return minimise(prior._model, noisy, torch.full_like(noisy[:, 0, 0, 0], STEP), None, tolerance, most, fixed=False)[
        2
    ]


class Peer:
    """deepinv's iteration, which goes on from its variables."""

    def __init__(self, tau: float):
        self.model = deepinv.models.TGVDenoiser(crit=0)
        self.model.tau = tau

    def run(self, noisy: Tensor, iterations: int) -> Tensor:
        """The value after so many more iterations, (B,)."""
        self.model.n_it_max = iterations
        with torch.no_grad():
            self.model(noisy, ths=10 * STEP)  # it takes a tenth of that for the first term
            u, r = self.model.x2, self.model.r2
            bent = self.model.epsilon(self.model.nabla(u) - r)
            rough = r.norm(dim=-1).flatten(1).sum(1) + RATIO * bent.norm(dim=-1).flatten(1).sum(1)
            return STEP * rough + 0.5 * (u - noisy).square().flatten(1).sum(1)


@pytest.fixture(scope="module")
def references(noisy) -> tuple[Tensor, Tensor]:
    """The least values of both problems, (B,), float64."""
    return ours(noisy.double(), 1e-9, LONG), Peer(0.03).run(noisy.double(), LONG)


def count(noisy: Tensor, tau: float, reference: Tensor, accuracy: float, most: int) -> int | None:
    """Iterations after which the peer is there, to the next multiple of `PIECE`; None above `most`."""
    peer = Peer(tau)
    for iterations in range(PIECE, most + 1, PIECE):
        if bool((peer.run(noisy, PIECE).double() <= (1 + accuracy) * reference).all()):
            return iterations
    return None


@pytest.mark.parametrize("accuracy", [1e-2, 1e-3])
def test_generalized_variation_prox(noisy, references, compare, accuracy):
    least, their_least = references
    assert bool((ours(noisy, accuracy).double() <= (1 + accuracy) * least).all())
    best: tuple[float, int] | None = None
    for tau in TAUS:
        needed = count(noisy, tau, their_least, accuracy, MOST if best is None else best[1])
        if needed is not None and (best is None or needed < best[1]):
            best = tau, needed
    assert best is not None
    tau, iterations = best
    label = f"deepinv TGVDenoiser, best step {tau:g} of {len(TAUS)}" + " (its default)" * (tau == TAUS[0])
    name = f"TGV prox, 4 crops 96 x 96, to {accuracy:g} of the least value"
    compare(
        name, lambda: ours(noisy, accuracy), (label, lambda: Peer(tau).run(noisy, iterations)), 0.5,
        rounds=5, note=f"peer: {iterations} iterations",
    )  # fmt: skip


def test_compiled_beside_pytorch(noisy, compare, monkeypatch):
    compiled = tgv_prox.compiled

    def portable() -> Tensor:
        monkeypatch.setattr(tgv_prox, "compiled", lambda: None)
        try:
            return ours(noisy, 1e-3)
        finally:
            monkeypatch.setattr(tgv_prox, "compiled", compiled)

    name = "TGV prox, 4 crops 96 x 96, to a gap of 0.001, compiled"
    compare(name, lambda: ours(noisy, 1e-3), ("the same iteration in PyTorch", portable), 0.25, rounds=5)
