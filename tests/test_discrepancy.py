"""weight = "auto": the data are fitted as well as the noise allows, image by image."""

import pytest
import torch

from preimage import Identity, Key, NoNoise, Pipeline, Problem, load
from preimage._discrepancy import weight_by_discrepancy
from preimage.errors import BadParameter, Incompatible

TABLES = {
    "shape": [1, 24, 24],
    "operator": {"name": "identity"},
    "noise": {"name": "gaussian", "sigma": 0.05},
    "prior": {"name": "tikhonov", "kind": "gradient", "weight": "auto"},
    "solver": {"name": "conjugate-gradients"},
}


def smooth_images(count=3):
    rows = torch.linspace(0, 3, 24)
    return torch.stack(
        [(0.5 + 0.1 * (i + 1) * torch.sin(rows[:, None] + i) * torch.cos(rows))[None] for i in range(count)]
    )


def test_the_misfit_is_what_the_noise_explains():
    pipeline = Pipeline.from_dict(TABLES)
    y = pipeline.simulate(smooth_images())
    result = pipeline.reconstruct(y)
    ratio = pipeline.problem(y).misfit(result.x) / pipeline.noise.expected_misfit(y)
    assert float((ratio - 1).abs().max()) < 0.03
    assert result.details["weight"].shape == (3,)
    truth = smooth_images()
    assert bool(((result.x - truth).flatten(1).norm(dim=1) < 0.5 * (y - truth).flatten(1).norm(dim=1)).all())


def test_each_image_has_its_own_weight_whoever_is_in_the_batch():
    pipeline = Pipeline.from_dict(TABLES)
    y = pipeline.simulate(smooth_images())
    whole = pipeline.reconstruct(y, ["0", "1", "2"])
    alone = pipeline.reconstruct(y[1:2], ["1"])
    assert torch.equal(whole.details["weight"][1:2], alone.details["weight"])
    torch.testing.assert_close(whole.x[1:2], alone.x, rtol=0, atol=1e-6)
    number = Pipeline.from_dict({**TABLES, "prior": {**TABLES["prior"], "weight": float(alone.details["weight"])}})
    torch.testing.assert_close(number.reconstruct(y[1:2], ["1"]).x, alone.x, rtol=0, atol=1e-6)


def test_where_no_weight_explains_the_noise_the_search_ends():
    """The largest TV weight leaves a constant image, which fits a noise level of 10 too well: any weight does."""
    pipeline = Pipeline.from_dict({**TABLES, "noise": {"name": "gaussian", "sigma": 10.0}})
    result = pipeline.reconstruct(smooth_images())
    assert bool(torch.isfinite(result.x).all())
    assert bool(torch.isfinite(result.details["weight"]).all())


def test_an_unknown_noise_level_is_refused():
    pipeline = Pipeline.from_dict({**TABLES, "noise": {"name": "none"}})
    with pytest.raises(Incompatible, match=r"known level above zero"):
        pipeline.reconstruct(smooth_images())
    prior = load("prior", "tikhonov")(in_shape=(1, 24, 24))
    problem = Problem(Identity((1, 24, 24)), smooth_images(), NoNoise(), prior)
    with pytest.raises(Incompatible, match="NoNoise"):
        weight_by_discrepancy(problem, load("solver", "fista")(), Key(0).rows(3))


def test_auto_may_stand_once():
    two = [{"name": "tv", "weight": "auto"}, {"name": "tikhonov", "weight": "auto"}]
    with pytest.raises(BadParameter, match='"auto" for one of the priors'):
        Pipeline.from_dict({**TABLES, "prior": two, "solver": {"name": "fista"}})
    pipeline = Pipeline.from_dict(
        {**TABLES, "prior": [two[0], {"name": "tikhonov", "weight": 0.5}], "solver": {"name": "fista"}}
    )
    assert pipeline.weight == "auto"
    with pytest.raises(BadParameter, match="weight is 'automatic'"):
        Pipeline.from_dict({**TABLES, "prior": {"name": "tikhonov", "weight": "automatic"}})
