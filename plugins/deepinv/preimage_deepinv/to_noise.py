"""A noise model of preimage for deepinv's physics."""

from typing import Any

import torch
from torch import Tensor

from preimage import GaussianNoise, Key, Noise

from ._deepinv import lookup

NoiseModel: Any = lookup("physics.NoiseModel")


class KeyedNoise(NoiseModel):
    """y ~ noise(clean), drawn from a key: image i of the n-th call from key.child(n, i).

    Like every noise model of deepinv it goes on from call to call; `noise_model(clean, seed=3)` starts again from
    Key(3), and `reset_rng` from the key that it was made with. torch's global generators play no part.
    `sigma` is the standard deviation of Gaussian noise, which some of deepinv's reconstructors read; else it is absent.
    """

    def __init__(self, noise: Noise, key: Key = Key(0)):
        super().__init__()
        self.noise, self.first_key = noise, key
        self.key, self.calls = key, 0
        if isinstance(noise, GaussianNoise):
            self.register_buffer("sigma", torch.tensor(noise.sigma))

    def forward(self, input: Tensor, seed: int | None = None) -> Tensor:  # noqa: A002 (deepinv's name)
        self.rng_manual_seed(seed)
        self.calls += 1
        return self.noise.sample(input, self.key.child(self.calls - 1))

    def rng_manual_seed(self, seed: int | None = None) -> None:
        """Start again from Key(seed), if one is given."""
        if seed is not None:
            self.key, self.calls = Key(seed), 0

    def reset_rng(self) -> None:
        """Start again from the key that it was made with."""
        self.key, self.calls = self.first_key, 0

    def update_parameters(self, **kwargs: Any) -> None:
        """deepinv changes noise levels by this; ours is fixed. Raises `BadParameter` for any."""
        if kwargs:
            from preimage.errors import BadParameter

            found = f"the noise of this physics cannot be given {', '.join(kwargs)}"
            raise BadParameter(found, "a noise model with its parameters", "as_physics(operator, another_noise)")
