"""Any tree of image files."""

from pathlib import Path

from preimage.errors import BadFile, BadParameter

from .crops import Crop, Interpolation, Size
from .files import SUFFIXES, Colour
from .listed import ROOT, ListedFiles, folder_at, image_files


class Folder(ListedFiles):
    """All image files in a folder and the folders below it, sorted by their relative path, which is their label.

    - `path`: the folder. A relative one is below the folder that the environment variable PREIMAGE_DATA names, or, if
      that is not set, below the current folder. None is PREIMAGE_DATA itself.
    - `size`: pixels, one number for squares or (height, width); None if all images have one size already.
    - `crop`: "resize" (scale to cover, then cut the centre), "centre" (cut the centre, pixels untouched) or "stretch".
    - `interpolation`: where images are scaled, "bicubic" or "bilinear" (which published tables of 64 x 64 faces use).
    - `colour`: "grey" or "colour".
    - `extensions`: endings that count as images, in lower case. Files and folders that start with a dot do not.
    - `exclude`: relative paths of files to leave out: copies of test images, say (`preimage data check` finds them).
    - `start`, `count`: leave out the first so many of the rest, and take at most so many.

    Files are listed when the data set is made, and read when an image is asked for. An image that cannot be read is an
    error when it is asked for; `readable` finds all of them beforehand.

    Raises `BadFile` if the folder is missing or has no images, `BadParameter` for a bad start, count, size or
    extension or an excluded file that is not there, and on reading `BadFile` or `BadData` for a bad image, one smaller
    than a centre crop, or, without `size`, one of another size than the first.
    """

    def __init__(
        self,
        *,
        path: Path | None = None,
        size: Size | None = None,
        colour: Colour = "grey",
        crop: Crop = "resize",
        extensions: tuple[str, ...] = SUFFIXES,
        exclude: tuple[str, ...] = (),
        start: int = 0,
        count: int | None = None,
        interpolation: Interpolation = "bicubic",
    ):
        root = folder_at(path)
        found = image_files(root, tuple(_extension(ending) for ending in extensions))
        if not found:
            raise BadFile(
                f"there are no images in {root}",
                f"files that end in {', '.join(extensions)}",
                f"put images there, or set path or {ROOT} to another folder",
            )
        if absent := sorted(set(exclude) - set(found)):
            raise BadParameter(f"exclude has {', '.join(absent)}", f"files in {root}", "remove them from the list")
        found = [name for name in found if name not in exclude]
        super().__init__(
            root, found, size=size, colour=colour, crop=crop, start=start, count=count, interpolation=interpolation
        )


def _extension(ending: str) -> str:
    if ending.lower() not in SUFFIXES and f".{ending.lower()}" not in SUFFIXES:
        raise BadParameter(f"extensions has {ending!r}", f"some of {', '.join(SUFFIXES)}")
    return f".{ending.lower().removeprefix('.')}"
