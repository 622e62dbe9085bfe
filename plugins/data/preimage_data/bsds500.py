"""The Berkeley Segmentation Data Set: 500 photographs of 481 x 321 pixels, upright or lying."""

from pathlib import Path
from typing import Literal

from preimage.errors import BadFile

from .crops import Crop, Size
from .files import Colour
from .listed import ROOT, ListedFiles, first_folder, folder_at, image_files

_LAYOUTS = (".", "images", "BSR/BSDS500/data/images", "BSDS500/data/images", "bsds500", "BSDS500")


class BSDS500(ListedFiles):
    """The photographs of BSDS500 (Arbelaez, Maire, Fowlkes, Malik, "Contour detection and hierarchical image
    segmentation", IEEE TPAMI 33(5), 2011), sorted by name; labels are the file names, such as "100007.jpg".

    - `path`: the folder in which the archive BSR_bsds500.tgz was unpacked, so that the images are in
      BSR/BSDS500/data/images/train, val and test; or one that holds the folders train, val and test itself, or in a
      folder bsds500. A relative one is below PREIMAGE_DATA, if that is set; None is PREIMAGE_DATA itself.
    - `split`: "train" (200), "val" (100) or "test" (200). The segmentations are not read.
    - `size`: pixels, one number or (height, width). The default is the largest square that is in every photograph.
      None keeps 321 x 481 and refuses the upright ones.
    - `crop`: "centre" (the centre, pixels untouched), "resize" (scaled to cover, then the centre) or "stretch".
    - `colour`: "grey" or "colour". `start`, `count`: leave out the first so many, and take at most so many.

    Raises `BadFile` if the photographs are not there, `BadParameter` for a bad start, count or size, and on reading
    `BadFile` or `BadData` for a bad image.
    """

    def __init__(
        self,
        *,
        split: Literal["train", "val", "test"] = "train",
        path: Path | None = None,
        size: Size | None = 321,
        colour: Colour = "grey",
        crop: Crop = "centre",
        start: int = 0,
        count: int | None = None,
    ):
        root = folder_at(path, "BSDS")
        needs = f"the {split} photographs of BSDS500, in BSR/BSDS500/data/images/{split} or in {split}"
        remedy = f"unpack BSR_bsds500.tgz in {root}, or set path or {ROOT} to the folder in which it was unpacked"
        folder = first_folder(root, _LAYOUTS, split, needs, remedy) / split
        found = image_files(folder, (".jpg",))
        if not found:
            raise BadFile(f"there are no JPEG files in {folder}", needs, remedy)
        super().__init__(folder, found, size=size, colour=colour, crop=crop, start=start, count=count)
