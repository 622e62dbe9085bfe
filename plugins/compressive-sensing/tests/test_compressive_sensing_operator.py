"""Keys, dtypes, saving, memory, and what is refused."""

import copy
import gc
import pickle
from typing import Any

import pytest
import torch
from preimage_compressive_sensing import CompressiveSensing, SubsampledCosine, _rebuilt as rebuilt
from preimage_compressive_sensing._rebuilt import enough_memory

from preimage import Key
from preimage.errors import BadParameter, ShapeMismatch

SHAPE = (2, 8, 8)
ENSEMBLES = ("gaussian", "dct", "hadamard")


def make(ensemble: Any, seed: int = 0, m: int = 40) -> CompressiveSensing:
    return CompressiveSensing(SHAPE, measurements=m, ensemble=ensemble, key=Key(seed))


def image(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return Key(9).normal((3, *SHAPE), like=torch.zeros((), dtype=dtype))


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_key_decides(ensemble):
    x = image()
    y = make(ensemble)(x)
    assert torch.equal(make(ensemble)(x), y)
    assert float((make(ensemble, seed=1)(x) - y).abs().max()) > 0.1
    others = [make(other)(x) for other in ENSEMBLES if other != ensemble]
    assert all(float((other - y).abs().max()) > 0.1 for other in others)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_float32_is_the_same_operator(ensemble):
    operator = make(ensemble)
    single, double = operator(image().float()), operator(image())
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), double, rtol=0, atol=5e-6)
    torch.testing.assert_close(operator.adjoint(single).double(), operator.adjoint(double), rtol=0, atol=2e-5)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_saving_keeps_the_key_only(ensemble):
    operator = CompressiveSensing((3, 32, 32), measurements=1000, ensemble=ensemble, key=Key(3).child("operator"))
    x = Key(0).uniform((2, 3, 32, 32))
    y = operator(x)
    saved = pickle.dumps(operator)
    assert len(saved) < 10_000
    assert not operator.state_dict()
    assert torch.equal(pickle.loads(saved)(x), y)
    assert torch.equal(copy.deepcopy(operator)(x), y)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_nothing_is_drawn_before_use_and_all_is_freed_with_the_operator(ensemble):
    gc.collect()
    before = len(rebuilt._TABLES)
    operator = make(ensemble)
    assert len(rebuilt._TABLES) == before
    operator(image())
    assert len(rebuilt._TABLES) == before + 1
    del operator
    gc.collect()
    assert len(rebuilt._TABLES) == before


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_first_use_may_be_anywhere(ensemble):
    x = image()
    expected = make(ensemble)(x)
    with torch.inference_mode():
        first = make(ensemble)
        assert torch.equal(first(x), expected)
    leaf = x.clone().requires_grad_()
    first(leaf).sum().backward()
    with torch.device("meta"):
        assert torch.equal(make(ensemble)(x), expected)
    torch.testing.assert_close(torch.func.jvp(make(ensemble).forward, (x,), (x,))[1], expected)
    torch.testing.assert_close(torch.func.vmap(make(ensemble))(x[:, None])[:, 0], expected)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_second_derivatives_and_noncontiguous_input(ensemble):
    operator = make(ensemble, m=11)
    y = Key(1).normal((2, 11), like=torch.zeros((), dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(operator.adjoint, (y,))
    assert torch.autograd.gradgradcheck(operator, (image()[:1].requires_grad_(),))
    swapped = image().transpose(2, 3)
    assert torch.equal(operator(swapped), operator(swapped.contiguous()))


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_empty_batch(ensemble):
    operator = make(ensemble)
    assert operator(torch.zeros(0, *SHAPE)).shape == (0, 40)
    assert operator.adjoint(torch.zeros(0, 40)).shape == (0, *SHAPE)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"measurements": 129}, "measurements is 129 for images of 128 values"),
        ({"measurements": 0}, "measurements is 0"),
        ({"measurements": -3}, "measurements is -3"),
        ({"measurements": 2.5}, "measurements is 2.5"),
        ({"measurements": True}, "measurements is True"),
        ({"measurements": 5, "ensemble": "fourier"}, "ensemble is 'fourier'"),
    ],
)
def test_bad_parameters(arguments, found):
    with pytest.raises(BadParameter, match=found) as caught:
        CompressiveSensing(SHAPE, **arguments, key=Key(0))
    assert caught.value.expected
    assert caught.value.remedy


def test_hadamard_refuses_odd_lengths():
    with pytest.raises(BadParameter, match="81 values") as caught:
        CompressiveSensing((1, 9, 9), measurements=5, ensemble="hadamard", key=Key(0))
    assert "dct" in caught.value.remedy


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_wrong_shapes_are_named(ensemble):
    operator = make(ensemble)
    with pytest.raises(ShapeMismatch, match="input of CompressiveSensing"):
        operator(torch.zeros(1, 2, 8, 9))
    with pytest.raises(ShapeMismatch, match="adjoint of CompressiveSensing"):
        operator.adjoint(torch.zeros(1, 41))
    with pytest.raises(ShapeMismatch, match="normal equations"):
        operator.solve_normal(torch.zeros(1, 40), 1.0)
    with pytest.raises(ShapeMismatch, match="adjoint of SubsampledCosine"):
        SubsampledCosine(8, measurements=2, key=Key(0)).adjoint(torch.zeros(1, 3))


def test_matrix_that_does_not_fit_into_memory():
    shape = (1, 2**13, 2**13)  # 16 petabytes in float32, more than any address space
    operator = CompressiveSensing(shape, measurements=2**26, key=Key(0))
    with pytest.raises(BadParameter, match="does not fit into memory") as caught:
        operator.matrix.draw(torch.float32, torch.device("cpu"))
    assert "dct" in caught.value.remedy


def test_other_runtime_errors_are_left_alone():
    with pytest.raises(RuntimeError, match="something else"), enough_memory("it", "smaller"):
        raise RuntimeError("something else")
