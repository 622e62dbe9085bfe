"""Networks for preimage: trained reconstructions, untrained priors fitted to one image, a GAN of faces.

Importing this package imports no torch; public names load their module on first use (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .convresnet import ConvResNet as ConvResNet
    from .dcgan import DCGAN as DCGAN, GenerativeAdversarialNetwork as GenerativeAdversarialNetwork
    from .decoder_network import DecoderNetwork as DecoderNetwork
    from .deep_decoder import DeepDecoder as DeepDecoder
    from .deep_image_prior import DeepImagePrior as DeepImagePrior
    from .diffnet import DiffNet as DiffNet, diffusion_step as diffusion_step
    from .hourglass_network import HourglassNetwork as HourglassNetwork
    from .reconstruction import (
        ConvResNetSolver as ConvResNetSolver,
        DiffNetSolver as DiffNetSolver,
        NetworkSolver as NetworkSolver,
        UNetSolver as UNetSolver,
    )
    from .unet import UNet as UNet
    from .untrained_network import ImageNetwork as ImageNetwork

_MODULE_OF = {
    "ConvResNet": "convresnet",
    "ConvResNetSolver": "reconstruction",
    "DCGAN": "dcgan",
    "DecoderNetwork": "decoder_network",
    "DeepDecoder": "deep_decoder",
    "DeepImagePrior": "deep_image_prior",
    "DiffNet": "diffnet",
    "DiffNetSolver": "reconstruction",
    "diffusion_step": "diffnet",
    "GenerativeAdversarialNetwork": "dcgan",
    "HourglassNetwork": "hourglass_network",
    "ImageNetwork": "untrained_network",
    "NetworkSolver": "reconstruction",
    "UNet": "unet",
    "UNetSolver": "reconstruction",
}
__all__ = ["__version__", *sorted(_MODULE_OF)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
