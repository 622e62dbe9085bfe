"""What a fitted Gaussian model of images consists of, and how it is carried to other sizes and numbers of channels."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from preimage import Shape
from preimage.errors import BadFile, ShapeMismatch
from preimage.weights import load_weights, save_weights

COMPONENT = "prior/gaussian-spectrum"

LUMINANCE = (0.2125, 0.7154, 0.0721)
"""Weights of red, green and blue in grey: ITU-R BT.709."""


@dataclass(frozen=True)
class SpectrumModel:
    """x ~ N(mean, C), C = Q^T S Q + sum_j l_j l_j^T with Q the orthonormal DCT-II of every channel.

    - `mean`: (C, H, W). `spectrum`: S, one symmetric positive definite C x C matrix for each frequency, (C, C, H, W).
    - `components`: the l_j, images (r, C, H, W); r may be 0.
    """

    mean: Tensor
    spectrum: Tensor
    components: Tensor

    @property
    def shape(self) -> Shape:
        """(C, H, W)."""
        return tuple(self.mean.shape)

    def to_shape(self, in_shape: Shape) -> "SpectrumModel":
        """The model of images of another shape.

        Channels: one channel is the luminance of three (ITU-R BT.709), exactly. Any other number is that many
        independent channels, each distributed like the luminance.

        Size: the model is of what is seen, not of pixels of a certain width, so an image twice as large shows the same
        at twice the resolution. With zoom c = min(H / H_0, W / W_0), the matrix at frequency (k, l) is c^2 times the
        fitted one at (k c H_0 / H, l c W_0 / W), interpolated bilinearly; beyond the highest fitted frequency the one
        at the edge, times the power of the radius that fits the fitted trace above half the highest frequency. For the
        power-law spectra of natural images, of exponent about -2, this is also the model of a larger crop. Mean and
        components are resized by antialiased bilinear interpolation.
        """
        if len(in_shape) != 3:
            raise ShapeMismatch(
                f"gaussian-spectrum got images of shape {tuple(in_shape)}", "images (C, H, W)", "add a channel axis"
            )
        model = self if in_shape[0] == self.shape[0] else self._independent(in_shape[0])
        return model if model.shape == tuple(in_shape) else model._sized(in_shape[1], in_shape[2])

    def save(self, path: str | Path, facts: Mapping[str, Any]) -> None:
        """Write a file that `load` reads; `facts` (data, counts, terms) go into its header. Raises `BadFile`."""
        upper = [(i, j) for i in range(self.shape[0]) for j in range(i, self.shape[0])]
        tensors = {
            "mean": (self.mean if _varies(self.mean) else self.mean[:, :1, :1]).float().contiguous(),
            "spectrum": torch.stack([self.spectrum[i, j] for i, j in upper]).float(),
        }
        if len(self.components):
            tensors["components"] = self.components.half()
        save_weights(Path(path), tensors, component=COMPONENT, config={}, facts={"shape": list(self.shape), **facts})

    @classmethod
    def load(cls, name: str) -> "SpectrumModel":
        """The model of that name, or in that file, in float64.

        Raises `BadFile` or `Incompatible` as `preimage.weights.load_weights`, and `BadFile` for tensors that are not a
        model.
        """
        loaded = load_weights(name, COMPONENT)
        tensors = {key: tensor.double() for key, tensor in loaded.tensors.items()}
        channels, height, width = (int(size) for size in loaded.facts.get("shape", (0, 0, 0)))
        upper = [(i, j) for i in range(channels) for j in range(i, channels)]
        shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        sound = shapes.get("spectrum") == (len(upper), height, width)
        sound = sound and shapes.get("mean") in {(channels, height, width), (channels, 1, 1)}
        sound = sound and shapes.get("components", (0, channels, height, width))[1:] == (channels, height, width)
        sound = sound and all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())
        if not sound:
            raise BadFile(
                f"the weights {name!r} hold tensors of shapes {shapes}",
                f"mean, spectrum and perhaps components of a model of shape {(channels, height, width)}",
                "fit them again: preimage fit gaussian-spectrum FOLDER --out FILE",
            )
        spectrum = torch.empty(channels, channels, height, width, dtype=torch.float64)
        for values, (i, j) in zip(tensors["spectrum"], upper, strict=True):
            spectrum[i, j] = spectrum[j, i] = values
        mean = tensors["mean"].expand(channels, height, width)
        components = tensors.get("components", mean.new_zeros(0, channels, height, width))
        return cls(mean, spectrum, components)

    def _independent(self, channels: int) -> "SpectrumModel":
        grey = self._luminance()
        spectrum = torch.eye(channels).to(grey.spectrum)[:, :, None, None] * grey.spectrum[0, 0]
        mean = grey.mean.expand(channels, -1, -1)
        each = torch.eye(channels).to(grey.spectrum)[:, None, :, None, None] * grey.components
        return SpectrumModel(mean, spectrum, each.flatten(0, 1))

    def _luminance(self) -> "SpectrumModel":
        if self.shape[0] == 1:
            return self
        weights = torch.tensor(LUMINANCE, dtype=torch.float64).to(self.mean) if self.shape[0] == 3 else None
        if weights is None:
            weights = self.mean.new_full((self.shape[0],), 1 / self.shape[0])
        spectrum = torch.einsum("i,ijhw,j->hw", weights, self.spectrum, weights)
        mean = torch.einsum("i,ihw->hw", weights, self.mean)
        components = torch.einsum("i,rihw->rhw", weights, self.components)
        return SpectrumModel(mean[None], spectrum[None, None], components[:, None])

    def _sized(self, height: int, width: int) -> "SpectrumModel":
        size = (height, width)
        varies = _varies(self.mean)
        mean = _resized(self.mean[None], size)[0] if varies else self.mean[:, :1, :1].expand(-1, *size)
        components = _resized(self.components, size) if len(self.components) else self.components.new_zeros(0)
        components = components.reshape(-1, self.shape[0], *size)
        return SpectrumModel(mean.contiguous(), _spectrum_at(self.spectrum, height, width), components)


def _varies(mean: Tensor) -> bool:
    return bool((mean != mean[:, :1, :1]).any())


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)


def _spectrum_at(spectrum: Tensor, height: int, width: int) -> Tensor:
    """The matrices at the frequencies of an image of another size; see `SpectrumModel.to_shape`."""
    fitted = (spectrum.shape[-2], spectrum.shape[-1])
    zoom = min(height / fitted[0], width / fitted[1])
    wanted = [torch.arange(n).to(spectrum) * zoom * have / n for n, have in zip((height, width), fitted, strict=True)]
    kept = [index.clamp_max(have - 1) for index, have in zip(wanted, fitted, strict=True)]
    resampled = _interpolated(_interpolated(spectrum, kept[0], -2), kept[1], -1)
    radius, edge = (_radius(rows / fitted[0], columns / fitted[1]) for rows, columns in (wanted, kept))
    falloff = torch.where(radius > edge, (radius / edge.clamp_min(1e-9)) ** _exponent(spectrum), 1.0)
    return zoom**2 * resampled * falloff


def _interpolated(values: Tensor, position: Tensor, axis: int) -> Tensor:
    below = position.floor().long()
    above = (below + 1).clamp_max(values.shape[axis] - 1)
    shape = [1] * values.ndim
    shape[axis] = -1
    fraction = (position - below).reshape(shape)
    return values.index_select(axis, below) * (1 - fraction) + values.index_select(axis, above) * fraction


def _radius(down: Tensor, along: Tensor) -> Tensor:
    return (down.square()[:, None] + along.square()).sqrt()


def _exponent(spectrum: Tensor) -> float:
    """Slope of log trace S against log radius above half the highest frequency of an axis; at most 0."""
    height, width = spectrum.shape[-2:]
    radius = _radius(torch.arange(height).to(spectrum) / height, torch.arange(width).to(spectrum) / width)
    high = radius >= 0.5
    if height * width < 16 or int(high.sum()) < 3:
        return -2.0
    trace = spectrum.diagonal(dim1=0, dim2=1).sum(-1)
    log_radius, log_trace = radius[high].log(), trace[high].clamp_min(1e-12).log()
    centred = log_radius - log_radius.mean()
    slope = float((centred * log_trace).sum() / centred.square().sum())
    return min(slope, 0.0) if math.isfinite(slope) else -2.0
