"""The likelihood objective on a density whose best fit is known."""

import math

import pytest
import torch
from preimage_train import Slice, parse, prepare_folder, recipe as recipes, run
from preimage_train.likelihood import Likelihood
from rich.console import Console
from torch import nn

from preimage import Key
from preimage.errors import BadParameter
from preimage.trained import HasDensity


class Normal(HasDensity):
    """Independent normal pixels with one mean and one deviation."""

    def __init__(self, start: float = 0.0):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(start))
        self.log_deviation = nn.Parameter(torch.tensor(0.0))

    def log_density(self, images):
        scaled = (images - self.mean) * (-self.log_deviation).exp()
        nats = -0.5 * scaled.square() - self.log_deviation - 0.5 * math.log(2 * math.pi)
        return nats.flatten(1).sum(1)


def test_the_fit_is_the_mean_and_deviation_of_the_pixels(tables, tmp_path, monkeypatch):
    known = recipes.network_class
    monkeypatch.setattr(recipes, "network_class", lambda name: Normal if name == "prior/normal" else known(name))
    del tables["operator"], tables["noise"], tables["validation"]  # whose best would be another fit
    tables |= {
        "model": {"name": "prior/normal"},
        "objective": {"name": "likelihood"},
        "batches": {"size": 8},
        "data": tables["data"] | {"size": 32},
        "optimiser": {"learning_rate": 0.05, "clip": 0.0},
        "budget": {"steps": 300},
    }
    recipe = parse(tables)
    prepare_folder(recipe, tmp_path / "run", resume=False, overwrite=False)
    outcome = run(recipe, tmp_path / "run", console=Console(quiet=True), limits=Slice())
    pixels = torch.stack([data[i] for data in recipe.datasets(recipe.data, "data") for i in range(len(data))])
    fitted = outcome.network.requires_grad_(False)
    assert float(fitted.mean) == pytest.approx(float(pixels.mean()), abs=0.02)
    assert float(fitted.log_deviation.exp()) == pytest.approx(float(pixels.std()), abs=0.02)


def test_bits_per_dimension_of_a_uniform_density_are_eight():
    class Uniform(HasDensity):
        def log_density(self, images):
            return torch.zeros(len(images))

    images = Key(0).uniform((3, 1, 8, 8))
    scores = Likelihood().scores(Uniform(), images, ["a", "b", "c"], Key(1), None)
    assert torch.allclose(scores["minus_bits_per_dimension"], torch.full((3,), -8.0))


def test_dequantisation_stays_in_the_bin_of_the_pixel():
    images = (Key(0).uniform((2, 1, 16, 16)) * 255).round() / 255
    (noisy,) = Likelihood(levels=32).prepare(nn.Identity(), images, ["a", "b"], Key(1), None)
    assert torch.equal((noisy * 32).floor(), (images * 32).floor().clamp(0, 31))
    assert float(noisy.max()) < 1
    again = Likelihood(levels=32).prepare(nn.Identity(), images[1:], ["b"], Key(1), None)[0]
    assert torch.equal(again, noisy[1:])
    with pytest.raises(BadParameter, match="levels is 1"):
        Likelihood(levels=1)
