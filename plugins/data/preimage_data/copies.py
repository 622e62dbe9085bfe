"""Copies of images between data sets: re-encoded, resized, brightened or mirrored, under whatever name.

Each image is brought to 32 x 32 pixels in grey, in two views: its centre square, and the whole, stretched. The
*pattern* of a view is p / sqrt(<p^2> + (4/255)^2), where p = x - <x> and <.> is the mean over 5 x 5 pixels, the image
reflected at its border; its mean is taken off, and it is scaled to unit length. Two images are copies if in one of the
views their patterns, or that of one and of the other's mirror image, have a correlation (inner product) of at least
`THRESHOLD`. This takes away what unrelated images of one kind share: where a face is light and dark (two different
faces reach 0.94 with plain pixels), and the strong edge of a mask or frame.

All pairs are first compared at 16 x 16 pixels, by x - <x> over 3 x 3 pixels alone, with a threshold of 0.7, as products
of matrices; only what remains is compared at 32 x 32.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from preimage import Dataset
from preimage.errors import BadParameter

from .crops import fit
from .files import LUMINANCE
from .image_file import FileDataset
from .subset import Subset

THRESHOLD = 0.78
"""Correlation from which on two images count as copies, between what was measured for copies and for others.

Others: at most 0.66 over 3.6 million comparisons, mirror images included, of 1,896 aligned faces of CelebA and FFHQ,
which are much alike; 0.32 for 300 photographs of BSDS500. Mirrored copies of 129 of them, after one change each: JPEG
at quality 10, at least 0.91; resized to 64 x 64, not keeping proportions, then quality 50, 0.94; to 24 x 24, 0.86;
brightened by 30% with clipping, 0.82; gamma 0.7, 0.98; noise of 25/255, 0.89; blurred by 1/64 of the height, 0.90; 1%
cut off on every side, 0.92: all found. With 2% cut off on every side 75 were found, with 4% none; with a white box over
a twentieth 118; subsampled to 64 x 64 without a filter 126. Turned images, and details of others, are not found.
"""

_SIDE, _SCREEN, _BLOCK = 32, 0.7, 2048
_CONTRAST = 4 / 255
_FLAT = 1 / 255  # a root mean square difference from the mean around that is below this is rounding, not an image

Progress = Callable[[int, int], None]
"""Called with how many images have been read, and how many there are."""


@dataclass(frozen=True)
class Copy:
    """Two images that show the same: number `first` of the one data set, `second` of the other, or of the same.

    - `labels`: of both.
    - `correlation`: of their patterns, from the threshold to 1 (the same pixels).
    - `difference`: the root mean square of the difference of their pixels at 32 x 32, grey, range [0, 1].
    - `mirrored`: whether one is the left-to-right mirror image of the other.
    """

    first: int
    second: int
    labels: tuple[str, str]
    correlation: float
    difference: float
    mirrored: bool


def find_copies(
    a: Dataset, b: Dataset | None = None, *, threshold: float = THRESHOLD, progress: Progress | None = None
) -> list[Copy]:
    """All pairs of an image of `a` and one of `b` that are copies, or of two images of `a` if `b` is None.

    The most similar come first. Sizes and colours may differ; of a `FileDataset`, or a `Subset` of one, whole files are
    compared, whatever the data set cuts out of them. Each image is read once. Two images of one colour each are copies
    if their colours are the same. Takes 4 kB of memory an image.

    Raises `BadParameter` for a threshold outside (0.7, 1], and whatever reading an image raises (`readable` and
    `Subset` leave out images that cannot be read).
    """
    check_threshold(threshold)
    total, done = len(a) + (0 if b is None else len(b)), 0

    def read(data: Dataset) -> Tensor:
        nonlocal done
        small = torch.empty(len(data), 2, _SIDE, _SIDE, dtype=torch.float16)
        for index in range(len(data)):
            small[index] = views(data, index)
            done += 1
            if progress is not None:
                progress(done, total)
        return small

    ours = read(a)
    found = match(ours, None if b is None else read(b), threshold)
    other = a if b is None else b
    return [Copy(i, j, (a.label(i), other.label(j)), c, d, mirrored) for i, j, c, d, mirrored in found]


def check_threshold(threshold: float) -> None:
    """Raises `BadParameter` for a threshold that the coarse comparison does not stand for, or that is above 1."""
    if not _SCREEN < threshold <= 1:
        raise BadParameter(f"threshold is {threshold}", f"a correlation above {_SCREEN}, at most 1", f"use {THRESHOLD}")


def views(data: Dataset, index: int) -> Tensor:
    """What is compared of an image, in grey: its centre square, and the whole, stretched to a square; (2, 32, 32)."""
    if isinstance(data, Subset):
        data, index = data.origin(index)
    image = data.whole(index) if isinstance(data, FileDataset) else data[index]
    if image.shape[0] == 3:
        image = (image * image.new_tensor(LUMINANCE)[:, None, None]).sum(0, keepdim=True)
    square = fit(image, min(image.shape[1:]), "centre")  # cut before it shrinks, to half a pixel of the large image
    return torch.cat([fit(square, _SIDE, "stretch"), fit(image, _SIDE, "stretch")])


def match(a: Tensor, b: Tensor | None, threshold: float = THRESHOLD) -> list[tuple[int, int, float, float, bool]]:
    """Copies among `views` (N, 2, 32, 32) and (M, 2, 32, 32), or within the first if `b` is None.

    First, second, correlation, difference, mirrored, the most similar first.
    """
    other = a if b is None else b
    square = torch.equal(a[:, 0], a[:, 1]) and torch.equal(other[:, 0], other[:, 1])
    found: dict[tuple[int, int], tuple[float, float, bool]] = {}
    for view in range(1 if square else 2):
        ours, theirs = a[:, view], other[:, view]
        for first, second in _candidates(ours, theirs, within=b is None):
            for pair, outcome in _confirmed(ours, theirs, first, second, threshold):
                found[pair] = max(outcome, found.get(pair, outcome))
    return sorted(((*pair, *outcome) for pair, outcome in found.items()), key=lambda row: (-row[2], *row[:2]))


def _confirmed(
    a: Tensor, b: Tensor, first: Tensor, second: Tensor, threshold: float
) -> Iterator[tuple[tuple[int, int], tuple[float, float, bool]]]:
    """Those of some pairs that are copies at 32 x 32: positions, and correlation, difference, mirrored."""
    for start in range(0, len(first), _BLOCK):
        i, j = first[start : start + _BLOCK], second[start : start + _BLOCK]
        ours, theirs = a[i].float(), b[j].float()
        pattern, mirrors = _fine(ours), (theirs, theirs.flip(-1))
        correlation, which = torch.stack([(pattern * _fine(seen)).sum(1) for seen in mirrors]).max(0)
        difference = torch.stack([(ours - seen).square().mean((1, 2)).sqrt() for seen in mirrors])
        difference = difference.gather(0, which[None])[0]
        flat = pattern[:, -1] > 0
        same = (correlation >= threshold) & (~flat | (difference <= 2 * _FLAT))
        columns = (i, j, correlation.clamp(max=1.0), difference, which)
        for row in zip(*(column[same].tolist() for column in columns), strict=True):
            yield (row[0], row[1]), (row[2], row[3], bool(row[4]))


def _candidates(a: Tensor, b: Tensor, *, within: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Block by block, the positions of pairs whose coarse patterns correlate, mirrored or not."""
    for i in range(0, len(a), _BLOCK):
        ours = _coarse(a[i : i + _BLOCK])
        for j in range(i if within else 0, len(b), _BLOCK):
            theirs = b[j : j + _BLOCK]
            near = torch.maximum(ours @ _coarse(theirs).T, ours @ _coarse(theirs.flip(-1)).T)
            if within and i == j:
                near = near.triu(1)
            first, second = (near >= _SCREEN).nonzero(as_tuple=True)
            yield first + i, second + j


def _coarse(small: Tensor) -> Tensor:
    """Unit vectors, (N, 16 * 16 + 1), of images (N, 32, 32): what differs from the mean of the 3 x 3 pixels around."""
    small = F.avg_pool2d(small.float(), 2)
    pattern = small - _mean(small, 1)
    return _unit(pattern, pattern)


def _fine(small: Tensor) -> Tensor:
    """Unit vectors, (N, 32 * 32 + 1), of images (N, 32, 32): that over the standard deviation there, over 5 x 5."""
    pattern = small - _mean(small, 2)
    return _unit(pattern / (_mean(pattern.square(), 2) + _CONTRAST**2).sqrt(), pattern)


def _mean(small: Tensor, radius: int) -> Tensor:
    wide = F.pad(small[:, None], (radius,) * 4, mode="reflect")
    return F.avg_pool2d(wide, 2 * radius + 1, 1)[:, 0]


def _unit(pattern: Tensor, difference: Tensor) -> Tensor:
    """The patterns as vectors of length 1; where there is no difference, nothing but a last entry of 1."""
    flat = difference.square().mean((1, 2)).sqrt()[:, None] < _FLAT
    pattern = pattern.flatten(1)
    pattern = pattern - pattern.mean(1, keepdim=True)
    pattern = torch.where(flat, 0.0, pattern / pattern.norm(dim=1, keepdim=True).clamp_min(1e-12))
    return torch.cat([pattern, flat.to(pattern)], 1)
