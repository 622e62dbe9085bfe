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

__version__: str
