"""STL-10: its binary format, read as torchvision reads it; splits, folds, random access, bad files."""

import hashlib
import pickle
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from preimage_data import STL10, iresnet_split

from preimage.errors import BadData, BadFile, BadParameter
from preimage.testing import check_component, check_dataset

IMAGE = 3 * 96 * 96

TEST_STARTS = (236, 478, 1019, 2744, 3002)
DIGEST = "953ecd3a0fd3881b"


def write(root: Path, **counts: int) -> dict[str, np.ndarray]:
    """Random images (N, 3, y, x), and the files that hold them: bytes in the order channel, x, y."""
    folder, made = root / "stl10_binary", dict[str, np.ndarray]()
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, count) in enumerate(counts.items()):
        made[name] = np.random.default_rng(seed).integers(0, 256, (count, 3, 96, 96), np.uint8)
        made[name].transpose(0, 1, 3, 2).tofile(folder / f"{name}_X.bin")
        (folder / f"{name}_y.bin").write_bytes(bytes(1 + i % 10 for i in range(count)))
    (folder / "class_names.txt").write_text("airplane\nbird\n")
    (folder / "fold_indices.txt").write_text("".join(f"{i} {(i + 3) % 12} \n" for i in range(10)))
    return made


def test_laws():
    assert check_component("dataset", "stl10") >= 3


def test_bytes_are_columns(tmp_path: Path):
    content = bytearray(2 * IMAGE)
    content[IMAGE + 1 * 9216 + 5 * 96 + 2] = 255  # image 1, green, x = 5, y = 2
    (tmp_path / "stl10_binary").mkdir()
    (tmp_path / "stl10_binary" / "test_X.bin").write_bytes(content)
    data = STL10(split="test", path=tmp_path, colour="colour")
    assert data[1].nonzero().tolist() == [[1, 2, 5]]
    assert float(STL10(split="test", path=tmp_path)[1][0, 2, 5]) == pytest.approx(0.7154)  # the luminance of green


def test_same_images_as_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("torchvision.datasets")
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda _: True)  # it wants the gigabytes of the release
    write(tmp_path, train=12, test=2, unlabeled=3)
    for split, fold in (("train", None), ("train", 7), ("test", None), ("unlabeled", None)):
        theirs = datasets.STL10(tmp_path, split, folds=fold)
        ours = STL10(split=split, fold=fold, path=tmp_path, colour="colour")
        assert len(ours) == len(theirs) > 0
        for mine, (image, _) in zip(ours, theirs, strict=True):
            assert torch.equal((mine * 255).round().to(torch.uint8).permute(1, 2, 0), torch.from_numpy(np.array(image)))


def test_labels_sizes_and_parts(tmp_path: Path):
    made = write(tmp_path, train=12, unlabeled=3)
    data = STL10(path=tmp_path)
    check_dataset(data)
    assert (data.shape, len(data), data.label(0), data.label(-1)) == ((1, 96, 96), 12, "train/000000", "train/000011")
    part = STL10(path=tmp_path, start=2, count=3)
    assert [part.label(i) for i in range(3)] == ["train/000002", "train/000003", "train/000004"]
    assert torch.equal(part[0], data[2])
    fold = STL10(path=tmp_path, fold=4, start=1)
    assert [fold.label(i) for i in range(len(fold))] == ["train/000007"]
    assert torch.equal(fold[0], data[7])
    small = STL10(path=tmp_path, size=(40, 60), crop="centre", colour="colour")
    expected = torch.from_numpy(made["train"][5, :, 28:68, 18:78]).float() / 255
    torch.testing.assert_close(small[5], expected, rtol=0, atol=1e-7)
    inside = STL10(path=tmp_path / "stl10_binary", split="unlabeled")
    assert inside.label(2) == "unlabeled/000002"
    with pytest.raises(IndexError):
        inside[3]


def test_split_for_networks_is_listed_and_disjoint():
    train, validation, test = (iresnet_split(f"iresnet-{name}") for name in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (16_284, 64, 128)
    assert len({*train, *validation, *test}) == 16_284 + 64 + 128
    assert min(train) >= 0
    assert max(train) < 100_000
    assert list(test) == sorted(test)
    # Written down, so that the split can never change without a word; the rule is stated in the documentation.
    assert test[:5] == TEST_STARTS
    assert hashlib.sha256(repr((train, validation, test)).encode()).hexdigest()[:16] == DIGEST
    order = sorted(range(100_000), key=lambda i: hashlib.blake2b(b"stl10/%d" % i, digest_size=8).digest())
    assert set(validation) == set(order[128:192])


def test_split_for_networks_reads_its_images_and_no_more(tmp_path: Path):
    """The true size of the file, 2.8 GB, but sparse: only three images are on the disk."""
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    places, pixels = iresnet_split("iresnet-test"), np.random.default_rng(0).integers(0, 256, (3, 96, 96), np.uint8)
    with (folder / "unlabeled_X.bin").open("wb") as file:
        file.truncate(100_000 * IMAGE)
        for index in (0, 17, 127):
            file.seek(places[index] * IMAGE)
            file.write(pixels.transpose(0, 2, 1).tobytes())
    data = STL10(path=tmp_path, split="iresnet-test", colour="colour")
    assert [data.label(i) for i in (0, 127)] == [f"unlabeled/{places[0]:06d}", f"unlabeled/{places[127]:06d}"]
    tracemalloc.start()
    image = data[127]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    torch.testing.assert_close(image, torch.from_numpy(pixels).float() / 255, rtol=0, atol=1e-7)
    assert torch.equal(data[0], image)
    assert torch.equal(data[17], image)
    assert float(data[1].max()) == 0
    assert peak < 40 * IMAGE
    assert len(pickle.dumps(data)) < 10_000  # what a worker process of a loader is sent
    assert len(STL10(path=tmp_path, split="iresnet-train")) == 16_284


def test_missing_and_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PREIMAGE_DATA", raising=False)
    with pytest.raises(BadFile, match="PREIMAGE_DATA is not set"):
        STL10()
    with pytest.raises(BadFile, match=r"no train_X\.bin") as caught:
        STL10(path=tmp_path)
    assert "unpack stl10_binary.tar.gz in" in caught.value.remedy
    write(tmp_path, train=12, unlabeled=3)
    with pytest.raises(BadFile, match="holds 3 images") as caught:
        STL10(path=tmp_path, split="iresnet-train")
    assert "100,000" in caught.value.expected
    data, file = STL10(path=tmp_path), tmp_path / "stl10_binary" / "train_X.bin"
    with file.open("r+b") as opened:
        opened.truncate(11 * IMAGE + 100)
    assert data[10].shape == (1, 96, 96)
    with pytest.raises(BadFile, match="shorter"):
        data[11]
    with pytest.raises(BadFile, match="not a number of whole images"):
        STL10(path=tmp_path)
    file.unlink()
    with pytest.raises(BadFile, match="cannot be read"):
        data[0]
    monkeypatch.setenv("PREIMAGE_DATA", str(tmp_path))
    assert len(STL10(split="unlabeled")) == 3


def test_bad_parameters_and_folds(tmp_path: Path):
    write(tmp_path, train=12, unlabeled=3)
    for arguments in (
        {"fold": 10},
        {"fold": 0, "split": "unlabeled"},
        {"start": 12},
        {"count": 0},
        {"size": 0},
        {"size": 97, "crop": "centre"},
    ):
        with pytest.raises(BadParameter):
            STL10(path=tmp_path, **arguments)
    folds = tmp_path / "stl10_binary" / "fold_indices.txt"
    for text in ("0 1\n", "0 x\n" * 10, "0 12\n" * 10, "\n" * 10):
        folds.write_text(text)
        with pytest.raises(BadData, match="fold"):
            STL10(path=tmp_path, fold=9)
    folds.unlink()
    with pytest.raises(BadFile, match=r"fold_indices\.txt"):
        STL10(path=tmp_path, fold=9)


def test_verify_compares_with_the_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("torchvision")
    write(tmp_path, train=12)
    with pytest.raises(BadFile, match="918c2871b30a85fa023e0c44e0bee87f"):  # md5 of the train_X.bin that is published
        STL10(path=tmp_path, verify=True)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(BadParameter, match="torchvision") as caught:
        STL10(path=tmp_path, verify=True)
    assert caught.value.remedy == 'pip install "preimage-data[torchvision]"'
    assert len(STL10(path=tmp_path)) == 12  # all else works without it
