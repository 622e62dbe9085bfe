"""The step of ADMM that follows the update of x, for total variation of one image, compiled by numba: one pass.

The same algorithm as `splitting.split`, whose results agree up to rounding. Indices are unsigned: numba's test for
negative indices would keep the loops from being vectorised.
"""

from typing import Any

import numpy as np
from numba import njit

_U = np.uintp
_MATH = {"contract", "reassoc", "nsz", "arcp"}


@njit(cache=True, nogil=True, fastmath=_MATH)
def _row(
    row: Any, below: Any, z0: Any, z1: Any, u0: Any, u1: Any, d: Any, e: Any, relaxation: Any, threshold: Any,
    isotropic: bool, new_z0: Any, new_z1: Any, new_u0: Any, new_u1: Any, sums: Any,
) -> None:  # fmt: skip
    """One row of the image; `d`, `e` are work space for the differences down and along."""
    width, one = _U(len(row)), _U(1)
    zero, unit = threshold * type(threshold)(0), type(threshold)(1)
    for j in range(width):
        d[j] = below[j] - row[j]
    for j in range(width - one):
        e[j] = row[j + one] - row[j]
    e[width - one] = zero
    old = unit - relaxation
    tiny = type(threshold)(1e-30)
    square_z, square_u, primal, dual = zero, zero, zero, zero
    for j in range(width):
        v0 = relaxation * d[j] + old * z0[j] + u0[j]
        v1 = relaxation * e[j] + old * z1[j] + u1[j]
        if isotropic:
            length = np.sqrt(max(v0 * v0 + v1 * v1, tiny))
            keep0 = max(length - threshold, zero) / length
            keep1 = keep0
        else:
            size0, size1 = max(abs(v0), tiny), max(abs(v1), tiny)
            keep0, keep1 = max(size0 - threshold, zero) / size0, max(size1 - threshold, zero) / size1
        a0, a1 = v0 * keep0, v1 * keep1
        b0, b1 = v0 - a0, v1 - a1
        new_z0[j], new_z1[j], new_u0[j], new_u1[j] = a0, a1, b0, b1
        square_z += a0 * a0 + a1 * a1
        square_u += b0 * b0 + b1 * b1
        primal += (d[j] - a0) ** 2 + (e[j] - a1) ** 2
        dual += (d[j] - z0[j] + u0[j] - b0) ** 2 + (e[j] - z1[j] + u1[j] - b1) ** 2
    sums[0] += square_z
    sums[1] += square_u
    sums[2] += primal
    sums[3] += dual


@njit(cache=True, nogil=True, fastmath=_MATH)
def split_image(
    x: Any,
    z: Any,
    u: Any,
    relaxation: Any,
    threshold: Any,
    isotropic: bool,
    new_z: Any,
    new_u: Any,
    pull: Any,
    sums: Any,
) -> None:
    """One image x (C, H, W) with independent channels, z and u (2, C, H, W).

    Writes `new_z`, `new_u`, `pull` = K^T (new_z - new_u) and `sums`: ||new_z||^2, ||new_u||^2, ||K x - new_z||^2,
    ||K x - z + u - new_u||^2.
    """
    channels, height, width = _U(x.shape[0]), _U(x.shape[1]), _U(x.shape[2])
    one = _U(1)
    d, e = np.empty_like(x[0, 0]), np.empty_like(x[0, 0])
    for c in range(channels):
        for i in range(height):
            below = x[c, min(i + one, height - one)]
            _row(x[c, i], below, z[0, c, i], z[1, c, i], u[0, c, i], u[1, c, i], d, e, relaxation, threshold,
                 isotropic, new_z[0, c, i], new_z[1, c, i], new_u[0, c, i], new_u[1, c, i], sums)  # fmt: skip
            out, z0, z1, u0, u1 = pull[c, i], new_z[0, c, i], new_z[1, c, i], new_u[0, c, i], new_u[1, c, i]
            # The differences across the border are zero, and so are z and u there, at every step from the first.
            for j in range(width):
                out[j] = (u0[j] - z0[j]) + (u1[j] - z1[j])
            for j in range(one, width):
                out[j] += z1[j - one] - u1[j - one]
            if i > _U(0):
                above_z, above_u = new_z[0, c, i - one], new_u[0, c, i - one]
                for j in range(width):
                    out[j] += above_z[j] - above_u[j]
