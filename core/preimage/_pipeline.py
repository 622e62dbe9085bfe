"""Pipelines: parts put together by name or from Python, checked before anything expensive, and run."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from torch import Tensor

from ._algebra import per_image_operator
from ._dataset import Dataset
from ._discrepancy import weight_by_discrepancy
from ._key import Key
from ._noise import Noise
from ._operator import ForwardOperator
from ._prior import Prior
from ._problem import Problem
from ._provenance import versions
from ._solver import Reconstruction, Solver, Status, misfits, solve
from ._tensors import Shape
from .errors import BadParameter, Diverged, Incompatible, PreimageError, raise_all
from .weights import digests


@dataclass(frozen=True, kw_only=True)
class ForwardModel:
    """What makes measurements from images: y = F(x) + noise.

    - `operator`: one operator for all images, or a function that draws one for an image from a `Key`.
    - `key`: of everything random.
    - `config`: the resolved TOML tables, defaults included, if it was assembled by name.
    """

    operator: ForwardOperator | Callable[[Key], ForwardOperator]
    noise: Noise
    key: Key = Key(0)
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any], shape: Shape, where: str = "forward model") -> "ForwardModel":
        """Assemble from the tables operator and noise (and seed, device, dtype) of a pipeline, for images of a shape.

        Raises one error of `preimage.errors`, or `SeveralProblems` with everything that is wrong.
        """
        from .assembly import forward_model

        return ForwardModel(**forward_model(tables, shape, where))

    @property
    def per_image(self) -> bool:
        """Whether every image has an operator of its own."""
        return not isinstance(self.operator, ForwardOperator)

    def operator_for(self, labels: Sequence[str]) -> ForwardOperator:
        """The operator for a batch of images with these labels."""
        if isinstance(self.operator, ForwardOperator):
            return self.operator
        return per_image_operator([self.operator(self.key.child("operator", label)) for label in labels])

    def simulate(self, x: Tensor, labels: Sequence[str] | None = None) -> Tensor:
        """Noisy measurements of clean images (B, *in_shape).

        Noise and per-image operators are drawn from the key and each image's label, so that they do not depend on its
        place in the batch. Labels default to the positions, "0", "1", ...
        """
        labels = _labels(labels, x)
        return self.noise.sample(self.operator_for(labels)(x), [self.key.child("noise", label) for label in labels])


@dataclass(frozen=True, kw_only=True)
class Start:
    """A solver, and a prior if it takes one, whose estimate is where a pipeline's own solver starts.

    - `weight`: of the prior, as in `Pipeline`.
    """

    solver: Solver[Any]
    prior: Prior | None = None
    weight: float | Literal["auto"] = 1.0


@dataclass(frozen=True, kw_only=True)
class Pipeline(ForwardModel):
    """An operator, a noise model, a prior and a solver that fit together, and the images they are meant for.

    - `operator`, `noise`, `key`, `config`: as in `ForwardModel`.
    - `weight`: multiplies the prior; "auto" chooses it for each image by the discrepancy principle, at the cost of
      about ten runs, and gives it back in `Reconstruction.details["weight"]`.
    - `start`: run first, on the same measurements; its estimate is `Problem.x0`.
    - `data`: images, if the pipeline names some.

    Raises `Incompatible` if the solver, or that of the start, does not accept the other parts.
    """

    solver: Solver[Any]
    prior: Prior | None = None
    weight: float | Literal["auto"] = 1.0
    start: Start | None = None
    data: Dataset | None = None
    observers: tuple[object, ...] = ()

    def __post_init__(self):
        example = self.operator_for(["example"]) if self.per_image else self.operator
        found: list[PreimageError] = [*misfits(self.solver, example, self.noise, self.prior)]
        if self.start is None:
            operator = cast(ForwardOperator, example)
            found += [] if found else self.solver.objections_to_start(operator, self.noise, self.prior)
        else:
            wrong = misfits(self.start.solver, example, self.noise, self.start.prior)
            found += [error.within("start") for error in wrong]
            if not self.solver.uses_start():
                text = f"there is a [start], from which {type(self.solver).__name__}, as it is here, does not begin"
                found.append(Incompatible(text, "a solver that begins at Problem.x0", "remove [start]"))
        raise_all("the pipeline does not fit together", found)

    @classmethod
    def from_file(
        cls, path: str | Path, overrides: Mapping[str, Any] | None = None, data: Dataset | None = None
    ) -> "Pipeline":
        """Assemble from a TOML file, some values replaced (`{"solver.max_steps": 50}`), the data too if given.

        Raises `BadFile` if the file cannot be read, and as `from_dict`.
        """
        from .assembly import read_toml

        return cls.from_dict(read_toml(Path(path)), where=str(path), overrides=overrides, data=data)

    @classmethod
    def from_dict(
        cls,
        tables: Mapping[str, Any],
        where: str = "pipeline",
        overrides: Mapping[str, Any] | None = None,
        data: Dataset | None = None,
    ) -> "Pipeline":
        """Assemble from tables as they stand in a TOML file.

        Raises one error of `preimage.errors`, or `SeveralProblems` with everything that is wrong.
        """
        from .assembly import assemble, with_overrides

        return cls(**assemble(with_overrides(tables, overrides or {}, where), where, data))

    def problem(self, y: Tensor, labels: Sequence[str] | None = None, x0: Tensor | None = None) -> Problem:
        """The inverse problem posed by measurements (B, *out_shape); with weight 1 if that is still to be chosen."""
        weight = 1.0 if self.weight == "auto" else self.weight
        return Problem(self.operator_for(_labels(labels, y)), y, self.noise, self.prior, weight, x0)

    def reconstruct(
        self,
        y: Tensor,
        labels: Sequence[str] | None = None,
        *,
        x0: Tensor | None = None,
        observers: Iterable[object] = (),
        throw: bool = True,
    ) -> Reconstruction:
        """Estimates from measurements (B, *out_shape); see `solve`. The provenance says how to repeat it.

        A start counts in the seconds; its estimate and details are in `details` ("start", "start.weight"), its status,
        reasons, steps and seconds in `provenance["start"]`. Where it diverged, the reasons say so. Observers see the
        pipeline's own solver. Raises `BadParameter` for an x0 where there is a start.
        """
        labels = _labels(labels, y)
        if x0 is not None and self.start is not None:
            raise BadParameter("x0 is given to a pipeline that has a start", "one of them", "leave one of them out")
        problem, first = self.problem(y, labels, x0), None
        if self.start is not None:
            keys = [self.key.child("start").child("solver", label) for label in labels]
            try:
                first = _run(problem, self.start, keys, (), throw)
            except Diverged as error:
                raise error.within("start") from None
            problem = replace(problem, x0=first.x)
        keys = [self.key.child("solver", label) for label in labels]
        result = _run(problem, self, keys, (*self.observers, *observers), throw)
        provenance: dict[str, Any] = {
            "pipeline": dict(self.config),
            "labels": list(labels),
            "versions": versions(self.config),
            "weights": digests(self.config),
        }
        result = replace(result, provenance=provenance)
        return result if first is None else _after(first, result)


def _run(
    problem: Problem, method: Pipeline | Start, keys: Sequence[Key], observers: Iterable[object], throw: bool
) -> Reconstruction:
    """Solve with the prior, weight and solver of a method; the search for a weight counts in the seconds."""
    problem, started = replace(problem, prior=method.prior, weight=1.0), time.perf_counter()
    weight = weight_by_discrepancy(problem, method.solver, keys) if method.weight == "auto" else method.weight
    searched = time.perf_counter() - started
    result = solve(replace(problem, weight=weight), method.solver, key=keys, observers=observers, throw=throw)
    details = {**result.details, "weight": weight} if isinstance(weight, Tensor) else result.details
    return replace(result, seconds=result.seconds + searched, details=details)


def _after(first: Reconstruction, result: Reconstruction) -> Reconstruction:
    """The result, with what its start cost, gave and said."""
    reasons = tuple(
        f"{reason}; its start diverged: {why}" if status is Status.DIVERGED else reason
        for reason, why, status in zip(result.reasons, first.reasons, first.status, strict=True)
    )
    told = {name: list(getattr(first, name)) for name in ("reasons", "steps")}
    start = {"status": [status.name.lower() for status in first.status], **told, "seconds": first.seconds}
    details = {**result.details, "start": first.x, **{f"start.{name}": value for name, value in first.details.items()}}
    provenance, seconds = {**result.provenance, "start": start}, result.seconds + first.seconds
    return replace(result, reasons=reasons, seconds=seconds, details=details, provenance=provenance)


def _labels(labels: Sequence[str] | None, batch: Tensor) -> Sequence[str]:
    if labels is None:
        return [str(index) for index in range(len(batch))]
    if len(labels) != len(batch):
        raise BadParameter(f"{len(labels)} labels for a batch of {len(batch)} images", "one label for each image")
    return labels
