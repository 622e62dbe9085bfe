"""Weights of deepinv's networks: from a file or folder of the user's, downloaded only when that is asked for.

Files of PyTorch are read with `weights_only`, which admits tensors and plain containers, and no code.
"""

import os
import pickle
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from preimage.errors import BadFile, BadParameter, Incompatible

from ._deepinv import quiet

FOLDER = "PREIMAGE_DEEPINV_WEIGHTS"
"""The environment variable that names the folder with weights files, under the names deepinv gives them."""

PRETRAINED, UNTRAINED = "pretrained", "untrained"

_NESTED = ("state_dict", "params_ema", "params")
_KIND = "a file of tensors written by torch.save or safetensors"


@dataclass(frozen=True)
class Published:
    """Weights that deepinv's authors, or those of the network, publish: the name of the file, and where it is."""

    file: str
    url: str

    @classmethod
    def by_deepinv(cls, repository: str, file: str) -> "Published":
        """A file in one of deepinv's repositories of weights."""
        return cls(file, f"https://huggingface.co/deepinv/{repository}/resolve/main/{file}?download=true")


def folders() -> list[Path]:
    """Where weights files are looked for: the folder of the setting, then the one that deepinv itself downloads to."""
    chosen = os.environ.get(FOLDER)
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    return [*([Path(chosen)] if chosen else []), cache]


def find(component: str, weights: str, published: Published | None, allow_download: bool) -> Path:
    """The file of these weights.

    - `weights`: a path, or "pretrained" for the published ones.

    Raises `BadFile` if it is not there, saying which file to put where, or if a download that was allowed fails;
    `BadParameter` if nothing is published for the network's parameters.
    """
    if weights != PRETRAINED:
        path = Path(weights)
        if path.is_file():
            return path
        expected = f'{_KIND}, or "{PRETRAINED}"' if published else _KIND
        raise BadFile(f"there is no file {weights}, the weights of {component}", expected, "check the path")
    if published is None:
        raise BadParameter(
            f"no weights are published for {component} with these parameters and this number of channels",
            "the parameters of published weights (the defaults), or weights of your own",
            'name a file: weights = "PATH"',
        )
    for folder in folders():
        if (folder / published.file).is_file():
            return folder / published.file
    target = folders()[0] / published.file
    if not allow_download:
        state = f"which {FOLDER} names" if os.environ.get(FOLDER) else f"or in one that you name by {FOLDER}"
        raise BadFile(
            f"the weights of {component} are not on this machine",
            f"the file {published.file} in the folder {target.parent}, {state}",
            f"fetch {published.url} and put it there, or set allow_download = true",
        )
    return _download(published, target)


def _download(published: Published, target: Path) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(published.url, str(target), progress=False)
    except (urllib.error.URLError, OSError) as error:
        raise BadFile(
            f"{published.url} could not be downloaded to {target}: {error}",
            "a connection to the internet and a folder that may be written to",
            f"fetch it on another machine and put it into {target.parent}",
        ) from None
    return target


def read(path: Path) -> Mapping[str, Tensor]:
    """The tensors in a file. Raises `BadFile` if it is damaged or holds anything but tensors."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with quiet():
            found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        remedy = "save its state_dict alone: files with other objects can run any code, and are never loaded"
        raise BadFile(f"{path} is damaged, or holds more than tensors", _KIND, remedy) from None
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadFile(f"{path} cannot be read: {reason}", _KIND, "copy or fetch it again") from None
    for name in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
            break
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise BadFile(f"{path} holds no table of named tensors", _KIND, "save the network's state_dict alone")
    return cast("Mapping[str, Tensor]", found)


def load_into(network: nn.Module, path: Path, component: str) -> None:
    """Copy the tensors of a file into a network that has exactly these. Raises `BadFile`, or `Incompatible` naming
    what differs."""
    tensors, own = read(path), network.state_dict()
    wrong = [f"no {name}" for name in own if name not in tensors]
    wrong += [f"unknown {name}" for name in tensors if name not in own]
    wrong += [
        f"{name} of shape {tuple(tensors[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    wrong += [f"{name} with NaN or infinity" for name, t in tensors.items() if not bool(torch.isfinite(t).all())]
    if wrong:
        listed = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        expected = f"the {len(own)} tensors of this network"
        raise Incompatible(
            f"{path} does not fit {component}: {listed}", expected, "give the parameters it was trained with"
        )
    network.load_state_dict(dict(tensors))
