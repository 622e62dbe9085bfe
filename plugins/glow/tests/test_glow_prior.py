"""The flow as a prior: round trips, samples, paths, bits, weights in files, and everything it refuses."""

import copy
import math

import pytest
import torch
from preimage_glow.flow import Flow
from preimage_glow.prior import GlowPrior

from preimage import Key
from preimage.errors import BadData, BadFile, BadParameter, Incompatible, ShapeMismatch
from preimage.testing import check_prior
from preimage.weights import save_weights

SMALL = {"levels": 2, "steps": 2, "last_steps": 1, "hidden": 8}
SHAPE = (3, 8, 8)


@pytest.fixture
def prior(random_flow):
    return GlowPrior.of(random_flow(**SMALL), SHAPE)


@pytest.mark.parametrize(
    ("preset", "arguments", "shape"),
    [
        ("small", {"hidden": 16}, (3, 16, 24)),
        ("medium", {"hidden": 8, "image_channels": 1, "strength": 0.05}, (1, 8, 16)),
        ("paper", {"hidden": 8, "strength": 0.05}, (3, 16, 16)),
        ("small", {**SMALL, "first_layer": "gaussian", "height": 8, "width": 12}, (3, 8, 12)),
    ],
)
def test_round_trips(random_flow, preset, arguments, shape):
    prior = GlowPrior.of(random_flow(preset, **arguments), shape)
    x, z = Key(1).uniform((2, *shape)), Key(2).normal((2, math.prod(shape)))
    assert prior.latent_shape == (math.prod(shape),)
    for moved, limit in ((prior, 1e-5), (copy.deepcopy(prior).double(), 1e-10)):
        like = torch.zeros((), dtype=next(moved.buffers()).dtype)
        code, there = moved.encode_with_log_determinant(x.to(like))
        back, home = moved.decode_with_log_determinant(code)
        assert code.dtype == back.dtype == there.dtype == like.dtype
        assert float((back - x).abs().max()) <= limit
        assert float((moved.encode(moved.decode(z.to(like))) - z).abs().max()) <= 20 * limit
        assert torch.allclose(there, -home, rtol=100 * limit, atol=100 * limit)


def test_round_trips_after_any_moves_between_dtypes(prior):
    x = Key(1).uniform((2, *SHAPE)).double()
    moved = copy.deepcopy(prior).double().float().double()
    for served in (moved, prior):  # the second in a dtype that it is not in
        z = served.encode(x)
        assert z.dtype == torch.float64
        assert float((served.decode(z) - x).abs().max()) <= 1e-10
    assert torch.equal(moved.encode(x), prior.encode(x))


def test_the_laws(random_flow):
    for arguments, shape in ((SMALL, (3, 4, 8)), ({**SMALL, "image_channels": 1}, (1, 8, 4))):
        check_prior(GlowPrior.of(random_flow(**arguments), shape))


def test_later_changes_of_the_network_do_not_reach_the_prior(random_flow):
    flow = copy.deepcopy(random_flow(**SMALL))
    prior, z = GlowPrior.of(flow, SHAPE), torch.ones(1, 192)
    before = prior.decode(z)
    for tensor in flow.parameters():
        tensor.zero_()
    assert torch.equal(prior.decode(z), before)
    assert not list(prior.parameters())


@pytest.mark.parametrize("temperature", [0.0, 0.5, 0.7, 1.0, 1.2])
def test_samples(prior, temperature):
    x = prior.sample(3, Key(3), temperature=temperature)
    assert x.shape == (3, *SHAPE)
    assert bool(torch.isfinite(x).all())
    z = torch.stack([key.normal(prior.latent_shape) for key in Key(3).rows(3)])
    assert torch.allclose(x, prior.decode(temperature * z), atol=1e-6)
    assert torch.allclose(prior.sample(1, [Key(3).child(2)], temperature=temperature), x[2:], atol=1e-5)
    like = torch.zeros((), dtype=torch.float64)
    assert prior.sample(1, Key(3), like, temperature=temperature).dtype == torch.float64


def test_samples_of_deep_flows_are_finite(random_flow):
    for preset, strength in (("small", 0.3), ("paper", 0.05)):
        prior = GlowPrior.of(random_flow(preset, hidden=8, strength=strength), (3, 16, 16))
        for temperature in (0.0, 1.2):
            assert bool(torch.isfinite(prior.sample(2, Key(3), temperature=temperature)).all())


def test_paths_between_images(prior):
    x, y = (Key(seed).uniform((2, *SHAPE), torch.zeros(()).double()) for seed in (1, 2))
    a, b = prior.encode(x), prior.encode(y)
    for path in ("spherical", "linear"):
        between = prior.interpolate(x, y, 5, path=path)
        assert between.shape == (2, 5, *SHAPE)
        assert torch.allclose(between[:, 0], x, atol=1e-9)
        assert torch.allclose(between[:, -1], y, atol=1e-9)
        assert torch.allclose(prior.interpolate(x, x, 3, path=path), x[:, None].expand(-1, 3, -1, -1, -1), atol=1e-6)
    assert torch.allclose(prior.encode(between[:, 2]), (a + b) / 2, atol=1e-9)
    # Between two latents of one norm all have it, at equal angles.
    unit = b * (a.norm(dim=1) / b.norm(dim=1))[:, None]
    on_sphere = prior.encode(prior.interpolate(x, prior.decode(unit), 4).flatten(0, 1)).unflatten(0, (2, 4))
    assert torch.allclose(on_sphere.norm(dim=2), a.norm(dim=1)[:, None].expand(2, 4), rtol=1e-9)
    cosines = torch.nn.functional.cosine_similarity(on_sphere[:, 1:], on_sphere[:, :-1], dim=2)
    assert torch.allclose(cosines, cosines[:, :1].expand(2, 3), rtol=1e-9)
    with pytest.raises(BadParameter, match="count is 1"):
        prior.interpolate(x, y, 1)
    with pytest.raises(BadParameter, match="path is 'straight'"):
        prior.interpolate(x, y, 3, path="straight")


def test_bits_per_dimension(prior):
    x = Key(4).uniform((3, *SHAPE), torch.zeros(()).double())
    x[0, 0, 0, 0] = 1.0
    for levels in (256, 32):
        bits = prior.bits_per_dimension(x, Key(5), levels=levels)
        for index in range(3):
            u = Key(5).child(index).uniform(SHAPE, x)
            grey = torch.clamp(torch.floor(x[index] * levels), max=levels - 1)
            nats = prior.log_density(((grey + u) / levels)[None])
            expected = -float(nats) / math.log(2) / 192 + math.log2(levels)
            assert float(bits[index]) == pytest.approx(expected, rel=1e-9)
    # Over all grey values of one pixel the probabilities of images sum to at most one: bits are never negative there.
    assert torch.equal(prior.bits_per_dimension(x[:1], [Key(5).child(0)]), prior.bits_per_dimension(x, Key(5))[:1])
    with pytest.raises(BadParameter, match="levels is 1"):
        prior.bits_per_dimension(x, Key(5), levels=1)
    with pytest.raises(BadData, match=r"values from .* to 2"):
        prior.bits_per_dimension(2 * x / x.max(), Key(5))


def test_networks_in_bfloat16(random_flow):
    full, low = (GlowPrior.of(random_flow(**SMALL), SHAPE, precision=p) for p in ("full", "bfloat16"))
    z, x = Key(1).normal((2, 192)), Key(2).uniform((2, *SHAPE))
    assert low.decode(z).dtype == torch.float32
    assert 1e-6 <= float((low.decode(z) - full.decode(z)).abs().max()) <= 0.1
    assert float((low.decode(low.encode(x)) - x).abs().max()) <= 0.05
    moved = copy.deepcopy(low).double()
    assert moved.decode(z.double()).dtype == torch.float64
    assert torch.allclose(moved.decode(z.double()).float(), low.decode(z), atol=0.05)


def test_huge_values_give_no_number_and_harm_no_other_image(prior):
    x = Key(1).uniform((3, *SHAPE))
    x[1] = 1e30
    for values in (prior.log_density(x), prior.energy(x)):
        assert bool(torch.isfinite(values[[0, 2]]).all())
    assert torch.allclose(prior.log_density(x)[[0, 2]], prior.log_density(x[[0, 2]]), rtol=1e-4)
    assert prior.decode(torch.zeros(0, 192)).shape == (0, *SHAPE)
    assert prior.encode(torch.zeros(0, *SHAPE)).shape == (0, 192)


@pytest.fixture
def file(tmp_path, random_flow):
    def write(change=None, config=SMALL, component="prior/glow"):
        tensors = dict(random_flow(**SMALL).state_dict()) | (change or {})
        path = tmp_path / "own.safetensors"
        save_weights(path, tensors, component=component, config=config, facts={})
        return str(path)

    return write


def test_it_is_made_of_a_file(file, random_flow):
    prior, z = GlowPrior(SHAPE, weights=file(), gradient="reversible"), Key(1).normal((2, 192))
    assert torch.equal(prior.decode(z), GlowPrior.of(random_flow(**SMALL), SHAPE).decode(z))


def test_weights_that_do_not_fit_are_refused(file, random_flow):
    mixing = "levels.1.0.mixing"
    given = random_flow(**SMALL).state_dict()
    with pytest.raises(Incompatible, match="does not fit Flow"):
        GlowPrior(SHAPE, weights=file(config={**SMALL, "hidden": 9}))
    with pytest.raises(Incompatible, match="does not fit Flow"):
        GlowPrior(SHAPE, weights=file(config={"preset": "small"}))
    with pytest.raises(Incompatible, match="preset"):
        GlowPrior(SHAPE, weights=file(config={"preset": "large"}))
    with pytest.raises(Incompatible, match="NaN or infinity"):
        GlowPrior(SHAPE, weights=file({mixing: torch.full_like(given[mixing], float("inf"))}))
    with pytest.raises(Incompatible, match="step 1 of level 2 overflows"):
        GlowPrior(SHAPE, weights=file({"levels.1.0.log_scale": torch.full_like(given["levels.1.0.log_scale"], 1e4)}))
    with pytest.raises(Incompatible, match="weights of prior/dcgan"):
        GlowPrior(SHAPE, weights=file(component="prior/dcgan"))
    with pytest.raises(Incompatible, match="images of 3 channels, not 1"):
        GlowPrior((1, 8, 8), weights=file())
    with pytest.raises(BadFile):
        GlowPrior(SHAPE, weights="no-such-weights")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 10, 8), "each of 2 levels halves the size"),
        ((3, 0, 0), "images are 0 x 0 pixels"),
        ((8, 8), r"images have the shape \(8, 8\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(random_flow, shape, message):
    with pytest.raises(ShapeMismatch, match=message):
        GlowPrior.of(random_flow(**SMALL), shape)


def test_bad_arguments(random_flow, prior):
    with pytest.raises(BadParameter, match="gradient is 'exact'"):
        GlowPrior.of(random_flow(**SMALL), SHAPE, gradient="exact")
    with pytest.raises(BadParameter, match="precision is 'float16'"):
        GlowPrior.of(random_flow(**SMALL), SHAPE, precision="float16")
    for wrong in (torch.zeros(2, 191), torch.zeros(192), torch.zeros(1, *SHAPE)):
        with pytest.raises(ShapeMismatch, match="latent z has shape"):
            prior.decode(wrong)
    for wrong in (torch.zeros(2, 1, 8, 8), torch.zeros(SHAPE), torch.zeros(1, 3, 8, 12)):
        with pytest.raises(ShapeMismatch, match="image has shape"):
            prior.encode(wrong)
    with pytest.raises(ShapeMismatch, match=r"dtype torch\.uint8"):
        prior.encode(torch.zeros(1, *SHAPE, dtype=torch.uint8))
    for temperature in (-0.1, float("nan"), float("inf")):
        with pytest.raises(BadParameter, match="temperature is"):
            prior.sample(1, Key(0), temperature=temperature)


@pytest.mark.parametrize("scale", [255.0, -300.0, float("nan"), float("inf"), 1e30])
def test_what_cannot_be_an_image_has_no_code(prior, scale):
    x = Key(1).uniform((2, *SHAPE))
    x[1, 0, 0, 0] = scale
    with pytest.raises(BadData, match="the image has values from"):
        prior.encode(x)
    assert prior.encode(x.nan_to_num(0).clamp(-100, 101)).shape == (2, 192)


def test_a_flow_is_generative_invertible_and_an_energy():
    from preimage import Energy, Generative, InvertibleMap

    assert issubclass(GlowPrior, Generative)
    assert issubclass(GlowPrior, InvertibleMap)
    assert issubclass(GlowPrior, Energy)
    assert GlowPrior.network is Flow
