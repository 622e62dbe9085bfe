"""The inverse as a function that automatic differentiation knows: derivatives by the implicit function theorem."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .fixed_point import iterate
from .inverse import Block, invert
from .residual import Residual

_TENSORS = len(Residual._fields)


class Accuracy(NamedTuple):
    """How well the inverse is solved (`inverse.invert`), and how well the linear equations of its derivatives.

    - `tolerance`, `certified`: of the inverse. `derivative`: relative, of each block's equation, for each image.
    """

    tolerance: float
    certified: bool
    derivative: float


def decode(blocks: Sequence[Block], z: Tensor, accuracy: Accuracy) -> Tensor:
    """phi^-1(z), (B, M, h, w) -> (B, M, h, w), differentiable in z and in the tensors of the residuals.

    With x = phi_i^-1(z), x - f(x) = z and J = f'(x),

        dx = (I - J)^-1 (dz + d_theta f(x)),    dL/dz = w = (I - J)^-T dL/dx,    dL/dtheta = (d_theta f(x))^T w,

    fixed points again of maps with constant L_i (the implicit differentiation of Arndt & Nickel 2024). Only x =
    phi^-1(z) is kept for them: states between blocks follow from it by x_{i-1} = x_i - f_i(x_i), so memory depends
    neither on the number of iterations nor on that of blocks. Forward and reverse mode once, also under `torch.func`:
    jvp, vjp, jacrev, vmap.
    """
    tensors = [tensor for block in blocks for tensor in block.residual]
    rest = [(block.bound, block.start.detach(), block.start_bias.detach()) for block in blocks]
    return _Decode.apply(z, _Setting(rest, accuracy), *tensors)  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class _Setting:
    """What a solve needs beside the tensors that are differentiated: of each block the bound and the linear start."""

    rest: list[tuple[float, Tensor, Tensor]]
    accuracy: Accuracy

    def of(self, tensors: Sequence[Any]) -> list[Block]:
        """The blocks with these tensors."""
        each = (Residual(*tensors[i : i + _TENSORS]) for i in range(0, len(tensors), _TENSORS))
        return [Block(own, *rest) for own, rest in zip(each, self.rest, strict=True)]


class _Once(torch.autograd.Function):
    """A function that is not differentiated again, applied one by one to what vmap maps over."""

    generate_vmap_rule = False

    @classmethod
    def vmap(cls, info: Any, in_dims: Any, *arguments: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        def row(i: int) -> list[Any]:
            return [a if d is None else a.select(d, i) for a, d in zip(arguments, in_dims, strict=True)]

        outs = [cls.apply(*row(i)) for i in range(info.batch_size)]
        if isinstance(outs[0], tuple):
            stacked = tuple(torch.stack(each) for each in zip(*outs, strict=True))
            return stacked, (0,) * len(stacked)
        return torch.stack(outs), 0

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise NotImplementedError("the inverse of an invertible network can be differentiated once, not twice")

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise NotImplementedError("the inverse of an invertible network can be differentiated once, not twice")


class _Decode(_Once):
    @staticmethod
    def forward(z: Tensor, setting: _Setting, *tensors: Tensor) -> Tensor:
        accuracy = setting.accuracy
        return invert(setting.of(tensors), z, accuracy.tolerance, accuracy.certified).x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, ctx.setting, *tensors = inputs
        ctx.save_for_backward(output, *tensors)
        ctx.save_for_forward(output, *tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, *tensors = ctx.saved_tensors
        back, *weights = _Pullback.apply(x, gradients[0], ctx.setting, any(ctx.needs_input_grad[2:]), *tensors)
        return back, None, *(weights or [None] * len(tensors))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        x, *tensors = ctx.saved_tensors
        direction, _, *moved = tangents
        changes = moved if any(m is not None for m in moved) else []
        return _Pushforward.apply(x, direction, ctx.setting, *tensors, *changes)


class _Pullback(_Once):
    """(x, g) -> (dL/dz, dL/dtheta ...) for g = dL/dx."""

    @staticmethod
    def forward(x: Tensor, g: Tensor, setting: _Setting, weights: bool, *tensors: Tensor) -> tuple[Tensor, ...]:
        blocks, g = setting.of(tensors), g.contiguous(memory_format=_layout(x))
        gradients = list[Tensor]()
        for block in reversed(blocks):
            residual = block.residual.to(x)
            features = residual.features(x)
            g = _solve(g, residual.vjp, features, block.bound, setting.accuracy)
            if weights:
                gradients = [*residual.weights_vjp(x, features, g), *gradients]
            x = x - F.conv2d(features, residual.narrow, residual.narrow_bias)
        return g, *(gradient.to(tensor) for gradient, tensor in zip(gradients, tensors, strict=False))


class _Pushforward(_Once):
    """(x, dz, dtheta ...) -> dx."""

    @staticmethod
    def forward(x: Tensor, direction: Tensor | None, setting: _Setting, *tensors: Tensor | None) -> Tensor:
        blocks, states = setting.of(tensors[: _TENSORS * len(setting.rest)]), [x]
        changes = tensors[_TENSORS * len(blocks) :]
        for block in reversed(blocks[1:]):
            states.append(states[-1] - block.residual.to(x)(states[-1]))
        v = torch.zeros_like(x) if direction is None else direction.contiguous(memory_format=_layout(x))
        for index, block in enumerate(blocks):
            state, residual = states.pop(), block.residual.to(x)
            features = residual.features(state)
            if changes:
                given = changes[_TENSORS * index : _TENSORS * (index + 1)]
                v = v + _weights_jvp(residual, state, features, given)
            v = _solve(v, residual.jvp, features, block.bound, setting.accuracy)
        return v


def _weights_jvp(residual: Residual, x: Tensor, features: Tensor, changes: Sequence[Tensor | None]) -> Tensor:
    """The derivative of f(x) in the tensors, along these changes of theirs."""
    filled = (torch.zeros_like(t) if c is None else c.to(t) for t, c in zip(residual, changes, strict=True))
    change = Residual(*filled)
    wide = F.conv2d(x, change.wide, change.wide_bias, padding=change.wide.shape[-1] // 2)
    active = torch.where(features != 0, wide - change.threshold * features.sign(), 0)
    moved = F.conv2d(active, residual.narrow)
    return moved + F.conv2d(features, change.narrow, change.narrow_bias)


def _solve(g: Tensor, linear: Any, features: Tensor, bound: float, accuracy: Accuracy) -> Tensor:
    """w = g + J w, J w = linear(features, w)."""

    def advance(w: Tensor, rows: Tensor | None) -> Tensor:
        return g + linear(features, w) if rows is None else g[rows] + linear(features[rows], w)

    def enough(rows: Tensor, step: Tensor, pace: Tensor, size: Tensor) -> Tensor:
        return bound / (1 - bound) * step <= accuracy.derivative * size

    return iterate(g, advance, bound, enough).x


def _layout(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.dtype == torch.float32 else torch.contiguous_format
