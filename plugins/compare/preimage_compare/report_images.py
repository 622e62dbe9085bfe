"""The images of the page: those of a few measurements, for every method, on one display window."""

import base64
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from preimage.errors import PreimageError

from .report_data import rounded
from .scores import OUTCOMES, Scores

if TYPE_CHECKING:
    from .store import Results

TRACES = ("seconds", "psnr", "objective")


def examples(results: "Results", scores: Scores, reference: str, budget: int) -> list[dict[str, Any]]:
    """Images and convergence curves of chosen measurements, as JSON values with PNG data URIs, in settings' order.

    Chosen are, in every setting, the measurement on which the reference is at its median, then the one on which
    methods differ most, until the PNGs take `budget` bytes; the first is there in any case.
    """
    chosen: dict[int, dict[str, Any]] = {}
    spent = 0
    for unit, why in _candidates(scores, reference):
        if unit in chosen:
            continue
        example = _example(results, scores, unit, why)
        if example is None:
            continue
        size = sum(len(tile["source"]) for tile in example["tiles"] if tile["source"])
        if chosen and spent + size > budget:
            break
        chosen[unit] = example
        spent += size
    return [chosen[unit] for unit in sorted(chosen, key=lambda unit: scores.setting_of[unit])]


def png_uri(image: NDArray[Any]) -> str:
    """An image (C, H, W) as the data URI of an 8-bit PNG, values clipped to [0, 1].

    One channel is grey, three are RGB; of any other number the mean over the channels is shown.
    """
    image = np.asarray(image, dtype=np.float64)
    if image.shape[0] not in (1, 3):
        image = image.mean(axis=0, keepdims=True)
    levels = np.rint(np.clip(np.nan_to_num(image, nan=0.0), 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(levels[0]) if len(levels) == 1 else Image.fromarray(np.moveaxis(levels, 0, -1))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _candidates(scores: Scores, reference: str) -> Iterator[tuple[int, str]]:
    metric = scores.metrics[0] if scores.metrics else None
    if metric is None:
        return
    values, against = scores.values[metric.key], scores.row(reference)
    typical: list[tuple[int, str]] = []
    telling: list[tuple[int, str]] = []
    for number in range(len(scores.settings)):
        units = np.flatnonzero(scores.setting_of == number)
        there = units[np.isfinite(values[:, units]).any(axis=0)]
        if not len(there):
            continue
        of_reference = values[against, there]
        if np.isfinite(of_reference).any():
            far = np.abs(of_reference - np.nanmedian(of_reference))
            typical.append((int(there[np.nanargmin(far)]), f"median {metric.title} of {reference}"))
        else:
            typical.append((int(there[0]), "first of its setting"))
        spread = np.nanmax(values[:, there], axis=0) - np.nanmin(values[:, there], axis=0)
        telling.append((int(there[np.argmax(spread)]), f"methods differ most in {metric.title}"))
    yield from typical
    yield from telling


def _example(results: "Results", scores: Scores, unit: int, why: str) -> dict[str, Any] | None:
    cells = [scores.cells[position] for position in scores.position[:, unit] if position >= 0]
    digest = next((cell["measurement"] for cell in cells if cell["outcome"] == "ok"), None)
    try:
        simulated = results.measurement(str(digest))
    except (PreimageError, OSError, KeyError):
        return None  # the numbers were copied without the images: the page says that it holds none
    truth = np.asarray(simulated["truth"])
    tiles = [_tile("Truth", truth, "")]
    measurement = np.asarray(simulated["measurement"])
    if measurement.shape == truth.shape:
        tiles.append(_tile("Measurement", measurement, ""))
    start = simulated.get("start")
    if start is not None and not np.array_equal(start, measurement):
        tiles.append(_tile("Start", np.asarray(start), _caption(cells[0].get("start_metrics") or {})))
    curves: list[dict[str, Any]] = []
    for row, method in enumerate(scores.methods):
        position = scores.position[row, unit]
        outcome = OUTCOMES[scores.outcome[row, unit]]
        cell = scores.cells[position] if position >= 0 else {}
        tensors: dict[str, Any] = {}
        if outcome == "ok":
            try:
                tensors = dict(results.image(cell["key"]))
            except (PreimageError, OSError, KeyError):
                outcome = "without a stored image"
        if "estimate" in tensors:
            tiles.append(_tile(method, np.asarray(tensors["estimate"]), _caption(cell["metrics"]), row))
        else:
            reason = str(cell.get("reason") or "")
            tiles.append({"title": method, "caption": f"{outcome}: {reason}", "method": row, "source": None})
        if "trace_seconds" in tensors:
            curves.append({"method": row} | {name: _trace(tensors, name) for name in TRACES})
    place = scores.units[unit]
    return {
        "label": str(place),
        "setting": list(place.setting),
        "why": why,
        "height": truth.shape[-2],
        "width": truth.shape[-1],
        "tiles": tiles,
        "curves": curves,
    }


def _tile(title: str, image: NDArray[Any], caption: str, method: int | None = None) -> dict[str, Any]:
    return {"title": title, "caption": caption, "method": method, "source": png_uri(image)}


def _caption(metrics: Any) -> str:
    parts: list[str] = []
    if metrics.get("psnr") is not None:
        parts.append(f"{metrics['psnr']:.2f} dB")
    if metrics.get("ssim") is not None:
        parts.append(f"SSIM {metrics['ssim']:.3f}")
    return " · ".join(parts)


def _trace(tensors: dict[str, Any], name: str) -> list[float | None] | None:
    values = tensors.get(f"trace_{name}")
    return None if values is None else [rounded(float(value)) for value in np.asarray(values).ravel()]
