# ruff: noqa: A002 (filter is deepinv's name for it)
"""Kernels of blurs: a formula, a draw from the key, or numbers."""

from typing import Any, Literal, cast

import torch
from torch import Tensor

from preimage import Key
from preimage.errors import BadParameter

from ._deepinv import build, call, generator, lookup

Rows = tuple[tuple[float, ...], ...]
"""A kernel as rows of numbers."""

Filter = Literal["gaussian", "motion", "diffraction"] | Rows
"""Which kernel."""


def kernel(filter: Filter, sigma: float, angle: float, size: int, key: Key | None) -> Tensor:
    """The kernel as (1, 1, h, w), float32.

    - "gaussian": deepinv's gaussian_blur, standard deviation `sigma` in pixels; sum 1. `angle` turns it, which shows
      for rows only, since it is round.
    - "motion", "diffraction": one draw of deepinv's MotionBlurGenerator or DiffractionBlurGenerator, (size, size).
    - rows of numbers: themselves.

    Raises `BadParameter` for a sigma or size that is not positive, ragged rows, and a random kernel without a key.
    """
    if isinstance(filter, tuple):
        return rows(filter)
    if filter == "gaussian":
        if not sigma > 0:
            raise BadParameter(f"sigma is {sigma}", "a standard deviation > 0, in pixels")
        name = "physics.functional.gaussian_blur"
        return cast(Tensor, call(name, lookup(name), {"sigma": (sigma, sigma), "angle": angle}))
    return cast(Tensor, psf_generator(filter, size, key).step(batch_size=1)["filter"])


def psf_generator(filter: Literal["motion", "diffraction"], size: int, key: Key | None) -> Any:
    """deepinv's generator of (size, size) kernels of this kind, started from the key."""
    names = {"motion": "MotionBlurGenerator", "diffraction": "DiffractionBlurGenerator"}
    if filter not in names:
        raise BadParameter(f"filter is {filter!r}", "'motion' or 'diffraction'")
    if key is None:
        raise BadParameter(f"filter is {filter!r}, and there is no key to draw it from", "a preimage.Key", "pass key")
    if size < 1:
        raise BadParameter(f"size is {size}", "a kernel size of at least 1")
    return build(f"physics.generator.{names[filter]}", psf_size=(size, size), rng=generator(key), seed=key)


def rows(values: Rows) -> Tensor:
    """Rows of numbers as a kernel (1, 1, h, w)."""
    if not values or not values[0] or len({len(row) for row in values}) != 1:
        raise BadParameter(
            f"filter has rows of {[len(row) for row in values]} numbers", "rows of equal length, at least one number"
        )
    return torch.tensor(values, dtype=torch.float32)[None, None]
