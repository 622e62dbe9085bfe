"""The study by itself: samplers, seeding, storage, resumption."""

import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from preimage_tune import SAMPLERS, Score, Store, parse_space, propose, search
from preimage_tune.space import at_edge, from_unit
from preimage_tune.study import OtherStudy

from preimage import Key
from preimage.errors import BadFile, BadParameter, Diverged, PreimageError

SPACE = parse_space(
    {
        "weight": {"low": 1e-4, "high": 1.0, "log": True},
        "relaxation": {"low": 1.0, "high": 1.9},
        "steps": {"low": 1, "high": 9},
        "variant": {"choices": ["isotropic", "anisotropic"]},
    },
    "search",
)


def bowl(parameters):
    """Smooth, one maximum of 30 at weight = 0.01, relaxation = 1.6, steps = 6, isotropic."""
    x = math.log10(parameters["weight"]) + 2
    y, z = 3 * (parameters["relaxation"] - 1.6), 0.3 * (parameters["steps"] - 6)
    return 30 - x * x - y * y - z * z - 0.5 * (parameters["variant"] != "isotropic")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_does_not_depend_on_interruptions(tmp_path, sampler):
    whole = search(bowl, SPACE, trials=14, store=tmp_path / "whole.db", sampler=sampler, key=Key(3))
    for trials in (1, 2, 9, 10, 14):
        parts = search(bowl, SPACE, trials=trials, store=tmp_path / "parts.db", sampler=sampler, key=Key(3))
        assert len(parts.trials) == trials
    assert parts.trials == whole.trials
    assert [trial.number for trial in whole.trials] == list(range(14))
    other = search(bowl, SPACE, trials=3, store=tmp_path / "other.db", sampler=sampler, key=Key(4))
    assert other.trials[0] != whole.trials[0]
    named = search(bowl, SPACE, trials=3, store=tmp_path / "other.db", sampler=sampler, key=Key(3), name="another")
    assert named.trials[0].parameters != whole.trials[0].parameters


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_value_lies_in_its_range_and_is_rounded(sampler):
    history = []
    for _ in range(12):
        values = propose(sampler, SPACE, history, Key(1))
        assert list(values) == list(SPACE)
        assert 1e-4 <= values["weight"] <= 1
        assert 1 <= values["relaxation"] <= 1.9
        assert values["steps"] in range(1, 10)
        assert values["variant"] in ("isotropic", "anisotropic")
        assert float(f"{values['weight']:.4g}") == values["weight"]
        history.append((values, bowl(values)))


def test_points_are_uniform_in_the_logarithm_and_over_integers():
    n = 5000
    points = [from_unit(SPACE, dict.fromkeys(SPACE, (i + 0.5) / n)) for i in range(n)]
    logs = np.log10([point["weight"] for point in points])
    assert np.allclose(np.quantile(logs, [0.25, 0.5, 0.75]), [-3, -2, -1], atol=1e-3)
    counts = np.bincount([point["steps"] for point in points])[1:]
    assert counts.min() >= counts.max() - 1
    assert sum(point["variant"] == "isotropic" for point in points) == n // 2


def test_better_samplers_come_closer_than_random_search(tmp_path):
    """Equal budget, four keys: the mean regret of the model-based samplers is a fraction of that of random search."""
    regret = {
        sampler: np.mean([30 - best(sampler, Key(k), tmp_path) for k in range(4)])
        for sampler in ("random", "tpe", "gp")
    }
    print({name: f"{value:.4f}" for name, value in regret.items()})
    assert regret["gp"] < 0.2 * regret["random"]
    assert regret["tpe"] < 0.8 * regret["random"]


def best(sampler, key, folder):
    study = search(
        bowl, SPACE, trials=20, store=folder / "s.db", sampler=sampler, key=key, name=f"{sampler} {key.seed}"
    )
    return study.best().score


def test_failed_trials_are_kept_with_their_reason_and_avoided(tmp_path):
    def fragile(parameters):
        if parameters["weight"] > 0.005:
            raise Diverged("3 of 4 images diverged")
        return Score(bowl(parameters), {"evaluations": 7})

    study = search(fragile, SPACE, trials=20, store=tmp_path / "s.db")
    failed = [trial for trial in study.trials if trial.score is None]
    assert failed
    assert all("3 of 4 images diverged" in trial.reason and trial.parameters["weight"] > 0.005 for trial in failed)
    assert len([trial for trial in failed if trial.number >= 12]) <= 4, "the sampler keeps going where trials fail"
    assert all(trial.facts == {"evaluations": 7} for trial in study.trials if trial.score is not None)
    assert study.best().parameters["weight"] <= 0.005
    again = search(fragile, SPACE, trials=20, store=tmp_path / "s.db")
    assert again.trials == study.trials


def test_a_score_that_is_no_number_is_a_failure_and_all_failures_have_no_best(tmp_path):
    study = search(lambda parameters: math.nan, SPACE, trials=10, store=tmp_path / "s.db")
    assert study.best() is None
    assert "nan" in study.trials[0].reason


def test_the_smallest_is_searched_if_asked_for(tmp_path):
    study = search(lambda p: -bowl(p), SPACE, trials=12, store=tmp_path / "s.db", direction="minimize")
    assert study.best().score == min(trial.score for trial in study.trials)


def test_nothing_to_search_is_one_trial(tmp_path):
    study = search(lambda parameters: 1.0, {}, trials=12, store=tmp_path / "s.db")
    assert [(trial.parameters, trial.score) for trial in study.trials] == [({}, 1.0)]


def test_other_errors_pass_through_and_the_study_goes_on_afterwards(tmp_path):
    def broken(parameters):
        raise ZeroDivisionError

    search(bowl, SPACE, trials=3, store=tmp_path / "s.db")
    with pytest.raises(ZeroDivisionError):
        search(broken, SPACE, trials=5, store=tmp_path / "s.db")
    assert len(search(bowl, SPACE, trials=5, store=tmp_path / "s.db").trials) == 5


@pytest.mark.parametrize(
    ("changed", "mentions"),
    [
        ({"identity": {"data": "b"}}, "data"),
        ({"key": Key(1)}, "key"),
        ({"sampler": "random"}, "sampler"),
        ({"direction": "minimize"}, "direction"),
        ({"space": parse_space({"weight": {"low": 0.1, "high": 2.0}}, "search")}, "search"),
    ],
)
def test_another_study_in_the_store_is_refused(tmp_path, changed, mentions):
    settings = {"space": SPACE, "trials": 2, "store": tmp_path / "s.db", "identity": {"data": "a"}}
    search(bowl, **settings)
    with pytest.raises(OtherStudy, match=rf"its {mentions} differs") as caught:
        search(bowl, **(settings | changed))
    assert "--overwrite" in caught.value.remedy
    store = Store(tmp_path / "s.db")
    store.drop("study")
    assert store.names() == []
    store.close()


@pytest.mark.parametrize("damage", ["text", "cut", "other tables"])
def test_a_damaged_store_is_refused(tmp_path, damage):
    path = tmp_path / "s.db"
    search(bowl, SPACE, trials=2, store=path)
    if damage == "text":
        path.write_bytes(b"not a database at all " * 100)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.unlink()
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE something (x)")
        connection.close()
    with pytest.raises(BadFile, match="damaged, or not a store") as caught:
        search(bowl, SPACE, trials=4, store=path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "mentions"),
    [
        (3, "a table"),
        ({"low": 1.0}, "no high"),
        ({"low": 2.0, "high": 1.0}, "low < high"),
        ({"low": 1.0, "high": 1.0}, "low < high"),
        ({"low": 0.0, "high": 1.0, "log": True}, "low > 0"),
        ({"low": -1.0, "high": 1.0, "log": True}, "low > 0"),
        ({"low": float("nan"), "high": 1.0}, "finite"),
        ({"low": "a", "high": 1.0}, "finite"),
        ({"low": True, "high": 1.0}, "finite"),
        ({"low": 0.1, "high": 1.0, "log": "yes"}, "true or false"),
        ({"low": 0.1, "hihg": 1.0}, "'hihg'"),
        ({"choices": ["a"]}, "two or more"),
        ({"choices": "ab"}, "two or more"),
        ({"choices": ["a", "a"]}, "each choice once"),
        ({"choices": ["a", "b"], "low": 1}, "choices and low"),
    ],
)
def test_bad_ranges_are_refused(entry, mentions):
    with pytest.raises(BadParameter, match=mentions):
        parse_space({"prior.weight": entry}, "search")


def test_all_bad_ranges_are_told_at_once():
    with pytest.raises(PreimageError) as caught:
        parse_space({"a": {"low": 2, "high": 1}, "b": 7, "c": {"low": 0, "high": 1}}, "search")
    assert "search: a" in str(caught.value)
    assert "search: b" in str(caught.value)
    assert "search: c" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "end"),
    [
        ("weight", 1e-4, "lower"),
        ("weight", 1.5e-4, "lower"),
        ("weight", 1.7e-4, None),
        ("weight", 0.5, None),
        ("weight", 0.7, "upper"),
        ("relaxation", 1.04, "lower"),
        ("relaxation", 1.06, None),
        ("relaxation", 1.88, "upper"),
        ("steps", 1, "lower"),
        ("steps", 2, None),
        ("steps", 9, "upper"),
        ("variant", "isotropic", None),
    ],
)
def test_edges(name, value, end):
    assert at_edge(SPACE[name], value) == end


def test_bad_settings(tmp_path):
    with pytest.raises(BadParameter, match="trials"):
        search(bowl, SPACE, trials=0, store=tmp_path / "s.db")
    with pytest.raises(BadParameter, match="random, qmc, tpe, gp"):
        search(bowl, SPACE, trials=1, store=tmp_path / "s.db", sampler="simulated-annealing")


SEARCH = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_tune_study import SPACE, slow_bowl
from preimage_tune import search

search(slow_bowl, SPACE, trials=40, store=Path(sys.argv[2]) / "s.db", sampler="tpe")
"""


def slow_bowl(parameters):
    time.sleep(0.01)
    return bowl(parameters)


def stored(path: Path) -> int:
    if not path.exists():
        return 0
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute("SELECT COUNT(*) FROM trials").fetchone()[0]
    except sqlite3.Error:
        return 0
    finally:
        connection.close()


def test_killed_by_sigkill_again_and_again(tmp_path):
    """Two kills at random moments, told apart by what is stored; what is stored is never half a trial."""
    whole = search(slow_bowl, SPACE, trials=40, store=tmp_path / "whole.db", sampler="tpe")
    random = np.random.default_rng(0)
    seen = [0]
    command = [sys.executable, "-c", SEARCH, str(Path(__file__).parent), str(tmp_path)]
    while len(seen) < 3:
        process = subprocess.Popen(command)
        target = seen[-1] + int(random.integers(1, 9))
        while stored(tmp_path / "s.db") < target and process.poll() is None:
            time.sleep(0.002)
        time.sleep(float(random.uniform(0, 0.03)))
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
        seen.append(stored(tmp_path / "s.db"))
        assert target <= seen[-1] < 40
    resumed = search(slow_bowl, SPACE, trials=40, store=tmp_path / "s.db", sampler="tpe")
    assert resumed.trials == whole.trials
    print("killed after", seen[1:], "of 40 trials")
