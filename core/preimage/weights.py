"""Trained and fitted weights: safetensors files whose header says what they are. Nothing is ever unpickled.

The header's entry "preimage" is JSON: `component` ("prior/flow"), `config` (its constructor's arguments), and facts
about where the weights come from (data and their terms, recipe, scores, versions).
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ._parameters import unknown, weights_parameters
from ._plugins import WeightsFile, discover, resource
from ._provenance import component_tables
from ._registry import load as load_class
from .errors import BadFile, Incompatible, PreimageError

__all__ = ["Weights", "WeightsFile", "WeightsName", "digests", "find", "load_into", "load_weights", "save_weights"]

WeightsName = Annotated[str, WeightsFile]
"""Annotation of a constructor parameter that names weights: a name that a plugin ships, or a path to a file.

Those of another component are `Annotated[str, WeightsFile, "prior/flow"]`.
"""

_FILE = "a safetensors file written by preimage"


@dataclass(frozen=True)
class Weights:
    """What a weights file holds. `facts` is the header without component and config; `digest` the file's SHA-256."""

    path: Path
    component: str
    config: Mapping[str, Any]
    facts: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    digest: str


def save_weights(
    path: Path, tensors: Mapping[str, Tensor], *, component: str, config: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """Write weights whole or not at all. Raises `BadFile` if the file cannot be written."""
    header = {"preimage": json.dumps({"component": component, "config": dict(config), **facts}, sort_keys=True)}
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, header)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        found = f"{path} cannot be written: {error.strerror}"
        raise BadFile(found, "a folder with room, that may be written to", "choose another place") from None


def find(component: str, name: str) -> Path:
    """The file of the weights with this name for a component ("prior/flow"): shipped by a plugin, or a path.

    Raises `BadFile` if there is none, with the names there are.
    """
    shipped = {w.name: w.target for w in discover().weights if w.component == component}
    if name in shipped:
        return resource(shipped[name])
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix or len(path.parts) > 1:
        raise BadFile(f"there is no file {name}", _FILE, f"check the path, or use one of: {', '.join(sorted(shipped))}")
    error = unknown(name, shipped, f"{component} has no weights")
    raise BadFile(error.found, f"{error.expected}, or a path to a file", error.remedy)


def load_weights(name: str, component: str) -> Weights:
    """Read the weights of a component by name or path, strictly.

    Raises `BadFile` if the file is missing, damaged, a pickle or without our header, `Incompatible` if it belongs to
    another component.
    """
    path = find(component, name)
    try:
        data = path.read_bytes()
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        header = cast("dict[str, Any]", json.loads(data[8 : 8 + length])).get("__metadata__", {})
        facts = cast("dict[str, Any]", json.loads(header["preimage"]))
        owner, config = str(facts.pop("component")), cast("dict[str, Any]", facts.pop("config"))
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror}", _FILE, "check its permissions") from None
    except KeyError as error:
        raise BadFile(f"{path} has no {error.args[0]!r} in its header", _FILE, "export it again") from None
    except (SafetensorError, ValueError, TypeError, AttributeError) as error:
        pickled = path.suffix in (".pt", ".pth", ".ckpt", ".pkl")
        remedy = "convert it: pickles can run any code, and are never loaded" if pickled else "export or copy it again"
        raise BadFile(f"{path} is damaged, or no safetensors file: {error}", _FILE, remedy) from None
    if owner != component:
        raise Incompatible(f"{path} has the weights of {owner}", f"weights of {component}", "name another file")
    return Weights(path, owner, config, facts, tensors, hashlib.sha256(data).hexdigest())


def load_into(module: nn.Module, weights: Weights) -> None:
    """Copy weights into a module of exactly the same names and shapes. Raises `Incompatible` naming what differs."""
    own = module.state_dict()
    wrong = [f"no {name}" for name in own if name not in weights.tensors]
    wrong += [f"unknown {name}" for name in weights.tensors if name not in own]
    for name, tensor in weights.tensors.items():
        if name in own and tensor.shape != own[name].shape:
            wrong.append(f"{name} of shape {tuple(tensor.shape)} for {tuple(own[name].shape)}")
        elif not bool(torch.isfinite(tensor.float()).all()):
            wrong.append(f"{name} with NaN or infinity")
    if wrong:
        listed = ", ".join(wrong[:4]) + (f" and {len(wrong) - 4} more" if len(wrong) > 4 else "")
        found = f"{weights.path} does not fit {type(module).__name__}: {listed}"
        raise Incompatible(found, f"the {len(own)} tensors of this architecture", "build it with the header's config")
    module.load_state_dict(dict(weights.tensors))


def digests(config: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of every weights file that a resolved pipeline configuration names: {"prior.weights": "..."}."""
    found: dict[str, str] = {}
    for place, kind, table in component_tables(config):
        try:
            cls = load_class(kind, table["name"])
        except PreimageError:
            continue
        for parameter, owner in weights_parameters(cls).items():
            given: Any = table.get(parameter, ())
            several = {f".{index}": name for index, name in enumerate(given)}
            for place_of, name in ({"": given} if isinstance(given, str) else several).items():
                path = find(owner or f"{kind}/{table['name']}", name)
                found[f"{place}.{parameter}{place_of}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
