"""What the page says besides numbers: failures, where the results come from, and how to repeat them."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import tomli_w

from .scores import OUTCOMES, Cell, Metric, Scores, Summary, ranked, unit_of

MOST_CELLS = 12
"""How many cells of one kind of failure are listed by name."""


def failures(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Failed and skipped cells, those with the same method, outcome and reason together, most frequent first.

    Numbers in the reasons are ignored when these are compared: "after 12 steps" and "after 31 steps" are one reason.
    """
    groups: dict[tuple[str, str, str, str], list[Cell]] = {}
    for cell in cells:
        if cell["outcome"] != "ok":
            error = cell.get("error") or {}
            reason = str(cell.get("reason") or error.get("message") or "no reason was recorded")
            kind = str(error.get("type") or cell.get("status") or "")
            alike = re.sub(r"\d[\d.e+-]*", "#", reason)
            groups.setdefault((cell["method"], cell["outcome"], kind, alike), []).append(cell)
    listed: list[dict[str, Any]] = []
    for (method, outcome, kind, _), members in groups.items():
        first = members[0]
        listed.append(
            {
                "method": method,
                "outcome": outcome,
                "kind": kind,
                "reason": str(first.get("reason") or (first.get("error") or {}).get("message") or "none recorded"),
                "count": len(members),
                "settings": len({unit_of(cell).setting for cell in members}),
                "cells": [str(unit_of(cell)) for cell in members[:MOST_CELLS]],
                "more": max(0, len(members) - MOST_CELLS),
                "traceback": (first.get("error") or {}).get("traceback"),
            }
        )
    return sorted(listed, key=lambda group: (group["outcome"] != "failed", -group["count"]))


def different_measurements(scores: Scores) -> list[str]:
    """The measurements whose bytes were not the same for all methods; no comparison on them is fair."""
    seen: dict[Any, set[str]] = {}
    for cell in scores.cells:
        if cell.get("measurement"):
            seen.setdefault(unit_of(cell), set()).add(cell["measurement"])
    return [str(unit) for unit, digests in seen.items() if len(digests) > 1]


def provenance(suite: Mapping[str, Any], cells: Sequence[Cell]) -> dict[str, Any]:
    """Versions, machines and weights' hashes, each with the number of cells it was used for; differences show."""
    versions: dict[str, Counter[str]] = {}
    machines: Counter[str] = Counter()
    weights: Counter[tuple[str, str, str]] = Counter()
    for cell in cells:
        for name, version in (cell.get("versions") or {}).items():
            versions.setdefault(str(name), Counter())[str(version)] += 1
        machine = cell.get("machine") or {}
        machines[_machine(machine)] += 1
        for name, digest in (cell.get("weights") or {}).items():
            weights[cell["method"], str(name), str(digest)] += 1
    if not versions:
        versions = {str(name): Counter([str(v)]) for name, v in (suite.get("versions") or {}).items()}
    return {
        "versions": [(name, found.most_common()) for name, found in sorted(versions.items())],
        "machines": machines.most_common(),
        "weights": sorted((*key, count) for key, count in weights.items()),
        # A local version ("+sources..." of an editable installation) is not one that pip could find.
        "install": " ".join(
            f"{name}=={found.most_common(1)[0][0].partition('+')[0]}"
            for name, found in sorted(versions.items())
            if name != "python"
        ),
        "local": any("+" in version for found in versions.values() for version in found),
    }


def methods_used(scores: Scores) -> list[dict[str, Any]]:
    """For each method how it was made: its preset, whether that was tuned, and its solver and prior as resolved."""
    used: list[dict[str, Any]] = []
    for row, method in enumerate(scores.methods):
        cells = [scores.cells[position] for position in scores.position[row] if position >= 0]
        made: Counter[str] = Counter(_made(cell.get("config") or {}) for cell in cells)
        presets = Counter(json.dumps(cell.get("preset"), sort_keys=True) for cell in cells)
        used.append(
            {
                "method": method,
                "presets": [(_preset(json.loads(text)), count) for text, count in presets.most_common()],
                "configs": [(text, count) for text, count in made.most_common(MOST_CELLS) if text],
                "more": max(0, len(made) - MOST_CELLS),
            }
        )
    return used


def suite_toml(suite: Mapping[str, Any]) -> str:
    """The resolved suite as a file that `preimage compare` reads."""
    return tomli_w.dumps(_without_none(suite.get("suite") or {}))


def verdict(summaries: Sequence[Summary], metric: Metric, reference: str, level: float) -> str:
    """One sentence: which method is ahead of the reference, by how much, and whether the interval excludes none."""
    best = ranked(summaries, metric)[0]
    unit = f" {metric.unit}" if metric.unit else ""
    if best.pairs == 0:
        return f"No method has a result where {reference} has one: nothing can be compared."
    if best.method == reference or not metric.better:
        return f"No method is ahead of the reference {reference} in mean {metric.title}."
    gain = f"{best.difference:+.{metric.digits}f}{unit}"
    counted = f"{best.images} image{'s' * (best.images != 1)}, {best.pairs} pairs"
    if best.difference_low != best.difference_low:  # NaN
        ahead = f"{best.method} is ahead of {reference} by {gain} in {metric.title}"
        return f"{ahead}; too few images for an interval ({counted})."
    interval = (
        f"{level:.0%} interval {best.difference_low:+.{metric.digits}f} to {best.difference_high:+.{metric.digits}f}"
    )
    clear = best.difference_low * best.difference_high > 0
    doubt = "" if clear else " The interval contains zero: the order may be chance."
    return f"{best.method} is ahead of {reference} by {gain} in {metric.title} ({interval}; {counted}).{doubt}"


def totals(scores: Scores) -> dict[str, int]:
    """How many cells there are of each outcome, missing ones among them."""
    return {name: int((scores.outcome == number).sum()) for number, name in enumerate(OUTCOMES)}


def _made(config: Mapping[str, Any]) -> str:
    tables = {name: config[name] for name in ("start", "prior", "solver") if config.get(name)}
    return tomli_w.dumps(_without_none(tables)).strip()


def _preset(preset: Any) -> str:
    if not preset:
        return "parameters as the suite gives them"
    tuned = preset.get("tuned")
    if not tuned:
        return f"preset {preset.get('name')}, not tuned"
    facts = ", ".join(f"{name} {value}" for name, value in tuned.items()) if isinstance(tuned, Mapping) else str(tuned)
    return f"preset {preset.get('name')}, tuned ({facts})"


def _machine(machine: Mapping[str, Any]) -> str:
    threads = machine.get("threads")
    parts = [str(machine.get("cpu") or "unknown processor"), f"device {machine.get('device', 'unknown')}"]
    return ", ".join(parts + ([f"{threads} thread{'s' * (threads != 1)}"] if threads else []))


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _without_none(part) for name, part in value.items() if part is not None}
    if isinstance(value, list | tuple):
        return [_without_none(part) for part in value if part is not None]
    return value
