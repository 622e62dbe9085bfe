"""The scheme, written in plain torch: runs on every device, and torch can differentiate it as often as it likes.

With the gradient D of forward differences, the right-hand side is f(u) = -D^T (g(D u) D u), the negative gradient of
an energy; its Jacobian -D^T H(D u) D, H the Hessian of the energy density, is therefore symmetric, and one routine
serves for F'(x) v and for F'(x)^T w.

A Heun step u + h/2 (f(u) + f(u + h f(u))) is (u + E(E(u)))/2 with the Euler step E(u) = u + h f(u), and that is how
it is computed: E is all there is to implement. `states` are the points u_0, E(u_0), u_1, E(u_1), ... at which f was
evaluated; the derivative of the whole is known from them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Scheme:
    """The numbers and choices that define the diffusion (see `PeronaMalik`).

    - `edges`: one diffusivity for each edge between neighbours rather than for each pixel.
    - `circular`: the image continues periodically, rather than without flux through its border.
    - `coupled`: one diffusivity for all channels.
    """

    steps: int
    step_size: float
    contrast: float
    edges: bool
    circular: bool
    coupled: bool


def flow(x: Tensor, scheme: Scheme, keep: bool) -> tuple[Tensor, Tensor]:
    """F(x), (B, C, H, W), and the states (B, 2 steps, C, H, W), or (B, 0) unless they are to be kept."""
    states: list[Tensor] = []
    u = x
    for _ in range(scheme.steps):
        v = _euler(u, scheme)
        if keep:
            states += [u, v]
        u = (u + _euler(v, scheme)) / 2
    return u, torch.stack(states, 1) if keep else x.new_empty((len(x), 0))


def push(x: Tensor, v: Tensor, scheme: Scheme) -> Tensor:
    """F'(x) v, without keeping the states."""
    u, p = x, v
    for _ in range(scheme.steps):
        middle = _euler(u, scheme)
        p = (p + _euler_derivative(middle, _euler_derivative(u, p, scheme), scheme)) / 2
        u = (u + _euler(middle, scheme)) / 2
    return p


def push_from(states: Tensor, v: Tensor, scheme: Scheme) -> Tensor:
    """F'(x) v from the states of `flow`."""
    for u, middle in _stages(states):
        v = (v + _euler_derivative(middle, _euler_derivative(u, v, scheme), scheme)) / 2
    return v


def pull(states: Tensor, w: Tensor, scheme: Scheme) -> Tensor:
    """F'(x)^T w from the states of `flow`."""
    for u, middle in reversed(_stages(states)):
        w = (w + _euler_derivative(u, _euler_derivative(middle, w, scheme), scheme)) / 2
    return w


def _stages(states: Tensor) -> list[tuple[Tensor, Tensor]]:
    points = states.unbind(1)
    return list(zip(points[::2], points[1::2], strict=True))


def _euler(u: Tensor, scheme: Scheme) -> Tensor:
    dx, dy = _gradient(u, scheme.circular)
    gx, gy = _diffusivity(dx, dy, scheme)
    return u + scheme.step_size * _divergence(gx * dx, gy * dy, scheme.circular)


def _euler_derivative(u: Tensor, p: Tensor, scheme: Scheme) -> Tensor:
    """E'(u) p = p - h D^T H(D u) D p, with H q = g q - (2 g^2 / contrast^2) <d, q> d at d = D u."""
    dx, dy = _gradient(u, scheme.circular)
    px, py = _gradient(p, scheme.circular)
    gx, gy = _diffusivity(dx, dy, scheme)
    along_x, along_y = _over_channels(dx * px, scheme), _over_channels(dy * py, scheme)
    if not scheme.edges:
        along_x = along_y = along_x + along_y
    twice = 2 / scheme.contrast**2
    flux_x = gx * (px - twice * gx * along_x * dx)
    flux_y = gy * (py - twice * gy * along_y * dy)
    return p + scheme.step_size * _divergence(flux_x, flux_y, scheme.circular)


def _diffusivity(dx: Tensor, dy: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """g for the vertical and for the horizontal differences."""
    gain = 1 / scheme.contrast**2
    square_x, square_y = _over_channels(dx * dx, scheme), _over_channels(dy * dy, scheme)
    if scheme.edges:
        return 1 / (1 + gain * square_x), 1 / (1 + gain * square_y)
    g = 1 / (1 + gain * (square_x + square_y))
    return g, g


def _over_channels(a: Tensor, scheme: Scheme) -> Tensor:
    return a.sum(-3, keepdim=True) if scheme.coupled else a


def _gradient(u: Tensor, circular: bool) -> tuple[Tensor, Tensor]:
    """D u: the differences to the next row and to the next column."""
    if circular:
        return u.roll(-1, -2) - u, u.roll(-1, -1) - u
    return (
        pad(u[..., 1:, :] - u[..., :-1, :], (0, 0, 0, 1)),
        pad(u[..., :, 1:] - u[..., :, :-1], (0, 1)),
    )


def _divergence(flux_x: Tensor, flux_y: Tensor, circular: bool) -> Tensor:
    """-D^T, applied to (flux_x, flux_y)."""
    if circular:
        return flux_x - flux_x.roll(1, -2) + flux_y - flux_y.roll(1, -1)
    out = flux_x + flux_y
    out[..., 1:, :] -= flux_x[..., :-1, :]
    out[..., :, 1:] -= flux_y[..., :, :-1]
    return out
