"""The diffusion and its two derivatives as autograd functions, so that gradients of every order flow.

First derivatives use the hand-written sweeps, compiled where that is possible. Derivatives of those differentiate
the plain torch scheme. `torch.compile` sees the plain scheme only, which it can trace and fuse.
"""

# pyright: basic, reportIncompatibleMethodOverride=false
import inspect
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from . import _compiled, _scheme
from ._scheme import Scheme


def flow(x: Tensor, scheme: Scheme, *, keep: bool | None = None) -> tuple[Tensor, Tensor]:
    """F(x), and the states if they are kept: by default if somebody may differentiate the result."""
    keep = (x.requires_grad and torch.is_grad_enabled()) if keep is None else keep
    if torch.compiler.is_compiling():
        return _scheme.flow(x, scheme, keep)
    return Flow.apply(x, scheme, keep)  # type: ignore[reportReturnType]


def push(x: Tensor, v: Tensor, scheme: Scheme, states: Tensor | None = None) -> Tensor:
    """F'(x) v, cheaper with the states of `flow`."""
    if torch.compiler.is_compiling():
        return _scheme.push(x, v, scheme)
    return Push.apply(x, v, states, scheme)  # type: ignore[reportReturnType]


def pull(x: Tensor, w: Tensor, scheme: Scheme, states: Tensor | None = None) -> Tensor:
    """F'(x)^T w, cheaper with the states of `flow`."""
    if torch.compiler.is_compiling():
        return _scheme.pull(_scheme.flow(x, scheme, True)[1], w, scheme)
    return Pull.apply(x, w, states, scheme)  # type: ignore[reportReturnType]


def second(x: Tensor, v: Tensor, w: Tensor, scheme: Scheme) -> Tensor:
    """The gradient with respect to x of <w, F'(x) v>."""
    return torch.func.vjp(lambda a: _scheme.push(a, v, scheme), x)[1](w)[0]


class Flow(Function):
    """x -> (F(x), states)."""

    @staticmethod
    def forward(x: Tensor, scheme: Scheme, keep: bool) -> tuple[Tensor, Tensor]:
        return (_compiled if _compiled.serves(x) else _scheme).flow(x, scheme, keep)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, ctx.scheme, ctx.kept = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, output[1])
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx: Any, w: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        x, states = ctx.saved_tensors
        return pull(x, w, ctx.scheme, states if ctx.kept else None), None, None

    @staticmethod
    def jvp(ctx: Any, v: Tensor, *_: None) -> tuple[Tensor, None]:
        return push(ctx.saved_tensors[0], v, ctx.scheme), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], x: Tensor, scheme: Scheme, keep: bool) -> Any:
        y, states = Flow.apply(_fold(info, in_dims[0], x), scheme, keep)  # type: ignore[reportGeneralTypeIssues]
        return (_unfold(info, y), _unfold(info, states)), (0, 0)


class Push(Function):
    """(x, v) -> F'(x) v."""

    @staticmethod
    def forward(x: Tensor, v: Tensor, states: Tensor | None, scheme: Scheme) -> Tensor:
        module = _compiled if _compiled.serves(x) else _scheme
        return module.push(x, v, scheme) if states is None else module.push_from(states, v, scheme)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, v, states, ctx.scheme = inputs
        ctx.save_for_backward(x, v, states)
        ctx.save_for_forward(x, v, states)

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, v, states = ctx.saved_tensors
        return (
            second(x, v, w, ctx.scheme) if ctx.needs_input_grad[0] else None,
            pull(x, w, ctx.scheme, states) if ctx.needs_input_grad[1] else None,
            None,
            None,
        )

    @staticmethod
    def jvp(ctx: Any, x_tangent: Tensor | None, v_tangent: Tensor | None, *_: None) -> Tensor:
        x, v, states = ctx.saved_tensors
        out = torch.zeros_like(v)
        if v_tangent is not None:
            out = push(x, v_tangent, ctx.scheme, states)
        if x_tangent is not None:
            out = out + torch.func.jvp(lambda a: _scheme.push(a, v, ctx.scheme), (x,), (x_tangent,))[1]
        return out

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, v: Tensor, states: Tensor | None, scheme: Scheme) -> Any:
        return _unfold(info, push(*_folded(info, in_dims, x, v, states, scheme))), 0


class Pull(Function):
    """(x, w) -> F'(x)^T w."""

    @staticmethod
    def forward(x: Tensor, w: Tensor, states: Tensor | None, scheme: Scheme) -> Tensor:
        module = _compiled if _compiled.serves(x) else _scheme
        states = module.flow(x, scheme, True)[1] if states is None else states
        return module.pull(states, w, scheme)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, w, states, ctx.scheme = inputs
        ctx.save_for_backward(x, w, states)
        ctx.save_for_forward(x, w, states)

    @staticmethod
    def backward(ctx: Any, z: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, w, states = ctx.saved_tensors
        return (
            second(x, z, w, ctx.scheme) if ctx.needs_input_grad[0] else None,
            push(x, z, ctx.scheme, states) if ctx.needs_input_grad[1] else None,
            None,
            None,
        )

    @staticmethod
    def jvp(ctx: Any, x_tangent: Tensor | None, w_tangent: Tensor | None, *_: None) -> Tensor:
        x, w, states = ctx.saved_tensors
        out = torch.zeros_like(w)
        if w_tangent is not None:
            out = pull(x, w_tangent, ctx.scheme, states)
        if x_tangent is not None:
            # F'' is symmetric: the derivative of F'(x)^T w along t is the gradient of <w, F'(x) t>.
            out = out + second(x, x_tangent, w, ctx.scheme)
        return out

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, w: Tensor, states: Tensor | None, scheme: Scheme) -> Any:
        return _unfold(info, pull(*_folded(info, in_dims, x, w, states, scheme))), 0


# PyTorch asks for them at every call, and working them out takes as long as a step on a small image.
for _function in (Flow, Push, Pull):
    setattr(_function.forward, "__signature__", inspect.signature(_function.forward))  # noqa: B010 (unknown to the type)


def _folded(
    info: Any, in_dims: Any, x: Tensor, v: Tensor, states: Tensor | None, scheme: Scheme
) -> tuple[Tensor, Tensor, Scheme, Tensor | None]:
    kept = None if states is None else _fold(info, in_dims[2], states)
    return _fold(info, in_dims[0], x), _fold(info, in_dims[1], v), scheme, kept


def _fold(info: Any, dim: int | None, x: Tensor) -> Tensor:
    """The axis that vmap adds becomes part of the batch, whose images are independent anyway."""
    x = x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _unfold(info: Any, x: Tensor) -> Tensor:
    return x.reshape(info.batch_size, len(x) // info.batch_size, *x.shape[1:])
