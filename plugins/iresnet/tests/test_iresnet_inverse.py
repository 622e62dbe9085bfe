"""The inverse: its two rules against a float64 reference, each image by itself, and the linear start."""

import math

import pytest
import torch
from preimage_iresnet import linear_start
from preimage_iresnet.convolution import convolve
from preimage_iresnet.fixed_point import iterate, norms
from preimage_iresnet.inverse import Block, invert
from preimage_iresnet.network import InvertibleResNet, apply
from preimage_iresnet.prior import InvertibleResNetPrior
from preimage_iresnet.rounding import Rounding

from preimage import Key
from preimage._plugins import discover, resource
from preimage.errors import BadData

SHIPPED = sorted(
    file.name for file in discover().weights if file.component == "prior/iresnet" and resource(file.target).is_file()
)


def certified(seed=0, threshold=0.05, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = InvertibleResNet(**({"blocks": 6, "channels": 6, "hidden": 10} | settings))
    for block in network.blocks:
        block.threshold.data.fill_(threshold)
    network.eval().requires_grad_(False).certify(Key(seed).uniform((4, 1, 16, 16)))
    return network


def aligned(blocks=3, lipschitz=0.95):
    """A network that contracts hardly more than its bound on smooth images: kernels and weights of one sign."""
    network = certified(blocks=blocks, lipschitz=lipschitz, channels=2, hidden=2)
    for block, bound in zip(network.blocks, network.bounds, strict=True):
        block.wide.fill_(1 / 50)
        block.wide_bias.zero_()
        block.threshold.zero_()
        block.narrow.fill_(0.5 * bound)
        block.start.zero_()
    return network


@pytest.fixture(scope="module")
def network():
    return certified()


@pytest.fixture(scope="module")
def cases(network):
    """Networks, float32 codes, and their inverses in float64."""
    made = [network, certified(1, lipschitz=0.95), certified(2, threshold=0.0), aligned()]
    return [(each, codes(2, each.channels), reference(each, codes(2, each.channels))) for each in made]


def reference(network, z, terms=80):
    """phi^-1(z) in float64 by plain iterations from z; no network here contracts by less than 0.64, 0.64^80 = 3e-16."""
    x = z.double()
    for residual in network.residuals():
        f, z = residual.to(torch.float64), x
        for _ in range(terms):
            x = z + f(x)
    return x


def codes(count, channels, size=(12, 15), seed=0):
    """Copies of images, images of unlike channels, noise, constants, and one code of zeros."""
    key = Key(seed)
    kinds = [
        key.child("copies").uniform((count, 1, *size)).expand(-1, channels, -1, -1),
        key.child("unlike").uniform((count, channels, *size)),
        5 * key.child("noise").normal((count, channels, *size)),
        torch.ones(count, channels, *size) * torch.linspace(-2, 2, count)[:, None, None, None],
        torch.zeros(1, channels, *size),
    ]
    return torch.cat(kinds)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_estimated_rule_meets_its_tolerance_in_practice(cases, dtype, tolerance):
    network, z, exact = cases[0]
    found = invert(Block.of(network), z.to(dtype), tolerance, certified=False)
    assert found.x.dtype == dtype
    assert bool((norms(found.x.double() - exact) <= tolerance * norms(exact)).all())


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_certified_rule_proves_its_tolerance(cases, dtype, tolerance):
    network, z, exact = cases[0]
    found = invert(Block.of(network), z.to(dtype), tolerance, certified=True)
    assert found.x.dtype == dtype
    assert bool((norms(found.x.double() - exact) <= found.bound).all())
    assert bool((found.bound[:-1] <= tolerance * norms(found.x[:-1].double())).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", [False, True])
@pytest.mark.parametrize("tolerance", [0.5, 1e-2, 1e-4, 1e-9])
def test_no_bound_is_below_the_error(cases, dtype, rule, tolerance):
    for made, z, exact in cases:
        found = invert(Block.of(made), z.to(dtype), tolerance, rule)
        slack = 1e-13 * norms(exact)  # the rounding errors of the reference
        assert bool((norms(found.x.double() - exact) <= found.bound + slack).all())
        assert bool(found.bound.isfinite().all())


def test_a_bound_would_be_caught_lying():
    """On a network that contracts as its bounds say, the error comes within a fifth of what is proved."""
    made = aligned(1, 0.9)
    z = torch.ones(1, 2, 48, 48)
    exact, found = reference(made, z, 300), invert(Block.of(made), z, 1e-2, certified=True)
    error = norms(found.x.double() - exact)
    assert bool((error <= found.bound).all())
    assert bool((error >= 0.2 * found.bound).all())
    assert 0.8 < float(found.contraction) <= 0.9


def test_a_tolerance_that_floating_point_numbers_do_not_admit_ends_with_the_bound_reached(network):
    z = codes(1, 6)
    for dtype, tolerance, reached in ((torch.float32, 1e-9, 1e-6), (torch.float64, 1e-18, 1e-9)):
        found = invert(Block.of(network), z.to(dtype), tolerance, certified=True)
        assert bool((found.bound[:-1] > tolerance * norms(found.x[:-1].double())).all())
        assert bool((found.bound <= reached * norms(found.x.double())).all())


def test_float32_codes_are_certified_to_1e_6_by_finishing_in_float64(network):
    z = codes(3, 6)[:-1]
    found = invert(Block.of(network), z, 1e-6, certified=True)
    assert bool((found.bound <= 1e-6 * norms(found.x.double())).all())


@pytest.mark.parametrize("rule", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_equals_its_images_one_by_one(network, dtype, rule):
    z = codes(3, 6).to(dtype)
    together = invert(Block.of(network), z, 1e-4, rule)
    assert len(set(together.evaluations.tolist())) > 1
    for i in range(len(z)):
        alone = invert(Block.of(network), z[i : i + 1], 1e-4, rule)
        assert torch.equal(alone.evaluations, together.evaluations[i : i + 1])
        apart = norms((alone.x - together.x[i : i + 1]).double())
        assert bool((apart <= 1e-6 * norms(alone.x.double())).all())  # early steps are in float32 in any case
        assert torch.allclose(alone.contraction, together.contraction[i : i + 1], rtol=1e-2)


def test_a_converged_image_is_frozen_and_takes_no_part_in_further_evaluations():
    rows_seen = []

    def advance(x, rows):
        rows_seen.append([0, 1, 2] if rows is None else rows.tolist())
        return 0.5 * x

    goals = torch.tensor([1e-1, 1e-3, 1e-5], dtype=torch.float64)
    found = iterate(torch.ones(3, 1, 1, 1, dtype=torch.float64), advance, 0.5, lambda r, s, p, n: s <= goals[r])
    assert found.steps.tolist() == [4, 10, 17]
    assert found.x.flatten().tolist() == [0.5**4, 0.5**10, 0.5**17]
    assert [sum(i in rows for rows in rows_seen) for i in range(3)] == [4, 10, 17]
    assert found.pace.tolist() == found.worst.tolist() == [0.5] * 3


def test_an_iteration_ends_at_its_rounding_errors_and_at_a_step_that_cannot_be():
    def never(rows, step, pace, size):
        return torch.zeros_like(step, dtype=torch.bool)

    third = iterate(torch.ones(1, 1), lambda x, rows: 1 / 3 * x + 1 / 3, 0.4, never)
    assert abs(float(third.x) - 0.5) < 1e-6
    assert int(third.steps) < 40
    growing = iterate(torch.ones(1, 1), lambda x, rows: 2 * x, 0.4, never)
    assert int(growing.steps) == 2


def test_accelerated_iterations_take_fewer_steps_and_the_last_one_bounds_the_error_all_the_same():
    factors = torch.linspace(-0.2, 0.8, 40, dtype=torch.float64)
    goals = Key(21).normal((5, 40)).double()
    exact = goals / (1 - factors)

    def advance(x, rows):
        return (goals if rows is None else goals[rows]) + factors * x

    def enough(rows, step, pace, size):
        return step <= 1e-6 * size

    plain = iterate(goals, advance, 0.8, enough)
    found = iterate(goals, advance, 0.8, enough, accelerated=True)
    assert bool((found.steps <= 0.7 * plain.steps).all())
    for each in (plain, found):
        assert bool((norms(each.x - exact) <= 0.8 / (1 - 0.8) * each.step * (1 + 1e-9)).all())
        assert bool((each.worst <= 0.8).all())
    for i in range(5):
        alone = iterate(goals[i : i + 1], lambda x, rows, i=i: goals[i : i + 1] + factors * x, 0.8, enough, None, True)
        assert torch.equal(alone.x[0], found.x[i])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_accelerated_iterations_end_too_at_rounding_errors_and_where_acceleration_leads_away(dtype):
    def never(rows, step, pace, size):
        return torch.zeros_like(step, dtype=torch.bool)

    factors, goals = torch.linspace(-0.2, 0.8, 40, dtype=dtype), Key(21).normal((5, 40)).to(dtype)

    def linear(x, rows):
        return (goals if rows is None else goals[rows]) + factors * x

    def folded(x, rows):  # no line fits its changes
        return 0.9 * (x.abs() - 0.5).abs() * torch.tensor([1.0, -1.0], dtype=dtype)

    start = torch.tensor([[3.0, -2.0], [0.1, 0.7]], dtype=dtype)
    for found, advance in (
        (iterate(goals, linear, 0.8, never, accelerated=True), linear),
        (iterate(start, folded, 0.9, never, accelerated=True), folded),
    ):
        assert int(found.steps.max()) < 1000
        assert bool((norms(advance(found.x, None) - found.x) <= 100 * torch.finfo(dtype).eps * found.size).all())


def test_rounding_errors_are_within_their_bound(network):
    z = codes(2, 6, (40, 40))
    for residual in network.residuals():
        exact = z.double() + residual.to(torch.float64)(z.double())
        found = (z + residual(z)).double()
        rho = Rounding.of(residual, 1600, torch.float32).rho(torch.maximum(norms(z), norms(found)).double())
        error = norms(found - exact)
        assert bool((error <= rho).all())
        assert bool((rho[:-1] <= 3e-4 * norms(z)[:-1]).all())


def test_of_bfloat16_codes_the_bound_has_the_rounding_of_the_result(network):
    z = codes(2, 6).to(torch.bfloat16)
    exact, found = reference(network, z), invert(Block.of(network), z, 1e-3, certified=True)
    assert found.x.dtype == torch.bfloat16
    assert bool((norms(found.x.double() - exact) <= found.bound).all())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused(network, bad):
    z = codes(2, 6)
    z[3, 2, 1, 0] = bad
    with pytest.raises(BadData, match="1 values that are NaN or infinite"):
        invert(Block.of(network), z, 1e-3, certified=False)


def test_an_empty_batch_and_an_argument_left_alone(network):
    z = codes(1, 6)
    before = z.clone()
    assert invert(Block.of(network), z[:0], 1e-3, certified=True).x.shape == (0, 6, 12, 15)
    invert(Block.of(network), z, 1e-3, certified=True)
    assert torch.equal(z, before)


def test_the_linear_start_is_the_ridge_regression_of_what_the_inverse_adds():
    made = certified()
    images = Key(3).uniform((5, 1, 20, 14))
    linear_start.fit(made, images)
    z = made.lift(images).double()
    for block, residual in zip(made.blocks, made.residuals(), strict=True):
        x = z
        for _ in range(60):
            x = z + residual.to(torch.float64)(x)
        guess = torch.nn.functional.conv2d(z, block.start.double(), block.start_bias.double(), padding=1)
        left, wanted = x - z - guess, x - z
        assert left.norm() < 0.9 * (wanted - wanted.mean((0, 2, 3), keepdim=True)).norm()
        shifted = torch.roll(z, 1, 3)[..., 1:] * left[..., 1:]  # at the minimum the rest is orthogonal to every input
        assert abs(shifted.sum()) < 1e-3 * z.norm() * wanted.norm()
        assert abs(left.mean()) < 1e-3 * wanted.abs().mean()
        z = x


def test_the_linear_start_saves_evaluations_and_does_not_move_the_inverse():
    made = certified()
    z = made.lift(Key(4).uniform((3, 1, 16, 16))).double()
    with_start = invert(Block.of(made), z, 1e-9, certified=False)
    few = invert(Block.of(made), z, 1e-3, certified=False).evaluations
    for block in made.blocks:
        block.start.zero_()
        block.start_bias.zero_()
    without = invert(Block.of(made), z, 1e-9, certified=False)
    assert torch.allclose(with_start.x, without.x, atol=1e-8)
    assert bool((few < invert(Block.of(made), z, 1e-3, certified=False).evaluations).all())


def test_fitting_leaves_weights_mode_and_certificate_alone():
    made = certified()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items() if "start" not in name}
    linear_start.fit(made, Key(3).uniform((2, 1, 12, 12)))
    assert not made.training
    assert all(torch.equal(tensor, made.state_dict()[name]) for name, tensor in before.items())
    assert bool(made.certified)


@pytest.mark.parametrize(("size", "blocks"), [((17, 33), 12), ((5, 5), 12), ((256, 256), 3)])
def test_round_trips_of_a_random_network_at_the_largest_bound(size, blocks):
    made = certified(preset="tiny", lipschitz=0.999, blocks=blocks, channels=None, hidden=None)
    assert math.isclose(math.prod(1 - bound for bound in made.bounds), 1e-3, rel_tol=1e-9)
    x = made.lift(Key(6).uniform((1, 1, *size)))
    for dtype, accuracy in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        u = x.to(dtype)
        residuals = [residual.to(u) for residual in made.residuals()]
        with torch.no_grad():
            there = invert(Block.of(made), apply(residuals, u), accuracy / 10, certified=False).x
            back = apply(residuals, invert(Block.of(made), u, accuracy / 10, certified=False).x)
        assert float(norms(there - u) / norms(u)) <= accuracy
        assert float(norms(back - u) / norms(u)) <= accuracy


@pytest.mark.skipif(not SHIPPED, reason="no weights of this distribution are there yet")
@pytest.mark.parametrize("name", SHIPPED)
def test_round_trips_of_the_networks_that_ship(name):
    prior = InvertibleResNetPrior((1, 17, 33), weights=name, tolerance=1e-8)
    with torch.no_grad():
        for dtype, accuracy in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
            u = prior.lift(Key(7).uniform((1, 1, 17, 33))).to(dtype)
            z = prior.encode(u)
            x = prior.invert(z, accuracy / 100, certified=False).x
            assert float(norms(x - u) / norms(u)) <= accuracy
            assert float(norms(prior.encode(x) - z) / norms(z)) <= accuracy


@pytest.mark.parametrize("shape", [(3, 9, 7), (2, 40, 31), (1, 3, 700), (1, 600, 2), (0, 8, 8)])
def test_convolutions_in_strips_are_convolutions(shape):
    batch, *size = shape
    x = Key(8).normal((batch, 4, *size)).double()
    kernel, bias = Key(9).normal((6, 4, 5, 5)).double(), Key(10).normal((6,)).double()
    wanted = torch.nn.functional.conv2d(x, kernel, bias, padding=2)
    with torch.no_grad():
        assert torch.allclose(convolve(x, kernel, bias), wanted, rtol=1e-13, atol=1e-12)
        assert torch.allclose(convolve(x, kernel), wanted - bias[:, None, None], rtol=1e-13, atol=1e-12)


@pytest.mark.skipif("perona-malik-0.025" not in SHIPPED, reason="the weights of this distribution are not there")
def test_estimates_hold_for_codes_near_zero_where_states_between_blocks_are_many_times_as_large():
    prior = InvertibleResNetPrior((1, 20, 20), weights="perona-malik-0.025")
    z = prior.lift(1e-3 * Key(11).normal((2, 1, 20, 20)))
    exact = prior.invert(z.double(), 1e-8, certified=True).x
    found = prior.invert(z, 1e-3, certified=False)
    assert bool((norms(found.x.double() - exact) <= 1e-3 * norms(exact)).all())
    assert int(found.evaluations.max()) <= 80
