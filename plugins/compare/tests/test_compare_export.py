"""Exports read back by the tools they are for, differences between folders, and tables for the terminal."""

import csv
import importlib.util
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from preimage_compare import store
from preimage_compare.diff import diff
from preimage_compare.export import KINDS, export, latex, rows
from preimage_compare.report_facts import suite_toml
from preimage_compare.suite import load_suite
from preimage_compare.tables import status_table, summary_table
from rich.console import Console

from preimage.errors import BadData, BadFile, BadParameter, PreimageError

_spec = importlib.util.spec_from_file_location("compare_synthetic", Path(__file__).with_name("compare_synthetic.py"))
assert _spec is not None
assert _spec.loader is not None
compare_synthetic = sys.modules.setdefault("compare_synthetic", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(compare_synthetic)
Synthetic = compare_synthetic.Synthetic


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("results")
    Synthetic(stored=0, lost=((0, 1),)).write(path)
    return store.read(path)


def printed(renderable):
    console = Console(width=160, color_system=None)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def test_csv_has_a_row_for_every_cell_and_its_numbers(results, tmp_path):
    path = export(results, "csv", tmp_path / "cells.csv")
    with path.open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert len(read) == 288
    outcomes = [row["outcome"] for row in read]
    assert {name: outcomes.count(name) for name in set(outcomes)} == {
        "ok": 259,
        "failed": 4,
        "skipped": 24,
        "missing": 1,
    }
    for cell, row in zip(results.cells, read, strict=False):
        assert [row[axis] for axis in store.AXES] == [str(cell[axis]) for axis in store.AXES]
        if cell["outcome"] == "ok":
            assert float(row["psnr"]) == cell["metrics"]["psnr"]
            assert int(row["calls_forward"]) == cell["evaluations"]["forward"]
        else:
            assert row["psnr"] == ""
            assert row["reason"] == cell["reason"]


def test_parquet_reads_back_with_types_and_nulls(results, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install pyarrow")
    table = parquet.read_table(export(results, "parquet", tmp_path / "cells.parquet"))
    assert table.num_rows == 288
    assert str(table.schema.field("psnr").type) == "double"
    assert str(table.schema.field("seed").type) == "int64"
    assert table.column("psnr").null_count == 288 - 259
    expected = rows(results)
    assert table.column("method").to_pylist() == [row["method"] for row in expected]
    assert table.column("seconds").to_pylist() == [row["seconds"] for row in expected]
    assert table.column("memory_gpu").null_count == 288


def test_latex_is_a_booktabs_table_of_the_means_and_paired_differences(results, tmp_path):
    text = export(results, "latex", tmp_path / "table.tex").read_text("utf-8")
    for command in ("toprule", "midrule", "bottomrule", "begin{tabular}{lrrrr}", "caption"):
        assert "\\" + command in text
    body = text.partition("\\midrule")[2]
    by_method = {line.split(" & ")[0].strip(): line for line in body.splitlines() if " & " in line}
    first = [
        c["metrics"]["psnr"]
        for c in results.cells
        if (c["operator"], c["noise"], c["method"]) == ("blur", "0.01", "unet")
    ]
    assert f"{np.mean(first):.2f}" in by_method["unet"].split(" & ")[1]
    assert by_method["pnp-drunet"].count("\\textbf") == 4
    assert "--" in by_method["unet"]  # skipped for inpainting
    assert "dagger" in by_method["wavelet-fista"]
    assert "dagger" not in by_method["pnp-drunet"]  # the reference lacks one, it does not
    assert body.count("\\\\") == 2 * len(compare_synthetic.METHODS) - 1


def test_latex_escapes_labels(tmp_path):
    Synthetic(methods=("a_b", "50%&$#{}~^\\"), images=1, seeds=1, stored=0, failing=(), effects={}).write(tmp_path)
    text = latex(store.read(tmp_path))
    assert "a\\_b" in text
    assert "50\\%\\&\\$\\#\\{\\}\\textasciitilde{}\\textasciicircum{}\\textbackslash{}" in text


def test_unknown_exports_metrics_and_folders_in_the_way_are_refused(results, tmp_path):
    with pytest.raises(BadParameter, match=", ".join(KINDS)):
        export(results, "xlsx", tmp_path / "x")
    with pytest.raises(BadParameter, match="lpips"):
        export(results, "latex", tmp_path / "x", metric="lpips")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(BadFile, match=r"chapter\.tex"):
        export(results, "benchopt", tmp_path / "thesis")


SUITE = """
title = "Two photographs / small"
seeds = [3]
reference = "tikhonov"
[[data]]
label = "photographs"
name = "photographs"
size = 32
count = 2
[[operator]]
label = "blur"
name = "gaussian-blur"
[[operator]]
label = "diffusion"
name = "perona-malik"
[[noise]]
label = "0.05"
name = "gaussian"
sigma = 0.05
[[method]]
label = "tikhonov"
prior = { name = "tikhonov", weight = 0.05 }
solver = { name = "conjugate-gradients" }
[[method]]
label = "tv"
prior = { name = "tv", weight = 0.01 }
solver = { name = "fista", max_steps = 30 }
[[method.override]]
noise = "0.05"
set = { "prior.weight" = 0.02 }
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    from preimage_compare.run import run_suite

    folder = tmp_path_factory.mktemp("ran")
    (folder / "small.toml").write_text(SUITE)
    run_suite(load_suite(folder / "small.toml"), folder / "results")
    return store.read(folder / "results")


@pytest.fixture
def benchopt(monkeypatch):
    """The three base classes of Benchopt, which the exported files need to be imported; the real ones add no names."""

    class Base:
        def __init__(self, **parameters):
            vars(self).update(parameters)

    module = types.ModuleType("benchopt")
    for name in ("BaseObjective", "BaseDataset", "BaseSolver"):
        setattr(module, name, type(name, (Base,), {}))
    monkeypatch.setitem(sys.modules, "benchopt", module)


def loaded(path, name):
    spec = importlib.util.spec_from_file_location(f"exported_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def test_the_exported_benchmark_gives_the_numbers_of_the_cells(ran, benchopt, tmp_path):
    folder = export(ran, "benchopt", tmp_path / "benchmark")
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == [
        "README.md", "datasets/suite.py", "objective.py", "solvers/preimage.py", "suite.toml",
    ]  # fmt: skip
    dataset_type = loaded(folder / "datasets" / "suite.py", "Dataset")
    solver_type = loaded(folder / "solvers" / "preimage.py", "Solver")
    objective = loaded(folder / "objective.py", "Objective")()
    assert "/" not in objective.name
    assert solver_type.parameters == {"method": ["tikhonov", "tv"]}
    assert len(dataset_type.parameters["data, image"]) == 2
    skipped = 0
    for cell in ran.cells:
        dataset = dataset_type(data=cell["data"], image=cell["image"], operator=cell["operator"], noise="0.05", draw=3)
        objective.set_data(**dataset.get_data())
        solver = solver_type(method=cell["method"])
        given = objective.get_objective()
        assert "truth" not in given
        skip, reason = solver.skip(**given)
        if skip:
            skipped += 1
            assert cell["outcome"] == "skipped"
            assert "ForwardOperator" in reason
            assert "ForwardOperator" in cell["reason"]
            continue
        solver.set_objective(**given)
        solver.run(None)
        found = objective.evaluate_result(**solver.get_result())
        assert found["psnr"] == pytest.approx(cell["metrics"]["psnr"], abs=1e-3)
        assert found["nmse"] == pytest.approx(cell["metrics"]["nmse"], rel=1e-3)
        assert found["steps"] == cell["steps"]
    assert skipped == 2
    assert objective.evaluate_result(**objective.get_one_result())["nmse"] == pytest.approx(1)


def test_the_exported_suite_reads_back_and_asks_for_the_same_cells(ran, tmp_path):
    path = tmp_path / "suite.toml"
    path.write_text(suite_toml(ran.suite), "utf-8")
    again = load_suite(path)
    assert again.as_dict() == ran.suite["suite"]
    assert [tuple(cell) for cell in again.cells()] == [tuple(c[axis] for axis in store.AXES) for c in ran.cells]


def test_diff_finds_the_change_that_was_made(tmp_path):
    Synthetic(stored=0).write(tmp_path / "old")
    Synthetic(stored=0, shift=0.5, failing=("tikhonov-cg",)).write(tmp_path / "new")
    found = diff(tmp_path / "old", tmp_path / "new")
    of = {(change.method, change.metric): change for change in found.changes}
    unet = of["unet", "psnr"]
    assert unet.difference == pytest.approx(0.5, abs=1e-9)  # the same noise was drawn otherwise
    assert (unet.pairs, unet.better, unet.worse, unet.images) == (24, 24, 0, 6)
    assert unet.same_measurement == 24
    assert of["tv-admm", "psnr"].difference == pytest.approx(0)
    assert of["unet", "log2 seconds"].difference == pytest.approx(0)
    assert {name.partition(" on ")[0] for name, _ in found.broken} == {"tikhonov-cg"}
    assert {name.partition(" on ")[0] for name, _ in found.mended} == {"wavelet-fista"}
    assert "NaN or infinity" in found.broken[0][1]
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["changes"][0]["method"] == "tv-admm"
    text = printed(found.table())
    assert re.search(r"unet +\d+\.\d\d → \d+\.\d\d +\+0\.50", text)
    assert "finished before, not now" in text


def test_diff_pairs_by_label_whatever_the_order_and_says_when_measurements_differ(tmp_path):
    Synthetic(stored=0, failing=()).write(tmp_path / "old")
    made = Synthetic(stored=0, methods=(*compare_synthetic.METHODS[::-1], "new"), noises=("0.1",), failing=(), seed=1)
    made.write(tmp_path / "new")
    old, new = store.read(tmp_path / "old"), store.read(tmp_path / "new")
    for cell in new.cells:
        cell["measurement"] = "other"
    found = diff(old, new)
    change = next(c for c in found.changes if (c.method, c.metric) == ("tv-admm", "psnr"))
    labels = {tuple(c[axis] for axis in store.AXES): c["metrics"].get("psnr") for c in old.cells}
    by_hand = [
        c["metrics"]["psnr"] - labels[tuple(c[axis] for axis in store.AXES)]
        for c in new.cells
        if c["method"] == "tv-admm"
    ]
    assert change.difference == pytest.approx(np.mean(by_hand))
    assert (change.pairs, change.same_measurement) == (24, 0)
    assert found.only_new == ["new"]
    assert "were not measured alike" in printed(found.table())


def test_diff_of_strangers_is_refused(tmp_path):
    Synthetic(stored=0).write(tmp_path / "a")
    Synthetic(stored=0, noises=("0.025",)).write(tmp_path / "b")
    Synthetic(stored=0, methods=("x",)).write(tmp_path / "c")
    with pytest.raises(BadData, match="no measurement in common"):
        diff(tmp_path / "a", tmp_path / "b")
    with pytest.raises(BadData, match="no method in common"):
        diff(tmp_path / "a", tmp_path / "c")
    with pytest.raises(PreimageError):
        diff(tmp_path / "a", tmp_path / "nowhere")


def test_summary_ranks_and_keeps_what_failed_in_sight(results):
    text = printed(summary_table(results))
    ranking = [line.split()[0] for line in text.splitlines()[2:8]]
    assert ranking == ["pnp-drunet", "unet", "tv-admm", "wavelet-fista", "tikhonov-cg", "back-projection"]
    assert "reference" in text
    assert "24 (24 skipped)" in text
    assert "†" in text
    assert "pnp-drunet is ahead of tv-admm by +1." in text
    assert "operator inpainting does not fit" in text
    assert "[red]" not in text
    assert "lower" not in printed(summary_table(results, metric="nmse", reference="unet"))


def test_status_counts_every_cell_once(results):
    lines = printed(status_table(results)).splitlines()
    assert lines[-1].split() == ["all", "259", "4", "24", "1"]
    assert lines[2].split() == ["tv-admm", "47", "–", "–", "1"]
