"""Several processes train the network that one does."""

import socket
import subprocess
import sys

import pytest
import tomli_w
import torch
from safetensors.torch import load_file


@pytest.mark.slow
def test_two_processes_and_one_with_the_same_batch_agree(tables, tmp_path):
    tables["budget"] = {"steps": 20}
    tables["optimiser"] = {"learning_rate": 1e-3}
    del tables["validation"]
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(tomli_w.dumps(tables))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = [sys.executable, "-m", "preimage", "train", str(recipe), "--accelerator", "cpu", "--threads", "1"]
    for count in ("1", "2"):
        out = ["--out", str(tmp_path / count), "--devices", count, "--strategy", "ddp" if count == "2" else "auto"]
        done = subprocess.run([*words, *out], capture_output=True, text=True, timeout=300, env=_environment(port))
        assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / count / "weights.safetensors") for count in ("1", "2"))
    start = load_file(tmp_path / "1" / "checkpoint-before.safetensors")
    moved = max(float((one[name] - start[f"network/{name}"]).abs().max()) for name in one)
    apart = max(float((one[name] - two[name]).abs().max()) for name in one)
    assert moved > 1e-3
    assert apart < 1e-6
    assert all(torch.isfinite(tensor).all() for tensor in two.values())


def _environment(port: str) -> dict[str, str]:
    import os

    return os.environ | {"MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
