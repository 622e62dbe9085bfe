"""Any reconstructor of deepinv, or one made like it, as a solver."""

import copy
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from preimage import DirectSolver, ForwardOperator, Key, Noise, Prior, Problem
from preimage._parameters import unknown
from preimage.errors import BadParameter, Incompatible, PreimageError, ShapeMismatch, raise_all

from ._bridge import Bridge, LinearBridge
from ._deepinv import accepted, call, lookup, number, quiet
from ._isolation import isolated
from .to_noise import KeyedNoise
from .to_physics import as_physics

_NO_DOWNLOAD = (None, False)


@dataclass(frozen=True, kw_only=True)
class _Reconstructing(DirectSolver):
    operator_type: ClassVar[type[ForwardOperator]] = ForwardOperator
    noise_type: ClassVar[type[Noise]] = Noise
    prior_type: ClassVar[type[Prior] | None] = None

    needs_gradients: bool = False

    def model(self) -> nn.Module:
        """The reconstructor; what is done to a copy of it leaves no trace."""
        raise NotImplementedError

    def uses_start(self) -> bool:
        return False

    def invert(self, problem: Problem, keys: Sequence[Key]) -> Tensor:
        model = self.model()
        return torch.cat([self._image(model, problem, i, key) for i, key in enumerate(keys)])

    def _image(self, model: nn.Module, problem: Problem, index: int, key: Key) -> Tensor:
        one = problem.rows(torch.tensor([index], device=problem.y.device))
        name = type(model).__name__
        try:
            with isolated(one.y, number(key)), torch.set_grad_enabled(self.needs_gradients):
                own = copy.deepcopy(model).to(one.y.device, one.y.dtype)
                found = own(one.y, _physics(one.operator, one.noise, key))
        except (PreimageError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # deepinv lets errors of torch and others through
            said = " ".join(str(error).split())[:300]
            raise Incompatible(
                f"deepinv's {name} failed: {type(error).__name__}: {said}",
                "a reconstructor that suits the operator and the shape of the image",
                "needs_gradients = true for one that differentiates inside" if "grad" in said else "",
            ) from error
        if not isinstance(found, Tensor) or tuple(found.shape) != (1, *one.operator.in_shape):
            shape = tuple(found.shape[1:]) if isinstance(found, Tensor) else type(found).__name__
            raise ShapeMismatch(f"deepinv's {name} gives {shape}", f"one image of shape {one.operator.in_shape}")
        return found.detach().to(one.y)

    def criterion(self, problem: Problem, state: Tensor) -> str:
        return "deepinv's reconstructor came to its end"


@dataclass(frozen=True, kw_only=True)
class ReconstructorSolver(_Reconstructing):
    """A reconstructor of deepinv, called as reconstructor(y, physics), given as a Python object.

    - `reconstructor`: an instance of deepinv's Reconstructor.
    - `needs_gradients`: True for one that differentiates without saying so to torch; False by default, which saves the
      memory for the graph. (deepinv's deep image prior does say so.)

    It runs in the mode that it is in: `.eval()` first for a network with dropout or batch normalisation. Each image is
    given to a copy of the object, alone, with the global generators started from the image's key; the object itself and
    the generators stay as they are. The operator is handed over by `as_physics`, with the noise; one of this
    distribution as deepinv's own object, for some reconstructors ask for its class. Takes no prior: what it knows of
    images is inside. Raises `Incompatible` for another object, and, with its own words, if it fails.
    """

    reconstructor: Any

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.reconstructor, lookup("models.Reconstructor")):
            found = f"{type(self.reconstructor).__name__} is no reconstructor of deepinv"
            raise Incompatible(found, "an instance of deepinv.models.Reconstructor")

    def model(self) -> nn.Module:
        return self.reconstructor


@dataclass(frozen=True, kw_only=True)
class NamedReconstructor(_Reconstructing):
    """A reconstructor of deepinv by where it is, made with arguments from a file. See `ReconstructorSolver`.

    - `target`: "package.module:Class", such as "deepinv.models:WienerDeconvolution", or a function that gives one.
    - `arguments`: of its constructor, by name: numbers, texts, booleans, lists. Names that it does not have are
      refused (deepinv takes them without a word).
    - `allow_download`: False by default: a class with published weights is refused unless `arguments` has
      pretrained = "PATH" to a file, or null for none.
    - `needs_gradients`: as for `ReconstructorSolver`; True also leaves it in training mode.

    Raises `BadParameter` for a target that is not there or arguments that do not fit, and at the start of a run what
    making it raises.
    """

    target: str
    arguments: dict[str, Any] | None = None
    allow_download: bool = False

    def __post_init__(self):
        super().__post_init__()
        make = resolve(self.target)
        check_arguments(make, self.arguments or {}, self.target)
        if not self.allow_download:
            check_download(make, self.arguments or {}, self.target)

    def model(self) -> nn.Module:
        values = json.loads(json.dumps(self.arguments or {}))
        made = call(self.target, resolve(self.target), values, Key(0).child("deepinv", self.target))
        found: nn.Module = ReconstructorSolver(reconstructor=made).reconstructor
        return found.train(self.needs_gradients)


def _physics(operator: ForwardOperator, noise: Noise, key: Key) -> Any:
    """The operator for a reconstructor, some of which ask for a class of deepinv's: an operator that is one of
    deepinv's physics in the same representation is handed over as that."""
    if not isinstance(operator, Bridge) or type(operator).apply_physics is not Bridge.apply_physics:
        return as_physics(operator, noise, key=key)
    if isinstance(operator, LinearBridge) and type(operator).apply_adjoint is not LinearBridge.apply_adjoint:
        return as_physics(operator, noise, key=key)
    physics = copy.deepcopy(operator.physics)
    physics.set_noise_model(KeyedNoise(noise, key))
    return physics


def resolve(target: str) -> Callable[..., Any]:
    """The class or function at "package.module:name". Raises `BadParameter` if there is none."""
    module, _, name = target.partition(":")
    try:
        with quiet():
            found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        example = 'target = "deepinv.models:WienerDeconvolution"'
        raise BadParameter(f"target is {target!r}: {error}", "package.module:Class", f"write {example}, say") from None
    if not callable(found):
        raise BadParameter(f"target {target!r} is {found!r}", "a class, or a function that gives a reconstructor")
    return found


def check_arguments(make: Callable[..., Any], arguments: Mapping[str, Any], what: str) -> None:
    """Raise `BadParameter` for names that a constructor of deepinv does not have, or lacks.

    deepinv's classes take any name, and drop those that they do not know: `PGD(stepsizee=1.0)` runs with stepsize 1.
    """
    known = accepted(make)
    known.discard("self")
    found: list[PreimageError] = [
        unknown(name, known, f"{what} does not take") for name in arguments if name not in known
    ]
    signature = inspect.signature(make).parameters.values()
    needed = [p.name for p in signature if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    missing = [name for name in needed if name not in arguments]
    found += [BadParameter(f"{what} has no {name}", f"a value for {name}", f"add {name}") for name in missing]
    raise_all(f"{what} cannot be made", found)


def check_download(make: Callable[..., Any], arguments: Mapping[str, Any], what: str) -> None:
    """Raise `BadParameter` if a class of deepinv would download weights with these arguments."""
    parameter = inspect.signature(make).parameters.get("pretrained")
    if parameter is None:
        return
    value = arguments.get("pretrained", parameter.default)
    if value in _NO_DOWNLOAD or (isinstance(value, str) and Path(value).is_file()):
        return
    raise BadParameter(
        f"{what} would download weights (pretrained = {value!r})",
        "pretrained: the path of a weights file, or null for none",
        "set it in arguments, or allow_download = true",
    )


def checked(make: Callable[..., Any], **arguments: Any) -> Any:
    """`make(**arguments)` for a class of deepinv, after checking that it has arguments of these names: a misspelt one
    raises `BadParameter` with the name that was meant, where deepinv drops it without a word."""
    what = f"{make.__module__}.{make.__qualname__}"
    check_arguments(make, arguments, what)
    return call(what, make, arguments)
