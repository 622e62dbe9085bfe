"""The one door to deepinv: versions, missing packages, misspelt arguments, global seeds and warnings are dealt with
here."""

import importlib.metadata
import inspect
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from io import StringIO
from typing import Any, TypeVar

import torch

from preimage import Key
from preimage.errors import BadParameter, BrokenPlugin, NotInstalled, PreimageError

TESTED = ">=0.5,<0.6"
"""The versions of deepinv that this bridge was tested with; as in the distribution's requirements."""

T = TypeVar("T")


def version() -> str:
    """The version of deepinv that is installed."""
    return importlib.metadata.version("deepinv")


def is_tested(found: str) -> bool:
    """Whether this version of deepinv is one that the bridge was tested with."""
    return found.split(".")[:2] == ["0", "5"]


def changed(what: str) -> BrokenPlugin:
    """The error for something that deepinv does not have, or takes, any more."""
    found = version()
    remedy = (
        f"pip install 'deepinv{TESTED}'"
        if not is_tested(found)
        else "report it: this version of deepinv was tested with this bridge"
    )
    return BrokenPlugin(f"deepinv {found} {what}", f"deepinv{TESTED}, which preimage-deepinv was tested with", remedy)


def lookup(path: str) -> Any:
    """The object at "physics.Blur" or "physics.functional.gaussian_blur" of the package deepinv.

    Raises `BrokenPlugin`, naming the version that was found, if deepinv has no such thing.
    """
    module, _, name = path.rpartition(".")
    with quiet():
        try:
            return getattr(import_module(f"deepinv.{module}"), name)
        except (ImportError, AttributeError) as error:
            raise changed(f"has no deepinv.{path}") from error


def build(path: str, *, seed: Key | None = None, **arguments: Any) -> Any:
    """deepinv's object at `path`, made with these arguments.

    deepinv takes arguments that it does not know, and drops them; here they are looked for in its signatures first.
    Whatever it draws from torch's global generator comes from `seed` instead, and the global state is as before.

    Raises `BrokenPlugin` if the class or one of the arguments is not in this deepinv, `NotInstalled` if it asks for a
    package that is missing, `BadParameter` with deepinv's own words if it refuses the values.
    """
    return call(path, lookup(path), arguments, seed)


def call(what: str, function: Callable[..., T], arguments: Mapping[str, Any], seed: Key | None = None) -> T:
    """`build` for a class or function at hand."""
    known = accepted(function)
    for name in arguments:
        if name not in known:
            raise changed(f"has no argument {name!r} in deepinv.{what}")

    def run() -> T:
        with seeded(seed):
            return function(**arguments)

    return refused(f"{what.rpartition('.')[2]} cannot be made with {_spoken(arguments) or 'its defaults'}", run)


def refused(complaint: str, function: Callable[[], T]) -> T:
    """What the function returns; what deepinv raises becomes an error of ours that begins with the complaint."""
    try:
        with quiet():
            return function()
    except PreimageError:
        raise
    except ImportError as error:
        raise missing(complaint, error) from error
    except Exception as error:  # deepinv raises AssertionError, RuntimeError, IndexError and others for bad values
        said = " ".join(str(error).split()) or type(error).__name__
        raise BadParameter(
            f"deepinv {version()}: {complaint}: {said}",
            "parameters that fit each other and the shape of the images",
            "preimage show lists the parameters",
        ) from error


def missing(complaint: str, error: ImportError) -> NotInstalled:
    """The error for a package that one of deepinv's physics asks for when it is made."""
    package = next((p for name, p in PACKAGES.items() if complaint.startswith(name)), error.name or "a package")
    return NotInstalled(
        f"deepinv {version()}: {complaint}: it needs the package {package}, which is not installed",
        f"{package}, or another operator",
        f"pip install '{package}'",
    )


PACKAGES = {
    "MultiCoilMRI": "sigpy",
    "NonCartesianMRI": "mri-nufft[finufft]",
    "RadioInterferometry": "torchkbnufft",
    "PET": "parallelproj",
    "TomographyWithAstra": "astra-toolbox",
}
"""Packages that deepinv imports when one of these physics is made."""


def accepted(function: Callable[..., Any]) -> set[str]:
    """The names of the arguments that a constructor hands on or uses, those of its base classes included."""
    classes = function.__mro__ if isinstance(function, type) else (function,)
    names: set[str] = set()
    for each in classes:
        if each.__module__.startswith("torch") or each is object:
            break
        own = inspect.signature(each.__init__ if isinstance(each, type) else each).parameters.values()
        names |= {p.name for p in own if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in own):
            break
    return names


@contextmanager
def quiet() -> Generator[None, None, None]:
    """Without deepinv's warnings and prints: what matters in them is an error of ours, or documented."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def seeded(key: Key | None) -> Generator[None, None, None]:
    """torch's global generator started from a key, and put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0 if key is None else number(key))
        yield


def number(key: Key) -> int:
    """A seed for torch's generator, of which that generator uses 64 bits."""
    return int(key.generator().integers(2**63))


def generator(key: Key) -> torch.Generator:
    """A generator of torch on the CPU, started from a key."""
    return torch.Generator().manual_seed(number(key))


def _spoken(arguments: Mapping[str, Any]) -> str:
    hidden = (torch.Tensor, torch.Generator, torch.nn.Module)
    return ", ".join(f"{n} = {v!r}" for n, v in arguments.items() if not isinstance(v, hidden) and n != "device")
