"""From the bytes of a file to numbers, one function for each format; everything that can be wrong is refused here."""

import io
import logging
import struct
import threading
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from preimage.errors import BadData, BadFile, PreimageError

_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_FORMATS = "PNG, JPEG, TIFF or NPY"


@dataclass(frozen=True)
class Raster:
    """What a file holds: `values` (H, W, C); `largest`, the integer that means 1, or None for floating point in [0, 1];
    `alpha`, whether the last channel is opacity, and if so whether colours are already multiplied by it."""

    values: np.ndarray
    largest: int | None
    alpha: Literal["straight", "premultiplied"] | None = None


def decode(path: Path, content: bytes, only: str | None = None) -> Raster:
    """The raster in these bytes; `only` allows a single format. For NPY with `only`, the array as it is."""
    name, reader = _format(path, content)
    if only is not None and name != only:
        raise BadFile(f"{path} is a {name} file", f"{only}", "save the numbers with numpy.save")
    try:
        return _npy_array(path, content) if only == "NPY" else reader(path, content)
    except PreimageError:
        raise
    except MemoryError as error:
        raise BadFile(f"{path} does not fit into memory", "a smaller image", "crop it first") from error
    except Exception as error:  # the libraries raise a dozen unrelated types for damaged files
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadFile(
            f"{path} is not a complete {name} file: {reason}", f"an undamaged {name} file", "copy or download it again"
        ) from error


def _format(path: Path, content: bytes) -> tuple[str, Callable[[Path, bytes], Raster]]:
    if not content:
        raise BadFile(f"{path} is empty (0 bytes)", f"an image in {_FORMATS}", "copy or download it again")
    if content.startswith(_PNG):
        return "PNG", _png
    if content.startswith(b"\xff\xd8\xff"):
        return "JPEG", _pillow
    if content.startswith(_TIFF):
        return "TIFF", _tiff
    if content.startswith(b"\x93NUMPY"):
        return "NPY", _npy
    raise BadFile(
        f"{path} is not an image in a known format (it starts with {content[:8]!r})",
        f"{_FORMATS}; the name's ending does not matter",
        "convert it to PNG with any image program",
    )


def _png(path: Path, content: bytes) -> Raster:
    depth, kind = _check_png(path, content)
    if depth < 16:
        return _pillow(path, content)
    import imagecodecs  # Pillow reduces 16-bit colour to 8 bits

    values = imagecodecs.png_decode(content)
    values = _oriented(values[..., None] if values.ndim == 2 else values, _exif_orientation(content))
    return _with_alpha(path, values, 65535, declared=values.shape[2] in (2, 4), what=f"colour type {kind}")


def _check_png(path: Path, content: bytes) -> tuple[int, int]:
    """Walk the chunks up to IEND, checking their CRCs; bit depth and colour type. Decoders let a missing end pass."""
    position, header = len(_PNG), (0, 0)
    while True:
        if position + 12 > len(content):
            raise ValueError(f"it ends at byte {len(content)}, before its IEND chunk")
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + 8 + length
        if end + 4 > len(content):
            raise ValueError(f"it ends at byte {len(content)}, inside a chunk")
        if zlib.crc32(content[position + 4 : end]) != struct.unpack_from(">I", content, end)[0]:
            raise ValueError(f"the checksum of its {kind.decode('latin-1')} chunk is wrong")
        if kind == b"IHDR" and length >= 10:
            header = (content[position + 16], content[position + 17])
        if kind == b"acTL":
            raise BadFile(f"{path} is an animation", "a single image", "save one frame of it")
        if kind == b"IEND":
            return header
        position = end + 4


def _pillow(path: Path, content: bytes) -> Raster:
    """JPEG, and PNG up to 8 bits (16 for grey without alpha is handled by `_png`)."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as opened:
            opened.load()
            image = ImageOps.exif_transpose(opened)
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        remedy = "cut it into pieces, or raise PIL.Image.MAX_IMAGE_PIXELS"
        raise BadFile(f"{path} has too many pixels: {error}", f"at most {limit}", remedy) from error
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        return Raster(np.asarray(image.convert("RGBA")), 255, "straight") if _coloured(image) else _grey_alpha(image)
    if image.mode in ("1", "L"):
        return Raster(np.asarray(image.convert("L"))[..., None], 255)
    if image.mode in ("P", "RGB", "CMYK", "YCbCr"):
        return Raster(np.asarray(image.convert("RGB")), 255)
    raise BadFile(f"{path} has the pixel format {image.mode}", "grey, colour, palette or CMYK", "save it as PNG in RGB")


def _coloured(image: Any) -> bool:
    return image.mode not in ("1", "L", "LA", "La")


def _grey_alpha(image: Any) -> Raster:
    return Raster(np.asarray(image.convert("RGBA"))[..., [0, 3]], 255, "straight")


def _exif_orientation(content: bytes) -> int:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return int(image.getexif().get(274, 1))


def _oriented(values: np.ndarray, orientation: int) -> np.ndarray:
    """Turn rows and columns as orientation 1 to 8 of TIFF 6.0 (p. 36) and EXIF asks."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    vertical, horizontal = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}.get(
        orientation, (1, 1)
    )
    return values[::vertical, ::horizontal]


def _tiff(path: Path, content: bytes) -> Raster:
    import tifffile

    with _refuse_complaints("tifffile"), tifffile.TiffFile(io.BytesIO(content)) as file:
        pages = [page for page in (p.aspage() for p in file.pages) if not page.is_reduced]
        if len(pages) != 1:
            raise BadFile(f"{path} has {len(pages)} pages", "one image", "save one page: tifffile.imread(path, key=0)")
        page: Any = pages[0]
        ends = [start + size for start, size in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if not ends or min(page.databytecounts) == 0 or max(ends) > len(content):
            raise ValueError(f"it ends at byte {len(content)}, before its pixels do")
        values: np.ndarray = page.asarray()
        if page.imagedepth != 1:
            raise BadFile(f"{path} is a volume of {page.imagedepth} planes", "one image", "save one plane")
    values = values[..., None] if page.samplesperpixel == 1 and values.ndim == 2 else values
    if page.planarconfig == 2 and page.samplesperpixel > 1:
        values = np.moveaxis(values, 0, -1)
    orientation = page.tags.valueof(274)
    values, largest = _tiff_values(path, page, _oriented(values, int(orientation or 1)))
    extra = tuple(int(kind) for kind in page.extrasamples)
    raster = _with_alpha(path, values, largest, extra in ((1,), (2,)), f"{page.samplesperpixel} samples a pixel")
    return Raster(raster.values, largest, "premultiplied") if extra == (1,) else raster


def _tiff_values(path: Path, page: Any, values: np.ndarray) -> tuple[np.ndarray, int | None]:
    """Palette looked up, CMYK and inverted grey turned; the number that means 1."""
    photometric = {0: "white is zero", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr"}.get(page.photometric)
    if values.dtype.kind not in "fub" or photometric is None or (values.dtype.kind == "f" and photometric == "CMYK"):
        what = f"samples of type {values.dtype}, photometric {page.photometric!s}"
        raise BadData(f"{path} has {what}", "unsigned integers or floating point, grey or colour", "save it as RGB")
    if photometric == "YCbCr" and page.compression not in (6, 7):  # only a JPEG decoder converts to RGB by itself
        raise BadData(f"{path} is in YCbCr", "grey or RGB", "save it as RGB")
    if photometric == "palette":
        return np.moveaxis(np.asarray(page.colormap)[:, values[..., 0]], 0, -1), 65535
    if values.dtype.kind == "f":
        return (1 - values if photometric == "white is zero" else values), None
    largest = 2 ** int(page.bitspersample) - 1
    if photometric == "white is zero":
        values = largest - values.astype(np.int64)
    if photometric == "CMYK":
        ink = values.astype(np.int64)[..., :4]
        values = np.rint((largest - ink[..., :3]) * (largest - ink[..., 3:]) / largest).astype(np.int64)
    return values, largest


def _with_alpha(path: Path, values: np.ndarray, largest: int | None, declared: bool, what: str) -> Raster:
    channels = values.shape[2] if values.ndim == 3 else 0
    if channels in (1, 3) and not declared:
        return Raster(values, largest)
    if channels in (2, 4) and declared:
        return Raster(values, largest, "straight")
    raise BadData(
        f"{path} has pixels of shape {values.shape} ({what}, alpha {'declared' if declared else 'not declared'})",
        "1 channel (grey) or 3 (colour), and possibly alpha",
        "keep three channels, or save each channel as a grey image",
    )


def _npy(path: Path, content: bytes) -> Raster:
    array = _npy_array(path, content).values
    if array.dtype.kind not in "ufb":
        raise BadData(
            f"{path} has the dtype {array.dtype}",
            "uint8, uint16, uint32, bool, or floating point in [0, 1]",
            "convert before saving: x.astype(numpy.float32) / largest",
        )
    largest = {"u": lambda: int(np.iinfo(array.dtype).max), "b": lambda: 1, "f": lambda: None}[array.dtype.kind]()
    last, first = array.ndim == 3 and array.shape[2] in (1, 3), array.ndim == 3 and array.shape[0] in (1, 3)
    if array.ndim == 2:
        return Raster(array[..., None], largest)
    if last and first and array.shape != (1, 1, 1):
        raise BadData(
            f"{path} has the shape {array.shape}: the channels may be first or last",
            "(H, W), (H, W, C) or (C, H, W), C = 1 or 3",
            "save grey images as (H, W)",
        )
    if not (last or first):
        raise BadData(
            f"{path} has the shape {array.shape}",
            "(H, W), (H, W, C) or (C, H, W), C = 1 or 3",
            "save one image to a file, without alpha: x[..., :3]",
        )
    return Raster(array if last else np.moveaxis(array, 0, -1), largest)


def _npy_array(path: Path, content: bytes) -> Raster:
    """Read the header first: a damaged one must not make numpy allocate what the file does not hold."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise BadData(f"{path} holds Python objects", "numbers", "convert: numpy.asarray(x, dtype=numpy.float32)")
    count, start = int(np.prod(shape, dtype=object)) if shape else 1, stream.tell()
    if start + count * dtype.itemsize > len(content):
        raise ValueError(f"its header announces {count * dtype.itemsize} bytes, and {len(content) - start} are there")
    flat = np.frombuffer(content, dtype=dtype, count=count, offset=start)
    return Raster(flat.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("=")), None)


class _Complaints(logging.Handler):
    """Collects what a library logs as errors in this thread; having a handler also keeps it from standard error."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.thread, self.messages = threading.get_ident(), list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread:
            self.messages.append(record.getMessage())


@contextmanager
def _refuse_complaints(name: str) -> Generator[None, None, None]:
    """tifffile logs damage and goes on with what it has; here that is an error."""
    logger, complaints = logging.getLogger(name), _Complaints()
    logger.addHandler(complaints)
    try:
        yield
    finally:
        logger.removeHandler(complaints)
    if complaints.messages:
        raise ValueError(complaints.messages[0])
