"""Training a flow: first weights made for the data, likelihood that rises, a recovery task, and what is exported."""

import json
import math

import pytest
import torch
from preimage_data import Photographs
from preimage_glow.flow import Flow
from preimage_train import Slice, parse, prepare_folder, run
from preimage_train.likelihood import Likelihood
from rich.console import Console

from preimage import Key
from preimage.errors import Incompatible
from preimage.weights import load_weights

RECIPE = {
    "model": {"name": "prior/glow", "levels": 2, "steps": 2, "last_steps": 2, "hidden": 8, "image_channels": 1},
    "data": {"name": "photographs", "size": 64, "names": ["astronaut", "camera", "rocket"]},
    "batches": {"size": 4, "crop": 16},
    "validation": {
        "every": 30,
        "count": 4,
        "data": {"name": "photographs", "size": 16, "names": ["coffee", "moon"]},
        "recovery": {
            "count": 2,
            "weight": 0.0,
            "operator": {"name": "inpainting", "mask": "random", "keep": 0.5},
            "noise": {"name": "gaussian", "sigma": 0.01},
            "solver": {"name": "latent-map", "max_evaluations": 15},
        },
    },
    "objective": {"name": "likelihood"},
    "optimiser": {"learning_rate": 5e-3, "clip": 1.0},
    "budget": {"steps": 60},
}


def trained(tables, folder):
    recipe = parse(tables)
    prepare_folder(recipe, folder, resume=False, overwrite=False)
    run(recipe, folder, console=Console(quiet=True), limits=Slice())
    return load_weights(str(folder / "weights.safetensors"), "prior/glow")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_likelihood_rises_and_the_recovery_is_judged(tmp_path, precision):
    weights = trained(RECIPE | {"precision": precision}, tmp_path / "run")
    rows = (tmp_path / "run" / "validation.csv").read_text().splitlines()
    header, first, last = (row.split(",") for row in (rows[0], rows[1], rows[-1]))
    bits, psnr = header.index("minus_bits_per_dimension"), header.index("recovery_psnr")
    assert float(last[bits]) > float(first[bits])
    assert 8 < float(last[psnr]) < 60
    assert weights.facts["scores"]["minus_bits_per_dimension"] > -7
    assert json.loads((tmp_path / "run" / "report.json").read_text())["scores"] == weights.facts["scores"]


def test_the_first_weights_whiten_what_reaches_each_step():
    images = torch.stack([Photographs(size=16)[index] for index in range(6)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        flow = Flow(levels=2, steps=2, last_steps=2, hidden=8, image_channels=1)
    flow.initialise(images)
    with torch.no_grad():
        z, log_determinant = flow.encode(images)
    assert float(z.mean()) == pytest.approx(0, abs=1e-5)
    assert float(z.std()) == pytest.approx(1, abs=0.1)  # exactly 1 before a rotation, of which half is given to z
    assert bool((log_determinant > 0).all())  # images vary by much less than one


def test_a_batch_reaches_the_objective_unrounded(tmp_path, monkeypatch):
    """Dequantisation noise lies between the 256 grey values; half precision has 128 in the upper half of them."""
    seen: list[torch.Tensor] = []

    def watched(self, images):
        seen.append(images.detach())
        return original(self, images)

    original = Flow.log_density
    monkeypatch.setattr(Flow, "log_density", watched)
    trained(RECIPE | {"precision": "bf16-mixed", "budget": {"steps": 1}}, tmp_path / "run")
    assert all(images.dtype == torch.float32 for images in seen)
    assert any(not torch.equal(images, images.bfloat16().float()) for images in seen)


def test_bits_per_dimension_against_the_density():
    images = Key(0).uniform((2, 1, 8, 8))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        flow = Flow(levels=1, last_steps=1, hidden=4, image_channels=1)

    with torch.no_grad():
        scores = Likelihood().scores(flow, images, ["a", "b"], Key(1), None)["minus_bits_per_dimension"]
        (noisy,) = Likelihood().prepare(flow, images, ["a", "b"], Key(1), None)
        z, log_determinant = flow.encode(noisy)
    nats = -0.5 * z.square().sum(1) - 32 * math.log(2 * math.pi) + log_determinant
    assert torch.allclose(scores, nats / 64 / math.log(2) - 8, atol=1e-5)


def test_a_recovery_for_a_network_that_is_no_prior_is_refused():
    tables = {name: value for name, value in RECIPE.items() if name not in ("model", "objective")}
    tables |= {"model": {"name": "solver/unet", "preset": "small"}, "objective": {"name": "reconstruction"}}
    tables |= {name: RECIPE["validation"]["recovery"][name] for name in ("operator", "noise")}
    with pytest.raises(Incompatible, match=r"validation.recovery.*no prior"):
        parse(tables)
