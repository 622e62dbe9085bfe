import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from preimage import Component
from preimage._plugins import discover
from preimage.weights import save_weights

_spec = importlib.util.spec_from_file_location("analysis_scaled", Path(__file__).with_name("analysis_scaled.py"))
assert _spec is not None
assert _spec.loader is not None
sys.modules["analysis_scaled"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["analysis_scaled"])


@pytest.fixture
def scaled(monkeypatch, tmp_path) -> Callable[..., str]:
    """Registers prior/scaled; writes weights of it as training would, for an operator, noise and L."""
    owner = discover().components["study", "learned-operators"][0][1]
    component = Component("prior", "scaled", "analysis_scaled:Scaled", "for tests")
    monkeypatch.setitem(discover().components, ("prior", "scaled"), [(component, owner)])  # type: ignore[arg-type]

    def write(
        sigma: float, lipschitz: float, operator: str = "identity", *, scale: float | None = None, offset: float = 0.0
    ) -> str:
        path = tmp_path / "weights" / f"{operator}-{sigma:g}-L{lipschitz:g}.safetensors"
        scale = 1 - lipschitz if scale is None else scale
        tensors = {"scale": torch.tensor(scale), "offset": torch.tensor(offset)}
        forward = {"operator": [{"name": operator}], "noise": {"name": "gaussian", "sigma": sigma}, "seed": 0}
        facts = {"forward_model": forward}
        save_weights(path, tensors, component="prior/scaled", config={"lipschitz": lipschitz}, facts=facts)
        return str(path)

    return write
