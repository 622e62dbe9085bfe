"""DCGAN (Radford, Metz & Chintala 2016): a generative adversarial network of 64 x 64 images."""

import copy
from typing import Literal, Self, cast

import torch
from torch import Tensor, nn

from preimage import Generative, Shape
from preimage.errors import BadParameter, Incompatible, ShapeMismatch
from preimage.trained import Adversaries, Trained, restore
from preimage.weights import WeightsName, load_weights

Preset = Literal["paper", "small"]

_PRESETS: dict[Preset, tuple[int, int]] = {"paper": (100, 64), "small": (100, 32)}
_SIDE = 64


class Generator(nn.Module):
    """z (B, latent) -> images in [0, 1], (B, C, 64, 64): transposed 4 x 4 convolutions, 8f-4f-2f-f-C features.

    Batch normalisation and ReLU between them; the last activation, tanh in the paper for images in [-1, 1], is here
    (1 + tanh) / 2.
    """

    def __init__(self, latent: int, features: int, image_channels: int):
        super().__init__()
        widths = [8 * features, 4 * features, 2 * features, features]
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, widths[0], 4, bias=False)]
        for narrower, wider in zip([*widths[1:], image_channels], widths, strict=True):
            layers += [nn.BatchNorm2d(wider), nn.ReLU(inplace=True)]
            layers += [nn.ConvTranspose2d(wider, narrower, 4, 2, 1, bias=False)]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return 0.5 * (1 + torch.tanh(self.layers(z[:, :, None, None])))


class Discriminator(nn.Module):
    """Images (B, C, 64, 64) in [0, 1] -> one logit each, (B,), high for real ones: strided 4 x 4 convolutions."""

    def __init__(self, features: int, image_channels: int):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(image_channels, features, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
        for width in (features, 2 * features, 4 * features):
            layers += [nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8 * features, 1, 4, bias=False))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(2 * images - 1).flatten()


class GenerativeAdversarialNetwork(Adversaries):
    """A generator and its discriminator, of the standard form for 64 x 64 images.

    - `preset`: "paper" has 64 features on the widest scale, "small" 32; both a latent space of 100 numbers.
      `latent` and `features` replace its values.

    Weights are normal of deviation 0.02, scales of the normalisation normal about 1 (the paper's section 4), drawn when
    training starts. Raises `BadParameter` if a number is not positive.
    """

    def __init__(
        self, preset: Preset = "small", image_channels: int = 3, latent: int | None = None, features: int | None = None
    ):
        super().__init__()
        latent, features = (
            own if own is not None else p for own, p in zip((latent, features), _PRESETS[preset], strict=True)
        )
        for name, value in {"image_channels": image_channels, "latent": latent, "features": features}.items():
            if value < 1:
                raise BadParameter(f"{name} is {value}", "an integer >= 1")
        self.image_channels, self.latent = image_channels, latent
        self.generator = Generator(latent, features, image_channels)
        self.discriminator = Discriminator(features, image_channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, z: Tensor) -> Tensor:
        return self.generator(z)


class DCGAN(Generative, Trained):
    """The images that a trained generator makes of z ~ N(0, I): (B, latent) -> (B, C, 64, 64), values in [0, 1].

    - `weights`: a name that ships (`preimage show prior/dcgan` lists them), or a file that `preimage train` exported.

    Raises `BadFile` or `Incompatible` if the weights are missing, damaged, of another architecture or of another number
    of channels; `ShapeMismatch` unless images are 64 x 64.
    """

    network = GenerativeAdversarialNetwork

    def __init__(self, in_shape: Shape, *, weights: WeightsName = "faces"):
        whole = cast(GenerativeAdversarialNetwork, restore(load_weights(weights, "prior/dcgan"), self.network))
        self._prepare(in_shape, whole, weights)

    @classmethod
    def of(cls, network: nn.Module, in_shape: Shape) -> Self:
        whole = copy.deepcopy(cast(GenerativeAdversarialNetwork, network)).eval().requires_grad_(False)
        prior = cls.__new__(cls)
        prior._prepare(in_shape, whole, "the network")
        return prior

    def _prepare(self, in_shape: Shape, whole: GenerativeAdversarialNetwork, weights: str) -> None:
        super().__init__(in_shape)
        if self.in_shape[1:] != (_SIDE, _SIDE):
            raise ShapeMismatch(f"images are {self.in_shape}", f"(C, {_SIDE}, {_SIDE})", f"use size = {_SIDE}")
        if whole.image_channels != self.in_shape[0]:
            found = f"{weights} is for images of {whole.image_channels} channels, not {self.in_shape[0]}"
            raise Incompatible(found, f"{whole.image_channels} channels", "name other weights, or change colour")
        self.generator: nn.Module = whole.generator
        self.latent_shape = (whole.latent,)

    def decode(self, z: Tensor) -> Tensor:
        return self.generator(z)
