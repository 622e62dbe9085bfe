"""The images that parameters are judged by: measured once, reconstructed as one batch for each trial."""

import hashlib
from collections import Counter as Counts
from dataclasses import dataclass, replace
from typing import Any

import torch
from preimage_compare.counting import Counter
from preimage_compare.suite import Limits, Suite
from torch import Tensor

from preimage import ForwardOperator, Pipeline, Reconstruction, Status, load
from preimage.assembly import with_overrides
from preimage.errors import Diverged, Incompatible, PreimageError

from .cases import Case, Tables
from .study import Parameters, Score


@dataclass(frozen=True)
class Batch:
    """All images of a data set under one draw: labels, truth x (B, C, H, W), measurements y, and what made them."""

    labels: list[str]
    x: Tensor
    y: Tensor
    operator: ForwardOperator
    pipeline: Pipeline


class Validation:
    """A suite's images as a validation split.

    Images and measurements are those that a comparison of the same suite would see: noise and random operators are
    drawn from the suite's seeds and the images' labels. All images of a data set go through one `reconstruct`.

    - `metric`: a registered metric of which more is better: (B, C, H, W) twice to (B,).

    Raises as the registry if there is no such metric, and as the data sets if they cannot be made.
    """

    def __init__(self, suite: Suite, metric: str = "psnr"):
        self.suite, self.metric = suite, metric
        self._measure: Any = load("metric", metric)()
        # The last few measurements: cases come operator by operator, and an operator (a Gaussian matrix) can be large.
        self._drawn: dict[tuple[str, str, str], list[Batch]] = {}

    @property
    def count(self) -> int:
        """How many images there are."""
        return sum(len(dataset) for dataset in self.suite.datasets.values())

    @property
    def channels(self) -> int | None:
        """Of all images; None if data sets differ in it."""
        numbers = {dataset.shape[0] for dataset in self.suite.datasets.values()}
        return numbers.pop() if len(numbers) == 1 else None

    def digest(self) -> str:
        """SHA-256 of the labels and pixels of all images."""
        digest = hashlib.sha256()
        for data, dataset in self.suite.datasets.items():
            for index in range(len(dataset)):
                digest.update(f"{data}/{dataset.label(index)} {tuple(dataset.shape)}\n".encode())
                digest.update(dataset[index].contiguous().numpy().tobytes())
        return digest.hexdigest()

    def start(self, case: Case) -> float:
        """The mean score of what solvers start from: the measurement, or an image made from it (`Problem.start`).

        Raises the errors of assembly if the parts of the case do not fit together.
        """
        scores: list[Tensor] = []
        for data, tables in case.tables.items():
            if self._key(case, data) in self._drawn:  # else drawing does it
                self._assembled(case, data, tables)
            batches = self._batches(case, data)
            scores += [self._measured(b.pipeline.problem(b.y, b.labels).start(), b) for b in batches]
        return float(torch.cat(scores).mean())

    def score(self, case: Case, parameters: Parameters) -> Score:
        """The mean score of the estimates with these parameters, and what they cost.

        Raises an error of `preimage.errors` if an image diverges, or a part refuses its parameters.
        """
        scores: list[Tensor] = []
        calls: Counts[str] = Counts()
        steps = limited = evaluations = 0
        for data, tables in case.tables.items():
            tuned = with_overrides(tables, parameters, str(case.label))
            for batch in self._batches(case, data):
                parts = self._parts(case, data, {**tuned, "seed": batch.pipeline.key.seed})
                counter = Counter(Limits())
                chosen = {name: getattr(parts, name) for name in ("prior", "weight", "solver", "start", "observers")}
                whole = replace(batch.pipeline, operator=batch.operator, **chosen)
                found = _reconstruct(counter.instrument(whole, batch.operator), batch)
                scores.append(self._measured(found.x, batch))
                calls.update(counter.counts)
                evaluations += counter.evaluations()
                steps += sum(found.steps)
                limited += sum(status is Status.MAX_STEPS for status in found.status)
        facts = {
            "evaluations": evaluations,
            "calls": {n: c for n, c in calls.items() if c},
            "steps": steps,
            "max_steps": limited,
        }
        return Score(float(torch.cat(scores).mean()), facts)

    def _parts(self, case: Case, data: str, tables: Tables) -> Pipeline:
        """A pipeline for its prior and solver. They do not depend on the operator, which `identity` stands in for: a
        large one is made once, not in every trial."""
        own = {**_without_data(tables), "operator": {"name": "identity"}}
        try:
            return Pipeline.from_dict(own, where=str(case.label), data=self.suite.datasets[data])
        except Incompatible:  # a solver for operators of its own
            return self._assembled(case, data, tables)

    def _assembled(self, case: Case, data: str, tables: Tables) -> Pipeline:
        return Pipeline.from_dict(_without_data(tables), where=str(case.label), data=self.suite.datasets[data])

    def _batches(self, case: Case, data: str) -> list[Batch]:
        """One for each seed of the suite; the same for every method."""
        key = self._key(case, data)
        if key not in self._drawn:
            while len(self._drawn) >= 2 * len(self.suite.data):
                del self._drawn[next(iter(self._drawn))]
            self._drawn[key] = [self._draw(case, data, seed) for seed in self.suite.seeds]
        return self._drawn[key]

    def _key(self, case: Case, data: str) -> tuple[str, str, str]:
        return data, case.label.operator, case.label.noise

    def _draw(self, case: Case, data: str, seed: int) -> Batch:
        dataset = self.suite.datasets[data]
        pipeline = self._assembled(case, data, {**case.tables[data], "seed": seed})
        labels = [dataset.label(index) for index in range(len(dataset))]
        like = torch.zeros((), device=self.suite.device, dtype=getattr(torch, self.suite.dtype))
        x = torch.stack([dataset[index] for index in range(len(dataset))]).to(like)
        return Batch(labels, x, pipeline.simulate(x, labels), pipeline.operator_for(labels), pipeline)

    def _measured(self, estimate: Tensor, batch: Batch) -> Tensor:
        return self._measure(estimate, batch.x).double().cpu()


def _reconstruct(pipeline: Pipeline, batch: Batch) -> Reconstruction:
    try:
        found = pipeline.reconstruct(batch.y, batch.labels, throw=False)
    except PreimageError:
        raise
    except (ArithmeticError, RuntimeError, ValueError) as error:  # torch and numpy on parameters that make no sense
        raise PreimageError(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
    bad = [i for i, status in enumerate(found.status) if status is Status.DIVERGED]
    if bad:
        raise Diverged(f"{len(bad)} of {len(batch.labels)} images diverged: {found.reasons[bad[0]]}")
    return found


def _without_data(tables: Tables) -> dict[str, Any]:
    return {key: value for key, value in tables.items() if key != "data"}
