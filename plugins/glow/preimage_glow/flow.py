"""The flow of Kingma & Dhariwal (2018), "Glow": levels of steps, half of the channels leaving between levels."""

from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from preimage._prior import standard_normal_log_density
from preimage.errors import BadParameter, ShapeMismatch
from preimage.trained import DataDependent, HasDensity

from .gaussian_layer import GaussianLayer
from .step import FlowStep

Preset = Literal["small", "medium", "paper"]
FirstLayer = Literal["none", "gaussian"]


GAUSSIAN_EXAMPLES = 2048
"""How many images a Gaussian first layer is fitted to in training: its covariances are then known to 3 %."""


class Size(NamedTuple):
    """Levels, steps of each but the last, steps of the last, features of the coupling networks."""

    levels: int
    steps: int
    last_steps: int
    hidden: int


PRESETS: dict[Preset, Size] = {
    "small": Size(3, 8, 8, 96),
    "medium": Size(3, 24, 24, 256),
    "paper": Size(4, 48, 1, 512),
}


class Flow(HasDensity, DataDependent):
    """A bijection of images (B, C, H, W), values in [0, 1], and latents z (B, C H W), z ~ N(0, I) for what it learnt.

    A level turns squares of 2 x 2 pixels into channels, takes its steps (`FlowStep`), and gives the first half of its
    channels to z, except the last, which gives all; z is those parts, one after the other, each as (channels, h, w).
    H and W are any multiples of 2^levels.

    - `preset`: "small" has 3 levels of 8 steps with 96 features, "medium" 3 of 24 with 256, "paper" 4 levels with 512
      features, 48 steps in the first three and one in the last, as in the code of Asim et al. (2020), 145 in all.
      `levels`, `steps`, `last_steps` and `hidden` replace its values.
    - `bound`: of the log-scales of couplings, > 0.
    - `first_layer`: "gaussian" begins with a `GaussianLayer`, fixed, for images of `height` x `width` pixels only:
      before its first step the flow is then the stationary Gaussian of its training images.

    Raises `BadParameter` if a number is out of its range.
    """

    def __init__(
        self,
        preset: Preset = "small",
        image_channels: int = 3,
        levels: int | None = None,
        steps: int | None = None,
        last_steps: int | None = None,
        hidden: int | None = None,
        bound: float = 1.0,
        first_layer: FirstLayer = "none",
        height: int | None = None,
        width: int | None = None,
    ):
        super().__init__()
        if preset not in PRESETS:
            raise BadParameter(f"preset is {preset!r}", ", ".join(f'"{name}"' for name in PRESETS))
        given = (levels, steps, last_steps, hidden)
        size = Size(*(own if own is not None else p for own, p in zip(given, PRESETS[preset], strict=True)))
        for name, value in {"image_channels": image_channels, **size._asdict()}.items():
            if value < 1:
                raise BadParameter(f"{name} is {value}", "an integer >= 1")
        if not 0 < bound < float("inf"):
            raise BadParameter(f"bound is {bound}", "a finite number > 0", "use 1: scales are then in (1/e, e)")
        self.image_channels = image_channels
        channels, found = image_channels, list[nn.ModuleList]()
        for level in range(size.levels):
            channels *= 4
            count = size.steps if level < size.levels - 1 else size.last_steps
            found.append(nn.ModuleList(FlowStep(channels, size.hidden, bound) for _ in range(count)))
            channels -= channels // 2
        self.levels = nn.ModuleList(found)
        self.first = self._first_layer(first_layer, height, width)
        if self.first is not None:
            self.examples_wanted = GAUSSIAN_EXAMPLES

    def _first_layer(self, kind: FirstLayer, height: int | None, width: int | None) -> GaussianLayer | None:
        if kind not in ("none", "gaussian"):
            raise BadParameter(f"first_layer is {kind!r}", '"none" or "gaussian"')
        if kind == "none":
            if height is not None or width is not None:
                found = f"height is {height} and width {width}, without a Gaussian first layer"
                raise BadParameter(found, 'a size only with first_layer = "gaussian"', "leave both out")
            return None
        if height is None or width is None:
            raise BadParameter(f"height is {height}, width {width}", "the size of images, for a Gaussian first layer")
        level_shapes(self.image_channels, len(self.levels), height, width)
        return GaussianLayer(self.image_channels, height, width)

    def steps(self) -> list[list[FlowStep]]:
        """The steps of each level, in the order in which `encode` takes them."""
        return [list(cast("Any", level)) for level in self.levels]

    def shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """The shape (channels, h, w) of each level's part of z for images of this size.

        Raises `ShapeMismatch` if the levels do not divide it, or the first layer is for another.
        """
        if self.first is not None and (height, width) != self.first.mean.shape[1:]:
            size = " x ".join(map(str, self.first.mean.shape[1:]))
            found = f"images are {height} x {width} pixels, and the flow has a Gaussian first layer for {size}"
            raise ShapeMismatch(found, f"images of {size} pixels", "crop or resize, or use a flow without that layer")
        return level_shapes(self.image_channels, len(self.levels), height, width)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, C H W), and log |det dz/dx| per image, (B,)."""
        shapes, dtype = self.shapes(*x.shape[2:]), network_dtype(x)
        parts, total, u = list[Tensor](), x.new_zeros(len(x)), x
        with torch.autocast(x.device.type, enabled=False):
            if self.first is not None:
                u, log_determinant = self.first.encode(u)
                total = total + log_determinant
            for (leaving, _, _), steps in zip(shapes, self.steps(), strict=True):
                u = F.pixel_unshuffle(u, 2).contiguous(memory_format=torch.channels_last)
                for step in steps:
                    u, log_determinant = step.encode(u, dtype)
                    total = total + log_determinant
                parts.append(u[:, :leaving].flatten(1))
                u = u[:, leaving:]
        return torch.cat(parts, 1), total

    def decode(self, z: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """x (B, C, height, width), and log |det dx/dz| per image, (B,)."""
        shapes, dtype = self.shapes(height, width), network_dtype(z)
        parts = z.split([c * h * w for c, h, w in shapes], 1)
        total, u = z.new_zeros(len(z)), None
        with torch.autocast(z.device.type, enabled=False):
            for part, shape, steps in reversed(list(zip(parts, shapes, self.steps(), strict=True))):
                part = part.unflatten(1, shape)
                u = (part if u is None else torch.cat([part, u], 1)).contiguous(memory_format=torch.channels_last)
                for step in reversed(steps):
                    u, log_determinant = step.decode(u, dtype)
                    total = total + log_determinant
                u = F.pixel_shuffle(u, 2)
            assert u is not None
            if self.first is not None:
                u, log_determinant = self.first.decode(u)
                total = total + log_determinant
        return u.contiguous(), total

    def log_density(self, images: Tensor) -> Tensor:
        """log N(z; 0, I) + log |det dz/dx|, in nats."""
        z, log_determinant = self.encode(images)
        return standard_normal_log_density(z) + log_determinant

    @torch.no_grad()
    def initialise(self, examples: Tensor) -> None:
        """Fit every ActNorm to what reaches it when 16 examples are encoded (Kingma & Dhariwal 2018, section 3.1).

        A Gaussian first layer is fitted to all examples before.
        """
        u = examples[: DataDependent.examples_wanted]
        if self.first is not None:
            self.first.fit(examples)
            u, _ = self.first.encode(u)
        for (leaving, _, _), steps in zip(self.shapes(*u.shape[2:]), self.steps(), strict=True):
            u = F.pixel_unshuffle(u, 2)
            for step in steps:
                u = step.initialise(u)
            u = u[:, leaving:]


def level_shapes(image_channels: int, levels: int, height: int, width: int) -> list[tuple[int, int, int]]:
    """The shape (channels, h, w) of each level's part of z.

    Raises `ShapeMismatch` if the levels do not divide the size.
    """
    multiple = 2**levels
    if height % multiple or width % multiple or height < 1 or width < 1:
        near = " x ".join(str(max(1, round(length / multiple)) * multiple) for length in (height, width))
        found = f"images are {height} x {width} pixels, and each of {levels} levels halves the size"
        expected = f"a height and width that are positive multiples of {multiple}"
        raise ShapeMismatch(found, expected, f"crop or resize to {near}, or use a flow of fewer levels")
    channels, found = image_channels, list[tuple[int, int, int]]()
    for level in range(levels):
        height, width, channels = height // 2, width // 2, channels * 4
        leaving = channels // 2 if level < levels - 1 else channels
        found.append((leaving, height, width))
        channels -= leaving
    return found


def network_dtype(x: Tensor) -> torch.dtype | None:
    """What coupling networks compute in: that of automatic mixed precision where it is on.

    All else keeps the dtype of x, for with half precision everywhere the inverse would be off by percents.
    """
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
