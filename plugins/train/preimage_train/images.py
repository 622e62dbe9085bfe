"""Training images: several data sets as one, read once, and batches drawn from them by step number alone."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from preimage import Dataset, Key
from preimage.errors import BadData, BadFile, BadParameter

from .settings import Batches

_CACHE = 2 * 1024**3


@dataclass(frozen=True)
class Images:
    """The images of one or more data sets, in order. Kept in memory as far as 2 GiB of float32 hold them all.

    - `held`: one tensor for each set, or None; `rows`: the row of each image in it.
    - `skipped`: what could not be read, with the reason, if that was allowed.
    """

    sets: tuple[Dataset, ...]
    places: tuple[tuple[int, int], ...]
    held: tuple[Tensor, ...] | None
    rows: tuple[int, ...] = ()
    skipped: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, sets: Sequence[Dataset], skip: bool = False, told: Callable[[int, int], None] | None = None
    ) -> "Images":
        """Read all images; `told` hears how many of how many are done.

        Raises `BadData` if the sets differ in channels, if there is no image, or, unless `skip`, if some cannot be
        read, naming them.
        """
        channels = {data.shape[0] for data in sets}
        if len(channels) != 1:
            expected = "one number of channels"
            raise BadData(f"the data sets have images of {sorted(channels)} channels", expected, "give each a colour")
        total = sum(len(data) for data in sets)
        pixels = sum(len(data) * data.shape[0] * data.shape[1] * data.shape[2] for data in sets)
        places, held, rows, broken = list[tuple[int, int]](), list[Tensor](), list[int](), list[str]()
        for number, data in enumerate(sets):
            # One tensor a set: workers are handed a file descriptor for each tensor.
            whole = torch.empty((len(data), *data.shape)) if 4 * pixels <= _CACHE else None
            row = 0
            for index in range(len(data)):
                try:
                    image = data[index]
                except (BadData, BadFile) as error:
                    broken.append(f"{data.label(index)}: {error.found}")
                    continue
                places.append((number, index))
                if whole is not None:
                    whole[row] = image
                rows.append(row)
                row += 1
                if told is not None:
                    told(len(places) + len(broken), total)
            if whole is not None:
                held.append(whole[:row])
        if broken and not skip:
            listed = "; ".join(broken[:5]) + (f"; and {len(broken) - 5} more" if len(broken) > 5 else "")
            remedy = "mend or remove them, or say skip_unreadable = true in [batches]"
            raise BadData(
                f"{len(broken)} of {total} images cannot be read: {listed}", "images that can be read", remedy
            )
        if not places:
            raise BadData("there are no images to train on", "at least one", "check [data]")
        return cls(tuple(sets), tuple(places), tuple(held) or None, tuple(rows), tuple(broken))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Tensor:
        """Image `index`, (C, H, W), float32 in [0, 1]."""
        number, position = self.places[index]
        if self.held is not None:
            return self.held[number][self.rows[index]]
        return self.sets[number][position]

    def label(self, index: int) -> str:
        """The label of image `index` in its data set."""
        number, position = self.places[index]
        return self.sets[number].label(position)

    def digest(self) -> str:
        """BLAKE2b over labels and pixel values of all images, or of a thousand at equal distances if there are more."""
        whole = hashlib.blake2b(digest_size=16)
        for index in range(0, len(self), max(1, len(self) // 1000)):
            whole.update(self.label(index).encode())
            whole.update(self[index].numpy().tobytes())
        return whole.hexdigest()


class Feed(TorchDataset[tuple[Tensor, list[str]]]):
    """Batch number `step`: this process's share of its images (B, C, H, W), and their labels.

    Every epoch goes through all images in a new order; order, crops and symmetries come from `key` and the step, so the
    position in the data is the number of the step. The images of a step are divided over the processes in order.

    Raises `BadParameter` if an image is smaller than the crop, or the batch cannot be divided evenly.
    """

    def __init__(self, images: Images, settings: Batches, key: Key, rank: int = 0, world: int = 1):
        if settings.size % world:
            found = f"batches.size is {settings.size} for {world} processes"
            raise BadParameter(found, f"a multiple of {world}", "change it, or the number of devices")
        self._images, self._settings, self._key = images, settings, key
        share = settings.size // world
        self._rows = range(rank * share, (rank + 1) * share)
        self._order = lru_cache(maxsize=2)(self._permutation)
        self.shape = self._shape()

    def _shape(self) -> tuple[int, int, int]:
        shapes = {data.shape for data in self._images.sets}
        channels = next(iter(shapes))[0]
        crop = self._settings.crop
        if crop is not None:
            for data in self._images.sets:
                if min(data.shape[1:]) < crop:
                    found = f"images are {data.shape[1]} x {data.shape[2]} pixels, the crop {crop} x {crop}"
                    raise BadParameter(found, "images at least as large as the crop", "use a smaller batches.crop")
            return channels, crop, crop
        if len(shapes) > 1:
            found = f"the data sets have images of the shapes {sorted(shapes)}"
            raise BadParameter(found, "one shape, or a crop", "give batches.crop, or each data set a size")
        shape = next(iter(shapes))
        if self._settings.turns and shape[1] != shape[2]:
            raise BadParameter(f"batches.turns with images of {shape[1]} x {shape[2]}", "square images", "give a crop")
        return shape[0], shape[1], shape[2]

    def _permutation(self, epoch: int) -> list[int]:
        return self._key.child("epoch", epoch).permutation(len(self._images)).tolist()

    def __getitem__(self, step: int) -> tuple[Tensor, list[str]]:
        labels = [f"{step}/{row}" for row in self._rows]
        return torch.stack([self._one(step, row) for row in self._rows]), labels

    def _one(self, step: int, row: int) -> Tensor:
        position = step * self._settings.size + row
        epoch, place = divmod(position, len(self._images))
        image = self._images[self._order(epoch)[place]]
        drawn = self._key.child("crop", step, row).generator().random(4)
        if (crop := self._settings.crop) is not None:
            top, left = (int(u * (n - crop + 1)) for u, n in zip(drawn, image.shape[1:], strict=False))
            image = image[:, top : top + crop, left : left + crop]
        if self._settings.flips and drawn[2] < 0.5:
            image = image.flip(2)
        if self._settings.turns:
            symmetry = int(drawn[3] * 4)
            image = image.flip(1) if symmetry & 1 else image
            image = image.transpose(1, 2) if symmetry & 2 else image
        return image

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_order"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._order = lru_cache(maxsize=2)(self._permutation)
