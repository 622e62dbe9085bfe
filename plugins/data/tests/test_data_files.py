"""Reading and writing of image files: every format at its full depth, and every way a file can be bad."""

import errno
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from preimage_data import atomic_write, read_array, read_image, write_image, write_json

from preimage.errors import BadData, BadFile, BadParameter, PreimageError

RANDOM = np.random.default_rng(0)
GREY8 = RANDOM.integers(0, 256, (12, 17), dtype=np.uint8)
RGB8 = RANDOM.integers(0, 256, (12, 17, 3), dtype=np.uint8)
GREY16 = RANDOM.integers(0, 65536, (12, 17), dtype=np.uint16)
RGB16 = RANDOM.integers(0, 65536, (12, 17, 3), dtype=np.uint16)


def chw(array: np.ndarray, largest: float) -> torch.Tensor:
    array = array[..., None] if array.ndim == 2 else array
    return torch.from_numpy((array.astype(np.float64) / largest).transpose(2, 0, 1).astype(np.float32))


def png_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in chunks:
        parts.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
    return b"".join(parts)


def pillow(array: np.ndarray, path: Path, **options: object) -> None:
    Image.fromarray(array).save(path, **options)


EXACT: dict[str, tuple[Callable[[Path], object], torch.Tensor]] = {
    "grey8.png": (lambda p: pillow(GREY8, p), chw(GREY8, 255)),
    "rgb8.png": (lambda p: pillow(RGB8, p), chw(RGB8, 255)),
    "bits1.png": (lambda p: Image.fromarray(GREY8 > 99).save(p), chw(GREY8 > 99, 1)),
    "palette.png": (
        lambda p: Image.fromarray(GREY8 // 64 * 64).convert("P", palette=Image.Palette.ADAPTIVE).save(p),
        chw(np.repeat((GREY8 // 64 * 64)[..., None], 3, 2), 255),
    ),
    "grey16.png": (lambda p: p.write_bytes(imagecodecs.png_encode(GREY16)), chw(GREY16, 65535)),
    "rgb16.png": (lambda p: p.write_bytes(imagecodecs.png_encode(RGB16)), chw(RGB16, 65535)),
    "grey8.tif": (lambda p: tifffile.imwrite(p, GREY8, photometric="minisblack"), chw(GREY8, 255)),
    "inverted.tif": (lambda p: tifffile.imwrite(p, 255 - GREY8, photometric="miniswhite"), chw(GREY8, 255)),
    "rgb16.tif": (lambda p: tifffile.imwrite(p, RGB16, photometric="rgb"), chw(RGB16, 65535)),
    "lzw.tif": (lambda p: tifffile.imwrite(p, RGB16, photometric="rgb", compression="lzw"), chw(RGB16, 65535)),
    "deflate.tif": (
        lambda p: tifffile.imwrite(p, RGB16, photometric="rgb", compression="zlib", predictor=True, tile=(16, 16)),
        chw(RGB16, 65535),
    ),
    "bigendian.tif": (
        lambda p: tifffile.imwrite(p, GREY16, photometric="minisblack", byteorder=">"),
        chw(GREY16, 65535),
    ),
    "planar.tif": (
        lambda p: tifffile.imwrite(p, RGB8.transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate"),
        chw(RGB8, 255),
    ),
    "float.tif": (
        lambda p: tifffile.imwrite(p, (RGB16 / 65535).astype(np.float32), photometric="rgb", compression="zlib"),
        chw(RGB16, 65535),
    ),
    "palette.tif": (
        lambda p: tifffile.imwrite(
            p, GREY8, photometric="palette", colormap=np.tile(np.arange(256) * 257, (3, 1)).astype("u2")
        ),
        chw(np.repeat(GREY8[..., None], 3, 2), 255),
    ),
    "bits1.tif": (lambda p: Image.fromarray(GREY8 > 99).save(p), chw(GREY8 > 99, 1)),
    "grey8.npy": (lambda p: np.save(p, GREY8), chw(GREY8, 255)),
    "last.npy": (lambda p: np.save(p, RGB16), chw(RGB16, 65535)),
    "first.npy": (lambda p: np.save(p, RGB8.transpose(2, 0, 1)), chw(RGB8, 255)),
    "fortran.npy": (lambda p: np.save(p, np.asfortranarray(GREY16)), chw(GREY16, 65535)),
    "bool.npy": (lambda p: np.save(p, GREY8 > 99), chw(GREY8 > 99, 1)),
    "double.npy": (lambda p: np.save(p, GREY16 / 65535), chw(GREY16, 65535)),
    "bigendian.npy": (lambda p: np.save(p, (GREY16 / 65535).astype(">f8")), chw(GREY16, 65535)),
}


@pytest.mark.parametrize("name", EXACT)
def test_every_bit_is_kept(name: str, tmp_path: Path):
    make, expected = EXACT[name]
    make(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.dtype == torch.float32
    assert image.shape == expected.shape
    torch.testing.assert_close(image, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["rgb16.png", "rgb16.tif", "last.npy"])
def test_sixteen_bits_are_not_reduced_to_eight(name: str, tmp_path: Path):
    EXACT[name][0](tmp_path / name)
    levels = (read_image(tmp_path / name).double() * 65535).round().to(torch.int64).numpy()
    assert np.array_equal(levels, RGB16.transpose(2, 0, 1))


def test_the_name_does_not_matter(tmp_path: Path):
    pillow(RGB8, tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "photo.jpg")
    assert torch.equal(read_image(tmp_path / "photo.jpg"), chw(RGB8, 255))


SMOOTH = np.stack([np.add.outer(np.arange(32) * 2, np.arange(48)) + 20 * c for c in range(3)], 2).astype(np.uint8)


def test_jpeg_grey_colour_and_cmyk(tmp_path: Path):
    pillow(SMOOTH, tmp_path / "rgb.jpg", quality=98, subsampling=0)
    pillow(SMOOTH[..., 0], tmp_path / "grey.jpg", quality=98)
    Image.fromarray(SMOOTH).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=98)
    assert read_image(tmp_path / "grey.jpg").shape == (1, 32, 48)
    for name in ("rgb.jpg", "cmyk.jpg"):
        assert float((read_image(tmp_path / name) - chw(SMOOTH, 255)).abs().max()) < 0.03, name


@pytest.mark.parametrize("levels", [255, 65535])
@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_composited_over_white(levels: int, channels: int, tmp_path: Path):
    array = RANDOM.integers(0, levels + 1, (9, 7, channels)).astype(np.uint8 if levels == 255 else np.uint16)
    exact = array / levels
    expected = exact[..., :-1] * exact[..., -1:] + 1 - exact[..., -1:]
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(array))
    kind = "rgb" if channels == 4 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", array, photometric=kind, extrasamples=["unassalpha"])
    for name in ("a.png", "a.tif"):
        torch.testing.assert_close(read_image(tmp_path / name), chw(expected, 1), rtol=0, atol=1e-6)


def test_premultiplied_alpha(tmp_path: Path):
    alpha = RANDOM.uniform(size=(6, 5, 1))
    colour = RANDOM.uniform(size=(6, 5, 3))
    pixels = np.concatenate([colour * alpha, alpha], 2).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["assocalpha"])
    expected = chw(colour * alpha + 1 - alpha, 1)
    torch.testing.assert_close(read_image(tmp_path / "a.tif"), expected, rtol=0, atol=1e-6)


def test_a_transparent_palette_colour_becomes_white(tmp_path: Path):
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.save(tmp_path / "a.png", transparency=1)
    expected = np.array([[[10, 20, 30], [255] * 3], [[255] * 3, [10, 20, 30]]])
    torch.testing.assert_close(read_image(tmp_path / "a.png"), chw(expected, 255))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int, tmp_path: Path):
    exif = Image.Exif()
    exif[274] = orientation
    pillow(SMOOTH, tmp_path / "a.jpg", exif=exif, quality=98, subsampling=0)
    pillow(SMOOTH, tmp_path / "a.png", exif=exif)
    pillow(SMOOTH, tmp_path / "a.tif", tiffinfo={274: orientation})
    turned = SMOOTH.swapaxes(0, 1) if orientation >= 5 else SMOOTH
    # TIFF 6.0, p. 36: where row 0 and column 0 of the file are shown.
    turned = turned[::-1] if orientation in (3, 4, 7, 8) else turned
    turned = turned[:, ::-1] if orientation in (2, 3, 6, 7) else turned
    expected = chw(turned.copy(), 255)
    assert torch.equal(read_image(tmp_path / "a.png"), expected)
    assert torch.equal(read_image(tmp_path / "a.tif"), expected)
    jpeg = read_image(tmp_path / "a.jpg")
    assert jpeg.shape == expected.shape
    assert float((jpeg - expected).abs().max()) < 0.03


def test_orientation_of_a_16_bit_png(tmp_path: Path):
    plain = imagecodecs.png_encode(RGB16)
    exif = Image.Exif()
    exif[274] = 6
    body = exif.tobytes().removeprefix(b"Exif\x00\x00")
    chunk = png_chunks((b"eXIf", body))[8:]
    (tmp_path / "a.png").write_bytes(plain[:33] + chunk + plain[33:])  # after the signature and IHDR
    expected = chw(np.rot90(RGB16, -1).copy(), 65535)
    assert torch.equal(read_image(tmp_path / "a.png"), expected)


def test_grey_and_colour(tmp_path: Path):
    from skimage.color import rgb2gray

    pillow(RGB8, tmp_path / "rgb.png")
    pillow(GREY8, tmp_path / "grey.png")
    grey = read_image(tmp_path / "rgb.png", "grey")
    assert grey.shape == (1, 12, 17)
    torch.testing.assert_close(grey[0].double(), torch.from_numpy(rgb2gray(RGB8)), rtol=0, atol=1e-7)
    colour = read_image(tmp_path / "grey.png", "colour")
    assert torch.equal(colour, chw(GREY8, 255).repeat(3, 1, 1))
    pillow(np.full((4, 4, 3), 255, np.uint8), tmp_path / "white.png")
    assert float(read_image(tmp_path / "white.png", "grey").max()) <= 1


def pages(path: Path) -> None:
    tifffile.imwrite(path, np.stack([GREY8, GREY8]), photometric="minisblack")


def npy(array: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.save(path, array)


def cut(make: Callable[[Path], object], share: float) -> Callable[[Path], None]:
    def made(path: Path) -> None:
        make(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return made


def flip(make: Callable[[Path], object], place: float) -> Callable[[Path], None]:
    def made(path: Path) -> None:
        make(path)
        content = bytearray(path.read_bytes())
        content[int(len(content) * place)] ^= 0xFF
        path.write_bytes(bytes(content))

    return made


def nothing(path: Path) -> None:
    pass


def objects(path: Path) -> None:
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)


BAD: dict[str, tuple[str, Callable[[Path], object], type[PreimageError], str]] = {
    "missing": ("a.png", nothing, BadFile, "there is no file"),
    "folder": ("a.png", lambda p: p.mkdir(), BadFile, "is a folder"),
    "empty": ("a.png", lambda p: p.write_bytes(b""), BadFile, "0 bytes"),
    "text": ("a.png", lambda p: p.write_text("hello there"), BadFile, "not an image in a known format"),
    "half PNG": ("a.png", cut(lambda p: pillow(RGB8, p), 0.5), BadFile, "not a complete PNG"),
    "PNG signature": ("a.png", lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n"), BadFile, "not a complete PNG"),
    "damaged PNG": ("a.png", flip(lambda p: pillow(RGB8, p), 0.5), BadFile, "checksum"),
    "half 16-bit PNG": ("a.png", cut(EXACT["rgb16.png"][0], 0.5), BadFile, "not a complete PNG"),
    "half JPEG": ("a.jpg", cut(lambda p: pillow(SMOOTH, p), 0.6), BadFile, "not a complete JPEG"),
    "half TIFF": ("a.tif", cut(EXACT["rgb16.tif"][0], 0.5), BadFile, "not a complete TIFF"),
    "half LZW": ("a.tif", cut(EXACT["lzw.tif"][0], 0.5), BadFile, "not a complete TIFF"),
    "half NPY": ("a.npy", cut(npy(RGB16), 0.5), BadFile, "announces"),
    "NPY magic": ("a.npy", lambda p: p.write_bytes(b"\x93NUMPY\x01\x00"), BadFile, "not a complete NPY"),
    "two pages": ("a.tif", pages, BadFile, "2 pages"),
    "five channels": (
        "a.tif",
        lambda p: tifffile.imwrite(p, np.zeros((8, 8, 5), np.uint8), photometric="rgb"),
        BadData,
        "5",
    ),
    "signed TIFF": ("a.tif", lambda p: tifffile.imwrite(p, np.zeros((8, 8), np.int16)), BadData, "int16"),
    "NaN TIFF": ("a.tif", lambda p: tifffile.imwrite(p, np.full((8, 8), np.nan, np.float32)), BadData, "64 values"),
    "range TIFF": ("a.tif", lambda p: tifffile.imwrite(p, np.full((8, 8), 255.0, np.float32)), BadData, "255"),
    "NaN": ("a.npy", npy(np.array([[0.5, np.nan]])), BadData, "1 values that are NaN"),
    "range": ("a.npy", npy(np.array([[-0.1, 0.5]])), BadData, "from -0.1 to 0.5"),
    "int64": ("a.npy", npy(np.zeros((4, 4), np.int64)), BadData, "int64"),
    "complex": ("a.npy", npy(np.zeros((4, 4), np.complex64)), BadData, "complex64"),
    "objects": ("a.npy", objects, BadData, "Python objects"),
    "four channels": ("a.npy", npy(np.zeros((8, 8, 4))), BadData, "(8, 8, 4)"),
    "vector": ("a.npy", npy(np.zeros(8)), BadData, "(8,)"),
    "batch": ("a.npy", npy(np.zeros((2, 1, 8, 8))), BadData, "(2, 1, 8, 8)"),
    "ambiguous": ("a.npy", npy(np.zeros((3, 8, 3))), BadData, "first or last"),
    "no pixels": ("a.npy", npy(np.zeros((0, 8))), BadData, "empty image"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_with_reason_and_remedy(case: str, tmp_path: Path):
    name, make, error, text = BAD[case]
    make(tmp_path / name)
    with pytest.raises(error) as caught:
        read_image(tmp_path / name)
    assert type(caught.value) is error
    assert text in caught.value.found
    assert str(tmp_path / name) in caught.value.found
    assert caught.value.expected


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(tmp_path: Path):
    pillow(GREY8, tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(BadFile, match="Permission denied"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["grey8.png", "rgb16.png", "deflate.tif", "lzw.tif", "grey8.npy", "a.jpg"])
def test_no_truncation_goes_unnoticed(name: str, tmp_path: Path):
    EXACT[name][0](tmp_path / name) if name in EXACT else pillow(SMOOTH, tmp_path / name)
    content, whole = (tmp_path / name).read_bytes(), read_image(tmp_path / name)
    refused = 0
    for length in range(0, len(content), 7 if len(content) > 2000 else 3):
        (tmp_path / "cut").write_bytes(content[:length])
        try:
            assert torch.equal(read_image(tmp_path / "cut"), whole)
        except BadFile:
            refused += 1
    assert refused > 0.9 * len(range(0, len(content), 7 if len(content) > 2000 else 3))
    (tmp_path / "cut").write_bytes(content[:-5])
    if name.endswith(("png", "npy", "jpg")):
        with pytest.raises(BadFile):
            read_image(tmp_path / "cut")


def test_an_image_of_absurd_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pillow(RGB8, tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(BadFile, match="too many pixels"):
        read_image(tmp_path / "a.png")


def test_measurements_of_any_shape_and_range(tmp_path: Path):
    y = np.array([-3.0, 0.25, 1e6])
    np.save(tmp_path / "y.npy", y)
    assert torch.equal(read_array(tmp_path / "y.npy"), torch.from_numpy(y))
    np.save(tmp_path / "i.npy", np.arange(4))
    assert torch.equal(read_array(tmp_path / "i.npy"), torch.arange(4.0))
    np.save(tmp_path / "bad.npy", np.array([np.inf]))
    with pytest.raises(BadData, match="NaN or infinite"):
        read_array(tmp_path / "bad.npy")
    pillow(GREY8, tmp_path / "a.png")
    with pytest.raises(BadFile, match="is a PNG file"):
        read_array(tmp_path / "a.png")


# Writing


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("name", "error"), [("a.png", 0.5 / 255), ("a.jpg", 0.03), ("a.tif", 0.0), ("a.npy", 0.0)])
def test_round_trip(name: str, error: float, channels: int, tmp_path: Path):
    image = chw(SMOOTH[..., :channels], 300)
    write_image(tmp_path / "new" / "folder" / name, image)
    assert float((read_image(tmp_path / "new" / "folder" / name) - image).abs().max()) <= error + 1e-7


def test_sixteen_bit_png_round_trip(tmp_path: Path):
    write_image(tmp_path / "a.png", chw(RGB16, 65535), bits=16)
    assert torch.equal(read_image(tmp_path / "a.png"), chw(RGB16, 65535))


def test_integer_formats_clip_and_numpy_does_not(tmp_path: Path):
    image = torch.tensor([[[-0.5, 0.5, 1.5]]])
    write_image(tmp_path / "a.png", image)
    assert read_image(tmp_path / "a.png").flatten().tolist() == pytest.approx([0, 128 / 255, 1])
    write_image(tmp_path / "a.npy", image.double())
    assert torch.equal(read_array(tmp_path / "a.npy"), image.double())


def test_what_cannot_be_written(tmp_path: Path):
    image = torch.zeros(1, 4, 4)
    with pytest.raises(BadParameter, match=r"ends in '\.gif'"):
        write_image(tmp_path / "a.gif", image)
    with pytest.raises(BadData, match="NaN or infinite"):
        write_image(tmp_path / "a.png", image / 0)
    with pytest.raises(BadData, match=r"shape \(2, 4, 4\)"):
        write_image(tmp_path / "a.png", torch.zeros(2, 4, 4))
    with pytest.raises(BadData, match="uint8"):
        write_image(tmp_path / "a.png", image.to(torch.uint8))
    (tmp_path / "a.png").mkdir()
    with pytest.raises(BadFile, match="cannot be written"):
        write_image(tmp_path / "a.png", image)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_json(tmp_path / "run.json", {"a": 1})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(BadFile, match="No space left on device") as caught:
        write_json(tmp_path / "run.json", {"a": 2})
    assert "free some space" in caught.value.remedy
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]
    assert '"a": 1' in (tmp_path / "run.json").read_text()


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path):
    def interrupted(file: io.BufferedWriter) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "a", interrupted)
    assert list(tmp_path.iterdir()) == []


def test_json_has_no_nan(tmp_path: Path):
    write_json(tmp_path / "a.json", {"psnr": [float("inf"), 1.0], "é": float("nan")})
    assert (tmp_path / "a.json").read_text("utf-8") == '{\n  "psnr": [\n    null,\n    1.0\n  ],\n  "é": null\n}\n'
