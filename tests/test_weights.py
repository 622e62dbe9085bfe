"""Weights files: whole or absent, strict to load, never a pickle, and part of a result's provenance."""

import pickle
from typing import Annotated

import pytest
import torch
from torch import nn

from preimage._parameters import weights_parameters
from preimage.errors import BadFile, Incompatible
from preimage.weights import WeightsFile, WeightsName, find, load_into, load_weights, save_weights

COMPONENT = "prior/line"


@pytest.fixture
def module():
    return nn.Linear(3, 2)


@pytest.fixture
def file(tmp_path, module):
    path = tmp_path / "line.safetensors"
    save_weights(
        path, module.state_dict(), component=COMPONENT, config={"size": 3}, facts={"data": "none", "score": 1.5}
    )
    return path


def test_round_trip_with_header_and_digest(file, module):
    weights = load_weights(str(file), COMPONENT)
    assert weights.config == {"size": 3}
    assert weights.facts == {"data": "none", "score": 1.5}
    other = nn.Linear(3, 2)
    load_into(other, weights)
    assert torch.equal(other.weight, module.weight)
    assert torch.equal(other.bias, module.bias)
    assert len(weights.digest) == 64
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("damage", [lambda d: d[:-3], lambda d: d[:40], lambda d: b"", lambda d: b"\xff" * 64])
def test_damaged_files_are_refused(file, damage):
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(BadFile, match=r"damaged, or no safetensors file"):
        load_weights(str(file), COMPONENT)


def test_a_pickle_is_never_loaded(tmp_path):
    path = tmp_path / "line.pt"
    path.write_bytes(pickle.dumps({"weight": 1}))
    with pytest.raises(BadFile, match="never loaded"):
        load_weights(str(path), COMPONENT)


def test_foreign_files_are_refused(file, tmp_path):
    with pytest.raises(Incompatible, match=r"weights of prior/line\s+expected: weights of prior/glow"):
        load_weights(str(file), "prior/glow")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(BadFile, match="'preimage' in its header"):
        load_weights(str(tmp_path / "plain.safetensors"), COMPONENT)


def test_missing_files_and_names(tmp_path):
    with pytest.raises(BadFile, match="there is no file"):
        load_weights(str(tmp_path / "no.safetensors"), COMPONENT)
    with pytest.raises(BadFile, match="has no weights 'faces'"):
        find(COMPONENT, "faces")


def test_another_architecture_is_named(file):
    with pytest.raises(Incompatible, match=r"weight of shape \(2, 3\) for \(2, 4\)"):
        load_into(nn.Linear(4, 2), load_weights(str(file), COMPONENT))
    with pytest.raises(Incompatible, match=r"no 0.weight, no 0.bias, unknown"):
        load_into(nn.Sequential(nn.Linear(3, 2)), load_weights(str(file), COMPONENT))


def test_weights_with_nan_are_refused(tmp_path, module):
    path = tmp_path / "bad.safetensors"
    save_weights(
        path,
        {**module.state_dict(), "bias": torch.tensor([1.0, float("nan")])},
        component=COMPONENT,
        config={},
        facts={},
    )
    with pytest.raises(Incompatible, match="bias with NaN"):
        load_into(module, load_weights(str(path), COMPONENT))


def test_a_failed_write_leaves_the_old_file(file, module, monkeypatch):
    before = file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(BadFile, match="No space left"):
        save_weights(file, module.state_dict(), component=COMPONENT, config={}, facts={})
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_parameters_that_name_weights_are_found():
    class Some:
        def __init__(self, *, size: int = 1, weights: WeightsName = "a", optional: WeightsName | None = None):
            pass

    assert weights_parameters(Some) == {"weights": "", "optional": ""}

    class Several:
        def __init__(self, *, weights: tuple[Annotated[str, WeightsFile, "prior/other"], ...]):
            pass

    assert weights_parameters(Several) == {"weights": "prior/other"}
