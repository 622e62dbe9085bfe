"""Differences of one channel of an image and of its gradient, and their adjoints, compiled by numba.

A channel is one row of numbers, line after line of the image, and is taken from `start` to `stop`, both at the
beginning of a line. Differences across the border are zero in all that is given to the adjoints, which rely on it.
Indices are unsigned: numba's test for negative indices would keep the loops from being vectorised.
"""

from typing import Any

import numpy as np
from numba import njit

_U = np.uintp
_MATH = {"contract", "reassoc", "nsz", "arcp"}


@njit(cache=True, nogil=True, fastmath=_MATH)
def _zero_columns(out: Any, width: Any, last: Any) -> None:
    """Zero the last columns of some lines."""
    column = width - min(last, width)
    for k in range(column, width):
        for j in range(k, _U(len(out)), width):
            out[j] = type(out[0])(0)


@njit(cache=True, nogil=True, fastmath=_MATH)
def _below(x: Any, start: Any, stop: Any, shift: Any, end: Any, out: Any) -> None:
    """out = x[k + shift] - x[k] from start to stop, zero behind end."""
    inside = max(min(stop, end), start) - start
    here, there = x[start : start + inside], x[start + shift : start + shift + inside]
    for j in range(inside):
        out[j] = there[j] - here[j]
    for j in range(inside, stop - start):
        out[j] = type(out[0])(0)


@njit(cache=True, nogil=True, fastmath=_MATH)
def _add_earlier(out: Any, x: Any, start: Any, stop: Any, shift: Any, factor: Any) -> None:
    """out += factor x[k - shift] from start to stop, nothing before the image."""
    first = max(start, shift)
    if first < stop:
        target, source = out[first - start : stop - start], x[first - shift : stop - shift]
        for j in range(_U(len(source))):
            target[j] += factor * source[j]


@njit(cache=True, nogil=True, fastmath=_MATH)
def gradient(u: Any, start: Any, stop: Any, width: Any, out0: Any, out1: Any) -> None:
    """K u of one channel."""
    size, one = _U(len(u)), _U(1)
    _below(u, start, stop, width, size - width, out0)
    _below(u, start, stop, one, size - one, out1)
    _zero_columns(out1, width, one)


@njit(cache=True, nogil=True, fastmath=_MATH)
def gradient_adjoint(p0: Any, p1: Any, start: Any, stop: Any, width: Any, out: Any) -> None:
    """K^T p of one channel."""
    here0, here1, unit = p0[start:stop], p1[start:stop], type(p0[0])(1)
    for j in range(stop - start):
        out[j] = -here0[j] - here1[j]
    _add_earlier(out, p0, start, stop, width, unit)
    _add_earlier(out, p1, start, stop, _U(1), unit)


@njit(cache=True, nogil=True, fastmath=_MATH)
def symmetrized(w0: Any, w1: Any, start: Any, stop: Any, width: Any, out: Any, work: Any) -> None:
    """E w of one channel."""
    out0, out1, out2 = out[0], out[1], out[2]
    size, one = _U(len(w0)), _U(1)
    half = type(w0[0])(0.5**0.5)
    _below(w0, start, stop, width, size - min(width + width, size), out0)
    _below(w1, start, stop, one, size - one, out1)
    _zero_columns(out1, width, one + one)
    _below(w0, start, stop, one, size - one, work)
    _below(w1, start, stop, width, size - width, out2)
    for j in range(stop - start):
        out2[j] = half * (out2[j] + work[j])
    _zero_columns(out2, width, one)
    for j in range(max(size - width, start), stop):
        out2[j - start] = type(half)(0)


@njit(cache=True, nogil=True, fastmath=_MATH)
def symmetrized_adjoint(q0: Any, q1: Any, q2: Any, start: Any, stop: Any, width: Any, out0: Any, out1: Any) -> None:
    """E^T q of one channel."""
    here0, here1, here2 = q0[start:stop], q1[start:stop], q2[start:stop]
    unit, half, one = type(q0[0])(1), type(q0[0])(0.5**0.5), _U(1)
    for j in range(stop - start):
        out0[j] = -here0[j] - half * here2[j]
    for j in range(stop - start):
        out1[j] = -here1[j] - half * here2[j]
    _add_earlier(out0, q0, start, stop, width, unit)
    _add_earlier(out0, q2, start, stop, one, half)
    _add_earlier(out1, q1, start, stop, one, unit)
    _add_earlier(out1, q2, start, stop, width, half)
