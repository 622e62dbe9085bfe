"""Any tree of image files."""

import os
from pathlib import Path

from torch import Tensor

from preimage.errors import BadData, BadFile, BadParameter

from .crops import Crop, Size, fit, height_width
from .files import SUFFIXES, Colour, read_image
from .image_file import FileDataset, position

ROOT = "PREIMAGE_DATA"
"""The environment variable that holds the root of data sets."""


class Folder(FileDataset):
    """All image files in a folder and the folders below it, sorted by their relative path, which is their label.

    - `path`: the folder. A relative one is below the folder that the environment variable PREIMAGE_DATA names, or, if
      that is not set, below the current folder. None is PREIMAGE_DATA itself.
    - `size`: pixels, one number for squares or (height, width); None if all images have one size already.
    - `crop`: "resize" (scale to cover, then cut the centre), "centre" (cut the centre, pixels untouched) or "stretch".
    - `colour`: "grey" or "colour".
    - `extensions`: endings that count as images, in lower case. Files and folders that start with a dot do not.
    - `start`, `count`: leave out the first so many, and take at most so many.

    Files are listed when the data set is made, and read when an image is asked for.

    Raises `BadFile` if the folder is missing or has no images, `BadParameter` for a bad start, count, size or
    extension, and on reading `BadFile` or `BadData` for a bad image, one smaller than a centre crop, or, without
    `size`, one of another size than the first.
    """

    def __init__(
        self,
        *,
        path: Path | None = None,
        size: Size | None = None,
        colour: Colour = "grey",
        crop: Crop = "resize",
        extensions: tuple[str, ...] = SUFFIXES,
        start: int = 0,
        count: int | None = None,
    ):
        if start < 0 or (count is not None and count < 1):
            raise BadParameter(f"start is {start} and count is {count}", "start >= 0 and count >= 1")
        self._root = _root(path)
        found = _files(self._root, tuple(_extension(ending) for ending in extensions))
        if not found:
            raise BadFile(
                f"there are no images in {self._root}",
                f"files that end in {', '.join(extensions)}",
                f"put images there, or set path or {ROOT} to another folder",
            )
        self._files = tuple(found[start:] if count is None else found[start : start + count])
        if not self._files:
            raise BadParameter(f"start is {start}", f"less than {len(found)}, the number of images in {self._root}")
        self._colour: Colour = colour
        self._crop: Crop = crop
        self._size = height_width(size, "size")
        self.shape = (1 if colour == "grey" else 3, *(self._size or tuple(self._read(0).shape[1:])))

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Tensor:
        image = self._read(position(index, len(self)))
        if tuple(image.shape) != self.shape:
            raise BadData(
                f"{self.path(index)} has {image.shape[1]} x {image.shape[2]} pixels",
                f"{self.shape[1]} x {self.shape[2]}, as {self.label(0)}",
                "give the data set a size, such as size = 128",
            )
        return image

    def label(self, index: int) -> str:
        return self._files[position(index, len(self))]

    def path(self, index: int) -> Path:
        return self._root / self.label(index)

    def _read(self, index: int) -> Tensor:
        path = self.path(index)
        image = read_image(path, self._colour)
        return image if self._size is None else fit(image, self._size, self._crop, str(path))


def _root(path: Path | None) -> Path:
    named = os.environ.get(ROOT)
    if path is None and not named:
        raise BadFile(
            f"the data set has no path, and {ROOT} is not set",
            "a folder of images",
            f'write path = "my/images", or set {ROOT} to the folder that holds your images',
        )
    root = Path(named or ".").expanduser() / Path(path or ".").expanduser()
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        where = f" ({ROOT} is {named})" if named else f" ({ROOT} is not set)"
        raise BadFile(
            f"the folder {root} {what}{where}",
            "a folder of images",
            f"put the images there, or set path or {ROOT} to the folder where they are",
        )
    return root


def _extension(ending: str) -> str:
    if ending.lower() not in SUFFIXES and f".{ending.lower()}" not in SUFFIXES:
        raise BadParameter(f"extensions has {ending!r}", f"some of {', '.join(SUFFIXES)}")
    return f".{ending.lower().removeprefix('.')}"


def _files(root: Path, endings: tuple[str, ...]) -> list[str]:
    """Relative paths with forward slashes, sorted as text, so that the order is the same everywhere."""

    def refuse(error: OSError) -> None:
        raise BadFile(f"{error.filename} cannot be listed: {error.strerror}", "a readable folder", "mend its rights")

    found: list[str] = []
    for folder, below, names in os.walk(root, onerror=refuse):
        below[:] = [name for name in below if not name.startswith(".")]
        images = (name for name in names if name.lower().endswith(endings) and not name.startswith("."))
        found += [(Path(folder) / name).relative_to(root).as_posix() for name in images]
    return sorted(found)
