"""Image files in and out: PNG, JPEG, TIFF and NPY, at their full depth."""

import io
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from preimage.errors import BadData, BadFile, BadParameter

from ._decode import Raster, decode
from .atomic import atomic_write, file_error

Colour = Literal["grey", "colour"]
Bits = Literal[8, 16]

LUMINANCE = (0.2125, 0.7154, 0.0721)
"""Weights of red, green and blue in grey: ITU-R BT.709, as in scikit-image's `rgb2gray`."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")
"""Endings of the formats that are read and written."""


def read_image(path: str | Path, colour: Colour | None = None) -> Tensor:
    """An image as float32 in [0, 1], (C, H, W), C = 1 or 3. The format is told from the content, not from the name.

    - PNG: 1 to 16 bits, grey, colour, palette, alpha. JPEG: grey, colour, CMYK. TIFF: one page, 1 to 32 bits or
      float, grey, colour, palette, CMYK, alpha, any compression that imagecodecs knows. NPY: (H, W), (H, W, C) or
      (C, H, W) with C 1 or 3.
    - Integers are divided by their largest value (255, 65535, ...); floating-point data must lie in [0, 1].
    - Alpha: the image is composited over white, alpha * colour + (1 - alpha).
    - The EXIF or TIFF orientation is applied. Embedded colour profiles are ignored: values are the file's own.
    - `colour`: "grey" converts colours with `LUMINANCE`, "colour" repeats grey three times, None keeps what is there.

    Raises `BadFile` for a file that is missing, unreadable, truncated, damaged or of another format, and `BadData` for
    values or a shape that are not an image.
    """
    path = Path(path)
    return as_image(_float(path, decode(path, _content(path))), colour)


def as_image(pixels: np.ndarray, colour: Colour | None = None) -> Tensor:
    """Pixels (H, W, C) in [0, 1], C = 1 or 3, as an image: float32, (C, H, W); `colour` as in `read_image`."""
    if colour == "grey" and pixels.shape[2] == 3:
        pixels = pixels @ np.array(LUMINANCE)[:, None]
    elif colour == "colour" and pixels.shape[2] == 1:
        pixels = pixels.repeat(3, 2)
    chw = np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)
    return torch.from_numpy(chw.clip(0.0, 1.0))  # float32 weights of white add up to 1 + 1e-7


def read_array(path: str | Path) -> Tensor:
    """Numbers from an NPY file, any shape and range, as float32 or float64; for measurements.

    Raises `BadFile` as `read_image`, and `BadData` if they are not real, finite numbers.
    """
    path = Path(path)
    array = decode(path, _content(path), only="NPY").values
    if array.dtype.kind not in "fiu":
        raise BadData(f"{path} has the dtype {array.dtype}", "real numbers", "save it with numpy.save as float32")
    array = array if array.dtype == np.float64 else array.astype(np.float32)
    _check_finite(path, array)
    return torch.from_numpy(np.array(array))  # a copy: writable, and in native byte order


def write_image(path: str | Path, image: Tensor, bits: Bits = 8) -> None:
    """Write (C, H, W) or (H, W), C = 1 or 3, in the format of the name's ending, atomically (`atomic_write`).

    - `.png`: `bits` per channel, values clipped to [0, 1] and rounded. `.jpg`, `.jpeg`: 8 bits, quality 95.
    - `.tif`, `.tiff`: float32, deflate. `.npy`: the values as they are, in their own dtype, as (C, H, W). No clipping.

    Raises `BadParameter` for another ending, `BadData` for NaN or infinity or a shape that is no image, and `BadFile`
    if the file cannot be written.
    """
    path = Path(path)
    atomic_write(path, encode(path.suffix, image, bits, what=str(path)))


def encode(suffix: str, image: Tensor, bits: Bits = 8, what: str = "the image") -> bytes:
    """The bytes that `write_image` writes into a file with this ending."""
    array = image.detach().cpu().numpy()
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[0] not in (1, 3) or 0 in array.shape:
        raise BadData(f"{what} has the shape {tuple(image.shape)}", "(1, H, W), (3, H, W) or (H, W)")
    if array.dtype.kind != "f":
        raise BadData(f"{what} has the dtype {image.dtype}", "floating point in [0, 1]", "divide bytes by 255")
    _check_finite(what, array)
    match suffix.lower():
        case ".npy":
            buffer = io.BytesIO()
            np.save(buffer, np.ascontiguousarray(array))
            return buffer.getvalue()
        case ".tif" | ".tiff":
            import tifffile

            buffer, photometric = io.BytesIO(), "rgb" if array.shape[0] == 3 else "minisblack"
            tifffile.imwrite(buffer, _interleaved(array, np.float32), photometric=photometric, compression="zlib")
            return buffer.getvalue()
        case ".png":
            import imagecodecs

            return bytes(imagecodecs.png_encode(_rounded(array, bits)))
        case ".jpg" | ".jpeg":
            from PIL import Image

            buffer = io.BytesIO()
            Image.fromarray(_rounded(array, 8)).save(buffer, "JPEG", quality=95)
            return buffer.getvalue()
        case _:
            raise BadParameter(f"{what} ends in {suffix!r}", " or ".join(SUFFIXES), "use one of these endings")


def _interleaved(array: np.ndarray, dtype: type) -> np.ndarray:
    """(C, H, W) to (H, W, C), or (H, W) for one channel."""
    turned = array.transpose(1, 2, 0)
    return np.ascontiguousarray(turned[..., 0] if turned.shape[2] == 1 else turned, dtype=dtype)


def _rounded(array: np.ndarray, bits: int) -> np.ndarray:
    levels = 2**bits - 1
    whole = np.rint(array.astype(np.float64).clip(0, 1) * levels)
    return _interleaved(whole, np.uint8 if bits == 8 else np.uint16)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BadFile(f"there is no file {path}", "an image file", "check the path") from None
    except IsADirectoryError:
        raise BadFile(f"{path} is a folder", "an image file", 'for all images in it: [data] name = "folder"') from None
    except OSError as error:
        raise file_error(path, error, "read") from error
    except ValueError as error:  # an embedded null character
        raise BadFile(f"{str(path)!r} is not a path: {error}", "a path of an image file") from error


def _float(path: Path, raster: Raster) -> np.ndarray:
    """float64 in [0, 1], (H, W, 1 or 3), alpha composited over white."""
    values = raster.values
    if 0 in values.shape:
        raise BadData(f"{path} is an empty image of shape {values.shape}", "at least one pixel")
    if raster.largest is None:
        _check_finite(path, values)
        low, high = float(values.min()), float(values.max())
        if low < 0 or high > 1:
            raise BadData(
                f"{path} has floating-point values from {low:.4g} to {high:.4g}",
                "values in [0, 1]",
                "scale them, (x - min) / (max - min) or x / 255, or clip them, before saving",
            )
        scaled = values.astype(np.float64)
    else:
        scaled = values.astype(np.float64) / raster.largest
    if raster.alpha is None:
        return scaled
    colour, alpha = scaled[..., :-1], scaled[..., -1:]
    return (colour if raster.alpha == "premultiplied" else alpha * colour) + (1 - alpha)


def _check_finite(what: object, array: np.ndarray) -> None:
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise BadData(
            f"{what} has {bad} values that are NaN or infinite", "finite numbers", "mend the data, or mask these pixels"
        )
