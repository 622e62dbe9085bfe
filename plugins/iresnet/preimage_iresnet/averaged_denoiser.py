"""A trained denoiser that is an averaged operator, with the proof."""

import math
from typing import cast

import torch
from torch import Tensor

from preimage import AveragedDenoiser, Shape
from preimage.errors import BadParameter, ShapeMismatch
from preimage.trained import Trained, restore
from preimage.weights import WeightsName, load_weights

from .averaged_certificate import verify
from .averaged_network import GREY, AveragedNetwork


class AveragedNetworkDenoiser(AveragedDenoiser, Trained):
    """D_sigma(x) = (1 - t) x + t (1/2 + c (N_sigma(x) - 1/2)) with a trained N_sigma that is nonexpansive and bounded
    (`AveragedNetwork`), c = `contraction`: t-averaged for every sigma, and Lip(D_sigma) <= 1 - t (1 - c).

    That ||N_sigma(x) - N_sigma(x')|| <= ||x - x'|| for all images, of every size, is proved when weights are loaded,
    from bounds of the norms of their kernels, for exact arithmetic; in floating point it holds up to rounding. The
    channels of a colour image are denoised one by one, which is nonexpansive too.

    With t <= 1/2, D_sigma is firmly nonexpansive: plug-and-play ADMM and proximal gradient descent converge with it on
    every linear operator (`preimage show solver/pnp-admm`). As N is bounded, there is a fixed point to converge to;
    it is unique if c < 1, at the price of contrast: values are drawn to mid-grey by t (1 - c) of their distance.

    - `weights`: a name that ships (`preimage show prior/iresnet-denoiser` lists them), or a file that `preimage train`
      exported.
    - `contraction`: c in (0, 1]; 1 (default) leaves N as it is.

    `denoise` takes any sigma > 0; the weights were trained for a range, and outside of it they continue by the law of
    their thresholds, a power of sigma.

    Raises `BadFile` or `Incompatible` if the weights are missing, damaged, of another architecture, or their
    certificate is missing or wrong; `BadParameter` for a contraction out of range, or a sigma that is not positive;
    `ShapeMismatch` for images smaller than `AveragedNetwork.smallest`.
    """

    network = AveragedNetwork
    bounded = True

    def __init__(self, in_shape: Shape, *, weights: WeightsName = "denoiser", contraction: float = 1.0):
        super().__init__(in_shape)
        if not 0 < contraction <= 1:
            remedy = "use 1, or 0.99 for a unique fixed point"
            raise BadParameter(f"contraction is {contraction}", "a number in (0, 1]", remedy)
        loaded = load_weights(weights, "prior/iresnet-denoiser")
        self.trained = loaded
        self.denoiser = cast(AveragedNetwork, restore(loaded, self.network))
        verify(loaded, self.denoiser)
        least = self.denoiser.smallest
        if len(self.in_shape) != 3 or min(self.in_shape[1:]) < least:
            raise ShapeMismatch(f"images are {self.in_shape}", f"(C, h, w) with h, w >= {least}", "use larger images")
        self.contraction = contraction
        self.averaged = self.denoiser.averaged

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        strength = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        if not bool((strength > 0).all()) or not bool((strength < math.inf).all()):
            raise BadParameter(f"sigma is {sigma}", "positive finite numbers", "leave an image without noise as it is")
        nonexpansive = self.denoiser.nonexpansive(x, strength)
        return torch.lerp(x, torch.lerp(torch.full_like(x, GREY), nonexpansive, self.contraction), self.averaged)
