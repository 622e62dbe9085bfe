"""Which images of a data set can be read, before hours are spent on them."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from preimage import Dataset
from preimage.errors import BadData, BadFile, BadParameter, PreimageError

from .image_file import position


class Subset(Dataset):
    """Some images of another data set, in the given order, under their labels there.

    Raises `BadParameter` if `indices` is empty, has one twice, or one that is not in the data set.
    """

    def __init__(self, whole: Dataset, indices: Sequence[int]):
        if not indices or len(set(indices)) < len(indices) or not all(0 <= i < len(whole) for i in indices):
            expected = f"one or more different numbers from 0 to {len(whole) - 1}"
            raise BadParameter(f"indices is {list(indices)!r:.60}", expected, "leave out what is not there")
        self._whole, self._indices = whole, tuple(indices)
        self.shape = whole.shape

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Tensor:
        return self._whole[self._indices[position(index, len(self))]]

    def origin(self, index: int) -> tuple[Dataset, int]:
        """The data set that image `index` comes from, and its position there."""
        place = self._indices[position(index, len(self))]
        return self._whole.origin(place) if isinstance(self._whole, Subset) else (self._whole, place)

    def label(self, index: int) -> str:
        return self._whole.label(self._indices[position(index, len(self))])


class Readable(NamedTuple):
    """The positions of the images that can be read, and by label what is wrong with the others."""

    indices: tuple[int, ...]
    problems: Mapping[str, PreimageError]


def readable(dataset: Dataset, *, progress: Callable[[int, int], None] | None = None) -> Readable:
    """Read every image once; those that raise `BadFile` or `BadData` are the problems.

    `Subset(dataset, readable(dataset).indices)` is the data set without them. `progress` is called with how many have
    been read, and how many there are.
    """
    indices: list[int] = []
    problems: dict[str, PreimageError] = {}
    for index in range(len(dataset)):
        try:
            dataset[index]
        except (BadFile, BadData) as error:
            problems[dataset.label(index)] = error
        else:
            indices.append(index)
        if progress is not None:
            progress(index + 1, len(dataset))
    return Readable(tuple(indices), problems)
