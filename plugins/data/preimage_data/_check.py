"""Copies between any number of sets of images, each of which is read once; for the command `preimage data check`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from preimage import Dataset, Key, names
from preimage.assembly import construct, read_toml
from preimage.errors import BadData, BadFile, BadParameter, PreimageError

from ._progress import CountBar
from .copies import Copy, check_threshold, match, views
from .figures import save_figure, side_by_side
from .folder import Folder
from .listed import folder_at

_DRAWN, _SHOWN = 24, 128


@dataclass(frozen=True)
class Report:
    """What was compared and found: `sets` by name; copies with the names of the two sets they are in, most similar
    first; images that cannot be read, by set and label."""

    sets: Mapping[str, Dataset]
    compared: Mapping[tuple[str, str], int]
    copies: Sequence[tuple[str, str, Copy]]
    problems: Mapping[tuple[str, str], PreimageError]
    threshold: float

    def record(self) -> dict[str, Any]:
        return {
            "sets": {name: len(data) for name, data in self.sets.items()},
            "threshold": self.threshold,
            "copies": [{"sets": [a, b], **asdict(copy)} for a, b, copy in self.copies],
            "unreadable": [{"set": a, "label": label, "problem": e.found} for (a, label), e in self.problems.items()],
        }

    def show(self, console: Console) -> None:
        for (name, label), error in self.problems.items():
            console.print(f"cannot be read: {label} of {name}: {error.found}", soft_wrap=True, highlight=False)
        if self.copies:
            table = Table(box=None, header_style="bold", pad_edge=False)
            for heading in ("image", "copy of", "correlation", "difference", "mirrored"):
                right = heading in ("correlation", "difference")
                table.add_column(heading, justify="right" if right else "left", overflow="fold")
            for a, b, copy in self.copies:
                mirrored = "mirrored" if copy.mirrored else ""
                first, second = f"{a}/{copy.labels[0]}", f"{b}/{copy.labels[1]}"
                table.add_row(first, second, f"{copy.correlation:.3f}", f"{copy.difference:.3f}", mirrored)
            console.print(table)
        for (a, b), pairs in self.compared.items():
            count = sum((a, b) == (first, second) for first, second, _ in self.copies)
            where = f"inside {a}" if a == b else f"between {a} and {b}"
            found = f"{count} {'copy' if count == 1 else 'copies'}" if count else "no copies"
            console.print(f"{found} {where} ({pairs:,} pairs, mirrored and not)", soft_wrap=True, highlight=False)

    def draw(self, path: Path) -> None:
        """The most similar pairs, at most 24 of them, side by side. Raises `BadFile` if that cannot be written."""
        pairs: list[tuple[Tensor, Tensor]] = []
        notes: list[str] = []
        for a, b, copy in self.copies[:_DRAWN]:
            pairs.append((self.sets[a][copy.first], self.sets[b][copy.second]))
            mirrored = ", mirrored" if copy.mirrored else ""
            notes.append(f"{a}/{copy.labels[0]}\n{b}/{copy.labels[1]}\ncorrelation {copy.correlation:.3f}{mirrored}")
        more = len(self.copies) - len(pairs)
        title = f"{len(self.copies)} copies" + (f", the {len(pairs)} most similar" if more else "")
        save_figure(path, side_by_side(pairs, notes, title))


def named_sets(given: Sequence[str]) -> dict[str, Dataset]:
    """Data sets for what the command line names. Raises `BadParameter` for none, or one that is given twice."""
    found: dict[str, Dataset] = {}
    for text in given:
        for name, data in _resolve(text):
            if name in found:
                raise BadParameter(f"{name} is given twice", "different sets", "inside each set is compared anyway")
            found[name] = data
    return found


def _resolve(text: str) -> list[tuple[str, Dataset]]:
    if text.endswith(".toml"):
        return _from_toml(Path(text))
    name, separator, split = text.partition(":")
    if separator and name in names("dataset"):
        return [(text, construct("dataset", name, {"split": split}, f"dataset {text!r}"))]
    if Path(text).is_dir():
        return [(text.rstrip("/"), _folder(Path(text).resolve()))]
    try:
        folder_at(Path(text))
    except BadFile as error:
        if text in names("dataset"):
            return [(text, construct("dataset", text, {}, f"dataset {text!r}"))]
        expected = f"a folder of images, a TOML file, or NAME or NAME:SPLIT of {', '.join(names('dataset'))}"
        raise BadParameter(f"{text!r}: {error.found}", expected, error.remedy) from None
    return [(text.rstrip("/"), _folder(Path(text)))]


def _folder(path: Path) -> Folder:
    return Folder(path=path, size=_SHOWN, colour="colour")


def _from_toml(path: Path) -> list[tuple[str, Dataset]]:
    tables = read_toml(path)
    seed = tables.get("seed", 0)
    found: list[tuple[str, Dataset]] = []
    for key in ("data", "validation", "test"):
        table = tables.get(key)
        if isinstance(table, dict) and isinstance(table.get("name"), str):
            values = {name: value for name, value in table.items() if name != "name"}
            context = Key(seed if isinstance(seed, int) else 0).child(key)
            made = construct("dataset", table["name"], values, f"{path}: [{key}]", key=context)
            found.append((f"{path} [{key}]", made))
    if not found:
        raise BadParameter(f"{path} names no data set", "a table [data] with a name", 'write name = "folder" in [data]')
    return found


def check(sets: Mapping[str, Dataset], *, inside: bool, threshold: float, console: Console) -> Report:
    """Compare all pairs of sets, and each with itself if `inside`.

    Raises `BadParameter` if that is nothing, or for a bad threshold.
    """
    check_threshold(threshold)
    pairs = [*((name, name) for name in sets if inside), *combinations(sets, 2)]
    if not pairs:
        raise BadParameter("there is one set, and --between", "two or more sets", "leave --between out")
    small: dict[str, Tensor] = {}
    kept: dict[str, list[int]] = {}
    problems: dict[tuple[str, str], PreimageError] = {}
    with CountBar(console, "reading", sum(len(data) for data in sets.values())) as bar:
        for name, data in sets.items():
            rows: list[Tensor] = []
            kept[name] = []
            for index in range(len(data)):
                try:
                    rows.append(views(data, index).half())
                    kept[name].append(index)
                except (BadFile, BadData) as error:
                    problems[name, data.label(index)] = error
                bar.advance()
            small[name] = torch.stack(rows) if rows else torch.empty(0, 2, 32, 32, dtype=torch.float16)
    copies: list[tuple[str, str, Copy]] = []
    with CountBar(console, "comparing", len(pairs)) as bar:
        for a, b in pairs:
            for i, j, correlation, difference, mirrored in match(small[a], None if a == b else small[b], threshold):
                first, second = kept[a][i], kept[b][j]
                labels = (sets[a].label(first), sets[b].label(second))
                copies.append((a, b, Copy(first, second, labels, correlation, difference, mirrored)))
            bar.advance()
    sizes = {name: len(rows) for name, rows in small.items()}
    compared = {(a, b): sizes[a] * (sizes[a] - 1) // 2 if a == b else sizes[a] * sizes[b] for a, b in pairs}
    copies.sort(key=lambda found: (found[0] == found[1], -found[2].correlation))  # between sets first: those do harm
    return Report(sets, compared, copies, problems, threshold)
