"""Where a run computes is said, and what would be slow there."""

import io

import pytest
import torch
from preimage_train import Slice, parse, prepare_folder, run
from preimage_train.devices import slow_precision
from rich.console import Console


@pytest.mark.parametrize(
    ("device", "precision", "found", "slow"),
    [
        ("cpu", "bf16-mixed", {"amx_bf16": False, "avx512_bf16": False}, True),
        ("cpu", "bf16-mixed", {"amx_bf16": True, "avx512_bf16": True}, False),
        ("cpu", "bf16-mixed", {"bf16": True}, False),
        ("cpu", "32-true", {}, False),
        ("cuda", "bf16-mixed", {}, False),
    ],
)
def test_a_precision_without_instructions_is_slow(monkeypatch, device, precision, found, slow):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert ("float" in slow_precision(torch.device(device), precision)) == slow


def test_a_run_says_so_once(tables, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    recipe, said = parse(tables | {"precision": "bf16-mixed"}), []
    prepare_folder(recipe, tmp_path / "run", resume=False, overwrite=False)
    for resume in (False, True):
        written = io.StringIO()
        limits = Slice(stop=lambda: True)
        run(recipe, tmp_path / "run", console=Console(file=written), resume=resume, limits=limits)
        said.append("--set precision=32-true" in written.getvalue())
    assert said == [True, False]
