"""Perona-Malik diffusion as a nonlinear forward operator."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .operator import PeronaMalik as PeronaMalik

__all__ = ["PeronaMalik"]


def __getattr__(name: str) -> Any:
    # Listing components imports this package, and must not import torch.
    if name == "PeronaMalik":
        from .operator import PeronaMalik

        return PeronaMalik
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
