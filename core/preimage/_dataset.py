"""Images by name."""

from abc import ABC, abstractmethod

from torch import Tensor

from ._tensors import Shape


class Dataset(ABC):
    """A finite, ordered collection of images of one shape, values in [0, 1]."""

    shape: Shape
    """(C, H, W) of every image."""

    @abstractmethod
    def __len__(self) -> int:
        """How many images there are."""

    @abstractmethod
    def __getitem__(self, index: int) -> Tensor:
        """Image `index`, (C, H, W), float32 in [0, 1]. Raises `BadData` if its file cannot be used."""

    @abstractmethod
    def label(self, index: int) -> str:
        """A name for image `index`, unique in the dataset and the same wherever it is read: noise is drawn by it."""
