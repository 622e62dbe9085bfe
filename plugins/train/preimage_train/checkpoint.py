"""Checkpoints: everything a run needs to go on as if nothing had happened, in safetensors files."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from preimage_data.atomic import atomic_write
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.optim import Optimizer

from preimage.errors import BadFile, Incompatible

NEWEST, BEFORE = "checkpoint.safetensors", "checkpoint-before.safetensors"


@dataclass
class Position:
    """Where a run stands, besides its tensors.

    - `step`: steps taken. `seconds`: of training so far, validation outside; `processor_seconds`: of all cores of this
      process meanwhile, which is what tells training times apart on a machine that does other things too.
    - `rate`: multiplies the learning rate: halved each time a loss was not finite. `setbacks`: how often that was.
    - `best`, `best_step`: the best score and where. `stale`: validations since. `validated`: step of the last one.
    """

    step: int = 0
    seconds: float = 0.0
    processor_seconds: float = 0.0
    rate: float = 1.0
    setbacks: list[int] = field(default_factory=list)
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    validated: int = -1


def write(
    folder: Path, recipe: str, position: Position, tensors: Mapping[str, Tensor], images: Mapping[str, str]
) -> None:
    """Write the newest checkpoint of a run folder; the one before is kept.

    - `images`: the digest of each collection of images that the run sees.

    The file is written whole before it takes the other's place. Raises `BadFile` if there is no room, or no permission;
    both files are then what they were.
    """
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    facts = {"recipe": recipe, "images": dict(images), "position": vars(position), "digest": digest(held)}
    data = save(held, {"preimage-checkpoint": json.dumps(facts)})
    newest = folder / NEWEST
    fresh = folder / f".{NEWEST}.new"
    atomic_write(fresh, data)
    if newest.exists():
        os.replace(newest, folder / BEFORE)
    os.replace(fresh, newest)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: dict[str, str]) -> None:
    """Write tensors whole or not at all."""
    atomic_write(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}, header))


def read(
    folder: Path, recipe: str, images: Mapping[str, str] | None = None
) -> tuple[Position, dict[str, Tensor], list[str]] | None:
    """The last sound checkpoint of a run folder, and what was wrong with newer ones; None if there never was one.

    Raises `Incompatible` if it belongs to another recipe, or to other images than `images` (None: not compared; nor are
    those that the checkpoint knows nothing of), `BadFile` if none of those there can be used.
    """
    wrong = list[str]()
    files = [path for name in (f".{NEWEST}.new", NEWEST, BEFORE) if (path := folder / name).exists()]
    files.sort(key=lambda path: path.name == BEFORE)
    for path in files:
        try:
            facts, tensors = _read(path)
        except BadFile as error:
            wrong.append(error.found)
            continue
        if facts["recipe"] != recipe:
            found = f"{path} belongs to another recipe (hash {facts['recipe'][:8]}, not {recipe[:8]})"
            raise Incompatible(found, "the recipe that the run was begun with", "use another --out, or --overwrite")
        known = facts.get("images", {})
        changed = [what for what, found in (images or {}).items() if known.get(what, found) != found]
        if changed:
            found = f"{path}: the {' and '.join(changed)} images are not those that the run was begun with"
            remedy = "put them back, or begin anew: another --out, or --overwrite"
            raise Incompatible(found, "the same images in the same order", remedy)
        return Position(**facts["position"]), tensors, wrong
    if wrong:
        remedy = "begin anew with --overwrite, or put a copy of a checkpoint there"
        raise BadFile("; ".join(wrong), "a checkpoint of this run", remedy)
    return None


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    expected, remedy = "a checkpoint written by preimage train", "an older one is used if there is one"
    try:
        data = path.read_bytes()
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        facts = json.loads(header["__metadata__"]["preimage-checkpoint"])
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror}", expected, remedy) from None
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BadFile(f"{path} is damaged, or no checkpoint: {error}", expected, remedy) from None
    if facts["digest"] != digest(tensors):
        raise BadFile(f"{path} is damaged: its contents do not have the digest it names", expected, remedy)
    return facts, tensors


def digest(tensors: Mapping[str, Tensor]) -> str:
    """BLAKE2b over names and values, whatever file they are in."""
    whole = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        whole.update(name.encode())
        # A view as bytes, for NumPy knows no bfloat16.
        whole.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def optimiser_tensors(optimiser: Optimizer, prefix: str) -> dict[str, Tensor]:
    """The state of an optimiser as named tensors: moments, and its count of steps."""
    state: dict[int, dict[str, Any]] = optimiser.state_dict()["state"]
    return {
        f"{prefix}/{index}/{name}": torch.as_tensor(value)
        for index, values in state.items()
        for name, value in values.items()
        if value is not None
    }


def restore_optimiser(optimiser: Optimizer, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Put back what `optimiser_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(f"{prefix}/"):
            index, key = name[len(prefix) + 1 :].split("/")
            state.setdefault(int(index), {})[key] = tensor
    whole = optimiser.state_dict()
    whole["state"] = state
    optimiser.load_state_dict(whole)
