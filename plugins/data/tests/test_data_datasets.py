"""The data sets: the laws, their order, sizes and crops, and what is said when something is missing."""

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from preimage_data import Folder, ImageFile, Photographs, fit, read_image

from preimage.errors import BadData, BadFile, BadParameter
from preimage.testing import check_component, check_dataset

RAMP = torch.linspace(0, 1, 20 * 30).reshape(1, 20, 30)


def save(path: Path, shape: tuple[int, ...] = (20, 30), value: int = 128) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, np.uint8)).save(path)
    return path


@pytest.mark.parametrize("name", ["photographs", "folder", "image-file"])
def test_laws(name: str):
    assert check_component("dataset", name) >= 3


def test_photographs_are_at_least_eight_real_images_without_a_network(monkeypatch: pytest.MonkeyPatch):
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "socket", refused)
    data = Photographs(size=48, colour="colour")
    assert len(data) == 16
    images = [data[i] for i in range(len(data))]
    assert all(image.shape == (3, 48, 48) for image in images)
    assert all(float(image.std()) > 0.02 for image in images)  # none is blank
    assert len({image.numpy().tobytes() for image in images}) == 16
    coloured = [data.label(i) for i, image in enumerate(images) if not torch.equal(image[0], image[2])]
    assert len(coloured) == 8
    assert {"astronaut", "chelsea", "coffee", "motorcycle", "rocket"} < set(coloured)


def test_photographs_by_name_and_count():
    assert [Photographs(count=3).label(i) for i in range(3)] == ["camera", "astronaut", "chelsea"]
    chosen = Photographs(names=("rocket", "page"), size=(20, 30))
    assert [chosen.label(i) for i in range(2)] == ["rocket", "page"]
    assert chosen.shape == (1, 20, 30)
    assert torch.equal(chosen[-1], chosen[1])
    with pytest.raises(IndexError):
        chosen[2]


def test_the_centre_of_a_photograph_is_untouched():
    whole = read_image(Photographs().path(0))
    assert torch.equal(Photographs(size=96, crop="centre")[0], whole[:, 208:304, 208:304])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"names": ("camera", "camera")}, "each once"),
        ({"names": ()}, "names is"),
        ({"names": ("lena",)}, "'lena'"),
        ({"count": 0}, "count is 0"),
        ({"count": 17}, "count is 17"),
        ({"size": 0}, "size is 0"),
    ],
)
def test_bad_parameters(arguments: dict[str, object], text: str):
    with pytest.raises(BadParameter, match=text):
        Photographs(**arguments)  # type: ignore[arg-type]


def test_scikit_image_without_its_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("preimage_data.photographs.bundled", lambda: tmp_path)
    with pytest.raises(BadFile, match=r"without camera\.png"):
        Photographs()[0]


# Crops


def test_fit_centre_keeps_pixels():
    assert torch.equal(fit(RAMP, (5, 7), "centre"), RAMP[:, 7:12, 11:18])
    assert torch.equal(fit(RAMP, (20, 30), "resize"), RAMP)
    with pytest.raises(BadData, match="20 x 30 pixels"):
        fit(RAMP, 21, "centre")


def test_fit_keeps_proportions_or_not():
    centre = torch.zeros(1, 40, 80)
    centre[:, :, 20:60] = 1  # the square that "resize" keeps
    assert float(fit(centre, 20, "resize").min()) > 0.5
    assert float(fit(centre, 20, "stretch")[0, :, :4].max()) < 0.2


def test_fit_shrinks_without_aliasing_and_stays_in_range():
    checks = torch.from_numpy(np.indices((64, 64)).sum(0) % 2).float()[None]
    small = fit(checks, 16)
    assert float((small[:, 2:-2, 2:-2] - 0.5).abs().max()) < 0.02
    edge = fit((torch.arange(64) > 31).float().expand(1, 64, 64), 100)
    assert float(edge.min()) >= 0
    assert float(edge.max()) <= 1
    assert edge.shape == (1, 100, 100)


def test_fit_agrees_with_pillow():
    camera = Photographs(size=512)[0]
    pillow = Image.fromarray(camera[0].numpy()).resize((128, 128), Image.Resampling.BICUBIC)
    torch.testing.assert_close(fit(camera, 128)[0], torch.from_numpy(np.array(pillow)).clip(0, 1), rtol=0, atol=1e-5)


# Folders


def test_folder_is_sorted_recursive_and_lazy(tmp_path: Path):
    for name in ("b.png", "sub/a.JPG", "a.tif", "sub/deep/c.npy"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / name, np.zeros((8, 8))) if name.endswith("npy") else save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    save(tmp_path / ".hidden.png")
    save(tmp_path / ".cache" / "x.png")
    (tmp_path / "z.png").write_text("broken, but never read")
    data = Folder(path=tmp_path, size=8)
    labels = [data.label(i) for i in range(len(data))]
    assert labels == ["a.tif", "b.png", "sub/a.JPG", "sub/deep/c.npy", "z.png"]
    assert data[0].shape == (1, 8, 8)
    with pytest.raises(BadFile, match=r"z\.png"):
        data[4]
    part = Folder(path=tmp_path, size=8, start=1, count=2, extensions=("png", ".JPG"))
    assert [part.label(i) for i in range(len(part))] == ["sub/a.JPG", "z.png"]


def test_folder_below_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path / "photos" / "a.png")
    monkeypatch.setenv("PREIMAGE_DATA", str(tmp_path))
    assert Folder(path=Path("photos")).shape == (1, 20, 30)
    assert Folder().label(0) == "photos/a.png"
    assert Folder(path=tmp_path / "photos").label(0) == "a.png"  # absolute: the root does not matter
    with pytest.raises(BadFile, match="does not exist") as caught:
        Folder(path=Path("elsewhere"))
    assert str(tmp_path / "elsewhere") in str(caught.value)
    assert "PREIMAGE_DATA" in caught.value.remedy
    monkeypatch.delenv("PREIMAGE_DATA")
    monkeypatch.chdir(tmp_path)
    assert len(Folder(path=Path("photos"))) == 1
    with pytest.raises(BadFile, match="PREIMAGE_DATA is not set"):
        Folder()


@pytest.mark.parametrize(
    ("interpolation", "resampling"), [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)]
)
def test_folder_scales_as_pillow_does(tmp_path: Path, interpolation: str, resampling: Image.Resampling):
    """Up to its rounding to 8 bits, in both directions."""
    smooth = np.add.outer(np.sin(np.arange(96) / 5), np.cos(np.arange(96) / 7)) * 50 + 120
    Image.fromarray(smooth.astype(np.uint8)).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        for size in (24, 96, 144):
            expected = np.asarray(image.resize((size, size), resampling)) / 255
            found = Folder(path=tmp_path, size=size, interpolation=interpolation)[0][0]
            assert np.abs(found.numpy() - expected).max() < 1.5 / 255
    others = [Folder(path=tmp_path, size=24, interpolation=kind)[0] for kind in ("bilinear", "bicubic")]
    assert not torch.equal(*others)


def test_folder_problems(tmp_path: Path):
    with pytest.raises(BadFile, match="no images in"):
        Folder(path=tmp_path)
    save(tmp_path / "a.png")
    save(tmp_path / "b.png", (10, 10))
    with pytest.raises(BadFile, match="is a file"):
        Folder(path=tmp_path / "a.png")
    with pytest.raises(BadData, match="10 x 10 pixels") as caught:
        Folder(path=tmp_path)[1]
    assert "size = " in caught.value.remedy
    with pytest.raises(BadData, match="at least 16 x 16") as caught:
        Folder(path=tmp_path, size=16, crop="centre")[1]
    assert "b.png" in caught.value.found
    for arguments in ({"start": -1}, {"count": 0}, {"start": 2}, {"extensions": (".gif",)}, {"size": (0, 4)}):
        with pytest.raises(BadParameter):
            Folder(path=tmp_path, **arguments)


def test_colour_folder(tmp_path: Path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png", (20, 30, 3))
    data = Folder(path=tmp_path, colour="colour")
    check_dataset(data)
    assert data.shape == (3, 20, 30)
    assert Folder(path=tmp_path).shape == (1, 20, 30)


def test_image_file(tmp_path: Path):
    path = save(tmp_path / "photo.png", (20, 30, 3))
    data = ImageFile(path=path)
    assert (len(data), data.shape, data.label(0), data.path(0)) == (1, (3, 20, 30), "photo.png", path)
    assert list(data)[0].shape == (3, 20, 30)  # noqa: RUF015 (that iterating ends is the point)
    assert ImageFile(path=path, size=8, colour="grey").shape == (1, 8, 8)
    save(path, (9, 9, 3))
    with pytest.raises(BadFile, match="has changed"):
        data[0]
    with pytest.raises(BadFile, match="there is no file"):
        ImageFile(path=tmp_path / "none.png")


def test_listing_imports_no_torch():
    code = (
        "import sys, preimage_data.plugin as p; p.preimage_components(); print({'torch', 'skimage'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
