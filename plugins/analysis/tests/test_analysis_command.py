"""`preimage analyse`: what it prints, writes, keeps and refuses."""

import csv
import hashlib
import json
from pathlib import Path

import pytest
from preimage_analysis import InversionConvergence, inversion_convergence

from preimage._cli import run

SETTINGS = [
    'operators=["identity"]', "data={name='photographs', size=24}", "count=7", "schedule=[[0.1, 0.2], [0.02, 0.1]]",
]  # fmt: skip


@pytest.fixture
def weights(scaled) -> list[str]:
    return [scaled(0.1, 0.2), scaled(0.02, 0.1)]


def arguments(weights: list[str], out: Path, *more: str) -> list[str]:
    given = ["prior=scaled", f"weights={json.dumps(weights)}", *SETTINGS, *more]
    return ["analyse", "inversion-convergence", "--out", str(out), *(p for s in given for p in ("--set", s))]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_everything_is_written_and_the_same_again(weights, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(arguments(weights, out)) == 0
    printed = capsys.readouterr().out
    assert "✓ identity: the mean inversion error falls along the schedule" in printed
    stem = "inversion-convergence"
    assert sorted(contents(out)) == [f"{stem}.csv", f"{stem}.png", f"{stem}.svg", "stability.csv", "study.json"]
    with (out / f"{stem}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["noise"], row["L"], row["images"]) for row in rows] == [("0.1", "0.2", "7"), ("0.02", "0.1", "7")]
    assert float(rows[0]["PSNR [dB]"]) < float(rows[1]["PSNR [dB]"])
    record = json.loads((out / "study.json").read_bytes())
    assert record["weights"] == {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in weights}
    assert record["parameters"]["count"] == 7
    assert record["parameters"]["seed"] == 0  # defaults too
    assert record["images"]["labels"][:2] == ["camera", "astronaut"]
    assert {"preimage", "preimage-analysis", "torch", "matplotlib", "python"} <= set(record["versions"])
    assert record["statements"][0]["holds"] is True
    parameters = record["parameters"]
    again = InversionConvergence(**{k: tuple(v) if isinstance(v, list) else v for k, v in parameters.items()})
    assert again.schedule == ([0.1, 0.2], [0.02, 0.1])
    before = contents(out)
    assert run(arguments(weights, out)) == 0
    assert contents(out) == before


def test_what_was_not_found_is_marked_and_gives_exit_code_1(scaled, tmp_path, capsys):
    weights = [scaled(0.1, 0.05), scaled(0.02, 0.5)]
    assert run(arguments(weights, tmp_path / "out", "schedule=[[0.1, 0.05], [0.02, 0.5]]")) == 1
    assert "✗ identity: the mean inversion error does not fall" in capsys.readouterr().out


def test_an_interrupted_study_goes_on(weights, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(arguments(weights, whole)) == 0
    measured: list[str] = []
    measure = inversion_convergence.measure

    def interrupted(learned, *rest):
        if len(measured) == 1:
            raise KeyboardInterrupt
        measured.append(learned.name)
        return measure(learned, *rest)

    monkeypatch.setattr(inversion_convergence, "measure", interrupted)
    assert run(arguments(weights, broken)) == 2
    assert [path.name for path in broken.iterdir()] == ["unfinished"]

    def counted(learned, *rest):
        measured.append(learned.name)
        return measure(learned, *rest)

    monkeypatch.setattr(inversion_convergence, "measure", counted)
    assert run(arguments(weights, broken)) == 0
    assert measured == weights
    assert contents(broken) == contents(whole)


def test_a_part_that_is_not_whole_or_of_other_images_is_computed_again(weights, tmp_path, monkeypatch):
    out = tmp_path / "out"
    measure = inversion_convergence.measure

    def refuse_last(learned, *rest):
        if learned.name == weights[1]:
            raise KeyboardInterrupt
        return measure(learned, *rest)

    monkeypatch.setattr(inversion_convergence, "measure", refuse_last)
    assert run(arguments(weights, out)) == 2
    (kept,) = (out / "unfinished").iterdir()
    kept.write_bytes(kept.read_bytes()[:20])
    counts: list[int] = []

    def counted(learned, forward, images, tolerance):
        counts.append(len(images.labels))
        return measure(learned, forward, images, tolerance)

    monkeypatch.setattr(inversion_convergence, "measure", counted)
    assert run(arguments(weights, out)) == 0
    assert counts == [7, 7]
    monkeypatch.setattr(inversion_convergence, "measure", refuse_last)
    assert run(arguments(weights, out)) == 2
    monkeypatch.setattr(inversion_convergence, "measure", counted)
    assert run(arguments(weights, out, "count=6")) == 0
    assert counts == [7, 7, 6, 6]


def test_files_of_an_earlier_run_go_and_others_stay(weights, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("old.png", "mine.txt"):
        (out / name).write_text("kept?")
    (out / "study.json").write_text(json.dumps({"files": ["old.png", "../escaped.txt"]}))
    (tmp_path / "escaped.txt").write_text("kept")
    assert run(arguments(weights, out)) == 0
    assert "old.png" not in contents(out)
    assert (out / "mine.txt").exists()
    assert (tmp_path / "escaped.txt").exists()


def test_the_list_of_studies(capsys):
    assert run(["analyse"]) == 0
    listed = capsys.readouterr().out
    for name in (
        "inversion-convergence",
        "reconstruction-against-bound",
        "operator-approximation",
        "learned-operators",
    ):
        assert name in listed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["inversion-convergense"], "did you mean 'inversion-convergence'"),
        (["inversion-convergence", "--set", "shedule=1"], "did you mean 'schedule'"),
        (["inversion-convergence", "--set", "count=many"], "count is 'many'"),
        (["inversion-convergence", "--set", "count"], "--set 'count'"),
        (["inversion-convergence", "--set", "count.more=1"], "count is"),
        (["inversion-convergence", "--set", "prior=tikhonov"], "is not a learned operator"),
        (["inversion-convergence", "--set", "data={name='phothographs'}"], "did you mean 'photographs'"),
        (["--set", "count=1"], "there is no NAME"),
        (["--out", "somewhere"], "there is no NAME"),
    ],
)
def test_bad_input_is_one_message(given, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["analyse", *given]) == 2
    caught = capsys.readouterr()
    assert message in caught.err
    assert caught.err.count("error:") == 1
    assert caught.out == ""
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(weights, tmp_path, capsys):
    (tmp_path / "out").write_text("a file")
    assert run(arguments(weights, tmp_path / "out")) == 2
    assert "cannot be written" in capsys.readouterr().err
