"""The subsampled randomised cosine transform."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from preimage import check_shape

from ._structured import SubsampledTransform, append_zero, draw_rows, draw_signs, positions


class CosineTables(NamedTuple):
    """Indices and factors of the transform and of its adjoint."""

    order: Tensor
    signs: Tensor
    real_row: Tensor
    imaginary_row: Tensor
    real_factor: Tensor
    imaginary_factor: Tensor
    real_source: Tensor
    imaginary_source: Tensor
    phase: Tensor
    inverse_order: Tensor
    signs_in_place: Tensor


class SubsampledCosine(SubsampledTransform[CosineTables]):
    """`SubsampledTransform` with T the orthonormal DCT-II of the whole vector.

    c_k = s_k sum_j v_j cos(pi k (j + 1/2) / n), s_0 = sqrt(1 / n), s_k = sqrt(2 / n). With V the Fourier transform of
    the reordered vector (even positions rising, then odd positions falling), c_k = s_k Re(exp(-i pi k / 2n) V_k)
    (Makhoul, "A fast cosine transform in one and two dimensions", IEEE Trans. Acoust. Speech Signal Process. 28,
    1980). V is that of a real vector, so that half of it is computed; signs and order are applied in one pass, and
    only the coefficients that are measured are formed.
    """

    def draw(self, dtype: torch.dtype, device: torch.device) -> CosineTables:
        (n,), (m,) = self.in_shape, self.out_shape
        signs, rows = draw_signs(self.key, n), draw_rows(self.key, n, m)
        every = torch.arange(n)
        order = torch.cat((every[::2], every[1::2].flip(0)))
        # The other half of the spectrum of a real vector is the conjugate: V_k = conj(V_(n-k)).
        half, mirrored = n // 2 + 1, rows > n // 2
        stored = torch.where(mirrored, n - rows, rows)
        angle = math.pi / (2 * n) * rows.to(torch.float64)
        size = torch.full((m,), self.scale * math.sqrt(2 / n), dtype=torch.float64)
        size[rows == 0] /= math.sqrt(2)
        # Inverse: V_k = exp(i pi k / 2n) (c_k - i c_(n-k)) / s_k, with c_n = 0.
        source = torch.cat((positions(rows, n), torch.tensor([m])))
        k = torch.arange(half)
        inverse_size = torch.full((half,), self.scale * math.sqrt(n / 2), dtype=torch.float64)
        inverse_size[0] *= math.sqrt(2)
        floats = {
            "signs": signs[order],
            "real_factor": size * angle.cos(),
            "imaginary_factor": size * angle.sin() * torch.where(mirrored, -1.0, 1.0),
            "signs_in_place": signs,
        }
        indices = {
            "order": order,
            "real_row": 2 * stored,
            "imaginary_row": 2 * stored + 1,
            "real_source": source[k],
            "imaginary_source": source[n - k],
            "inverse_order": order.argsort(),
        }
        phase = torch.polar(inverse_size, math.pi / (2 * n) * k.to(torch.float64))
        return CosineTables(
            phase=phase.to(dtype=dtype.to_complex(), device=device),
            **{name: table.to(dtype=dtype, device=device) for name, table in floats.items()},
            **{name: table.to(device=device) for name, table in indices.items()},
        )

    def forward(self, x: Tensor) -> Tensor:
        t = self.tables(x)
        spectrum = torch.fft.rfft(x.index_select(1, t.order) * t.signs)
        parts = torch.view_as_real(spectrum).flatten(1)
        real, imaginary = parts.index_select(1, t.real_row), parts.index_select(1, t.imaginary_row)
        return real * t.real_factor + imaginary * t.imaginary_factor

    def adjoint(self, y: Tensor) -> Tensor:
        check_shape(y, self.out_shape, "input of the adjoint of SubsampledCosine")
        t = self.tables(y)
        given = append_zero(y)
        coefficients = torch.complex(given.index_select(1, t.real_source), -given.index_select(1, t.imaginary_source))
        reordered = torch.fft.irfft(coefficients * t.phase, n=self.in_shape[0])
        return reordered.index_select(1, t.inverse_order) * t.signs_in_place
