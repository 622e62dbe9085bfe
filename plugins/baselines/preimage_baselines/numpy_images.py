"""Computing outside PyTorch on the memory of tensors, image by image: when it may be done, and in how many threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual


def readable(*tensors: Tensor) -> bool:
    """Whether NumPy may look at the memory of all of them: real, on the CPU, and no derivative is lost by that, neither
    of automatic differentiation, forward or backward, nor of torch.func."""
    return all(_readable(tensor) for tensor in tensors)


def _readable(x: Tensor) -> bool:
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return False
    if (x.requires_grad and torch.is_grad_enabled()) or unpack_dual(x).tangent is not None:
        return False
    try:
        x.data_ptr()
    except RuntimeError:  # a tensor that stands for others, in torch.func
        return False
    return True


def loops(module: str, name: str) -> Callable[..., Any] | None:
    """The function of a module of this package that numba compiles, or None without numba."""
    try:
        return getattr(import_module(f".{module}", __package__), name)
    except (ImportError, RuntimeError):  # RuntimeError: no folder for numba's cache may be written to
        return None


def each_image(one: Callable[[int], object], count: int) -> None:
    """Call `one` with the numbers of all images, in as many threads as PyTorch has."""
    threads = min(torch.get_num_threads(), count)
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one, range(count)))
    else:
        for i in range(count):
            one(i)
