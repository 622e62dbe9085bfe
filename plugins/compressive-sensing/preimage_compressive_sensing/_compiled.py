"""Products of a dense matrix with several vectors, compiled by numba, whose rounding is that of one vector alone.

A library's matrix product adds in another order for one vector than for two. Here every vector goes through the same
loops, whatever stands beside it; a part of the matrix stays in the cache while all vectors use it. Indices are
unsigned: numba's test for negative indices would keep the loops from being vectorised.
"""

from typing import Any

import numpy as np
from numba import njit

_U = np.uintp

CHUNK = 1024
"""Entries of a row that stay in the cache: a constant, for it decides in which order `multiply` adds."""


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _four_dots(a: Any, p: Any, n: Any, x: Any, q: Any, count: Any, out: Any, to: Any) -> None:
    """out[to + t] += sum_k a[p + t n + k] x[q + k] for t < 4, k < count."""
    p1, p2, p3 = p + n, p + _U(2) * n, p + _U(3) * n
    s0 = s1 = s2 = s3 = x.dtype.type(0)
    for k in range(count):
        v = x[q + k]
        s0 += a[p + k] * v
        s1 += a[p1 + k] * v
        s2 += a[p2 + k] * v
        s3 += a[p3 + k] * v
    out[to] += s0
    out[to + _U(1)] += s1
    out[to + _U(2)] += s2
    out[to + _U(3)] += s3


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _dot(a: Any, p: Any, x: Any, q: Any, count: Any, out: Any, to: Any) -> None:
    s = x.dtype.type(0)
    for k in range(count):
        s += a[p + k] * x[q + k]
    out[to] += s


@njit(cache=True, nogil=True)
def multiply(a: Any, m: Any, n: Any, x: Any, out: Any, begin: Any, end: Any) -> None:
    """out[i, r] = sum_k a[r, k] x[i, k] for the rows r from begin, a multiple of four, to end; out is zero before."""
    images, r = _U(len(x) // n), begin
    while r < end:
        k = _U(0)
        while k < n:
            count = min(_U(CHUNK), n - k)
            for i in range(images):
                if r + _U(4) <= m:
                    _four_dots(a, r * n + k, n, x, i * n + k, count, out, i * m + r)
                else:
                    for t in range(r, m):
                        _dot(a, t * n + k, x, i * n + k, count, out, i * m + t)
            k += _U(CHUNK)
        r += _U(4)


@njit(cache=True, nogil=True, fastmath={"contract"})
def _add_eight(a: Any, p: Any, n: Any, y: Any, at: Any, out: Any, q: Any, count: Any) -> None:
    """out[q + k] += sum over t < 8 of y[at + t] a[p + t n + k], for k < count."""
    p1, p2, p3, p4 = p + n, p + _U(2) * n, p + _U(3) * n, p + _U(4) * n
    p5, p6, p7 = p4 + n, p4 + _U(2) * n, p4 + _U(3) * n
    y0, y1, y2, y3 = y[at], y[at + _U(1)], y[at + _U(2)], y[at + _U(3)]
    y4, y5, y6, y7 = y[at + _U(4)], y[at + _U(5)], y[at + _U(6)], y[at + _U(7)]
    for k in range(count):
        out[q + k] += (y0 * a[p + k] + y1 * a[p1 + k] + y2 * a[p2 + k] + y3 * a[p3 + k]) + (
            y4 * a[p4 + k] + y5 * a[p5 + k] + y6 * a[p6 + k] + y7 * a[p7 + k]
        )


@njit(cache=True, nogil=True, fastmath={"contract"})
def _add(a: Any, p: Any, weight: Any, out: Any, q: Any, count: Any) -> None:
    for k in range(count):
        out[q + k] += weight * a[p + k]


@njit(cache=True, nogil=True)
def multiply_transposed(a: Any, m: Any, n: Any, y: Any, out: Any, begin: Any, end: Any, width: Any) -> None:
    """out[i, k] = sum_r a[r, k] y[i, r] for the columns k from begin to end, `width` of them at a time; out is zero.

    Columns do not meet, so the width changes no result.
    """
    images, k = _U(len(y) // m), begin
    while k < end:
        count = min(width, end - k)
        r = _U(0)
        while r < m:
            for i in range(images):
                if r + _U(8) <= m:
                    _add_eight(a, r * n + k, n, y, i * m + r, out, i * n + k, count)
                else:
                    for t in range(r, m):
                        _add(a, t * n + k, y[i * m + t], out, i * n + k, count)
            r += _U(8)
        k += width
