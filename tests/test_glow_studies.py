"""The suites of benchmarks/ can be read, and the page of the studies says what the results and the tables say."""

import sys
from pathlib import Path
from statistics import fmean

import pytest
from preimage_compare import load_suite, read, run_suite

ROOT = Path(__file__).parents[1]
SUITES = sorted(p for p in (ROOT / "benchmarks" / "suites").glob("*.toml") if not p.name.startswith("_"))

TABLES = {
    "cs": "dataset,method,m,gamma,z_init_std,psnr1,psnr2,psnr3\n"
    "celeba,glow-main,1000,0,0,30.5,,\nbirds,glow-main,1000,0,0,99,,\nceleba,dcgan,1000,0,0.1,21.0,22.0,23.0\n,,,,,,,\n"
    "celeba,glow-ablation-gamma,5000,0.1,0.7,35.4,,\n",
    "denoising": "dataset,method,gamma,noise_std,psnr1,psnr2,psnr3,psnr_noisy\n"
    "celeba,glow,0.5,0.1,28.4,,,20\nceleba,glow,1,0.1,30.4,,,20\nceleba,bm3d,,0.1,29.9,,,20\n",
    "inpainting": "dataset,method,gamma,psnr1,psnr2,psnr3\nceleba,glow-main,0,34.0,,\nceleba,glow-main,0.05,34.9,,\n"
    "celeba,glow-main,50,,,\n",
}
DENOISING = """
title = "Denoising"
[[data]]
label = "photographs"
name = "photographs"
size = 16
count = 2
colour = "colour"
[[operator]]
label = "identity"
name = "identity"
[[noise]]
label = "0.1"
name = "gaussian"
sigma = 0.1
[[method]]
label = "adjoint"
solver = { name = "adjoint" }
[[method]]
label = "tikhonov"
prior = { name = "tikhonov", weight = 0.1 }
solver = { name = "conjugate-gradients" }
"""


@pytest.fixture
def tools(monkeypatch, tmp_path):
    """tools/ on the path, and published tables of a few rows."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.setenv("PREIMAGE_DATA", str(tmp_path))
    (tmp_path / "published").mkdir()
    for name, text in TABLES.items():
        (tmp_path / "published" / f"{name}_results.csv").write_text(text)
    yield tmp_path
    for name in ("write_glow", "glow_published"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_suite_can_be_read(path):
    suite = load_suite(path)
    assert suite.description
    assert suite.reference in [method.label for method in suite.methods]


def test_published_rows_are_means_over_runs_of_faces(tools):
    from glow_published import Published  # pyright: ignore[reportMissingImports]

    published = Published.read()
    assert published.found
    assert published.compressive_sensing("glow-main", 1000) == 30.5
    assert published.compressive_sensing("dcgan", 1000) == pytest.approx(22)
    assert published.compressive_sensing("dcgan", 2500) is None
    assert published.measurements("glow-main") == [1000]
    assert published.start("0.7", 0.1) == 35.4
    assert published.start("0", 0.1) is None
    assert published.denoising("glow", 0.1) == 30.4
    assert published.denoising("glow", 0.1, 0.5) == 28.4
    assert published.denoising("bm3d", 0.1) == 29.9
    assert published.inpainting("glow-main") == 34.9


def test_the_page_has_our_means_beside_the_published_rows(tools, monkeypatch):
    import write_glow  # pyright: ignore[reportMissingImports]

    monkeypatch.setattr(write_glow, "DOCS", tools / "docs")
    monkeypatch.setattr(write_glow, "IMAGES", tools / "docs" / "images")
    assert write_glow.main([str(tools / "results")]) == 1  # nothing there
    (tools / "suite.toml").write_text(DENOISING)
    folder = tools / "results" / "glow-denoising"
    run_suite(load_suite(tools / "suite.toml"), folder)
    assert write_glow.main([str(tools / "results")]) == 0
    page = (tools / "docs" / "glow-studies.md").read_text()
    cells = [c for c in read(folder).cells if c["method"] == "tikhonov"]
    assert f"| tikhonov | {fmean(c['metrics']['psnr'] for c in cells):.2f} |" in page
    assert "| adjoint | " in page
    key = next(c["key"] for c in read(folder).cells if c["method"] == "adjoint")
    next((folder / "cells").rglob(f"{key}*")).unlink()
    assert write_glow.main([str(tools / "results")]) == 0
    page = (tools / "docs" / "glow-studies.md").read_text()
    assert "| adjoint | " not in page  # a mean over fewer images than the others have
    assert "| *published glow, best gamma* | *30.40* |" in page
    assert "| *published bm3d* | *29.90* |" in page
    assert "## Compressive sensing" not in page
    assert (tools / "docs" / "images" / "denoising.png").stat().st_size > 1000
