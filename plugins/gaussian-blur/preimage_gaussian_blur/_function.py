"""The blur as a differentiable function of images, compiled where that is possible."""

import inspect
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import _portable, matrix
from .matrix import Boundary

_PIXELS_PER_THREAD = 1 << 15
"""Below this, handing work to another thread costs more than it saves."""


@dataclass(frozen=True)
class Blur:
    """Which blur; a value, so that what is computed from it can be cached."""

    size: int
    sigma: float
    boundary: Boundary


def blur(x: Tensor, which: Blur, transposed: bool) -> Tensor:
    """M_H X M_W^T, or M_H^T X M_W if `transposed`, for the images X (..., H, W).

    Differentiable to any order, in reverse and forward mode, and under torch.func transforms. Half precision is
    computed in float32.
    """
    if torch.compiler.is_compiling():  # compiled already; torch.compile cannot see through numba
        return torch.compiler.disable(_blur)(x, which, transposed)  # pyright: ignore
    return _blur(x, which, transposed)


def _blur(x: Tensor, which: Blur, transposed: bool) -> Tensor:
    transposed = transposed and which.boundary not in matrix.SELF_ADJOINT
    if x.dtype not in (torch.float32, torch.float64):
        return _blur(x.float(), which, transposed).to(x.dtype)
    return cast(Tensor, _Linear.apply(x, which, transposed))


class _Linear(torch.autograd.Function):
    """Its own derivative is the function again, transposed for reverse mode."""

    @staticmethod
    def forward(x: Tensor, which: Blur, transposed: bool) -> Tensor:
        run = None if x.device.type != "cpu" else compiled()
        if run is None:
            with torch.autocast(x.device.type, enabled=False):  # or the border would be rounded to half precision
                return _portable.blur(x, which.size, which.sigma, which.boundary, transposed)
        return _blur_compiled(run, x, which, transposed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.which, ctx.transposed = inputs[1:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _blur(gradients[0], ctx.which, not ctx.transposed), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return _blur(tangents[0], ctx.which, ctx.transposed)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        x, which, transposed = args
        return _blur(x.movedim(in_dims[0], 0), which, transposed), 0


# PyTorch asks for it at every call, and working it out takes longer than the blur of a small image.
setattr(_Linear.forward, "__signature__", inspect.signature(_Linear.forward))  # noqa: B010 (unknown to the type)


@lru_cache(maxsize=1)
def compiled() -> ModuleType | None:
    """The module of compiled loops, or None where numba is missing, does not fit the installed numpy, or finds no
    place to keep what it has compiled."""
    try:
        from . import _compiled
    except (ImportError, RuntimeError):
        return None
    return _compiled


class _Plan(NamedTuple):
    """The arguments of `blur_rows` between the image and the range of rows."""

    height: int
    width: int
    weights: npt.NDArray[Any]
    first: int
    last: int
    start: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    weight: npt.NDArray[Any]
    outside: npt.NDArray[np.int64]
    fold: bool


@lru_cache(maxsize=64)
def _plan(height: int, width: int, which: Blur, transposed: bool, dtype: torch.dtype) -> _Plan:
    kind = np.float32 if dtype is torch.float32 else np.float64
    size, sigma, boundary = which.size, which.sigma, which.boundary
    radius = size // 2
    border = matrix.border(height, size, sigma, boundary, transposed)
    whole = matrix.extension(width, radius, boundary)
    outside = np.concatenate((whole[:radius], whole[radius + width :]))[: 0 if boundary == "zero" else None]
    return _Plan(
        height,
        width,
        matrix.weights(size, sigma).astype(kind),
        border.first,
        border.last,
        border.start.copy(),
        border.column.copy(),
        border.weight.astype(kind),
        outside,
        transposed,
    )


def _blur_compiled(module: ModuleType, x: Tensor, which: Blur, transposed: bool) -> Tensor:
    source = x.detach().resolve_neg().contiguous()
    out = torch.empty_like(source)
    if not out.numel():
        return out
    height, width = source.shape[-2:]
    plan = _plan(height, width, which, transposed, source.dtype)
    flat, result = source.numpy().reshape(-1), out.numpy().reshape(-1)
    lines = source.numel() // width
    parts = min(torch.get_num_threads(), 1 + source.numel() // _PIXELS_PER_THREAD, lines)
    if parts == 1:
        module.blur_rows(flat, result, *plan, 0, lines)
        return out
    ends = [lines * part // parts for part in range(parts + 1)]
    jobs = [
        _threads(parts, os.getpid()).submit(module.blur_rows, flat, result, *plan, begin, end)
        for begin, end in pairwise(ends[1:])
    ]
    module.blur_rows(flat, result, *plan, ends[0], ends[1])
    for job in jobs:
        job.result()
    return out


@lru_cache(maxsize=4)
def _threads(count: int, process: int) -> ThreadPoolExecutor:
    """One pool per process: the threads of a parent do not survive a fork."""
    return ThreadPoolExecutor(count, thread_name_prefix="preimage-gaussian-blur")
