"""Methods x operators: every cell runs and improves on its start, or is refused at assembly with what would fit."""

import re
import tomllib
from pathlib import Path

import preimage_compare
import pytest
import torch
from preimage_compare import load_suite
from preimage_data import psnr

from preimage import LinearOperator, Pipeline, Status, load
from preimage._algebra import Composed
from preimage._plugins import discover
from preimage.errors import PreimageError

SUITES = Path(preimage_compare.__file__).parent / "suites"
SUITE = """
title = "Every method"
include = ["{suites}/_cross.toml"]

[[data]]
label = "grey"
name = "photographs"
crop = "centre"
size = 32
count = 2

[[data]]
label = "colour"
name = "photographs"
names = ["astronaut"]
colour = "colour"
size = 32
"""
MEASUREMENTS = {"grey": 32 * 32 // 2, "colour": 3 * 32 * 32 // 2}

# Nothing is lost or gained: the back-projection is what others start from, and the discrepancy principle accepts the
# start of a method without a prior (diffused grey photographs are as near to the data as the noise allows).
STAYS = {("adjoint", operator) for operator in ("identity", "blur", "random", "dct-50")}
ACCEPTED = {("landweber", "diffusion"), ("irgnm", "diffusion")}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    path = tmp_path_factory.mktemp("suite") / "every.toml"
    path.write_text(SUITE.format(suites=SUITES.as_posix()), "utf-8")
    return load_suite(path)


# Of the classical methods; those with networks have tests of their own.
METHODS = list(
    dict.fromkeys(
        entry["label"]
        for name in ("_methods.toml", "_methods-without-prior.toml", "_cross.toml")
        for entry in tomllib.loads((SUITES / name).read_text("utf-8"))["method"]
    )
)


def test_every_solver_and_prior_of_the_baselines_is_in_the_table(suite):
    used = {"solver": set(), "prior": set()}
    for method in suite.methods:
        used["solver"].add(method.tables["solver"]["name"])
        priors = method.tables.get("prior", [])
        used["prior"] |= {table["name"] for table in (priors if isinstance(priors, list) else [priors])}
    (baselines,) = (plugin for plugin in discover().plugins if plugin.distribution == "preimage-baselines")
    offered = {kind: {c.name for c in baselines.components if c.kind == kind} for kind in ("solver", "prior")}
    assert offered["solver"] == used["solver"]
    assert offered["prior"] - used["prior"] <= {"non-negative"}  # box stands for both constraints


def quick(prior):
    """The table, or tables, of a prior; BM3D without what takes most of its time and changes little."""
    if isinstance(prior, list):
        return [quick(table) for table in prior]
    return {**prior, "exact_variances": False} if prior.get("name") == "bm3d" else prior


def assembled(tables, images) -> Pipeline | None:
    """The pipeline; None if it is refused in the way that it should be."""
    refused: PreimageError | None = None
    try:
        return Pipeline.from_dict(tables, data=images)
    except PreimageError as error:
        refused = error
    assert refused.expected
    assert re.search(r"\b(fit|fits|take|use|choose|write)\b", refused.remedy), refused
    return None


@pytest.mark.parametrize("data", ["grey", "colour"])
@pytest.mark.parametrize("method", METHODS)
def test_every_cell_runs_or_is_refused_with_what_would_fit(suite, method, data):
    images = suite.datasets[data]
    truth = torch.stack([images[index] for index in range(len(images))])
    for part in (p for p in suite.operators if p.label != "blur-random"):
        tables = suite.method(method).tables_for(data, part.label, "0.025")
        operators = [dict(table) for table in part.tables]
        if operators[0]["name"] == "compressive-sensing":
            operators[0]["measurements"] = MEASUREMENTS[data]
        whole = {**tables, "operator": operators, "noise": dict(suite.noises[0].table), "seed": 1}
        if "prior" in whole:
            whole["prior"] = quick(whole["prior"])
        if (pipeline := assembled(whole, images)) is None:
            continue
        y = pipeline.simulate(truth)
        result = pipeline.reconstruct(y, throw=False)
        assert Status.DIVERGED not in result.status, (part.label, result.reasons)
        assert all(result.reasons)
        start = pipeline.problem(y).start()
        gain = float((psnr(result.x, truth) - psnr(start, truth)).mean())
        if (method, part.label) in STAYS or ((method, part.label) in ACCEPTED and max(result.steps) == 0):
            assert torch.equal(result.x, start), (part.label, gain)
        else:
            assert gain > 0.0, (part.label, gain)


@pytest.mark.parametrize("method", ["landweber", "lsqr", "irgnm", "richardson-lucy"])
def test_a_method_without_a_prior_is_refused_where_the_start_is_a_solution(suite, method):
    images, shape = suite.datasets["grey"], [1, 32, 32]
    for operator in (
        {"name": "identity"},
        {"name": "inpainting", "mask": "random", "keep": 0.5},
        {"name": "compressive-sensing", "ensemble": "dct", "measurements": 512},
    ):
        tables = {"operator": operator, "noise": {"name": "gaussian", "sigma": 0.025}, "shape": shape}
        tables["solver"] = dict(suite.method(method).tables["solver"])
        with pytest.raises(PreimageError) as caught:
            Pipeline.from_dict(tables)
        assert method == "richardson-lucy" or "least-squares solution" in str(caught.value)
        if method != "richardson-lucy":
            tables["start"] = {"solver": {"name": "adjoint"}}
            assert Pipeline.from_dict(tables, data=images).start is not None


def test_at_least_twelve_methods_run_on_a_nonlinear_operator(suite):
    operator = load("operator", "perona-malik")
    assert not issubclass(operator, LinearOperator | Composed)
    fitting = [
        m for m in suite.methods if issubclass(operator, load("solver", m.tables["solver"]["name"]).operator_type)
    ]
    assert len(fitting) >= 12
