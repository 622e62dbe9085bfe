"""Inpainting operators: one mask for all images, or one for each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from preimage import Basis, Diagonal, Key, LinearOperator, Shape, check_shape
from preimage.errors import BadParameter, ShapeMismatch

from ._files import read_mask
from ._masks import box_mask, centre_mask, check_mask, image_size, random_box, random_mask


class Masking(LinearOperator):
    """y = x where the mask is True, 0 elsewhere: (B, C, H, W) -> (B, C, H, W).

    A = A^T = A^T A is a projection: ||A|| = 1, and (A^T A + s I)^-1 b = b / (mask + s), exactly.

    - `mask`: True where known, (H, W), (1, H, W) or (C, H, W). Numbers count as known above half the largest.

    Raises `ShapeMismatch` for a mask of another size, `BadData` for one without a known pixel or with NaN.
    """

    mask: Tensor
    """True where known, (1, H, W) or (C, H, W)."""

    def __init__(self, in_shape: Shape, mask: Tensor):
        super().__init__(in_shape, in_shape)
        self.register_buffer("mask", check_mask(in_shape, mask, "the mask").clone())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask.to(x)

    def adjoint(self, y: Tensor) -> Tensor:
        check_shape(y, self.out_shape, f"input of the adjoint of {type(self).__name__}")
        return y * self.mask.to(y)

    def normal(self, x: Tensor) -> Tensor:
        return self(x)

    def norm_bound(self) -> float:
        return 1.0

    def normal_diagonal(self) -> Diagonal:
        return Diagonal(Basis.PIXEL, self.mask.to(torch.float64))


class Inpainting(Masking):
    """One mask shared by all images: y = mask * x, (B, C, H, W) -> (B, C, H, W), with 0 in unknown pixels.

    - `mask`: "random", "box", "centre" or "file".
    - `keep` (random): the known fraction of the pixels, between 0 and 1; 0.5 if not given. Exactly round(keep H W)
      pixels are known.
    - `per_channel` (random): draw for each channel; otherwise a pixel is known in all channels or in none.
    - `box` (box): the unknown box (top, left, height, width) in pixels.
    - `fraction` (centre): sides of the unknown box over the image's, between 0 and 1; 0.3 if not given (`centre_mask`).
    - `path` (file): an image or a .npy file of the image's size; known above half its largest value (`read_mask`).
    - `key`: what a random mask is drawn from.

    From Python, any other mask: `Inpainting.from_mask(in_shape, tensor)`.

    Raises `BadParameter` for a value out of range or for a parameter of another kind of mask, `BadFile` for a file
    that cannot be read, `ShapeMismatch` for a mask of another size, `BadData` for one without a known pixel.
    """

    def __init__(
        self,
        in_shape: Shape,
        *,
        mask: Literal["random", "box", "centre", "file"] = "random",
        keep: float | None = None,
        per_channel: bool = False,
        box: tuple[int, int, int, int] | None = None,
        fraction: float | None = None,
        path: Path | None = None,
        key: Key,
    ):
        given = {"keep": keep, "per_channel": per_channel or None, "box": box, "fraction": fraction, "path": path}
        uses = {"random": ("keep", "per_channel"), "box": ("box",), "centre": ("fraction",), "file": ("path",)}
        _check_parameters(mask, given, uses, needs={"box": "box = [8, 8, 16, 16]", "path": 'path = "mask.png"'})
        if box is not None:
            made = box_mask(in_shape, box)
        elif path is not None:
            made = read_mask(in_shape, path)
        elif mask == "centre":
            made = centre_mask(in_shape, 0.3 if fraction is None else fraction)
        else:
            made = random_mask(in_shape, keep=0.5 if keep is None else keep, key=key, per_channel=per_channel)
        super().__init__(in_shape, made)

    @classmethod
    def from_mask(cls, in_shape: Shape, mask: Any) -> Masking:
        """The operator for a mask from Python: a tensor, or anything `torch.as_tensor` takes (see `Masking`)."""
        image_size(in_shape)
        try:
            tensor = torch.as_tensor(mask)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ShapeMismatch(
                f"the mask is {type(mask).__name__}, which is no array: {error}",
                "a tensor or an array of numbers or truth values",
                "convert it first: torch.as_tensor(mask)",
            ) from error
        return Masking(in_shape, tensor)


class InpaintingPerImage(Masking):
    """A mask drawn for each image: y_i = mask_i * x_i. One instance is the operator of one image.

    - `mask`: "random" pixels, or a "box" at a random place.
    - `keep`, `per_channel` (random): as for `Inpainting`.
    - `size` (box): (height, width) of the unknown box, in pixels; a quarter of the sides, at least 1, if not given.
    - `key`: the image's own.

    Raises `BadParameter` for a value out of range or for a parameter of the other kind of mask.
    """

    per_image: ClassVar[bool] = True

    def __init__(
        self,
        in_shape: Shape,
        *,
        mask: Literal["random", "box"] = "random",
        keep: float | None = None,
        per_channel: bool = False,
        size: tuple[int, int] | None = None,
        key: Key,
    ):
        given = {"keep": keep, "per_channel": per_channel or None, "size": size}
        _check_parameters(mask, given, {"random": ("keep", "per_channel"), "box": ("size",)}, needs={})
        if mask == "box":
            _, height, width = image_size(in_shape)
            made = random_box(in_shape, size or (max(1, height // 4), max(1, width // 4)), key)
        else:
            made = random_mask(in_shape, keep=0.5 if keep is None else keep, key=key, per_channel=per_channel)
        super().__init__(in_shape, made)


def _check_parameters(
    mask: str, given: Mapping[str, object], uses: Mapping[str, tuple[str, ...]], needs: Mapping[str, str]
) -> None:
    """Refuse an unknown kind of mask, a parameter of another kind, and a missing one."""
    if mask not in uses:
        raise BadParameter(f"mask is {mask!r}", " or ".join(map(repr, uses)), 'write mask = "random", say')
    for name, value in given.items():
        if value is not None and name not in uses[mask]:
            owner = next(kind for kind, names in uses.items() if name in names)
            raise BadParameter(
                f"{name} is given, but mask is {mask!r}",
                f"{' and '.join(uses[mask])} for this mask",
                f"remove {name}, or write mask = {owner!r}",
            )
        if value is None and name in needs and name in uses[mask]:
            raise BadParameter(f"mask is {mask!r}, but {name} is missing", f"{name}", f"add {needs[name]}, say")
