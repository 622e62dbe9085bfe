"""What the studies of learned operators share: which weights, which images, and what is measured on them."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from preimage_data import psnr
from torch import Tensor

from preimage import Dataset, ForwardModel, Shape, load, names
from preimage._plugins import discover
from preimage.assembly import construct
from preimage.errors import BadParameter, Incompatible, PreimageError, raise_all
from preimage.presets import agrees, spoken, with_defaults
from preimage.trained import LearnedOperator
from preimage.weights import Weights, load_weights

from .progress import Values
from .study import Study

PHOTOGRAPHS: dict[str, Any] = {"name": "photographs", "size": 96}
_BATCH = 8


class Cell(NamedTuple):
    """What weights are looked for: of an operator, Gaussian noise `sigma`, and Lip(phi^-1) <= 1 / (1 - bound)."""

    operator: Mapping[str, Any]
    sigma: float
    bound: float

    def __str__(self) -> str:
        return f"{self.operator['name']}, noise {self.sigma:g}, L = {self.bound:g}"


class Learned(NamedTuple):
    """A learned operator, and the name and digest of its weights."""

    prior: LearnedOperator
    name: str
    digest: str


@dataclass(frozen=True)
class Images:
    """Images x (B, C, H, W) with their labels; `digest` is SHA-256 of both."""

    x: Tensor
    labels: Sequence[str]
    digest: str


@dataclass(frozen=True, kw_only=True)
class LearnedOperatorStudy(Study):
    """A study of invertible operators phi that were trained for F(x) + noise (`preimage.trained.LearnedOperator`).

    - `prior`: the component whose weights are studied. `weights`: names or files of them; without any, all that ship.
      Which are trained for what stands in their headers.
    - `operators`: names, or tables with a name and arguments.
    - `data`: the table of a data set, by default {name = "photographs", size = 96}, which needs no files; `count`:
      its first so many images.
    - `seed`: of the noise, drawn for each image by its label: every operator, noise level and network sees the same.
    - `tolerance`: of the inverse, relative to the norm of the state, met as an estimate.
    - `device`: where it is computed.

    Raises `BadParameter` for a number out of its range, and when it runs `BadParameter` naming every combination that
    no weights are there for, `Incompatible` if the prior is not a learned operator, and as the data set.
    """

    prior: str = "iresnet"
    weights: tuple[str, ...] = ()
    operators: tuple[str | dict[str, Any], ...] = ("perona-malik", "gaussian-blur")
    data: dict[str, Any] | None = None
    count: int = 32
    seed: int = 0
    tolerance: float = 1e-4
    device: str = "cpu"

    def __post_init__(self):
        if not self.operators:
            raise BadParameter("operators is empty", "at least one operator", 'use operators = ["perona-malik"]')
        for operator in self.operators:
            if not isinstance(operator, str) and not isinstance(operator.get("name"), str):
                raise BadParameter(f"operators has {operator!r}", "a name, or a table with a name and arguments")
        if self.data is not None and not isinstance(self.data.get("name"), str):
            raise BadParameter(f"data is {self.data!r}", "a table with a name", 'use data = {name = "photographs"}')
        if self.count < 1:
            raise BadParameter(f"count is {self.count}", "an integer >= 1")
        if not 0 < self.tolerance < 1:
            raise BadParameter(f"tolerance is {self.tolerance}", "a number in (0, 1)", "use 1e-4")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise BadParameter(f"device is {self.device!r}: {reason}", "a device of this machine", "use cpu") from None

    def tables(self) -> list[dict[str, Any]]:
        """The operators as tables, defaults filled in."""
        return [with_defaults("operator", {"name": o} if isinstance(o, str) else o) for o in self.operators]

    def images(self) -> Images:
        """The images that are looked at."""
        values = dict(self.data or PHOTOGRAPHS)
        dataset: Dataset = construct("dataset", values.pop("name"), values, "data")
        positions = range(min(self.count, len(dataset)))
        labels = [dataset.label(index) for index in positions]
        x = torch.stack([dataset[index] for index in positions])
        digest = hashlib.sha256("\n".join(labels).encode() + x.contiguous().numpy().tobytes())
        return Images(x.to(self.device), labels, digest.hexdigest())

    def forward_model(self, operator: Mapping[str, Any], sigma: float, shape: Shape) -> ForwardModel:
        """y = F(x) + sigma n."""
        tables = {"operator": dict(operator), "noise": {"name": "gaussian", "sigma": sigma}}
        given = {"seed": self.seed, "device": self.device}
        return ForwardModel.from_tables(tables | given, shape, "study")

    def find(self, cells: Sequence[Cell], shape: Shape) -> dict[int, Learned]:
        """The learned operator of each cell, by its position, for images of a shape."""
        shelf = Shelf(self.prior, self.weights, shape, self.device)
        found = {index: shelf.find(cell) for index, cell in enumerate(cells)}
        missing = [str(cells[index]) for index, learned in found.items() if learned is None]
        if missing:
            text = f"prior {self.prior!r} has no weights for {'; '.join(missing)}"
            there = "; ".join(shelf.described()) or "none are installed"
            remedy = "train them and name the files in weights, or narrow the study to what is there"
            raise BadParameter(text, f"weights for each combination; there are: {there}", remedy)
        return {index: learned for index, learned in found.items() if learned is not None}

    def inputs(self, learned: Learned, images: Images, forward: ForwardModel) -> dict[str, Any]:
        """What the numbers of a cell depend on."""
        facts = {"weights": learned.digest, "images": images.digest, "tolerance": self.tolerance}
        return facts | {key: forward.config[key] for key in ("operator", "noise", "seed", "device")}

    def parts(self) -> dict[str, Any]:
        """The parts whose versions matter."""
        data = self.data or PHOTOGRAPHS
        return {"operator": self.tables(), "noise": {"name": "gaussian"}, "prior": {"name": self.prior}, "data": data}

    def facts(self, images: Images, learned: Sequence[Learned]) -> dict[str, Any]:
        """What else repeats the study."""
        weights = {one.name: one.digest for one in learned}
        return {"weights": weights, "images": {"labels": list(images.labels), "digest": images.digest}}


class Shelf:
    """The weights of a learned operator, found by what they were trained for.

    Raises `Incompatible` if the prior is not a `LearnedOperator`, and as `load_weights`.
    """

    def __init__(self, prior: str, weights: Sequence[str], shape: Shape, device: str = "cpu"):
        self._prior, self._shape, self._device, self._named = prior, shape, device, bool(weights)
        if not issubclass(load("prior", prior), LearnedOperator):
            fitting = ", ".join(_learned_operators()) or "none installed"
            raise Incompatible(
                f"prior {prior!r} is not a learned operator", "one that is", f"priors that are: {fitting}"
            )
        component = f"prior/{prior}"
        shipped = [file.name for file in discover().weights if file.component == component]
        read = [(name, load_weights(name, component)) for name in weights or shipped]
        wrong = [
            BadParameter(
                f"{name} does not say which operator and noise it was trained for", "a header with forward_model"
            )
            for name, one in read
            if weights and not isinstance(one.facts.get("forward_model"), dict)
        ]
        raise_all("the weights cannot be studied", wrong)
        self._read = [(name, one) for name, one in read if isinstance(one.facts.get("forward_model"), dict)]
        self._made: dict[str, LearnedOperator] = {}

    def find(self, cell: Cell) -> Learned | None:
        """The learned operator for a cell; of several that ship the first, which "auto" takes in a pipeline.

        Raises `BadParameter` if two that were named are for it.
        """
        found: list[Learned] = []
        for name, weights in self._read:
            tables = cast("dict[str, Any]", weights.facts["forward_model"])
            noise = {"name": "gaussian", "sigma": cell.sigma}
            if len(tables["operator"]) != 1 or not agrees(tables["operator"][0], cell.operator):
                continue
            if agrees(noise, tables["noise"]) and _same_bound(self._lipschitz(name, weights), cell.bound):
                found.append(Learned(self._make(name, weights), name, weights.digest))
        if len(found) > 1 and self._named:
            both = " and ".join(one.name for one in found)
            raise BadParameter(f"{both} are both for {cell}", "one file for each combination", "name one of them")
        return found[0] if found else None

    def described(self) -> list[str]:
        """One phrase for each of the weights."""
        return [
            f"{name} for {spoken(tables['operator'], tables['noise'])}, L = {self._lipschitz(name, weights):g}"
            for name, weights in self._read
            for tables in (cast("dict[str, Any]", weights.facts["forward_model"]),)
        ]

    def _make(self, name: str, weights: Weights) -> LearnedOperator:
        if name not in self._made:
            made = construct(
                "prior", self._prior, {"weights": str(weights.path)}, f"prior {self._prior!r}", in_shape=self._shape
            )
            self._made[name] = made.to(self._device).eval()
        return self._made[name]

    def _lipschitz(self, name: str, weights: Weights) -> float:
        return 1 - 1 / self._make(name, weights).inverse_lipschitz


def measure(learned: Learned, forward: ForwardModel, images: Images, tolerance: float) -> Values:
    """Everything that the studies report, for each image; see `LearnedOperatorStudy` for the notation.

    With u(z) = phi^-1(z) on states, P the projection to images and E the lift of images to states (`InvertibleMap`),
    rms the root of the mean square over pixels (and channels of a state):

    - `psnr`, `data_psnr`: of P u(E y) and of y, in dB. `gain`: their difference.
    - `inversion_error`: rms(P u(E y) - x). `data_error`: rms(y - x).
    - `exact_inversion_error`: rms(P u(E F(x)) - x): what is left without noise.
    - `state_error`: rms(u(E y) - E x), over all channels.
    - `noise_effect`: rms(u(E y) - u(E F(x))), and `noise_bound`, what it is below: rms(y - F(x)) / (1 - L).
    - `operator_error`: rms(P phi(E x) - F(x)). `identity_error`: rms(x - F(x)).
    - `channel_spread`: rms(phi(E x) - E P phi(E x)): how far the copies of an image come apart.
    - `evaluations`: of residuals, to invert E y.
    """
    found: Values = {}
    for values in _batches(learned, forward, images, tolerance):
        for name, value in values.items():
            found.setdefault(name, []).extend(value.double().tolist())
    return found


@torch.no_grad()
def _batches(learned: Learned, forward: ForwardModel, images: Images, tolerance: float) -> Iterator[dict[str, Tensor]]:
    prior = learned.prior
    for start in range(0, len(images.labels), _BATCH):
        x, labels = images.x[start : start + _BATCH], images.labels[start : start + _BATCH]
        clean, y = forward.operator_for(labels)(x), forward.simulate(x, labels)
        if y.shape != x.shape:
            found = f"the operator makes measurements of shape {tuple(y.shape[1:])} of images {tuple(x.shape[1:])}"
            raise Incompatible(found, "an operator between images of one shape", "choose another operator")
        noisy = prior.invert(prior.lift(y), tolerance, certified=False)
        exact = prior.invert(prior.lift(clean), tolerance, certified=False)
        restored, code = prior.project(noisy.x), prior.encode(prior.lift(x))
        phi = prior.project(code)
        yield {
            "psnr": psnr(restored, x),
            "data_psnr": psnr(y, x),
            "gain": psnr(restored, x) - psnr(y, x),
            "inversion_error": rms(restored - x),
            "data_error": rms(y - x),
            "exact_inversion_error": rms(prior.project(exact.x) - x),
            "state_error": rms(noisy.x - prior.lift(x)),
            "noise_effect": rms(noisy.x - exact.x),
            "noise_bound": rms(y - clean) * prior.inverse_lipschitz,
            "operator_error": rms(phi - clean),
            "identity_error": rms(x - clean),
            "channel_spread": rms(code - prior.lift(phi)),
            "evaluations": noisy.evaluations,
        }


def rms(images: Tensor) -> Tensor:
    """The root of the mean square of each image, float64: (B, ...) -> (B,)."""
    return images.double().square().flatten(1).mean(1).sqrt()


def _same_bound(a: float, b: float) -> bool:
    return math.isclose(1 - a, 1 - b, rel_tol=1e-3)


def _learned_operators() -> list[str]:
    found: list[str] = []
    for name in names("prior"):
        try:
            if issubclass(load("prior", name), LearnedOperator):
                found.append(name)
        except PreimageError:
            continue
    return found
