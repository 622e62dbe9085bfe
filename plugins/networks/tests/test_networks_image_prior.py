"""The deep image prior: its network, its sizes, and what distinguishes it as a solver."""

import pytest
import torch
from preimage_networks.deep_image_prior import DeepImagePrior
from preimage_networks.hourglass_network import HourglassNetwork
from preimage_networks.per_image_layers import convolve, normalise
from preimage_perona_malik import PeronaMalik

from preimage import GaussianNoise, Identity, Key, Problem, Status, hookimpl, load, solve
from preimage.errors import BadParameter

LIKE = torch.zeros((), dtype=torch.float64)


def weights_and_input(network, count=1):
    weights = torch.stack([network.draw_weights(Key(i), LIKE) for i in range(count)])
    return weights, torch.stack([network.draw_input(Key(7).child(i), LIKE) for i in range(count)])


def noisy(count=2, shape=(1, 16, 20), dtype=torch.float32):
    height, width = shape[1:]
    rows, columns = torch.linspace(0, 3, height), torch.linspace(0, 4, width)
    phases = torch.arange(count * shape[0]).reshape(count, shape[0], 1, 1)
    x = (0.5 + 0.4 * torch.sin(rows[:, None] + phases) * torch.cos(columns + phases)).to(dtype)
    noise = GaussianNoise(sigma=0.1)
    return x, Problem(Identity(shape), noise.sample(x, Key(3)), noise)


def small(**changed):
    values = {"max_steps": 12, "channels": 4, "scales": 2, "input_channels": 3, "averaging": 0.9}
    return DeepImagePrior(**(values | changed))


def test_the_number_of_weights_is_counted_layer_by_layer():
    c, s, i, scales = 6, 2, 5, 3
    network = HourglassNetwork((3, 32, 32), channels=c, skip_channels=s, scales=scales, input_channels=i)
    skips = s * i + 2 * s + (scales - 1) * (s * c + 2 * s)
    down = (9 * c * i + 2 * c) + (scales - 1) * (9 * c * c + 2 * c) + scales * (9 * c * c + 2 * c)
    up = scales * (9 * c * (c + s) + 2 * c + c * c + 2 * c)
    assert network.layout.count == skips + down + up + 3 * c + 3


def test_the_default_is_about_an_eighth_of_the_papers_width():
    assert DeepImagePrior().network((3, 64, 64)).layout.count == 31827


@pytest.mark.parametrize(("size", "scales"), [((64, 64), 4), ((13, 18), 2), ((8, 100), 1), ((5, 5), 1), ((4, 4), 1)])
def test_any_size_gives_an_image_of_that_size(size, scales):
    network = HourglassNetwork((2, *size), channels=3, scales=4, input_channels=2)
    assert network.scales == scales
    x = network(*weights_and_input(network, 2))
    assert x.shape == (2, 2, *size)
    assert 0 < float(x.min()) <= float(x.max()) < 1


def test_images_do_not_influence_each_other():
    network = HourglassNetwork((1, 12, 16), channels=4, scales=2, input_channels=3)
    weights, inputs = weights_and_input(network, 3)
    whole = network(weights, inputs)
    for index in range(3):
        alone = network(weights[index : index + 1], inputs[index : index + 1])
        torch.testing.assert_close(alone[0], whole[index], rtol=1e-9, atol=1e-12)


def test_every_weight_matters():
    """A weight whose gradient is only rounding would be moved at random by Adam."""
    network = HourglassNetwork((1, 16, 16), channels=3, scales=2, input_channels=2)
    weights, inputs = weights_and_input(network)
    slope = Key(1).normal((1, 1, 16, 16), like=weights)
    gradient = torch.func.grad(lambda w: (network(w, inputs) * slope).sum())(weights)
    assert float(gradient.abs().min()) > 1e-9 * float(gradient.abs().max())


def test_skips_carry_detail_to_the_output():
    network = HourglassNetwork((1, 16, 16), channels=3, skip_channels=1, scales=1, input_channels=1)
    without = HourglassNetwork((1, 16, 16), channels=3, skip_channels=0, scales=1, input_channels=1)
    assert network.layout.count - without.layout.count == (1 + 2) + 9 * 3


def test_convolution_is_torchs_with_reflected_borders():
    x, kernels = Key(0).normal((2, 3, 7, 9), like=LIKE), Key(1).normal((2, 4, 3, 3, 3), like=LIKE)
    module = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1, padding_mode="reflect", bias=False).double()
    for index in range(2):
        with torch.no_grad():
            module.weight.copy_(kernels[index])
            expected = module(x[index : index + 1])
        torch.testing.assert_close(convolve(x, kernels, 2)[index : index + 1], expected)


def test_normalisation_sets_mean_and_deviation():
    x = 3 + 5 * Key(0).normal((2, 3, 40, 40), like=LIKE)
    scale, shift = Key(1).uniform((2, 3), like=LIKE) + 1, Key(2).uniform((2, 3), like=LIKE)
    deviation, mean = torch.std_mean(normalise(x, scale, shift), (2, 3), correction=0)
    torch.testing.assert_close(mean, shift)
    torch.testing.assert_close(deviation, scale, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_gives_what_its_images_give_alone(dtype):
    _, problem = noisy(3, dtype=dtype)
    keys = Key(4).rows(3)
    together = solve(problem, small(), key=keys).x
    for index in range(3):
        alone = solve(problem.rows(torch.tensor([index])), small(), key=[keys[index]]).x
        assert torch.equal(alone[0], together[index])


def test_it_can_be_repeated_and_depends_on_the_key():
    _, problem = noisy()
    first, again, other = (solve(problem, small(), key=key).x for key in (Key(0), Key(0), Key(1)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_input_is_perturbed_afresh_in_each_step():
    _, problem = noisy(1)
    solver = small(input_noise=0.5)
    state = solver.init(problem, Key(0).rows(1))
    first, second = solver._perturbed(state), solver._perturbed(solver.step(problem, state))
    assert not torch.equal(first, second)
    assert abs(float((first - state.inputs).std()) - 0.5) < 0.05
    still = small(input_noise=0.0)
    assert torch.equal(still._perturbed(state), state.inputs)


def test_the_estimate_is_the_average_of_the_outputs():
    _, problem = noisy(1)
    solver = small(averaging=0.5, input_noise=0.0, stopping="none")
    state = solver.init(problem, Key(0).rows(1))
    network, average = solver.network((1, 16, 20)), torch.tensor(0.0)
    for number in range(1, 6):
        output = network(state.weights, state.inputs).detach()
        state = solver.step(problem, state)
        average = output if number == 1 else 0.5 * average + 0.5 * output
        torch.testing.assert_close(state.average, average)


class Objective:
    """The objective after each step, and whether it is the misfit of the estimate."""

    def __init__(self):
        self.values = []

    @hookimpl
    def preimage_step(self, run):
        self.values.append(run.objective().clone())
        torch.testing.assert_close(run.problem.misfit(run.estimate()[run.active]), run.objective()[run.active])


def test_it_denoises_and_stops_by_the_discrepancy_principle():
    x, problem = noisy(2, (1, 24, 24))
    curve = Objective()
    result = solve(problem, small(max_steps=400, channels=8, tau=1.2), observers=[curve])
    assert result.status == (Status.CONVERGED,) * 2
    assert all("discrepancy" in reason for reason in result.reasons)
    assert bool(((result.x - x).square().mean((1, 2, 3)) < 0.7 * 0.1**2).all())
    values = torch.stack(curve.values)
    assert bool((values[1:] <= values[:-1]).all())


def test_a_nonlinear_operator_in_colour():
    shape = (3, 14, 19)
    x, _ = noisy(2, shape)
    operator, noise = PeronaMalik(shape), GaussianNoise(sigma=0.02)
    problem = Problem(operator, noise.sample(operator(x), Key(0)), noise)
    curve = Objective()
    result = solve(problem, small(max_steps=60), observers=[curve])
    assert result.x.shape == (2, *shape)
    assert bool((curve.values[-1] < 0.5 * curve.values[0]).all())


@pytest.mark.parametrize("bad", [{"channels": 0}, {"skip_channels": -1}, {"scales": 0}, {"input_channels": 0}], ids=str)
def test_parameters_out_of_range_are_refused(bad):
    with pytest.raises(BadParameter, match=next(iter(bad))):
        DeepImagePrior(**bad)


def test_it_has_a_name():
    assert load("solver", "deep-image-prior") is DeepImagePrior
