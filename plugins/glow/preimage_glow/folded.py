"""A flow as it is used once it is trained: every scale multiplied in, every inverse computed once, nothing to train."""

import copy
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from preimage.errors import Incompatible

from .coupling import Layer
from .flow import Flow, level_shapes
from .gaussian_layer import FoldedGaussianLayer
from .packed_signs import at_once, mask_by_signs, pack_signs
from .step import FlowStep

Precision = Literal["full", "bfloat16"]

LARGEST_CONDITION = 1e12
"""Of an affine map, in the Frobenius norm, with which its inverse still means something in float64."""


class Signs(NamedTuple):
    """Where the hidden layers of a coupling network are not 0, as bits (`pack_signs`)."""

    first: Tensor
    second: Tensor


class PixelMap(NamedTuple):
    """u -> weight u + bias at every pixel of u (B, C, h, w), C x C and C x 1."""

    weight: Tensor
    bias: Tensor

    def __call__(self, u: Tensor) -> Tensor:
        weight = self.weight.expand(len(u), *self.weight.shape)
        return (torch.bmm(weight, u.flatten(2)) + self.bias).view(u.shape)

    def transpose(self, g: Tensor) -> Tensor:
        """The gradient in u from that in the result."""
        return torch.bmm(self.weight.mT.expand(len(g), *self.weight.shape), g.flatten(2)).view(g.shape)


class FoldedStep(nn.Module):
    """A `FlowStep` as tensors: w = weight u + bias, (a, k) = w, v = (a exp(l(k)) + t(k), k), and its inverse.

    The inverse of the affine map and its determinant are computed in float64 from the weight in the dtype that it is
    used in, anew whenever the module is moved to another: encode and decode are inverse to rounding in every dtype.
    """

    weight: Tensor
    bias: Tensor
    inverse_weight: Tensor
    inverse_bias: Tensor
    log_determinant: Tensor

    def __init__(self, step: FlowStep, precision: Precision):
        super().__init__()
        self.changed, self.bound = step.changed, step.network.bound
        self.hidden = step.network.second.bias.numel()
        self.low = torch.bfloat16 if precision == "bfloat16" else None
        with torch.no_grad():
            weight = step.mixing.double() * step.log_scale.double().exp()
            self._hold("weight", weight.to(step.mixing))
            self._hold("bias", (weight @ step.shift.double())[:, None].to(step.mixing))
            for name, layer in zip(("first", "second", "last"), step.network.layers(), strict=True):
                self._hold(f"{name}_weight", layer.weight.contiguous(memory_format=torch.channels_last))
                self._hold(f"{name}_bias", layer.bias)
            self._derive()

    def _hold(self, name: str, tensor: Tensor) -> None:
        self.register_buffer(name, tensor.detach().clone(), persistent=False)

    def _derive(self) -> None:
        weight = self.weight.double()
        inverse, _ = torch.linalg.inv_ex(weight)
        self._hold("inverse_weight", inverse.to(self.weight))
        self._hold("inverse_bias", -(inverse @ self.bias.double()).to(self.bias))
        self._hold("log_determinant", torch.linalg.slogdet(weight)[1].to(self.weight))
        if self.low is not None:
            for name in ("first", "second", "last"):
                self._hold(f"{name}_weight", self.get_buffer(f"{name}_weight").to(self.low))
                self._hold(f"{name}_bias", self.get_buffer(f"{name}_bias").to(self.low))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        moved = super()._apply(fn, recurse)
        with torch.no_grad():
            self._derive()
        return moved

    def layers(self) -> tuple[Layer, Layer, Layer]:
        """The convolutions of the coupling network."""
        buffers = cast("dict[str, Tensor]", self._buffers)
        first, second, last = (Layer(buffers[f"{n}_weight"], buffers[f"{n}_bias"]) for n in ("first", "second", "last"))
        return first, second, last

    def sound(self) -> bool:
        """Whether all its numbers are finite, and its affine map invertible to rounding errors in float64."""
        condition = float(self.weight.double().norm() * self.inverse_weight.double().norm())
        return condition < LARGEST_CONDITION and all(bool(torch.isfinite(tensor).all()) for tensor in self.buffers())

    @property
    def affine(self) -> PixelMap:
        """w = weight u + bias."""
        return PixelMap(self.weight, self.bias)

    @property
    def inverse_affine(self) -> PixelMap:
        """u with weight u + bias = w."""
        return PixelMap(self.inverse_weight, self.inverse_bias)

    def network(self, k: Tensor) -> tuple[Tensor, Tensor]:
        """Log-scales l(k) and shifts t(k)."""
        first, second, last = self.layers()
        return self._scales(last(second(first(k.to(first.weight.dtype)).relu_()).relu_()), k)

    def network_with_signs(self, k: Tensor) -> tuple[Tensor, Tensor, Signs]:
        """The same, and what `network_pullback` needs, where nothing is differentiated: one hidden layer in memory."""
        first, second, last = self.layers()
        hidden = first(k.to(first.weight.dtype)).relu_()
        one = pack_signs(hidden)
        hidden = _in_place(lambda h: second(h).relu_(), hidden)
        return *self._scales(last(hidden), k), Signs(one, pack_signs(hidden))

    def _scales(self, out: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = out.to(k.dtype).contiguous().chunk(2, 1)
        return self.bound * torch.tanh(raw / self.bound), shift

    def network_pullback(self, signs: Signs, log_scale: Tensor, g_scale: Tensor, g_shift: Tensor) -> Tensor:
        """The gradient in k, from those in l(k) and t(k)."""
        first, second, last = self.layers()
        g_raw = g_scale * (1 - (log_scale / self.bound).square())
        g = last.transpose(torch.cat([g_raw, g_shift], 1).to(last.weight.dtype))
        g = _in_place(second.transpose, mask_by_signs(g, signs.second))
        return first.transpose(mask_by_signs(g, signs.first)).to(g_raw.dtype).contiguous()

    def split(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """The half that the coupling changes, and the half that it is told."""
        return w[:, : self.changed], w[:, self.changed :]

    def encode(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """v, and log |det dv/du| per image without that of the affine map, h w `log_determinant`."""
        a, k = self.split(self.affine(u))
        log_scale, shift = self.network(k)
        return torch.cat([a * log_scale.exp() + shift, k], 1), log_scale.flatten(1).sum(1)

    def decode(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """u with encode(u) = v, and log |det du/dv| likewise."""
        a, k = self.split(v)
        log_scale, shift = self.network(k)
        u = self.inverse_affine(torch.cat([(a - shift) * (-log_scale).exp(), k], 1))
        return u, -log_scale.flatten(1).sum(1)


def _in_place(layer: Callable[[Tensor], Tensor], h: Tensor) -> Tensor:
    """What a layer that looks at every pixel by itself makes of h, of the same shape, written over h piece by piece."""
    rows = at_once(h[:, :, :1].numel(), h.device)
    for band in h.split(rows, 2):
        band.copy_(layer(band))
    return h


Step = Callable[[FoldedStep, Tensor], tuple[Tensor, Tensor]]
Take = Callable[..., tuple[Tensor, ...]]


class FoldedFlow(nn.Module):
    """A `Flow` for inference, equal to it up to rounding: no parameters, buffers in memory only.

    - `precision`: "bfloat16" computes the coupling networks in bfloat16, and all else in the dtype of the argument.
      encode and decode remain inverse only as far as the networks give the same numbers for inputs that are equal to
      rounding: see `GlowPrior`.

    Arguments of another dtype or device than the buffers' are served by a copy made for the call: call `.to` for many.

    Raises `Incompatible` if a step has no inverse in the precision of the weights, or overflows.
    """

    def __init__(self, flow: Flow, precision: Precision = "full"):
        super().__init__()
        self.image_channels = flow.image_channels
        self.first = None if flow.first is None else FoldedGaussianLayer(flow.first)
        self.levels = nn.ModuleList(
            nn.ModuleList(FoldedStep(step, precision) for step in steps) for steps in flow.steps()
        )
        for level, steps in enumerate(self.steps()):
            for index, step in enumerate(steps):
                if not step.sound():
                    found = f"step {index + 1} of level {level + 1} overflows, or is not invertible"
                    raise Incompatible(found, "weights of a flow that was trained", "train it again, or name others")

    def shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """The shape (channels, h, w) of each level's part of z."""
        return level_shapes(self.image_channels, len(self.levels), height, width)

    def steps(self) -> list[list[FoldedStep]]:
        """The steps of each level, in the order in which `encode` takes them."""
        return [list(cast("Any", level)) for level in self.levels]

    def at(self, like: Tensor) -> "FoldedFlow":
        """This flow, or if it must be a copy of it, in the dtype and on the device of a tensor."""
        own = self.steps()[0][0].weight
        if own.dtype == like.dtype and own.device == like.device:
            return self
        return copy.deepcopy(self).to(like.device, like.dtype)

    def constant(self, height: int, width: int) -> Tensor:
        """log |det| of all affine maps of `encode` for images of this size, ()."""
        total = self.first.log_determinant if self.first is not None else None
        for (_, h, w), steps in zip(self.shapes(height, width), self.steps(), strict=True):
            own = h * w * torch.stack([step.log_determinant for step in steps]).sum()
            total = own if total is None else total + own
        assert total is not None
        return total

    def encode(self, x: Tensor, take: Step = FoldedStep.encode) -> tuple[Tensor, Tensor]:
        """z (B, C H W), and log |det dz/dx| per image, (B,); `take` does what a step does."""
        logs = [self.constant(*x.shape[2:]).expand(len(x))]

        def one(step: FoldedStep, u: Tensor) -> tuple[Tensor, ...]:
            v, log_determinant = take(step, u)
            logs.append(log_determinant)
            return (v,)

        (z,) = self.descend(one, x if self.first is None else self.first.encode(x))
        return z, torch.stack(logs).sum(0)

    def decode(self, z: Tensor, height: int, width: int, take: Step = FoldedStep.decode) -> tuple[Tensor, Tensor]:
        """x (B, C, height, width), and log |det dx/dz| per image, (B,)."""
        logs = [-self.constant(height, width).expand(len(z))]

        def one(step: FoldedStep, v: Tensor) -> tuple[Tensor, ...]:
            u, log_determinant = take(step, v)
            logs.append(log_determinant)
            return (u,)

        (x,) = self.ascend(one, height, width, z)
        return (x if self.first is None else self.first.decode(x)), torch.stack(logs).sum(0)

    def descend(self, take: Take, *images: Tensor) -> tuple[Tensor, ...]:
        """Through all levels from images to latents: squeeze, steps, split; several tensors side by side."""
        height, width = images[0].shape[2:]
        shapes, us, parts = self.shapes(height, width), images, list[tuple[Tensor, ...]]()
        for (leaving, _, _), steps in zip(shapes, self.steps(), strict=True):
            us = tuple(squeeze(u) for u in us)
            for step in steps:
                us = take(step, *us)
            parts.append(tuple(u[:, :leaving].flatten(1) for u in us))
            us = tuple(u[:, leaving:] for u in us)
        return tuple(torch.cat(each, 1) for each in zip(*parts, strict=True))

    def ascend(self, take: Take, height: int, width: int, *latents: Tensor) -> tuple[Tensor, ...]:
        """The same way back, for images of this size."""
        shapes, us = self.shapes(height, width), tuple[Tensor, ...]()
        sizes = [c * h * w for c, h, w in shapes]
        parts = list(zip(*(latent.split(sizes, 1) for latent in latents), strict=True))
        for part, shape, steps in reversed(list(zip(parts, shapes, self.steps(), strict=True))):
            own = tuple(p.unflatten(1, shape) for p in part)
            us = tuple(torch.cat(pair, 1) for pair in zip(own, us, strict=True)) if us else own
            for step in reversed(steps):
                us = take(step, *us)
            us = tuple(unsqueeze(u) for u in us)
        return tuple(u.contiguous() for u in us)


# States keep the channels of an image apart in memory, so that halves of them are in one piece; hidden layers have them
# last, the layout in which convolutions are fast. The following are permutations of axes because pixel_shuffle knows no
# empty batch.


def squeeze(u: Tensor) -> Tensor:
    """Squares of 2 x 2 pixels as channels, as `pixel_unshuffle`: (B, C, 2h, 2w) -> (B, 4C, h, w)."""
    batch, channels, height, width = u.shape
    blocks = u.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4)
    return blocks.reshape(batch, 4 * channels, height // 2, width // 2)


def unsqueeze(u: Tensor) -> Tensor:
    """Its inverse, as `pixel_shuffle`: (B, 4C, h, w) -> (B, C, 2h, 2w)."""
    batch, channels, height, width = u.shape
    blocks = u.reshape(batch, channels // 4, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(batch, channels // 4, 2 * height, 2 * width)
