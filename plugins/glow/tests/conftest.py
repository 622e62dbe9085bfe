"""Flows of random weights, whose couplings do something (in a new flow they are the identity)."""

from functools import cache

import pytest
import torch
from preimage_glow.flow import Flow

from preimage import Key


@pytest.fixture(scope="session")
def random_flow():
    """random_flow(preset, strength=..., **arguments of Flow): fitted to noise, so that variances stay what they are."""

    @cache
    def make(preset="small", strength=0.3, **arguments):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            flow = Flow(preset, **arguments).eval().requires_grad_(False)
            for steps in flow.steps():
                for step in steps:
                    last = step.network.last
                    last.weight.normal_(0, strength / (9 * last.weight.shape[1]) ** 0.5)
                    last.bias.normal_(0, strength)
                    step.mixing.add_(strength * torch.randn_like(step.mixing) / 30)
        height, width = arguments.get("height", 16), arguments.get("width", 16)
        flow.initialise(Key(0).uniform((16, flow.image_channels, height, width)))
        return flow

    return make
