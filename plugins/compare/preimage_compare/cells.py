"""What a cell is computed from, and the key that this gives it.

A key is the SHA-256 of everything that the numbers of a cell depend on, and of nothing else: the pipeline as assembled
(defaults and presets filled in, overrides applied), the bytes of the true image and its label (by which noise is
drawn), the seed, the versions of torch, preimage and the plugins involved, and the bytes of weights and other files.
Not in it: paths, the labels of operators, noises and methods, the limits, the machine, Python's own version.
"""

import hashlib
import json
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from preimage import Dataset, Pipeline
from preimage.assembly import versions
from preimage.errors import PreimageError, SeveralProblems
from preimage.presets import choose
from preimage.weights import digests

from ._sources import files, fingerprints, without_paths
from .suite import Cell, Combination, Suite

PROTOCOL = 1
"""Raised when the meaning of a cell's numbers changes: all cells are then computed anew."""


@dataclass(frozen=True)
class Assembled:
    """A combination that can be run.

    - `config`: the resolved tables, without data. `depends`: versions in its keys; `versions`: those recorded.
    - `weights`: SHA-256 by place. `preset`: name and origin of tuned values, if any.
    - `fingerprint`: digest of all that a key depends on, but the image and the seed.
    """

    pipeline: Pipeline
    config: Mapping[str, Any]
    depends: Mapping[str, str]
    versions: Mapping[str, str]
    weights: Mapping[str, str]
    preset: Mapping[str, Any] | None
    fingerprint: str


@dataclass(frozen=True)
class Refused:
    """A combination that cannot be run: `skipped` by the assembly, or `failed` because a constructor raised."""

    outcome: str
    reason: str
    error: Mapping[str, str] | None
    tables: Mapping[str, Any]
    fingerprint: str


def assemble(tables: Mapping[str, Any], dataset: Dataset, threads: int) -> Assembled | Refused:
    """Put a combination together; what cannot be is told why."""
    own = {name: value for name, value in tables.items() if name != "data"}
    try:
        pipeline = Pipeline.from_dict(own, where="pipeline", data=dataset)
        config = dict(pipeline.config)
        used = {"files": files(config), "weights": digests(config)}
        depends = fingerprints(config)
        name = config.get("preset")
        preset = None
        if name is not None:
            chosen = choose(name, config["operator"], config["noise"], "pipeline", config["shape"][0])
            preset = {"name": name, "source": chosen.source, "tuned": chosen.tuned}
    except PreimageError as error:
        return _refused("skipped", error, own)
    except Exception as error:
        return _refused("failed", error, own)
    # Which preset gave the values, and the seed, which stands in the key of each cell, are not part of this.
    resolved = {name: value for name, value in config.items() if name not in ("preset", "seed", "data")}
    fingerprint = _digest(
        {"protocol": PROTOCOL, "config": without_paths(resolved), "threads": threads, **used, "versions": depends}
    )
    return Assembled(pipeline, config, depends, versions(config), used["weights"], preset, fingerprint)


def _refused(outcome: str, error: Exception, tables: Mapping[str, Any]) -> Refused:
    told = isinstance(error, PreimageError)
    reason = sentence(error)
    described = None if told else describe(error)
    fingerprint = _digest({"protocol": PROTOCOL, "refused": reason, "tables": tables})
    return Refused(outcome, reason, described, tables, fingerprint)


def sentence(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, SeveralProblems):
        return "; ".join(sentence(problem) for problem in error.problems)
    if isinstance(error, PreimageError):
        found = error.found.removeprefix("pipeline: ")
        return found + (f" (expected: {error.expected})" if error.expected else "")
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def describe(error: BaseException) -> dict[str, str]:
    """Type, message and traceback of an exception, as a cell keeps them."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return {"type": type(error).__name__, "message": str(error), "traceback": "".join(lines)[-20_000:]}


def truth_digest(truth: Tensor) -> str:
    """SHA-256 of an image: of its shape and of its values in float32."""
    values = truth.detach().cpu().contiguous().float().numpy()
    return hashlib.sha256(f"{tuple(values.shape)}".encode() + values.astype("<f4").tobytes()).hexdigest()


def cell_key(fingerprint: str, truth: str, image: str, seed: int) -> str:
    """The key of a cell: 64 hexadecimal digits."""
    return hashlib.sha256(f"{fingerprint} {truth} {seed} {image}".encode()).hexdigest()


@dataclass(frozen=True)
class Planned:
    """A cell that a suite asks for: its key, and the position of its image in the data set."""

    cell: Cell
    key: str
    index: int


@dataclass(frozen=True)
class Plan:
    """All cells of a suite, those of one measurement together, and what was found out when planning them."""

    suite: Suite
    cells: tuple[Planned, ...]
    refused: Mapping[Combination, Refused]
    depends: Mapping[Combination, Mapping[str, str]]
    versions: Mapping[str, str]

    def refusal(self, cell: Cell) -> Refused | None:
        """Why a cell cannot be run, if it cannot."""
        return self.refused.get(combination(cell))


def combination(cell: Cell) -> Combination:
    """The labels that a cell shares with those of other images and seeds."""
    return Combination(cell.data, cell.operator, cell.noise, cell.method)


def plan(suite: Suite) -> Plan:
    """The keys of all cells. Each combination is assembled once, and each image read once.

    Raises what the data sets raise.
    """
    fingerprints_of: dict[Combination, str] = {}
    refused: dict[Combination, Refused] = {}
    depends: dict[Combination, Mapping[str, str]] = {}
    all_versions: dict[str, str] = {}
    for each in suite.combinations():
        tables = suite.tables(each) | {"seed": suite.seeds[0]}
        found = assemble(tables, suite.datasets[each.data], suite.threads)
        fingerprints_of[each] = found.fingerprint
        if isinstance(found, Refused):
            refused[each] = found
        else:
            depends[each] = found.depends
            all_versions |= {**found.versions, **found.depends}
    truths: dict[tuple[str, str], tuple[int, str]] = {}
    for label, dataset in suite.datasets.items():
        for index in range(len(dataset)):
            truths[label, dataset.label(index)] = index, truth_digest(dataset[index])
    cells: list[Planned] = []
    for cell in suite.cells():
        index, truth = truths[cell.data, cell.image]
        fingerprint = fingerprints_of[combination(cell)]
        cells.append(Planned(cell, cell_key(fingerprint, truth, cell.image, cell.seed), index))
    return Plan(suite, tuple(cells), refused, depends, all_versions)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
