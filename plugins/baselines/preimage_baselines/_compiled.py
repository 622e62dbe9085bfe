"""The proximal map of total variation of one image, compiled by numba: the same algorithm as in PyTorch.

An image and its dual variables stay in the cache from the first iteration to the last. Indices are unsigned: numba's
test for negative indices would keep the loops from being vectorised.
"""

from typing import Any

import numpy as np
from numba import njit

_U = np.uintp
_MATH = {"contract", "reassoc", "nsz", "arcp"}


@njit(cache=True, nogil=True, fastmath=_MATH)
def _primal(u: Any, x: Any, down: Any, along: Any, step: Any) -> None:
    """u = x - step K^T (down, along)."""
    height, width = _U(u.shape[0]), _U(u.shape[1])
    one = _U(1)
    for i in range(height):
        out, given, here, side = u[i], x[i], down[i], along[i]
        for j in range(width):
            out[j] = given[j] + step * (here[j] + side[j])
        for j in range(one, width):
            out[j] -= step * side[j - one]
        if i > _U(0):
            above = down[i - one]
            for j in range(width):
                out[j] -= step * above[j]


@njit(cache=True, nogil=True, fastmath=_MATH)
def _ascend(u: Any, p0: Any, p1: Any, q0: Any, q1: Any, new0: Any, new1: Any, scale: Any, isotropic: bool) -> float:
    """new = projection of q + scale K u; returns <q - new, new - p>. One channel; 0 down the rows, 1 along them."""
    height, width = _U(u.shape[0]), _U(u.shape[1])
    one = _U(1)
    total = 0.0
    for i in range(height):
        row, below = u[i], u[min(i + one, height - one)]
        down, along = new0[i], new1[i]
        old0, old1, ahead0, ahead1 = p0[i], p1[i], q0[i], q1[i]
        for j in range(width):
            down[j] = ahead0[j] + scale * (below[j] - row[j])
        for j in range(width - one):
            along[j] = ahead1[j] + scale * (row[j + one] - row[j])
        along[width - one] = ahead1[width - one]
        if isotropic:
            for j in range(width):
                a, b = down[j], along[j]
                short = type(scale)(1) / np.sqrt(max(a * a + b * b, type(scale)(1)))
                down[j] = a * short
                along[j] = b * short
        else:
            for j in range(width):
                down[j] = min(max(down[j], type(scale)(-1)), type(scale)(1))
                along[j] = min(max(along[j], type(scale)(-1)), type(scale)(1))
        part = scale * type(scale)(0)
        for j in range(width):
            part += (ahead0[j] - down[j]) * (down[j] - old0[j]) + (ahead1[j] - along[j]) * (along[j] - old1[j])
        total += part
    return total


@njit(cache=True, nogil=True, fastmath=_MATH)
def _gap(u: Any, x: Any, p0: Any, p1: Any, step: Any, isotropic: bool) -> tuple[float, float]:
    """Duality gap and primal value of one channel."""
    height, width = _U(u.shape[0]), _U(u.shape[1])
    one = _U(1)
    gap, value = 0.0, 0.0
    for i in range(height):
        row, below, given, down, along = u[i], u[min(i + one, height - one)], x[i], p0[i], p1[i]
        rough, slack, far = step * type(step)(0), step * type(step)(0), step * type(step)(0)
        for j in range(width - one):
            a, b = below[j] - row[j], row[j + one] - row[j]
            length = np.sqrt(a * a + b * b) if isotropic else abs(a) + abs(b)
            rough += length
            slack += length - (a * down[j] + b * along[j])
        a = below[width - one] - row[width - one]
        rough += abs(a)
        slack += abs(a) - a * down[width - one]
        for j in range(width):
            far += (row[j] - given[j]) ** 2
        gap += step * slack
        value += step * rough + 0.5 * far
    return gap, value


@njit(cache=True, nogil=True, fastmath=_MATH)
def dual_prox_image(
    x: Any, p: Any, u: Any, step: Any, bound: Any, tolerance: float, max_steps: int, check_every: int, isotropic: bool
) -> None:
    """One image x (C, H, W) with independent channels: u is written; p (2, C, H, W), the start, is overwritten."""
    channels = _U(x.shape[0])
    q, new = p.copy(), p.copy()
    t = 1.0
    for iteration in range(max_steps + 1):
        if iteration % check_every == 0 or iteration == max_steps:
            gap, value = 0.0, 0.0
            for c in range(channels):
                _primal(u[c], x[c], p[0, c], p[1, c], step)
                more, worth = _gap(u[c], x[c], p[0, c], p[1, c], step, isotropic)
                gap += more
                value += worth
            if gap <= tolerance * value or iteration == max_steps:
                return
        product = 0.0
        scale = type(step)(1) / (bound * step)
        for c in range(channels):
            _primal(u[c], x[c], q[0, c], q[1, c], step)
            product += _ascend(u[c], p[0, c], p[1, c], q[0, c], q[1, c], new[0, c], new[1, c], scale, isotropic)
        momentum = type(step)(0)
        if product > 0:
            t = 1.0
        else:
            larger = 0.5 + np.sqrt(0.25 + t * t)
            momentum = type(step)((t - 1) / larger)
            t = larger
        flat_p, flat_q, flat_new = p.ravel(), q.ravel(), new.ravel()
        for k in range(_U(flat_p.size)):
            flat_q[k] = flat_new[k] + momentum * (flat_new[k] - flat_p[k])
            flat_p[k] = flat_new[k]
