"""Inpainting: some pixels are known, the others are to be found.

Public names load their module, and with it torch, on first use (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._files import read_mask as read_mask
    from ._masks import box_mask as box_mask, centre_mask as centre_mask, random_mask as random_mask
    from ._operator import Inpainting as Inpainting, InpaintingPerImage as InpaintingPerImage, Masking as Masking

_MODULE_OF = {
    "Inpainting": "_operator",
    "InpaintingPerImage": "_operator",
    "Masking": "_operator",
    "box_mask": "_masks",
    "centre_mask": "_masks",
    "random_mask": "_masks",
    "read_mask": "_files",
}
__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
