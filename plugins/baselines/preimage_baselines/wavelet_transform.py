"""The orthonormal two-dimensional wavelet transform with periodic extension, in PyTorch."""

import torch
from torch import Tensor

from preimage import Shape, check_shape

from .sparsity import OrthonormalTransform, mix, opponent_matrix


class WaveletTransform(OrthonormalTransform):
    """The pyramid algorithm of Mallat (1989, "A theory for multiresolution signal decomposition", section IV): at each
    level the rows and columns of the coarse image are filtered and every other value is kept,

        a_k = sum_t g_t x_(2k + L/2 - t),    d_k = sum_t h_t x_(2k + L/2 - t),    h_t = (-1)^(t+1) g_(L-1-t),

    indices modulo the length; PyWavelets calls this extension "periodization". The coefficients stand where
    `pywt.coeffs_to_array` puts them: the coarse image in the upper left corner, next to it (horizontal frequency) and
    below it the details of the same level, and so on outwards.

    - `low_pass`: g, of even length L, orthonormal to its even shifts. `levels`: >= 1; 2^levels divides both sides.
    - `opponent`: whether the three channels are changed to brightness and colour differences first.
    """

    colours: Tensor | None

    def __init__(self, in_shape: Shape, low_pass: tuple[float, ...], levels: int, *, opponent: bool = False):
        super().__init__(in_shape)
        self.low_pass, self.levels = low_pass, levels
        self.high_pass = tuple(g * (-1) ** (t + 1) for t, g in enumerate(reversed(low_pass)))
        self.register_buffer("colours", opponent_matrix() if opponent else None)

    def forward(self, x: Tensor) -> Tensor:
        return self._analyse(x if self.colours is None else mix(self.colours, x), self.levels)

    def adjoint(self, y: Tensor) -> Tensor:
        check_shape(y, self.out_shape, "input of the adjoint of WaveletTransform")
        x = self._synthesise(y, self.levels)
        return x if self.colours is None else mix(self.colours.mT, x)

    def _analyse(self, x: Tensor, levels: int) -> Tensor:
        if levels == 0:
            return x
        bands = self._halve(self._halve(x.mT).mT)
        height, width = x.shape[-2] // 2, x.shape[-1] // 2
        coarse = self._analyse(bands[..., :height, :width], levels - 1)
        upper = torch.cat((coarse, bands[..., :height, width:]), -1)
        return torch.cat((upper, bands[..., height:, :]), -2)

    def _synthesise(self, c: Tensor, levels: int) -> Tensor:
        if levels == 0:
            return c
        height, width = c.shape[-2] // 2, c.shape[-1] // 2
        coarse = self._synthesise(c[..., :height, :width], levels - 1)
        upper = torch.cat((coarse, c[..., :height, width:]), -1)
        bands = torch.cat((upper, c[..., height:, :]), -2)
        return self._double(self._double(bands).mT).mT

    def _halve(self, x: Tensor) -> Tensor:
        """One level along the last axis: (..., n) -> (..., n), the averages first, then the differences."""
        n, length = x.shape[-1], len(self.low_pass)
        extended = _periodic(x, length // 2 - 1, length // 2 - 1)
        # Sample 2k + L/2 - t is number 2k + L - 1 - t of the extended signal.
        taps = [extended[..., length - 1 - t :: 2][..., : n // 2] for t in range(length)]
        return torch.cat((_combine(self.low_pass, taps), _combine(self.high_pass, taps)), -1)

    def _double(self, c: Tensor) -> Tensor:
        """The inverse, and adjoint, of `_halve`: sample n is the sum of g_t a_k + h_t d_k over 2k + L/2 - t = n."""
        n, length = c.shape[-1], len(self.low_pass)
        half, reach = length // 2, length // 4 + 1
        parts = [_periodic(part, reach, reach) for part in c.split(n // 2, -1)]
        phases: list[Tensor] = []
        for e in (0, 1):
            taps, weights = [], []
            for t in range((half + e) % 2, length, 2):
                # x_(2j + e) meets a_k where 2k + L/2 - t = 2j + e.
                start = reach + (t + e - half) // 2
                for part, filter_ in zip(parts, (self.low_pass, self.high_pass), strict=True):
                    taps.append(part[..., start : start + n // 2])
                    weights.append(filter_[t])
            phases.append(_combine(weights, taps))
        return torch.stack(phases, -1).flatten(-2)


def _periodic(x: Tensor, before: int, after: int) -> Tensor:
    """x extended periodically along the last axis, also by more than its length."""
    if before == after == 0:
        return x
    n = x.shape[-1]
    return x[..., torch.arange(-before, n + after, device=x.device) % n]


def _combine(weights: "tuple[float, ...] | list[float]", parts: list[Tensor]) -> Tensor:
    total = weights[0] * parts[0]
    for weight, part in zip(weights[1:], parts[1:], strict=True):
        total = total.add(part, alpha=weight)
    return total
