"""Perona-Malik diffusion, 5 Heun steps, against a plain torch loop of the same scheme; and its derivative."""

import pytest
import torch
from preimage_perona_malik import PeronaMalik
from torch.nn.functional import pad

SIZES = [(32, 96), (1, 512)]


def right_hand_side(u, inverse_contrast_squared=100.0):
    dx = pad(u[..., 1:, :] - u[..., :-1, :], (0, 0, 0, 1))
    dy = pad(u[..., :, 1:] - u[..., :, :-1], (0, 1))
    g = 1 / (1 + inverse_contrast_squared * (dx * dx + dy * dy))
    flux_x, flux_y = g * dx, g * dy
    divergence = flux_x + flux_y
    divergence[..., 1:, :] -= flux_x[..., :-1, :]
    divergence[..., :, 1:] -= flux_y[..., :, :-1]
    return divergence


@torch.no_grad()
def eager(u, steps=5, h=0.15):
    for _ in range(steps):
        first = right_hand_side(u)
        second = right_hand_side(u + h * first)
        u = u + (h / 2) * (first + second)
    return u


@pytest.mark.parametrize(("batch", "size"), SIZES)
def test_forward_against_a_torch_loop(compare, batch, size):
    x = torch.rand(batch, 1, size, size)
    operator = PeronaMalik((1, size, size))
    assert float((operator(x) - eager(x)).abs().max()) < 1e-6
    name = f"Perona-Malik forward, {batch} x {size}²"
    compare(name, lambda: operator(x), ("torch loop", lambda: eager(x)), 0.5, note="10 right-hand sides each")


@pytest.mark.parametrize(("batch", "size"), SIZES)
def test_derivative_against_forward(compare, batch, size):
    x, w = torch.rand(batch, 1, size, size), torch.randn(batch, 1, size, size)
    operator = PeronaMalik((1, size, size))
    name = f"Perona-Malik vjp, {batch} x {size}²"
    compare(
        name, lambda: operator.vjp(x)[1](w), ("its own forward", lambda: operator(x)), 4.0, note="value and pullback"
    )
