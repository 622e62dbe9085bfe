"""preimage inside deepinv: operators as physics, priors as denoisers, pipelines as reconstructors."""

import importlib.util
import re
from pathlib import Path

import deepinv
import pytest
import torch
from preimage_baselines import Tikhonov, TotalVariation
from preimage_data import PSNR, SSIM
from preimage_deepinv import Median, as_denoiser, as_metric, as_physics, as_prior, as_reconstructor
from preimage_deepinv.proximal_misfit import proximal_misfit
from preimage_gaussian_blur import GaussianBlur
from preimage_perona_malik import PeronaMalik

from preimage import ForwardOperator, GaussianNoise, Identity, Key, LinearOperator, Pipeline, stack
from preimage.errors import BadParameter, Incompatible, ShapeMismatch

SHAPE = (1, 12, 12)
PLUGIN = Path(__file__).parents[1]


def images(count=2, dtype=torch.float64, shape=SHAPE):
    return Key(0).child("image").uniform((count, *shape), like=torch.zeros((), dtype=dtype))


class Rows(LinearOperator):
    """Every second row, without any closed form."""

    def __init__(self):
        super().__init__(SHAPE, (1, 6, 12))

    def forward(self, x):
        return x[:, :, ::2] + 0.5 * x[:, :, 1::2]


LINEAR = [lambda: Identity(SHAPE), lambda: GaussianBlur(SHAPE, sigma=1.0).double(), Rows, lambda: 2.0 * Rows()]


@pytest.mark.parametrize("make", LINEAR)
def test_a_linear_operator_is_a_linear_physics(make):
    operator = make()
    physics = as_physics(operator)
    x, y = images(), operator(images(3)[1:])
    assert isinstance(physics, deepinv.physics.LinearPhysics)
    assert torch.equal(physics.A(x), operator(x))
    assert torch.equal(physics(x), operator(x))
    assert torch.equal(physics.A_adjoint(y), operator.adjoint(y))
    assert float(physics.adjointness_test(x)) < 1e-12
    columns = operator(torch.eye(144, dtype=torch.float64).reshape(144, *SHAPE)).flatten(1)
    norm = float(torch.linalg.matrix_norm(columns, 2))
    assert float(physics.compute_norm(x[0], squared=False)) == pytest.approx(norm, rel=0.02)
    assert float(physics.compute_sqnorm(x[:1])) == pytest.approx(norm**2, rel=0.02)


@pytest.mark.parametrize("make", LINEAR)
def test_its_proximal_map_and_pseudo_inverse_solve_their_equations(make):
    operator = make()
    physics = as_physics(operator)
    z, y = images(), operator(images(3)[1:])
    for gamma in (0.7, torch.tensor([0.3, 2.0], dtype=torch.float64), torch.full((2, 1, 1, 1), 0.5).double()):
        x = physics.prox_l2(z, y, gamma, tol=1e-9, max_iter=300)
        steps = torch.as_tensor(gamma, dtype=torch.float64).reshape(-1, 1, 1, 1)
        slope = steps * operator.adjoint(operator(x) - y) + x - z
        assert float(slope.norm()) < 1e-5 * float(z.norm())
    assert torch.equal(physics.prox_l2(None, y, 1.0), physics.prox_l2(torch.zeros_like(z), y, 1.0))
    fitted = physics.A_dagger(operator(z), max_iter=500, tol=1e-9)
    assert float((operator(fitted) - operator(z)).norm()) < 5e-3 * float(operator(z).norm())


def test_settings_of_one_call_do_not_stay_as_they_do_in_deepinv():
    physics = as_physics(Rows())
    before = physics.max_iter, physics.tol, physics.solver
    y = Rows()(images())
    physics.prox_l2(images(), y, 1.0, solver="CG", max_iter=7, tol=1e-1)
    physics.A_dagger(y, solver="minres", max_iter=3)
    assert (physics.max_iter, physics.tol, physics.solver) == before


def test_norms_draw_nothing_from_the_global_generator():
    state = torch.get_rng_state()
    for operator in (Rows(), PeronaMalik(SHAPE)):
        physics = as_physics(operator)
        assert torch.equal(physics.compute_sqnorm(images(1)), physics.compute_sqnorm(images(1)))
    assert torch.equal(torch.get_rng_state(), state)


def test_physics_compose_and_stack_in_deepinv():
    first, second = as_physics(GaussianBlur(SHAPE, sigma=1.0).double()), as_physics(Rows())
    x = images()
    assert torch.allclose((second * first).A(x), second.A(first.A(x)))
    whole = deepinv.physics.StackedLinearPhysics([first, second])
    assert [tuple(part.shape) for part in whole.A(x)] == [(2, *SHAPE), (2, 1, 6, 12)]
    ours = stack(first.operator, second.operator)
    assert torch.allclose(whole.A_adjoint(whole.A(x)), ours.adjoint(ours(x)))


# Nonlinear operators


class Bending(ForwardOperator):
    """x + x^3, rows averaged in pairs: images to another shape, with a known derivative."""

    def __init__(self):
        super().__init__(SHAPE, (1, 6, 12))

    def forward(self, x):
        u = x + x**3
        return 0.5 * (u[:, :, ::2] + u[:, :, 1::2])


@pytest.mark.parametrize("make", [lambda: PeronaMalik(SHAPE, contrast=0.3), Bending])
def test_a_nonlinear_physics_has_what_deepinvs_algorithms_ask_for(make):
    operator = make()
    physics = as_physics(operator)
    x, v = images(), images(4)[2:]
    y = operator(images(3)[1:])
    assert torch.equal(physics.A(x), operator(x))
    value, jacobian = operator.linearize(x)
    assert torch.allclose(physics.A_jvp(x, v), jacobian(v))
    assert torch.allclose(physics.A_vjp(x, y), jacobian.adjoint(y))
    theirs = deepinv.physics.Physics(A=operator)
    assert torch.allclose(physics.A_vjp(x, y), theirs.A_vjp(x, y))
    assert float(physics.adjointness_test(x)) < 1e-12
    one = operator.linearize(x[:1])[1]
    columns = torch.cat([one(e[None]) for e in torch.eye(144, dtype=torch.float64).reshape(144, *SHAPE)]).flatten(1)
    norm = float(torch.linalg.matrix_norm(columns, 2))
    assert float(physics.compute_norm(x[:1], squared=False)) == pytest.approx(norm, rel=0.02)
    assert float(physics.compute_norm(x[:1])) == pytest.approx(norm**2, rel=0.03)
    point = y if operator.in_shape == operator.out_shape else torch.zeros_like(x)
    assert torch.allclose(physics.A_adjoint(y), operator.vjp(point)[1](y))
    elsewhere = as_physics(operator, at=x[0])
    assert torch.allclose(elsewhere.A_adjoint(y), operator.vjp(x[:1].expand(2, *SHAPE))[1](y))
    assert isinstance(value, torch.Tensor)


@pytest.mark.parametrize("make", [lambda: PeronaMalik(SHAPE, contrast=0.3), Bending])
def test_its_proximal_map_is_stationary_and_each_images_own(make):
    operator = make()
    physics = as_physics(operator)
    z = images()
    y = operator(images(3)[1:])
    gamma = torch.tensor([0.5, 3.0], dtype=torch.float64)
    x = physics.prox_l2(z, y, gamma)

    def slope(u):
        predicted, pullback = operator.vjp(u)
        return gamma.reshape(2, 1, 1, 1) * pullback(predicted - y) + u - z

    assert bool((slope(x).flatten(1).norm(dim=1) <= 2e-5 * slope(z).flatten(1).norm(dim=1)).all())
    for i in range(2):
        assert torch.equal(physics.prox_l2(z[i : i + 1], y[i : i + 1], gamma[i]), x[i : i + 1])


def test_the_iteration_for_nonlinear_operators_gives_the_minimiser_of_a_linear_problem():
    operator = GaussianBlur(SHAPE, sigma=1.0).double()
    z, y, gamma = images(), operator(images(3)[1:]), torch.tensor([0.5, 3.0], dtype=torch.float64)
    exact = operator.solve_normal(operator.adjoint(y) + z / gamma.reshape(2, 1, 1, 1), 1 / gamma)
    found = proximal_misfit(operator, y, z, gamma, tolerance=1e-10)
    assert torch.allclose(found, exact, atol=1e-7)


def test_it_converges_in_single_precision_and_from_far_away():
    operator = Bending()
    y = operator(images(1, torch.float32))
    far = 5 * torch.ones(1, *SHAPE)
    x = as_physics(operator).prox_l2(far, y, 100.0)
    assert x.dtype == torch.float32
    predicted = operator(x)
    assert float((predicted - y).norm()) < 0.2 * float((operator(far) - y).norm())


def test_the_pseudo_inverse_needs_no_start_and_lowers_the_misfit():
    for operator in (PeronaMalik(SHAPE, contrast=0.3), Bending()):
        physics = as_physics(operator)
        y = operator(images())
        start = y if operator.in_shape == operator.out_shape else torch.zeros(2, *SHAPE).double()
        found = physics.A_dagger(y)
        assert bool(((operator(found) - y).norm() < 0.5 * (operator(start) - y).norm()).all())
        better = physics.A_dagger(y, x_init=images(), tol=0.0)
        assert torch.allclose(better, images(), atol=1e-6)


def test_the_table_of_the_readme_is_what_its_tool_prints():
    spec = importlib.util.spec_from_file_location("perona_malik_table", PLUGIN / "tools" / "perona_malik_table.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    rows = tool.rows()
    for name, plain, ours in rows[1:]:
        assert re.match(r"AttributeError|ValueError", plain), f"deepinv has learnt {name}"
        assert "Error" not in ours, f"{name}: {ours}"
    readme = (PLUGIN / "README.md").read_text("utf-8")
    block = readme.partition(tool.BEGIN)[2].partition(tool.END)[0]
    for name, plain, ours in rows:
        line = next(line for line in block.splitlines() if line.startswith(f"| {name} |"))
        _, _, was_plain, was_ours, _ = line.split(" | ") if line.endswith(" | ") else [*line.split("|")]
        assert was_plain.strip().partition(":")[0] == plain.partition(":")[0]
        # Rounding differs from machine to machine, and a tenth of a dB with it.
        number = re.match(r"[\d.]+", ours)
        if number:
            assert float(re.match(r"\s*([\d.]+)", was_ours).group(1)) == pytest.approx(float(number.group()), abs=0.3)


def test_wrong_input_is_refused_in_one_message():
    with pytest.raises(ShapeMismatch, match=r"\(B, 1, 12, 12\)"):
        as_physics(Rows()).A(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ShapeMismatch, match=r"\(B, 1, 6, 12\)"):
        as_physics(Bending()).A_adjoint(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ShapeMismatch, match="at has shape"):
        as_physics(Bending(), at=torch.zeros(1, 8, 8))
    with pytest.raises(BadParameter, match="linear operator"):
        as_physics(Rows(), at=torch.zeros(SHAPE))


# Noise


def test_noise_is_drawn_from_keys_and_can_be_repeated():
    operator, noise = Identity(SHAPE), GaussianNoise(sigma=0.1)
    physics = as_physics(operator, noise, key=Key(5))
    x, state = images(), torch.get_rng_state()
    first, second = physics(x), physics(x)
    assert torch.equal(first, noise.sample(x, Key(5).child(0)))
    assert not torch.equal(first, second)
    physics.noise_model.reset_rng()
    assert torch.equal(physics(x), first)
    assert torch.equal(physics.noise(x, seed=3), physics.noise(x, seed=3))
    assert torch.equal(torch.get_rng_state(), state)
    assert float(physics.noise_model.sigma) == pytest.approx(0.1)
    with pytest.raises(BadParameter, match="another_noise"):
        physics.noise_model.update_parameters(sigma=0.2)


# Priors


def test_priors_are_denoisers_and_priors_of_deepinv():
    x = images()
    median, tv = Median(SHAPE), TotalVariation(SHAPE, tolerance=1e-10)
    assert torch.equal(as_denoiser(median)(x, 0.1), median.denoise(x, 0.1))
    levels = torch.tensor([0.1, 0.3], dtype=torch.float64)
    assert torch.equal(as_denoiser(tv)(x, levels), tv.prox(x, levels**2))
    term = as_prior(tv)
    assert term.explicit_prior
    assert torch.equal(term(x), tv.energy(x))
    assert torch.allclose(term.prox(x, None, gamma=0.2), tv.prox(x, 0.2))
    converged = deepinv.optim.TVPrior(n_it_max=5000).prox(x, gamma=0.2)
    assert torch.allclose(term.prox(x, None, gamma=0.2), converged, atol=1e-4)
    assert torch.equal(as_prior(Tikhonov(SHAPE, kind="identity")).grad(x), x)
    assert not as_prior(median).explicit_prior
    assert torch.equal(as_prior(median).prox(x, 0.1, gamma=5.0), median.denoise(x, 0.1))
    pnp = deepinv.optim.PGD(deepinv.optim.L2(), deepinv.optim.PnP(as_denoiser(tv)), g_param=0.1, max_iter=2)
    assert pnp(x, as_physics(Identity(SHAPE))).shape == x.shape


def test_what_a_prior_cannot_do_is_said():
    with pytest.raises(Incompatible, match="has no gradient"):
        as_prior(TotalVariation(SHAPE)).grad(images())
    with pytest.raises(Incompatible, match="has no energy"):
        as_prior(Median(SHAPE)).fn(images())
    with pytest.raises(ShapeMismatch):
        as_denoiser(Median(SHAPE))(torch.zeros(1, 1, 8, 8), 0.1)


# Pipelines

SUITE = """
[[data]]
name = "photographs"
count = 2
size = 32
[[operator]]
name = "gaussian-blur"
sigma = 1.0
[[noise]]
name = "gaussian"
sigma = 0.03
[[method]]
label = "tv"
prior = { name = "tv", weight = 0.001 }
solver = { name = "fista", max_steps = 30 }
"""


def pipeline():
    tables = {
        "shape": list(SHAPE),
        "operator": {"name": "gaussian-blur", "sigma": 1.0},
        "noise": {"name": "gaussian", "sigma": 0.03},
        "prior": {"name": "tv", "weight": 0.01},
        "solver": {"name": "fista", "max_steps": 10},
    }
    return Pipeline.from_dict(tables)


def test_a_pipeline_is_a_reconstructor():
    ours = pipeline()
    y = ours.simulate(images(2, torch.float32))
    model = as_reconstructor(ours)
    assert isinstance(model, deepinv.models.Reconstructor)
    assert torch.equal(model(y), ours.reconstruct(y).x)
    assert torch.equal(model(y, as_physics(ours.operator)), model(y))


def test_another_physics_than_the_pipelines_is_refused():
    model, y = as_reconstructor(pipeline()), images(2, torch.float32)
    for physics in (deepinv.physics.Denoising(), as_physics(Identity(SHAPE))):
        with pytest.raises(Incompatible, match="leave physics out"):
            model(y, physics)


class BorderlessSSIM(deepinv.metric.SSIM):
    """deepinv's SSIM, by torchmetrics, without the border of 5 pixels that Wang et al. leave out."""

    def metric(self, x_net, x, *_, **__):
        _, whole = self.ssim(x_net, x, data_range=1.0, reduction="none", return_full_image=True)
        return whole[..., 5:-5, 5:-5].mean((1, 2, 3))


def test_deepinv_test_and_preimage_compare_agree(tmp_path):
    from preimage_compare import load_suite
    from preimage_compare.cells import plan
    from preimage_compare.measure import Laboratory, Task
    from preimage_compare.suite import Limits

    (tmp_path / "suite.toml").write_text(SUITE)
    suite = plan(load_suite(tmp_path / "suite.toml"))
    for cell in suite.cells:
        task = Task(suite.suite.tables(cell.cell), cell.cell._asdict(), cell.index, cell.key, Limits(), 1, {})
        record = Laboratory().compute(task).record
        ours = Pipeline.from_dict(record["config"])
        label, x = task.labels["image"], ours.data[cell.index][None]
        y = ours.simulate(x, [label])

        def tested(*metrics, model=as_reconstructor(ours), x=x, y=y):
            return deepinv.test(
                model,
                torch.utils.data.DataLoader([{"x": x[0], "y": y[0]}], batch_size=1),
                as_physics(model.pipeline.operator, model.pipeline.noise),
                metrics=list(metrics),
                verbose=False,
                show_progress_bar=False,
                non_blocking_transfers=False,  # deepinv warns of its own default on the CPU
            )

        same = tested(as_metric(PSNR()), as_metric(SSIM()))
        assert same["PSNR"] == pytest.approx(record["metrics"]["psnr"], abs=1e-4)
        assert same["SSIM"] == pytest.approx(record["metrics"]["ssim"], abs=1e-4)
        assert record["metrics"]["psnr"] > same["PSNR no learning"]
        # By deepinv's own code: all that differs is 1e-8 in the mean square error, and the border.
        theirs = tested(deepinv.metric.PSNR(norm_inputs="clip"), BorderlessSSIM(norm_inputs="clip"))
        assert theirs["PSNR"] == pytest.approx(record["metrics"]["psnr"], abs=1e-4)
        assert theirs["BorderlessSSIM"] == pytest.approx(record["metrics"]["ssim"], abs=1e-4)
