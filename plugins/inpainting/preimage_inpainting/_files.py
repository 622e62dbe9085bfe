"""Masks from files."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from preimage import Shape
from preimage.errors import BadData, BadFile

from ._masks import check_mask


def read_mask(in_shape: Shape, path: Path) -> Tensor:
    """The mask in a file: NumPy's .npy, or anything Pillow reads (colour becomes luminance); (1, H, W) or (C, H, W).

    Known where the value is more than half the largest one in the file. No resizing: the file has the image's size.

    Raises `BadFile` if there is no such file, it is a folder, or cannot be read as a mask, and as `check_mask`.
    """
    path = Path(path)
    if path.is_dir():
        raise BadFile(f"the mask {path} is a folder", "an image file or a .npy file", "name a file in it")
    if not path.exists():
        raise BadFile(
            f"there is no mask file {path}", "an image file or a .npy file", "check the path and the spelling"
        )
    try:
        values = _npy(path) if path.suffix.lower() == ".npy" else _image(path)
        mask = torch.from_numpy(values.astype(np.float64))
    except Exception as error:  # a decoder of broken bytes raises whatever it likes
        raise BadFile(
            f"the mask file {path} cannot be read: {type(error).__name__}: {error}",
            "an image that Pillow can open, or a .npy array of numbers",
            "save it again as PNG, with one channel, 0 where unknown and 255 where known",
        ) from error
    if mask.numel() == 0:
        raise BadData(f"the mask file {path} is empty", "a mask of the image's size", "save it again")
    return check_mask(in_shape, mask, f"the mask file {path}")


def _npy(path: Path) -> np.ndarray[Any, Any]:
    values = np.load(path, allow_pickle=False)
    if values.dtype.kind not in "biuf":
        raise TypeError(f"an array of {values.dtype}, not of real numbers")
    return values


def _image(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        plain = image.mode in ("L", "F") or image.mode.startswith("I")
        return np.asarray(image if plain else image.convert("L"))
