"""The small tables of a recipe: how batches are drawn, and how the network is optimised."""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

from preimage.errors import BadParameter

Precision = Literal["32-true", "bf16-mixed"]
"""As Lightning Fabric names them: what the network computes in. Measurements are simulated in float32."""


@dataclass(frozen=True, kw_only=True)
class Batches:
    """What a step sees: [batches].

    - `size`: images of all processes together. `crop`: side of random square crops in pixels; without it whole images.
    - `flips`: mirror the crop left to right with probability 1/2. `turns`: also one of the eight symmetries of the
      square, for images without an up and down; needs square crops or images.
    - `workers`: processes that prepare batches ahead; 0 does it in between.
    - `skip_unreadable`: go on without images that cannot be read, and name them, instead of refusing to start.
    """

    size: int = 8
    crop: int | None = None
    flips: bool = True
    turns: bool = False
    workers: int = 0
    skip_unreadable: bool = False

    def __post_init__(self):
        _at_least("batches.size", self.size, 1)
        _at_least("batches.workers", self.workers, 0)
        if self.crop is not None:
            _at_least("batches.crop", self.crop, 1)


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """How weights follow gradients: [optimiser].

    - `name`: "adam" (Kingma & Ba 2015), "adamw" (Loshchilov & Hutter 2019) or "sgd" (momentum `betas[0]`).
    - `learning_rate`: > 0, at the top of the schedule. `weight_decay`: >= 0.
    - `clip`: largest norm of the gradient; a longer one is scaled down to it. 0 for no limit.
    - `average`: decay of an exponential moving average of the weights, in [0, 1); validation and export then use the
      average. Over the first steps t it is at most (1 + t) / (10 + t). None for no average.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip: float = 0.2
    average: float | None = None

    def __post_init__(self):
        _above("optimiser.learning_rate", self.learning_rate)
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise BadParameter(f"optimiser.weight_decay is {self.weight_decay}", "a finite number >= 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise BadParameter(f"optimiser.betas is {list(self.betas)}", "two numbers in [0, 1)", "use [0.9, 0.99]")
        if not 0 <= self.clip < float("inf"):
            raise BadParameter(f"optimiser.clip is {self.clip}", "a finite number >= 0", "write 0 for no limit")
        if self.average is not None and not 0 <= self.average < 1:
            raise BadParameter(f"optimiser.average is {self.average}", "a number in [0, 1)", "use 0.999")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What multiplies the learning rate: [schedule].

    - "one-cycle": a linear rise over the fraction `warm_up` of the budget, then half a cosine down to `final`.
    - "cosine": the same without a rise. "constant": 1 throughout.
    - `restarts`: fractions of the budget at which the schedule begins anew, rising (warm restarts: Loshchilov and
      Hutter, "SGDR", ICLR 2017, with cycles of any length).
    """

    name: Literal["one-cycle", "cosine", "constant"] = "one-cycle"
    warm_up: float = 0.08
    final: float = 0.0
    restarts: tuple[float, ...] = ()

    def __post_init__(self):
        edges = (0.0, *self.restarts, 1.0)
        if not all(before < after for before, after in itertools.pairwise(edges)):
            raise BadParameter(f"schedule.restarts is {list(self.restarts)}", "rising numbers in (0, 1)")
        if not 0 <= self.warm_up < 1:
            raise BadParameter(f"schedule.warm_up is {self.warm_up}", "a fraction of the budget in [0, 1)")
        if not 0 <= self.final <= 1:
            raise BadParameter(f"schedule.final is {self.final}", "a number in [0, 1]")

    def factor(self, progress: float) -> float:
        """The factor after this fraction of the budget, in [0, 1]."""
        rise = self.warm_up if self.name == "one-cycle" else 0.0
        if self.name == "constant":
            return 1.0
        edges = (0.0, *self.restarts, 1.0)
        start, end = next(pair for pair in itertools.pairwise(edges) if progress < pair[1] or pair[1] == 1.0)
        progress = (progress - start) / (end - start)
        if progress < rise:
            return progress / rise
        fall = min(1.0, (progress - rise) / (1 - rise))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * fall))


@dataclass(frozen=True, kw_only=True)
class Budget:
    """When training ends: [budget], exactly one of steps, epochs or minutes.

    Minutes are of training alone, validation and breaks outside; a run measured in minutes cannot be repeated exactly.
    """

    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None

    def __post_init__(self):
        given = {n: v for n, v in {"steps": self.steps, "epochs": self.epochs, "minutes": self.minutes}.items() if v}
        if len(given) != 1 or not all(0 < value < float("inf") for value in given.values()):
            found = ", ".join(f"{n} = {v}" for n, v in given.items()) or "nothing above zero"
            raise BadParameter(
                f"budget has {found}", "exactly one of steps, epochs, minutes", "write steps = 5000, say"
            )

    def limit(self, images: int, batch: int) -> int | None:
        """The number of steps, or None if the budget is in minutes."""
        if self.epochs:
            return max(1, math.ceil(self.epochs * images / batch))
        return self.steps

    def progress(self, step: int, seconds: float, images: int, batch: int) -> float:
        """The fraction that is used up, in [0, 1]."""
        if self.minutes:
            return min(1.0, seconds / (60 * self.minutes))
        return min(1.0, step / (self.limit(images, batch) or 1))


@dataclass(frozen=True, kw_only=True)
class Validation:
    """How progress is judged: [validation], beside its `data`.

    - `every`: steps between two validations. `count`: of how many images at most.
    - `patience`: end training after so many validations without a better score; None never does.
    - `allow_copies`: train although validation images are among the training images (mirrored or re-encoded ones too).
    """

    every: int = 500
    count: int = 32
    patience: int | None = None
    allow_copies: bool = False

    def __post_init__(self):
        _at_least("validation.every", self.every, 1)
        _at_least("validation.count", self.count, 1)
        if self.patience is not None:
            _at_least("validation.patience", self.patience, 1)


@dataclass(frozen=True, kw_only=True)
class Export:
    """The weights file that training ends with: [export].

    - `name`: what it is called, when it ships. `dtype`: "float16" or "bfloat16" halve the file; what that costs in the
      validation score is measured and stands in the header. `terms`: of the data, such as "BSDS500: research use".
    """

    name: str = ""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    terms: str = ""


def _at_least(what: str, value: int, least: int) -> None:
    if value < least:
        raise BadParameter(f"{what} is {value}", f"an integer >= {least}")


def _above(what: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise BadParameter(f"{what} is {value}", "a finite number > 0")
