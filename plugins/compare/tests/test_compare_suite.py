"""Suites: includes, overrides, and everything that is wrong at once."""

import re

import pytest
from preimage_compare import load_suite, shipped_suites
from preimage_compare._suite_file import SHIPPED
from preimage_compare.cells import plan

from preimage.errors import BadFile, PreimageError, SeveralProblems

ADJOINT = '[[method]]\nlabel = "adjoint"\nsolver = { name = "adjoint" }\n'


def complaint(path) -> str:
    with pytest.raises(PreimageError) as caught:
        load_suite(path)
    return str(caught.value)


def test_everything_wrong_is_reported_at_once_with_file_and_key(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text("""
titel = "misspelt"
seeds = [0, 0]
threads = 0
reference = "tvv"
[limits]
seconds = -1
minutes = 3
[[data]]
label = "photographs"
name = "photograph"
[[operator]]
label = "blur"
name = "gaussian-blur"
sigm = 2.0
[[operator]]
label = "blur"
name = "identity"
[[noise]]
label = "low"
name = "gaussian"
sigma = "small"
[[method]]
label = "tv"
prior = { name = "tv" }
solver = { name = "admm" }
[[method.override]]
operator = "blurr"
set = { "noise.sigma" = 0.1 }
[[method.override]]
set = { "solver.penaltyy" = 0.1 }
[[method]]
label = "warm"
start = { prior = { name = "tikhonof" }, solver = { name = "fista", step = 1 }, noise = {} }
solver = { name = "fista" }
[[method]]
label = "cold"
start = "warm"
solver = { name = "fista" }
[[method]]
label = "empty"
[[method]]
solver = { name = "adjoint" }
""")
    text = complaint(path)
    for part in (
        "'titel'", "did you mean 'title'", "seeds is [0, 0]", "threads is 0", "'tvv'", "did you mean 'tv'",
        "seconds is -1", "'minutes'", "'photograph'", "'sigm'", "did you mean 'sigma'",
        "[[operator]] 'blur' stands twice",
        "'small' of type str", "there is no operator 'blurr'", "sets noise.sigma",
        "'penaltyy'", "did you mean 'penalty'",
        "[[method]] 'warm': start: no prior is named 'tikhonof'", "'step'", "start has no 'noise'", "start is 'warm'",
        "[[method]] 'empty' has neither solver nor preset", "[[method]] number 5 has no label",
    ):  # fmt: skip
        assert part in text, part
    assert str(path) in text


@pytest.mark.parametrize("missing", ["data", "operator", "noise", "method"])
def test_an_axis_without_entries(write_suite, missing):
    path = write_suite(ADJOINT)
    kept = [part for part in path.read_text().split("\n[[") if not part.startswith(f"{missing}]]")]
    path.write_text("\n[[".join(kept))
    assert f"there is no [[{missing}]]" in complaint(path)


def test_an_included_file_comes_first_and_entries_of_one_label_are_merged(tmp_path, write_suite):
    base = write_suite(ADJOINT + '[[method]]\nlabel = "tv"\nprior = { name = "tv", weight = 0.1 }\n'
                       'solver = { name = "admm" }\n', name="base.toml")  # fmt: skip
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "suite.toml"
    path.write_text(
        'include = ["../base.toml"]\ntitle = "Above"\n[[method]]\nlabel = "tv"\nprior = { weight = 0.2 }\n'
        '[[method]]\nlabel = "new"\nsolver = { name = "adjoint", scaled = true }\n'
        '[[noise]]\nlabel = "0.05"\nname = "poisson"\npeak = 30.0\n'
    )
    suite, below = load_suite(path), load_suite(base)
    assert suite.title == "Above"
    assert [method.label for method in suite.methods] == ["adjoint", "tv", "new"]
    assert suite.method("tv").tables == {"prior": {"name": "tv", "weight": 0.2}, "solver": {"name": "admm"}}
    assert suite.noises[0].table == {"name": "poisson", "peak": 30.0}  # another component: nothing is kept of the old
    assert suite.data[0].table == below.data[0].table


def test_includes_that_go_in_circles_or_nowhere(tmp_path):
    (tmp_path / "a.toml").write_text('include = "b.toml"\n')
    (tmp_path / "b.toml").write_text('include = ["a.toml", "gone.toml"]\n')
    text = complaint(tmp_path / "a.toml")
    assert "includes itself: a.toml -> b.toml -> a.toml" in text
    assert "gone.toml" in text
    assert "b.toml: include: there is no file" in text


def test_overrides_apply_where_their_labels_match(write_suite):
    overrides = (
        '[[method]]\nlabel = "tv"\nprior = { name = "tv", weight = 1.0 }\nsolver = { name = "admm" }\n'
        '[[method.override]]\nset = { "prior.weight" = 2.0 }\n'
        '[[method.override]]\nnoise = ["high"]\nset = { "prior.weight" = 3.0, "solver.max_steps" = 7 }\n'
    )
    noise = '[[noise]]\nlabel = "high"\nname = "gaussian"\nsigma = 0.2\n'
    suite = load_suite(write_suite(noise + overrides, count=1))
    found = {cell.noise: suite.tables(cell) for cell in suite.cells()}
    assert found["0.05"]["prior"]["weight"] == 2.0
    assert found["0.05"]["solver"] == {"name": "admm"}
    assert found["high"]["prior"]["weight"] == 3.0
    assert found["high"]["solver"] == {"name": "admm", "max_steps": 7}
    assert suite.method("tv").tables["prior"]["weight"] == 1.0


def test_a_composition_applies_its_parts_in_order(write_suite):
    path = write_suite(ADJOINT)
    parts = 'parts = [{ name = "gaussian-blur", size = 3 }, { name = "inpainting", mask = "random", keep = 0.5 }]'
    path.write_text(path.read_text().replace('name = "identity"\n', parts + "\n"))
    suite = load_suite(path)
    assert [table["name"] for table in suite.tables(suite.cells()[0])["operator"]] == ["gaussian-blur", "inpainting"]
    assert not plan(suite).refused


def test_a_name_that_is_no_file_is_a_suite_that_ships(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_suite("smoke").path == shipped_suites()["smoke"]
    with pytest.raises(BadFile, match="did you mean 'smoke'"):
        load_suite("smokey")
    with pytest.raises(BadFile, match=r"there is no file nothere\.toml"):
        load_suite("nothere.toml")


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("[!_]*.toml")), ids=lambda path: path.stem)
def test_shipped_suites_can_be_read_and_say_what_they_are(path):
    suite = load_suite(path)
    assert suite.title
    assert suite.description


@pytest.mark.parametrize("name", ["smoke", "cross", "denoise", "deblur", "diffusion", "compressive-sensing", "inpaint"])
def test_what_shipped_suites_skip_are_misfits_alone(name):
    whole = plan(load_suite(name))
    fits = {(c.operator, c.method) for c in whole.suite.combinations() if c not in whole.refused}
    assert {operator for operator, _ in fits} == {part.label for part in whole.suite.operators}
    for combination, refusal in whole.refused.items():
        assert refusal.outcome == "skipped", refusal.reason
        assert name in ("cross", "smoke") or combination.operator == "diffusion", refusal.reason
        reasons = ", which solver |without negative entries|has nothing to do|has no weights for"
        assert re.search(reasons, refusal.reason), refusal.reason


def test_several_problems_of_data_are_reported_together(write_suite, tmp_path):
    text = write_suite(ADJOINT).read_text()
    text += '[[data]]\nlabel = "a"\nname = "folder"\npath = "/nowhere/a"\n'
    text += '[[data]]\nlabel = "b"\nname = "folder"\npath = "/nowhere/b"\n'
    path = tmp_path / "data.toml"
    path.write_text(text)
    with pytest.raises(SeveralProblems, match="the data of suite") as caught:
        load_suite(path).cells()
    assert len(caught.value.problems) == 2
