"""The images of a folder as one tensor, and a progress bar."""

import hashlib
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast

import click
import torch
import torch.nn.functional as F
from torch import Tensor

from preimage import Dataset
from preimage.assembly import construct
from preimage.errors import BadData, BadParameter


class Progress:
    """A progress bar on an interactive terminal, once `delay` seconds have passed. Use it as a context manager."""

    def __init__(self, label: str, delay: float = 2.0):
        self._label, self._delay = label, delay
        self._bar: Any = None
        self._started = 0.0
        self._done = 0

    def __enter__(self) -> "Progress":
        self._started = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)
            self._bar = None

    def show(self, done: int, total: int) -> None:
        """So much is done."""
        if not sys.stderr.isatty() or time.monotonic() - self._started < self._delay:
            return
        if self._bar is None:
            self._bar = click.progressbar(length=total, label=self._label, file=sys.stderr)
            self._bar.__enter__()
        self._bar.update(done - self._done)
        self._done = done


def folder_images(
    folder: Path, *, size: int, channels: int, crop: Literal["resize", "tiles"]
) -> tuple[Tensor, dict[str, Any]]:
    """All images of a folder, float32 (N, channels, size, size) in [0, 1], and what to record about them.

    - `crop`: "resize" scales each image, by antialiased bilinear interpolation, so that it just covers the size, and
      cuts the centre; "tiles" cuts it into tiles that do not overlap, from the top left, pixels untouched.

    The record: the folder's name, the number of files and of images, and the SHA-256 of the files' names and pixels.

    Raises `NotInstalled` without preimage-data, `BadFile` if the folder or an image in it cannot be read, `BadData`
    for an image smaller than the size, and `BadParameter` for a size below 4.
    """
    if size < 4:
        raise BadParameter(f"size is {size}", "at least 4 pixels", "write --size 64, say")
    colour = "grey" if channels == 1 else "colour"
    # `folder` lists the files; each is read by itself, for they may have different sizes.
    listed: Dataset = construct("dataset", "folder", {"path": str(folder), "colour": colour}, f"folder {folder}")
    digest = hashlib.sha256()
    images: list[Tensor] = []
    with Progress("images") as progress:
        for index in range(len(listed)):
            path = str(cast(Any, listed).path(index))
            file: Dataset = construct("dataset", "image-file", {"path": path, "colour": colour}, path)
            image = file[0]
            digest.update(listed.label(index).encode() + b"\0" + image.contiguous().numpy().tobytes())
            images.append(_pieces(image, size, crop, path))
            progress.show(index + 1, len(listed))
    whole = torch.cat(images)
    record = {"folder": folder.name, "files": len(listed), "images": len(whole), "sha256": digest.hexdigest()}
    return whole, record


def _pieces(image: Tensor, size: int, crop: str, path: str) -> Tensor:
    height, width = image.shape[-2:]
    if min(height, width) < size:
        raise BadData(
            f"{path} has {height} x {width} pixels",
            f"at least {size} x {size}",
            "take it away, or fit a smaller --size",
        )
    if crop == "tiles":
        tiles = image.unfold(1, size, size).unfold(2, size, size)
        return tiles.permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous()
    scale = size / min(height, width)
    shape = (max(size, round(height * scale)), max(size, round(width * scale)))
    if shape != (height, width):
        image = F.interpolate(image[None], size=shape, mode="bilinear", align_corners=False, antialias=True)[0]
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    return image[None, :, top : top + size, left : left + size].contiguous()
