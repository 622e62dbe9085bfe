"""One search, kept in a file trial by trial, so that it can be killed at any moment and continued.

Independent of what is searched: `search` needs a function from parameters to a score.
"""

import json
import math
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import optuna
from optuna.trial import FrozenTrial, TrialState

from preimage import Key
from preimage.errors import BadFile, BadParameter, PreimageError

from .files import locked
from .samplers import History, check_sampler, propose, quiet
from .space import Space, Value

Direction = Literal["maximize", "minimize"]
Parameters = dict[str, Value]


@dataclass(frozen=True)
class Trial:
    """One point that was tried: its score, or None and the reason why there is none. `facts` are JSON values."""

    number: int
    parameters: Parameters
    score: float | None
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Score:
    """What an objective gives back: a finite number, and facts worth keeping (JSON values)."""

    value: float
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


class OtherStudy(BadFile):
    """A store holds a study of this name whose scores depend on other things."""


class Store:
    """Studies in one SQLite file, in Optuna's tables, so that Optuna's own tools can read them.

    SQLite, since its transactions are whole or absent after a SIGKILL and its locks die with the process; a journal
    file can be left with half a line, which nothing can be appended to.

    Raises `BadFile` if the file is not a study store, or is damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        if path.exists():
            self._check()
        else:
            # Made elsewhere and renamed: a process killed while the tables are created leaves no half of them here.
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.part")
            part.unlink(missing_ok=True)
            _open(part).engine.dispose()
            part.replace(path)
        self._storage = _open(path)

    def names(self) -> list[str]:
        """Names of the studies, sorted."""
        return sorted(study.study_name for study in self._storage.get_all_studies())

    def study(self, name: str, identity: Mapping[str, Any], direction: Direction) -> optuna.Study:
        """The study of this name, new or taken up again.

        Raises `OtherStudy` if the file holds a study of this name whose identity differs.
        """
        with quiet():
            study = optuna.create_study(
                storage=self._storage, study_name=name, direction=direction, load_if_exists=True
            )
        wanted = json.loads(json.dumps(dict(identity), sort_keys=True))
        kept = study.user_attrs.get("identity")
        if kept is None and not study.trials:
            study.set_user_attr("identity", wanted)
        elif kept != wanted:
            kept = cast("dict[str, Any]", kept) if isinstance(kept, dict) else {}
            different = sorted(key for key in kept.keys() | wanted.keys() if kept.get(key) != wanted.get(key))
            raise OtherStudy(
                f"{self.path} holds another study {name!r} (its {' and '.join(different)} differs)",
                "a study of the same data, method, search and versions, or none",
                "choose another folder, or give --overwrite to begin anew",
            )
        return study

    def drop(self, name: str) -> None:
        """Remove the study of this name, if there is one."""
        if name in self.names():
            optuna.delete_study(study_name=name, storage=self._storage)

    def close(self) -> None:
        """Let go of the file."""
        self._storage.engine.dispose()

    def _check(self) -> None:
        try:
            with closing(sqlite3.connect(f"file:{self.path}?mode=rw", uri=True)) as connection:
                found = connection.execute("PRAGMA quick_check").fetchone()[0]
                connection.execute("SELECT COUNT(*) FROM studies")
            reason = "" if found == "ok" else str(found).splitlines()[-1]
        except sqlite3.Error as error:
            reason = str(error)
        if reason:
            raise BadFile(
                f"{self.path} is damaged, or not a store of studies: {reason}",
                "the SQLite file of an earlier `preimage tune`",
                "move it away; the search then begins anew",
            )


class Study:
    """A search in progress: `ask` for the next parameters, `tell` what became of them.

    - `name`: of the study in its store. `space`, `sampler`, `direction`: see `search`.
    - `key`: of the sampler; the trials depend on it, on `name` and on the scores, not on interruptions.
    - `identity`: what scores depend on, as JSON values.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        space: Space,
        *,
        sampler: str = "gp",
        key: Key = Key(0),
        direction: Direction = "maximize",
        identity: Mapping[str, Any] | None = None,
    ):
        check_sampler(sampler)
        self.name, self.space, self.sampler, self.direction = name, space, sampler, direction
        self._key = key.child("study", name)
        ranges = {parameter: _spoken(distribution) for parameter, distribution in space.items()}
        whole = {**(identity or {}), "search": ranges, "sampler": sampler, "key": [key.seed, *key.path]}
        whole |= {"direction": direction}
        self._study = store.study(name, whole, direction)
        self.trials: list[Trial] = [_trial(frozen) for frozen in self._study.get_trials(deepcopy=False)]

    def ask(self) -> Parameters:
        """The parameters of the next trial; the same until it is told."""
        return propose(self.sampler, self.space, self._history(), self._key)

    def tell(self, parameters: Parameters, outcome: Score | PreimageError) -> Trial:
        """Keep the outcome of a trial: its score, or why it failed. It is on the disk when this returns."""
        if isinstance(outcome, Score) and not math.isfinite(outcome.value):
            outcome = PreimageError(f"the score is {outcome.value}")
        good = isinstance(outcome, Score)
        self._study.add_trial(
            optuna.create_trial(
                state=TrialState.COMPLETE if good else TrialState.FAIL,
                params=parameters,
                distributions=dict(self.space),
                value=outcome.value if good else None,
                user_attrs={"facts": dict(outcome.facts)} if good else {"reason": str(outcome)},
            )
        )
        self.trials.append(_trial(self._study.get_trials(deepcopy=False)[-1]))
        return self.trials[-1]

    def best(self, trials: int | None = None) -> Trial | None:
        """The best of the first so many trials (the earliest of equals), None if none has a score."""
        scored = [trial for trial in self.trials[:trials] if trial.score is not None]
        return max(scored, key=lambda trial: self._signed(trial), default=None)

    def _signed(self, trial: Trial) -> float:
        assert trial.score is not None
        return trial.score if self.direction == "maximize" else -trial.score

    def _history(self) -> History:
        """A failed trial counts as bad as the worst one: a sampler that did not know of it would go there again."""
        scores = [self._signed(trial) for trial in self.trials if trial.score is not None]
        worst = min(scores, default=0.0)
        return [(trial.parameters, worst if trial.score is None else self._signed(trial)) for trial in self.trials]


def search(
    objective: Callable[[Parameters], Score | float],
    space: Space,
    *,
    trials: int,
    store: Store | str | Path,
    name: str = "study",
    sampler: str = "gp",
    key: Key = Key(0),
    direction: Direction = "maximize",
    identity: Mapping[str, Any] | None = None,
    told: Callable[[Study], None] | None = None,
) -> Study:
    """Try parameters until the study has so many trials, those of earlier, interrupted runs included.

    - `objective`: parameters to a score; an error of `preimage.errors` that it raises makes the trial a failed one.
    - `space`: as `parse_space` gives it. If it is empty, one trial is all there is.
    - `store`: the path of an SQLite file, held by one process at a time, or a `Store`, for which the caller answers.
      What is finished is in it, whatever happens to the process.
    - `identity`: what the scores depend on besides the parameters (data, versions), as JSON values.
    - `told`: called with the study before the first trial of this run, and after every trial.

    Raises `BadParameter` for trials < 1 or an unknown sampler, `BadFile` if the store is damaged or in use, and
    `OtherStudy` if it holds a study of this name with another identity.
    """
    if trials < 1:
        raise BadParameter(f"trials is {trials}", "an integer >= 1")
    with nullcontext(store) if isinstance(store, Store) else _opened(Path(store)) as opened:
        study = Study(opened, name, space, sampler=sampler, key=key, direction=direction, identity=identity)
        tell = told or (lambda study: None)
        tell(study)
        while len(study.trials) < budget(space, trials):
            parameters = study.ask()
            try:
                found = objective(dict(parameters))
                outcome = found if isinstance(found, Score) else Score(float(found))
            except PreimageError as error:
                outcome = error
            study.tell(parameters, outcome)
            tell(study)
        return study


@contextmanager
def _opened(path: Path) -> Iterator[Store]:
    with locked(path), closing(Store(path)) as store:
        yield store


def budget(space: Space, trials: int) -> int:
    """How many trials there are to make: one if nothing is searched."""
    return trials if space else 1


def _trial(frozen: FrozenTrial) -> Trial:
    score = frozen.value if frozen.state is TrialState.COMPLETE else None
    attributes = frozen.user_attrs
    return Trial(frozen.number, dict(frozen.params), score, attributes.get("reason", ""), attributes.get("facts", {}))


def _spoken(distribution: Any) -> dict[str, Any]:
    return json.loads(optuna.distributions.distribution_to_json(distribution))


def _open(path: Path) -> optuna.storages.RDBStorage:
    waiting = {"connect_args": {"timeout": 60}}  # seconds, for other processes that write
    return optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs=waiting)
