"""Theorem 1 of Asim et al. against simulation, and the study that shows it."""

import json
import math

import numpy as np
import pytest
import torch
from preimage_analysis import LinearGenerator, Progress
from preimage_analysis.generator_bounds import Bounds, bounds, expected_error, least_norm

from preimage import Key
from preimage._cli import run
from preimage.errors import BadParameter

pytest.importorskip("preimage_glow", reason="preimage-glow, which has the linear generator, is not installed")
pytest.importorskip("preimage_compressive_sensing", reason="preimage-compressive-sensing is not installed")

N, DRAWS = 200, 60
INDEX = np.arange(1, N + 1)
SPECTRA = {"flat": np.ones(N), "1/i": 1 / INDEX, "i^-2": INDEX**-2.0, "step": np.where(INDEX <= 20, 1, 1e-3)}


def matrices(m, draws=DRAWS, seed=0):
    return Key(seed).child(m).normal((draws, m, N), torch.zeros((), dtype=torch.float64))


def generator(name):
    return torch.diag(torch.from_numpy(SPECTRA[name]).double())


@pytest.fixture(scope="module")
def errors():
    """For every spectrum and m the exact error of 60 draws."""
    drawn = {m: matrices(m) for m in (4, 20, 22, 50, 100)}
    return {(name, m): expected_error(a, generator(name)).numpy() for name in SPECTRA for m, a in drawn.items()}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("m", [4, 20, 50, 100])
def test_the_mean_lies_between_the_bounds(errors, name, m):
    found, s = errors[name, m], SPECTRA[name]
    lower = (s[m:] ** 2).sum()
    upper = min((1 + k / (m - k - 1)) * (s[k:] ** 2).sum() for k in range(2, m - 1))
    simple = m * (s[m - 2 :] ** 2).sum()
    three = 3 * found.std(ddof=1) / math.sqrt(DRAWS)
    assert lower <= found.mean() + three
    assert found.mean() - three <= upper <= simple
    assert (found >= lower * (1 - 1e-10)).all()  # each draw by itself
    own = bounds(torch.from_numpy(s).double(), m)
    assert (own.lower, own.best, own.simple) == pytest.approx((lower, upper, simple), rel=1e-12)


@pytest.mark.parametrize("m", [4, 20, 50, 100])
def test_a_flat_spectrum_loses_exactly_what_is_not_measured(errors, m):
    assert errors["flat", m] == pytest.approx(N - m, abs=1e-10 * N)


def test_a_step_tells_bounds_that_are_off_by_two(errors):
    """At m = 20 the tail from 20 on is no bound, and that from 18 on is needed; at m = 22 that from 20 on suffices."""
    s = SPECTRA["step"]
    near, far = errors["step", 20].mean(), errors["step", 22].mean()
    assert near > 20 * (s[20:] ** 2).sum()
    assert near <= 20 * (s[18:] ** 2).sum()
    own = bounds(torch.from_numpy(s).double(), 22)
    assert own.best_k == 20
    assert own.best == pytest.approx(21 * (s[20:] ** 2).sum())
    assert own.simple == pytest.approx(22 * (s[20:] ** 2).sum())
    assert far < own.best * 1.5
    assert bounds(torch.from_numpy(s).double(), 20).best > 1


@pytest.mark.parametrize("name", SPECTRA)
def test_the_estimate_does_not_depend_on_the_scale_of_the_matrix(name):
    a, s = matrices(30, 1)[0], generator(name)
    x = Key(1).normal((5, N), a) @ s
    reference = least_norm(a, s, x)
    for scale in (1e-6, 1e6):
        assert torch.allclose(least_norm(scale * a, s, x), reference, rtol=1e-8, atol=1e-10)
        assert torch.allclose(expected_error(scale * a, s), expected_error(a, s), rtol=1e-8)


@pytest.mark.parametrize("name", SPECTRA)
def test_random_images_have_the_error_of_the_closed_form(name):
    """The mean over x0 of the estimate of numpy's pseudo-inverse, A held fixed."""
    a, s = matrices(40, 1)[0], SPECTRA[name]
    x = np.random.default_rng(0).standard_normal((4000, N)) * s
    found = x @ a.numpy().T @ np.linalg.pinv(a.numpy() * s).T * s
    squares = ((found - x) ** 2).sum(1)
    exact = float(expected_error(a, generator(name)))
    assert abs(squares.mean() - exact) <= 3.5 * squares.std(ddof=1) / math.sqrt(len(x))
    own = least_norm(a, generator(name), torch.from_numpy(x[:3])).numpy()
    assert own == pytest.approx(found[:3], abs=1e-9)


def test_bounds_of_too_few_or_too_many_measurements():
    for m in (3, N):
        with pytest.raises(ValueError, match="4 <= m < n"):
            bounds(torch.ones(N), m)


SMALL = {"spectra": ("flat", {"spectrum": "step", "rank": 5}), "measurements": (4, 7, 12), "size": 20, "draws": 12}


def test_the_study_finds_what_the_theorem_says():
    findings = LinearGenerator(**SMALL).run(Progress())
    table = findings.tables["linear-generator"]
    rows = [dict(zip([column.name for column in table.columns], row, strict=True)) for row in table.rows]
    assert [(row["spectrum"], row["m"]) for row in rows] == [
        (name, m) for name in ("flat", "step, rank 5") for m in (4, 7, 12)
    ]
    for row in rows[:3]:
        assert row["error / lower"] == pytest.approx(1, abs=1e-10)
        assert row["error"] == pytest.approx(10 * math.log10(1 - row["m"] / 20))
    s = np.r_[np.ones(5), np.full(15, 1e-3)]
    for row in rows[3:]:
        lower = (s[row["m"] :] ** 2).sum() / (s**2).sum()
        assert row["lower bound"] == pytest.approx(10 * math.log10(lower))
        assert row["m-bound / error"] >= row["bound / error"] >= 0.5
    assert len(findings.statements) == 6
    assert all(statement.holds for statement in findings.statements)
    assert len(findings.figures["linear-generator"].axes) == 2


def test_a_bound_that_fails_is_said_to(monkeypatch):
    """Bounds of a theorem that were wrong by a factor: every statement that they enter tells."""
    from preimage_analysis import linear_generator

    monkeypatch.setattr(linear_generator, "bounds", lambda s, m: Bounds(2 * (20 - m), 3 * (20 - m), 2, 4 * (20 - m)))
    study = LinearGenerator(**(SMALL | {"spectra": ("flat",)}))
    between, each, agree = study.run(Progress()).statements
    assert (between.holds, each.holds, agree.holds) == (False, False, True)
    assert "does NOT always lie" in between.text
    monkeypatch.setattr(linear_generator, "bounds", lambda s, m: Bounds(0.1 * (20 - m), 0.9 * (20 - m), 2, 20 - m))
    between, each, agree = study.run(Progress()).statements
    assert (between.holds, each.holds, agree.holds) == (False, True, True)


def test_images_that_do_not_agree_with_the_closed_form_are_found(monkeypatch):
    from preimage_analysis import linear_generator

    monkeypatch.setattr(linear_generator, "least_norm", lambda a, s, x: 0.3 * least_norm(a, s, x))
    agree = LinearGenerator(**(SMALL | {"spectra": ("flat",)})).run(Progress()).statements[-1]
    assert agree.holds is False
    assert "do NOT agree" in agree.text


def test_the_command(tmp_path, capsys):
    given = ["size=20", "measurements=[4, 9]", "draws=10", 'spectra=["inverse"]', "images=5"]
    out = tmp_path / "out"
    assert run(["analyse", "linear-generator", "--out", str(out), *(p for s in given for p in ("--set", s))]) == 0
    printed = capsys.readouterr().out
    assert "✓ inverse: the lower bound holds for each of 20 draws of A" in printed
    stem = "linear-generator"
    assert sorted(path.name for path in out.iterdir()) == [f"{stem}.csv", f"{stem}.png", f"{stem}.svg", "study.json"]
    record = json.loads((out / "study.json").read_bytes())
    assert record["parameters"]["size"] == 20
    assert {"preimage-glow", "preimage-compressive-sensing"} <= set(record["versions"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 7}, "size is 7"),
        ({"measurements": ()}, "measurements is"),
        ({"measurements": (3,)}, "measurements is"),
        ({"measurements": (197,)}, "measurements is"),
        ({"measurements": (5, 5)}, "measurements is"),
        ({"draws": 9}, "draws is 9"),
        ({"images": 0}, "images is 0"),
        ({"spectra": ()}, "spectra has nothing"),
        ({"spectra": ("flat", {"spectrum": "flat"})}, "spectra has flat, flat"),
    ],
)
def test_parameters_out_of_range(given, message):
    with pytest.raises(BadParameter, match=message):
        LinearGenerator(**given)


def test_generators_that_cannot_be():
    with pytest.raises(BadParameter, match="spectrum is 'cliff'"):
        LinearGenerator(spectra=("cliff",)).run(Progress())
    falling = {"spectrum": [10.0 ** (-2 * i) for i in range(20)]}
    with pytest.raises(BadParameter, match=r"the 9th singular value .* is 1.0e-16 s_1"):
        LinearGenerator(spectra=(falling,), size=20, measurements=(4, 9)).run(Progress())
