"""The operators: laws, exact solves, keys, saving, one mask for all or for each."""

import pickle

import numpy as np
import pytest
import torch
from preimage_inpainting import Inpainting, InpaintingPerImage, Masking

from preimage import Key, LinearOperator
from preimage._algebra import per_image_operator
from preimage.errors import ShapeMismatch
from preimage.testing import check_component, check_operator

SHAPE = (3, 16, 12)
DOUBLE = torch.zeros((), dtype=torch.float64)


@pytest.mark.parametrize(("name", "examples"), [("inpainting", 5), ("inpainting-per-image", 3)])
def test_laws_hold_for_every_example(name, examples):
    assert check_component("operator", name) == examples


def test_known_pixels_are_kept_and_others_are_zero():
    operator = Inpainting(SHAPE, mask="box", box=(2, 3, 5, 4), key=Key(0))
    x = Key(1).uniform((2, *SHAPE)) + 0.1
    y = operator(x)
    expected = x.clone()
    expected[:, :, 2:7, 3:7] = 0
    assert torch.equal(y, expected)
    assert torch.equal(operator(y), y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_solve_normal_is_exact(dtype):
    operator = Inpainting(SHAPE, keep=0.4, per_channel=True, key=Key(0)).to(dtype)
    b = Key(2).normal((3, *SHAPE), like=torch.zeros((), dtype=dtype))
    shifts = torch.tensor([1e-6, 0.5, 3.0], dtype=dtype)
    solved = operator.solve_normal(b, shifts)
    assert solved is not None
    each = shifts.reshape(-1, 1, 1, 1)
    expected = torch.where(operator.mask, b / (1 + each), b / each)
    torch.testing.assert_close(solved, expected, rtol=4 * torch.finfo(dtype).eps, atol=0)


def test_key_decides():
    masks = [Inpainting(SHAPE, key=Key(seed)).mask for seed in (0, 0, 1)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_saving_keeps_the_mask():
    operator = Inpainting(SHAPE, key=Key(0))
    x = Key(1).uniform((2, *SHAPE))
    assert torch.equal(pickle.loads(pickle.dumps(operator))(x), operator(x))
    other = Inpainting(SHAPE, key=Key(1))
    other.load_state_dict(operator.state_dict())
    assert torch.equal(other(x), operator(x))


@pytest.mark.parametrize(
    "mask", [torch.eye(16, 12), torch.eye(16, 12)[None], np.eye(16, 12) > 0, np.eye(16, 12).tolist()]
)
def test_masks_from_python(mask):
    operator = Inpainting.from_mask(SHAPE, mask)
    assert torch.equal(operator.mask[0], torch.eye(16, 12) > 0)
    check_operator(operator)


def test_masks_from_python_are_copied():
    mask = torch.eye(16, 12) > 0
    operator = Masking(SHAPE, mask)
    mask.fill_(True)
    assert int(operator.mask.sum()) == 12


def test_per_image_masks_differ_and_do_not_depend_on_the_batch():
    assert InpaintingPerImage.per_image
    assert not Inpainting.per_image
    keys = Key(5).rows(4)
    for arguments in ({"keep": 0.3}, {"mask": "box", "size": (4, 4)}):
        singles = [InpaintingPerImage(SHAPE, **arguments, key=key) for key in keys]
        assert len({single.mask.numpy().tobytes() for single in singles}) == 4
        assert len({int(single.mask.sum()) for single in singles}) == 1
        operator = per_image_operator(singles)
        assert isinstance(operator, LinearOperator)
        x = Key(0).normal((4, *SHAPE), like=DOUBLE)
        y = operator(x)
        for index, single in enumerate(singles):
            assert torch.equal(y[index : index + 1], single(x[index : index + 1]))
        assert torch.equal(operator.rows(torch.tensor([2]))(x[2:3]), y[2:3])
        assert torch.equal(operator.adjoint(y), y)
        assert operator.norm_bound() == 1.0
        solved = operator.solve_normal(x, 0.5)
        assert solved is not None
        torch.testing.assert_close(operator.normal(solved) + 0.5 * solved, x)


def test_boxes_reach_every_place():
    boxes = [InpaintingPerImage((1, 3, 3), mask="box", size=(2, 2), key=Key(seed)).mask for seed in range(60)]
    assert len({box.numpy().tobytes() for box in boxes}) == 4


def test_wrong_shapes_are_named():
    operator = InpaintingPerImage(SHAPE, key=Key(0))
    with pytest.raises(ShapeMismatch, match="input of InpaintingPerImage"):
        operator(torch.zeros(1, 3, 12, 16))
    with pytest.raises(ShapeMismatch, match="adjoint of InpaintingPerImage"):
        operator.adjoint(torch.zeros(1, 3, 12, 16))
