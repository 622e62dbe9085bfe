"""The shipped presets on the 32 development crops, which they were not tuned on.

The crops are the 96 x 96 centres of the first 32 images of BSDS500's validation set, in PREIMAGE_DATA/bsds500/val; the
presets were tuned on crops of its training set.
"""

import os
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from preimage_data import Folder, psnr, ssim

from preimage import Pipeline
from preimage.presets import shipped

ROOT = Path(os.environ.get("PREIMAGE_DATA", "nowhere")) / "bsds500" / "val"
SHAPE = (1, 96, 96)
CASES = tomllib.loads(Path(__file__).with_name("development_crops.toml").read_text("utf-8"))["case"]
SLOW = ("bm3d",)
"""Seconds for each crop. On blur it is the best of all: docs/networks.md has its figures."""

needs_crops = pytest.mark.skipif(not ROOT.is_dir(), reason="needs PREIMAGE_DATA with bsds500/val")


def presets_for(operator, sigma):
    """The shipped presets for an operator with its default parameters, by name."""
    tables = [preset for preset in shipped()[0] if [table["name"] for table in preset.operator] == [operator]]
    return {p.name: p for p in tables if p.noise == {"name": "gaussian", "sigma": sigma} and p.channels == 1}


@pytest.mark.slow
@needs_crops
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['operator']}-{case['sigma']}")
def test_the_best_preset_on_the_development_crops(case):
    operator, sigma, data = case["operator"], case["sigma"], case["data"]
    dataset = Folder(path=ROOT, size=96, crop="centre", colour="grey", count=32)
    x = torch.stack([dataset[i] for i in range(32)])
    # The legacy generator: these figures are compared with others drawn from it.
    noise = torch.from_numpy(np.stack([np.random.RandomState(100 + i).randn(*SHAPE) for i in range(32)]))
    scores = {}
    for name, preset in presets_for(operator, sigma).items():
        if name in SLOW:
            continue
        assert preset.tuned["data"]["path"] == "bsds500/train"
        tables = {"operator": {"name": operator}, "noise": {"name": "gaussian", "sigma": sigma}, "preset": name}
        pipeline = Pipeline.from_dict(tables | {"shape": list(SHAPE)})
        y = pipeline.operator_for(["all"])(x) + sigma * noise.float()
        assert float(psnr(y, x).mean()) == pytest.approx(data, abs=0.02)
        estimate = pipeline.reconstruct(y).x
        scores[name] = float(psnr(estimate, x).mean()), float(ssim(estimate, x).mean())
    print(f"\n{operator}, noise {sigma}: measurement {data:.2f} dB")
    for name, (decibel, similarity) in sorted(scores.items(), key=lambda item: -item[1][0]):
        print(f"  {name:<18} {decibel:.2f} dB  SSIM {similarity:.3f}")
    best = max(decibel for decibel, _ in scores.values())
    assert best >= case["least"]
    assert best <= case["variational"] + 0.02, "networks would be measured against less than the best"


def test_no_shipped_preset_was_tuned_on_images_that_are_for_testing():
    presets, wrong = shipped()
    assert presets
    assert not wrong
    for preset in presets:
        tuned = preset.tuned["data"]
        for table in tuned if isinstance(tuned, list) else [tuned]:
            assert table["path"] in ("bsds500/train", "faces/celeba_val"), preset.source
        assert preset.tuned["score"] >= preset.tuned["start"], (preset.source, preset.name, preset.described())
        assert preset.tuned["trials"] >= 16, "an equal budget for all"


def test_every_shipped_preset_assembles():
    for preset in shipped()[0]:
        channels, size = preset.channels, 64 if "celeba" in str(preset.tuned["data"]) else 96
        if preset.operator[0]["name"] == "compressive-sensing":
            continue  # matrices of 240 MB; the names and tables are the same
        tables = {"operator": preset.operator, "noise": preset.noise, "preset": preset.name}
        pipeline = Pipeline.from_dict(tables | {"shape": [channels, size, size]})
        assert pipeline.config["solver"]["name"] == preset.solver["name"]
