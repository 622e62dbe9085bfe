"""Reconstruction by the inverse of a learned operator: its certificate, its stability, and what it refuses."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from preimage_iresnet import plugin
from preimage_iresnet.map_inverse import MapInverse
from preimage_iresnet.network import InvertibleResNet
from preimage_iresnet.reference import FORWARD, ReferenceMap

from preimage import (
    GaussianNoise,
    Identity,
    Key,
    NoNoise,
    Pipeline,
    PoissonNoise,
    Problem,
    Status,
    load,
    solve,
    trained,
)
from preimage.errors import BadData, BadParameter, Incompatible, ShapeMismatch
from preimage.testing import check_prior, check_solver
from preimage.trained import Inversion
from preimage.weights import Weights, save_weights

SHAPE = (1, 8, 10)
NOISE = GaussianNoise(sigma=0.05)
RULES = ("estimated", "certified")


def problem(y, noise=NOISE, operator=None, prior=None):
    shape = tuple(y.shape[1:])
    return Problem(operator or Identity(shape), y, noise, prior or ReferenceMap(shape))


def measurements(count=4, shape=SHAPE, dtype=torch.float64):
    return Key(1).uniform((count, *shape), like=torch.zeros((), dtype=torch.float64)).to(dtype)


def exact_inverse(y):
    """The mean of two copies of phi^-1, in numpy: both copies are equal, as the map acts on each alone."""
    z = y.double().numpy()
    u = z
    for _ in range(60):
        u = z + 0.25 * np.tanh((np.roll(u, 1, -1) + u + np.roll(u, -1, -1)) / 3 + 0.1)
    return torch.from_numpy(u)


class Offset(ReferenceMap):
    """As the reference map, inverted with an error and a bound that are known: all states are off by `error`."""

    error = 1e-2

    def invert(self, z, tolerance, certified):
        exact = super().invert(z, 1e-12, certified)
        bound = torch.full_like(exact.bound, self.error * math.sqrt(z[0].numel()) + 1e-9)
        return Inversion(exact.x + self.error, bound, exact.evaluations, exact.contraction)


@pytest.mark.parametrize("rule", RULES)
def test_the_laws_of_solvers_and_of_the_reference_map(rule):
    check_solver(MapInverse(rule=rule))
    check_solver(MapInverse(rule=rule, tolerance=1e-8))
    check_prior(ReferenceMap(SHAPE))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-6])
def test_the_certificate_holds_and_is_not_far_from_the_truth(rule, dtype, tolerance):
    y = measurements(20, dtype=dtype)
    result = solve(problem(y), MapInverse(rule=rule, tolerance=tolerance))
    error = (result.x.double() - exact_inverse(y)).flatten(1).norm(dim=1)
    assert result.x.dtype == dtype
    assert result.status == (Status.CONVERGED,) * 20
    assert bool((error <= result.certificate).all())
    size = result.x.double().flatten(1).norm(dim=1)
    rounding = 40 * torch.finfo(dtype).eps * size
    assert bool((error <= tolerance * size + rounding).all())
    assert bool((result.certificate <= 2 * tolerance * size + rounding).all())


def test_the_mean_of_the_copies_shrinks_the_bound_by_the_root_of_their_number():
    y = measurements()
    result = solve(problem(y, prior=Offset(SHAPE)), MapInverse())
    error = (result.x - exact_inverse(y)).flatten(1).norm(dim=1)
    assert torch.allclose(error, torch.full_like(error, 1e-2 * math.sqrt(80)))
    assert bool((error <= result.certificate).all())
    assert torch.allclose(result.certificate, error, rtol=1e-6)


def test_reconstructions_move_by_at_most_one_over_one_minus_l():
    y = measurements(30)
    other = y + Key(2).normal(y.shape, like=y) * torch.logspace(-3, 1, 30, dtype=y.dtype).reshape(-1, 1, 1, 1)
    exact = MapInverse(tolerance=1e-12)
    apart = (solve(problem(y), exact).x - solve(problem(other), exact).x).flatten(1).norm(dim=1)
    constant = apart / (y - other).flatten(1).norm(dim=1)
    assert bool((constant <= 1 / (1 - ReferenceMap.lipschitz)).all())
    # The bound is that of constant images where tanh is steepest: there it is attained.
    low = torch.full((1, *SHAPE), -0.1, dtype=torch.float64)
    near = (solve(problem(low + 1e-5), exact).x - solve(problem(low), exact).x).norm() / (1e-5 * math.sqrt(80))
    assert near == pytest.approx(1 / (1 - ReferenceMap.lipschitz), rel=1e-4)


def test_the_details_say_how_stable_the_reconstruction_is_and_what_it_cost():
    y = measurements()
    details = solve(problem(y), MapInverse()).details
    assert details["stability_radius"].tolist() == pytest.approx([0.05 * math.sqrt(80) / 0.75] * 4)
    assert bool((details["evaluations"] >= 2).all())
    assert bool((details["evaluations"] <= 10).all())
    assert bool((details["contraction"] > 0).all())
    assert bool((details["contraction"] <= 0.25 + 1e-9).all())
    finer = solve(problem(y), MapInverse(tolerance=1e-9)).details
    assert bool((finer["evaluations"] > details["evaluations"]).all())
    noiseless = solve(problem(y, NoNoise()), MapInverse(allow_mismatch=True)).details
    assert noiseless["stability_radius"].tolist() == [0.0] * 4
    # The misfit of counts is no squared distance, and says nothing about the norm of their noise.
    assert (
        "stability_radius" not in solve(problem(y, PoissonNoise(peak=100.0)), MapInverse(allow_mismatch=True)).details
    )


def test_the_reason_says_whether_the_tolerance_is_proved():
    double, single = measurements(1), measurements(1, dtype=torch.float32)
    (estimated,) = solve(problem(double), MapInverse()).reasons
    assert "is estimated to meet the tolerance 1.0e-03" in estimated
    assert "is proved" in estimated
    (certified,) = solve(problem(double), MapInverse(rule="certified", tolerance=1e-9)).reasons
    assert "is certified to" in certified
    assert "at most 1.0e-09" in certified
    (missed,) = solve(problem(single), MapInverse(rule="certified", tolerance=1e-9)).reasons
    assert "only" in missed
    assert "cannot be certified in float32" in missed
    times = float(missed.split("only, ")[1].split(" times")[0])
    assert 100 < times < 1e5  # 2^-24 and 16 roundings over 1e-9


def test_without_a_proof_the_certificate_is_infinite():
    class Unproved(ReferenceMap):
        def invert(self, z, tolerance, certified):
            found = super().invert(z, tolerance, certified)
            return found._replace(bound=torch.full_like(found.bound, float("inf")))

    result = solve(problem(measurements(2), prior=Unproved(SHAPE)), MapInverse())
    assert bool(torch.isinf(result.certificate).all())
    assert "no bound is proved" in result.reasons[0]


def inpainting():
    return load("operator", "inpainting")(SHAPE, key=Key(0))


@pytest.mark.parametrize(
    ("operator", "noise", "forward", "message"),
    [
        (None, GaussianNoise(sigma=0.1), FORWARD, r"another noise than this GaussianNoise[\s\S]*allow_mismatch"),
        (None, PoissonNoise(peak=10.0), FORWARD, "another noise than this PoissonNoise"),
        (inpainting, NOISE, FORWARD, r"another operator than this Inpainting[\s\S]*allow_mismatch"),
        (None, NOISE, None, "does not say which operator and noise it was trained for"),
    ],
)
def test_another_operator_or_noise_is_refused_unless_told_otherwise(operator, noise, forward, message):
    y = measurements()
    given = problem(y, noise, operator and operator(), ReferenceMap(SHAPE, forward))
    with pytest.raises(Incompatible, match=message):
        solve(given, MapInverse())
    result = solve(given, MapInverse(allow_mismatch=True))
    assert all("mismatch allowed" in reason for reason in result.reasons)
    assert torch.allclose(result.x, exact_inverse(y), atol=1e-3)


def test_measurements_must_have_the_shape_of_images():
    operator = load("operator", "compressive-sensing")(SHAPE, measurements=40, key=Key(0))
    given = Problem(operator, torch.zeros(1, 40), NOISE, ReferenceMap(SHAPE))
    with pytest.raises(Incompatible, match=r"makes \(40,\) of images \(1, 8, 10\)") as raised:
        solve(given, MapInverse(allow_mismatch=True))
    assert "shape of the images" in raised.value.expected


def test_nan_another_size_and_missing_priors_are_refused():
    y = measurements()
    y[1, 0, 2, 3] = float("nan")
    with pytest.raises(BadData, match="measurement y has 1 values that are not finite"):
        problem(y)
    with pytest.raises(ShapeMismatch, match="is for images of shape"):
        problem(measurements(), prior=ReferenceMap((1, 9, 9)))
    with pytest.raises(Incompatible, match="there is no prior"):
        solve(Problem(Identity(SHAPE), measurements(), NOISE), MapInverse())
    other = load("prior", "tv")(SHAPE)
    with pytest.raises(Incompatible, match="does not fit"):
        solve(Problem(Identity(SHAPE), measurements(), NOISE, other), MapInverse())


@pytest.mark.parametrize("tolerance", [0.0, 1.0, -1e-3, float("nan")])
def test_a_tolerance_out_of_range_is_refused(tolerance):
    with pytest.raises(BadParameter, match=f"tolerance is {tolerance}"):
        MapInverse(tolerance=tolerance)


# With the network itself


@pytest.fixture(scope="module")
def network_file(tmp_path_factory):
    """A small certified network whose weights are random, said to be for denoising."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = InvertibleResNet(lipschitz=0.9, blocks=3, channels=4, hidden=6).eval()
    certificate = network.certify(Key(3).uniform((4, 1, 16, 16)))
    config = {"lipschitz": 0.9, "blocks": 3, "channels": 4, "hidden": 6}
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    facts = {"forward_model": FORWARD, "certificate": certificate}
    save_weights(path, network.state_dict(), component="prior/iresnet", config=config, facts=facts)
    return path


def tables(path, sigma=0.05, shape=(1, 12, 14), **solver):
    return {
        "shape": list(shape),
        "operator": {"name": "identity"},
        "noise": {"name": "gaussian", "sigma": sigma},
        "prior": {"name": "iresnet", "weights": str(path)},
        "solver": {"name": "map-inverse", **solver},
    }


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", [(1, 12, 14), (3, 9, 9)])
def test_a_pipeline_with_a_network_grey_and_colour(network_file, rule, shape):
    pipeline = Pipeline.from_dict(tables(network_file, shape=shape, rule=rule))
    y = measurements(2, shape, torch.float32)
    result = pipeline.reconstruct(y)
    prior = load("prior", "iresnet")(shape, weights=str(network_file))
    exact = prior.invert(prior.lift(y.double()), 1e-10, True)
    error = (result.x - prior.project(exact.x)).flatten(1).norm(dim=1)
    assert bool((error <= result.certificate + exact.bound).all())
    assert bool((result.certificate <= 2e-2 * result.x.flatten(1).norm(dim=1)).all())
    assert result.details["stability_radius"].tolist() == pytest.approx([0.05 * math.sqrt(math.prod(shape)) * 10] * 2)
    digest = result.provenance["weights"]
    assert list(digest) == ["prior.weights"]


def test_a_pipeline_for_another_noise_is_refused_when_it_is_assembled(network_file):
    with pytest.raises(Incompatible, match=r"another noise[\s\S]*allow_mismatch"):
        Pipeline.from_dict(tables(network_file, sigma=0.1))
    pipeline = Pipeline.from_dict(tables(network_file, sigma=0.1, allow_mismatch=True))
    assert "mismatch allowed" in pipeline.reconstruct(measurements(1, (1, 12, 14), torch.float32)).reasons[0]


def test_auto_stands_for_the_largest_bound_among_weights_for_one_operator_and_noise(monkeypatch):
    listed = [file for file in plugin.preimage_weights() if file.component == "prior/iresnet"]

    def loaded(name, component):
        operator, _, noise = name.split("-L")[0].removesuffix("-mean").rpartition("-")
        forward = {"operator": [{"name": operator}], "noise": {"name": "gaussian", "sigma": float(noise)}}
        return Weights(Path(name), component, {}, {"forward_model": forward}, {}, "")

    class Found:
        weights = listed

    monkeypatch.setattr(trained, "discover", Found)
    monkeypatch.setattr(trained, "load_weights", loaded)
    names = {file.name for file in listed}
    for operator in ("perona-malik", "gaussian-blur"):
        for noise in (0.01, 0.025, 0.05):
            table = {"name": "gaussian", "sigma": noise}
            chosen = trained.choose("prior", "iresnet", [{"name": operator}], table, "pipeline")
            assert chosen == f"{operator}-{noise}"
            assert chosen in names
    with pytest.raises(BadParameter, match="has no weights for"):
        trained.choose("prior", "iresnet", [{"name": "identity"}], {"name": "gaussian", "sigma": 0.05}, "pipeline")
