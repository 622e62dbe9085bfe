"""Total variation on Perona-Malik diffusion: 32 photographs' crops, noise 0.025.

The crops are the 96 x 96 centres of the first 32 images of BSDS500's validation set, which is read from
PREIMAGE_DATA/bsds500/val; without it, the bundled photographs stand in, with their own figures.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from preimage_baselines import FISTA, TotalVariation
from preimage_data import Folder, Photographs, psnr
from preimage_perona_malik import PeronaMalik

from preimage import GaussianNoise, Key, Pipeline, Problem, Trace, solve

ROOT = Path(os.environ.get("PREIMAGE_DATA", "nowhere")) / "bsds500" / "val"
SIGMA, WEIGHT = 0.025, 0.008
SHAPE = (1, 96, 96)


def reconstruct(operator: PeronaMalik, y: torch.Tensor, trace: Trace | None = None) -> torch.Tensor:
    problem = Problem(operator, y, GaussianNoise(sigma=SIGMA), TotalVariation(SHAPE), weight=WEIGHT)
    return solve(problem, FISTA(max_steps=200), observers=[] if trace is None else [trace]).x


def never_rises(trace: Trace) -> bool:
    return bool((torch.stack(trace.objective).diff(dim=0) <= 0).all())


@pytest.mark.slow
@pytest.mark.skipif(not ROOT.is_dir(), reason="needs PREIMAGE_DATA with bsds500/val")
def test_the_32_development_crops():
    dataset = Folder(path=ROOT, size=96, crop="centre", colour="grey", count=32)
    x = torch.stack([dataset[i] for i in range(32)])
    # The legacy generator: these figures are compared with others drawn from it.
    noise = torch.from_numpy(np.stack([np.random.RandomState(100 + i).randn(1, 96, 96) for i in range(32)]))
    operator, trace = PeronaMalik(SHAPE), Trace()
    y = operator(x) + SIGMA * noise.float()
    estimate = reconstruct(operator, y, trace)
    data, gained = float(psnr(y, x).mean()), float(psnr(estimate, x).mean())
    print(f"data {data:.2f} dB, FISTA with TV {gained:.2f} dB")
    assert data == pytest.approx(28.73, abs=0.02)
    assert gained >= 30.1
    assert never_rises(trace)
    for index in (0, 13, 31):
        alone = reconstruct(operator, y[index : index + 1])
        assert float((alone[0] - estimate[index]).abs().max()) <= 1e-5


def test_bundled_photographs():
    dataset = Photographs(size=96, count=8)
    tables = {
        "seed": 3,
        "operator": {"name": "perona-malik"},
        "noise": {"name": "gaussian", "sigma": SIGMA},
        "prior": {"name": "tv", "weight": WEIGHT},
        "solver": {"name": "fista", "max_steps": 200},
    }
    pipeline = Pipeline.from_dict(tables, data=dataset)
    labels = [dataset.label(i) for i in range(len(dataset))]
    x, trace = torch.stack([dataset[i] for i in range(len(dataset))]), Trace()
    y = pipeline.simulate(x, labels)
    result = pipeline.reconstruct(y, labels, observers=[trace])
    assert float(psnr(result.x, x).mean()) > float(psnr(y, x).mean()) + 1.5
    assert never_rises(trace)
    again = Pipeline.from_dict(tables, data=dataset)
    assert torch.equal(again.reconstruct(again.simulate(x, labels), labels).x, result.x)
    assert pipeline.key == Key(3)
    alone = pipeline.reconstruct(pipeline.simulate(x[5:6], labels[5:6]), labels[5:6])
    assert float((alone.x[0] - result.x[5]).abs().max()) <= 1e-5
