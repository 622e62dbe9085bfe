"""The studies on invertible residual networks: random certified ones, and those that ship."""

import pytest
import torch
from preimage_analysis import InversionConvergence, LearnedOperators, Progress
from preimage_data import Photographs, psnr

from preimage import ForwardModel
from preimage._plugins import discover, resource
from preimage.weights import load_weights, save_weights

network = pytest.importorskip("preimage_iresnet.network", reason="preimage-iresnet is not installed")
terms = pytest.importorskip("preimage_iresnet.terms")

DATA = {"name": "photographs", "size": 32}


def certified(path, sigma: float, lipschitz: float):
    """Weights of a small random network, certified and written as training does; the network in float64."""
    config = {"lipschitz": lipschitz, "blocks": 3, "channels": 4, "hidden": 6}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        phi = network.InvertibleResNet(**config).eval().requires_grad_(False)
    certificate = phi.certify(torch.stack([Photographs(size=32)[index] for index in range(2)]))
    noise = {"name": "gaussian", "sigma": sigma}
    facts = {
        "forward_model": {"operator": [{"name": "identity"}], "noise": noise, "seed": 0},
        "certificate": certificate,
    }
    save_weights(path, phi.state_dict(), component="prior/iresnet", config=config, facts=facts)
    return phi.double()


def test_numbers_are_those_of_the_network(tmp_path):
    schedule = ((0.1, 0.9), (0.05, 0.99))
    paths = [tmp_path / f"{bound}.safetensors" for _, bound in schedule]
    networks = [certified(path, *place) for path, place in zip(paths, schedule, strict=True)]
    shared = {"weights": tuple(map(str, paths)), "operators": ("identity",), "data": DATA, "count": 3}
    findings = InversionConvergence(**shared, schedule=schedule, tolerance=1e-6).run(Progress())
    data = Photographs(size=32, count=3)
    x, labels = torch.stack([data[index] for index in range(3)]), [data.label(index) for index in range(3)]
    for row, (sigma, _), phi in zip(findings.tables["inversion-convergence"].rows, schedule, networks, strict=True):
        tables = {"operator": {"name": "identity"}, "noise": {"name": "gaussian", "sigma": sigma}}
        y = ForwardModel.from_tables(tables, (1, 32, 32)).simulate(x, labels)
        restored = phi.project(phi.invert(phi.residuals(), phi.lift(y.double()), terms.Terms(80, 0)))
        error = (restored - x).square().flatten(1).mean(1).sqrt().mean()
        assert row[4] == pytest.approx(float(error), rel=1e-4)
        assert row[9] == pytest.approx(float(psnr(restored, x).mean()), abs=1e-3)
    assert findings.statements[-1].holds  # the bound of a certified network
    pictured = LearnedOperators(**shared, noise=(0.05,), bounds=(0.99,)).run(Progress())
    (row,) = pictured.tables["learned-operators"].rows
    error = (networks[1](x.double()) - x).square().flatten(1).mean(1).sqrt().mean()
    assert row[8] == pytest.approx(float(error), rel=1e-4)


def trained_for(operator: str) -> set[tuple[float, float]]:
    """Noise and L of the shipped weights for an operator."""
    found: set[tuple[float, float]] = set()
    for file in discover().weights:
        if file.component == "prior/iresnet" and resource(file.target).exists():
            weights = load_weights(file.name, file.component)
            forward = weights.facts["forward_model"]
            if forward["operator"][0]["name"] == operator:
                found.add((forward["noise"]["sigma"], weights.config["lipschitz"]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["perona-malik", "gaussian-blur"])
def test_the_inversion_error_of_the_networks_that_ship_falls(operator):
    study = InversionConvergence(operators=(operator,), data={"name": "photographs", "size": 64}, count=6)
    if missing := set(study.schedule) - trained_for(operator):
        pytest.skip(f"no weights ship for {operator} at {sorted(missing)}")
    findings = study.run(Progress())
    assert [statement.holds for statement in findings.statements] == [True, None, None, True]
