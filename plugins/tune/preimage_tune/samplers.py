"""Which parameters to try next: a function of a key, the number of the trial and the trials before it, nothing else.

A sampler that keeps its random state in memory would go another way after an interruption. Here each trial has a
generator of its own, seeded by its number, and what a model-based sampler knows is rebuilt from the trials before.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import optuna
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from scipy.stats import qmc

from preimage import Key
from preimage.errors import BadParameter

from .space import Space, Value, from_unit, rounded

SamplerName = Literal["random", "qmc", "tpe", "gp"]
SAMPLERS: dict[str, str] = {
    "random": "independent uniform points, as in the papers",
    "qmc": "a scrambled Sobol sequence: even coverage",
    "tpe": "tree-structured Parzen estimators (Bergstra et al., NIPS 2011), by Optuna",
    "gp": "Gaussian process with expected improvement, by Optuna; best for few smooth parameters",
}
STARTUP = 8
"""How many points of the Sobol sequence a model-based sampler sees before it proposes points of its own."""

History = Sequence[tuple[dict[str, Value], float]]
"""Parameters and score (larger is better) of the trials so far, in order."""


def check_sampler(name: str) -> None:
    """Raise `BadParameter` if there is no sampler of this name."""
    if name not in SAMPLERS:
        raise BadParameter(f"there is no sampler {name!r}", ", ".join(SAMPLERS), "write --sampler tpe, say")


def propose(sampler: str, space: Space, history: History, key: Key) -> dict[str, Value]:
    """The parameters of trial number `len(history)`, numbers rounded to four significant digits.

    `random` and `qmc` look at the number of trials before, not at their scores. `tpe` and `gp` begin with the first
    points of the Sobol sequence that `qmc` would take. An empty space gives {}.

    Raises `BadParameter` for a sampler that does not exist.
    """
    check_sampler(sampler)
    number = len(history)
    if not space:
        return {}
    if sampler == "random":
        drawn = key.child("trial", number).generator().random(len(space))
        return rounded(space, from_unit(space, dict(zip(space, drawn.tolist(), strict=True))))
    if sampler == "qmc" or number < STARTUP:
        return rounded(space, from_unit(space, _sobol(space, number, key)))
    return rounded(space, _ask(sampler, space, history, _seed(key.child("trial", number))))


def _sobol(space: Space, number: int, key: Key) -> dict[str, float]:
    sequence = qmc.Sobol(len(space), scramble=True, rng=_seed(key.child("sobol")))
    with warnings.catch_warnings():  # any number of points will do: the balance of a power of two is not needed
        warnings.simplefilter("ignore", UserWarning)
        return dict(zip(space, sequence.random(number + 1)[number].tolist(), strict=True))


def _seed(key: Key) -> int:
    return int(key.generator().integers(2**32))


def _ask(name: str, space: Space, history: History, seed: int) -> dict[str, Value]:
    made: BaseSampler
    if name == "tpe":
        made = TPESampler(n_startup_trials=0, seed=seed)
    else:
        made = GPSampler(n_startup_trials=0, seed=seed, deterministic_objective=False)
    with quiet():
        study = optuna.create_study(direction="maximize", sampler=made)
        distributions: dict[str, Any] = dict(space)
        for parameters, score in history:
            study.add_trial(optuna.create_trial(params=parameters, distributions=distributions, value=score))
        return dict(study.ask(distributions).params)


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna announces new studies on stderr; not inside this context."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
