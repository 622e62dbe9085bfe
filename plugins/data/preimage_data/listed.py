"""Data sets of which every image is a file in a list, all brought to one shape."""

import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from preimage.errors import BadData, BadFile, BadParameter

from .crops import Crop, Interpolation, Size, fit, height_width
from .files import SUFFIXES, Colour, read_image
from .image_file import FileDataset, position

ROOT = "PREIMAGE_DATA"
"""The environment variable that holds the root of data sets."""


class ListedFiles(FileDataset):
    """Image files with names relative to a folder; the names are the labels; read when asked for.

    - `root`: the folder. `files`: names in it, with forward slashes, at least one.
    - `size`: pixels, one number or (height, width); None if all images have one size, which is read off the first.
    - `colour`, `crop`, `interpolation`: see `read_image` and `fit`.
    - `start`, `count`: leave out the first so many, and take at most so many.

    Raises `BadParameter` for a bad start, count or size, `BadFile` or `BadData` on reading a bad image, and `BadData`
    if, without `size`, one has another size than the first.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[str],
        *,
        size: Size | None,
        colour: Colour,
        crop: Crop,
        start: int = 0,
        count: int | None = None,
        interpolation: Interpolation = "bicubic",
    ):
        chosen = part(len(files), start, count, f"images in {root}")
        self._root = root
        self._files = tuple(files[chosen.start : chosen.stop])
        self._colour: Colour = colour
        self._crop: Crop = crop
        self._interpolation: Interpolation = interpolation
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
        image = self._original(path)
        return image if self._size is None else fit(image, self._size, self._crop, str(path), self._interpolation)

    def _original(self, path: Path) -> Tensor:
        """The image in a file, before it is brought to the size of the data set."""
        return read_image(path, self._colour)


def part(found: int, start: int, count: int | None, what: str) -> range:
    """The positions that `start` and `count` choose of so many. Raises `BadParameter` if there are none."""
    if start < 0 or (count is not None and count < 1):
        raise BadParameter(f"start is {start} and count is {count}", "start >= 0 and count >= 1")
    if start >= found:
        raise BadParameter(f"start is {start}", f"less than {found}, the number of {what}")
    return range(start, found if count is None else min(found, start + count))


def folder_at(path: Path | None, example: str = "my/images") -> Path:
    """The folder `path`; a relative one is below PREIMAGE_DATA, or, if that is not set, below the current folder.

    None is PREIMAGE_DATA itself. Raises `BadFile`, with `example` as a path to write, if there is no such folder.
    """
    named = os.environ.get(ROOT)
    if path is None and not named:
        raise BadFile(
            f"the data set has no path, and {ROOT} is not set",
            "a folder of images",
            f'write path = "{example}", or set {ROOT} to the folder that holds your images',
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


def image_files(root: Path, endings: tuple[str, ...] = SUFFIXES) -> list[str]:
    """Relative paths, with forward slashes, of the image files below a folder that do not start with a dot.

    Sorted as text, so that the order is the same everywhere. Raises `BadFile` if a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise BadFile(f"{error.filename} cannot be listed: {error.strerror}", "a readable folder", "mend its rights")

    found: list[str] = []
    for folder, below, names in os.walk(root, onerror=refuse):
        below[:] = [name for name in below if not name.startswith(".")]
        images = (name for name in names if name.lower().endswith(endings) and not name.startswith("."))
        found += [(Path(folder) / name).relative_to(root).as_posix() for name in images]
    return sorted(found)


def first_folder(root: Path, layouts: Sequence[str], holds: str, missing: str, remedy: str) -> Path:
    """The first of `root / layout` that has `holds`, a file or folder, in it.

    Raises `BadFile`, that `missing` was expected, with the remedy.
    """
    for layout in layouts:
        if (root / layout / holds).exists():
            return root / layout
    raise BadFile(f"there is no {holds} in {root}", missing, remedy)
