"""`flow`, `push`, `push_from` and `pull` of `_scheme`, by the compiled kernels: CPU, float32 and float64."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ._scheme import Scheme

_WORTH_A_THREAD = 1 << 14
"""Pixels below which handing work to a thread costs more than doing it."""


@lru_cache(maxsize=1)
def kernels() -> ModuleType | None:
    """The compiled kernels, or None where numba is not installed or cannot keep what it compiles."""
    try:
        from . import _kernels
    except (ImportError, RuntimeError):  # RuntimeError: no folder for numba's cache may be written to
        return None
    return _kernels


def serves(x: Tensor) -> bool:
    """Whether the kernels take this tensor."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and kernels() is not None


def flow(x: Tensor, scheme: Scheme, keep: bool) -> tuple[Tensor, Tensor]:
    """F(x), and the states, padded as the kernels use them, or (images, 0) unless they are to be kept."""
    images = _images(x, scheme)
    count, channels, rows, columns = images.shape
    size = (2 * scheme.steps, channels, (rows + 1) * (columns + 1))
    states, y = images.new_empty((count, *size) if keep else (count, 0)), torch.empty_like(images)
    stored = states if keep else images.new_empty((0, 0, 0, 0))
    unused = _array(images.new_empty((0, 0, 0, 0)))
    arrays = (_array(images), _array(y), unused, unused, _array(stored))
    _spread(_module().sweep, images, *arrays, keep, False, *_numbers(scheme, x))
    return y.view(x.shape), states


def push(x: Tensor, v: Tensor, scheme: Scheme) -> Tensor:
    """F'(x) v, without keeping the states."""
    images, directions = _images(x, scheme), _images(v, scheme)
    z = torch.empty_like(images)
    unused = _array(images.new_empty((0, 0, 0, 0)))
    arrays = (_array(images), unused, _array(directions), _array(z), unused)
    _spread(_module().sweep, images, *arrays, False, True, *_numbers(scheme, x))
    return z.view(x.shape)


def push_from(states: Tensor, v: Tensor, scheme: Scheme) -> Tensor:
    """F'(x) v from the states of `flow`."""
    return _from_states(states, v, scheme, backward=False)


def pull(states: Tensor, w: Tensor, scheme: Scheme) -> Tensor:
    """F'(x)^T w from the states of `flow`."""
    return _from_states(states, w, scheme, backward=True)


def _from_states(states: Tensor, w: Tensor, scheme: Scheme, *, backward: bool) -> Tensor:
    images = _images(w, scheme)
    z = torch.empty_like(images)
    kernel = _module().derivative_sweep
    _spread(kernel, images, _array(states), _array(images), _array(z), backward, *_numbers(scheme, w))
    return z.view(w.shape)


def _module() -> ModuleType:
    module = kernels()
    assert module is not None, "callers ask `serves` first"
    return module


def _images(x: Tensor, scheme: Scheme) -> Tensor:
    """What diffuses on its own, as a batch: the images, or each of their channels."""
    x = x.detach().contiguous()
    return x if scheme.coupled else x.view(-1, 1, *x.shape[-2:])


def _array(x: Tensor) -> Any:
    return x.detach().contiguous().numpy()


def _numbers(scheme: Scheme, like: Tensor) -> tuple[Any, ...]:
    # The kernels compute in the type of these two numbers and the images; Python's floats would make all of it float64.
    numbers = torch.tensor([1 / scheme.contrast**2, scheme.step_size], dtype=like.dtype).numpy()
    return scheme.steps, scheme.circular, scheme.edges, numbers[0], numbers[1]


def _spread(kernel: Callable[..., None], images: Tensor, *arguments: Any) -> None:
    """Run the kernel on all images, in as many threads as torch may use."""
    count, workers = len(images), workers_for(images)
    if workers == 1:
        kernel(*arguments, 0, count)
        return
    bounds = [count * worker // workers for worker in range(workers + 1)]
    pool = _pool(os.getpid(), torch.get_num_threads())
    for done in [pool.submit(kernel, *arguments, a, b) for a, b in pairwise(bounds)]:
        done.result()


def workers_for(images: Tensor) -> int:
    """In how many threads a batch is worked on."""
    return max(1, min(torch.get_num_threads(), len(images), images.numel() // _WORTH_A_THREAD))


@lru_cache(maxsize=1)
def _pool(process: int, workers: int) -> ThreadPoolExecutor:
    # One for each process: the threads of a pool do not survive a fork.
    return ThreadPoolExecutor(workers, thread_name_prefix="perona-malik")
