"""Masks from parameters, from keys and from files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from preimage_inpainting import Inpainting, InpaintingPerImage, box_mask, centre_mask, random_mask, read_mask

from preimage import Key
from preimage.errors import BadData, BadFile, BadParameter, PreimageError, ShapeMismatch

SHAPE = (3, 16, 12)


def holed(height: int = 16, width: int = 12) -> np.ndarray:
    mask = np.ones((height, width), dtype=bool)
    mask[3:6, 2:10] = False
    return mask


def test_random_mask_knows_exactly_its_share():
    mask = random_mask(SHAPE, keep=0.3, key=Key(0))
    assert mask.shape == (1, 16, 12)
    assert mask.dtype is torch.bool
    assert int(mask.sum()) == round(0.3 * 16 * 12)
    channels = random_mask(SHAPE, keep=0.3, key=Key(0), per_channel=True)
    assert channels.sum((1, 2)).tolist() == [58, 58, 58]
    assert not torch.equal(channels[0], channels[1])


def test_random_mask_is_uniform():
    draws, keep = 400, 0.25
    mean = torch.stack([random_mask((1, 8, 8), keep=keep, key=Key(seed)).double() for seed in range(draws)]).mean(0)
    # 64 pixels, each with standard error sqrt(keep (1 - keep) / draws) = 0.0217; five of them.
    assert float((mean - keep).abs().max()) < 5 * (keep * (1 - keep) / draws) ** 0.5


def test_box_mask_hides_the_box():
    hidden = ~box_mask(SHAPE, (2, 3, 5, 4))[0]
    assert hidden[2:7, 3:7].all()
    assert int(hidden.sum()) == 20


def test_centre_mask_is_the_published_one():
    hidden = ~centre_mask((3, 64, 64), 0.3)[0]
    rows = hidden.any(1).nonzero().flatten()
    columns = hidden.any(0).nonzero().flatten()
    assert (int(rows[0]), int(rows[-1])) == (22, 40)
    assert (int(columns[0]), int(columns[-1])) == (22, 40)
    assert int(hidden.sum()) == 19 * 19


@pytest.mark.parametrize(("length", "fraction", "start", "size"), [(20, 0.3, 7, 6), (10, 0.4, 3, 4), (9, 0.5, 2, 4)])
def test_centre_mask_survives_rounding(length, fraction, start, size):
    rows = (~centre_mask((1, length, length), fraction)[0]).any(1).nonzero().flatten()
    assert rows.tolist() == list(range(start, start + size))


@pytest.mark.parametrize(
    ("suffix", "mode", "values"),
    [
        (".png", "L", (0, 255)),
        (".png", "L", (0, 1)),
        (".png", "1", (0, 255)),
        (".png", "RGB", (0, 255)),
        (".png", "P", (0, 255)),
        (".png", "I;16", (0, 65535)),
        (".tif", "F", (0.0, 1.0)),
        (".jpg", "L", (0, 255)),
        (".bmp", "L", (0, 255)),
        (".npy", "bool", (False, True)),
        (".npy", "float64", (0.0, 1.0)),
        (".npy", "uint8", (0, 255)),
    ],
)
def test_every_kind_of_file_gives_the_same_mask(tmp_path: Path, suffix, mode, values):
    path = tmp_path / f"mask{suffix}"
    if suffix == ".npy":
        np.save(path, np.where(holed(), values[1], values[0]).astype(mode))
    elif mode in ("I;16", "F"):
        kind = np.uint16 if mode == "I;16" else np.float32
        Image.fromarray(np.where(holed(), *values[::-1]).astype(kind)).save(path)
    else:
        grey = Image.fromarray(np.where(holed(), *values[::-1]).astype(np.uint8))
        grey.convert(mode).save(path)
    assert torch.equal(read_mask(SHAPE, path)[0], torch.from_numpy(holed()))


def test_file_with_a_mask_for_each_channel(tmp_path: Path):
    mask = np.stack([holed(), ~holed(), holed()])
    np.save(tmp_path / "mask.npy", mask)
    operator = Inpainting(SHAPE, mask="file", path=tmp_path / "mask.npy", key=Key(0))
    assert torch.equal(operator.mask, torch.from_numpy(mask))


def bad_file(folder: Path, what: str) -> Path:
    path = folder / "mask.png"
    if what == "folder":
        return folder
    if what == "no image":
        path.write_text("not an image")
    elif what == "truncated":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 12), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:100])
    elif what == "other size":
        Image.fromarray(holed(12, 16)).save(path)
    elif what == "nothing known":
        Image.fromarray(np.zeros((16, 12), dtype=np.uint8)).save(path)
    elif what == "not a number":
        path = folder / "mask.npy"
        np.save(path, np.full((16, 12), np.nan))
    elif what == "words":
        path = folder / "mask.npy"
        np.save(path, np.full((16, 12), "known"))
    elif what == "objects":
        path = folder / "mask.npy"
        np.save(path, np.full((16, 12), None), allow_pickle=True)
    elif what == "empty":
        path = folder / "mask.npy"
        np.save(path, np.zeros((0, 12)))
    elif what == "no array":
        path = folder / "mask.npy"
        path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("what", "error", "found"),
    [
        ("missing", BadFile, "there is no mask file"),
        ("folder", BadFile, "is a folder"),
        ("no image", BadFile, "cannot be read"),
        ("truncated", BadFile, "cannot be read"),
        ("words", BadFile, "cannot be read"),
        ("objects", BadFile, "cannot be read"),
        ("no array", BadFile, "cannot be read"),
        ("empty", BadData, "is empty"),
        ("other size", ShapeMismatch, r"has shape \(12, 16\)"),
        ("nothing known", BadData, "has no known pixel"),
        ("not a number", BadData, "not finite"),
    ],
)
def test_bad_files(tmp_path: Path, what, error, found):
    path = bad_file(tmp_path, what)
    with pytest.raises(error, match=found) as caught:
        Inpainting(SHAPE, mask="file", path=path, key=Key(0))
    assert str(path) in str(caught.value)
    assert caught.value.expected
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"keep": 0.0}, "keep is 0.0"),
        ({"keep": 1.0}, "keep is 1.0"),
        ({"keep": float("nan")}, "keep is nan"),
        ({"keep": 0.001}, "leaves no known pixel"),
        ({"mask": "centre", "fraction": 0.0}, "fraction is 0.0"),
        ({"mask": "centre", "fraction": 1.0}, "fraction is 1.0"),
        ({"mask": "box"}, "box is missing"),
        ({"mask": "box", "box": (0, 0, 16, 12)}, "whole image"),
        ({"mask": "box", "box": (0, 0, 17, 2)}, "rows 0 to 16"),
        ({"mask": "box", "box": (0, 11, 2, 2)}, "columns 11 to 12"),
        ({"mask": "box", "box": (-1, 0, 2, 2)}, "rows -1 to 0"),
        ({"mask": "box", "box": (0, 0, 0, 2)}, "box is 0 x 2"),
        ({"mask": "box", "box": (0, 0, 2)}, "box is"),
        ({"mask": "box", "box": (0, 0, 2.5, 2)}, "box is"),
        ({"mask": "file"}, "path is missing"),
        ({"mask": "box", "box": (0, 0, 2, 2), "keep": 0.5}, "keep is given, but mask is 'box'"),
        ({"fraction": 0.3}, "fraction is given, but mask is 'random'"),
        ({"mask": "centre", "per_channel": True}, "per_channel is given"),
        ({"mask": "circle"}, "mask is 'circle'"),
    ],
)
def test_bad_parameters(arguments, found):
    with pytest.raises(BadParameter, match=found) as caught:
        Inpainting(SHAPE, **arguments, key=Key(0))
    assert caught.value.expected
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"mask": "box", "size": (17, 2)}, "size is 17 x 2"),
        ({"mask": "box", "size": (16, 12)}, "whole image"),
        ({"mask": "box", "size": (0, 2)}, "0 x 2"),
        ({"mask": "box", "size": (2,)}, "size is"),
        ({"size": (2, 2)}, "size is given, but mask is 'random'"),
        ({"keep": 2.0}, "keep is 2.0"),
        ({"mask": "file"}, "mask is 'file'"),
    ],
)
def test_bad_parameters_per_image(arguments, found):
    with pytest.raises(BadParameter, match=found):
        InpaintingPerImage(SHAPE, **arguments, key=Key(0))


@pytest.mark.parametrize("mask", [torch.ones(12, 16), torch.zeros(16, 12), torch.ones(2, 16, 12), "text", None])
def test_bad_masks_from_python(mask):
    with pytest.raises(PreimageError) as caught:
        Inpainting.from_mask(SHAPE, mask)
    assert caught.value.expected
    assert caught.value.remedy


def test_centre_box_without_pixels():
    with pytest.raises(BadParameter, match="hides nothing") as caught:
        centre_mask((1, 9, 9), 0.05)
    assert caught.value.remedy == "take fraction = 0.112 or more"
    assert int((~centre_mask((1, 9, 9), 0.112)).sum()) > 0


def test_only_images_are_inpainted():
    with pytest.raises(ShapeMismatch, match="in_shape"):
        Inpainting((16,), key=Key(0))
