"""Preset files: one for each method, one [[preset]] for each operator and noise, and where its values come from."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import tomlkit
from preimage_data.atomic import atomic_write
from tomlkit.items import InlineTable

from preimage.presets import read_presets

HEADER = """Written by `preimage tune`. To use it, write preset = "{name}" at the top of a pipeline, without [prior] and
[solver]. The values are the best ones found on the images named in `tuned`, and hold for images like these."""


@dataclass(frozen=True)
class Entry:
    """One [[preset]]: `parts` has the tables operator, noise, prior and solver; the warnings in `tuned["edge"]` stand
    above it as comments, too. `channels`: of the images, None if they have different numbers."""

    name: str
    parts: Mapping[str, Any]
    tuned: Mapping[str, Any]
    channels: int | None = None

    @property
    def purpose(self) -> tuple[Any, Any, int | None]:
        """What it is for: operator tables, noise and channels."""
        return _listed(self.parts["operator"]), self.parts["noise"], self.channels


def preset_path(folder: Path, name: str) -> Path:
    """The file of a method: its label, with anything but letters, digits, dots and hyphens as hyphens."""
    return folder / f"{slug(name)}.toml"


def slug(text: str) -> str:
    """A label as a file name."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.") or "unnamed"


def write_presets(path: Path, entries: Sequence[Entry]) -> None:
    """Write a preset file, atomically: the same entries give the same bytes."""
    document = tomlkit.document()
    for line in HEADER.format(name=entries[0].name).splitlines():
        document.add(tomlkit.comment(line))
    document.add(tomlkit.nl())
    listed = tomlkit.aot()
    for entry in entries:
        table = tomlkit.table()
        for warning in entry.tuned.get("edge", ()):
            table.add(tomlkit.comment(f"warning: {warning}"))
        table.add("name", entry.name)
        operators = _listed(entry.parts["operator"])
        table.add("operator", _inline(operators[0] if len(operators) == 1 else operators))
        table.add("noise", _inline(entry.parts["noise"]))
        if entry.channels is not None:
            table.add("channels", entry.channels)
        for key in ("prior", "solver", "start"):
            if key in entry.parts:
                table.add(key, _inline(entry.parts[key]))
        tuned = tomlkit.table()
        for key, value in entry.tuned.items():
            tuned.add(key, _inline(value))
        table.add("tuned", tuned)
        listed.append(table)
    document.add("preset", listed)
    atomic_write(path, tomlkit.dumps(document).encode())


def merge_presets(path: Path, entries: Sequence[Entry]) -> None:
    """Write the entries into a preset file that may be there: those for the same operator, noise and channels are
    replaced, where they stand; new ones are added at the end."""
    kept = [_entry_of(preset) for preset in read_presets(path)] if path.exists() else []
    fresh = list(entries)
    merged: list[Entry] = []
    for old in kept:
        same = [entry for entry in fresh if (entry.name, entry.purpose) == (old.name, old.purpose)]
        merged.append(same[0] if same else old)
        fresh = [entry for entry in fresh if entry not in same]
    write_presets(path, [*merged, *fresh])


def _entry_of(preset: Any) -> Entry:
    parts = {"operator": preset.operator, "noise": preset.noise, "solver": preset.solver}
    parts |= {key: own for key, own in (("prior", preset.prior), ("start", preset.start)) if own is not None}
    return Entry(preset.name, parts, preset.tuned, preset.channels)


def _listed(tables: Any) -> list[Any]:
    return cast("list[Any]", tables) if isinstance(tables, list) else [tables]


def _inline(value: Any) -> Any:
    """Tables as inline tables, at any depth."""
    if isinstance(value, Mapping):
        table: InlineTable = tomlkit.inline_table()
        table.update({key: _inline(part) for key, part in cast("Mapping[str, Any]", value).items()})
        return table
    if isinstance(value, list | tuple):
        array = tomlkit.array()
        array.extend(_inline(part) for part in cast("list[Any]", value))
        return array
    return value
