"""The examples in the plugins' READMEs run."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from preimage_data import Photographs, write_image

from preimage import Pipeline, load

ROOT = Path(__file__).parents[1]
IN_ORDER = {"train"}  # blocks build on each other: test_docs runs them
PLUGINS = sorted({path.parent.name for path in (ROOT / "plugins").glob("*/pyproject.toml")} - IN_ORDER)
# What a fragment about one component leaves out.
REST = {
    "operator": {"name": "identity"},
    "noise": {"name": "gaussian", "sigma": 0.05},
    "prior": {"name": "tv", "weight": 0.02},
    "solver": {"name": "fista", "max_steps": 100},
}


PIPELINE = """
data = {name = "photographs", size = 64, count = 1}
operator = {name = "gaussian-blur"}
noise = {name = "gaussian", sigma = 0.01}
prior = {name = "tv", weight = 1e-3}
solver = {name = "admm"}
"""


def blocks(plugin: str, language: str) -> list[str]:
    text = (ROOT / "plugins" / plugin / "README.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_pipelines_recover(plugin):
    assert blocks(plugin, "toml")
    for block in blocks(plugin, "toml"):
        given = tomllib.loads(block)
        tables = REST | given
        if "prior" not in given and load("solver", tables["solver"]["name"]).prior_type is None:
            del tables["prior"]
        if tables.get("data", {}).get("name") == "photographs":
            tables["data"]["count"] = 2
        else:
            tables["data"] = {"name": "photographs", "size": 64, "count": 2}
        pipeline = Pipeline.from_dict(tables, where=f"README of {plugin}")
        x = torch.stack([pipeline.data[0], pipeline.data[1]])  # type: ignore[index]
        result = pipeline.reconstruct(pipeline.simulate(x))
        assert float((result.x - x).norm() / x.norm()) < 0.25


@pytest.mark.parametrize("plugin", PLUGINS)
def test_python_runs(plugin, tmp_path):
    # The files that the pages name, made from bundled photographs.
    for index in range(32):
        write_image(tmp_path / "bsds500" / "val" / f"{index}.png", Photographs(size=(96, 120))[index % 8])
    for index, folder in enumerate(("train", "train", "test")):
        write_image(tmp_path / folder / f"{index}.png", Photographs(size=(96, 120))[index])
    (tmp_path / "pipeline.toml").write_text(PIPELINE)
    script = "".join(blocks(plugin, "python"))
    assert script
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PREIMAGE_DATA": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
