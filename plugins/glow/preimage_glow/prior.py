"""A trained flow as a prior."""

import math
from collections.abc import Sequence
from typing import Literal, Self, cast, get_args

import torch
from torch import Tensor, nn

from preimage import Key, NormalizingFlow, Shape, check_shape, norms
from preimage._key import keys_for
from preimage.errors import BadData, BadParameter, Incompatible, ShapeMismatch
from preimage.trained import Trained, restore
from preimage.weights import WeightsName, load_weights

from .flow import Flow
from .folded import FoldedFlow, Precision
from .gradients import Gradient, Pass

FAR = 100.0
"""Values further than this from [0, 1] are no image's: bytes are, and decode(z) is not even for unlikely z."""


class GlowPrior(NormalizingFlow, Trained):
    """The distribution over images that a `Flow` has learnt: x = G(z), z ~ N(0, I), z of C H W numbers.

    Images have values in [0, 1] and any size that 2^levels divides.

    - `weights`: a name that ships (`preimage show prior/glow` lists them), or a file that `preimage train` exported.
    - `gradient`: how derivatives of `decode` and `encode` are computed, equal up to rounding (`gradients.Pass`):
      "masks" takes a tenth more time than "plain" at most and a tenth of the memory (145 steps of 512 features, one
      image), "reversible" half as much time again, and memory that does not grow with the number of steps.
    - `precision`: "bfloat16" computes the coupling networks, and their derivatives, in bfloat16, about twice as fast on
      processors with instructions for it ("amx_bf16" of `torch.cpu.get_capabilities()`), and nearly three times as slow
      on those without. Images and round trips are then good to 2 or 3 digits, and so are derivatives.

    Derivatives go through autograd and torch.func, in every mode and order. Nothing has parameters to be trained.

    Raises `BadFile` or `Incompatible` if the weights are missing, damaged, of another architecture or of another number
    of channels; `ShapeMismatch` if the levels do not divide the size of images. All maps raise `ShapeMismatch` for
    another shape, and `encode` `BadData` for what cannot be an image.
    """

    network = Flow
    gradient: Gradient

    def __init__(
        self,
        in_shape: Shape,
        *,
        weights: WeightsName = "faces",
        gradient: Gradient = "masks",
        precision: Precision = "full",
    ):
        flow = cast(Flow, restore(load_weights(weights, "prior/glow"), self.network))
        self._prepare(in_shape, flow, gradient, precision, weights)

    @classmethod
    def of(
        cls, network: nn.Module, in_shape: Shape, *, gradient: Gradient = "masks", precision: Precision = "full"
    ) -> Self:
        """The prior of a `Flow` in memory, as it is now. Raises what the constructor raises."""
        prior = cls.__new__(cls)
        prior._prepare(in_shape, cast(Flow, network), gradient, precision, "the network")
        return prior

    def _prepare(self, in_shape: Shape, flow: Flow, gradient: Gradient, precision: Precision, name: str) -> None:
        super().__init__(in_shape)
        for what, value, kind in (("gradient", gradient, Gradient), ("precision", precision, Precision)):
            if value not in get_args(kind):
                raise BadParameter(f"{what} is {value!r}", " or ".join(f'"{each}"' for each in get_args(kind)))
        if len(self.in_shape) != 3:
            raise ShapeMismatch(f"images have the shape {self.in_shape}", "(C, H, W)", "give grey images one channel")
        if flow.image_channels != self.in_shape[0]:
            found = f"{name} is for images of {flow.image_channels} channels, not {self.in_shape[0]}"
            raise Incompatible(found, f"{flow.image_channels} channels", "name other weights, or change colour")
        flow.shapes(*self.in_shape[1:])
        self.flow, self.gradient = FoldedFlow(flow, precision), gradient
        self.latent_shape = (math.prod(self.in_shape),)

    def decode_with_log_determinant(self, z: Tensor) -> tuple[Tensor, Tensor]:
        check_shape(z, self.latent_shape, "latent z")
        return self._pass(z, decoding=True)(z)

    def encode_with_log_determinant(self, u: Tensor) -> tuple[Tensor, Tensor]:
        check_shape(u, self.in_shape, "image")
        return self._pass(u, decoding=False)(u)

    def encode(self, u: Tensor) -> Tensor:
        """z with G(z) = u.

        Raises `BadData` for NaN and for values further than 100 from [0, 1], for which z would mean nothing.
        `log_density` and `energy` do not: they are finite up to very large values, and NaN or infinite beyond, each
        image for itself.
        """
        check_shape(u, self.in_shape, "image")
        if not bool(((u >= -FAR) & (u <= 1 + FAR)).all()):
            found = f"the image has values from {float(u.min()):.4g} to {float(u.max()):.4g}"
            raise BadData(found, "finite values in or near [0, 1]", "divide by 255 if they are bytes")
        return super().encode(u)

    def sample(
        self, count: int, key: Key | Sequence[Key], like: Tensor | None = None, *, temperature: float = 1.0
    ) -> Tensor:
        """`count` images G(T z), the i-th from `key.child(i)` (or from the i-th key), T being the temperature.

        T < 1 gives likelier, smoother images (Kingma & Dhariwal 2018, section 6.3), T = 0 always G(0).
        Raises `BadParameter` unless 0 <= T < infinity.
        """
        if not 0 <= temperature < float("inf"):
            raise BadParameter(f"temperature is {temperature}", "a finite number >= 0", "use 0.7 for pleasing samples")
        z = [key.normal(self.latent_shape, like) for key in keys_for(key, count)]
        return self.decode(temperature * torch.stack(z))

    def interpolate(
        self, first: Tensor, second: Tensor, count: int, *, path: Literal["spherical", "linear"] = "spherical"
    ) -> Tensor:
        """`count` images from one to another, both included: (B, *in_shape) twice -> (B, count, *in_shape).

        They are the images of points of a path between the latents a and b, t going from 0 to 1 in equal steps:

        - "spherical": (sin((1 - t) w) a + sin(t w) b) / sin w, with w the angle between a and b (Shoemake 1985,
          section 3.3): the norm, which says how likely an image is, changes evenly. It is the linear path for w = 0.
        - "linear": (1 - t) a + t b; in the middle of it the norm is lower, and images smoother.

        Raises `BadParameter` for fewer than 2 images, and `ShapeMismatch` and `BadData` as `encode`.
        """
        if count < 2:
            raise BadParameter(f"count is {count}", "2 or more images, the ends included")
        if path not in ("spherical", "linear"):
            raise BadParameter(f"path is {path!r}", '"spherical" or "linear"')
        a, b = self.encode(first)[:, None], self.encode(second)[:, None]
        t = torch.linspace(0, 1, count, dtype=a.dtype, device=a.device)[:, None]
        start, end = 1 - t, t
        if path == "spherical":
            lengths = (norms(a) * norms(b)).clamp_min(torch.finfo(a.dtype).tiny)
            angle = ((a * b).sum((1, 2)) / lengths).clamp(-1, 1).arccos()[:, None, None]
            bent = angle.sin() > 1e-4  # below, both paths agree to rounding, and the quotient is 0 / 0
            sine = torch.where(bent, angle.sin(), 1)
            start, end = (torch.where(bent, (part * angle).sin() / sine, part) for part in (start, end))
        return self.decode((start * a + end * b).flatten(0, 1)).unflatten(0, (len(first), count))

    def bits_per_dimension(self, images: Tensor, key: Key | Sequence[Key], *, levels: int = 256) -> Tensor:
        """Bits that images of so many grey values cost per pixel value, (B,): (-log2 p(x + u) + n log2 levels) / n.

        x are the images rounded down to multiples of 1 / levels, u is uniform on [0, 1 / levels), drawn from
        `key.child(i)`: its mean over u bounds the cost from above (Theis, van den Oord & Bethge 2016, section 3.1).

        Raises `BadParameter` unless levels >= 2, and `BadData` for values outside [0, 1].
        """
        if levels < 2:
            raise BadParameter(f"levels is {levels}", "an integer >= 2", "use 256 for 8-bit images")
        check_shape(images, self.in_shape, "image")
        if not bool(((images >= 0) & (images <= 1)).all()):
            found = f"the image has values from {float(images.min()):.4g} to {float(images.max()):.4g}"
            raise BadData(found, "values in [0, 1], of which grey values are made", "clamp it, or divide bytes by 255")
        noise = torch.stack([key.uniform(self.in_shape, images) for key in keys_for(key, len(images))])
        noisy = ((images * levels).floor().clamp(0, levels - 1) + noise) / levels
        return -self.log_density(noisy) / (math.log(2) * self.latent_shape[0]) + math.log2(levels)

    def _pass(self, like: Tensor, decoding: bool) -> Pass:
        _, height, width = self.in_shape
        return Pass(self.flow.at(like), decoding, height, width, self.gradient)
