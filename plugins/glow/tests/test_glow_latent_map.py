"""solver/latent-map: what it minimises, from where, when it ends, and what becomes of images that go wrong."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from preimage_baselines import GaussianPosterior, GaussianSpectrum
from preimage_compressive_sensing import CompressiveSensing
from preimage_glow.flow import Flow
from preimage_glow.latent_map import LatentMap
from preimage_glow.latent_members import GeneratorEnsemble
from preimage_glow.prior import GlowPrior
from preimage_glow.reference_flow import ReferenceFlow, reference_problem
from preimage_inpainting import Inpainting

from preimage import (
    ForwardOperator,
    GaussianNoise,
    Generative,
    Identity,
    Key,
    PoissonNoise,
    Problem,
    Status,
    load,
    norms,
    per_image_operator,
    solve,
)
from preimage.errors import BadParameter, Diverged, Incompatible
from preimage.testing import check_prior
from preimage.weights import save_weights

SHAPE, DOUBLE = (1, 6, 6), torch.zeros((), dtype=torch.float64)
NOISE = GaussianNoise(sigma=0.05)
EXACT = {"tolerance": 1e-13, "max_evaluations": 2000, "max_steps": 2000}


def problem(operator=None, *, weight=NOISE.sigma**2, prior=None, noise=NOISE, count=3, dtype=torch.float64, x0=None):
    operator, prior = operator or Identity(SHAPE), prior or ReferenceFlow(SHAPE)
    x = ReferenceFlow(SHAPE).sample(count, Key(1), like=DOUBLE).to(dtype).clamp(0.05, 1)
    return Problem(operator, noise.sample(operator(x), Key(2)), noise, prior, weight, x0)


def search(given, **parameters):
    return solve(given, LatentMap(**parameters), throw=False)


class Bent(ForwardOperator):
    """y = x + 0.3 sin(2 x) of neighbours' means: nonlinear."""

    def __init__(self):
        super().__init__(SHAPE, SHAPE)

    def forward(self, x):
        u = 0.5 * (x + x.roll(1, -1))
        return u + 0.3 * (2 * u).sin()


def test_the_reference_flow_is_a_flow():
    flow = ReferenceFlow((1, 2, 2))
    check_prior(flow)
    z = Key(4).normal((1, 4), DOUBLE)
    jacobian = torch.autograd.functional.jacobian(lambda u: flow.decode(u[None]).flatten(), z[0])
    assert torch.allclose(flow.decode_with_log_determinant(z)[1], torch.linalg.slogdet(jacobian)[1], atol=1e-12)
    assert torch.allclose(
        flow.encode_with_log_determinant(flow.decode(z))[1], -flow.decode_with_log_determinant(z)[1], atol=1e-12
    )


# What is minimised


def test_with_a_gaussian_generator_it_finds_the_posterior_mean():
    shape = (1, 8, 8)
    prior = GaussianSpectrum(shape).double()
    operator = CompressiveSensing(shape, measurements=30, key=Key(0))
    x = prior.sample(2, Key(5), like=DOUBLE)
    given = Problem(operator, NOISE.sample(operator(x), Key(6)), NOISE, prior, NOISE.sigma**2)
    mean = solve(Problem(operator, given.y, NOISE, prior), GaussianPosterior(tolerance=1e-10)).x
    assert float((search(given, **EXACT).x - mean).abs().max()) < 1e-6


@pytest.mark.parametrize("operator", [Identity(SHAPE), Bent()])
@pytest.mark.parametrize("penalty", ["none", "norm", "squared-norm"])
def test_the_gradient_of_the_objective_is_zero_where_it_ends(penalty, operator):
    weights = torch.tensor([0.01, 0.1, 0.3], dtype=torch.float64)
    given = problem(operator, weight=weights)
    found = search(given, penalty=penalty, start="random", start_scale=0.3, **EXACT)

    def objective(z):
        r = operator(given.prior.decode(z)) - given.y
        size = {"none": 0 * norms(z), "norm": norms(z), "squared-norm": 0.5 * norms(z) ** 2}[penalty]
        return 0.5 * r.flatten(1).square().sum(1) + weights * size

    slope = torch.func.grad(lambda z: objective(z).sum())(found.details["latent"])
    assert float(slope.abs().max()) < 1e-4
    assert torch.allclose(found.objective, objective(found.details["latent"]))
    assert torch.allclose(found.details["misfit"] + weights * found.details["penalty"], found.objective)
    assert torch.allclose(found.x, given.prior.decode(found.details["latent"]))


def test_the_log_density_gives_the_most_probable_image():
    given = problem(weight=0.01)
    found = search(given, penalty="log-density", **EXACT)
    # Optimality in x, through the encoder: no part of the search knows it.
    slope = torch.func.grad(lambda x: given.objective(x).sum())(found.x)
    assert float(slope.abs().max()) < 1e-4
    constant = 0.5 * found.x[0].numel() * math.log(2 * math.pi) * 0.01
    assert torch.allclose(found.objective + constant, given.objective(found.x))


def test_noise_of_another_kind():
    noise = PoissonNoise(peak=200.0)
    given = problem(noise=noise, weight=1 / 200)
    found = search(given, **EXACT)

    def objective(z):
        return noise.misfit(given.prior.decode(z), given.y).sum() + z.square().sum() / 400

    assert float(torch.func.grad(objective)(found.details["latent"]).abs().max()) < 1e-4


# Starts


def started(given, start, **parameters):
    return search(given, start=start, max_steps=0, **parameters).details["latent"]


def test_starts_that_know_nothing():
    given = problem(count=3)
    assert torch.equal(started(given, "zero"), torch.zeros(3, 36).double())
    assert torch.allclose(norms(started(given, "fixed-norm", start_scale=0.5)), torch.full((3,), 3.0).double())
    assert torch.allclose(norms(started(given, "fixed-norm")), torch.full((3,), 6.0).double())
    drawn = started(given, "random")
    assert 0.7 < float(drawn.std()) < 1.3
    assert torch.allclose(started(given, "random", start_scale=0.1), 0.1 * drawn)
    assert not torch.equal(drawn[0], drawn[1])


def test_the_start_of_an_image_is_from_its_own_key():
    given, keys = problem(count=3), Key(7).rows(3)
    solver = LatentMap(start="random", max_steps=3)
    whole = solve(given, solver, key=keys).x
    last = solve(given.rows(torch.tensor([2])), solver, key=keys[2:]).x
    assert torch.equal(whole[2:], last)


def test_the_pseudo_inverse_start():
    operator = CompressiveSensing(SHAPE, measurements=12, key=Key(3))
    given = problem(operator)
    matrix = operator(torch.eye(36, dtype=torch.float64).reshape(36, *SHAPE)).mT
    image = (torch.linalg.pinv(matrix) @ given.y[:, :, None]).reshape(3, *SHAPE).clamp(0, 1)
    expected = 0.35 * given.prior.encode(image)
    assert torch.allclose(started(given, "pseudo-inverse"), expected, atol=1e-5)
    assert torch.allclose(started(given, "pseudo-inverse", start_scale=1.0), expected / 0.35, atol=1e-5)


def test_noise_fills_only_what_is_not_measured():
    operator = Inpainting(SHAPE, mask="centre", fraction=0.5, key=Key(0))
    given = problem(operator, noise=GaussianNoise(sigma=0.0), weight=0.0)
    image = given.prior.decode(started(given, "noise-filled", start_scale=1.0))
    known = operator.mask.expand_as(image)
    assert torch.allclose(image[known], given.y[known].clamp(0, 1), atol=1e-6)
    hole = image[~known].reshape(3, -1)
    assert float(hole.min()) >= -1e-12
    assert 0.03 < float(hole.std()) < 0.2  # of normal numbers of deviation 0.2, the negative ones cut off


def test_an_estimate_of_another_solver_is_a_start():
    x0 = problem().y.clamp(0, 1) * 0.9
    given = problem(x0=x0)
    assert torch.equal(started(given, "encode", start_scale=0.5), 0.5 * given.prior.encode(x0))
    with pytest.raises(Incompatible, match=r"no image[\s\S]*\[start\]"):
        search(problem(), start="encode")


class Plain(Generative):
    """Not invertible: a fixed matrix from 5 numbers, and a sigmoid."""

    def __init__(self, in_shape=SHAPE):
        super().__init__(in_shape)
        self.latent_shape = (5,)
        self.register_buffer("matrix", Key(8).normal((5, math.prod(in_shape)), DOUBLE))

    def decode(self, z):
        return (z @ self.matrix.to(z)).sigmoid().reshape(-1, *self.in_shape)


@pytest.mark.parametrize("start", ["encode", "pseudo-inverse", "noise-filled"])
def test_starts_that_need_an_inverse_or_a_linear_operator(start):
    with pytest.raises(Incompatible, match="Plain cannot tell it"):
        search(problem(prior=Plain()), start=start)
    if start != "encode":
        with pytest.raises(Incompatible, match=r"Bent, which is not linear[\s\S]*encode"):
            search(problem(Bent()), start=start)


def test_any_generator_will_do():
    prior = Plain()
    z = Key(9).normal((3, 5), DOUBLE)
    operator = Bent()
    given = Problem(operator, operator(prior.decode(z)), GaussianNoise(sigma=0.01), prior, 0.0)
    found = search(given, penalty="none", start="random", start_scale=0.1, **EXACT)
    assert float((found.x - prior.decode(z)).abs().max()) < 1e-3
    with pytest.raises(Incompatible, match=r"Plain, which has no density[\s\S]*squared-norm"):
        search(given, penalty="log-density")


# Ends


def test_the_status_says_which_rule_ended_each_image():
    given = problem(weight=0.0)
    fitted = search(given, penalty="none", tau=1.0)
    assert all("the misfit in units of its expected value" in reason for reason in fitted.reasons)
    assert bool((fitted.details["misfit"] <= NOISE.expected_misfit(given.y)).all())
    spent = search(given, max_evaluations=7, tolerance=0.0)
    assert spent.status == (Status.MAX_STEPS,) * 3
    assert all("the 7 evaluations of the generator" in reason for reason in spent.reasons)
    assert spent.details["evaluations"].tolist() == [7.0] * 3
    calm = search(problem(weight=0.01), tolerance=1e-2)
    assert calm.status == (Status.CONVERGED,) * 3
    assert all("relative change of the objective over 10 steps" in reason for reason in calm.reasons)
    exact = search(problem(weight=0.1), tolerance=0.0)
    assert all("as low as rounding permits" in reason for reason in exact.reasons)
    few = search(given, max_steps=2)
    assert all(status is Status.MAX_STEPS for status in few.status)


def test_images_end_by_themselves():
    given = problem(weight=torch.tensor([0.0, 0.01, 1.0], dtype=torch.float64))
    found = search(given, tau=1.0, tolerance=1e-6, max_evaluations=40)
    assert len(set(found.steps)) > 1
    assert "expected value" in found.reasons[0]
    assert "rounding" in found.reasons[2] or "relative change" in found.reasons[2]


# Batches


@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
def test_single_precision_gives_the_same_bits_in_any_batch(optimiser):
    operator = CompressiveSensing(SHAPE, measurements=15, key=Key(3))
    given = problem(operator, weight=0.0, count=5, dtype=torch.float32)
    parameters = {"optimiser": optimiser, "max_evaluations": 25, "tolerance": 0.0}
    together = search(given, **parameters)
    for order in ([4, 2], [3]):
        some = search(given.rows(torch.tensor(order)), **parameters)
        assert torch.equal(some.x, together.x[order])
        assert some.steps == tuple(together.steps[i] for i in order)


def test_computing_images_together_changes_rounding_only():
    given = problem(count=4, weight=0.01)
    one, all_ = (search(given, images_at_once=n, max_evaluations=30) for n in (1, 4))
    assert torch.allclose(one.x, all_.x, atol=1e-8)


def test_images_with_operators_of_their_own():
    masks = [Inpainting(SHAPE, mask="random", keep=0.6, key=Key(i)) for i in range(3)]
    given = problem(per_image_operator(masks), weight=0.01)
    together = search(given, mirror=True, project=True)
    for i, mask in enumerate(masks):
        alone = search(Problem(mask, given.y[i : i + 1], NOISE, given.prior, 0.01), mirror=True, project=True)
        assert torch.equal(alone.x[0], together.x[i])


# Putting back what was measured


def test_the_known_pixels_are_put_back():
    operator = Inpainting(SHAPE, mask="random", keep=0.5, key=Key(1))
    given = problem(operator, weight=0.01)
    raw, mended = search(given), search(given, project=True)
    known = operator.mask.expand_as(raw.x)
    assert torch.allclose(mended.x[known], given.y[known], atol=1e-12)
    assert torch.equal(mended.x[~known], raw.x[~known])


def test_measurements_by_a_transform_are_met():
    operator = CompressiveSensing(SHAPE, measurements=12, ensemble="dct", key=Key(1))
    given = problem(operator, weight=0.1)
    assert torch.allclose(operator(search(given, project=True).x), given.y, atol=1e-10)
    assert not torch.allclose(operator(search(given).x), given.y, atol=1e-3)


def test_an_operator_that_weighs_cannot_be_met_so():
    with pytest.raises(Incompatible, match="singular values differ"):
        search(problem(CompressiveSensing(SHAPE, measurements=12, key=Key(1))), project=True)
    with pytest.raises(Incompatible, match="project met Bent, which is not linear"):
        search(problem(Bent()), project=True)


# Ensembles


def test_the_mirror_ensemble_is_the_mean_of_two_searches():
    operator = CompressiveSensing(SHAPE, measurements=15, key=Key(3))
    given = problem(operator, weight=0.01)
    both, one = search(given, mirror=True), search(given)

    class Mirrored(ReferenceFlow):
        def decode_with_log_determinant(self, z):
            x, log_determinant = super().decode_with_log_determinant(z)
            return x.flip(-1), log_determinant

    other = search(problem(operator, weight=0.01, prior=Mirrored(SHAPE)))
    assert torch.allclose(both.x, (one.x + other.x) / 2, atol=1e-6)
    assert torch.equal(both.details["evaluations"], one.details["evaluations"] + other.details["evaluations"])
    assert both.details["latent"].shape == (3, 2, 36)
    assert torch.equal(both.details["latent"][:, 0], one.details["latent"])
    assert "mirrored: " in both.reasons[0]


def test_the_mirror_of_a_start_is_the_start_of_the_mirror():
    x0 = problem().y.clamp(0, 1)
    given = problem(x0=x0)
    latents = started(given, "encode", start_scale=1.0, mirror=True)
    assert torch.equal(latents[:, 1], given.prior.encode(x0.flip(-1)))


def test_several_starts_are_averaged_and_counted():
    given = problem(Bent(), weight=0.01)
    found = search(given, start="random", starts=3, max_evaluations=15, tolerance=0.0)
    assert found.details["evaluations"].tolist() == [45.0] * 3
    decoded = torch.stack([given.prior.decode(found.details["latent"][:, i]) for i in range(3)])
    assert torch.allclose(found.x, decoded.mean(0))
    assert float((decoded[0] - decoded[1]).abs().max()) > 1e-3
    one = search(given, start="random", max_evaluations=15, tolerance=0.0)
    assert torch.equal(one.details["latent"], found.details["latent"][:, 0])
    with pytest.raises(BadParameter, match="all starts 'zero' are the same"):
        LatentMap(starts=2)


class Other(ReferenceFlow):
    strength = 0.2


def test_several_generators_are_averaged():
    parts = (ReferenceFlow(SHAPE), Other(SHAPE))
    ensemble = GeneratorEnsemble(parts)
    found = search(problem(prior=ensemble, weight=0.01), penalty="log-density")
    alone = [search(problem(prior=part, weight=0.01), penalty="log-density").x for part in parts]
    assert torch.allclose(found.x, sum(alone) / 2, atol=1e-12)
    assert "generator 2: " in found.reasons[0]


def test_an_ensemble_of_generators_is_a_generator():
    ensemble = GeneratorEnsemble([ReferenceFlow(SHAPE), Other(SHAPE)])
    check_prior(ensemble)
    z = Key(5).normal((6, 37), DOUBLE)
    x = ensemble.decode(z)
    for i in range(6):
        assert torch.equal(x[i : i + 1], ensemble.members[int(z[i, 0] > 0)].decode(z[i : i + 1, 1:]))
    with pytest.raises(BadParameter, match="no generators"):
        GeneratorEnsemble([])


def test_an_ensemble_of_trained_flows_is_named_by_their_files(tmp_path):
    size = {"image_channels": 1, "levels": 1, "steps": 1, "last_steps": 1, "hidden": 2}
    files = [str(tmp_path / f"{seed}.safetensors") for seed in range(2)]
    for seed, file in enumerate(files):
        flow = Flow(**size)
        with torch.no_grad():
            for name, weights in flow.named_parameters():
                if weights.ndim == 4:
                    weights.copy_(0.3 * Key(seed).child(name).normal(weights.shape))
        save_weights(Path(file), flow.state_dict(), component="prior/glow", config=size, facts={})
    ensemble = load("prior", "glow-ensemble")(SHAPE, weights=tuple(files))
    given = problem(prior=ensemble, weight=0.01, dtype=torch.float32)
    found = search(given, max_evaluations=8)
    alone = [search(replace(given, prior=GlowPrior(SHAPE, weights=file)), max_evaluations=8) for file in files]
    assert torch.allclose(found.x, (alone[0].x + alone[1].x) / 2)
    assert torch.equal(found.details["evaluations"], sum(one.details["evaluations"] for one in alone))
    with pytest.raises(BadParameter, match="two names or more"):
        load("prior", "glow-ensemble")(SHAPE, weights=(files[0],))


# Images that go wrong


class Brittle(Plain):
    """A generator whose images are `bad` where the first latent exceeds 0.2."""

    def __init__(self, bad):
        super().__init__()
        self.bad = bad

    def decode(self, z):
        x = super().decode(z)
        return torch.where((z[:, 0] > 0.2).reshape(-1, 1, 1, 1), self.bad * torch.ones_like(x), x)


@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_image_that_meets_nan_comes_back_with_its_best(bad, optimiser):
    prior = Brittle(bad)
    z = Key(9).normal((3, 5), DOUBLE) * 0.1
    z[1, 0] = 2.0  # cannot be reached
    y = NOISE.sample(Plain().decode(z), Key(1))
    given = Problem(Identity(SHAPE), y, NOISE, prior, 1e-6)
    found = search(given, optimiser=optimiser, max_evaluations=400, learning_rate=0.3, tolerance=1e-6)
    assert found.status[1] is Status.DIVERGED
    assert Status.DIVERGED not in (found.status[0], found.status[2])
    assert "NaN or infinity in every direction from the best point" in found.reasons[1]
    assert bool(torch.isfinite(found.x).all())
    start = given.misfit(prior.decode(torch.zeros(3, 5).double()))
    assert float(given.misfit(found.x)[1]) < 0.8 * float(start[1])
    mates = search(given.rows(torch.tensor([0, 2])), optimiser=optimiser, learning_rate=0.3, tolerance=1e-6)
    assert torch.equal(mates.x, found.x[[0, 2]]) or optimiser == "adam"  # which uses up another budget
    with pytest.raises(Diverged, match=r"images \[1\]"):
        solve(given, LatentMap(optimiser=optimiser, max_evaluations=400, learning_rate=0.3, tolerance=1e-6))


def test_a_generator_with_nan_in_its_weights_still_returns_every_image():
    prior = Plain()
    prior.matrix[2, 7] = float("nan")
    found = search(problem(prior=prior))
    assert found.status == (Status.DIVERGED,) * 3
    assert torch.equal(found.x, torch.zeros(3, *SHAPE).double())
    assert all("NaN or infinity at every start that was tried" in reason for reason in found.reasons)


def test_a_member_that_fails_is_left_out_of_the_average():
    broken = ReferenceFlow(SHAPE)
    broken.scale = float("nan")
    found = search(problem(prior=GeneratorEnsemble([ReferenceFlow(SHAPE), broken])))
    alone = search(problem())
    assert torch.equal(found.x, alone.x)
    assert all("generator 2: NaN or infinity at every start" in reason for reason in found.reasons)
    assert Status.DIVERGED not in found.status


class Overflowing(Plain):
    """exp of exp: infinite in single precision beyond 4.5."""

    def decode(self, z):
        u = (3 * z.abs()).exp().exp() - math.e
        return ((u * z) @ self.matrix.to(z)).reshape(-1, *self.in_shape) / (1 + u.sum(1)).reshape(-1, 1, 1, 1)


def test_two_hundred_random_starts_of_a_generator_that_overflows():
    prior = Overflowing()
    given = Problem(Identity(SHAPE), torch.zeros(200, *SHAPE) + 0.1, NOISE, prior, 1e-4)
    far = 3 * torch.stack([key.child("start").normal((5,), given.y) for key in Key(0).rows(200)])
    assert int((~torch.isfinite(prior.decode(far)).flatten(1).all(1)).sum()) > 100
    found = search(given, start="random", start_scale=3.0, max_evaluations=25, images_at_once=200)
    assert bool(torch.isfinite(found.x).all())
    assert len(found.reasons) == 200
    assert bool((found.details["restarts"] > 0).any())
    first = torch.full((200,), float("inf"))
    for attempt in range(6):
        nearer = given.misfit(prior.decode(far / 4**attempt)) + 1e-4 * norms(far / 4**attempt).square() / 2
        first = torch.where(torch.isfinite(first), first, nearer.nan_to_num(float("inf")))
    assert bool((found.objective < first).all())


def test_two_hundred_random_starts_of_wild_weights_on_the_paper_preset():
    flow = Flow("paper", image_channels=1, hidden=4)  # 145 steps, which narrow networks can make overflow just as well
    with torch.no_grad():
        for name, weights in flow.named_parameters():
            if name.endswith("network.last.weight"):
                weights.copy_(10 * Key(1).child(name).normal(weights.shape))
    prior = GlowPrior.of(flow.eval().requires_grad_(False), (1, 16, 16))
    y = torch.full((200, 1, 16, 16), 0.4)
    given = Problem(Identity((1, 16, 16)), y, NOISE, prior, 1e-3)
    starts = torch.stack([key.child("start").normal((256,)) for key in Key(0).rows(200)])
    assert not bool(torch.isfinite(given.misfit(prior.decode(starts))).any())
    found = search(given, start="random", max_evaluations=8, images_at_once=200)
    assert bool(torch.isfinite(found.x).all())
    assert len(found.status) == 200
    assert Status.DIVERGED not in found.status
    assert bool((found.details["restarts"] > 0).all())
    assert bool((found.objective <= given.misfit(prior.decode(torch.zeros(200, 256)))).all())


# Parameters


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_steps": -1},
        {"max_evaluations": 0},
        {"memory": 0},
        {"step_length": 0.0},
        {"step_length": 1.5},
        {"learning_rate": -1.0},
        {"start_scale": -0.1},
        {"start_scale": float("inf")},
        {"tolerance": -1.0},
        {"tau": float("nan")},
        {"max_restarts": -1},
        {"images_at_once": 0},
        {"starts": 0},
    ],
)
def test_parameters_out_of_range_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(BadParameter, match=f"{name} is {wrong[name]}"):
        LatentMap(**wrong)


def test_steps_are_halved_where_the_way_decides():
    operator = CompressiveSensing(SHAPE, measurements=15, key=Key(3))
    given = problem(operator, weight=0.0)
    budget = {"max_evaluations": 12, "tolerance": 0.0}
    free = {length: search(given, penalty="none", step_length=length, **budget).x for length in ("auto", 0.5, 1.0)}
    assert torch.equal(free["auto"], free[0.5])
    assert not torch.allclose(free["auto"], free[1.0])
    bound = {length: search(given, penalty="squared-norm", step_length=length, **budget).x for length in ("auto", 1.0)}
    assert torch.equal(bound["auto"], bound[1.0])


def test_a_negative_weight_is_refused():
    with pytest.raises(BadParameter, match="weight is -1"):
        problem(weight=-1.0)


def test_the_reference_problem_is_generative():
    given = reference_problem(Key(0))
    assert isinstance(given.prior, Generative)
    assert given.y.dtype == torch.float64
