"""The weight of a prior by Morozov's discrepancy principle, for each image of a batch on its own."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from ._key import Key
from ._prior import Energy
from ._problem import Problem
from ._solver import Solver, solve
from .errors import Incompatible

RUNS = 16
"""Most runs of the solver in search of the weight."""

TOLERANCE = 0.02
"""Relative deviation of the misfit from what is expected at which the search ends."""

FACTOR = 8.0
"""By which the weight changes until the expected misfit is bracketed."""


def weight_by_discrepancy(problem: Problem, solver: Solver[Any], keys: Sequence[Key]) -> Tensor:
    """The weights (B,) at which the data are fitted as well as the noise allows: misfit(x_weight) = its expectation.

    The misfit of the minimiser grows with the weight, so the equation has one solution (Morozov 1966; Engl, Hanke &
    Neubauer 1996, section 4.3). It is bracketed, then found by the Illinois method on the logarithms. The search starts
    where the expected misfit equals weight R(start). It gives up, with the weight it has come to, where no weight gives
    the expected misfit: it lies below what the operator's range allows, or above what R can bring about.

    Raises `Incompatible` if the noise level is unknown or zero, or the prior has no energy.
    """
    expected = problem.noise.expected_misfit(problem.y)
    remedy = "give the weight as a number"
    if expected is None or not bool((expected > 0).all()):
        found = f'weight = "auto" with noise {type(problem.noise).__name__} of unknown level, or none'
        raise Incompatible(found, "a noise model with a known level above zero", remedy)
    if not isinstance(problem.prior, Energy):
        found = f'weight = "auto" with {type(problem.prior).__name__}, which has no energy to weigh'
        raise Incompatible(found, "an Energy prior", remedy)
    energy = problem.prior.energy(problem.start())
    usable = torch.isfinite(energy) & (energy > 0)
    log_weight = torch.where(usable, expected / torch.where(usable, energy, 1), 1).log()
    low, high = (torch.full_like(log_weight, float("nan")) for _ in range(2))
    low_value, high_value = low.clone(), high.clone()
    side = torch.zeros_like(log_weight)
    active = torch.arange(len(log_weight), device=log_weight.device)
    for _ in range(RUNS):
        some = replace(problem.rows(active), weight=log_weight[active].exp())
        x = solve(some, solver, key=[keys[i] for i in cast("list[int]", active.tolist())], throw=False).x
        tiny = torch.finfo(x.dtype).tiny
        value = (some.misfit(x).clamp_min(tiny) / expected[active]).log()
        here, above = log_weight[active], value > 0
        low[active] = torch.where(above, low[active], here)
        high[active] = torch.where(above, here, high[active])
        # Illinois: an end that stays for a second time counts half.
        again_low, again_high = above & (side[active] > 0), ~above & (side[active] < 0)
        low_value[active] = torch.where(above, torch.where(again_low, 0.5, 1) * low_value[active], value)
        high_value[active] = torch.where(above, value, torch.where(again_high, 0.5, 1) * high_value[active])
        side[active] = torch.where(above, 1.0, -1.0).to(side)
        open_ended = low[active].isnan() | high[active].isnan()
        spread = torch.tensor(FACTOR).log().item()
        outward = here + torch.where(above, -spread, spread)
        a, b, fa, fb = low[active], high[active], low_value[active], high_value[active]
        secant = (a * fb - b * fa) / (fb - fa)
        unfinished = (value.abs() > TOLERANCE) & (open_ended | ((b - a).abs() > 1e-3))
        log_weight[active] = torch.where(unfinished, torch.where(open_ended, outward, secant), here)
        active = active[unfinished]
        if not len(active):
            break
    return log_weight.exp()
