"""`preimage tune` on whole suites: presets, budgets, warnings, errors, interruptions."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from preimage_compare.suite import load_suite
from preimage_data import Photographs, psnr
from preimage_tune import Settings, merge_presets, tune, write_presets
from preimage_tune.cases import cases
from preimage_tune.files import locked
from preimage_tune.presets import Entry
from preimage_tune.suites import find, shipped
from preimage_tune.table import summary

from preimage import Pipeline
from preimage._cli import run as command_line
from preimage.errors import BadFile, BadParameter, PreimageError
from preimage.presets import choose, read_presets

SUITE = """
title = "Small"
{top}

[[data]]
label = "photographs"
name = "photographs"
size = 24
count = 3

[[operator]]
label = "blur"
name = "gaussian-blur"
size = 5
sigma = 1.0

[[noise]]
label = "low"
name = "gaussian"
sigma = 0.02

[[noise]]
label = "high"
name = "gaussian"
sigma = 0.1

[[method]]
label = "tv"
prior = {{ name = "tv" }}
solver = {{ name = "admm", max_steps = 60 }}
[method.search]
"prior.weight" = {{ low = 1e-4, high = 1.0, log = true }}
"prior.variant" = {{ choices = ["isotropic", "anisotropic"] }}

[[method]]
label = "tikhonov"
prior = {{ name = "tikhonov" }}
solver = {{ name = "conjugate-gradients" }}
[method.search]
{search}

[[method]]
label = "adjoint"
solver = {{ name = "adjoint" }}
"""
SEARCH = '"prior.weight" = { low = 1e-3, high = 1.0, log = true }'


@pytest.fixture
def suite(tmp_path):
    def write(search=SEARCH, top=""):
        path = tmp_path / "small.toml"
        path.write_text(SUITE.format(search=search, top=top), "utf-8")
        return path

    return write


def files(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "presets").iterdir())}


def test_presets_are_what_was_measured_and_work_by_name(suite, tmp_path):
    tuned = tune(suite(), tmp_path / "out", Settings(trials=9, key=5))
    assert [str(one.case.label) for one in tuned[:2]] == ["tv / blur / low", "tikhonov / blur / low"]
    assert {(one.case.label.method, len(one.trials)) for one in tuned} == {("tv", 9), ("tikhonov", 9), ("adjoint", 1)}
    assert all(one.best.score >= max(trial.score for trial in one.trials) for one in tuned)
    assert sorted(files(tmp_path / "out")) == ["adjoint.toml", "tikhonov.toml", "tv.toml"]

    path = tmp_path / "out" / "presets" / "tv.toml"
    presets = read_presets(path)
    whole = {"name": "gaussian-blur", "size": 5, "sigma": 1.0, "boundary": "symmetric"}
    assert [preset.operator for preset in presets] == [[whole], [whole]]
    assert [preset.channels for preset in presets] == [1, 1]
    with pytest.raises(BadParameter, match="has no values for gaussian-blur"):
        choose(f"{path}:tv", [{"name": "gaussian-blur"}], presets[0].noise, "test")
    assert [preset.noise["sigma"] for preset in presets] == [0.02, 0.1]
    data = Photographs(size=24, count=3)
    labels = [data.label(i) for i in range(3)]
    x = torch.stack([data[i] for i in range(3)])
    for preset, one in zip(presets, tuned[::3], strict=True):
        tables = {"operator": preset.operator[0], "noise": preset.noise, "preset": f"{path}:tv"}
        pipeline = Pipeline.from_dict(tables, data=data)
        y = pipeline.simulate(x, labels)
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        score = float(psnr(pipeline.reconstruct(y, labels).x, x).mean())
        torch.set_num_threads(before)
        assert score == one.best.score
        assert preset.tuned["score"] == round(score, 3)
        assert preset.tuned["start"] == pytest.approx(float(psnr(pipeline.problem(y).start(), x).mean()), abs=6e-4)
        assert preset.tuned["score"] > preset.tuned["start"]
        cited = {name: preset.tuned[name] for name in ("trials", "sampler", "key", "metric", "images", "seeds")}
        assert cited == {"trials": 9, "sampler": "gp", "key": 5, "metric": "psnr", "images": 3, "seeds": [0]}
        assert preset.tuned["data"] == {"name": "photographs", "size": 24, "count": 3}
        assert preset.tuned["evaluations"] == sum(trial.facts["evaluations"] for trial in one.trials) > 0
        assert {"preimage", "torch", "optuna", "preimage-tune", "preimage-baselines"} <= set(preset.tuned["versions"])


def test_parameters_of_a_start_are_searched_and_counted(suite, tmp_path):
    """The preset has the start, and gives what was measured."""
    path = suite()
    warm = """
[[method]]
label = "warm"
prior = { name = "tv", weight = 0.01 }
solver = { name = "fista", max_steps = 2 }
start = { prior = { name = "tikhonov" }, solver = { name = "conjugate-gradients" } }
[method.search]
"start.prior.weight" = { low = 1e-3, high = 1.0, log = true }
"start.solver.max_steps" = { low = 1, high = 30 }
"""
    path.write_text(path.read_text() + warm)
    one, _ = tune(path, tmp_path / "out", Settings(trials=4, key=1), only=["warm"])
    presets = tmp_path / "out" / "presets" / "warm.toml"
    (preset, _) = read_presets(presets)
    assert preset.start["prior"]["weight"] == one.best.parameters["start.prior.weight"]
    assert preset.start["solver"]["max_steps"] == one.best.parameters["start.solver.max_steps"]
    assert len({trial.facts["evaluations"] for trial in one.trials}) > 1
    merge_presets(presets, [])
    assert read_presets(presets)[0].start == preset.start
    data = Photographs(size=24, count=3)
    tables = {"operator": preset.operator[0], "noise": preset.noise, "preset": f"{presets}:warm"}
    pipeline = Pipeline.from_dict(tables, data=data)
    labels = [data.label(i) for i in range(3)]
    x = torch.stack([data[i] for i in range(3)])
    found = pipeline.reconstruct(pipeline.simulate(x, labels), labels)
    assert float(psnr(found.x, x).mean()) == pytest.approx(one.best.score, abs=1e-4)


def test_evaluations_are_counted_for_each_image(suite, tmp_path):
    """The adjoint solver applies A^T once to each of the three images."""
    tuned = tune(suite(), tmp_path / "out", Settings(trials=1), only=["adjoint"])
    assert [one.evaluations for one in tuned] == [3, 3]


def test_the_outcome_depends_on_key_and_sampler_not_on_jobs_or_company(suite, tmp_path):
    settings = Settings(trials=4, sampler="tpe")
    tune(suite(), tmp_path / "one", settings)
    tune(suite(), tmp_path / "two", settings, jobs=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    tune(suite(), tmp_path / "alone", settings, only=["tikhonov"])
    assert files(tmp_path / "alone") == {"tikhonov.toml": files(tmp_path / "one")["tikhonov.toml"]}
    tune(suite(), tmp_path / "key", replace(settings, key=1), only=["tikhonov"])
    assert files(tmp_path / "key") != files(tmp_path / "alone")


def test_a_larger_budget_continues_and_a_smaller_one_looks_at_the_first_trials(suite, tmp_path):
    tune(suite(), tmp_path / "whole", Settings(trials=6), only=["tikhonov"])
    tune(suite(), tmp_path / "grown", Settings(trials=3), only=["tikhonov"])
    small = files(tmp_path / "grown")
    calls = []
    tune(
        suite(),
        tmp_path / "grown",
        Settings(trials=6),
        only=["tikhonov"],
        told=lambda case, made, best: calls.append(made),
    )
    assert calls == [3, 4, 5, 6, 3, 4, 5, 6]
    assert files(tmp_path / "grown") == files(tmp_path / "whole")
    tune(suite(), tmp_path / "grown", Settings(trials=3), only=["tikhonov"])
    assert files(tmp_path / "grown") == small


def test_a_best_value_at_the_edge_is_a_warning(suite, tmp_path, capsys):
    path = suite(search='"prior.weight" = { low = 1e-6, high = 1e-5, log = true }')
    arguments = ["tune", str(path), "--out", str(tmp_path / "out"), "--budget", "10", "--only", "tikhonov"]
    assert command_line(arguments) == 0
    printed = capsys.readouterr()
    assert "tikhonov / blur / high: the best score" in printed.err, "noise is amplified: below the start"
    assert "warning: tikhonov / blur / high: prior.weight = 1e-05 lies at the upper edge" in printed.err
    assert "start psnr" in printed.out
    text = (tmp_path / "out" / "presets" / "tikhonov.toml").read_text("utf-8")
    assert "# warning: prior.weight = 1e-05 lies at the upper edge of the range that was searched" in text
    assert "upper edge" in choose(f"{tmp_path}/out/presets/tikhonov.toml", *problem(0.1), "test").tuned["edge"][0]
    pictures = sorted(path.name for path in (tmp_path / "out" / "figures").iterdir())
    assert pictures == ["tikhonov_blur_high.png", "tikhonov_blur_low.png"]


def problem(sigma):
    return [{"name": "gaussian-blur", "size": 5, "sigma": 1.0}], {"name": "gaussian", "sigma": sigma}


@pytest.mark.parametrize(
    ("search", "mentions"),
    [
        ('"prior.wieght" = { low = 0.1, high = 1.0 }', "did you mean 'weight'"),
        ('"prior.weight" = { low = 1.0, high = 0.1 }', "low < high"),
        ('"prior.weight" = { low = -1.0, high = 0.1 }', "a weight >= 0"),
        ('"prior.weight" = { low = 0.0, high = 0.1, log = true }', "low > 0"),
        ('"solver.max_steps" = { low = 1.5, high = 9.5 }', "includes 1.5"),
        ('"prior.kind" = { low = 1, high = 2 }', "'gradient' or 'identity'"),
        ('"prior.kind" = { choices = ["gradient", "other"] }', "'other'"),
        ('"operator.sigma" = { low = 1.0, high = 2.0 }', "parameter of the prior or the solver"),
        ('"prior" = { low = 1.0, high = 2.0 }', "parameter of the prior or the solver"),
        ('"prior.0.weight" = { low = 1.0, high = 2.0 }', "does not take '0.weight'"),
    ],
)
def test_bad_searches_are_refused_before_anything_is_run(suite, tmp_path, search, mentions):
    with pytest.raises(PreimageError) as caught:
        tune(suite(search=search), tmp_path / "out", Settings(trials=2))
    assert mentions in str(caught.value)
    assert "tikhonov" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_search_over_a_start_that_is_not_there_is_refused(suite):
    with pytest.raises(BadParameter, match="the method has no start"):
        cases(load_suite(suite(search='"start.prior.weight" = { low = 0.1, high = 1.0 }')))


def test_integers_where_real_numbers_are_taken_mean_real_numbers(suite):
    searched = cases(load_suite(suite(search='"prior.weight" = { low = 1, high = 3 }')), ["tikhonov"])
    assert type(searched[0].space["prior.weight"]).__name__ == "FloatDistribution"
    searched = cases(load_suite(suite(search='"solver.max_steps" = { low = 1, high = 3 }')), ["tikhonov"])
    assert type(searched[0].space["solver.max_steps"]).__name__ == "IntDistribution"


def test_other_bad_settings(suite, tmp_path):
    for settings, mentions in (({"trials": 0}, "0 trials"), ({"sampler": "grid"}, "random, qmc, tpe, gp")):
        with pytest.raises(BadParameter, match=mentions):
            Settings(**settings)
    with pytest.raises(BadParameter, match="did you mean 'tikhonov'"):
        tune(suite(), tmp_path / "out", only=["tikonov"])
    with pytest.raises(PreimageError, match="no metric is named"):
        tune(suite(), tmp_path / "out", Settings(metric="psnrr"))
    with pytest.raises(BadParameter, match="jobs"):
        tune(suite(), tmp_path / "out", jobs=0)


def test_failing_trials_do_not_stop_the_rest(suite, tmp_path, capsys):
    """A step size far too long makes every trial of one method diverge; the others are tuned."""
    path = suite(top="reference = 'tv'")
    text = path.read_text("utf-8") + (
        '\n[[method]]\nlabel = "diverging"\nprior = { name = "tv" }\nsolver = { name = "ista", backtracking = false }\n'
        '[method.search]\n"prior.weight" = { low = 1e-4, high = 1e-3, log = true }\n'
        '"solver.step_size" = { low = 100.0, high = 1000.0 }\n'
    )
    path.write_text(text, "utf-8")
    chosen = ["--only", "diverging", "--only", "tikhonov"]
    assert command_line(["tune", str(path), "--out", str(tmp_path / "out"), "--budget", "3", *chosen]) == 1
    printed = capsys.readouterr()
    assert "none worked" in printed.out
    assert "diverging / blur / low: all of 3 trials failed" in printed.err
    assert sorted(files(tmp_path / "out")) == ["tikhonov.toml"]


def test_a_method_that_does_not_fit_is_left_out_with_the_reason(suite, tmp_path):
    path = suite()
    text = path.read_text("utf-8").replace('prior = { name = "tv" }', 'prior = { name = "tv" }', 1)
    text = text.replace('solver = { name = "admm", max_steps = 60 }', 'solver = { name = "conjugate-gradients" }')
    text += '\n[[method]]\nlabel = "unknown preset"\npreset = "no-such-preset"\n'
    path.write_text(text, "utf-8")
    tuned = tune(path, tmp_path / "out", Settings(trials=2))
    reasons = {one.case.label.method: one.skipped for one in tuned}
    assert "Quadratic" in reasons["tv"]
    assert "no preset 'no-such-preset'" in reasons["unknown preset"]
    assert reasons["tikhonov"] == reasons["adjoint"] == ""
    table, warnings = summary(tuned, "psnr")
    assert table.count("does not fit") == 4
    assert any("tv / blur / low was left out" in warning for warning in warnings)


def test_a_folder_with_another_study_or_in_use_is_refused(suite, tmp_path):
    out = tmp_path / "out"
    tune(suite(), out, Settings(trials=2), only=["tikhonov"])
    changed = suite(top="seeds = [0, 1]")
    with pytest.raises(BadFile, match="problem differs"):
        tune(changed, out, Settings(trials=2), only=["tikhonov"])
    tune(changed, out, Settings(trials=2), only=["tikhonov"], overwrite=True)
    assert choose(str(out / "presets" / "tikhonov.toml"), *problem(0.1), "test").tuned["seeds"] == [0, 1]
    with locked(out / "studies.db"), pytest.raises(BadFile, match="in use by another"):
        tune(changed, out, Settings(trials=2), only=["tikhonov"])
    (out / "studies.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(BadFile, match="damaged"):
        tune(changed, out, Settings(trials=2), only=["tikhonov"])


def test_overrides_by_operator_are_tuned_and_by_data_refused(suite, tmp_path):
    path = suite()
    text = path.read_text("utf-8")
    override = (
        '[[method.override]]\nnoise = "high"\nset = { "prior.kind" = "identity" }\n\n[[method]]\nlabel = "adjoint"'
    )
    path.write_text(text.replace('[[method]]\nlabel = "adjoint"', override), "utf-8")
    kinds = [one.parts["prior"].get("kind") for one in cases(load_suite(path), ["tikhonov"])]
    assert kinds == [None, "identity"]
    more = '\n[[data]]\nlabel = "others"\nname = "photographs"\nsize = 24\ncount = 1\n'
    text = text.replace('[[method]]\nlabel = "adjoint"', override.replace('noise = "high"', 'data = "others"'))
    path.write_text(text + more, "utf-8")
    with pytest.raises(BadParameter, match="other parameters on data 'others'"):
        cases(load_suite(path), ["tikhonov"])


def test_merging_replaces_what_is_for_the_same_problem(tmp_path):
    def entry(sigma, weight, channels=1):
        parts = {"operator": [{"name": "identity"}], "noise": {"name": "gaussian", "sigma": sigma}}
        parts |= {"prior": {"name": "tv", "weight": weight}, "solver": {"name": "admm"}}
        return Entry("tv", parts, {"score": 1.0, "edge": ["weight lies at the edge"]}, channels)

    path = tmp_path / "tv.toml"
    write_presets(path, [entry(0.1, 1.0), entry(0.2, 2.0)])
    merge_presets(path, [entry(0.3, 3.0), entry(0.1, 4.0)])
    found = read_presets(path)
    assert [(preset.noise["sigma"], preset.prior["weight"]) for preset in found] == [(0.1, 4.0), (0.2, 2.0), (0.3, 3.0)]
    assert path.read_text("utf-8").count("# warning: weight lies at the edge") == 3
    before = path.read_bytes()
    merge_presets(path, [entry(0.1, 4.0)])
    assert path.read_bytes() == before
    merge_presets(path, [entry(0.1, 5.0, channels=3)])
    found = [(preset.channels, preset.prior["weight"]) for preset in read_presets(path)]
    assert found == [(1, 4.0), (1, 2.0), (1, 3.0), (3, 5.0)]


@pytest.mark.parametrize("name", shipped())
def test_shipped_suites_are_sound(name):
    suite = load_suite(find(name))
    assert cases(suite)
    assert all(case.space for case in cases(suite)), "every method of a shipped suite is searched"
    assert name.endswith("-photographs") or f"{name}-photographs" in shipped()


def test_names_of_suites():
    with pytest.raises(BadFile, match="did you mean 'gaussian-blur'"):
        find("gausian-blur")


def test_the_command_without_a_suite_lists_those_that_ship(capsys):
    assert command_line(["tune"]) == 0
    assert "perona-malik" in capsys.readouterr().out


FORKING = """
import os, random, signal, sqlite3, sys, time
from pathlib import Path
from preimage_tune import Settings, Store, tune
from preimage_tune.tuning import STUDIES

suite, out = sys.argv[1], Path(sys.argv[2])
settings = Settings(trials=10, sampler="gp")

def forked(folder):
    child = os.fork()
    if child == 0:
        tune(suite, folder, settings)
        os._exit(0)
    return child

def stored(folder):
    if not (folder / STUDIES).exists():
        return 0
    connection = sqlite3.connect(f"file:{folder / STUDIES}?mode=ro", uri=True)
    try:
        return connection.execute("SELECT COUNT(*) FROM trials").fetchone()[0]
    except sqlite3.Error:
        return 0
    finally:
        connection.close()

Store(out / "imports.db").close()
tune(suite, out / "imports", Settings(trials=9), only=["tikhonov"])
started = time.monotonic()
assert os.waitpid(forked(out / "whole"), 0)[1] == 0
lasted = time.monotonic() - started
whole = stored(out / "whole")
random.seed(7)
moments = []
for attempt in range(60):
    child = forked(out / "killed")
    time.sleep(random.uniform(0, 0.5 * lasted))
    os.kill(child, signal.SIGKILL)
    if os.waitpid(child, 0)[1] != signal.SIGKILL:
        break
    moments.append(stored(out / "killed"))
    if 0.7 * whole < moments[-1] < whole:
        break
assert os.waitpid(forked(out / "killed"), 0)[1] == 0
print(whole, *moments)
"""


def test_killed_by_sigkill_at_random_moments_ends_with_the_same_presets(suite, tmp_path):
    """One process that forks the searches, so that importing is not what is killed most of the time."""
    command = [sys.executable, "-c", FORKING, str(suite()), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    whole, *moments = map(int, run.stdout.split())
    assert len({moment for moment in moments if 0 < moment < whole}) >= 2, "no kill was in the middle"
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    print(f"killed with {moments} of {whole} trials stored")


@pytest.mark.slow
def test_the_command_killed_and_started_again(suite, tmp_path):
    path = suite()

    def start(out):
        arguments = ["tune", str(path), "--out", str(tmp_path / out), "--budget", "12", "--only", "tv", "--quiet"]
        return subprocess.Popen([sys.executable, "-m", "preimage", *arguments])

    assert start("whole").wait() == 0
    process = start("killed")
    target = int(np.random.default_rng(1).integers(3, 16))
    while stored(tmp_path / "killed" / "studies.db") < target:
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert target <= stored(tmp_path / "killed" / "studies.db") < 24
    assert not (tmp_path / "killed" / "presets").exists()
    assert start("killed").wait() == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


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
