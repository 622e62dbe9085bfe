"""The photographs that scikit-image carries in its own package: always there, nothing is downloaded."""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from torch import Tensor

from preimage.errors import BadFile, BadParameter

from .crops import Crop, Size, fit, height_width
from .files import Colour, read_image
from .image_file import FileDataset, position

Name = Literal[
    "camera",
    "astronaut",
    "chelsea",
    "coffee",
    "motorcycle",
    "rocket",
    "coins",
    "page",
    "brick",
    "moon",
    "gravel",
    "grass",
    "text",
    "retina",
    "hubble",
    "immunohistochemistry",
]

_FILES: dict[Name, str] = {
    "camera": "camera.png",
    "astronaut": "astronaut.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "motorcycle": "motorcycle_left.png",
    "rocket": "rocket.jpg",
    "coins": "coins.png",
    "page": "page.png",
    "brick": "brick.png",
    "moon": "moon.png",
    "gravel": "gravel.png",
    "grass": "grass.png",
    "text": "text.png",
    "retina": "retina.jpg",
    "hubble": "hubble_deep_field.jpg",
    "immunohistochemistry": "ihc.png",
}


class Photographs(FileDataset):
    """Sixteen photographs bundled with scikit-image, in this order: everyday scenes first, then textures and science.

    camera, astronaut, chelsea (a cat), coffee, motorcycle, rocket, coins, page, brick, moon, gravel, grass, text,
    retina, hubble, immunohistochemistry. Labels are these names.

    - `size`: pixels, one number for squares or (height, width). `crop`: "resize" (scale to cover, then cut the
      centre), "centre" (cut only) or "stretch"; see `fit`.
    - `colour`: "grey" or "colour" (grey photographs are then repeated in three channels).
    - `names`: only these, in this order. `count`: only so many, from the first.

    Raises `BadParameter` for a name given twice, a count below 1 or a size below 1, and `BadFile` if scikit-image was
    installed without its images.
    """

    def __init__(
        self,
        *,
        size: Size = 128,
        colour: Colour = "grey",
        crop: Crop = "resize",
        count: int | None = None,
        names: tuple[Name, ...] | None = None,
    ):
        chosen = tuple(_FILES) if names is None else tuple(names)
        unknown = [name for name in chosen if name not in _FILES]
        if unknown or not chosen or len(set(chosen)) < len(chosen):
            given = f"names has {unknown[0]!r}" if unknown else f"names is {list(chosen)}"
            raise BadParameter(given, f"one or more of {', '.join(_FILES)}, each once")
        if count is not None and not 1 <= count <= len(chosen):
            raise BadParameter(f"count is {count}", f"1 to {len(chosen)}, the number of photographs")
        self._names: tuple[Name, ...] = chosen[:count]
        self._size = height_width(size, "size") or (0, 0)
        self._colour: Colour = colour
        self._crop: Crop = crop
        self.shape = (1 if colour == "grey" else 3, *self._size)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Tensor:
        image = read_image(self.path(index), self._colour)
        return fit(image, self._size, self._crop, f"photograph {self.label(index)!r}")

    def label(self, index: int) -> str:
        return self._names[position(index, len(self))]

    def path(self, index: int) -> Path:
        path = bundled() / _FILES[self._names[position(index, len(self))]]
        if not path.is_file():
            raise BadFile(
                f"scikit-image was installed without {path.name}",
                f"the file {path}",
                "pip install --force-reinstall scikit-image, from PyPI; nothing is downloaded at run time",
            )
        return path


def bundled() -> Path:
    """The folder of scikit-image's images, found without importing scikit-image."""
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise BadFile("scikit-image is not installed", "its images", "pip install scikit-image")
    return Path(next(iter(spec.submodule_search_locations))) / "data"
