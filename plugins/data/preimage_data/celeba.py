"""CelebA: 202,599 aligned faces of celebrities, 178 x 218 pixels."""

from pathlib import Path
from typing import Literal

from torch import Tensor

from preimage.errors import BadData, BadFile, BadParameter

from .atomic import file_error
from .checksums import check_release
from .crops import Crop, Size, fit
from .files import Colour
from .listed import ROOT, ListedFiles, first_folder, folder_at

IMAGES, PARTITION = "img_align_celeba", "list_eval_partition.txt"
_SPLITS = {"train": "0", "valid": "1", "test": "2"}
_LAYOUTS = (".", "celeba", "CelebA", "CelebA/Img")


class CelebA(ListedFiles):
    """The aligned and cropped faces of CelebA (Liu, Luo, Wang, Tang, "Deep learning face attributes in the wild", ICCV
    2015), by their official partition; labels are the file names, such as "000001.jpg".

    - `path`: a folder that holds `img_align_celeba` (img_align_celeba.zip unpacked) and `list_eval_partition.txt`, or
      has them in a folder `celeba`, as torchvision keeps them. A relative one is below PREIMAGE_DATA, if that is set;
      None is PREIMAGE_DATA itself.
    - `split`: "train" (162,770), "valid" (19,867), "test" (19,962) or "all".
    - `window`: side in pixels of a square that is cut from the centre before anything else: 108 is the convention of
      DCGAN and its successors, 128 keeps more of the hair, and None takes what `crop` leaves, so that by default the
      image is scaled to a width of `size` and the centre is cut out of its height: the square of 178.
    - `size`: pixels, one number or (height, width); None keeps what there is. `crop`: "resize", "centre" or "stretch"
      (`fit`). `colour`: "colour" or "grey".
    - `start`, `count`: leave out the first so many, and take at most so many.
    - `verify`: compare the partition file with the checksum of the release, which torchvision knows.

    The annotations are not read, and need not be there. Files are found when the image is asked for.

    Raises `BadFile` if something is missing or, with `verify`, is not that of the release; `BadData` if the partition
    file is not a partition; `BadParameter` for a bad start, count, size or window, and with `verify` if torchvision is
    not installed; on reading, `BadFile` or `BadData` for a bad image.
    """

    def __init__(
        self,
        *,
        split: Literal["train", "valid", "test", "all"] = "train",
        path: Path | None = None,
        size: Size | None = 64,
        window: int | None = None,
        colour: Colour = "colour",
        crop: Crop = "resize",
        start: int = 0,
        count: int | None = None,
        verify: bool = False,
    ):
        if window is not None and window < 1:
            raise BadParameter(f"window is {window}", "a positive number of pixels, or none", "use 108 or 128")
        self._window = window
        root = folder_at(path, "celeba")
        needs = f"the folder {IMAGES} and the file {PARTITION} of CelebA, side by side"
        remedy = f"put both into {root / 'celeba'}, the images unpacked, or set path or {ROOT} to where they are"
        base = first_folder(root, _LAYOUTS, IMAGES, needs, remedy)
        if not (base / PARTITION).is_file():
            raise BadFile(f"there is no {PARTITION} in {base}", needs, f"put it into {base}: it comes with CelebA")
        if verify:
            check_release("CelebA", base, [PARTITION])
        files = _partition(base / PARTITION, split)
        super().__init__(base / IMAGES, files, size=size, colour=colour, crop=crop, start=start, count=count)

    def _original(self, path: Path) -> Tensor:
        image = super()._original(path)
        return image if self._window is None else fit(image, self._window, "centre", str(path))


def _partition(path: Path, split: str) -> list[str]:
    """The names in a split; each line of the file is a name and 0 (train), 1 (valid) or 2 (test)."""
    found: list[str] = []
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except OSError as error:
        raise file_error(path, error, "read") from error
    for number, line in enumerate(lines, 1):
        name, _, where = line.strip().partition(" ")
        if where.strip() not in _SPLITS.values():
            if not line.strip():
                continue
            expected = "a file name, a space, and 0 (train), 1 (valid) or 2 (test)"
            raise BadData(f"{path}, line {number}: {line:.60}", expected, "take it from CelebA again")
        if split == "all" or where.strip() == _SPLITS[split]:
            found.append(name)
    if not found:
        raise BadData(f"{path} names no image of the split {split}", "one or more", "take it from CelebA again")
    if len(set(found)) < len(found):
        raise BadData(f"{path} names an image twice", "each once", "take it from CelebA again")
    return found
