"""BSDS500: the layout of its archive and the plain one, sizes of upright and lying photographs, what is missing."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from preimage_data import BSDS500, Folder, read_image

from preimage.errors import BadData, BadFile, BadParameter
from preimage.testing import check_component, check_dataset


def write(folder: Path) -> None:
    for seed, (name, size) in enumerate(
        [("train/8049.jpg", (321, 481)), ("train/100075.jpg", (481, 321)), ("val/3096.jpg", (481, 321))]
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(coarse).resize(size).save(folder / name)
    (folder / "train" / "Thumbs.db").write_bytes(b"as in the archive")
    (folder / "test").mkdir()


def test_laws():
    assert check_component("dataset", "bsds500") >= 3


@pytest.mark.parametrize("layout", ["BSR/BSDS500/data/images", "BSDS500/data/images", "bsds500", ".", "images"])
def test_layouts(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / layout)
    data = BSDS500(path=tmp_path)
    check_dataset(data)
    assert [data.label(i) for i in range(len(data))] == ["100075.jpg", "8049.jpg"]
    assert data.shape == (1, 321, 321)
    monkeypatch.setenv("PREIMAGE_DATA", str(tmp_path))
    assert BSDS500(split="val").path(0) == tmp_path / layout / "val" / "3096.jpg"


def test_default_is_the_largest_square_untouched(tmp_path: Path):
    write(tmp_path)
    data = BSDS500(path=tmp_path, colour="colour")
    assert torch.equal(data[0], read_image(data.path(0))[:, :, 80:401])
    assert torch.equal(data[1], read_image(data.path(1))[:, 80:401])
    assert BSDS500(path=tmp_path, size=(64, 96), crop="resize", start=1).label(0) == "8049.jpg"
    assert BSDS500(path=tmp_path, size=None, split="val").shape == (1, 321, 481)
    with pytest.raises(BadData, match="481 x 321 pixels"):
        BSDS500(path=tmp_path, size=None)[1]


def test_missing(tmp_path: Path):
    with pytest.raises(BadFile, match="no train in") as caught:
        BSDS500(path=tmp_path)
    assert "BSR/BSDS500/data/images/train" in caught.value.expected
    assert "unpack BSR_bsds500.tgz in" in caught.value.remedy
    write(tmp_path)
    with pytest.raises(BadFile, match="no JPEG files"):
        BSDS500(path=tmp_path, split="test")
    with pytest.raises(BadParameter, match="start is 2"):
        BSDS500(path=tmp_path, start=2)


def test_the_photographs_themselves():
    root = os.environ.get("PREIMAGE_DATA")
    if not root or not Path(root, "bsds500", "val").is_dir():
        pytest.skip("PREIMAGE_DATA has no bsds500/val")
    data = BSDS500(split="val", size=96, crop="centre", count=8)
    check_dataset(data)
    plain = Folder(path=Path("bsds500/val"), size=96, crop="centre", count=8)
    assert [data.label(i) for i in range(8)] == [plain.label(i) for i in range(8)]  # so that noise is the same, too
    assert torch.equal(data[3], plain[3])
