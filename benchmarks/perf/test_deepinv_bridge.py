"""What the bridge to deepinv adds to a call: nothing is copied, and it takes less than 50 microseconds."""

import statistics
import time

import pytest
import torch
from preimage_deepinv import blurs, masks

from preimage import Key

MICROSECONDS = 50
CALLS = 50


def cpu_seconds(work, x):
    started = time.process_time()
    for _ in range(CALLS):
        work(x)
    return (time.process_time() - started) / CALLS


@pytest.mark.parametrize("direction", ["forward", "adjoint"])
@pytest.mark.parametrize("name", ["identity", "inpainting", "blur"])
def test_a_call_through_the_bridge(record_row, name, direction):
    shape = (1, 64, 64)
    operator = {
        "identity": lambda: masks.Denoising(shape),
        "inpainting": lambda: masks.Inpainting(shape, key=Key(0)),
        "blur": lambda: blurs.Blur(shape, padding="circular"),
    }[name]()
    physics, x = operator.physics, Key(1).uniform((4, *shape))
    ours, theirs = (operator, physics.A) if direction == "forward" else (operator.adjoint, physics.A_adjoint)
    assert torch.equal(ours(x), theirs(x))
    # Interleaved, so that both sides see the same machine.
    pairs = [(cpu_seconds(ours, x), cpu_seconds(theirs, x)) for _ in range(31)]
    extra = 1e6 * statistics.median(a - b for a, b in pairs)
    note = f"the bridge adds {extra:.1f} µs"
    title = f"deepinv/{name} {direction}, 4 x 64²"
    record_row(title, [a for a, _ in pairs], ("deepinv itself", [b for _, b in pairs]), 3.0, note=note)
    assert extra < MICROSECONDS, note


def test_nothing_is_copied(monkeypatch):
    """deepinv sees the caller's tensor, and the caller gets deepinv's."""
    operator = masks.Inpainting((1, 8, 8), key=Key(0))
    seen = {}

    def spy(x):
        seen["input"], seen["output"] = x, torch.ones_like(x)
        return seen["output"]

    monkeypatch.setattr(operator.physics, "A", spy)
    monkeypatch.setattr(operator.physics, "A_adjoint", spy)
    x = torch.zeros(2, 1, 8, 8)
    for call in (operator, operator.adjoint):
        assert call(x) is seen["output"]
        assert seen["input"] is x
