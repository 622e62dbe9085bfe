"""Products of a dense matrix with a batch of vectors, as a differentiable function of the vectors."""

import inspect
import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

_ENTRIES_PER_THREAD = 1 << 18
"""Entries of the matrix below which handing work to a thread costs more than it saves."""

_FEW = 2
"""Up to so many vectors, whole rows of the matrix are read at a time: there is little to keep in the cache for."""


def product(x: Tensor, matrix: Tensor, transposed: bool) -> Tensor:
    """A x_i for the rows x_i, (B, n) -> (B, m), or A^T x_i if `transposed`, (B, m) -> (B, n), for A (m, n).

    Compiled by numba, where that is installed, for float32 and float64 on the CPU: then the result for a vector does
    not depend, in any bit, on the vectors beside it or on the number of threads, and a batch costs what the library's
    matrix product does. Otherwise it is that product, whose last bits differ between one vector and several.

    Differentiable in x to any order, in reverse and forward mode, and under torch.func transforms.
    """
    run = compiled() if serves(x, matrix) else None
    if run is None:
        return x @ matrix if transposed else x @ matrix.mT
    return cast(Tensor, _Product.apply(x, matrix, transposed))


def serves(x: Tensor, matrix: Tensor) -> bool:
    """Whether the compiled loops take these tensors."""
    kinds = (torch.float32, torch.float64)
    plain = x.ndim == 2 and x.dtype in kinds and x.dtype == matrix.dtype and matrix.is_contiguous()
    return plain and x.device.type == "cpu" and not torch.compiler.is_compiling()


@lru_cache(maxsize=1)
def compiled() -> ModuleType | None:
    """The module of compiled loops, or None where numba is missing, or finds no place to keep what it compiles."""
    try:
        from . import _compiled
    except (ImportError, RuntimeError):
        return None
    return _compiled


class _Product(torch.autograd.Function):
    """Its own derivative is the product again, transposed for reverse mode."""

    @staticmethod
    def forward(x: Tensor, matrix: Tensor, transposed: bool) -> Tensor:
        return _run(x, matrix, transposed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.matrix, ctx.transposed = inputs[1:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return product(gradients[0], ctx.matrix, not ctx.transposed), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return product(tangents[0], ctx.matrix, ctx.transposed)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        x, matrix, transposed = args
        moved = x.movedim(in_dims[0], 0)
        flat = product(moved.reshape(-1, moved.shape[-1]), matrix, transposed)
        return flat.reshape(*moved.shape[:-1], -1), 0


# PyTorch asks for it at every call, and working it out takes longer than a small product.
setattr(_Product.forward, "__signature__", inspect.signature(_Product.forward))  # noqa: B010 (unknown to the type)


def _run(x: Tensor, matrix: Tensor, transposed: bool) -> Tensor:
    module = cast(ModuleType, compiled())
    m, n = matrix.shape
    source, out = x.detach().resolve_neg().contiguous(), x.new_zeros(len(x), n if transposed else m)
    if not out.numel():
        return out
    arrays = (matrix.numpy().reshape(-1), np.uintp(m), np.uintp(n), source.numpy().reshape(-1), out.numpy().reshape(-1))
    total, step = (n, module.CHUNK) if transposed else (m, 4)
    parts = max(1, min(torch.get_num_threads(), m * n // _ENTRIES_PER_THREAD, total // step))
    ends = [total * part // parts // step * step for part in range(parts)] + [total]
    width = (np.uintp(n if len(x) <= _FEW else module.CHUNK),) if transposed else ()
    loops = module.multiply_transposed if transposed else module.multiply
    jobs = [
        _threads(parts, os.getpid()).submit(loops, *arrays, np.uintp(begin), np.uintp(end), *width)
        for begin, end in pairwise(ends[1:])
    ]
    loops(*arrays, np.uintp(ends[0]), np.uintp(ends[1]), *width)
    for job in jobs:
        job.result()
    return out


@lru_cache(maxsize=4)
def _threads(count: int, process: int) -> ThreadPoolExecutor:
    """One pool per process: the threads of a parent do not survive a fork."""
    return ThreadPoolExecutor(count, thread_name_prefix="preimage-compressive-sensing")
