"""Proved norms against dense matrices, certificates that hold, and files whose certificates do not."""

import copy
import json
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from preimage_iresnet.certificate import certified_norms, certify, digest, divide, verify
from preimage_iresnet.network import InvertibleResNet
from preimage_iresnet.norm_bounds import SLACK, convolution_norm_bound, norm_is_at_most
from preimage_iresnet.norms import grid_norm
from preimage_iresnet.true_norms import norm_on_images
from preimage_iresnet.violations import Search

from preimage import Key
from preimage._plugins import discover, resource
from preimage.errors import BadData, BadFile, Incompatible, PreimageError
from preimage.trained import restore
from preimage.weights import Weights, load_weights, save_weights

COMPONENT = "prior/iresnet"
CONFIG = {"preset": "tiny", "lipschitz": 0.95, "blocks": 3, "channels": 4, "hidden": 6}
SHIPPED = sorted(
    file.name for file in discover().weights if file.component == COMPONENT and resource(file.target).is_file()
)
SMALL = {16: 1.0}


def kernel_of(hidden, channels, side, seed=0):
    return Key(seed).child("kernel", hidden, channels, side).normal((hidden, channels, side, side), torch.zeros(1))


def off_grid_kernel():
    """One channel, whose symbol is largest between the points of a grid of 32, by 2%."""
    taps = torch.cos((torch.arange(5, dtype=torch.float64) - 2) * 12.75 * math.pi / 32)
    return (taps[:, None] * taps)[None, None]


def dense_norm(kernel, height, width):
    """Of the matrix of the zero-padded convolution."""
    kernel = kernel.double()
    pixels = torch.eye(kernel.shape[1] * height * width, dtype=torch.float64).unflatten(1, (-1, height, width))
    rows = F.conv2d(pixels, kernel, padding=kernel.shape[-1] // 2).flatten(1)
    return float(np.linalg.norm(rows.numpy(), 2))


def fine_grid_norm(kernel, size=256):
    values = np.fft.fft2(kernel.double().numpy(), s=(size, size)).transpose(2, 3, 0, 1)
    return float(np.linalg.norm(values, 2, axis=(2, 3)).max())


def random_network(seed=0, **changes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return InvertibleResNet(**CONFIG | changes)


def examples(channels=1):
    return Key(0).child("examples").uniform((2, channels, 16, 16), torch.zeros(1))


def certified(tmp_path, name="a", seed=0, **facts):
    network = random_network(seed)
    certificate = certify(network, examples())
    path = tmp_path / f"{name}.safetensors"
    save_weights(
        path, network.state_dict(), component=COMPONENT, config=CONFIG, facts={"certificate": certificate} | facts
    )
    return load_weights(str(path), COMPONENT)


def check(weights: Weights):
    network = restore(weights, InvertibleResNet)
    verify(weights, network)
    return network


def with_certificate(weights: Weights, **changes):
    return replace(weights, facts={"certificate": dict(weights.facts["certificate"]) | changes})


# Norms


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize(("hidden", "channels"), [(3, 2), (2, 3), (1, 1)])
def test_the_bound_is_above_the_largest_singular_value_of_the_symbol_and_near_it(hidden, channels, side):
    kernel = kernel_of(hidden, channels, side)
    bound, true = convolution_norm_bound(kernel), fine_grid_norm(kernel)
    assert true <= bound <= true * (1 + SLACK) * (1 + (0.5 * (side - 1) * math.pi / 256) ** 2) * (1 + 1e-9)
    assert norm_is_at_most(kernel, bound)
    assert not norm_is_at_most(kernel, true * (1 - 1e-6))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 7), (9, 9), (13, 11)])
def test_the_bound_holds_for_the_matrix_at_every_size(height, width):
    kernel = kernel_of(3, 2, 5, seed=height)
    assert dense_norm(kernel, height, width) <= convolution_norm_bound(kernel)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_known_norms(scale):
    box = torch.full((1, 1, 5, 5), scale, dtype=torch.float64)
    assert 25 * scale <= convolution_norm_bound(box) <= 25 * scale * (1 + SLACK) * (1 + 1e-9)
    assert norm_is_at_most(box, 25.01 * scale)
    assert not norm_is_at_most(box, 24.999 * scale)
    matrix = scale * torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))[:, :, None, None]
    assert 3 * scale <= convolution_norm_bound(matrix) <= 3 * scale * (1 + 1e-9)


def test_a_symbol_of_constant_norm_is_the_hardest_case_and_passes():
    """Nothing can be left out where every frequency is the largest."""
    shift = torch.zeros(2, 2, 3, 3)
    shift[0, 0, 0, 0] = shift[1, 1, 2, 1] = 1
    assert 1 <= convolution_norm_bound(shift, slack=5e-3) <= 1.0051


def test_what_is_no_bound_is_never_proved():
    kernel = kernel_of(2, 2, 5)
    for bound in (0.0, -1.0, math.nan, math.inf):
        assert not norm_is_at_most(kernel, bound)
    assert norm_is_at_most(torch.zeros(2, 2, 5, 5), 0.0)
    assert convolution_norm_bound(torch.zeros(2, 2, 5, 5)) == 0
    kernel[0, 0, 0, 0] = math.nan
    assert not norm_is_at_most(kernel, 100.0)
    with pytest.raises(ValueError, match="not finite"):
        convolution_norm_bound(kernel)


def test_without_the_correction_a_grid_is_no_bound():
    """The zero-padded convolution of 96 pixels exceeds the largest value on a grid of 32; the bound is not."""
    kernel = off_grid_kernel()
    true = norm_on_images(kernel, 96, tolerance=1e-6)
    uncorrected = float(grid_norm(kernel, 32))
    assert true > 1.01 * uncorrected
    assert not norm_is_at_most(kernel, uncorrected)
    corrected = uncorrected / math.cos(math.pi * 2 / 32) ** 2
    assert true < convolution_norm_bound(kernel) < corrected
    assert true / convolution_norm_bound(kernel) >= 0.99


def test_lanczos_agrees_with_the_dense_matrix():
    kernel = kernel_of(3, 2, 5)
    assert norm_on_images(kernel, 12, tolerance=1e-8) == pytest.approx(dense_norm(kernel, 12, 12), rel=1e-7)


# Certificates


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lipschitz": 0.999},
        {"image_channels": 2},
        {"split": [0.5, 0.8, 0.5 + 1e-8]},
        {"lipschitz": 0.01},
    ],
    ids=["default", "L=.999", "colour", "split", "L=.01"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_multiply_out_without_rounding_and_use_the_bound_up(changes, dtype):
    network = random_network(**changes).to(dtype)
    certificate = json.loads(json.dumps(certify(network, examples(network.image_channels).to(dtype))))
    whole = Fraction(1)
    for block, own, bound in zip(network.blocks, certificate["blocks"], network.bounds, strict=True):
        assert norm_is_at_most(block.wide, own["wide"])
        assert norm_is_at_most(block.narrow, own["narrow"])
        product = Fraction(own["wide"]) * Fraction(own["narrow"])
        assert bound * (1 - 1e-5) <= product <= Fraction(bound)
        whole *= 1 - product
    assert whole >= 1 - Fraction(network.lipschitz)
    assert certificate["inverse_lipschitz"] == pytest.approx(1 / (1 - network.lipschitz), rel=3e-5)
    assert certificate["digest"] == digest(network.state_dict())


def test_certified_weights_are_applied_as_they_are_until_training_goes_on():
    network = random_network().eval()
    before = network(examples())
    divide(network)
    assert network.residuals()[0].wide is network.blocks[0].wide
    assert (network(examples()) - before).abs().max() < 2e-2  # W1 was divided by an estimate before
    network.train().residuals()
    assert not network.certified


def test_certifying_twice_changes_rounding_errors_only():
    network = random_network()
    divide(network)
    again = copy.deepcopy(network)
    divide(again)
    for one, other in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=0)


def test_weights_that_are_not_finite_have_no_certificate():
    network = random_network()
    with torch.no_grad():
        network.blocks[1].narrow[0, 0] = math.nan
    with pytest.raises(BadData, match="block 2"):
        certify(network, examples())


def test_a_block_that_died_is_no_obstacle():
    network = random_network()
    with torch.no_grad():
        network.blocks[1].narrow.zero_()
    assert certify(network, examples())["blocks"][1]["product"] == 0


# Files


def test_a_sound_file_passes(tmp_path):
    weights = certified(tmp_path)
    network = check(weights)
    assert [own.lipschitz <= Fraction(b) for own, b in zip(certified_norms(weights), network.bounds, strict=True)]


def test_no_certificate(tmp_path):
    weights = certified(tmp_path)
    with pytest.raises(BadFile, match="has no certificate"):
        check(replace(weights, facts={}))


@pytest.mark.parametrize("damage", [None, [], {"blocks": [{}]}, {"blocks": 3}, "text"])
def test_a_certificate_that_cannot_be_read(tmp_path, damage):
    weights = certified(tmp_path)
    facts = with_certificate(weights, **damage).facts if isinstance(damage, dict) else {"certificate": damage}
    with pytest.raises(BadFile, match="cannot be read"):
        check(replace(weights, facts=facts))


@pytest.mark.parametrize("name", ["blocks.0.wide", "blocks.2.narrow"])
@pytest.mark.parametrize("signed", [False, True])
def test_scaled_weights_are_refused_even_with_a_new_digest(tmp_path, name, signed):
    weights = certified(tmp_path)
    scaled = replace(weights, tensors=dict(weights.tensors) | {name: weights.tensors[name] * 1.02})
    if not signed:
        with pytest.raises(BadFile, match="tensors are not those"):
            check(scaled)
        return
    expected = f"norm of {'W1' if 'wide' in name else 'W2'} of block {int(name[7]) + 1}"
    with pytest.raises(Incompatible, match=expected):
        check(with_certificate(scaled, digest=digest(scaled.tensors)))


def test_every_tensor_is_covered_to_its_last_byte(tmp_path):
    weights = certified(tmp_path)
    for name, tensor in weights.tensors.items():
        changed = tensor.clone()
        changed.reshape(-1).view(torch.uint8)[-tensor.element_size()] ^= 2
        with pytest.raises(BadFile, match="tensors are not those"):
            check(replace(weights, tensors=dict(weights.tensors) | {name: changed}))


def test_one_changed_byte_of_the_file(tmp_path):
    path = certified(tmp_path).path
    data = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    for place in np.linspace(begin, len(data) - 1, 40).astype(int):
        broken = data.copy()
        broken[place] ^= 4
        path.write_bytes(broken)
        with pytest.raises(PreimageError):
            check(load_weights(str(path), COMPONENT))


def test_a_header_from_another_file(tmp_path):
    one, other = certified(tmp_path), certified(tmp_path, "b", seed=1)
    with pytest.raises(BadFile, match="tensors are not those"):
        check(replace(one, facts=other.facts))


def test_another_lipschitz_constant_in_config(tmp_path):
    weights = certified(tmp_path)
    with pytest.raises(Incompatible, match=r"certificate for lipschitz = 0\.95"):
        check(replace(weights, config=dict(weights.config) | {"lipschitz": 0.9}))
    with pytest.raises(Incompatible, match="another split"):
        check(replace(weights, config=dict(weights.config) | {"split": [0.5, 0.8, 0.5]}))


def test_norms_that_do_not_multiply_out(tmp_path):
    weights = certified(tmp_path)
    blocks = copy.deepcopy(weights.facts["certificate"]["blocks"])
    blocks[1]["wide"] *= 1.01
    with pytest.raises(Incompatible, match="block 2 multiply out"):
        check(with_certificate(weights, blocks=blocks))


def test_a_header_that_claims_less_than_is_true(tmp_path):
    weights = certified(tmp_path)
    blocks = copy.deepcopy(weights.facts["certificate"]["blocks"])
    blocks[1]["wide"] *= 0.99
    with pytest.raises(Incompatible, match="norm of W1 of block 2"):
        check(with_certificate(weights, blocks=blocks))


def test_a_network_marked_as_not_certified(tmp_path):
    weights = certified(tmp_path)
    tensors = dict(weights.tensors) | {"certified": torch.tensor(False)}
    with pytest.raises(BadFile, match="tensors are not those"):
        check(with_certificate(replace(weights, tensors=tensors), digest=digest(tensors)))


# Violations


def search(network, norms, checks=150):
    photographs = Key(3).uniform((2, network.image_channels, 20, 20), torch.zeros(1))
    return Search(network.eval(), norms, photographs, Key(5)).run(checks, SMALL)


@pytest.mark.parametrize("changes", [{"lipschitz": 0.999}, {"image_channels": 2, "split": [0.5, 0.8, 0.5]}])
def test_no_violation_is_found(changes):
    network = random_network(**changes)
    found = search(network, divide(network))
    assert found.checks >= 150
    assert found.violations == 0
    assert found.wide.largest > 0.93
    assert found.narrow.largest > 0.999
    assert found.residuals.largest > 0.5


def test_weights_scaled_after_they_were_certified_are_found_out():
    network = random_network()
    norms = divide(network)
    with torch.no_grad():
        network.blocks[1].narrow.mul_(1.02)
        network.blocks[2].wide.mul_(1.06)
    found = search(network, norms, 50)
    assert found.narrow.violations > 0
    assert found.wide.violations > 0
    assert found.wide.where.startswith("block 3")
    assert found.narrow.where.startswith("block 2")


def test_wrong_bounds_of_the_residuals_and_of_the_inverse_are_found_out():
    network = random_network()
    norms = divide(network)
    network.bounds = tuple(bound * 0.4 for bound in network.bounds)
    network.lipschitz = 0.05
    found = search(network, norms)
    assert found.residuals.violations > 0
    assert found.inverse.violations > 0
    assert found.wide.violations == found.narrow.violations == 0


@pytest.mark.skipif(not SHIPPED, reason="no weights of this distribution are there yet")
@pytest.mark.parametrize("name", SHIPPED)
def test_certificates_of_the_networks_that_ship(name):
    weights = load_weights(name, COMPONENT)
    network = check(weights)
    if name == SHIPPED[0]:
        found = search(network, certified_norms(weights), 100)
        assert found.checks >= 100
        assert found.violations == 0
