"""The deep decoder: its network against a plain torch module, and the rules every fitted network keeps."""

import pytest
import torch
from preimage_compressive_sensing import CompressiveSensing
from preimage_networks.decoder_network import DecoderNetwork
from preimage_networks.deep_decoder import DeepDecoder
from preimage_networks.early_stopping import Best, Spread
from preimage_perona_malik import PeronaMalik
from torch import nn

from preimage import GaussianNoise, Identity, Key, NoNoise, PoissonNoise, Problem, Status, hookimpl, load, solve
from preimage.errors import BadParameter, Incompatible

LIKE = torch.zeros(())


def smooth_images(count, shape, dtype=torch.float32):
    """Images with values in [0.1, 0.9] that a network can fit."""
    channels, height, width = shape
    rows, columns = torch.linspace(0, 3, height), torch.linspace(0, 4, width)
    phases = torch.arange(count * channels).reshape(count, channels, 1, 1)
    return (0.5 + 0.4 * torch.sin(rows[:, None] + phases) * torch.cos(columns + phases)).to(dtype)


def denoising(count=3, shape=(1, 16, 20), sigma=0.1, dtype=torch.float32):
    operator, noise = Identity(shape), GaussianNoise(sigma=sigma)
    x = smooth_images(count, shape, dtype)
    return x, Problem(operator, noise.sample(x, Key(5)), noise)


def reference_module(network: DecoderNetwork, weights: torch.Tensor) -> nn.Module:
    """The same network from torch's own modules, upsampling before mixing, for one image."""
    channels, parts = network.input_shape[0], []
    for size in network.sizes:
        parts += [
            nn.Upsample(size=size, mode="bilinear"),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.ReLU(),
            nn.BatchNorm2d(channels),
        ]
    module = nn.Sequential(*parts, nn.Conv2d(channels, network.out_shape[0], 1, bias=False), nn.Sigmoid())
    nn.utils.vector_to_parameters(weights, module.parameters())
    return module


@pytest.mark.parametrize(("shape", "layers"), [((3, 16, 16), 2), ((1, 13, 18), 1), ((1, 9, 9), 5)])
@pytest.mark.parametrize("count", [1, 2])
def test_the_network_is_the_one_of_torch_modules(shape, layers, count):
    network = DecoderNetwork(shape, channels=6, layers=layers)
    weights = torch.stack([network.draw_weights(Key(i), LIKE) for i in range(count)]).double()
    inputs = torch.stack([network.draw_input(Key(9).child(i), LIKE) for i in range(count)]).double()
    weights = weights + 0.1 * Key(2).normal(weights.shape, like=weights)
    modules = [reference_module(network, w.float()).double() for w in weights]
    for module, w in zip(modules, weights, strict=True):
        nn.utils.vector_to_parameters(w, module.parameters())
    expected = torch.cat([module(z[None]) for module, z in zip(modules, inputs, strict=True)])
    torch.testing.assert_close(network(weights, inputs), expected, rtol=1e-9, atol=1e-9)


def test_the_gradient_in_the_weights_is_that_of_the_modules():
    network = DecoderNetwork((3, 12, 12), channels=5, layers=1)
    weights = network.draw_weights(Key(0), LIKE).double()
    inputs = network.draw_input(Key(1), LIKE).double()
    module = reference_module(network, weights.float()).double()
    nn.utils.vector_to_parameters(weights, module.parameters())
    slope = Key(3).normal((1, 3, 12, 12), like=inputs)
    expected = torch.autograd.grad((module(inputs[None]) * slope).sum(), list(module.parameters()))
    ours = torch.func.grad(lambda w: (network(w[None], inputs[None]) * slope).sum())(weights)
    torch.testing.assert_close(ours, torch.cat([g.flatten() for g in expected]), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("channels", "layers"), [(32, 4), (64, 3), (7, 0)])
def test_the_number_of_weights_is_the_formula(channels, layers):
    network = DecoderNetwork((3, 64, 64), channels=channels, layers=layers)
    assert network.layout.count == (layers + 1) * (channels**2 + 2 * channels) + 3 * channels
    assert network.input_shape == (channels, 64 // 2**layers, 64 // 2**layers)


def test_the_default_has_fewer_weights_than_a_64_pixel_colour_image_has_values():
    assert DeepDecoder().network((3, 64, 64)).layout.count == 5536 < 3 * 64 * 64


def test_the_input_never_has_a_side_below_four_pixels():
    assert DecoderNetwork((1, 9, 30), channels=2, layers=9).input_shape == (2, 5, 15)


@pytest.mark.parametrize("averaging", [0.0, 0.8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_gives_what_its_images_give_alone(dtype, averaging):
    _, problem = denoising(dtype=dtype)
    solver, keys = DeepDecoder(max_steps=25, channels=8, averaging=averaging, input_noise=0.02), Key(1).rows(3)
    together = solve(problem, solver, key=keys)
    assert together.x.dtype == dtype
    for index in range(3):
        alone = solve(problem.rows(torch.tensor([index])), solver, key=[keys[index]])
        assert torch.equal(alone.x[0], together.x[index])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_a_dense_matrix_too(dtype):
    pytest.importorskip("numba", reason="without numba a matrix product rounds by its batch")
    x = smooth_images(3, (1, 16, 20), dtype)
    operator, noise = CompressiveSensing((1, 16, 20), measurements=150, key=Key(0)), GaussianNoise(sigma=0.01)
    problem = Problem(operator, noise.sample(operator(x), Key(5)), noise)
    solver, keys = DeepDecoder(max_steps=40, channels=8, stopping="none"), Key(1).rows(3)
    together = solve(problem, solver, key=keys).x
    for index in range(3):
        alone = solve(problem.rows(torch.tensor([index])), solver, key=[keys[index]]).x
        assert torch.equal(alone[0], together[index])


def test_double_precision_hides_the_last_bits_of_an_operator_from_the_fit():
    x, problem = denoising(dtype=torch.float64)

    class Shaken(Identity):
        def forward(self, x):
            return x * (1 + 1e-15)

    solver = DeepDecoder(max_steps=60, channels=8)
    shaken = Problem(Shaken(x.shape[1:]), problem.y, problem.noise)
    torch.testing.assert_close(solve(shaken, solver).x, solve(problem, solver).x, rtol=0, atol=1e-12)


def test_weights_come_from_the_key_of_the_image():
    _, problem = denoising(count=2)
    problem = Problem(problem.operator, problem.y[:1].repeat(2, 1, 1, 1), problem.noise)
    solver = DeepDecoder(max_steps=8, channels=6)
    first, again, other = (solve(problem, solver, key=key).x for key in (Key(0), Key(0), Key(1)))
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, other)


def test_it_fits_and_denoises():
    x, problem = denoising(count=2, shape=(1, 24, 24))
    result = solve(problem, DeepDecoder(max_steps=300, channels=12, layers=2, learning_rate=0.02))
    error = (result.x - x).square().flatten(1).mean(1)
    assert bool((error < 0.25 * 0.1**2).all())


class Watch:
    """What a run looked like after each step."""

    def __init__(self):
        self.misfits, self.estimates = [], []

    @hookimpl
    def preimage_step(self, run):
        self.misfits.append(run.objective().clone())
        self.estimates.append(run.estimate())


def test_the_discrepancy_principle_stops_each_image_at_its_first_sufficient_misfit():
    _, problem = denoising()
    solver, watch = DeepDecoder(max_steps=300, channels=10, layers=2, learning_rate=0.02, tau=1.5), Watch()
    result = solve(problem, solver, observers=[watch])
    limit = 1.5**2 * problem.noise.expected_misfit(problem.y)
    assert result.status == (Status.CONVERGED,) * 3
    assert all("discrepancy" in reason for reason in result.reasons)
    history = torch.stack(watch.misfits)
    for index, steps in enumerate(result.steps):
        assert bool((history[: steps - 1, index] > limit[index]).all())
        assert history[steps - 1, index] <= limit[index]
    torch.testing.assert_close(result.objective, problem.misfit(result.x))


def test_the_estimate_is_the_best_so_far_by_misfit():
    _, problem = denoising()
    watch = Watch()
    solve(problem, DeepDecoder(max_steps=40, channels=6, learning_rate=0.1, stopping="none"), observers=[watch])
    misfits = torch.stack(watch.misfits)
    assert bool((misfits[1:] <= misfits[:-1]).all())
    for misfit, estimate in zip(watch.misfits, watch.estimates, strict=True):
        torch.testing.assert_close(problem.misfit(estimate), misfit)


def test_smoothed_variance_stops_after_its_patience_and_returns_the_calmest():
    _, problem = denoising(count=1)
    solver = DeepDecoder(max_steps=400, channels=10, stopping="variance", window=5, patience=15)
    result = solve(problem, solver)
    assert result.status == (Status.CONVERGED,)
    assert "variance" in result.reasons[0]
    outputs = []
    state = solver.init(problem, Key(0).rows(1))
    with torch.no_grad():
        for _ in range(result.steps[0]):
            network, weights, inputs = solver.network((1, 16, 20)), state.weights, state.inputs
            outputs.append(network(weights, inputs))
            state = solver.step(problem, state)
    mean, variance, spreads = outputs[0], 0.0, []
    for number, output in enumerate(outputs):
        variance = (1 - 1 / 5) * (variance + (output - mean).square().sum() / 5)
        mean = mean + (output - mean) / 5
        spreads.append(float(variance) if number + 1 >= 5 else float("inf"))
    calmest = min(range(len(spreads)), key=spreads.__getitem__)
    assert len(spreads) - 1 - calmest == 15
    torch.testing.assert_close(result.x, outputs[calmest])


def test_before_the_window_is_full_the_last_output_is_the_estimate():
    _, problem = denoising(count=1)
    solver = DeepDecoder(max_steps=4, channels=6, stopping="variance", window=50)
    state = solver.init(problem, Key(0).rows(1))
    for _ in range(4):
        last, _ = solver.network((1, 16, 20)).linearise(state.weights, state.inputs)
        state = solver.step(problem, state)
    assert torch.equal(solve(problem, solver).x, last)


def test_without_a_noise_level_auto_means_variance():
    x, _ = denoising(count=1)
    problem = Problem(Identity(x.shape[1:]), x, NoNoise())
    result = solve(problem, DeepDecoder(max_steps=300, channels=6, window=3, patience=5))
    assert "variance" in result.reasons[0]


def test_max_steps_is_said_to_be_the_reason():
    _, problem = denoising(count=1)
    result = solve(problem, DeepDecoder(max_steps=3, channels=4))
    assert result.status == (Status.MAX_STEPS,)
    assert result.steps == (3,)


def test_spread_and_best_of_known_sequences():
    x = torch.tensor([[1.0, 0.0]])
    spread = Spread.of(x).then(torch.tensor([[3.0, 0.0]]), 2)
    assert spread.mean.tolist() == [[2.0, 0.0]]
    assert spread.variance.tolist() == [1.0]
    value = torch.tensor([2.0])
    best = Best.of(x, value, value).then(2 * x, value, value).then(3 * x, value - 1, value - 1)
    assert best.x.tolist() == [[3.0, 0.0]]
    assert best.since.tolist() == [0]


def test_a_nonlinear_operator_and_colour_and_an_odd_size():
    shape = (3, 14, 19)
    operator, noise = PeronaMalik(shape), GaussianNoise(sigma=0.02)
    x = smooth_images(2, shape)
    problem = Problem(operator, noise.sample(operator(x), Key(0)), noise)
    solver, watch = DeepDecoder(max_steps=60, channels=10, learning_rate=0.03), Watch()
    result = solve(problem, solver, observers=[watch])
    assert result.x.shape == (2, *shape)
    assert 0 <= float(result.x.min()) <= float(result.x.max()) <= 1
    assert bool((watch.misfits[-1] < 0.2 * watch.misfits[0]).all())


def test_photon_noise():
    x = smooth_images(1, (1, 12, 12))
    noise = PoissonNoise(peak=200.0)
    problem = Problem(Identity((1, 12, 12)), noise.sample(x, Key(0)), noise)
    result = solve(problem, DeepDecoder(max_steps=400, channels=8, learning_rate=0.02, tau=1.3))
    assert "discrepancy" in result.reasons[0]


@pytest.mark.parametrize(
    "bad",
    [
        {"channels": 0},
        {"layers": -1},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"tau": -1.0},
        {"window": 0},
        {"patience": 0},
        {"averaging": 1.0},
        {"input_noise": -0.1},
        {"max_steps": -1},
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused(bad):
    with pytest.raises(BadParameter, match=next(iter(bad))):
        DeepDecoder(**bad)


@pytest.mark.parametrize("shape", [(1, 3, 9), (7,)])
def test_what_is_no_image_is_refused(shape):
    noise = GaussianNoise(sigma=0.1)
    with pytest.raises(Incompatible, match="at least 4"):
        solve(Problem(Identity(shape), torch.zeros(1, *shape), noise), DeepDecoder(max_steps=1))


def test_a_learning_rate_that_explodes_is_reported():
    _, problem = denoising(count=1)
    result = solve(problem, DeepDecoder(max_steps=5, channels=4, learning_rate=1e38), throw=False)
    assert result.status == (Status.DIVERGED,)
    assert "smaller learning_rate" in result.reasons[0]
    assert bool(torch.isfinite(result.x).all())


def test_it_has_a_name():
    assert load("solver", "deep-decoder") is DeepDecoder
