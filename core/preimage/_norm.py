"""Spectral norms of operators, with a word on how far each may be trusted."""

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from ._key import Key
from ._operator import ForwardOperator, LinearOperator
from ._tensors import norms


class NormKind(Enum):
    """What a norm's value means."""

    BOUND = "a rigorous upper bound"
    ESTIMATE = "a lower estimate by power iteration, normally within a few per cent"


@dataclass(frozen=True)
class Norm:
    """||A|| per image, (B,), and what kind of number it is.

    `safe` is what a step size should use: a bound as it is, an estimate enlarged by 2 %.
    """

    value: Tensor
    kind: NormKind

    @property
    def safe(self) -> Tensor:
        return self.value if self.kind is NormKind.BOUND else 1.02 * self.value


def operator_norm(operator: ForwardOperator, x: Tensor, *, steps: int = 30, key: Key = Key(0)) -> Norm:
    """||F'(x_i)|| for each image x_i of a batch, (B,).

    The operator's own bound if it has one; else power iteration on F'(x)^T F'(x) from a random start that is the same
    for every image and every batch. For a linear operator x only gives shape, dtype, device and batch size.
    """
    if (bound := operator.norm_bound()) is not None:
        return Norm(torch.full((len(x),), bound, dtype=x.dtype, device=x.device), NormKind.BOUND)
    return Norm(power_iteration(operator.linearize(x)[1], x, steps=steps, key=key), NormKind.ESTIMATE)


def power_iteration(operator: LinearOperator, like: Tensor, *, steps: int = 30, key: Key = Key(0)) -> Tensor:
    """The largest singular value for each row of a batch like `like`, (B,): a lower bound that grows with `steps`."""
    axes = (-1, *[1] * (like.ndim - 1))
    v = key.normal(operator.in_shape, like).expand(len(like), *operator.in_shape)
    squared = torch.zeros(len(like), dtype=like.dtype, device=like.device)
    for _ in range(steps):
        v = v / norms(v).clamp_min(torch.finfo(like.dtype).tiny).reshape(axes)
        v = operator.normal(v)
        squared = norms(v)
    return squared.sqrt()
