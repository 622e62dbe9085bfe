"""Calls into deepinv that draw from global generators, repeatable and without a trace."""

import random
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from ._deepinv import quiet


@contextmanager
def isolated(like: Tensor, seed: int = 0) -> Generator[None, None, None]:
    """The global generators of torch (of the CPU and of `like`'s device), numpy and Python started from a seed, and
    `like`'s dtype the default one; all put back afterwards. Warnings and prints are silenced."""
    devices = [like.device] if like.device.type == "cuda" else []
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 (what deepinv may draw from)
    usual = torch.get_default_dtype()
    try:
        with quiet(), torch.random.fork_rng(devices=devices):
            torch.default_generator.manual_seed(seed)
            if devices:
                with torch.cuda.device(like.device):
                    torch.cuda.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            torch.set_default_dtype(like.dtype)
            yield
    finally:
        torch.set_default_dtype(usual)
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
