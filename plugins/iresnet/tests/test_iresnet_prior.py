"""The trained network as a prior: shapes, round trips, what it promises and what it refuses."""

import pytest
import torch
from preimage_iresnet.network import InvertibleResNet
from preimage_iresnet.prior import InvertibleResNetPrior

from preimage import GaussianNoise, Identity, Key
from preimage.errors import BadData, BadFile, BadParameter, Incompatible, ShapeMismatch
from preimage.testing import check_prior
from preimage.trained import mismatches
from preimage.weights import save_weights

ARGUMENTS = {"blocks": 4, "channels": 6, "hidden": 8}


def made(**settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = InvertibleResNet(**(ARGUMENTS | settings)).eval().requires_grad_(False)
    certificate = network.certify(Key(0).uniform((2, network.image_channels, 12, 12)))
    return network, certificate


@pytest.fixture(scope="module")
def network():
    return made()[0]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "own.safetensors"

    def write(component="prior/iresnet", config=ARGUMENTS, change=None, facts=None):
        network, certificate = made()
        tensors = dict(network.state_dict())
        if change:
            tensors["blocks.0.wide"] = tensors["blocks.0.wide"] * change
        given = {"certificate": certificate} if facts is None else facts
        save_weights(path, tensors, component=component, config=config, facts=given)
        return str(path)

    return write


@pytest.mark.parametrize("shape", [(1, 17, 33), (3, 12, 9), (2, 5, 5)])
@pytest.mark.parametrize("rule", ["estimated", "certified"])
@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_round_trips(network, shape, rule, dtype, accuracy):
    prior = InvertibleResNetPrior.of(network, shape, rule=rule, tolerance=accuracy / 10)
    x = Key(1).uniform((2, *shape)).to(dtype)
    u = prior.lift(x)
    assert u.shape == (2, *prior.latent_shape) == (2, 6 * shape[0], *shape[1:])
    assert torch.allclose(prior.project(u), x, atol=1e-7)
    there, back = prior.decode(prior.encode(u)), prior.encode(prior.decode(u))
    assert there.dtype == back.dtype == dtype
    assert float((there - u).norm() / u.norm()) <= accuracy
    assert float((back - u).norm() / u.norm()) <= accuracy


def test_the_laws_of_priors(network):
    for shape in ((1, 8, 9), (3, 6, 7)):
        check_prior(InvertibleResNetPrior.of(network, shape, tolerance=1e-10))


def test_a_colour_image_is_its_channels(network):
    colour, grey = (InvertibleResNetPrior.of(network, (c, 9, 8), tolerance=1e-6) for c in (3, 1))
    x = Key(2).uniform((2, 3, 9, 8))
    z = colour.lift(x)
    found = colour.invert(z, 1e-4, certified=True)
    parts = [grey.invert(grey.lift(x[:, c : c + 1]), 1e-4, certified=True) for c in range(3)]
    assert torch.allclose(colour.project(found.x), torch.cat([grey.project(p.x) for p in parts], 1), atol=1e-6)
    assert torch.equal(found.evaluations, sum(p.evaluations for p in parts))
    assert torch.allclose(found.bound, torch.stack([p.bound for p in parts]).norm(dim=0), rtol=1e-2)
    encoded = torch.cat([grey.project(grey.encode(grey.lift(x[:, c : c + 1]))) for c in range(3)], 1)
    assert torch.allclose(colour.project(colour.encode(z)), encoded, atol=1e-6)


def test_a_colour_network():
    network, _ = made(image_channels=3)
    prior = InvertibleResNetPrior.of(network, (3, 8, 8), tolerance=1e-7)
    x = Key(3).uniform((1, 3, 8, 8))
    u = prior.lift(x)
    assert u.shape == (1, 6, 8, 8)
    assert torch.allclose(prior.project(prior.decode(prior.encode(u))), x, atol=1e-5)
    with pytest.raises(Incompatible, match="images of 3 channels, not 1"):
        InvertibleResNetPrior.of(network, (1, 8, 8))


def test_decode_moves_at_most_by_the_stability_radius(network):
    prior = InvertibleResNetPrior.of(network, (1, 10, 10), tolerance=1e-10)
    assert prior.inverse_lipschitz == pytest.approx(1000)
    assert prior.stability_radius(0.5) == pytest.approx(500)
    z = Key(1).normal((4, *prior.latent_shape)).double()
    for scale in (1e-3, 1.0, 100.0):
        moved = z + scale * Key(2).normal(z.shape).double()
        radius = prior.stability_radius((moved - z).flatten(1).norm(dim=1))
        assert bool(((prior.decode(moved) - prior.decode(z)).flatten(1).norm(dim=1) <= radius).all())


def test_it_is_made_of_a_file_and_knows_its_weights(file, network):
    path = file()
    prior = InvertibleResNetPrior((1, 9, 9), weights=path, tolerance=1e-6)
    assert str(prior.trained.path) == path
    z = Key(1).normal((1, *prior.latent_shape))
    assert torch.equal(prior.decode(z), InvertibleResNetPrior.of(network, (1, 9, 9)).decode(z))
    assert not any(p.requires_grad for p in prior.parameters())


def test_weights_that_do_not_keep_the_bounds_are_refused(file):
    for facts, change in ((None, 1.02), ({}, None)):
        with pytest.raises((Incompatible, BadFile)):
            InvertibleResNetPrior((1, 9, 9), weights=file(change=change, facts=facts))


def test_weights_of_something_else_are_refused(file):
    with pytest.raises(Incompatible, match="weights of prior/dcgan"):
        InvertibleResNetPrior((1, 9, 9), weights=file(component="prior/dcgan"))
    with pytest.raises(Incompatible, match="does not fit InvertibleResNet"):
        InvertibleResNetPrior((1, 9, 9), weights=file(config={"preset": "tiny"}))
    with pytest.raises(BadFile):
        InvertibleResNetPrior((1, 9, 9), weights="auto")


def test_a_network_in_memory_must_be_certified(network):
    with pytest.raises(Incompatible, match="no certificate"):
        InvertibleResNetPrior.of(InvertibleResNet(**ARGUMENTS).eval(), (1, 9, 9))
    with pytest.raises(Incompatible, match="training mode"):
        InvertibleResNetPrior.of(InvertibleResNet(**ARGUMENTS), (1, 9, 9))
    prior = InvertibleResNetPrior.of(network, (1, 9, 9))
    found = mismatches(prior.trained, Identity((1, 9, 9)), GaussianNoise(sigma=0.1))
    assert "does not say which operator" in str(found[0])


def test_a_network_in_memory_says_what_it_was_trained_for(network):
    facts = {"forward_model": {"operator": [{"name": "identity"}], "noise": {"name": "gaussian", "sigma": 0.1}}}
    prior = InvertibleResNetPrior.of(network, (1, 9, 9), facts=facts)
    assert mismatches(prior.trained, Identity((1, 9, 9)), GaussianNoise(sigma=0.1)) == []
    assert len(mismatches(prior.trained, Identity((1, 9, 9)), GaussianNoise(sigma=0.2))) == 1


@pytest.mark.parametrize("tolerance", [0.0, 1.0, -1e-3, float("nan")])
def test_a_tolerance_out_of_range_is_refused(network, tolerance):
    with pytest.raises(BadParameter, match="tolerance is"):
        InvertibleResNetPrior.of(network, (1, 9, 9), tolerance=tolerance)
    prior = InvertibleResNetPrior.of(network, (1, 9, 9))
    with pytest.raises(BadParameter, match="tolerance is"):
        prior.invert(prior.lift(torch.zeros(1, 1, 9, 9)), tolerance, certified=False)


def test_another_rule_is_refused(network):
    with pytest.raises(BadParameter, match="rule is 'exact'"):
        InvertibleResNetPrior.of(network, (1, 9, 9), rule="exact")


@pytest.mark.parametrize("shape", [(1, 4, 9), (1, 9, 4), (9, 9)])
def test_images_smaller_than_the_kernel_are_refused(network, shape):
    with pytest.raises(ShapeMismatch, match="smaller than the 5 x 5 kernel"):
        InvertibleResNetPrior.of(network, shape)


def test_bad_arguments_of_the_maps(network):
    prior = InvertibleResNetPrior.of(network, (1, 9, 9))
    z = torch.zeros(1, *prior.latent_shape)
    z[0, 1, 2, 3] = float("nan")
    for use in (prior.decode, lambda code: prior.invert(code, 1e-3, certified=True)):
        with pytest.raises(BadData, match="1 values that are NaN or infinite"):
            use(z)
    for use in (prior.decode, prior.encode, prior.project, prior.lift):
        with pytest.raises(ShapeMismatch):
            use(torch.zeros(1, 5, 9, 9))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")  # torch's own, on first use of forward mode
def test_gradients_of_decode_under_torch_func(network):
    prior = InvertibleResNetPrior.of(network, (3, 6, 6), tolerance=1e-12)
    z, v = (Key(seed).normal((2, *prior.latent_shape)).double() for seed in (1, 2))
    _, pushed = torch.func.jvp(prior.decode, (z,), (v,))
    _, back = torch.func.jvp(prior.encode, (prior.decode(z),), (pushed,))
    assert torch.allclose(back, v, atol=1e-9)
