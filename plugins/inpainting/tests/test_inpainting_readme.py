"""The examples of README.md run."""

import re
import tomllib
from pathlib import Path

import pytest
import torch

from preimage import Pipeline

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def test_python_examples_run():
    assert blocks("python")
    for block in blocks("python"):
        exec(block, {})


def test_pipeline_runs_and_recovers():
    pytest.importorskip("preimage_baselines", reason="the example uses its solver and prior")
    pytest.importorskip("preimage_data", reason="the example uses its photographs")
    (block,) = blocks("toml")
    pipeline = Pipeline.from_dict(tomllib.loads(block))
    assert pipeline.data is not None
    x = torch.stack([pipeline.data[0], pipeline.data[1]])
    y = pipeline.simulate(x)
    assert y.shape == x.shape
    found = pipeline.reconstruct(y).x
    assert float((found - x).norm() / x.norm()) < 0.2
