"""CelebA: the partition as torchvision reads it, windows and sizes, and what is said if something is missing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from preimage_data import CelebA, fit, read_image

from preimage.errors import BadData, BadFile, BadParameter
from preimage.testing import check_component, check_dataset

WHERE = [0, 0, 1, 2, 0, 1, 0, 2]  # torchvision's reader needs two of each
ATTRIBUTES = "Bald Smiling"


def write(root: Path) -> Path:
    """Eight faces that are noise, in JPEG, and all files that torchvision's reader wants."""
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i + 1:06d}.jpg" for i in range(len(WHERE))]
    for seed, name in enumerate(names):
        coarse = np.random.default_rng(seed).integers(0, 256, (22, 18, 3), np.uint8)
        Image.fromarray(coarse).resize((178, 218)).save(folder / "img_align_celeba" / name)
    rows = {
        "list_eval_partition.txt": ("", [str(where) for where in WHERE]),
        "identity_CelebA.txt": ("", ["7"] * 8),
        "list_attr_celeba.txt": (f"7\n{ATTRIBUTES}\n", ["-1  1"] * 8),
        "list_bbox_celeba.txt": ("7\nimage_id x_1 y_1 width height\n", ["1 2 3 4"] * 8),
        "list_landmarks_align_celeba.txt": ("7\nlefteye_x lefteye_y\n", ["1 2"] * 8),
    }
    for file, (head, values) in rows.items():
        (folder / file).write_text(head + "".join(f"{n} {v}\n" for n, v in zip(names, values, strict=True)))
    return folder


def test_laws():
    assert check_component("dataset", "celeba") >= 3


def test_same_images_as_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("torchvision.datasets")
    monkeypatch.setattr(datasets.CelebA, "_check_integrity", lambda _: True)  # it wants the files of the release
    write(tmp_path)
    for split, count in (("train", 4), ("valid", 2), ("test", 2), ("all", 8)):
        theirs = datasets.CelebA(tmp_path, split)
        ours = CelebA(split=split, path=tmp_path, size=None)
        assert len(ours) == len(theirs) == count
        assert [ours.label(i) for i in range(count)] == list(theirs.filename)
        for mine, (image, _) in zip(ours, theirs, strict=True):
            assert torch.equal((mine * 255).round().to(torch.uint8).permute(1, 2, 0), torch.from_numpy(np.array(image)))


def test_window_size_and_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write(tmp_path)
    data = CelebA(path=tmp_path)
    check_dataset(data)
    assert data.shape == (3, 64, 64)
    whole = read_image(folder / "img_align_celeba" / "000001.jpg")
    assert whole.shape == (3, 218, 178)
    # The width becomes 64, the height 78, of which the centre is cut: Pillow's own scaling as the reference.
    scaled = Image.open(data.path(0)).resize((64, 78), Image.Resampling.BICUBIC).crop((0, 7, 64, 71))
    expected = torch.from_numpy(np.array(scaled)).permute(2, 0, 1) / 255
    torch.testing.assert_close(data[0], expected, rtol=0, atol=0.01)
    window = CelebA(path=tmp_path, window=108)
    assert torch.equal(window[0], fit(whole[:, 55:163, 35:143], 64))
    assert torch.equal(CelebA(path=tmp_path, window=128, size=None)[0], whole[:, 45:173, 25:153])
    part = CelebA(path=folder, colour="grey", start=1, count=2)
    assert (part.shape, part.label(0), part.label(1)) == ((1, 64, 64), "000002.jpg", "000005.jpg")
    assert part.path(1) == folder / "img_align_celeba" / "000005.jpg"
    monkeypatch.setenv("PREIMAGE_DATA", str(tmp_path))
    assert torch.equal(CelebA()[0], data[0])


def test_missing_and_damaged(tmp_path: Path):
    with pytest.raises(BadFile, match="no img_align_celeba in") as caught:
        CelebA(path=tmp_path)
    assert "put both into" in caught.value.remedy
    folder = write(tmp_path)
    (folder / "img_align_celeba" / "000005.jpg").unlink()
    cut = folder / "img_align_celeba" / "000002.jpg"
    cut.write_bytes(cut.read_bytes()[:1000])
    data = CelebA(path=tmp_path)  # nothing is read yet
    assert data[0].shape == (3, 64, 64)
    with pytest.raises(BadFile, match=r"000002\.jpg"):
        data[1]
    with pytest.raises(BadFile, match=r"000005\.jpg"):
        data[2]
    with pytest.raises(BadData, match="at least 179 x 179"):
        CelebA(path=tmp_path, window=179)[0]
    with pytest.raises(BadParameter, match="window is 0"):
        CelebA(path=tmp_path, window=0)
    partition = folder / "list_eval_partition.txt"
    for text, message in (
        ("000001.jpg 0\n000002.jpg 3\n", "line 2"),
        ("000001.jpg\n", "line 1"),
        ("000001.jpg 1\n", "no image of the split train"),
        ("000001.jpg 0\n000001.jpg 0\n", "twice"),
    ):
        partition.write_text(text)
        with pytest.raises(BadData, match=message):
            CelebA(path=tmp_path)
    partition.unlink()
    with pytest.raises(BadFile, match=r"no list_eval_partition\.txt"):
        CelebA(path=tmp_path)


def test_verify_compares_with_the_release(tmp_path: Path):
    pytest.importorskip("torchvision")
    write(tmp_path)
    with pytest.raises(BadFile, match="d32c9cbf5e040fd4025c592c306e6668"):  # md5 of the partition that is published
        CelebA(path=tmp_path, verify=True)
