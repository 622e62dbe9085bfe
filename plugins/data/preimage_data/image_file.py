"""Data sets that come from files, and the simplest of them: one image."""

from abc import abstractmethod
from pathlib import Path

from torch import Tensor

from preimage import Dataset
from preimage.errors import BadFile

from .crops import Crop, Size, fit, height_width
from .files import Colour, read_image


class FileDataset(Dataset):
    """A data set of which every image is in a file of its own."""

    @abstractmethod
    def path(self, index: int) -> Path:
        """The file of image `index`."""

    def whole(self, index: int) -> Tensor:
        """All of the image in its file, (C, H, W), before it is brought to the size and colour of the data set."""
        return read_image(self.path(index))


class ImageFile(FileDataset):
    """One image file: a data set of one, labelled with the file's name.

    - `path`: PNG, JPEG, TIFF or NPY (`read_image`).
    - `size`: pixels, one number or (height, width); None keeps the image's own size. `crop`: how (`fit`).
    - `colour`: "grey" or "colour" converts; None keeps what the file has.

    Raises `BadFile` or `BadData` as `read_image`.
    """

    def __init__(self, *, path: Path, size: Size | None = None, colour: Colour | None = None, crop: Crop = "resize"):
        self._path = path
        self._colour: Colour | None = colour
        self._crop: Crop = crop
        self._size = height_width(size, "size")
        self.shape = tuple(self._read().shape)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Tensor:
        position(index, 1)
        image = self._read()
        if tuple(image.shape) != self.shape:
            raise BadFile(
                f"{self._path} has changed: its shape was {self.shape}, and is {tuple(image.shape)}", "one shape"
            )
        return image

    def label(self, index: int) -> str:
        position(index, 1)
        return self._path.name

    def path(self, index: int) -> Path:
        position(index, 1)
        return self._path

    def _read(self) -> Tensor:
        image = read_image(self._path, self._colour)
        return image if self._size is None else fit(image, self._size, self._crop, str(self._path))


def position(index: int, count: int) -> int:
    """`index`, counted from the end if negative. Raises `IndexError`, which ends a loop over a data set."""
    if not -count <= index < count:
        raise IndexError(f"image {index} of a data set of {count}")
    return index % count
