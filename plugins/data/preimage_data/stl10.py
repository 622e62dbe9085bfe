"""STL-10: colour images of 96 x 96 pixels from ImageNet, in binary files of raw bytes."""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from preimage import Dataset
from preimage.errors import BadData, BadFile, BadParameter

from .atomic import file_error
from .checksums import check_release
from .crops import Crop, Size, fit, height_width
from .files import Colour, as_image
from .image_file import position
from .listed import ROOT, first_folder, folder_at, part

Split = Literal["train", "test", "unlabeled", "iresnet-train", "iresnet-validation", "iresnet-test"]

SIDE, BYTES = 96, 3 * 96 * 96
_LAYOUTS = ("stl10_binary", "stl10/stl10_binary", ".", "stl10", "STL10")
_UNLABELED = 100_000
_DRAWN = {"iresnet-test": (0, 128), "iresnet-validation": (128, 192), "iresnet-train": (192, 192 + 16_284)}


class STL10(Dataset):
    """The images of STL-10 (Coates, Ng, Lee, "An analysis of single-layer networks in unsupervised feature learning",
    AISTATS 2011); labels are the part and the position in its file, from 0, such as "unlabeled/000017".

    - `path`: the folder in which stl10_binary.tar.gz was unpacked, so that it holds `stl10_binary` with
      train_X.bin, test_X.bin and unlabeled_X.bin (only the one of the split is needed), or that folder itself. A
      relative one is below PREIMAGE_DATA, if that is set; None is PREIMAGE_DATA itself.
    - `split`: "train" (5,000), "test" (8,000) or "unlabeled" (100,000); or "iresnet-train" (16,284),
      "iresnet-validation" (64) or "iresnet-test" (128), of the sizes that Arndt and Nickel train and test on, drawn
      from "unlabeled" by the rule of `iresnet_split`.
    - `fold`: only the images of one of the ten predefined folds, 0 to 9, of "train" (fold_indices.txt).
    - `size`: pixels, one number or (height, width); None keeps 96. `crop`: "resize", "centre" or "stretch" (`fit`).
    - `colour`: "grey" or "colour". `start`, `count`: leave out the first so many, and take at most so many.
    - `verify`: compare the file (2.8 GB for "unlabeled") with the checksum of the release, which torchvision knows.

    An image is read from its place in the file, 27,648 bytes, when it is asked for. torchvision's own reader is not
    used: it loads the whole file, and refuses any but all four files of the release.

    Raises `BadFile` if the file is missing, truncated, too short for an "iresnet" split or, with `verify`, not that of
    the release; `BadData` for a fold that is not one; `BadParameter` for a bad start, count, size or fold, and with
    `verify` if torchvision is not installed.
    """

    def __init__(
        self,
        *,
        split: Split = "train",
        path: Path | None = None,
        fold: int | None = None,
        size: Size | None = None,
        colour: Colour = "grey",
        crop: Crop = "resize",
        start: int = 0,
        count: int | None = None,
        verify: bool = False,
    ):
        if fold is not None and (split != "train" or not 0 <= fold <= 9):
            raise BadParameter(f"fold is {fold} of the split {split}", '0 to 9, of the split "train"', "leave fold out")
        self._part = "unlabeled" if split in _DRAWN else split
        name = f"{self._part}_X.bin"
        root = folder_at(path, "stl10")
        needs = f"the folder stl10_binary with {name}, as in the archive of STL-10"
        remedy = f"unpack stl10_binary.tar.gz in {root}, or set path or {ROOT} to the folder in which it was unpacked"
        folder = first_folder(root, _LAYOUTS, name, needs, remedy)
        self._file = folder / name
        if verify:
            check_release("STL10", folder, [name])
        held = _images_in(self._file)
        if split in _DRAWN:
            if held != _UNLABELED:
                expected = f"{_UNLABELED:,}, of which the split {split} is drawn"
                raise BadFile(f"{self._file} holds {held:,} images", expected, "unpack stl10_binary.tar.gz again")
            chosen: Sequence[int] = iresnet_split(split)
        else:
            chosen = range(held) if fold is None else _fold(folder / "fold_indices.txt", fold, held)
        within = part(len(chosen), start, count, f"images of the split {split}")
        self._chosen = chosen[within.start : within.stop]
        self._colour: Colour = colour
        self._crop: Crop = crop
        self._size = height_width(size, "size") or (SIDE, SIDE)
        if crop == "centre" and max(self._size) > SIDE:
            raise BadParameter(f"size is {size}", f'at most {SIDE} for crop = "centre"', 'use crop = "resize"')
        self.shape = (1 if colour == "grey" else 3, *self._size)

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Tensor:
        place = self._chosen[position(index, len(self))]
        try:
            with self._file.open("rb") as file:
                file.seek(place * BYTES)
                content = file.read(BYTES)
        except OSError as error:
            raise file_error(self._file, error, "read") from error
        if len(content) < BYTES:
            raise BadFile(f"{self._file} has become shorter: image {place} is not in it any more", "the same file")
        # Each channel is stored column by column: channel, x, y.
        pixels = np.frombuffer(content, np.uint8).reshape(3, SIDE, SIDE).transpose(2, 1, 0)
        return fit(as_image(pixels / 255, self._colour), self._size, self._crop, self.label(index))

    def label(self, index: int) -> str:
        return f"{self._part}/{self._chosen[position(index, len(self))]:06d}"


@cache
def iresnet_split(split: Literal["iresnet-train", "iresnet-validation", "iresnet-test"]) -> tuple[int, ...]:
    """The positions in unlabeled_X.bin, from 0 and ascending, of a split of 16,284, 64 or 128 images.

    These are the numbers of images in C. Arndt and J. Nickel's comparison of invertible residual networks with other
    networks on grey STL-10 images. They do not say which images they took (only that there are more than the 13,000
    with labels), so these are others, and figures for them are not figures for theirs. The rule: the numbers 0 to
    99,999 are ordered by the first eight bytes of the BLAKE2b digest, of that length, of the text "stl10/" and the
    number in decimal; of this order the first 128 are for the test, the next 64 for validation, the next 16,284 for
    training.
    """

    def order(index: int) -> bytes:
        return hashlib.blake2b(f"stl10/{index}".encode(), digest_size=8).digest()

    first, last = _DRAWN[split]
    return tuple(sorted(sorted(range(_UNLABELED), key=order)[first:last]))


def _images_in(path: Path) -> int:
    size = path.stat().st_size
    if size == 0 or size % BYTES:
        raise BadFile(
            f"{path} has {size} bytes, which is not a number of whole images",
            f"a multiple of {BYTES}: 3 x 96 x 96 bytes for each image",
            "unpack stl10_binary.tar.gz again",
        )
    return size // BYTES


def _fold(path: Path, fold: int, held: int) -> tuple[int, ...]:
    """A line of fold_indices.txt: positions in train_X.bin, from 0."""
    remedy = "take it from stl10_binary.tar.gz again, or leave fold out"
    try:
        lines = path.read_text("ascii").splitlines()
        chosen = tuple(int(word) for word in lines[fold].split())
    except OSError as error:
        raise file_error(path, error, "read") from error
    except (ValueError, IndexError):
        raise BadData(f"{path} has no fold {fold}", "ten lines of numbers", remedy) from None
    if not chosen or len(set(chosen)) < len(chosen) or min(chosen) < 0 or max(chosen) >= held:
        raise BadData(f"line {fold + 1} of {path} is no fold", f"different numbers from 0 to {held - 1}", remedy)
    return chosen
