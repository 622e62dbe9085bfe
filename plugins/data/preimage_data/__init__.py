"""Images for preimage: data sets, image files, measures of quality, figures, and the commands `run`, `demo` and `data`.

Importing this package imports no torch; public names load their module on first use (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .atomic import atomic_write as atomic_write, write_json as write_json
    from .bsds500 import BSDS500 as BSDS500
    from .celeba import CelebA as CelebA
    from .copies import Copy as Copy, find_copies as find_copies
    from .crops import fit as fit
    from .figures import comparison as comparison, overview as overview, save_figure as save_figure
    from .files import read_array as read_array, read_image as read_image, write_image as write_image
    from .folder import Folder as Folder
    from .image_file import FileDataset as FileDataset, ImageFile as ImageFile
    from .measures import PSNR as PSNR, SSIM as SSIM, psnr as psnr, ssim as ssim
    from .photographs import Photographs as Photographs
    from .stl10 import STL10 as STL10, iresnet_split as iresnet_split
    from .subset import Readable as Readable, Subset as Subset, readable as readable

_WHERE = {
    "atomic": ["atomic_write", "write_json"],
    "bsds500": ["BSDS500"],
    "celeba": ["CelebA"],
    "copies": ["Copy", "find_copies"],
    "crops": ["fit"],
    "figures": ["comparison", "overview", "save_figure"],
    "files": ["read_array", "read_image", "write_image"],
    "folder": ["Folder"],
    "image_file": ["FileDataset", "ImageFile"],
    "measures": ["PSNR", "SSIM", "psnr", "ssim"],
    "photographs": ["Photographs"],
    "stl10": ["STL10", "iresnet_split"],
    "subset": ["Readable", "Subset", "readable"],
}
_MODULE_OF = {name: module for module, found in _WHERE.items() for name in found}
__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
