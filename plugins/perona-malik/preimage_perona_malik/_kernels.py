"""The scheme of `_scheme`, compiled for the CPU.

An image is stored with one more row and column, which repeat the border (no flux) or the opposite side (circular), so
that a block of whole rows is one stretch of memory and its differences to the next row and column are differences
with the stretch shifted. Every loop that counts runs without a branch over some thousand numbers in the first-level
cache, whatever the width of the image, and compilers turn it into vector instructions. Fluxes exist for one block at a
time.

Arrays: `u`, `p`: (C, (H + 1)(W + 1)), the padded image and tangent; `flux_x`: (C, P + block), `flux_y`: (C, 1 + block),
where P = W + 1 and the leading P and 1 entries are the fluxes that come into the block. Inner loops see contiguous
one-dimensional slices only: with any other layout they would not be vectorised.
"""

# pyright: basic, reportUnknownParameterType=false, reportMissingParameterType=false, reportIndexIssue=false
import numba
import numpy as np

BLOCK = 2048
"""Numbers in a block of rows: the arrays that are read and written for it fit into a first-level cache in float32."""

# Numba compiles a function once more for every literal argument. Where flags are passed as `yes` and `no`, and 0 as
# P - P, it is to keep them variables: compiling takes seconds.

# Python's error model would check every division for zero, one at a time. Contraction (fused multiply-add) changes
# no more than the last digit; assumptions about NaN and infinity are not made.
_jit = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz"})


@_jit
def _point(u, P, start, count, gain, h, all_x, all_y, into):
    one = u.dtype.type(1)
    flux_x, flux_y = all_x[into : into + count], all_y[1 : 1 + count]
    here, down, right = u[start : start + count], u[start + P :], u[start + 1 :]
    for j in range(count):
        a, b = down[j] - here[j], right[j] - here[j]
        g = h / (one + gain * (a * a + b * b))
        flux_x[j], flux_y[j] = g * a, g * b


@_jit
def _edge(u, P, start, count, gain, h, all_x, all_y, into):
    one = u.dtype.type(1)
    flux_x, flux_y = all_x[into : into + count], all_y[1 : 1 + count]
    here, down, right = u[start : start + count], u[start + P :], u[start + 1 :]
    for j in range(count):
        a, b = down[j] - here[j], right[j] - here[j]
        flux_x[j], flux_y[j] = h * a / (one + gain * (a * a)), h * b / (one + gain * (b * b))


@_jit
def _point_derivative(u, p, P, start, count, gain, h, all_x, all_y, into):
    one = u.dtype.type(1)
    flux_x, flux_y = all_x[into : into + count], all_y[1 : 1 + count]
    here, down, right = u[start : start + count], u[start + P :], u[start + 1 :]
    p_here, p_down, p_right = p[start : start + count], p[start + P :], p[start + 1 :]
    for j in range(count):
        a, b = down[j] - here[j], right[j] - here[j]
        c, d = p_down[j] - p_here[j], p_right[j] - p_here[j]
        g = one / (one + gain * (a * a + b * b))
        t = (gain + gain) * g * (a * c + b * d)
        flux_x[j], flux_y[j] = h * g * (c - t * a), h * g * (d - t * b)


@_jit
def _edge_derivative(u, p, P, start, count, gain, h, all_x, all_y, into):
    one = u.dtype.type(1)
    flux_x, flux_y = all_x[into : into + count], all_y[1 : 1 + count]
    here, down, right = u[start : start + count], u[start + P :], u[start + 1 :]
    p_here, p_down, p_right = p[start : start + count], p[start + P :], p[start + 1 :]
    for j in range(count):
        a, b = down[j] - here[j], right[j] - here[j]
        c, d = p_down[j] - p_here[j], p_right[j] - p_here[j]
        g_x, g_y = one / (one + gain * (a * a)), one / (one + gain * (b * b))
        # d/da of g(a) a is g - 2 gain g^2 a^2 = g^2 (1 - gain a^2).
        flux_x[j] = h * g_x * g_x * (one - gain * (a * a)) * c
        flux_y[j] = h * g_y * g_y * (one - gain * (b * b)) * d


@_jit
def _coupled(u, p, derivative, edges, P, start, count, gain, h, flux_x, flux_y, into, work):
    """Both kinds of diffusivity, from the sum of squares over the channels: (flux_x, flux_y)[c] for each channel c."""
    one = u.dtype.type(1)
    g_x, g_y, t_x, t_y = work[0][:count], work[1][:count], work[2][:count], work[3][:count]
    for j in range(count):
        g_x[j], g_y[j], t_x[j], t_y[j] = 0, 0, 0, 0
    for c in range(len(u)):
        here, down, right = u[c][start : start + count], u[c][start + P :], u[c][start + 1 :]
        for j in range(count):
            a, b = down[j] - here[j], right[j] - here[j]
            g_x[j] += a * a
            g_y[j] += b * b
        if derivative:
            p_here, p_down, p_right = p[c][start : start + count], p[c][start + P :], p[c][start + 1 :]
            for j in range(count):
                t_x[j] += (down[j] - here[j]) * (p_down[j] - p_here[j])
                t_y[j] += (right[j] - here[j]) * (p_right[j] - p_here[j])
    if not edges:
        for j in range(count):
            g_x[j] += g_y[j]
            t_x[j] += t_y[j]
        g_y, t_y = g_x, t_x
    for c in range(len(u)):
        here, down, right = u[c][start : start + count], u[c][start + P :], u[c][start + 1 :]
        p_here, p_down, p_right = p[c][start : start + count], p[c][start + P :], p[c][start + 1 :]
        f_x, f_y = flux_x[c][into : into + count], flux_y[c][1 : 1 + count]
        if derivative:
            for j in range(count):
                g = one / (one + gain * g_x[j])
                f_x[j] = h * g * (p_down[j] - p_here[j] - (gain + gain) * g * t_x[j] * (down[j] - here[j]))
            for j in range(count):
                g = one / (one + gain * g_y[j])
                f_y[j] = h * g * (p_right[j] - p_here[j] - (gain + gain) * g * t_y[j] * (right[j] - here[j]))
        else:
            for j in range(count):
                f_x[j] = h * (down[j] - here[j]) / (one + gain * g_x[j])
            for j in range(count):
                f_y[j] = h * (right[j] - here[j]) / (one + gain * g_y[j])


@_jit
def _fluxes(u, p, derivative, edges, P, start, count, gain, h, flux_x, flux_y, into, work):
    """h times the flux, or its derivative in direction p, at `count` places from `start`; put at `into` and at 1."""
    if len(u) > 1:
        _coupled(u, p, derivative, edges, P, start, count, gain, h, flux_x, flux_y, into, work)
    elif derivative and edges:
        _edge_derivative(u[0], p[0], P, start, count, gain, h, flux_x[0], flux_y[0], into)
    elif derivative:
        _point_derivative(u[0], p[0], P, start, count, gain, h, flux_x[0], flux_y[0], into)
    elif edges:
        _edge(u[0], P, start, count, gain, h, flux_x[0], flux_y[0], into)
    else:
        _point(u[0], P, start, count, gain, h, flux_x[0], flux_y[0], into)


@_jit
def _border(u, H, P, circular):
    """Fill in the additional row and column."""
    for c in range(len(u)):
        row = u[c]
        for r in range(H):
            row[r * P + P - 1] = row[r * P] if circular else row[r * P + P - 2]
        source = 0 if circular else (H - 1) * P
        for j in range(P):
            row[H * P + j] = row[source + j]


@_jit
def _euler(u, p, old, out, derivative, average, form, room):
    """out = E(u), or E'(u) p if `derivative`; out = (old + that) / 2 if `average`. `out` is none of the others."""
    H, P, circular, edges, gain, h = form
    flux_x, flux_y, work = room
    half = u.dtype.type(0.5)
    if circular:
        _fluxes(u, p, derivative, edges, P, (H - 1) * P, P, gain, h, flux_x, flux_y, P - P, work)
    else:
        flux_x[:, :P] = 0
    rows = (flux_x.shape[1] - P) // P
    for first in range(0, H, rows):
        start, many = first * P, min(rows, H - first)
        count = many * P
        _fluxes(u, p, derivative, edges, P, start, count, gain, h, flux_x, flux_y, P, work)
        for c in range(len(u)):
            f_x, f_y = flux_x[c], flux_y[c]
            for r in range(many):
                # What comes into column 0 stands where the additional column of the row above has left a number.
                f_y[r * P] = f_y[r * P + P - 1] if circular else 0
            end = start + count
            base, before, to = p[c][start:end], old[c][start:end], out[c][start:end]
            f_x_out, f_y_out = f_x[P:], f_y[1:]
            if average:
                for j in range(count):
                    to[j] = half * (before[j] + (base[j] + ((f_x_out[j] - f_x[j]) + (f_y_out[j] - f_y[j]))))
            else:
                for j in range(count):
                    to[j] = base[j] + ((f_x_out[j] - f_x[j]) + (f_y_out[j] - f_y[j]))
            for j in range(P):
                f_x[j] = f_x[count + j]
    _border(out, H, P, circular)


@_jit
def _room(C, H, P, like):
    rows = max(1, min(H, BLOCK // P))
    return (
        np.empty((C, (rows + 1) * P), like.dtype),
        np.empty((C, rows * P + 1), like.dtype),
        np.empty((4, rows * P), like.dtype) if C > 1 else np.empty((4, 0), like.dtype),
    )


@_jit
def _take(image, u, H, P, circular):
    for c in range(len(u)):
        for r in range(H):
            for j in range(P - 1):
                u[c, r * P + j] = image[c, r, j]
    _border(u, H, P, circular)


@_jit
def _give(u, image, H, P):
    for c in range(len(u)):
        for r in range(H):
            for j in range(P - 1):
                image[c, r, j] = u[c, r * P + j]


@_jit
def sweep(x, y, v, z, states, keep, tangent, steps, circular, edges, gain, h, first, last):
    """y = F(x), and z = F'(x) v if `tangent`, for the images first .. last - 1.

    - `x`, `y`, and `v`, `z` if used: (B, C, H, W).
    - `states`: (B, 2 steps, C, (H + 1)(W + 1)) if they are to be kept, else anything of the same type.
    """
    _, C, H, W = x.shape
    P = W + 1
    yes, no = H >= 0, H < 0
    form, room = (H, P, circular, edges, gain, h), _room(C, H, P, x)
    size = (H + 1) * P
    ring = np.empty((0 if keep else 4, C, size), x.dtype)
    tangents = np.empty((3 if tangent else 0, C, size), x.dtype)
    end = np.empty((C, size), x.dtype)
    for i in range(first, last):
        points = states[i] if keep else ring
        _take(x[i], points[0], H, P, circular)
        if tangent:
            _take(v[i], tangents[0], H, P, circular)
        for k in range(steps):
            u, middle = points[(2 * k) % len(points)], points[(2 * k + 1) % len(points)]
            out = end if k == steps - 1 else points[(2 * k + 2) % len(points)]
            _euler(u, u, u, middle, no, no, form, room)
            if not tangent or k < steps - 1:
                _euler(middle, middle, u, out, no, yes, form, room)
            if tangent:
                p, p_out = tangents[2 * (k % 2)], tangents[2 * ((k + 1) % 2)]
                _euler(u, p, p, tangents[1], yes, no, form, room)
                _euler(middle, tangents[1], p, p_out, yes, yes, form, room)
        if tangent:
            _give(tangents[2 * (steps % 2)], z[i], H, P)
        else:
            _give(end, y[i], H, P)


@_jit
def derivative_sweep(states, w, z, backward, steps, circular, edges, gain, h, first, last):
    """z = F'(x)^T w if `backward`, else F'(x) w, from kept states, for the images first .. last - 1."""
    _, C, H, W = w.shape
    P = W + 1
    yes, no = H >= 0, H < 0
    form, room = (H, P, circular, edges, gain, h), _room(C, H, P, w)
    tangents = np.empty((3, C, (H + 1) * P), w.dtype)
    for i in range(first, last):
        _take(w[i], tangents[0], H, P, circular)
        for k in range(steps):
            p, out = tangents[2 * (k % 2)], tangents[2 * ((k + 1) % 2)]
            stage = 2 * (steps - 1 - k) if backward else 2 * k
            one, two = (stage + 1, stage) if backward else (stage, stage + 1)
            _euler(states[i, one], p, p, tangents[1], yes, no, form, room)
            _euler(states[i, two], tangents[1], p, out, yes, yes, form, room)
        _give(tangents[2 * (steps % 2)], z[i], H, P)
