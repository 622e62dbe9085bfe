"""The primal-dual iteration of total generalised variation for one image, compiled by numba: as in PyTorch.

A channel is one row of numbers, of which a few lines of the image at a time are taken through a step, in loops long
enough to be vectorised and short enough for the cache. What the difference operators neither make nor use (differences
across the border) is zero in all variables and stays so. Indices are unsigned, as in `_compiled_differences`.
"""

from typing import Any

import numpy as np
from numba import njit

from ._compiled_differences import gradient, gradient_adjoint, symmetrized, symmetrized_adjoint

_U = np.uintp
_MATH = {"contract", "reassoc", "nsz", "arcp"}

BLOCK = 1024
"""So many pixels at least are taken at once, in whole lines."""


@njit(cache=True, nogil=True, fastmath=_MATH)
def _descend(
    u: Any, w: Any, p: Any, q: Any, x: Any, width: Any, tau: Any, weight: Any, relaxation: Any, fixed: bool,
    ahead_u: Any, ahead_w: Any, start: Any, stop: Any, work: Any,
) -> None:  # fmt: skip
    """The primal half of a step: u and w are moved and relaxed; `ahead_u`, `ahead_w`: what the dual half looks at."""
    two, share = type(tau)(2), type(tau)(1) / (type(tau)(1) + weight)
    for c in range(_U(len(x))):
        symmetrized_adjoint(q[0, c], q[1, c], q[2, c], start, stop, width, work[0], work[1])
        for k in range(_U(2)):
            back, own, row, ahead = work[k], p[k, c, start:stop], w[k, c, start:stop], ahead_w[k, c, start:stop]
            for j in range(stop - start):
                step = tau * (own[j] - back[j])
                ahead[j] = row[j] + two * step
                row[j] += relaxation * step
        if not fixed:
            slope, row, given, ahead = work[0], u[c, start:stop], x[c, start:stop], ahead_u[c, start:stop]
            gradient_adjoint(p[0, c], p[1, c], start, stop, width, slope)
            for j in range(stop - start):
                step = share * (weight * (given[j] - row[j]) - tau * slope[j])
                ahead[j] = row[j] + two * step
                row[j] += relaxation * step


@njit(cache=True, nogil=True, fastmath=_MATH)
def _ascend(
    p: Any, q: Any, ahead_u: Any, ahead_w: Any, width: Any, sigma: Any, ratio: Any, relaxation: Any, coupled: bool,
    start: Any, stop: Any, work: Any,
) -> None:  # fmt: skip
    """The dual half of a step: p and q are moved, projected and relaxed."""
    channels, count = _U(p.shape[1]), stop - start
    short, shorter = work[0], work[1]
    unit, zero = type(sigma)(1), type(sigma)(0)
    groups, members = (_U(1), channels) if coupled else (channels, _U(1))
    for g in range(groups):
        for j in range(count):
            short[j] = zero
        for j in range(count):
            shorter[j] = zero
        for m in range(members):
            c, at = g * members + m, _U(2) + _U(5) * m
            a, b = at, at + _U(2)
            symmetrized(ahead_w[0, c], ahead_w[1, c], start, stop, width, work[b : b + _U(3)], work[a])
            gradient(ahead_u[c], start, stop, width, work[a], work[a + _U(1)])
            for k in range(_U(2)):
                moved, own, less = work[a + k], p[k, c, start:stop], ahead_w[k, c, start:stop]
                for j in range(count):
                    moved[j] = own[j] + sigma * (moved[j] - less[j])
                    short[j] += moved[j] * moved[j]
            for k in range(_U(3)):
                moved, own = work[b + k], q[k, c, start:stop]
                for j in range(count):
                    moved[j] = own[j] + sigma * moved[j]
                    shorter[j] += moved[j] * moved[j]
        for j in range(count):
            short[j] = unit / np.sqrt(max(short[j], unit))
        for j in range(count):
            shorter[j] = ratio / np.sqrt(max(shorter[j], ratio * ratio))
        for m in range(members):
            c, at = g * members + m, _U(2) + _U(5) * m
            for k in range(_U(2)):
                moved, own = work[at + k], p[k, c, start:stop]
                for j in range(count):
                    own[j] += relaxation * (short[j] * moved[j] - own[j])
            for k in range(_U(3)):
                moved, own = work[at + _U(2) + k], q[k, c, start:stop]
                for j in range(count):
                    own[j] += relaxation * (shorter[j] * moved[j] - own[j])


@njit(cache=True, nogil=True, fastmath=_MATH)
def _feasible(q: Any, width: Any, ratio: Any, coupled: bool, inside: Any, back: Any, length: Any) -> Any:
    """inside = q with its vectors shortened to the ratio, back = E^T of it; returns its largest length."""
    channels, size = _U(q.shape[1]), _U(q.shape[2])
    zero, longest = type(ratio)(0), type(ratio)(0)
    groups, members = (_U(1), channels) if coupled else (channels, _U(1))
    for g in range(groups):
        for j in range(size):
            length[j] = zero
        for m in range(members):
            for k in range(_U(3)):
                row = q[k, g * members + m]
                for j in range(size):
                    length[j] += row[j] * row[j]
        for j in range(size):
            length[j] = ratio / np.sqrt(max(length[j], ratio * ratio))
        for m in range(members):
            for k in range(_U(3)):
                row, out = q[k, g * members + m], inside[k, g * members + m]
                for j in range(size):
                    out[j] = length[j] * row[j]
        for j in range(size):
            length[j] = zero
        for m in range(members):
            c = g * members + m
            symmetrized_adjoint(inside[0, c], inside[1, c], inside[2, c], _U(0), size, width, back[0, c], back[1, c])
            for k in range(_U(2)):
                row = back[k, c]
                for j in range(size):
                    length[j] += row[j] * row[j]
        for j in range(size):
            longest = max(longest, length[j])
    return np.sqrt(longest)


@njit(cache=True, nogil=True, fastmath=_MATH)
def _gap(
    u: Any, w: Any, q: Any, x: Any, width: Any, step: Any, ratio: Any, coupled: bool, fixed: bool, inside: Any,
    back: Any, length: Any, lines: Any, work: Any,
) -> tuple[float, float]:  # fmt: skip
    """Duality gap and primal value of the whole image, as sums of terms that are not negative."""
    channels, size = _U(x.shape[0]), _U(x.shape[1])
    unit, zero = type(step)(1), type(step)(0)
    shrink = unit / max(_feasible(q, width, ratio, coupled, inside, back, length), unit)
    gap, value = 0.0, 0.0
    groups, members = (_U(1), channels) if coupled else (channels, _U(1))
    for start in range(_U(0), size, lines):
        stop = min(start + lines, size)
        count = stop - start
        for g in range(groups):
            for k in range(_U(4)):
                row = work[k]
                for j in range(count):
                    row[j] = zero
            moved, rest = zero, zero
            for m in range(members):
                c = g * members + m
                symmetrized(w[0, c], w[1, c], start, stop, width, work[6:9], work[4])
                gradient(u[c], start, stop, width, work[4], work[5])
                for k in range(_U(2)):
                    slope, less, dual = work[_U(4) + k], w[k, c, start:stop], back[k, c, start:stop]
                    lengths, products = work[0], work[1]
                    for j in range(count):
                        left = slope[j] - less[j]
                        lengths[j] += left * left
                        products[j] += dual[j] * left
                for k in range(_U(3)):
                    slope, dual = work[_U(6) + k], inside[k, c, start:stop]
                    lengths, products = work[2], work[3]
                    for j in range(count):
                        lengths[j] += slope[j] * slope[j]
                        products[j] += dual[j] * slope[j]
                if not fixed:
                    slope, row, given = work[4], u[c, start:stop], x[c, start:stop]
                    gradient_adjoint(back[0, c], back[1, c], start, stop, width, slope)
                    for j in range(count):
                        change = row[j] - given[j]
                        left = change + step * shrink * slope[j]
                        moved += change * change
                        rest += left * left
            rough, flat, bent, straight = work[0], work[1], work[2], work[3]
            worth, slack = zero, zero
            for j in range(count):
                first, second = np.sqrt(rough[j]), ratio * np.sqrt(bent[j])
                worth += first + second
                slack += (first - shrink * flat[j]) + (second - shrink * straight[j])
            value += step * worth + type(step)(0.5) * moved
            gap += step * slack + type(step)(0.5) * rest
    return max(gap, 0.0), value


@njit(cache=True, nogil=True, fastmath=_MATH)
def minimise_image(
    x: Any, width: int, u: Any, w: Any, p: Any, q: Any, step: Any, ratio: Any, tau: Any, sigma: Any, weight: Any,
    relaxation: Any, least: float, tolerance: float, least_tolerance: float, shrink: float, warm: bool,
    max_steps: int, check_every: int, coupled: bool, fixed: bool,
) -> float:  # fmt: skip
    """One image x (C, H W): u, w, p and q, the start, are overwritten; returns the value of the problem."""
    channels, size, across = _U(x.shape[0]), _U(x.shape[1]), _U(width)
    lines = min(size, across * max(_U(1), (_U(BLOCK) + across - _U(1)) // across))
    ahead_u, ahead_w = u.copy(), np.empty_like(w)
    inside, back, length = np.empty_like(q), np.empty_like(w), np.empty_like(x[0])
    work = np.empty((max(_U(2) + _U(5) * channels, _U(9)), lines), x.dtype)
    value, wanted = 0.0, np.inf
    for iteration in range(max_steps + 1):
        if iteration % check_every == 0 or iteration == max_steps:
            gap, value = _gap(u, w, q, x, across, step, ratio, coupled, fixed, inside, back, length, lines, work)
            if warm and iteration == 0:
                wanted = shrink * gap
            unit = max(value, least)
            if gap <= min(tolerance * unit, max(wanted, least_tolerance * unit)) or iteration == max_steps:
                break
        # The dual half of a block needs the primal half of the next line, which needs what the dual half overwrites.
        for start in range(_U(0), size + lines, lines):
            if start < size:
                _descend(
                    u, w, p, q, x, across, tau, weight, relaxation, fixed, ahead_u, ahead_w,
                    start, min(start + lines, size), work,
                )  # fmt: skip
            if start > _U(0):
                _ascend(
                    p, q, ahead_u, ahead_w, across, sigma, ratio, relaxation, coupled,
                    start - lines, min(start, size), work,
                )  # fmt: skip
    return value
