"""Estimating the Gaussian model of `gaussian-spectrum` from images."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from preimage import Key, dot
from preimage.errors import BadData, BadParameter
from preimage.transforms import dct2

from .gaussian_spectrum import GaussianSpectrum
from .gaussian_spectrum_model import SpectrumModel

SHARES = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The shares of the components to choose from."""

HELD_OUT = 8
"""Every how many-th image is held out to choose the share."""

OVERSAMPLING, POWER_STEPS = 100, 2


def fit_spectrum(
    images: Tensor,
    *,
    mean: Literal["image", "colour"] = "colour",
    components: int = 0,
    flip: bool = False,
    shift: bool = False,
    share: float | None = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[SpectrumModel, float]:
    """The Gaussian model of images (N, C, H, W), and the share of the components.

    mu is the mean image, or one colour (the mean over images and pixels). The stationary part has, at each frequency
    of the DCT-II, the sample covariance of the channels, sum of c c^T / (N - 1), not smoothed.

    With `components` r > 0, C is part of the way from that stationary covariance to the sample covariance: the r
    first principal components are taken in with their sample variances times `share`, and the spectrum is what the
    sample covariance leaves at each frequency when they are subtracted. So the total power at each frequency stays the
    sample's, whatever the share (shrinkage towards a structured target, as in Ledoit & Wolf 2003). If `share` is None,
    it is that of `SHARES` which makes held-out images (every eighth) most likely under a model of the others.

    - `flip`: every image also counts as its mirror image (left and right). `shift`: every image also counts as itself
      moved by one pixel up, down, left and right, the border repeated: more examples for the components of images that
      are aligned, but not to the pixel. Nothing made from a held-out image is fitted to.
    - `report`: called with the number of models fitted so far and the number there will be.

    In double precision, but for the components, which are found by randomised subspace iteration (Halko, Martinsson &
    Tropp 2011, "Finding structure with randomness", algorithm 4.4; two power steps) in the precision of the images.

    Raises `BadData` for fewer than two images (four, if a share is to be chosen) or NaN, and `BadParameter` for a share
    outside [0, 1) or a negative number of components.
    """
    count = len(images)
    if images.ndim != 4 or count < 2:
        raise BadData(f"{count} image has no covariance", "at least two images (N, C, H, W)", "add images")
    if not bool(torch.isfinite(images).all()):
        raise BadData("the images have NaN or infinite values", "finite numbers", "mend them")
    check_options(components, share)
    if components and share is None and count < 4:
        raise BadData(f"{count} images are too few to choose a share", "at least four", "add images, or give the share")
    if share is None:
        share = _best_share(images, mean, components, _Variants(flip, shift), report or _silent) if components else 0.0
    return _sample(images, mean, components, _Variants(flip, shift)).model(share), share


def check_options(components: int, share: float | None) -> None:
    """Raise `BadParameter` for a negative number of components or a share outside [0, 1)."""
    if components < 0:
        raise BadParameter(f"components is {components}", "an integer >= 0")
    if share is not None and not 0 <= share < 1:
        raise BadParameter(f"share is {share}", "a number >= 0 and < 1", "leave it out to have it chosen")


def _silent(done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class _Sample:
    """What the images say: their mean, second moments at each frequency, and principal components."""

    mean: Tensor
    spectrum: Tensor
    components: Tensor

    def model(self, share: float) -> SpectrumModel:
        if share == 0 or not len(self.components):
            return SpectrumModel(self.mean, self.spectrum, self.components[:0])
        taken = share**0.5 * self.components
        return SpectrumModel(self.mean, self.spectrum - _second_moments(taken.split(256)), taken)


@dataclass(frozen=True)
class _Variants:
    """What is made from every image."""

    flip: bool
    shift: bool

    def count(self) -> int:
        return (1 + self.flip) * (5 if self.shift else 1)

    def batches(self, images: Tensor) -> Iterable[Tensor]:
        """All variants of all images, some at a time."""
        for some in images.split(256):
            for mirrored in (some, some.flip(-1)) if self.flip else (some,):
                yield mirrored
                if self.shift:
                    height, width = mirrored.shape[-2:]
                    padded = F.pad(mirrored, (1, 1, 1, 1), mode="replicate")
                    for top, left in ((0, 1), (2, 1), (1, 0), (1, 2)):
                        yield padded[..., top : top + height, left : left + width]


def _sample(images: Tensor, mean: str, components: int, variants: _Variants) -> _Sample:
    count = len(images) * variants.count()
    centre = torch.stack([batch.double().sum(0) for batch in variants.batches(images)]).sum(0) / count
    if mean == "colour":
        centre = centre.mean((1, 2), keepdim=True).expand_as(centre)
    deviations = (batch.double() - centre for batch in variants.batches(images))
    spectrum = _second_moments(deviations) / (count - 1)
    if not components:
        return _Sample(centre, spectrum, spectrum.new_zeros(0, *centre.shape))
    flat = centre.to(images).flatten()

    def rows() -> Iterable[Tensor]:
        return (batch.flatten(1) - flat for batch in variants.batches(images))

    found = _principal_components(rows, len(flat), min(components, count - 1, len(flat)), count - 1)
    return _Sample(centre, spectrum, found.reshape(-1, *centre.shape))


def _second_moments(batches: Iterable[Tensor]) -> Tensor:
    """Sum over images of c c^T at each frequency, (C, C, H, W)."""
    coefficients = map(dct2, batches)
    return torch.stack([torch.einsum("nihw,njhw->ijhw", c, c) for c in coefficients]).sum(0)


def _principal_components(rows: Callable[[], Iterable[Tensor]], size: int, count: int, degrees: int) -> Tensor:
    """The first principal components of the rows (float64), each as long as its standard deviation: (r, size)."""
    like = next(iter(rows()))
    width = min(count + OVERSAMPLING, size)
    # A fixed start: the components are those of the data, up to the accuracy of the iteration.
    basis = Key(0).child("principal components").normal((size, width), like)
    for _ in range(POWER_STEPS + 1):
        basis = torch.linalg.qr(_product(rows, basis))[0]
    gram = _gram(rows, basis)
    variances, mixing = torch.linalg.eigh(gram / degrees)
    variances, mixing = variances.flip(0)[:count].clamp_min(0), mixing.flip(1)[:, :count]
    return (basis.double() @ mixing * variances.sqrt()).mT


def _product(rows: Callable[[], Iterable[Tensor]], basis: Tensor) -> Tensor:
    total = torch.zeros_like(basis)
    for batch in rows():
        total += batch.mT @ (batch @ basis)
    return total


def _gram(rows: Callable[[], Iterable[Tensor]], basis: Tensor) -> Tensor:
    total = basis.new_zeros(basis.shape[1], basis.shape[1], dtype=torch.float64)
    for batch in rows():
        projected = batch @ basis
        total += (projected.mT @ projected).double()
    return total


def _best_share(
    images: Tensor, mean: str, components: int, variants: _Variants, report: Callable[[int, int], None]
) -> float:
    step = min(HELD_OUT, len(images) // 2)
    held = torch.arange(len(images)) % step == 0
    sample = _sample(images[~held], mean, components, variants)
    scores: list[float] = []
    for share in SHARES:
        scores.append(log_likelihood(sample.model(share), images[held]))
        report(len(scores), len(SHARES))
    return SHARES[scores.index(max(scores))]


def log_likelihood(model: SpectrumModel, images: Tensor) -> float:
    """Mean log-density of the images under the model, in nats per image, without the constant n/2 log 2 pi."""
    prior = GaussianSpectrum.of(model.shape, model)
    whitened = torch.cat([prior.encode(some.double()) for some in images.split(64)])
    whitening = prior.whitening
    log_determinant = float(whitening.variances.log().sum() + whitening.gains.log1p().sum())
    return -0.5 * (float(dot(whitened, whitened).mean()) + log_determinant)
