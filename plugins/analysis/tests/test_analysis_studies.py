"""The studies of learned operators, against closed forms of a scaling."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from preimage_analysis import (
    InversionConvergence,
    LearnedOperators,
    OperatorApproximation,
    Progress,
    ReconstructionAgainstBound,
    learned,
)
from preimage_data import Photographs

from preimage import Key
from preimage._plugins import discover
from preimage.errors import BadParameter, Incompatible
from preimage.weights import WeightsFile, load_weights, save_weights

DATA = {"name": "photographs", "size": 24}
COUNT = 10  # more than one batch
SHARED = {"prior": "scaled", "operators": ("identity",), "data": DATA, "count": COUNT}


def images():
    data = Photographs(size=24, count=COUNT)
    x = np.stack([data[index].double().numpy() for index in range(COUNT)])
    noise = [Key(0).child("noise", data.label(i)).normal((1, 24, 24)).double().numpy() for i in range(COUNT)]
    return x, np.stack(noise)


def rms(values):
    return np.sqrt((values**2).mean(axis=(1, 2, 3)))


def rows_of(table):
    return [dict(zip([column.name for column in table.columns], row, strict=True)) for row in table.rows]


def test_inversion_errors_are_those_of_the_closed_form(scaled):
    schedule = ((0.1, 0.2), (0.02, 0.1))
    weights = tuple(scaled(sigma, bound) for sigma, bound in schedule)
    findings = InversionConvergence(**SHARED, weights=weights, schedule=schedule).run(Progress())
    x, noise = images()
    errors, stability = (rows_of(table) for table in findings.tables.values())
    rows = [{"on the copies": b.pop("inversion error"), **b, **a} for a, b in zip(errors, stability, strict=True)]
    for row, (sigma, bound) in zip(rows, schedule, strict=True):
        y, scale = x + sigma * noise, 1 - bound
        expected = {
            "noise": sigma,
            "L": bound,
            "images": COUNT,
            "inversion error": rms(y / scale - x).mean(),
            "without noise": rms(x / scale - x).mean(),
            "on the copies": rms(y / scale - x).mean(),
            "effect of noise": rms(sigma * noise / scale).mean(),
            "its bound": rms(sigma * noise / scale).mean(),
            "of the data": rms(y - x).mean(),
            "largest ratio": 1,
            "PSNR": (-10 * np.log10(rms(np.clip(y / scale, 0, 1) - x) ** 2)).mean(),
            "PSNR of data": (-10 * np.log10(rms(np.clip(y, 0, 1) - x) ** 2)).mean(),
            "evaluations": 3,
        }
        assert {key: row[key] for key in expected} == pytest.approx(expected, rel=1e-5)
        assert row["low 95 %"] < row["inversion error"] < row["high 95 %"]
    falls, change, below = findings.statements
    assert falls.holds
    assert "falls on 10 of 10 images" in change.text
    assert below.holds
    assert len(findings.figures["inversion-convergence"].axes) == 1


def test_an_error_that_rises_is_said_to(scaled):
    schedule = ((0.1, 0.05), (0.02, 0.5))
    weights = tuple(scaled(sigma, bound) for sigma, bound in schedule)
    findings = InversionConvergence(**SHARED, weights=weights, schedule=schedule).run(Progress())
    assert findings.statements[0].holds is False
    assert "does not fall" in findings.statements[0].text


def test_an_inverse_that_breaks_its_bound_is_found(scaled):
    schedule = ((0.1, 0.2), (0.02, 0.1))
    weights = tuple(scaled(sigma, bound, scale=0.5) for sigma, bound in schedule)
    findings = InversionConvergence(**SHARED, weights=weights, schedule=schedule).run(Progress())
    assert findings.statements[-1].holds is False
    assert "NOT always" in findings.statements[-1].text


def test_differences_of_psnr_are_paired(scaled):
    bounds, noise = (0.3, 0.1), (0.02, 0.1)
    weights = tuple(scaled(sigma, bound, scale=1 - bound / 2) for sigma in noise for bound in bounds)
    study = ReconstructionAgainstBound(**SHARED, weights=weights, noise=noise, bounds=bounds)
    findings = study.run(Progress())
    x, normal = images()
    rows = {(row["noise"], row["L"]): row for row in rows_of(findings.tables["reconstruction-against-bound"])}
    for sigma in noise:
        y = x + sigma * normal
        own = {b: -10 * np.log10(rms(np.clip(y / (1 - b / 2), 0, 1) - x) ** 2) for b in bounds}
        data = -10 * np.log10(rms(np.clip(y, 0, 1) - x) ** 2)
        row = rows[sigma, 0.1]
        assert row["PSNR"] == pytest.approx(own[0.1].mean(), rel=1e-5)
        assert row["gain over data"] == pytest.approx((own[0.1] - data).mean(), abs=1e-4)
        assert row["against L = 0.3"] == pytest.approx((own[0.1] - own[0.3]).mean(), abs=1e-4)
        assert row["SD over images"] == pytest.approx(own[0.1].std(ddof=1), rel=1e-4)
        assert row["low 95 %"] < row["against L = 0.3"] < row["high 95 %"]
        assert rows[sigma, 0.3]["against L = 0.3"] is None
    assert [s.holds for s in findings.statements] == [False, False]  # the smaller scale is the worse inverse
    assert list(findings.figures) == ["reconstruction-against-bound-identity"]


def test_distances_to_the_operator(scaled):
    noise, bounds = (0.02, 0.1), (0.3,)
    scales = {0.02: 0.9, 0.1: 0.8}
    weights = tuple(scaled(sigma, 0.3, scale=scales[sigma], offset=sigma) for sigma in noise)
    findings = OperatorApproximation(**SHARED, weights=weights, noise=noise, bounds=bounds).run(Progress())
    x, _ = images()
    for row in rows_of(findings.tables["operator-approximation"]):
        sigma = row["noise"]
        assert row["operator error"] == pytest.approx((1 - scales[sigma]) * rms(x).mean(), rel=1e-5)
        assert row["identity error"] == 0
        assert row["ratio"] is None
        assert row["channel spread"] == pytest.approx(sigma, rel=1e-5)
    falls, closer = findings.statements
    assert falls.holds
    assert closer.holds is False  # nothing is closer to the identity than the identity


def test_an_operator_that_is_not_the_identity(scaled):
    weights = (scaled(0.05, 0.3, "gaussian-blur", scale=0.7),)
    given = SHARED | {"operators": ("gaussian-blur",)}
    findings = OperatorApproximation(**given, weights=weights, noise=(0.05,), bounds=(0.3,)).run(Progress())
    from preimage_gaussian_blur import GaussianBlur

    x = torch.from_numpy(images()[0])
    clean = GaussianBlur(in_shape=(1, 24, 24)).double()(x).numpy()
    (row,) = rows_of(findings.tables["operator-approximation"])
    assert row["identity error"] == pytest.approx(rms(x.numpy() - clean).mean(), rel=1e-4)
    assert row["operator error"] == pytest.approx(rms(0.7 * x.numpy() - clean).mean(), rel=1e-4)
    assert row["ratio"] == pytest.approx(row["operator error"] / row["identity error"])


def test_pictures_of_the_images_that_were_named(scaled):
    weights = (scaled(0.05, 0.3),)
    given = {**SHARED, "weights": weights, "noise": (0.05,), "bounds": (0.3,), "count": 4}
    findings = LearnedOperators(**given, show=("coffee", "camera")).run(Progress())
    assert list(findings.figures) == ["identity-0.05-L0.3-operator", "identity-0.05-L0.3-reconstruction"]
    operator, reconstruction = findings.figures.values()
    assert len(operator.axes) == 2 * 6 + 1  # with the colour bar
    assert len(reconstruction.axes) == 2 * 5 + 1
    assert [ax.get_ylabel() for ax in operator.axes if ax.get_ylabel()] == ["coffee", "camera"]
    restored = np.asarray(reconstruction.axes[2].images[0].get_array())
    data = Photographs(size=24)
    y = data[3] + 0.05 * Key(0).child("noise", "coffee").normal((1, 24, 24))
    assert restored == pytest.approx((y[0] / 0.7).clamp(0, 1).numpy(), abs=1e-5)
    with pytest.raises(BadParameter, match="show has moon") as caught:
        LearnedOperators(**given, show=("moon",)).run(Progress())
    assert "camera, astronaut, chelsea, coffee" in caught.value.expected


def test_no_weights_for_a_place_are_named_together(scaled):
    weights = (scaled(0.05, 0.95), scaled(0.025, 0.99))
    with pytest.raises(BadParameter) as caught:
        ReconstructionAgainstBound(**SHARED, weights=weights, noise=(0.025, 0.05), bounds=(0.95, 0.99)).run(Progress())
    message = str(caught.value)
    assert "no weights for identity, noise 0.025, L = 0.95; identity, noise 0.05, L = 0.99" in message
    assert "identity, noise gaussian (sigma 0.025), L = 0.99" in message


def test_weights_that_cannot_be_told_apart_or_do_not_say(scaled, tmp_path):
    own = scaled(0.05, 0.95)
    study = {**SHARED, "noise": (0.05,), "bounds": (0.95,)}
    other = tmp_path / "copy.safetensors"
    other.write_bytes(Path(own).read_bytes())
    with pytest.raises(BadParameter, match="are both for identity"):
        OperatorApproximation(**study, weights=(own, str(other))).run(Progress())
    tensors = {"scale": torch.ones(()), "offset": torch.zeros(())}
    save_weights(other, tensors, component="prior/scaled", config={"lipschitz": 0.5}, facts={})
    with pytest.raises(BadParameter, match="does not say which operator"):
        OperatorApproximation(**study, weights=(str(other),)).run(Progress())


def test_of_several_that_ship_the_first_is_taken(scaled, monkeypatch):
    second = Path(scaled(0.05, 0.5, scale=0.6))
    second = second.rename(second.with_name("second.safetensors"))
    paths = {"first": Path(scaled(0.05, 0.5, scale=0.7)), "second": second}
    files = tuple(WeightsFile("prior/scaled", name, f"nowhere:{name}", "for tests") for name in paths)
    monkeypatch.setattr(learned, "discover", lambda: replace(discover(), weights=files))
    monkeypatch.setattr(learned, "load_weights", lambda name, component: load_weights(str(paths[name]), component))
    findings = OperatorApproximation(**SHARED, noise=(0.05,), bounds=(0.5,)).run(Progress())
    assert list(findings.facts["weights"]) == ["first"]


def test_a_prior_that_is_no_learned_operator():
    with pytest.raises(Incompatible, match="prior 'tikhonov' is not a learned operator"):
        OperatorApproximation(prior="tikhonov").run(Progress())


def test_an_operator_to_other_shapes(scaled):
    weights = (scaled(0.05, 0.3, "compressive-sensing"),)
    given = SHARED | {"operators": ({"name": "compressive-sensing", "measurements": 50},), "weights": weights}
    with pytest.raises(Incompatible, match="makes measurements of shape"):
        OperatorApproximation(**given, noise=(0.05,), bounds=(0.3,)).run(Progress())


@pytest.mark.parametrize(
    ("study", "parameters", "message"),
    [
        (InversionConvergence, {"schedule": ((0.01, 0.9), (0.05, 0.99))}, "schedule has the noise levels"),
        (InversionConvergence, {"schedule": ((0.01, 0.9),)}, "schedule has the noise levels"),
        (InversionConvergence, {"schedule": ((0.05, 0.9), (0.01, 1.0))}, "schedule has the bounds"),
        (ReconstructionAgainstBound, {"noise": (0.05, -0.1)}, "noise is"),
        (ReconstructionAgainstBound, {"bounds": (0.9, 0.9)}, "bounds is"),
        (OperatorApproximation, {"operators": ("identity", {"name": "identity"})}, "operators has identity, identity"),
        (OperatorApproximation, {"operators": ()}, "operators is empty"),
        (OperatorApproximation, {"operators": ({"sigma": 1.0},)}, "operators has"),
        (OperatorApproximation, {"data": {"size": 3}}, "data is"),
        (LearnedOperators, {"count": 0}, "count is 0"),
        (LearnedOperators, {"tolerance": 0.0}, "tolerance is 0.0"),
        (LearnedOperators, {"device": "abacus"}, "device is 'abacus'"),
    ],
)
def test_parameters_out_of_range(study, parameters, message):
    with pytest.raises(BadParameter, match=message):
        study(**parameters)
