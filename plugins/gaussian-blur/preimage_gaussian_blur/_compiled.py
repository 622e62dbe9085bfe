"""The blur of many images of one shape, compiled by numba: one pass, rows of the image stay in the cache.

For each row of the output, rows of the input are combined first (vertical blur) into a buffer with room at both ends,
and the buffer is then blurred along itself. Indices are unsigned throughout: numba's test for negative indices would
keep the loops from being vectorised.
"""

from typing import Any

import numpy as np
from numba import njit

_U = np.uintp


@njit(cache=True, nogil=True, fastmath={"contract"})
def _convolve(out: Any, at: Any, source: Any, centre: Any, stride: Any, count: Any, w: Any) -> None:
    """out[at + j] = sum_k w_|k| source[centre + j + k stride], for j < count. Five pairs of weights at a time."""
    radius = _U(len(w) - 1)
    k = _U(0)
    w0 = w[0]
    if radius >= _U(5):
        k = _U(5)
        w1, w2, w3, w4, w5 = w[1], w[2], w[3], w[4], w[5]
        s1, s2, s3, s4, s5 = stride, _U(2) * stride, _U(3) * stride, _U(4) * stride, _U(5) * stride
        for j in range(count):
            p = centre + j
            out[at + j] = (
                (w0 * source[p] + w1 * source[p - s1] + w1 * source[p + s1])
                + (w2 * source[p - s2] + w2 * source[p + s2] + w3 * source[p - s3] + w3 * source[p + s3])
                + (w4 * source[p - s4] + w4 * source[p + s4] + w5 * source[p - s5] + w5 * source[p + s5])
            )
    else:
        for j in range(count):
            out[at + j] = w0 * source[centre + j]
    while k + _U(4) < radius:
        w1, w2, w3, w4, w5 = w[k + _U(1)], w[k + _U(2)], w[k + _U(3)], w[k + _U(4)], w[k + _U(5)]
        s1, s2, s3 = (k + _U(1)) * stride, (k + _U(2)) * stride, (k + _U(3)) * stride
        s4, s5 = (k + _U(4)) * stride, (k + _U(5)) * stride
        for j in range(count):
            p = centre + j
            out[at + j] += (
                (w1 * source[p - s1] + w1 * source[p + s1])
                + (w2 * source[p - s2] + w2 * source[p + s2] + w3 * source[p - s3] + w3 * source[p + s3])
                + (w4 * source[p - s4] + w4 * source[p + s4] + w5 * source[p - s5] + w5 * source[p + s5])
            )
        k += _U(5)
    while k + _U(1) < radius:
        w1, w2 = w[k + _U(1)], w[k + _U(2)]
        s1, s2 = (k + _U(1)) * stride, (k + _U(2)) * stride
        for j in range(count):
            p = centre + j
            out[at + j] += w1 * source[p - s1] + w1 * source[p + s1] + w2 * source[p - s2] + w2 * source[p + s2]
        k += _U(2)
    if k < radius:
        w1, s1 = w[radius], radius * stride
        for j in range(count):
            p = centre + j
            out[at + j] += w1 * source[p - s1] + w1 * source[p + s1]


@njit(cache=True, nogil=True, fastmath={"contract"})
def _combine(
    out: Any, at: Any, source: Any, base: Any, width: Any, neighbour: Any, weight: Any, t: Any, end: Any
) -> None:
    """out[at + j] = sum of weight[t] times row neighbour[t] of the image at `base`, t < end. Four at a time."""
    w0, p0 = weight[t], base + _U(neighbour[t]) * width
    for j in range(width):
        out[at + j] = w0 * source[p0 + j]
    t += 1
    while t + 4 <= end:
        w0, w1, w2, w3 = weight[t], weight[t + 1], weight[t + 2], weight[t + 3]
        p0, p1 = base + _U(neighbour[t]) * width, base + _U(neighbour[t + 1]) * width
        p2, p3 = base + _U(neighbour[t + 2]) * width, base + _U(neighbour[t + 3]) * width
        for j in range(width):
            out[at + j] += (w0 * source[p0 + j] + w1 * source[p1 + j]) + (w2 * source[p2 + j] + w3 * source[p3 + j])
        t += 4
    while t < end:
        w0, p0 = weight[t], base + _U(neighbour[t]) * width
        for j in range(width):
            out[at + j] += w0 * source[p0 + j]
        t += 1


@njit(cache=True, nogil=True, fastmath={"contract"})
def blur_rows(
    source: Any,
    out: Any,
    height: int,
    width: int,
    w: Any,
    first: int,
    last: int,
    start: Any,
    neighbour: Any,
    weight: Any,
    outside: Any,
    fold: bool,
    begin: int,
    end: int,
) -> None:
    """Rows begin, ..., end - 1 of the blurred images, counted over all images.

    - `source`, `out`: (images * height * width,). `w`: w_0, ..., w_r.
    - `first` to `weight`: the border rows of the vertical matrix (`matrix.Border`), each a sum of other rows.
    - `outside`: the columns that stand to the left and right of a row (`matrix.extension` without its middle), empty
      for zeros.
    - `fold`: the transposed horizontal matrix: what the blur spreads outside is added to the columns that stand there.
    """
    r = _U(len(w) - 1)
    rows, columns = _U(height), _U(width)
    pad = r + r if fold else r
    buffer = np.zeros(columns + pad + pad, source.dtype)
    spread = np.zeros(columns + r + r, source.dtype)
    sides = _U(len(outside)) // _U(2)
    for line in range(_U(begin), _U(end)):
        i = line % rows
        image = (line - i) * columns
        if i >= _U(first) and i < _U(last):
            _convolve(buffer, pad, source, line * columns, columns, columns, w)
        else:
            b = i if i < _U(first) else i - _U(last) + _U(first)
            _combine(buffer, pad, source, image, columns, neighbour, weight, start[b], start[b + _U(1)])
        if fold:
            _convolve(spread, _U(0), buffer, r, _U(1), columns + r + r, w)
            for q in range(r):
                spread[r + _U(outside[q])] += spread[q]
                spread[r + _U(outside[r + q])] += spread[r + columns + q]
            for j in range(columns):
                out[line * columns + j] = spread[r + j]
        else:
            for q in range(sides):
                buffer[q] = buffer[r + _U(outside[q])]
                buffer[r + columns + q] = buffer[r + _U(outside[r + q])]
            _convolve(out, line * columns, buffer, r, _U(1), columns, w)
