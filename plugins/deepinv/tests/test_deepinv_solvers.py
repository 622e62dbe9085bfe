"""deepinv's algorithms and reconstructors as solvers: laws, equality with deepinv called directly, and bad input."""

import inspect
import random

import deepinv
import pytest
import torch
from preimage_baselines import CosineSparsity, Tikhonov
from preimage_deepinv import (
    ADMM,
    DPIR,
    DRS,
    FISTA,
    HQS,
    PDCP,
    PGD,
    Median,
    NamedReconstructor,
    ReconstructorSolver,
    TotalVariation,
    as_physics,
    checked,
)
from preimage_deepinv.catalogue_methods import NO_SOLVER, SOLVERS
from preimage_gaussian_blur import GaussianBlur
from preimage_perona_malik import PeronaMalik

from preimage import (
    ForwardOperator,
    GaussianNoise,
    Identity,
    Key,
    LinearOperator,
    Pipeline,
    PoissonNoise,
    Problem,
    solve,
)
from preimage._parameters import construct
from preimage._solver import misfits
from preimage.errors import BadParameter, Incompatible, PreimageError, ShapeMismatch
from preimage.testing import check_solver

SHAPE = (1, 16, 16)


def images(count=3, dtype=torch.float64):
    """A bright square on a ramp, at another place in each image."""
    x = torch.linspace(0, 0.5, SHAPE[2], dtype=dtype).expand(count, *SHAPE).clone()
    for i in range(count):
        x[i, :, 3 + i : 9 + i, 4:11] = 0.9
    return x


def problem(prior, weight=0.02, operator=None, count=3, sigma=0.02):
    blurring = operator or GaussianBlur(SHAPE, sigma=1.0).double()
    noise = GaussianNoise(sigma=sigma)
    x = images(count)
    return Problem(blurring, noise.sample(blurring(x), Key(0)), noise, prior, weight=weight)


# What there is


def test_every_algorithm_of_deepinv_has_an_entry():
    base = deepinv.optim.BaseOptim
    exported = {
        name for name, thing in vars(deepinv.optim).items() if inspect.isclass(thing) and issubclass(thing, base)
    }
    offered = {entry.deepinv for entry in SOLVERS}
    assert exported == offered | set(NO_SOLVER) | {"DPIR"}
    assert not offered & set(NO_SOLVER)


# Equal to deepinv called directly


def total_variation():
    return TotalVariation(SHAPE, crit=1e-8, n_it_max=500, tau=0.05), converged_tv()


def converged_tv():
    prior = deepinv.optim.TVPrior(def_crit=1e-8, n_it_max=500)
    prior.TVModel.tau = 0.05
    return prior


def cosines():
    ours = CosineSparsity(SHAPE)

    class Theirs(deepinv.optim.Prior):
        def __init__(self):
            super().__init__()
            self.explicit_prior = True

        def fn(self, x, *_, **__):
            return ours.energy(x)

        def prox(self, x, *_, gamma=1.0, **__):
            return ours.prox(x, gamma)

    return ours, Theirs()


def tikhonov():
    return Tikhonov(SHAPE, kind="identity"), deepinv.optim.Tikhonov()


def median():
    return Median(SHAPE), deepinv.optim.PnP(deepinv.models.MedianFilter(3))


ALGORITHMS = [
    (PGD, "PGD", {"stepsize": 0.9}),
    (FISTA, "FISTA", {"stepsize": 0.9, "a": 4.0}),
    (ADMM, "ADMM", {"stepsize": 2.0}),
    (DRS, "DRS", {"stepsize": 2.0, "beta": 0.8}),
    (HQS, "HQS", {"stepsize": 2.0}),
    (PDCP, "PDCP", {"stepsize": 0.5, "stepsize_dual": 1.5}),
]


def directly(name, given, prior, settings, steps):
    """deepinv called as its users do, with our operator as its physics."""
    physics = as_physics(given.operator, given.noise)
    model = getattr(deepinv.optim, name)(
        data_fidelity=deepinv.optim.L2(), prior=prior, lambda_reg=given.weight, g_param=0.05, max_iter=steps, **settings
    )
    return model(given.y, physics)


@pytest.mark.parametrize("priors", [tikhonov, cosines, median], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("ours", "name", "settings"), ALGORITHMS, ids=lambda v: v if isinstance(v, str) else "")
def test_deepinv_through_us_is_deepinv(ours, name, settings, priors):
    mine, _ = priors()
    given = problem(mine)
    solver = ours(**settings, max_steps=15, sigma_denoiser=0.05)
    together = solve(given, solver).x
    assert float((together - directly(name, given, priors()[1], settings, 15)).abs().max()) < 1e-5
    for i in range(3):
        one = given.rows(torch.tensor([i]))
        assert float((solve(one, solver).x - directly(name, one, priors()[1], settings, 15)).abs().max()) < 1e-5
    assert torch.equal(solve(given, solver).x, together)


@pytest.mark.parametrize(
    ("ours", "name", "settings"), [ALGORITHMS[0], ALGORITHMS[2], ALGORITHMS[5]], ids=["PGD", "ADMM", "PDCP"]
)
def test_with_total_variation_too_one_at_a_time_in_a_batch_and_twice(ours, name, settings):
    mine, theirs = total_variation()
    given = problem(mine, count=2)
    solver = ours(**settings, max_steps=4)
    together = solve(given, solver).x
    assert torch.equal(solve(given, solver).x, together)
    # deepinv stops the inner iteration for a whole batch at once, so that a batch is equal to the accuracy of that.
    assert float((together - directly(name, given, theirs, settings, 4)).abs().max()) < 1e-5
    for i in range(2):
        one = given.rows(torch.tensor([i]))
        alone = solve(one, solver).x
        assert torch.equal(alone, together[i : i + 1])
        assert float((alone - directly(name, one, converged_tv(), settings, 4)).abs().max()) < 1e-7


def test_a_second_run_is_the_first_though_deepinvs_objects_remember():
    prior = TotalVariation(SHAPE, crit=1e-5, n_it_max=20)
    given, other = problem(prior, weight=0.1, count=1), problem(prior, weight=0.1, count=2).rows(torch.tensor([1]))
    solver = PGD(stepsize=1.0, max_steps=3)
    first = solve(given, solver).x
    solve(other, solver)
    assert torch.equal(solve(given, solver).x, first)
    shared = deepinv.optim.TVPrior(def_crit=1e-5, n_it_max=20)
    model = deepinv.optim.PGD(data_fidelity=deepinv.optim.L2(), prior=shared, lambda_reg=0.1, stepsize=1.0, max_iter=3)
    physics = as_physics(given.operator)
    assert float((model(given.y, physics) - first).abs().max()) < 1e-7
    model(other.y, physics)
    # deepinv's prior goes on from the other image; if this ever fails, deepinv has mended it.
    assert float((model(given.y, physics) - first).abs().max()) > 1e-3


def test_dpir_is_deepinvs():
    given = problem(Median(SHAPE), weight=1.0)
    theirs = deepinv.optim.DPIR(sigma=0.02, denoiser=deepinv.models.MedianFilter(3))
    assert float((solve(given, DPIR()).x - theirs(given.y, as_physics(given.operator))).abs().max()) < 1e-5


def test_a_start_is_used():
    given = problem(tikhonov()[0])
    start = images()
    for solver in (PGD(max_steps=0), FISTA(max_steps=0), ADMM(max_steps=0), PDCP(max_steps=0)):
        posed = Problem(given.operator, given.y, given.noise, given.prior, given.weight, x0=start)
        assert torch.equal(solve(posed, solver).x, start)


class Rectangular(LinearOperator):
    """Every second column."""

    def __init__(self):
        super().__init__(SHAPE, (1, 16, 8))

    def forward(self, x):
        return x[..., ::2]


@pytest.mark.parametrize(
    "solver", [PGD(), FISTA(), ADMM(), DRS(), HQS(), PDCP(), DPIR()], ids=lambda s: type(s).__name__
)
def test_measurements_may_have_another_shape_than_images(solver):
    given = problem(Tikhonov(SHAPE), weight=0.1, operator=Rectangular())
    better = solve(given, solver).x
    assert (better - images()).norm() < (given.operator.adjoint(given.y) - images()).norm()


@pytest.mark.parametrize("solver", [PGD(max_steps=5), ADMM(max_steps=5), HQS(max_steps=5), DRS(max_steps=5), DPIR()])
def test_nonlinear_operators_work(solver):
    operator = PeronaMalik(SHAPE, contrast=0.5)
    given = problem(Tikhonov(SHAPE), weight=1e-3 if not isinstance(solver, DPIR) else 1.0, operator=operator, count=1)
    found = solve(given, solver).x
    assert torch.isfinite(found).all()
    start = as_physics(operator).A_adjoint(given.y)
    assert float(given.misfit(found)) < float(given.misfit(start))


def test_photon_counts_go_through_the_gradient_of_their_misfit():
    operator, noise = GaussianBlur(SHAPE, sigma=1.0).double(), PoissonNoise(peak=200.0)
    x = images(2)
    given = Problem(operator, noise.sample(operator(x), Key(0)), noise, Tikhonov(SHAPE), weight=0.01)
    found = solve(given, PGD(stepsize=0.05, max_steps=50)).x
    assert bool((given.objective(found) < given.objective(given.start())).all())
    with pytest.raises(Incompatible, match="a number for stepsize"):
        solve(given, PGD())


def test_early_stopping_is_each_images_own():
    given = problem(Tikhonov(SHAPE), weight=0.5)
    far = Problem(
        given.operator, given.y * torch.tensor([1.0, 1e-3, 1e3]).reshape(3, 1, 1, 1), given.noise, given.prior, 0.5
    )
    solver = PGD(early_stop=True, thres_conv=1e-3)
    together = solve(far, solver).x
    for i in range(3):
        assert torch.equal(solve(far.rows(torch.tensor([i])), solver).x, together[i : i + 1])
    assert not torch.equal(together, solve(far, PGD()).x)


def test_pipelines_take_them_by_name():
    tables = {
        "shape": [1, 16, 16],
        "operator": {"name": "gaussian-blur", "sigma": 1.0},
        "noise": {"name": "gaussian", "sigma": 0.02},
        "prior": {"name": "deepinv/tv", "weight": 0.01, "n_it_max": 100},
        "solver": {"name": "deepinv/fista", "max_steps": 20},
    }
    pipeline = Pipeline.from_dict(tables)
    x = images(2, torch.float32)
    y = pipeline.simulate(x)
    result = pipeline.reconstruct(y)
    assert (result.x - x).norm() < (y - x).norm()
    assert "deepinv's FISTA came to its end: 20 iterations" in result.reasons[0]


# Reconstructors


def test_any_reconstructor_is_a_solver_without_a_trace():
    model = deepinv.models.DeepImagePrior(
        deepinv.models.ConvDecoder((1, 16, 16), layers=2, channels=4), img_size=(4, 4, 4), iterations=3
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    given = Problem(Identity(SHAPE), images(2, torch.float32), GaussianNoise(sigma=0.1))
    solver = ReconstructorSolver(reconstructor=model)
    state = torch.get_rng_state(), random.getstate()
    first = solve(given, solver).x
    assert torch.equal(solve(given, solver).x, first)
    assert not torch.equal(solve(given, solver, key=Key(1)).x, first)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]


class Descent(deepinv.models.Reconstructor):
    """Differentiates its own misfit."""

    def forward(self, y, physics):
        x = torch.zeros_like(y).requires_grad_()
        (physics.A(x) - y).square().sum().backward()
        return -0.5 * x.grad


def test_one_that_differentiates_is_told_how():
    given = Problem(Identity(SHAPE), images(2), GaussianNoise(sigma=0.1))
    assert torch.allclose(solve(given, ReconstructorSolver(reconstructor=Descent(), needs_gradients=True)).x, given.y)
    with pytest.raises(Incompatible, match="needs_gradients = true"):
        solve(given, ReconstructorSolver(reconstructor=Descent()))


def test_a_reconstructor_keeps_the_laws():
    model = deepinv.models.ArtifactRemoval(deepinv.models.MedianFilter(3))
    check_solver(ReconstructorSolver(reconstructor=model))


def test_an_operator_of_deepinv_is_handed_over_as_it_is():
    blur = construct("operator", "deepinv/blur-fft", {}, "operator", in_shape=SHAPE, key=Key(0)).double()
    given = problem(None, operator=blur, weight=1.0)
    wiener = NamedReconstructor(target="deepinv.models:WienerDeconvolution", arguments={"lambda_reg": 0.01})
    found = solve(given, wiener).x
    theirs = deepinv.models.WienerDeconvolution(lambda_reg=0.01)(given.y, blur.physics)
    assert float((found - theirs).abs().max()) < 1e-5
    assert (found - images()).norm() < (given.y - images()).norm()
    with pytest.raises(Incompatible, match="BlurFFT"):
        solve(problem(None, weight=1.0), wiener)


# Bad input


@pytest.mark.parametrize(
    ("values", "meant"),
    [({"stepsizee": 1.0}, "stepsize"), ({"max_step": 3}, "max_steps"), ({"earlystop": True}, "early_stop")],
)
def test_a_misspelt_parameter_is_refused_with_the_one_that_was_meant(values, meant):
    with pytest.raises(BadParameter, match=f"did you mean '{meant}'"):
        construct("solver", "deepinv/pgd", values, "solver 'deepinv/pgd'")
    with pytest.raises(TypeError, match=next(iter(values))):
        PGD(**values)


def test_misspelt_arguments_of_deepinvs_own_classes_are_refused_where_deepinv_takes_them():
    deepinv.optim.PGD(stepsizee=1.0)  # without a word; if this ever fails, deepinv has mended it
    with pytest.raises(BadParameter, match="did you mean 'stepsize'"):
        checked(deepinv.optim.PGD, stepsizee=1.0)
    assert isinstance(checked(deepinv.optim.PGD, stepsize=1.0, max_iter=3, verbose=False), deepinv.optim.PGD)
    with pytest.raises(BadParameter, match="did you mean 'lambda_reg'"):
        NamedReconstructor(target="deepinv.models:WienerDeconvolution", arguments={"lambda": 1.0})


@pytest.mark.parametrize(
    ("make", "mentions"),
    [
        (lambda: PGD(stepsize=0.0), "stepsize"),
        (lambda: PGD(stepsize=float("nan")), "stepsize"),
        (lambda: PGD(thres_conv=0.0), "thres_conv"),
        (lambda: PGD(sigma_denoiser=-1.0), "sigma_denoiser"),
        (lambda: FISTA(a=2.0), "a is"),
        (lambda: ADMM(stepsize=-1.0), "stepsize"),
        (lambda: ADMM(beta=0.0), "beta"),
        (lambda: PDCP(stepsize=2.0), "stepsize times stepsize_dual"),
        (lambda: PDCP(beta=-0.1), "beta"),
        (lambda: DPIR(sigma=0.0), "sigma"),
        (lambda: NamedReconstructor(target="deepinv.models:Wienerr"), "package.module:Class"),
        (lambda: NamedReconstructor(target="nowhere.to.be:Found"), "package.module:Class"),
        (lambda: NamedReconstructor(target="deepinv.models"), "package.module:Class"),
        (lambda: NamedReconstructor(target="deepinv.models:ArtifactRemoval"), "has no backbone_net"),
        (lambda: NamedReconstructor(target="deepinv.models:RAM"), "would download weights"),
        (
            lambda: NamedReconstructor(target="deepinv.models:RAM", arguments={"pretrained": "gone.pth"}),
            "would download weights",
        ),
    ],
)
def test_bad_parameters_are_refused_by_name(make, mentions):
    with pytest.raises(BadParameter, match=mentions):
        make()


def test_objects_of_the_wrong_kind_are_refused():
    with pytest.raises(Incompatible, match="no reconstructor of deepinv"):
        ReconstructorSolver(reconstructor=deepinv.models.MedianFilter(3))
    named = NamedReconstructor(target="deepinv.models:MedianFilter")
    with pytest.raises(Incompatible, match="no reconstructor of deepinv"):
        solve(problem(None), named)


def test_parts_that_do_not_fit_are_refused_before_anything_runs():
    median, tv, noise = Median(SHAPE), TotalVariation(SHAPE), GaussianNoise(sigma=0.1)
    linear: ForwardOperator = Identity(SHAPE)
    assert misfits(PDCP(), PeronaMalik(SHAPE), noise, tv)
    assert misfits(PGD(backtracking=True), linear, noise, median)
    assert misfits(PGD(early_stop=True, crit_conv="cost"), linear, noise, median)
    assert misfits(ADMM(), linear, PoissonNoise(peak=10.0), tv)
    assert misfits(DPIR(), linear, noise, None)
    assert not misfits(PGD(backtracking=True), linear, noise, tv)
    assert not misfits(ADMM(), linear, noise, None)


def test_a_weight_of_zero_with_a_denoiser_is_refused_unless_it_has_no_effect():
    with pytest.raises(BadParameter, match="weight of the prior is 0"):
        solve(problem(Median(SHAPE), weight=0.0), PGD())
    solve(problem(Median(SHAPE), weight=0.0), PGD(sigma_denoiser=0.1, max_steps=2))
    with pytest.raises(BadParameter, match="noise model has no noise"):
        solve(problem(Median(SHAPE), sigma=0.0), DPIR())


def test_a_wrong_shape_is_one_error_of_ours():
    with pytest.raises(ShapeMismatch):
        as_physics(GaussianBlur(SHAPE, sigma=1.0))(torch.zeros(1, 1, 8, 8))
    wrong = ReconstructorSolver(reconstructor=deepinv.models.SRResNet(num_blocks=1, im_c=1, feats=4, upscale=2))
    with pytest.raises(PreimageError, match="gives"):
        solve(Problem(Identity(SHAPE), images(1, torch.float32), GaussianNoise(sigma=0.1)), wrong)
