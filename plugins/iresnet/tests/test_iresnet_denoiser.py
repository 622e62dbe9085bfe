"""The averaged denoiser: nonexpansive at every size, refused without proof; plug-and-play methods with it."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from preimage_baselines import PnPADMM, PnPProximalGradient, TotalVariation
from preimage_compressive_sensing import CompressiveSensing
from preimage_data import Photographs, psnr
from preimage_gaussian_blur import GaussianBlur
from preimage_inpainting import Inpainting
from preimage_iresnet.averaged_certificate import certify
from preimage_iresnet.averaged_denoiser import AveragedNetworkDenoiser
from preimage_iresnet.averaged_network import BOUND, AveragedNetwork
from preimage_iresnet.denoising import AveragedDenoising
from preimage_train import recipe

from preimage import AveragedDenoiser, GaussianNoise, Key, Problem, Status, hookimpl, norms, solve
from preimage.errors import BadFile, BadParameter, Incompatible, ShapeMismatch
from preimage.weights import load_weights, save_weights

COMPONENT = "prior/iresnet-denoiser"


def images(count, *shape):
    return Key(5).child("images", *shape).uniform((count, *shape), torch.zeros((), dtype=torch.float64))


def random_network(**given):
    """With thresholds of about the size of the features of noisy images, so that both sides of them are met."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = AveragedNetwork(**given).double()
        for layer in network.layers:
            torch.nn.init.uniform_(layer.threshold, -4.0, 0.0)
            torch.nn.init.uniform_(layer.power, -0.5, 1.0)
    certify(network)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def shipped():
    return AveragedNetworkDenoiser((1, 32, 32)).denoiser.double()


@pytest.fixture(params=["random", "shipped"])
def network(request):
    return random_network() if request.param == "random" else request.getfixturevalue("shipped")


def expansion(network, x, move, sigma):
    """||N(x + move) - N(x)|| / ||move||, (B,)."""
    return norms(network.nonexpansive(x + move, sigma) - network.nonexpansive(x, sigma)) / norms(move)


# The operator


@pytest.mark.parametrize("side", [(6, 6), (16, 16), (17, 33), (64, 40)])
def test_pairs_of_images_do_not_move_apart(network, side):
    x = images(3, 1, *side)
    for index, size in enumerate((3.0, 0.1, 1e-4)):
        move = size * Key(index).child("move").normal(x.shape, x)
        for sigma in (0.01, 0.1):
            assert expansion(network, x, move, sigma).amax() <= 1 + 1e-11


@pytest.mark.parametrize("side", [16, 25])
def test_ascent_on_the_expansion_does_not_get_above_one(network, side):
    x = images(2, 1, side, side)
    move = 0.05 * Key(1).child("move").normal(x.shape, x)
    best = torch.zeros(2)
    for _ in range(25):
        x, move = x.requires_grad_(), move.requires_grad_()
        found = expansion(network, x, move, 0.05)
        best = torch.maximum(best, found.detach())
        of_x, of_move = torch.autograd.grad(found.sum(), (x, move))
        with torch.no_grad():
            x = x + 0.05 * of_x / norms(of_x).reshape(-1, 1, 1, 1)
            move = move + 0.2 * norms(move).reshape(-1, 1, 1, 1) * of_move / norms(of_move).reshape(-1, 1, 1, 1)
    assert best.amax() <= 1 + 1e-11
    assert best.amin() > 0.3  # the ascent went somewhere


def test_the_denoiser_is_firmly_nonexpansive(network):
    x, x2 = images(4, 1, 20, 20), images(4, 1, 20, 20).flip(0)
    d, move = network(x, 0.08) - network(x2, 0.08), x - x2
    assert ((d * d).flatten(1).sum(1) <= (d * move).flatten(1).sum(1) + 1e-12).all()


def test_norms_of_layers_against_dense_matrices(network):
    for layer in list(network.layers)[:2]:
        kernel = layer.kernel

        def apply(u, kernel=kernel):
            return torch.nn.functional.conv2d(u.reshape(1, kernel.shape[1], 5, 4), kernel, padding=1).flatten()

        dense = torch.func.jacrev(apply)(torch.zeros(kernel.shape[1] * 20, dtype=torch.float64))
        norm = torch.linalg.matrix_norm(dense, 2)
        assert 0.5 * BOUND < norm <= BOUND

    layer, u = network.layers[0], images(1, network.channels, 5, 5) - 0.5
    level = torch.zeros(1, dtype=torch.float64)
    derivative = torch.func.jacrev(lambda v: layer(v.reshape(u.shape), layer.kernel, level).flatten())(u.flatten())
    torch.testing.assert_close(derivative, derivative.mT, atol=1e-12, rtol=0)  # of the gradient of something
    eigenvalues = torch.linalg.eigvalsh(derivative)
    assert eigenvalues.min() >= -1 - 1e-12
    assert eigenvalues.max() <= 1 + 1e-12


@pytest.mark.parametrize("side", [(8, 8), (9, 8), (9, 13)])
def test_without_thresholds_nothing_changes(side):
    network = random_network()
    for layer in network.layers:
        layer.threshold.fill_(-1000.0)
    x = images(2, 2, *side)
    torch.testing.assert_close(network.nonexpansive(x, 0.1), x)


def test_the_range_is_bounded(network):
    wild = network.nonexpansive(1e4 * (images(2, 1, 12, 12) - 0.5), 0.1)
    assert wild.abs().amax() <= 2
    assert wild.amax() > 1


def test_channels_images_and_strengths_are_independent(network):
    x, sigma = images(3, 2, 11, 12), torch.tensor([0.02, 0.05, 0.1], dtype=torch.float64)
    together = network(x, sigma)
    for index, channel in itertools.product(range(3), range(2)):
        alone = network(x[index : index + 1, channel : channel + 1], float(sigma[index]))
        torch.testing.assert_close(together[index : index + 1, channel : channel + 1], alone)


def test_other_averages():
    x = images(1, 1, 10, 10)
    half, most = random_network(averaged=0.5), random_network(averaged=0.9)
    torch.testing.assert_close(most(x, 0.1) - x, 1.8 * (half(x, 0.1) - x))


# What ships


def test_it_removes_noise():
    photograph = Photographs(size=96, colour="grey")[0][None].double()
    noise = Key(2).child("noise").normal(photograph.shape, photograph)
    prior, tv = AveragedNetworkDenoiser((1, 96, 96)).double(), TotalVariation((1, 96, 96))
    for sigma in (0.02, 0.05, 0.1):
        noisy = photograph + sigma * noise
        best = max(float(psnr(tv.prox(noisy, weight * sigma), photograph)) for weight in (0.3, 0.5, 0.7))
        gain = float(psnr(prior.denoise(noisy, sigma), photograph))
        assert gain > float(psnr(noisy, photograph)) + 1
        assert gain > best - 0.7


def test_the_prior_says_what_it_is():
    prior = AveragedNetworkDenoiser((3, 16, 18), contraction=0.9)
    assert isinstance(prior, AveragedDenoiser)
    assert (prior.averaged, prior.contraction, prior.bounded) == (0.5, 0.9, True)
    x, plain = images(2, 3, 16, 18).float(), AveragedNetworkDenoiser((3, 16, 18))
    moved = 0.5 * x + 0.5 * (0.5 + 0.9 * (plain.denoiser.nonexpansive(x, 0.05) - 0.5))
    torch.testing.assert_close(prior.denoise(x, 0.05), moved)


def test_the_certificate_is_proved_again_at_load(tmp_path):
    weights = load_weights("denoiser", COMPONENT)
    tensors = dict(weights.tensors)

    def saved(name, **changes):
        path = tmp_path / f"{name}.safetensors"
        given = {"tensors": tensors, "component": COMPONENT, "config": weights.config, "facts": weights.facts}
        given |= changes
        save_weights(path, given.pop("tensors"), **given)
        return str(path)

    AveragedNetworkDenoiser((1, 16, 16), weights=saved("same"))
    louder = tensors | {"layers.0.kernel": 1.02 * tensors["layers.0.kernel"]}
    with pytest.raises(BadFile, match="not those that were certified"):
        AveragedNetworkDenoiser((1, 16, 16), weights=saved("louder", tensors=louder))
    from preimage_iresnet.certificate import digest

    lying = dict(weights.facts) | {"certificate": {**weights.facts["certificate"], "digest": digest(louder)}}
    with pytest.raises(Incompatible, match="norm of layer 0"):
        AveragedNetworkDenoiser((1, 16, 16), weights=saved("lying", tensors=louder, facts=lying))
    bare = {name: fact for name, fact in weights.facts.items() if name != "certificate"}
    with pytest.raises(Incompatible, match="no certificate"):
        AveragedNetworkDenoiser((1, 16, 16), weights=saved("bare", facts=bare))
    other = dict(weights.config) | {"averaged": 0.4}
    with pytest.raises(Incompatible, match="another network"):
        AveragedNetworkDenoiser((1, 16, 16), weights=saved("other", config=other))
    with pytest.raises(Incompatible, match="weights of"):
        AveragedNetworkDenoiser((1, 16, 16), weights=saved("foreign", component="prior/iresnet"))
    data = bytearray(Path(saved("byte")).read_bytes())
    data[-3] ^= 1
    (tmp_path / "byte.safetensors").write_bytes(data)
    with pytest.raises(BadFile, match="not those that were certified"):
        AveragedNetworkDenoiser((1, 16, 16), weights=str(tmp_path / "byte.safetensors"))


@pytest.mark.parametrize(
    "given",
    [{"averaged": 1.0}, {"averaged": 0.0}, {"kernel": 4}, {"channels": 3}, {"layers": 0}, {"averaged": float("nan")}],
)
def test_networks_that_are_none(given):
    with pytest.raises(BadParameter, match=next(iter(given))):
        AveragedNetwork(**given)


def test_bad_input():
    for contraction in (0.0, 1.1, float("nan")):
        with pytest.raises(BadParameter, match="contraction"):
            AveragedNetworkDenoiser((1, 16, 16), contraction=contraction)
    with pytest.raises(ShapeMismatch, match=">= 6"):
        AveragedNetworkDenoiser((1, 5, 16))
    prior, x = AveragedNetworkDenoiser((1, 16, 16)), torch.zeros(2, 1, 16, 16)
    for sigma in (0.0, -0.1, float("nan"), float("inf"), torch.tensor([0.1, 0.0])):
        with pytest.raises(BadParameter, match="sigma"):
            prior.denoise(x, sigma)


# Training


def test_the_objective_is_what_it_says():
    objective, network = AveragedDenoising(sigma=(0.02, 0.08)), random_network(layers=1)
    x = 0.5 + torch.zeros(4, 1, 32, 32, dtype=torch.float64)
    noisy, clean, sigma = objective.prepare(network, x, ["a", "b", "c", "d"], Key(0), None)
    assert clean is x
    assert ((sigma >= 0.02) & (sigma <= 0.08)).all()
    assert len(set(sigma.tolist())) == 4
    torch.testing.assert_close((noisy - x).flatten(1).std(1), sigma, rtol=0.1, atol=0)
    mean = (
        sum(float((network(noisy[i : i + 1], sigma[i : i + 1]) - x[i]).square().mean() / sigma[i]) for i in range(4))
        / 4
    )
    assert float(objective.loss("network", network, 0.0, noisy, clean, sigma)) == pytest.approx(mean)
    assert list(objective.scores(network, x, ["a", "b", "c", "d"], Key(0), None)) == ["psnr", "psnr_0.02", "psnr_0.05"]
    with pytest.raises(BadParameter, match="sigma"):
        AveragedDenoising(sigma=(0.1, 0.05))
    assert objective.objections(torch.nn.Identity())


def test_training_keeps_the_bound_and_certifying_changes_little():
    made = recipe.read(recipe.find("iresnet-denoiser"), {"model.layers": 2, "model.channels": 8, "model.hidden": 8})
    network, objective, x = made.network(), made.objective, images(4, 1, 16, 16).float()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for step in range(30):
        inputs = objective.prepare(network, x, [str(step + 100 * i) for i in range(4)], Key(0), None)
        network.train()
        loss = objective.loss("network", network, step / 30, *inputs)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    network.eval()
    with torch.no_grad():
        before = network(x, 0.1)
        certificate = network.certify(x)
        assert max(certificate["norms"]) <= BOUND
        assert (network(x, 0.1) - before).abs().amax() < 0.01
        x = x.double()
        move = 0.1 * Key(4).normal(x.shape, x)
        assert expansion(network.double(), x, move, 0.1).amax() <= 1 + 1e-11


# Plug and play


class Residuals:
    """||s' - s|| of every step of a run of one image: of x, or of the variable of Douglas-Rachford splitting."""

    def __init__(self):
        self.last, self.values = None, []

    @hookimpl
    def preimage_step(self, run):
        s = run.state.z + run.state.u if isinstance(run.solver, PnPADMM) else run.state.x
        if self.last is not None:
            self.values.append(float(norms(s - self.last)))
        self.last = s


SHAPE = (1, 24, 24)
OPERATORS = {
    "blur": GaussianBlur(SHAPE),
    "inpainting": Inpainting(SHAPE, mask="random", keep=0.5, key=Key(0)),
    "compressive-sensing": CompressiveSensing(SHAPE, measurements=200, ensemble="dct", key=Key(0)),
}


def problem_and_solvers(operator, prior, tolerance):
    photograph = Photographs(size=24, colour="grey")[0][None].double()
    noise, norm = GaussianNoise(sigma=0.02), operator.norm_bound()
    y = noise.sample(operator(photograph), Key(1))
    problem = Problem(operator, y, noise, prior, weight=(0.05 * norm) ** 2)
    options = {"sigma": 0.05, "tolerance": tolerance, "max_steps": 2000}
    return problem, (PnPProximalGradient(acceleration=False, **options), PnPADMM(**options))


@pytest.mark.parametrize("name", OPERATORS)
def test_plug_and_play_converges_and_residuals_never_grow(name):
    problem, solvers = problem_and_solvers(OPERATORS[name], AveragedNetworkDenoiser(SHAPE).double(), 1e-6)
    for solver in solvers:
        watched = Residuals()
        found = solve(problem, solver, observers=[watched])
        assert found.status == (Status.CONVERGED,)
        assert "theory: converges to a fixed point" in found.reasons[0]
        assert watched.values[-1] < 1e-5 * float(norms(found.x))
        assert all(b <= a * (1 + 1e-9) for a, b in itertools.pairwise(watched.values))


@pytest.mark.parametrize("name", OPERATORS)
def test_a_contraction_has_one_fixed_point(name):
    prior = AveragedNetworkDenoiser(SHAPE, contraction=0.95).double()
    problem, solvers = problem_and_solvers(OPERATORS[name], prior, 1e-7)
    starts = torch.stack([problem.start()[0], torch.zeros(SHAPE).double(), images(1, *SHAPE)[0]])
    three = replace(problem, y=problem.y.expand(3, *problem.y.shape[1:]), x0=starts)
    found = [solve(three, solver) for solver in solvers]
    limits = torch.cat([each.x for each in found])
    assert "the only fixed point" in found[0].reasons[0]
    assert norms(limits - limits[:1]).amax() <= 1e-4 * float(norms(limits[:1]))
    gradient = problem.operator.adjoint(problem.operator(limits[:1]) - problem.y) / problem.operator.norm_bound() ** 2
    torch.testing.assert_close(prior.denoise(limits[:1] - gradient, 0.05), limits[:1], atol=1e-5, rtol=0)
