"""Trained networks as solvers: what they are given, what they refuse, what "auto" stands for."""

import pytest
import torch
from preimage_networks.reconstruction import ConvResNetSolver, DiffNetSolver, UNetSolver

from preimage import GaussianNoise, Key, Pipeline, Problem, Status, load, solve
from preimage.errors import BadFile, BadParameter, Incompatible
from preimage.trained import restore
from preimage.weights import load_weights, save_weights

SOLVERS = [ConvResNetSolver, UNetSolver, DiffNetSolver]
FORWARD = {
    "operator": [{"name": "gaussian-blur", "size": 11, "sigma": 5 / 3, "boundary": "symmetric"}],
    "noise": {"name": "gaussian", "sigma": 0.025},
    "seed": 0,
}


@pytest.fixture
def weights(tmp_path):
    """Files of networks whose weights are random, said to be for a blur."""

    def make(solver, channels=1, forward=FORWARD):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = solver.network("small", image_channels=channels)
        path = tmp_path / f"{solver.__name__}-{channels}.safetensors"
        config = {"preset": "small", "image_channels": channels}
        facts = {} if forward is None else {"forward_model": forward}
        save_weights(path, network.state_dict(), component=solver.component, config=config, facts=facts)
        return path

    return make


def blur(shape):
    return load("operator", "gaussian-blur")(shape)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_estimate_is_the_network_s_output(weights, solver, dtype):
    path = weights(solver)
    y = Key(1).uniform((3, 1, 24, 20)).to(dtype)
    problem = Problem(blur((1, 24, 20)).to(dtype=dtype), y, GaussianNoise(sigma=0.025))
    result = solve(problem, solver(weights=str(path)))
    network = restore(load_weights(str(path), solver.component), solver.network)
    assert result.x.dtype == dtype
    assert torch.allclose(result.x, network.to(dtype)(y), atol=1e-6)
    assert result.status == (Status.CONVERGED,) * 3


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_grey_network_takes_the_channels_of_a_colour_image_one_by_one(weights, solver):
    path = weights(solver)
    y = Key(1).uniform((2, 3, 16, 16))
    colour = solve(Problem(blur((3, 16, 16)), y, GaussianNoise(sigma=0.025)), solver(weights=str(path))).x
    for channel in range(3):
        grey = Problem(blur((1, 16, 16)), y[:, channel : channel + 1], GaussianNoise(sigma=0.025))
        assert torch.allclose(colour[:, channel : channel + 1], solve(grey, solver(weights=str(path))).x, atol=1e-6)


def test_a_colour_network_refuses_grey_images(weights):
    solver = DiffNetSolver(weights=str(weights(DiffNetSolver, channels=3)))
    problem = Problem(blur((1, 16, 16)), torch.zeros(1, 1, 16, 16), GaussianNoise(sigma=0.025))
    with pytest.raises(Incompatible, match="3 channels, not 1"):
        solve(problem, solver)


def test_measurements_of_another_shape_go_in_as_the_scaled_adjoint(weights):
    operator = load("operator", "compressive-sensing")((1, 16, 16), measurements=100, key=Key(0))
    problem = Problem(operator, Key(2).normal((2, 100)), GaussianNoise(sigma=0.025))
    path = weights(ConvResNetSolver)
    result = solve(problem, ConvResNetSolver(weights=str(path), allow_mismatch=True))
    network = restore(load_weights(str(path), "solver/convresnet"), ConvResNetSolver.network)
    assert torch.allclose(result.x, network(problem.start()), atol=1e-6)


def test_an_operator_is_known_by_what_it_does(weights):
    path = str(weights(DiffNetSolver))
    y = torch.zeros(1, 1, 16, 16)
    solve(Problem(blur((1, 16, 16)), y, GaussianNoise(sigma=0.025)), DiffNetSolver(weights=path))
    narrow = load("operator", "gaussian-blur")((1, 16, 16), sigma=1.6)
    with pytest.raises(Incompatible, match="another operator"):
        solve(Problem(narrow, y, GaussianNoise(sigma=0.025)), DiffNetSolver(weights=path))
    with pytest.raises(Incompatible, match=r"another noise[\s\S]*allow_mismatch"):
        solve(Problem(blur((1, 16, 16)), y, GaussianNoise(sigma=0.03)), DiffNetSolver(weights=path))
    result = solve(
        Problem(blur((1, 16, 16)), y, GaussianNoise(sigma=0.03)), DiffNetSolver(weights=path, allow_mismatch=True)
    )
    assert "mismatch allowed" in result.reasons[0]


def test_weights_that_do_not_say_what_they_are_for_are_refused(weights):
    path = str(weights(DiffNetSolver, forward=None))
    problem = Problem(blur((1, 16, 16)), torch.zeros(1, 1, 16, 16), GaussianNoise(sigma=0.025))
    with pytest.raises(Incompatible, match="does not say"):
        solve(problem, DiffNetSolver(weights=path))


def test_the_global_seed_is_not_touched(weights):
    path = str(weights(UNetSolver))
    before = torch.random.get_rng_state()
    UNetSolver(weights=path)
    assert torch.equal(before, torch.random.get_rng_state())


def tables(name="diffnet", noise=0.025, **solver):
    return {
        "shape": [1, 16, 16],
        "operator": {"name": "gaussian-blur"},
        "noise": {"name": "gaussian", "sigma": noise},
        "solver": {"name": name, **solver},
    }


@pytest.mark.parametrize("name", ["convresnet", "unet", "diffnet"])
def test_auto_is_what_ships_for_the_operator_and_the_noise(name):
    given = tables(name)
    pipeline = Pipeline.from_dict(given)
    assert pipeline.config["solver"]["weights"] == "gaussian-blur-0.025"
    assert "weights" not in given["solver"]
    assert list(pipeline.reconstruct(torch.zeros(1, 1, 16, 16)).provenance["weights"]) == ["solver.weights"]
    other = Pipeline.from_dict(given | {"operator": {"name": "perona-malik"}})
    assert other.config["solver"]["weights"] == "perona-malik-0.025"


def test_auto_says_what_there_is_where_nothing_fits():
    with pytest.raises(BadParameter, match=r"no weights for gaussian-blur[\s\S]*perona-malik-0.025 for perona-malik"):
        Pipeline.from_dict(tables(noise=0.3))


def test_bad_weights_get_one_message(weights, tmp_path):
    with pytest.raises(BadFile, match="there is no file"):
        Pipeline.from_dict(tables(weights="missing.safetensors"))
    with pytest.raises(BadFile, match="has no weights 'blur'"):
        Pipeline.from_dict(tables(weights="blur"))
    with pytest.raises(Incompatible, match="weights of solver/unet"):
        Pipeline.from_dict(tables(weights=str(weights(UNetSolver))))
    path = weights(DiffNetSolver)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadFile, match="damaged"):
        Pipeline.from_dict(tables(weights=str(path)))
    (tmp_path / "x.pt").write_bytes(b"PK junk")
    with pytest.raises(BadFile, match=r"pickles can run any code"):
        Pipeline.from_dict(tables(weights=str(tmp_path / "x.pt")))
