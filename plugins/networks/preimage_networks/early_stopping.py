"""When to stop fitting a network to one image, without the true image: discrepancy and smoothed variance."""

from dataclasses import dataclass

import torch
from torch import Tensor

from preimage import norms


@dataclass(frozen=True)
class Spread:
    """Exponentially weighted mean and variance of the outputs of recent steps, per image.

    a_t = (1 - r) a_(t-1) + r x_t, v_t = (1 - r) (v_(t-1) + r ||x_t - a_(t-1)||^2): the exponential moving variance of
    Wang et al. 2021, "Early stopping for deep image prior" (arXiv:2112.06074), there ES-EMV, here with r = 1 / window.
    It does what their windowed variance ES-WMV does, without keeping a window of images per image.

    - `mean`: (B, *in_shape). `variance`: (B,).
    """

    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, x: Tensor) -> "Spread":
        """Of a single output."""
        return cls(x, torch.zeros_like(norms(x)))

    def then(self, x: Tensor, window: int) -> "Spread":
        """With one more output."""
        rate, move = 1 / window, x - self.mean
        return Spread(self.mean + rate * move, (1 - rate) * (self.variance + rate * norms(move).square()))


@dataclass(frozen=True)
class Best:
    """The estimate with the least score so far, per image; of equal ones the first.

    - `x`: (B, *in_shape). `misfit`: of x, (B,). `score`: what is compared, (B,); infinite until there is one, and until
      then the last estimate counts as the best.
    - `since`: steps without a lower score, (B,), int64.
    """

    x: Tensor
    misfit: Tensor
    score: Tensor
    since: Tensor

    @classmethod
    def of(cls, x: Tensor, misfit: Tensor, score: Tensor) -> "Best":
        """Of a single estimate."""
        return cls(x, misfit, score, torch.zeros_like(misfit, dtype=torch.int64))

    def then(self, x: Tensor, misfit: Tensor, score: Tensor) -> "Best":
        """With one more estimate. One that is not finite is never the best, and is taken so that it shows."""
        lower = (score < self.score) | torch.isinf(self.score) | ~torch.isfinite(misfit)
        return Best(
            x=torch.where(lower.reshape(-1, *[1] * (x.ndim - 1)), x, self.x),
            misfit=torch.where(lower, misfit, self.misfit),
            score=torch.where(lower, score, self.score),
            since=torch.where(lower, 0, self.since + 1),
        )
