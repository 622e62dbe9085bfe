"""Seeds that are values: no hidden state, and the same numbers on every device."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Key:
    """A node in a tree of seeds: `key.child("noise", 3)` is the same whatever else was drawn before.

    The label path and the seed are hashed (BLAKE2b) into the 128-bit key of a counter-based generator (Philox), so
    that even millions of keys do not collide; torch's own generator would keep only 32 bits of a seed. Numbers are
    drawn on the CPU in float64 and then moved, so that a run on a GPU, or in float32, sees the same noise.
    """

    seed: int
    path: tuple[str | int, ...] = ()

    def child(self, *labels: str | int) -> "Key":
        """The key under these labels."""
        return Key(self.seed, (*self.path, *labels))

    def rows(self, count: int) -> "tuple[Key, ...]":
        """One key for each image of a batch: `child(0)` to `child(count - 1)`."""
        return tuple(self.child(index) for index in range(count))

    def generator(self) -> np.random.Generator:
        """A fresh generator; two calls give generators that produce the same numbers."""
        digest = hashlib.blake2b(repr((self.seed, self.path)).encode(), digest_size=16).digest()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "big")))

    def normal(self, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        """Independent standard normal numbers of this shape, in `like`'s dtype and on its device."""
        drawn = torch.as_tensor(self.generator().standard_normal(tuple(shape)))
        return drawn.to(torch.get_default_dtype()) if like is None else drawn.to(like)

    def uniform(self, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        """Independent numbers uniform in [0, 1), in `like`'s dtype and on its device."""
        drawn = torch.as_tensor(self.generator().random(tuple(shape)))
        return drawn.to(torch.get_default_dtype()) if like is None else drawn.to(like)

    def permutation(self, count: int) -> Tensor:
        """A uniformly random permutation of 0 .. count - 1, int64, on the CPU."""
        return torch.from_numpy(self.generator().permutation(count))


def keys_for(key: "Key | Sequence[Key]", count: int) -> tuple[Key, ...]:
    """One key per image: `key.rows(count)` for a single key, the given ones otherwise."""
    keys = key.rows(count) if isinstance(key, Key) else tuple(key)
    if len(keys) != count:
        raise ValueError(f"{len(keys)} keys for a batch of {count} images; give one key, or one for each image")
    return keys
