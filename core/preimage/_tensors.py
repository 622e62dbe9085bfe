"""Small rules about batches that every part of the core keeps in the same way."""

import dataclasses
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from .errors import BadData, ShapeMismatch

Shape = tuple[int, ...]
"""Shape of one element, without the batch axis; (C, H, W) for images."""

T = TypeVar("T")


def check_shape(tensor: Tensor, shape: Shape, what: str) -> None:
    """Raise `ShapeMismatch` unless `tensor` is a floating-point batch of shape (B, *shape)."""
    wanted = f"({', '.join(('B', *map(str, shape)))})"
    if tuple(tensor.shape[1:]) != shape or tensor.ndim == 0:
        batchless = tuple(tensor.shape) == shape
        remedy = "add the batch axis: x[None]" if batchless else "crop or resize, or build it for this shape"
        raise ShapeMismatch(f"{what} has shape {tuple(tensor.shape)}", f"shape {wanted}, B the batch size", remedy)
    if not tensor.is_floating_point():
        raise ShapeMismatch(
            f"{what} has dtype {tensor.dtype}", "a floating-point dtype", "convert first: x.float() / 255 for bytes"
        )


def check_finite(tensor: Tensor, what: str) -> None:
    """Raise `BadData` if there is NaN or infinity in `tensor`."""
    finite = torch.isfinite(tensor)
    if not bool(finite.all()):
        bad, nan = int((~finite).sum()), int(torch.isnan(tensor).sum())
        where = tuple(int(i) for i in (~finite).nonzero()[0])
        raise BadData(
            f"{what} has {bad} values that are not finite ({nan} NaN, {bad - nan} infinite), first at index {where}",
            "finite numbers",
            "mend the data, or set these values to 0 and mask them by the operator",
        )


def per_image(value: "float | Tensor", like: Tensor) -> Tensor:
    """A number, or one per image (B,), shaped to multiply the batch `like`: () or (B, 1, ..., 1)."""
    if isinstance(value, Tensor):
        return value.to(like).reshape(-1, *[1] * (like.ndim - 1)) if value.ndim else value.to(like)
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of the images of two batches: (B, ...) x (B, ...) -> (B,)."""
    return (a * b).flatten(1).sum(1)


def norms(x: Tensor) -> Tensor:
    """Euclidean norm of each image: (B, ...) -> (B,)."""
    return cast(Tensor, torch.linalg.vector_norm(x.flatten(1), dim=1))


def gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The gradient at x of the sum of a function with one value per image, by reverse-mode differentiation."""

    def total(u: Tensor) -> Tensor:
        return function(u).sum()

    return cast(Tensor, torch.func.grad(total)(x))


def directional_derivative(function: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    """The derivative of a function at x in direction v, by forward-mode differentiation."""
    _load_forward_mode()
    return cast("tuple[Tensor, Tensor]", torch.func.jvp(function, (x,), (v,)))[1]


@cache
def _load_forward_mode() -> None:
    # torch compiles parts of forward mode on first use, and warns users about its own use of torch.jit.script.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))


def take_rows(tree: T, index: Tensor) -> T:
    """The same structure with the rows `index` of every tensor in it.

    Goes into tuples, named tuples, lists, dicts and dataclasses. Every tensor with at least one axis has the batch
    first; numbers, None and everything else are shared by all images and kept.
    """
    node = cast(Any, tree)
    if isinstance(node, Tensor):
        return cast(T, node[index] if node.ndim else node)
    if isinstance(node, tuple) and hasattr(cast(Any, node), "_fields"):
        return cast(T, type(cast(Any, node))(*(take_rows(part, index) for part in cast(tuple[Any, ...], node))))
    if isinstance(node, tuple | list):
        return cast(T, type(cast(Any, node))(take_rows(part, index) for part in cast(list[Any], node)))
    if isinstance(node, dict):
        return cast(T, {name: take_rows(part, index) for name, part in cast(dict[Any, Any], node).items()})
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        parts = {f.name: take_rows(getattr(node, f.name), index) for f in dataclasses.fields(node)}
        return cast(T, dataclasses.replace(node, **parts))
    return tree
