"""The accounts of an inversion: what each block may leave of the tolerance, and what it has left."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .fixed_point import Fixed, norms
from .residual import Residual
from .rounding import Rounding

_SLACK = 1 + 1e-6  # above the rounding errors of the norms and bounds themselves
_SMALLEST = 0.01
_GROWTH = 1.7  # of an error of the first block to the end of the network: up to 1.5 was seen in trained ones


class Ledger:
    """Of each image of a batch (B,): the proved `bound` on the error so far, `evaluations`, the largest `contraction`.

    Block i may leave d_i, which later blocks enlarge by at most prod_{j > i} 1 / (1 - L_j). Certified, this part of the
    final bound may be twice an equal share of what earlier blocks left of the tolerance, as if one block more were to
    come: in whole steps a block takes half of what it may, and the last one may take all. Estimated, N blocks may leave
    tolerance / (g^((N - i) / N) sqrt(N)) each, as if all errors were independent and grew evenly, by g over the whole
    network; of the norm of the code where the state between blocks has a larger one, since the result may be as small,
    but of no less than a hundredth of that of the state.
    """

    def __init__(
        self,
        residuals: Sequence[Residual],
        bounds: Sequence[float],
        z: Tensor,
        tolerance: float,
        certified: bool,
        dtype: torch.dtype,
    ):
        self.bounds, self.certified = bounds, certified
        self.tolerance = tolerance - torch.finfo(z.dtype).eps / 2 if certified else tolerance
        pixels = z.shape[-2] * z.shape[-1]
        known = z.device.type == "cpu" or dtype == torch.float64
        self.rounding = [Rounding.of(r, pixels, dtype) if known else Rounding(math.inf, math.inf) for r in residuals]
        self.later = [math.prod(1 - bound for bound in bounds[i + 1 :]) for i in range(len(bounds))]
        self.sizes = norms(z)
        self.bound = torch.zeros(len(z), dtype=torch.float64, device=z.device)
        self.evaluations = torch.zeros(len(z), dtype=torch.long, device=z.device)
        self.contraction = torch.zeros(len(z), dtype=torch.float64, device=z.device)

    def enough(self, block: int, rows: Tensor, step: Tensor, pace: Tensor, size: Tensor) -> Tensor:
        """Whether images may leave a block (from 0) after a step of this length to an x of this norm."""
        if not self.certified:
            least = torch.minimum(size, torch.maximum(self.sizes[rows].to(size), _SMALLEST * size))
            to_come = (len(self.bounds) - block - 1) / len(self.bounds)
            share = self.tolerance / (_GROWTH**to_come * math.sqrt(len(self.bounds)))
            return pace / (1 - pace) * step <= share * least
        inherited = self.bound[rows] / (1 - self.bounds[block])
        share = 2 * (self.tolerance * size * self.later[block] - inherited) / (len(self.bounds) - block + 1)
        return self._left(block, step.double(), size.double()) <= share

    def count(self, found: Fixed) -> None:
        """Add the evaluations of an iteration."""
        self.evaluations += found.steps
        self.contraction = torch.maximum(self.contraction, found.worst.double())

    def enter(self, block: int, found: Fixed) -> None:
        """Carry the bound over a block that was left with this."""
        left = self._left(block, found.step.double(), found.size.double())
        self.bound = self.bound / (1 - self.bounds[block]) + left

    def _left(self, block: int, step: Tensor, size: Tensor) -> Tensor:
        """d_i = (q ||x_k - x_{k-1}|| + rho) / (1 - q)."""
        q = self.bounds[block]
        return (q * step + self.rounding[block].rho(size + step)) / (1 - q) * _SLACK
