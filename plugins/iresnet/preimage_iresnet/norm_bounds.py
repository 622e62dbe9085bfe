"""Proved upper bounds of the norms of convolutions, valid for every image size and in floating-point arithmetic."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

SLACK = 5e-4
"""How far above the true norm the bound of a convolution may lie, relative to it."""

_COARSE = math.pi / 8
_RESERVE = 1e-10
_BATCH = 64
_UNIT = 2.0**-53


class _Cells(NamedTuple):
    """Squares |a - a_0| <= radius, |b - b_0| <= radius in the coordinates a = theta_1 + theta_2, b = theta_1 - theta_2,
    which are the balls |theta - theta_0|_1 <= radius; `centres` has theta_0, (P, 2)."""

    centres: Tensor
    radius: float

    @staticmethod
    def whole(reach: float) -> "_Cells":
        """Half of all frequencies, to which the others are conjugate: a in [0, pi], b in [0, 4 pi]."""
        count = max(1, math.ceil(reach * math.pi / 2 / _COARSE))
        radius = math.pi / (2 * count)
        odd = torch.arange(4 * count, dtype=torch.float64) * 2 + 1
        rotated = torch.cartesian_prod(odd[:count], odd) * radius
        return _Cells(torch.stack((rotated.sum(1), rotated[:, 0] - rotated[:, 1]), 1) / 2, radius)

    def split(self, which: Tensor) -> "_Cells":
        """Four cells of half the radius in place of each of those."""
        half = self.radius / 2
        steps = half * torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
        return _Cells((self.centres[which][:, None] + steps).flatten(0, 1), half)

    def cosine(self, reach: float) -> float:
        """The least share of the largest norm that stands at the centre of the cell where it is taken."""
        return math.cos(min(reach * self.radius * (1 + 1e-9), math.pi / 2))


def norm_is_at_most(kernel: Tensor, bound: float) -> bool:
    """Whether it is proved that the zero-padded convolution with a kernel (H, M, k, k) has a norm <= bound on images of
    every size. A true answer is a theorem; a false one says that the bound is wrong, or within about 1e-6 of the norm.

    *All sizes.* Zero padding restricts the convolution on the whole plane to the functions on the image, so its norm
    is at most sup_theta ||S(theta)||, S(theta) = sum_j kernel[:, :, j] e^{i (j - d).theta}, d = (k - 1) / 2 in both
    axes: where the kernel is centred does not change ||S||, so d is its reach (2 for 5 x 5), not its side.

    *All frequencies from some.* Let N = sup ||S|| be taken at theta*, u^H S(theta*) v = e^{ia} N with unit u, v. For
    any s the function f(t) = Re e^{-ia} u^H S(theta* + t s) v is a real trigonometric sum with frequencies of size at
    most d |s|_1, |f| <= N = f(0). The inequality of Bernstein and Szego, f'^2 <= (d |s|_1)^2 (N^2 - f^2) (for
    real functions of exponential type on the line: Duffin & Schaeffer 1938, "Some inequalities concerning functions of
    exponential type"), says that arccos(f / N) grows at most at the rate d |s|_1. Hence

        ||S(theta* + s)|| >= N cos(d |s|_1)   for d |s|_1 <= pi / 2.

    (One axis at a time, with a grid of n points in each: N <= max over the grid / cos(pi d / n)^2.) So if the plane of
    frequencies is covered by balls |theta - c|_1 <= r and ||S(c)|| <= bound cos(d r) in each, then N <= bound: a larger
    N would be taken in one of them. Balls in which this cannot be shown are divided into four; only those near the
    largest norms are.

    *Rounding.* ||S(c)|| <= T is shown by a Cholesky factorisation of (1 - eta) T^2 Id - S(c)^H S(c) in float64: if it
    runs to its end, the matrix is positive definite up to its rounding errors (the backward error of Cholesky
    factorisation: Higham 2002, "Accuracy and stability of numerical algorithms"; as a proof: Rump 2006, "Verification
    of positive definiteness"), and eta covers these, those of the product and those of the symbol (`_margin`). No
    eigenvalue solver has to be trusted.
    """
    with torch.no_grad():
        return _proved(_narrowed(kernel), float(bound))


def convolution_norm_bound(kernel: Tensor, slack: float = SLACK) -> float:
    """A proved upper bound (`norm_is_at_most`) of the norm of the zero-padded convolution with a kernel (H, M, k, k) at
    every image size, at most 1 + slack above sup_theta ||S(theta)||; for k = 1, a matrix, 1e-10 above its norm.

    Raises `ValueError` if the kernel is not finite.
    """
    with torch.no_grad():
        narrowed = _narrowed(kernel)
        if not bool(torch.isfinite(narrowed).all()):
            raise ValueError("the kernel is not finite")
        if not bool(narrowed.any()):
            return 0.0
        reach = (kernel.shape[-1] - 1) / 2
        slack = slack if reach else 0.0
        found, cells = 0.0, _Cells.whole(reach)
        while len(cells.centres):
            parts = (_gram(narrowed, part) for part in cells.centres.split(_BATCH))
            norms = torch.cat([torch.linalg.eigvalsh(gram)[:, -1].clamp_min(0).sqrt() for gram in parts])
            found = max(found, float(norms.amax()))
            cells = cells.split(norms > found * (1 + slack) * cells.cosine(reach))
        bound = found * (1 + slack) * (1 + _RESERVE)
        while not _proved(narrowed, bound):  # where the eigenvalues were less exact than the reserve
            bound *= 1 + _RESERVE
        return bound


def _narrowed(kernel: Tensor) -> Tensor:
    """In float64 on the CPU, input channels being the fewer: the transposed symbol has the same norm."""
    kernel = kernel.detach().to("cpu", torch.float64)
    return kernel if kernel.shape[1] <= kernel.shape[0] else kernel.transpose(0, 1)


def _proved(kernel: Tensor, bound: float) -> bool:
    if not 0 < bound < math.inf:
        return bound == 0 and not bool(kernel.any())
    kernel = kernel / bound
    # Parseval: ||kernel||_F^2 is the mean of ||S||_F^2 <= M ||S||^2. This also keeps overflow and NaN out.
    if not float(kernel.norm()) <= 1.01 * math.sqrt(kernel.shape[1]):
        return False
    reach, cells = (kernel.shape[-1] - 1) / 2, _Cells.whole((kernel.shape[-1] - 1) / 2)
    while len(cells.centres):
        threshold = cells.cosine(reach) ** 2 * (1 - _margin(kernel, cells.cosine(reach)))
        highest = 1 - _margin(kernel, 1.0)
        undecided = list[Tensor]()
        for part in cells.centres.split(_BATCH):
            gram = _gram(kernel, part)
            open_ = ~_positive(threshold, gram)
            if bool(open_.any()) and not bool(_positive(highest, gram[open_]).all()):
                return False
            undecided.append(open_)
        which = torch.cat(undecided)
        if bool(which.any()) and reach * cells.radius < 1e-3:
            return False
        cells = cells.split(which)
    return True


def _positive(value: float, gram: Tensor) -> Tensor:
    """Whether value Id - gram has a Cholesky factorisation, for each matrix."""
    shifted = -gram
    shifted.diagonal(dim1=1, dim2=2).add_(value)
    return torch.linalg.cholesky_ex(shifted).info == 0


def _gram(kernel: Tensor, frequencies: Tensor) -> Tensor:
    """S(theta)^H S(theta) for each: (P, M, M)."""
    side = kernel.shape[-1]
    phases = frequencies[:, :, None] * (torch.arange(side, dtype=torch.float64) - (side - 1) / 2)
    waves = torch.polar(torch.ones_like(phases), phases)
    products = (waves[:, 0, :, None] * waves[:, 1, None, :]).flatten(1)
    taps = kernel.flatten(2).permute(2, 0, 1).flatten(1)
    symbols = torch.complex(products.real @ taps, products.imag @ taps).unflatten(1, kernel.shape[:2])
    return symbols.mH @ symbols


def _margin(kernel: Tensor, target: float) -> float:
    """eta such that a factorisation of (1 - eta) T^2 Id - S^H S in float64 proves ||S|| <= T.

    With u = 2^-53, the kernel divided by the bound, and more than the standard model of arithmetic asks for:

    - symbol: k^2 products of a tap (rounded once) and two waves (argument, cosine and sine within 4 ulp together),
      summed: |error| <= (2 k^2 + 72) u sum_j |kernel_j| <= (2 k^2 + 72) k u (sum_j kernel_j^2)^(1/2) in every entry;
    - product: scalar products of H complex numbers, sqrt(2) 2 H u ||S||_F^2 in the Frobenius norm, ||S||_F^2 <= M T^2;
    - factorisation: sqrt(2) (2 M + 4) u trace <= sqrt(2) (2 M + 4) u M T^2, whatever the order of the sums.
    """
    hidden, channels, side, _ = kernel.shape
    symbol = (2 * side**2 + 72) * side * float(kernel.norm()) / target
    product = (2 * hidden + 8) * channels
    factorisation = (4 * channels + 64) * channels
    return 2 * _UNIT * (symbol + product + factorisation)
