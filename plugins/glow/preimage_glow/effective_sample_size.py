"""What correlated draws are worth."""

from typing import NamedTuple

import torch
from torch import Tensor


class ChainDiagnostics(NamedTuple):
    """- `effective`: the number of independent draws whose mean has the same variance, (...,).
    - `scale_reduction`: split R-hat, (...,): near 1 if all halves of all chains look alike."""

    effective: Tensor
    scale_reduction: Tensor


def chain_diagnostics(draws: Tensor) -> ChainDiagnostics:
    """Of the draws of a scalar by several chains, (..., K, T): (...,), float64. NaN for fewer than 8 draws in a chain.

    Each chain is cut in two. With the autocovariances of all halves, and the variance between their means, the sum of
    autocorrelations is estimated by Geyer's initial monotone sequence (Vehtari, Gelman, Simpson, Carpenter & Bürkner
    2021, "Rank-normalization, folding, and localization", section 3). Draws that never change are worth nothing, 0.
    """
    half = draws.shape[-1] // 2
    if half < 4:
        nothing = torch.full(draws.shape[:-2], float("nan"), dtype=torch.float64, device=draws.device)
        return ChainDiagnostics(nothing, nothing)
    chains = torch.cat((draws[..., :half], draws[..., -half:]), -2).double()
    count, mean = chains.shape[-2], chains.mean(-1, keepdim=True)
    spectrum = torch.fft.rfft(chains - mean, 2 * half)
    autocovariance = torch.fft.irfft(spectrum.abs().square(), 2 * half)[..., :half].mean(-2) / half
    within = autocovariance[..., 0] * half / (half - 1)
    whole = autocovariance[..., 0] + mean[..., 0].var(-1)
    changes = whole > 0
    positive = torch.where(changes, whole, 1)
    correlation = 1 - (within[..., None] - autocovariance) / positive[..., None]
    correlation[..., 0] = 1
    pairs = correlation[..., : half // 2 * 2].unflatten(-1, (-1, 2)).sum(-1)
    started = (pairs > 0).long().cumprod(-1).bool()
    monotone = torch.where(started, pairs, 0).cummin(-1).values
    # A sum of correlations below this says more about the estimate than about the chains (Stan caps likewise).
    total = (2 * monotone.sum(-1) - 1).clamp_min(1 / torch.tensor(count * half).log10())
    effective = torch.where(changes, count * half / total, 0)
    reduction = torch.where(within > 0, (positive / torch.where(within > 0, within, 1)).sqrt(), float("inf"))
    return ChainDiagnostics(effective, reduction)
