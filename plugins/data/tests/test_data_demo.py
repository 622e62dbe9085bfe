"""`preimage demo`: its pipelines are the ones that are shipped, and its figures and tables say what was computed."""

import json
import tomllib
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from preimage_data import Photographs, _demo, read_image
from preimage_data.commands import demo

from preimage import Pipeline, Status, names
from preimage.errors import PreimageError

NEEDED = {
    "operator": {"identity", "gaussian-blur", "perona-malik", "inpainting", "compressive-sensing"},
    "prior": {"tv"},
    "solver": {"admm", "fista"},
}
complete = pytest.mark.skipif(
    any(needed - set(names(kind)) for kind, needed in NEEDED.items()), reason="needs preimage-data[demo]"
)


def test_every_pipeline_is_on_the_same_photographs():
    tables = [tomllib.loads(_demo.pipeline_text(name)) for name in _demo.PROBLEMS]
    assert all(table["data"] == tables[0]["data"] for table in tables)
    assert {table["operator"]["name"] for table in tables} == NEEDED["operator"]
    assert {table["solver"]["name"] for table in tables} == NEEDED["solver"]
    assert len(Photographs()) >= 8


@complete
def test_the_demo_on_two_photographs(tmp_path: Path):
    result = CliRunner().invoke(demo, ["--out", str(tmp_path / "demo"), "--count", "2"], standalone_mode=False)
    assert result.exception is None
    assert result.return_value == 0
    out = tmp_path / "demo"
    figures = {f"{name}.png" for name in (*_demo.PROBLEMS, "overview")}
    assert {p.name for p in out.iterdir()} == figures | {"table.md", "results.json", "pipelines"}
    assert all(min(read_image(out / name).shape[1:]) > 300 for name in figures)
    records = json.loads((out / "results.json").read_text("utf-8"))
    assert [record["problem"] for record in records] == list(_demo.PROBLEMS)
    for record in records:
        assert [image["label"] for image in record["images"]] == ["camera", "astronaut"]
        assert all(image["psnr_after"] > image["psnr_before"] for image in record["images"])
        mean = sum(image["psnr_after"] for image in record["images"]) / 2
        assert f"{mean:.2f}" in (out / "table.md").read_text("utf-8")
        assert f"{mean:.2f}" in result.output
        pipeline = out / "pipelines" / f"{record['problem']}.toml"
        assert Pipeline.from_file(pipeline).config["operator"] == record["provenance"]["pipeline"]["operator"]


@pytest.mark.slow
@pytest.mark.long
@complete
def test_every_photograph_is_improved_in_every_problem(tmp_path: Path):
    """The weights of the demo were chosen on other photographs (BSDS500), so this can fail."""
    result = CliRunner().invoke(demo, ["--out", str(tmp_path), "--count", "16"], standalone_mode=False)
    assert result.return_value == 0
    assert "not better" not in result.output


def result(before: list[float], after: list[float], status: Status = Status.CONVERGED) -> _demo.Result:
    labels = tuple("abc"[: len(before)])
    quality = torch.tensor(before), torch.tensor(after)
    config = {"operator": [{"name": "identity"}], "solver": {"name": "admm"}, "prior": {"name": "tv"}}
    steps, ended = (1,) * len(before), (status,) * len(before)
    return _demo.Result("p", config, "measurement", labels, *quality, *quality, steps, ended, 0.1, {})


def test_what_counts_as_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert result([20.0, 20.0], [21.0, 21.0]).worse() == []
    assert result([20.0, 20.0], [25.0, 20.0]).worse() == ["b"]
    assert result([20.0, 20.0], [25.0, 19.0]).improved()
    assert not result([20.0, 20.0], [19.0, 20.0]).improved()
    assert not result([20.0], [float("nan")]).improved()
    assert not result([20.0], [25.0], Status.DIVERGED).improved()
    monkeypatch.setattr(_demo, "perform", lambda out, count, console: [result([20.0], [19.0])])
    bad = CliRunner().invoke(demo, ["--out", str(tmp_path)], standalone_mode=False)
    assert bad.return_value == 1
    assert "not better than the measurement: p/a" in bad.output


def test_a_missing_plugin_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def absent(name: str) -> str:
        return '[operator]\nname = "identity"\n[noise]\nname = "none"\n[solver]\nname = "not-there"\n'

    monkeypatch.setattr(_demo, "pipeline_text", absent)
    bad = CliRunner().invoke(demo, ["--out", str(tmp_path / "demo")], standalone_mode=False)
    assert isinstance(bad.exception, PreimageError)
    assert "not-there" in str(bad.exception)
    assert not (tmp_path / "demo").exists()
