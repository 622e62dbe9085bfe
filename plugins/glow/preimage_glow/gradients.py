"""Derivatives of a folded flow in both directions, with far less memory than automatic differentiation takes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor

from .folded import FoldedFlow, FoldedStep, Signs
from .packed_signs import packed_size

Gradient = Literal["masks", "checkpointed", "reversible", "plain"]


@dataclass(frozen=True)
class Pass:
    """One direction of a flow, for images of one size: a batch to (values, log-determinants), differentiable.

    What is kept for the gradient of an image of n values, in each step, with networks of `hidden` features:

    - "masks": n / 2 log-scales and the n / 2 changed values, which are floats, and one bit for each hidden feature, as
      the derivative of a network needs no more of a ReLU than its sign. Nothing is computed twice.
    - "checkpointed": the n / 2 floats that the network is told. Networks are computed again, and the changed values
      follow from the result back through the affine maps and couplings.
    - "reversible": nothing but the result of the last step. All states are computed back from it (Gomez et al. 2017,
      "The reversible residual network", section 3.2), with an error that grows on the way.
    - "plain": whatever automatic differentiation keeps; several floats for each hidden feature.
    """

    flow: FoldedFlow
    decoding: bool
    height: int
    width: int
    gradient: Gradient

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.gradient == "plain" or not (torch.is_grad_enabled() and x.requires_grad):
            return self.plain(x)
        values, log_determinant, *_ = cast("tuple[Tensor, ...]", _Apply.apply(x, self))
        return values, log_determinant

    def plain(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """In operations that automatic differentiation knows."""
        with torch.autocast(x.device.type, enabled=False):
            return self.flow.decode(x, self.height, self.width) if self.decoding else self.flow.encode(x)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(values, log-determinants, floats, bytes): the last two are all that the gradient needs, (B, ...)."""
        kept = _Kept.room(self, x)
        with torch.autocast(x.device.type, enabled=False):
            if self.decoding:
                found = self.flow.decode(x, self.height, self.width, lambda step, v: self._decode(step, v, kept))
            else:
                found = self.flow.encode(x, lambda step, u: self._encode(step, u, kept))
        return *found, kept.floats, kept.bytes

    def pullback(self, values: Tensor, g: Tensor, g_log: Tensor, floats: Tensor, packed: Tensor) -> Tensor:
        """The gradient in the argument, from those in the values and in the log-determinants."""
        flow, kept = self.flow, _Kept(floats, packed, floats.shape[1], packed.shape[1])
        back = _decode_back if self.decoding else _encode_back

        def take(step: FoldedStep, *states: Tensor) -> tuple[Tensor, ...]:
            return back(step, states, g_log[:, None, None, None], self._recall(step, states[-1], kept))

        # With masks no state is needed, and only the gradient goes back.
        states = () if self.gradient == "masks" else (values,)
        with torch.autocast(g.device.type, enabled=False):
            if not self.decoding:
                *_, of_x = flow.ascend(take, self.height, self.width, *states, g)
                return of_x if flow.first is None else flow.first.encode_transpose(of_x)
            if flow.first is not None:
                states, g = tuple(flow.first.encode(x) for x in states), flow.first.decode_transpose(g)
            return flow.descend(take, *states, g)[-1]

    def _decode(self, step: FoldedStep, v: Tensor, kept: "_Kept") -> tuple[Tensor, Tensor]:
        a, k = step.split(v)
        log_scale, shift, signs = step.network_with_signs(k)
        changed = (a - shift) * (-log_scale).exp()
        self._keep(k, log_scale, changed, signs, kept)
        return step.inverse_affine(torch.cat([changed, k], 1)), -log_scale.flatten(1).sum(1)

    def _encode(self, step: FoldedStep, u: Tensor, kept: "_Kept") -> tuple[Tensor, Tensor]:
        a, k = step.split(step.affine(u))
        log_scale, shift, signs = step.network_with_signs(k)
        scaled = a * log_scale.exp()
        self._keep(k, log_scale, scaled, signs, kept)
        return torch.cat([scaled + shift, k], 1), log_scale.flatten(1).sum(1)

    def _keep(self, k: Tensor, log_scale: Tensor, changed: Tensor, signs: Signs, kept: "_Kept") -> None:
        if self.gradient == "checkpointed":
            kept.put(k)
        elif self.gradient == "masks":
            kept.put(log_scale)
            kept.put(changed)
            kept.put_bits(signs.first)
            kept.put_bits(signs.second)

    def _recall(self, step: FoldedStep, like: Tensor, kept: "_Kept") -> list[Tensor]:
        """What was kept of a step, in the order of `_keep`; `like`: a state of it."""
        _, channels, height, width = like.shape
        if self.gradient == "checkpointed":
            return [kept.take(channels - step.changed, height, width)]
        if self.gradient == "reversible":
            return []
        changed, log_scale = (kept.take(step.changed, height, width) for _ in range(2))
        second, first = (kept.take_bits(step.hidden * height * width) for _ in range(2))
        return [log_scale, changed, first, second]


@dataclass
class _Kept:
    """Two arrays that are filled from the front and read from the end: one piece of memory each, not one for a step.

    Small pieces that stay, between large ones that come and go, would keep the memory of those from being used again.
    """

    floats: Tensor
    bytes: Tensor
    float_end: int = 0
    byte_end: int = 0

    @classmethod
    def room(cls, run: Pass, x: Tensor) -> "_Kept":
        """As much as a pass over x needs."""
        floats = bits = 0
        for (_, h, w), steps in zip(run.flow.shapes(run.height, run.width), run.flow.steps(), strict=True):
            for step in steps:
                if run.gradient == "checkpointed":
                    floats += (step.weight.shape[0] - step.changed) * h * w
                elif run.gradient == "masks":
                    floats += 2 * step.changed * h * w
                    bits += 2 * packed_size(step.hidden * h * w)
        return cls(x.new_empty(len(x), floats), x.new_empty(len(x), bits, dtype=torch.uint8))

    def put(self, t: Tensor) -> None:
        start, self.float_end = self.float_end, self.float_end + math.prod(t.shape[1:])
        self._floats(start, *t.shape[1:]).copy_(t)

    def take(self, channels: int, height: int, width: int) -> Tensor:
        self.float_end -= channels * height * width
        return self._floats(self.float_end, channels, height, width)

    def _floats(self, start: int, channels: int, height: int, width: int) -> Tensor:
        flat = self.floats[:, start : start + channels * height * width]
        return flat.unflatten(1, (channels, height, width))

    def put_bits(self, packed: Tensor) -> None:
        start, self.byte_end = self.byte_end, self.byte_end + packed.shape[1]
        self.bytes[:, start : self.byte_end] = packed

    def take_bits(self, count: int) -> Tensor:
        end, self.byte_end = self.byte_end, self.byte_end - packed_size(count)
        return self.bytes[:, self.byte_end : end]


def _decode_back(
    step: FoldedStep, states: tuple[Tensor, ...], g_log: Tensor, kept: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """From (u, gradient in u), or the gradient alone if masks are kept, to the same of v, decode(v) = u."""
    *state, g = states
    g_changed, g_known = step.split(step.inverse_affine.transpose(g))
    if state:
        changed, k = step.split(step.affine(state[0]))
        k = kept[0] if kept else k
        log_scale, shift, signs = step.network_with_signs(k)
        state = [torch.cat([changed * log_scale.exp() + shift, k], 1)]
    else:
        log_scale, changed, *masks = kept
        signs = Signs(*masks)
    g_a = g_changed * (-log_scale).exp()
    g_known = g_known + step.network_pullback(signs, log_scale, -g_changed * changed - g_log, -g_a)
    return *state, torch.cat([g_a, g_known], 1)


def _encode_back(
    step: FoldedStep, states: tuple[Tensor, ...], g_log: Tensor, kept: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """From (v, gradient in v), or the gradient alone if masks are kept, to the same of u, encode(u) = v."""
    *state, g = states
    g_changed, g_known = step.split(g)
    if state:
        changed, k = step.split(state[0])
        k = kept[0] if kept else k
        log_scale, shift, signs = step.network_with_signs(k)
        scaled = changed - shift
        state = [step.inverse_affine(torch.cat([scaled * (-log_scale).exp(), k], 1))]
    else:
        log_scale, scaled, *masks = kept
        signs = Signs(*masks)
    g_known = g_known + step.network_pullback(signs, log_scale, g_changed * scaled + g_log, g_changed)
    return *state, step.affine.transpose(torch.cat([g_changed * log_scale.exp(), g_known], 1))


class _Apply(torch.autograd.Function):
    """(argument, Pass) -> (values, log-determinants, floats, bytes)."""

    generate_vmap_rule = False

    @staticmethod
    def forward(x: Tensor, done: Pass) -> tuple[Tensor, ...]:
        return done.forward(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.done = inputs
        values, _, floats, packed = output
        ctx.mark_non_differentiable(floats, packed)
        ctx.set_materialize_grads(False)  # zeros for what was kept would take as much memory again
        ctx.save_for_backward(x, values, floats, packed)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, values, *kept = ctx.saved_tensors
        g, g_log = gradients[:2]
        if g is None and g_log is None:
            return None, None
        g = torch.zeros_like(values) if g is None else g
        g_log = values.new_zeros(len(values)) if g_log is None else g_log
        return _Pullback.apply(g, g_log, ctx.done, x, values, *kept), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        (x,) = ctx.saved_tensors
        pushed = torch.func.jvp(ctx.done.plain, (x.clone(),), (tangents[0].clone(),))[1]
        return *pushed, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        return _over_batches(_Apply.apply, info.batch_size, in_dims, arguments)


class _Pullback(torch.autograd.Function):
    """(gradients in values and log-determinants, Pass, argument, values, floats, bytes) -> gradient in the argument."""

    generate_vmap_rule = False

    @staticmethod
    def forward(
        g: Tensor, g_log: Tensor, done: Pass, x: Tensor, values: Tensor, floats: Tensor, packed: Tensor
    ) -> Tensor:
        return done.pullback(values, g, g_log, floats, packed)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        g, g_log, ctx.done, x, *_ = inputs
        ctx.save_for_backward(g, g_log, x)
        ctx.save_for_forward(g, g_log, x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        of_g, of_log, of_x = torch.func.vjp(_plain_pullback(ctx.done), *ctx.saved_tensors)[1](gradients[0])
        return of_g, of_log, None, of_x, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        given = tuple(t.clone() for t in ctx.saved_tensors)  # forward mode refuses expanded tensors
        changes = (*tangents[:2], tangents[3])
        moved = tuple(torch.zeros_like(a) if t is None else t.clone() for a, t in zip(given, changes, strict=True))
        return torch.func.jvp(_plain_pullback(ctx.done), given, moved)[1]

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        return _over_batches(_Pullback.apply, info.batch_size, in_dims, arguments)


def _plain_pullback(done: Pass) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The gradient in the argument as a function of those in the results and of the argument, to be differentiated."""

    def pulled(g: Tensor, g_log: Tensor, x: Tensor) -> Tensor:
        return torch.func.vjp(done.plain, x)[1]((g, g_log))[0]

    return pulled


def _over_batches(apply: Callable[..., Any], count: int, in_dims: Any, arguments: Sequence[Any]) -> Any:
    """vmap of a function of batches: the mapped axis is merged with that of the batch."""

    def merged(argument: Any, dim: int | None) -> Any:
        if not isinstance(argument, Tensor):
            return argument
        whole = argument.expand(count, *argument.shape) if dim is None else argument.movedim(dim, 0)
        return whole.flatten(0, 1)

    out = apply(*(merged(a, d) for a, d in zip(arguments, in_dims, strict=True)))
    if isinstance(out, Tensor):
        return out.unflatten(0, (count, -1)), 0
    return tuple(t.unflatten(0, (count, -1)) for t in out), (0,) * len(out)
