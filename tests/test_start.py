"""A pipeline's [start]: another solver run first, on the same measurements, whose estimate is where the own starts."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from preimage_baselines import ADMM, FISTA, ConjugateGradients, Landweber, Tikhonov, TotalVariation
from preimage_gaussian_blur import GaussianBlur

from preimage import GaussianNoise, Key, Pipeline, Solver, Start, Status, Trace, solve
from preimage.assembly import versions, with_overrides
from preimage.errors import BadParameter, Diverged, Incompatible, PreimageError, SeveralProblems
from preimage.weights import digests, load_weights

SHAPE = (1, 16, 16)
OWN = {
    "seed": 5,
    "shape": list(SHAPE),
    "operator": {"name": "gaussian-blur", "size": 5, "sigma": 1.0},
    "noise": {"name": "gaussian", "sigma": 0.02},
    "prior": {"name": "tv", "weight": 0.003},
    "solver": {"name": "fista", "max_steps": 3},
}
FIRST = {"prior": {"name": "tikhonov", "weight": 0.05}, "solver": {"name": "conjugate-gradients"}}
TABLES = {**OWN, "start": FIRST}


@pytest.fixture
def images() -> torch.Tensor:
    return Key(0).uniform((3, *SHAPE))


def test_the_start_is_the_estimate_of_the_other_pipeline(images):
    """What two pipelines and x0 by hand give, from TOML and from Python."""
    first = Pipeline.from_dict({**OWN, **FIRST})
    y = first.simulate(images)
    other = first.reconstruct(y)
    by_hand = Pipeline.from_dict(OWN).reconstruct(y, x0=other.x)
    parts = Pipeline(
        operator=GaussianBlur(SHAPE, size=5, sigma=1.0),
        noise=GaussianNoise(sigma=0.02),
        prior=TotalVariation(SHAPE),
        weight=0.003,
        solver=FISTA(max_steps=3),
        start=Start(solver=ConjugateGradients(), prior=Tikhonov(SHAPE), weight=0.05),
        key=Key(5),
    )
    for pipeline in (Pipeline.from_dict(TABLES), parts):
        result = pipeline.reconstruct(y)
        assert torch.equal(result.details["start"], other.x)
        assert torch.equal(result.x, by_hand.x)
        assert (result.steps, result.reasons, result.status) == (by_hand.steps, by_hand.reasons, by_hand.status)
        told = result.provenance["start"]
        assert told["reasons"] == list(other.reasons)
        assert told["steps"] == list(other.steps)
        assert told["status"] == ["converged"] * 3
    assert not torch.equal(by_hand.x, Pipeline.from_dict(OWN).reconstruct(y).x)


def test_a_batch_is_its_images_one_by_one_with_operators_of_their_own(images):
    masks = {"operator": {"name": "inpainting-per-image", "keep": 0.5}, "prior": FIRST["prior"]}
    pipeline = Pipeline.from_dict(TABLES | masks)
    labels = ["a", "b", "c"]
    y = pipeline.simulate(images, labels)
    together = pipeline.reconstruct(y, labels)
    alone = pipeline.reconstruct(y[2:], ["c"])
    torch.testing.assert_close(alone.x, together.x[2:], rtol=0, atol=1e-5)
    torch.testing.assert_close(alone.details["start"], together.details["start"][2:], rtol=0, atol=1e-5)


@dataclass(frozen=True, kw_only=True)
class Wait(Solver[torch.Tensor]):
    """Twenty steps that each take as long as they say."""

    seconds: float = 0.005
    max_steps: int = 20
    prior_type: ClassVar = None

    def init(self, problem, keys):
        return keys[0].normal((len(problem.y), *problem.operator.in_shape), like=problem.y)

    def step(self, problem, state):
        import time

        time.sleep(self.seconds)
        return state

    def estimate(self, problem, state):
        return state


def test_its_seconds_count_and_observers_see_the_own_solver_alone(images):
    pipeline = replace(Pipeline.from_dict(TABLES), start=Start(solver=Wait()))
    y = pipeline.simulate(images)
    trace = Trace()
    result = pipeline.reconstruct(y, observers=[trace])
    assert result.provenance["start"]["seconds"] >= 20 * 0.005
    assert result.seconds >= result.provenance["start"]["seconds"] + trace.seconds[-1]
    assert len(trace.seconds) == 1 + 3


def test_start_and_own_solver_draw_different_random_numbers(images):
    pipeline = replace(Pipeline.from_dict(OWN), solver=Wait(seconds=0), prior=None, start=Start(solver=Wait(seconds=0)))
    result = pipeline.reconstruct(pipeline.simulate(images))
    assert not torch.equal(result.x, result.details["start"])
    assert torch.equal(pipeline.reconstruct(pipeline.simulate(images)).details["start"], result.details["start"])


def test_its_weight_may_be_chosen_by_the_discrepancy_principle(images):
    tables = with_overrides(TABLES, {"start.prior.weight": "auto"}, "test")
    smooth = torch.linspace(0, 1, 16).expand(2, 1, 16, 16) * torch.tensor([0.5, 1.0]).reshape(2, 1, 1, 1)
    pipeline = Pipeline.from_dict(tables)
    result = pipeline.reconstruct(y := pipeline.simulate(smooth))
    weight = result.details["start.weight"]
    assert weight.shape == (2,)
    assert "weight" not in result.details
    problem = replace(pipeline.problem(y), prior=Tikhonov(SHAPE), weight=weight)
    torch.testing.assert_close(solve(problem, ConjugateGradients()).x, result.details["start"])


def test_where_a_start_diverges_the_reason_says_so(images):
    """Landweber with a step far too large, on an image that is zero: there it stays, and is right."""
    tables = {**OWN, "noise": {"name": "none"}}
    pipeline = replace(Pipeline.from_dict(tables), start=Start(solver=Landweber(step_size=1e9)))
    x = images * torch.tensor([1.0, 0.0, 1.0]).reshape(3, 1, 1, 1)
    with pytest.raises(Diverged, match=r"^start: Landweber .*images \[0, 2\]"):
        pipeline.reconstruct(pipeline.simulate(x))
    result = pipeline.reconstruct(pipeline.simulate(x), throw=False)
    assert ["its start diverged: Landweber" in reason for reason in result.reasons] == [True, False, True]
    assert result.provenance["start"]["status"] == ["diverged", "converged", "diverged"]
    assert bool(torch.isfinite(result.x).all())
    assert Status.DIVERGED not in result.status


def test_an_x0_beside_a_start_is_refused(images):
    pipeline = Pipeline.from_dict(TABLES)
    with pytest.raises(BadParameter, match="x0 is given to a pipeline that has a start"):
        pipeline.reconstruct(pipeline.simulate(images), x0=images)


def test_the_resolved_configuration_repeats_it(images):
    first = Pipeline.from_dict(TABLES)
    assert first.config["start"]["solver"]["tolerance"] == 1e-6
    assert set(first.config["start"]) == {"prior", "solver"}
    again = Pipeline.from_dict(first.config)
    assert again.config == first.config
    y = first.simulate(images)
    assert torch.equal(again.reconstruct(y).x, first.reconstruct(y).x)
    assert Pipeline.from_dict(TABLES, overrides={"start.solver.max_steps": 2}).start.solver.max_steps == 2
    assert "start" not in Pipeline.from_dict(OWN).config


def test_versions_and_weights_of_a_start_are_in_the_provenance(images):
    """A plugin and a weights file that only the start needs."""
    first = {"prior": {"name": "gaussian-spectrum", "weights": "faces"}, "solver": {"name": "gaussian-posterior"}}
    config = Pipeline.from_dict({**OWN, "start": first}).config
    provenance = {"versions": versions({"start": config["start"]}), "weights": digests(config)}
    assert "preimage-baselines" in provenance["versions"]
    assert "preimage-gaussian-blur" not in provenance["versions"]
    assert provenance["weights"] == {"start.prior.weights": load_weights("faces", "prior/gaussian-spectrum").digest}


def test_everything_wrong_with_it_is_reported_with_the_rest():
    wrong = {
        "prior": {"name": "tvv"},
        "solver": {"name": "fista", "max_stepz": 1},
        "operator": {"name": "identity"},
    }
    with pytest.raises(SeveralProblems) as caught:
        Pipeline.from_dict({**OWN, "seed": "one", "start": wrong}, where="mine.toml")
    message = str(caught.value)
    assert message.startswith("mine.toml: 4 problems")
    for part in ("start: no prior is named 'tvv'", "start.solver 'fista' does not take 'max_stepz'",
                 "[start] does not take 'operator'", "seed is 'one'"):  # fmt: skip
        assert part in message, part


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (3, "start is 3"),
        ({}, "there is no [start.solver]"),
        ({"solver": {}}, "[start.solver] has no name"),
        ({"solver": [{"name": "fista"}] * 2}, "start.solver is ["),
        ({**FIRST, "prior": {"name": "tikhonov", "weight": -1}}, "[start.prior] weight is -1"),
        ({**FIRST, "prior": {"name": "tv"}}, "start.prior 'tv' is "),
        ({"solver": {"name": "admm"}}, "there is no [start.prior]"),
        ({**FIRST, "solver": {"name": "landweber"}}, "[start.prior] would have no effect"),
        ({"solver": {"name": "landweber", "step_size": -1.0}}, "start.solver 'landweber'"),
        ({"preset": "no-such-preset"}, "start: there is no preset 'no-such-preset'"),
    ],
)
def test_what_is_wrong_has_a_place(start, message):
    with pytest.raises(PreimageError) as caught:
        Pipeline.from_dict({**OWN, "start": start}, where="mine.toml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("mine.toml: ")


def test_a_start_from_python_must_fit_too():
    pipeline = Pipeline.from_dict(OWN)
    with pytest.raises(Incompatible, match=r"^start: there is no prior"):
        replace(pipeline, start=Start(solver=ADMM()))


def test_a_start_may_name_a_preset_and_a_preset_a_start(tmp_path, images):
    path = tmp_path / "presets.toml"
    path.write_text(
        '[[preset]]\nname = "smooth"\noperator = { name = "gaussian-blur", size = 5 }\nnoise = { name = "gaussian" }\n'
        'prior = { name = "tikhonov", weight = 0.05 }\nsolver = { name = "conjugate-gradients" }\n'
        '[[preset]]\nname = "warm"\noperator = { name = "gaussian-blur", size = 5 }\nnoise = { name = "gaussian" }\n'
        'prior = { name = "tv", weight = 0.003 }\nsolver = { name = "fista", max_steps = 3 }\n'
        'start = { prior = { name = "tikhonov", weight = 0.05 }, solver = { name = "conjugate-gradients" } }\n'
    )
    whole = Pipeline.from_dict(TABLES)
    named = Pipeline.from_dict({**OWN, "start": {"preset": f"{path}:smooth"}})
    rest = {key: OWN[key] for key in ("seed", "shape", "operator", "noise")}
    from_preset = Pipeline.from_dict({**rest, "preset": f"{path}:warm"})
    y = whole.simulate(images)
    for pipeline in (named, from_preset):
        assert pipeline.config["start"] == whole.config["start"]
        assert torch.equal(pipeline.reconstruct(y).x, whole.reconstruct(y).x)
    over = Pipeline.from_dict({**rest, "preset": f"{path}:warm", "start": {"prior": {"weight": 0.5}}})
    assert math.isclose(over.config["start"]["prior"]["weight"], 0.5)
    assert over.config["start"]["prior"]["name"] == "tikhonov"
    with pytest.raises(BadParameter, match=r"\[start\] does not take 'start'"):
        Pipeline.from_dict({**OWN, "start": {"preset": f"{path}:warm"}})
    path.write_text(path.read_text().replace("start = {", "start = 3 # {"))
    with pytest.raises(BadParameter, match="has the start 3"):
        Pipeline.from_dict({**rest, "preset": f"{path}:warm"})


@pytest.mark.parametrize("solver", ["adjoint", "gaussian-posterior", "latent-map"])
def test_a_start_that_would_have_no_effect_is_refused(solver):
    tables = {**TABLES, "solver": {"name": solver}, "prior": {"name": "gaussian-spectrum"}}
    if solver == "adjoint":
        del tables["prior"]
    with pytest.raises(Incompatible, match=r"there is a \[start\], from which \w+, as it is here, does not begin"):
        Pipeline.from_dict(tables)
