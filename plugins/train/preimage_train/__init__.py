"""`preimage train`: one training loop for everything learned in preimage.

Importing this package imports no torch; public names load their module on first use (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .adversarial import Adversarial as Adversarial
    from .images import Feed as Feed, Images as Images
    from .likelihood import Likelihood as Likelihood
    from .loop import Outcome as Outcome, Slice as Slice, Training as Training
    from .objective import Objective as Objective
    from .recipe import Recipe as Recipe, parse as parse, read as read
    from .supervised import Approximation as Approximation, Reconstruction as Reconstruction
    from .train import Devices as Devices, prepare_folder as prepare_folder, run as run

_WHERE = {
    "adversarial": ["Adversarial"],
    "images": ["Feed", "Images"],
    "likelihood": ["Likelihood"],
    "loop": ["Outcome", "Slice", "Training"],
    "objective": ["Objective"],
    "recipe": ["Recipe", "parse", "read"],
    "supervised": ["Approximation", "Reconstruction"],
    "train": ["Devices", "prepare_folder", "run"],
}
_MODULE_OF = {name: module for module, found in _WHERE.items() for name in found}
__all__ = ["__version__", *sorted(_MODULE_OF)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
