"""Components made of trained weights: what a training loop needs of them, and what their weights were trained for."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from ._key import Key
from ._noise import Noise
from ._operator import ForwardOperator
from ._pipeline import ForwardModel
from ._plugins import discover
from ._prior import InvertibleMap
from ._problem import Problem
from ._tensors import Shape
from .errors import BadParameter, Incompatible, PreimageError
from .presets import agrees, spoken, with_defaults
from .weights import Weights, load_into, load_weights

__all__ = [
    "Adversaries",
    "Certified",
    "DataDependent",
    "HasDensity",
    "Inversion",
    "LearnedOperator",
    "Trained",
    "choose",
    "mismatches",
    "network_input",
    "restore",
]

_SAME = 1e-3


class Trained(ABC):
    """A solver or prior whose constructor takes `weights`, the tensors of a `network`.

    The network is a module class. The arguments of its constructor, plain values, are what a recipe's [model] says and
    what the header of the weights keeps as `config`.
    """

    network: ClassVar[type[nn.Module]]

    @classmethod
    def of(cls, network: nn.Module, in_shape: Shape) -> Any:
        """The component made of a network in memory, as it is now: later changes of the network do not reach it.

        Raises `Incompatible` where a component is made of weights in files alone.
        """
        raise Incompatible(f"{cls.__name__} is made of weights", "a file of weights", "export the network first")


class Inversion(NamedTuple):
    """What `LearnedOperator.invert` finds for a batch of codes.

    - `x`: the states, (B, ...). `bound`: on ||x - decode(z)|| for each, (B,), proved, rounding included; infinite where
      nothing can be proved.
    - `evaluations`: of how many residuals each took, (B,). `contraction`: the largest measured factor by which a step
      of the iteration was smaller than the one before, (B,).
    """

    x: Tensor
    bound: Tensor
    evaluations: Tensor
    contraction: Tensor


class LearnedOperator(InvertibleMap, Trained):
    """An invertible map trained for an operator F between images of one shape: y goes to x = project(decode(lift(y))).

    A state is some copies of an image: `lift` makes them, `project` takes their mean.

    - `trained`: its weights. `inverse_lipschitz`: a bound on the Lipschitz constant of decode, in the Euclidean norm.
    """

    trained: Weights
    inverse_lipschitz: float

    @abstractmethod
    def invert(self, z: Tensor, tolerance: float, certified: bool) -> Inversion:
        """The states of codes (B, *latent_shape) with ||x - decode(z)|| <= tolerance ||x||, each for itself.

        Certified, the inequality is proved by the bound; otherwise it is an estimate, and cheaper. Where the tolerance
        cannot be met in the precision of z the bound says how far it was.
        """


class Certified(nn.Module, ABC):
    """A network whose weights can be brought to where a property of theirs is proved."""

    @abstractmethod
    def certify(self, examples: Tensor) -> dict[str, Any]:
        """Change the weights, in place, so that the property holds; the proof, plain values for the header of a file.

        `examples` are what the network was given in training, some images: for what else is to be fitted to them.
        """


class DataDependent(nn.Module, ABC):
    """A network whose first weights are made for the data that it will be trained on.

    - `examples_wanted`: how many examples it asks for, at least.
    """

    examples_wanted: int = 16

    @abstractmethod
    def initialise(self, examples: Tensor) -> None:
        """Set weights, in place, from examples of what the network will be given; before the first step."""


class HasDensity(nn.Module, ABC):
    """A network that is a probability density over images."""

    @abstractmethod
    def log_density(self, images: Tensor) -> Tensor:
        """The natural logarithm of the density at each image: (B, C, H, W) -> (B,)."""


class Adversaries(nn.Module):
    """A `generator`, (B, latent) -> images in [0, 1], and a `discriminator`, images -> logits (B,), high if real."""

    generator: nn.Module
    discriminator: nn.Module
    latent: int


def network_input(problem: Problem) -> Tensor:
    """The image that a network from measurements to images is given.

    y itself where it has the shape of x, and else `Problem.start`: for a linear operator the scaled adjoint.
    """
    if problem.x0 is None and problem.operator.in_shape == problem.operator.out_shape:
        return problem.y
    return problem.start()


def choose(kind: str, name: str, operators: Sequence[Mapping[str, Any]], noise: Mapping[str, Any], where: str) -> str:
    """The name of the shipped weights that were trained for these tables: what `weights = "auto"` stands for.

    Raises `BadParameter` if there are none, with those there are.
    """
    given = [with_defaults("operator", table) for table in operators], with_defaults("noise", noise)
    there: dict[str, str] = {}
    for file in discover().weights:
        if file.component != f"{kind}/{name}":
            continue
        trained: Any = load_weights(file.name, file.component).facts.get("forward_model")
        if not isinstance(trained, dict):
            continue
        tables = cast("dict[str, Any]", trained)
        own, other = tables["operator"], tables["noise"]
        if len(own) == len(given[0]) and all(map(agrees, (*own, other), (*given[0], given[1]))):
            return file.name
        there[file.name] = spoken(own, other)
    found = f"{where}: {kind} {name!r} has no weights for {spoken(operators, noise)}"
    listed = "; ".join(f"{weights} for {meant}" for weights, meant in sorted(there.items()))
    remedy = "train your own and name the file, or name one of these and say allow_mismatch = true"
    raise BadParameter(found, listed or "none are installed", remedy)


def restore(weights: Weights, network: type[nn.Module]) -> nn.Module:
    """The network of these weights: float32, in evaluation mode, gradients off.

    Raises `Incompatible` if the header's config or the tensors are not those of this architecture.
    """
    try:
        with torch.random.fork_rng(devices=[]):  # what it draws is overwritten
            module = network(**weights.config)
    except (TypeError, PreimageError) as error:
        found = f"{weights.path} has the config {dict(weights.config)}: {error}"
        raise Incompatible(found, f"arguments of {network.__name__}", "name other weights") from None
    load_into(module, weights)
    return module.eval().requires_grad_(False)


def mismatches(weights: Weights, operator: ForwardOperator, noise: Noise) -> list[Incompatible]:
    """In what an operator and a noise model are not those that the weights were trained for.

    They are compared by what they do to one random image, so it does not matter how they came about; operators drawn
    for each image, and noise on the measurements of another operator, by their types alone. The fact `forward_model`
    of the header has the tables they were trained with.
    """
    tables: Any = weights.facts.get("forward_model")
    if not isinstance(tables, dict):
        text = f"{weights.path.name} does not say which operator and noise it was trained for"
        return [Incompatible(text, "a header with forward_model", "train and export it again")]
    wanted = cast("dict[str, Any]", tables)
    try:
        own = ForwardModel.from_tables(wanted, operator.in_shape, str(weights.path))
        trained = own.operator_for(["example"])
    except PreimageError as error:
        text = f"the operator that {weights.path.name} was trained for cannot be made: {error.found}"
        return [Incompatible(text, error.expected, error.remedy)]
    meant = spoken(wanted["operator"], wanted["noise"])
    shipped = ", ".join(sorted(w.name for w in discover().weights if w.component == weights.component))
    remedy = f"name other weights ({shipped}), train your own, or say allow_mismatch = true"
    found: list[Incompatible] = []
    probe = Key(0).child("mismatch").uniform((1, *operator.in_shape))
    clean = probe if own.per_image else trained(probe)
    same = type(operator) is type(trained) if own.per_image else _same(operator, probe, clean)
    if not same:
        text = f"{weights.path.name} was trained for another operator than this {type(operator).__name__}"
        found.append(Incompatible(text, meant, remedy))
    key = Key(0).child("noise")
    ours, theirs = (n.sample(clean.to(_place(n)), key).cpu() - clean for n in (noise, own.noise))
    if type(noise) is not type(own.noise) or not _close(ours, theirs):
        text = f"{weights.path.name} was trained for another noise than this {type(noise).__name__}"
        found.append(Incompatible(text, meant, remedy))
    return found


def _same(operator: ForwardOperator, probe: Tensor, wanted: Tensor) -> bool:
    try:
        return _close(operator(probe.to(_place(operator))).cpu().to(wanted), wanted)
    except (RuntimeError, ValueError, PreimageError):  # one operator for each image of a batch takes no single one
        return False


def _place(module: nn.Module) -> Tensor:
    """A tensor of the module, whose device and dtype it works in."""
    tensors: list[Tensor] = [*module.parameters(), *module.buffers()]
    return next((t for t in tensors if t.is_floating_point()), torch.zeros(()))


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).square().sum() <= _SAME**2 * b.square().sum().clamp_min(1e-24))
