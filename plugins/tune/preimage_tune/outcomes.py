"""One search of a suite: a method on an operator and noise, and what became of it."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, cast

from optuna.distributions import FloatDistribution, IntDistribution

from preimage import Key, load
from preimage._parameters import parameters
from preimage.assembly import versions, with_overrides
from preimage.errors import BadParameter, PreimageError
from preimage.weights import digests

from .cases import METHOD, Case
from .presets import Entry
from .samplers import check_sampler
from .space import at_edge
from .study import OtherStudy, Store, Study, Trial, budget, search
from .validation import Validation


@dataclass(frozen=True)
class Settings:
    """How to search: `trials` for every study, `sampler`, registered `metric` of which more is better, seed `key`.

    Raises `BadParameter` for trials < 1 or an unknown sampler.
    """

    trials: int = 30
    sampler: str = "gp"
    metric: str = "psnr"
    key: int = 0

    def __post_init__(self):
        if self.trials < 1:
            raise BadParameter(f"the budget is {self.trials} trials", "at least 1")
        check_sampler(self.sampler)


Told = Callable[[Case, int, float | None], None]
"""Hears of the progress of a case: how many trials are made, and the best score so far."""


@dataclass(frozen=True)
class Tuned:
    """What became of a case.

    - `start`: mean score of what the solvers start from. `trials`: all that were made, at most the budget.
    - `skipped`: why the parts do not fit together, "" if they do. `failed`: why no trial has a score, "" if one has.
    - `best`: the best trial. `edges`: a sentence for each parameter whose best value is close to an end of its range.
    - `data`: what the score was measured on, for the preset. `channels`: of its images, None if they differ.
    """

    case: Case
    start: float = math.nan
    trials: Sequence[Trial] = ()
    skipped: str = ""
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    channels: int | None = None

    @property
    def best(self) -> Trial | None:
        """The trial with the highest score, the earliest of equals."""
        scored = [trial for trial in self.trials if trial.score is not None]
        return max(scored, key=lambda trial: cast(float, trial.score), default=None)

    @property
    def failed(self) -> str:
        """Why no trial has a score."""
        return self.trials[-1].reason if self.trials and self.best is None else ""

    @property
    def evaluations(self) -> int:
        """Evaluations of the operator in all trials, counted for each image."""
        return sum(int(trial.facts.get("evaluations", 0)) for trial in self.trials)

    @property
    def edges(self) -> list[str]:
        """Warnings about values near an end of their range, where the best one may lie outside."""
        found: list[str] = []
        for name, value in (self.best.parameters if self.best else {}).items():
            distribution = self.case.space[name]
            if (end := at_edge(distribution, value)) and isinstance(distribution, FloatDistribution | IntDistribution):
                searched = f"{distribution.low:g} to {distribution.high:g}"
                found.append(f"{name} = {value:g} lies at the {end} edge of the range that was searched, {searched}")
        return found

    def entry(self, settings: Settings) -> Entry | None:
        """The preset, None if there is nothing to keep."""
        if self.best is None or self.best.score is None:
            return None
        parts = with_overrides(self.case.parts, self.best.parameters, str(self.case.label))
        parts |= {"operator": [_whole("operator", table) for table in parts["operator"]]}
        parts |= {"noise": _whole("noise", parts["noise"])}
        searched = bool(self.case.space)
        tuned = {
            **self.data,
            "trials": len(self.trials),
            "evaluations": self.evaluations,
            "sampler": settings.sampler if searched else "none",
            "key": settings.key,
            "metric": settings.metric,
            "score": round(self.best.score, 3),
            "start": round(self.start, 3),
            "edge": self.edges,
            "versions": _versions(self.case),
        }
        return Entry(self.case.label.method, parts, tuned, self.channels)


def tune_case(
    validation: Validation,
    case: Case,
    store: Store,
    settings: Settings,
    data: Mapping[str, Any],
    *,
    overwrite: bool = False,
    told: Told | None = None,
) -> Tuned:
    """One search, to its end. Parts that do not fit together are not an error: the outcome says why."""
    if case.refused:
        return Tuned(case, skipped=case.refused)
    try:
        start = validation.start(case)
    except PreimageError as error:
        return Tuned(case, skipped=str(error))
    identity = {
        "data": data["digest"],
        "problem": [case.parts["operator"], case.parts["noise"], list(validation.suite.seeds)],
        "method": {key: case.parts[key] for key in METHOD if key in case.parts},
        "weights": digests(case.parts),
        "metric": settings.metric,
        "computed": [validation.suite.device, validation.suite.dtype, validation.suite.threads],
        "versions": _versions(case),
    }
    name = str(case.label)

    tell = told or (lambda case, made, best: None)

    def searched(anew: bool) -> list[Trial]:
        if anew:
            store.drop(name)
        study = search(
            lambda parameters: validation.score(case, parameters),
            case.space,
            trials=settings.trials,
            store=store,
            name=name,
            sampler=settings.sampler,
            key=Key(settings.key),
            identity=identity,
            told=lambda study: tell(case, len(study.trials), _score(study)),
        )
        return study.trials[: budget(case.space, settings.trials)]

    try:
        trials = searched(False)
    except OtherStudy:
        if not overwrite:
            raise
        trials = searched(True)
    return Tuned(case, start, trials, data=data, channels=validation.channels)


def described(validation: Validation) -> dict[str, Any]:
    """The data as a preset cites it: the tables of the suite, how many images and draws of the noise, the digest."""
    suite = validation.suite
    tables = json.loads(json.dumps([dict(part.table) for part in suite.data], default=str))
    return {
        "data": tables[0] if len(tables) == 1 else tables,
        "images": validation.count,
        "seeds": list(suite.seeds),
        "digest": validation.digest(),
    }


def _whole(kind: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with all defaults that TOML can write: a preset is for these values, and for no others."""
    defaults = {p.name: p.default for p in parameters(load(kind, table["name"])) if not p.required}
    values: dict[str, Any] = json.loads(json.dumps({**defaults, **table}, default=str))
    return {"name": values.pop("name"), **{key: value for key, value in values.items() if value is not None}}


def _score(study: Study) -> float | None:
    best = study.best()
    return None if best is None else best.score


def _versions(case: Case) -> dict[str, str]:
    return versions(case.parts) | {name: version(name) for name in ("optuna", "preimage-tune")}
