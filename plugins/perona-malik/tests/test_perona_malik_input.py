"""What is refused, and in which words."""

import math
from typing import Any

import pytest
import torch
from preimage_perona_malik import PeronaMalik

from preimage.errors import BadParameter, ShapeMismatch

SHAPE = (1, 6, 5)


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": -3}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"steps": True}, "steps"),
        ({"step_size": 0.0}, "step_size"),
        ({"step_size": -0.1}, "step_size"),
        ({"step_size": math.nan}, "step_size"),
        ({"step_size": math.inf}, "stability"),
        ({"step_size": 0.3}, "stability"),
        ({"contrast": 0.0}, "contrast"),
        ({"contrast": -0.1}, "contrast"),
        ({"contrast": math.nan}, "contrast"),
        ({"contrast": math.inf}, "contrast"),
        ({"contrast": 1e-30}, "contrast"),
        ({"discretisation": "central"}, "discretisation"),
        ({"boundary": "zero"}, "boundary"),
        ({"channels": "all"}, "channels"),
    ],
    ids=str,
)
def test_bad_parameters_are_refused(parameters: dict[str, Any], word: str):
    with pytest.raises(BadParameter, match=word) as caught:
        PeronaMalik(SHAPE, **parameters)
    assert caught.value.expected
    assert caught.value.remedy


def test_the_remedy_for_a_large_step_keeps_the_final_time_and_works():
    with pytest.raises(BadParameter, match=r"steps = 8 and step_size = 0\.25$"):
        PeronaMalik(SHAPE, steps=4, step_size=0.5)
    PeronaMalik(SHAPE, steps=8, step_size=0.25)


@pytest.mark.parametrize("shape", [(6, 5), (1, 0, 5), (), (2, 1, 6, 5)])
def test_shapes_that_are_no_images_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ShapeMismatch, match=r"\(C, H, W\)"):
        PeronaMalik(shape)


def test_tensors_that_do_not_fit_are_refused():
    operator, x = PeronaMalik(SHAPE), torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    _, pullback = operator.vjp(x)
    for call in (
        lambda: operator(x[0]),
        lambda: operator((255 * x).byte()),
        lambda: operator.vjp(x[..., :-1]),
        lambda: operator.jvp(x[..., :-1], x),
        lambda: operator.jvp(x, x[:1]),
        lambda: operator.jvp(x, x.double()),
        lambda: pullback(x[:1]),
        lambda: pullback(x.double()),
        lambda: pullback(x[..., :-1]),
        lambda: operator.linearize(x)[1](x[:1]),
    ):
        with pytest.raises(ShapeMismatch):
            call()


def test_nan_stays_visible():
    operator, x = PeronaMalik(SHAPE), torch.zeros(2, *SHAPE)
    x[0, 0, 2, 2] = math.nan
    y = operator(x)
    assert bool(y[0].isnan().any())
    assert bool((y[1] == 0).all())
