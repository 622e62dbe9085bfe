"""Training on the common loop: the loss falls, interruptions leave no trace, bad recipes are refused."""

import copy
import csv
from pathlib import Path

import pytest
import torch
from preimage_iresnet.network import InvertibleResNet
from preimage_iresnet.terms import Terms
from preimage_iresnet.training import InvertibleReconstruction
from preimage_train import Slice, parse, prepare_folder, run
from rich.console import Console
from safetensors.torch import load_file

from preimage.errors import BadParameter, Incompatible, PreimageError
from preimage.weights import load_weights

TABLES = {
    "seed": 3,
    "model": {"name": "prior/iresnet", "blocks": 2, "channels": 4, "hidden": 6, "lipschitz": 0.9},
    "data": {"name": "photographs", "size": 64, "count": 3},
    "batches": {"size": 4, "crop": 24, "turns": True},
    "validation": {"every": 20, "count": 2, "data": {"name": "photographs", "size": 32, "names": ["coffee", "moon"]}},
    "operator": {"name": "gaussian-blur"},
    "noise": {"name": "gaussian", "sigma": 0.05},
    "objective": {"name": "invertible-reconstruction"},
    "optimiser": {"learning_rate": 1e-2},
    "budget": {"steps": 60},
}


@pytest.fixture
def tables():
    return copy.deepcopy(TABLES)


def train(tables, folder, *, resume=False, **limits):
    recipe = parse(tables)
    prepare_folder(recipe, folder, resume=resume, overwrite=False)
    return run(recipe, folder, console=Console(quiet=True), resume=resume, limits=Slice(**limits))


def column(folder: Path, table: str, name: str) -> list[float]:
    with (folder / table).open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


@pytest.mark.parametrize("objective", ["invertible-reconstruction", "invertible-approximation"])
def test_the_loss_falls_and_the_weights_come_back(tables, tmp_path, objective):
    tables |= {"objective": {"name": objective}, "budget": {"steps": 120}}
    train(tables, tmp_path / "run")
    losses = column(tmp_path / "run", "steps.csv", "loss network")
    assert losses[-1] < 0.9 * losses[0]
    weights = load_weights(str(tmp_path / "run" / "weights.safetensors"), "prior/iresnet")
    assert set(weights.facts["scores"]) >= {"psnr", "operator_error", "identity_error", "channel_spread"}
    assert weights.facts["certificate"]
    assert bool(weights.tensors["certified"])
    assert not [name for name in weights.tensors if name.endswith(("vector", "age"))]


def test_stopped_and_resumed_gives_the_very_same_weights(tables, tmp_path):
    """The vectors that follow the norms are in the checkpoint, or the second half would start from others."""
    train(tables, tmp_path / "whole")
    stop = iter([False] * 17 + [True] + [False] * 100)
    train(tables, tmp_path / "parts", stop=lambda: next(stop))
    train(tables, tmp_path / "parts", resume=True)
    one, other = (load_file(tmp_path / part / "weights.safetensors") for part in ("whole", "parts"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_approximation_learns_the_operator(tables, tmp_path):
    tables |= {"objective": {"name": "invertible-approximation"}, "budget": {"steps": 250}}
    train(tables, tmp_path / "run")
    errors = column(tmp_path / "run", "validation.csv", "operator_error")
    assert errors[-1] < 0.7 * column(tmp_path / "run", "validation.csv", "identity_error")[-1]


def test_the_loss_is_what_the_docstring_says():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        phi = InvertibleResNet(blocks=2, channels=4, hidden=6).double().eval()
    y, x, clean = torch.rand(3, 2, 1, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    objective = InvertibleReconstruction(stacked=0.25, approximation=0.5, terms=(40, 0), final=0.0)
    states = phi.invert(phi.residuals(), phi.lift(y), Terms(40, 0))
    wanted = 0.75 * (states.mean(1, keepdim=True) - x).square().mean()
    wanted = wanted + 0.25 * (states - x).square().mean() + 0.5 * (phi(x) - clean).square().mean()
    torch.testing.assert_close(objective.loss("network", phi, 0.0, y, x, clean), wanted)


def test_the_last_part_of_the_budget_has_its_own_terms():
    phi = InvertibleResNet(blocks=2, channels=4, hidden=6).double().eval()
    y, x, clean = torch.rand(3, 2, 1, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    objective = InvertibleReconstruction(stacked=0.0, terms=(1, 0), final_terms=(30, 3), final=0.25)
    early, late = (objective.loss("network", phi, progress, y, x, clean) for progress in (0.74, 0.75))
    exact = (phi.project(phi.invert(phi.residuals(), phi.lift(y), Terms(60, 0))) - x).square().mean()
    torch.testing.assert_close(late, exact)
    assert abs(early - exact) > 1e-6 * exact


@pytest.mark.parametrize(
    "values",
    [{"stacked": 1.5}, {"stacked": -0.1}, {"approximation": -1.0}, {"final": 2.0}, {"terms": (0, 1)}],
)
def test_bad_objectives_are_refused(values):
    with pytest.raises(BadParameter, match=next(iter(values))):
        InvertibleReconstruction(**values)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"model": {"name": "prior/iresnet", "lipschitz": 1.0}}, "lipschitz is 1.0"),
        ({"model": {"name": "prior/iresnet", "lipschitz": 0.9, "split": [0.5, 0.5]}}, "split is"),
        ({"model": {"name": "solver/diffnet"}}, "DiffNet is not an invertible residual network"),
        ({"operator": {"name": "compressive-sensing", "measurements": 100}}, "not images alike"),
        ({"export": {"dtype": "float16"}, "budget": {"steps": 1}}, "export.dtype is float16"),
    ],
)
def test_bad_recipes_are_refused(tables, tmp_path, change, found):
    tables |= change
    with pytest.raises((BadParameter, Incompatible, PreimageError), match=found):
        train(tables, tmp_path / "run")
