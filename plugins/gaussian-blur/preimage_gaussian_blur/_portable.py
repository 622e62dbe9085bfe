"""The same blur in plain PyTorch: any device, and no compiler.

Inside, shifted images are added; the few rows and columns near the border are products with a small matrix. The
transposed blur differs in that matrix only, so it costs the same.
"""

from functools import lru_cache

import torch
from torch import Tensor

from . import matrix
from .matrix import Boundary


def blur(x: Tensor, size: int, sigma: float, boundary: Boundary, transposed: bool) -> Tensor:
    """M_H X M_W^T, or M_H^T X M_W if `transposed`, for images X in the last two axes of x."""
    for axis in (-2, -1):
        x = _along(x, axis, size, sigma, boundary, transposed)
    return x


def _along(x: Tensor, axis: int, size: int, sigma: float, boundary: Boundary, transposed: bool) -> Tensor:
    n = x.shape[axis]
    first, last = matrix.border(n, size, sigma, boundary, transposed)[:2]
    columns, small = _border_matrix(n, size, sigma, boundary, transposed, x.dtype, x.device)
    near = x if first == n else x.index_select(axis, columns)
    border = small @ near if axis == -2 else near @ small.mT
    if first == n:
        return border
    out = torch.empty_like(x)
    out.narrow(axis, 0, first).copy_(border.narrow(axis, 0, first))
    out.narrow(axis, last, n - last).copy_(border.narrow(axis, first, n - last))
    w = matrix.weights(size, sigma).tolist()
    count = last - first
    inside = torch.mul(x.narrow(axis, first, count), w[0], out=out.narrow(axis, first, count))
    for k, weight in enumerate(w[1:], 1):
        inside.add_(x.narrow(axis, first - k, count) + x.narrow(axis, first + k, count), alpha=weight)
    return out


@lru_cache(maxsize=64)
def _border_matrix(
    n: int, size: int, sigma: float, boundary: Boundary, transposed: bool, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The columns the border rows look at, and the border rows restricted to them."""
    border = matrix.border(n, size, sigma, boundary, transposed)
    rows = torch.repeat_interleave(torch.tensor(border.start).diff())
    index, weight = torch.tensor(border.column), torch.tensor(border.weight)
    columns, place = (torch.arange(n), index) if border.first == n else index.unique(return_inverse=True)
    small = torch.zeros(len(border.start) - 1, len(columns), dtype=torch.float64)
    small[rows, place] = weight
    return columns.to(device), small.to(dtype=dtype, device=device)
