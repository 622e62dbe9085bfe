"""deepinv's noise models: complete, drawn from keys, with the right moments, likelihoods and refusals."""

import inspect
import math

import deepinv
import numpy as np
import pytest
import torch
from preimage_deepinv import noises
from preimage_deepinv.catalogue import NOISES, NOISES_NOT_OFFERED
from scipy import stats

from preimage import GaussianNoise, Key, LeastSquares, Noise, Pipeline, load
from preimage._parameters import construct, parameters
from preimage.errors import BadData, BadParameter, Incompatible
from preimage.testing import check_component

DOUBLE = torch.zeros((), dtype=torch.float64)


def test_every_noise_model_is_offered_or_excluded_with_a_reason():
    def below(cls):
        return {s.__name__ for s in cls.__subclasses__()} | {n for s in cls.__subclasses__() for n in below(s)}

    everything = {"NoiseModel"} | {
        n for n in below(deepinv.physics.NoiseModel) if getattr(deepinv.physics, n, None) is not None
    }
    assert {entry.deepinv for entry in NOISES} | set(NOISES_NOT_OFFERED) == everything


@pytest.mark.parametrize("entry", NOISES, ids=lambda e: e.name)
def test_laws_and_parameters(entry):
    assert check_component("noise", f"deepinv/{entry.name}") == len(entry.examples)
    cls = load("noise", f"deepinv/{entry.name}")
    theirs = inspect.signature(getattr(deepinv.physics, entry.deepinv).__init__).parameters
    ours = {p.name: p for p in parameters(cls)}
    for name, argument in list(theirs.items())[1:]:
        if argument.kind not in (argument.VAR_KEYWORD, argument.VAR_POSITIONAL) and name not in cls.instead:
            assert ours[name].default == argument.default, name
    assert set(cls.instead) <= set(theirs)


@pytest.mark.parametrize("entry", NOISES, ids=lambda e: e.name)
def test_the_key_alone_decides(entry):
    noise = construct("noise", f"deepinv/{entry.name}", entry.examples[0], "noise")
    clean = Key(1).uniform((1, 8, 8)) + 0.1
    draws = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        draws.append(noise.draw(clean, Key(3)))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*draws)
    if entry.name != "zero":
        assert not torch.equal(noise.draw(clean, Key(4)), draws[0])


@pytest.mark.parametrize(
    ("noise", "mean", "variance"),
    [
        (noises.Gaussian(sigma=0.2), 0.7, 0.04),
        (noises.Poisson(gain=0.1), 0.7, 0.07),
        (noises.PoissonGaussian(gain=0.1, sigma=0.2), 0.7, 0.11),
        (noises.Uniform(a=0.3), 0.7, 0.03),
        (noises.Laplace(b=0.2), 0.7, 0.08),
        (noises.Gamma(l=4.0), 0.7, 0.49 / 4),
        (noises.SaltPepper(p=0.1, s=0.2), 0.7 * 0.7 + 0.2, 0.7 * 0.49 + 0.2 - (0.7 * 0.7 + 0.2) ** 2),
        (noises.Rician(sigma=0.2), stats.rice.mean(3.5, scale=0.2), stats.rice.var(3.5, scale=0.2)),
        (
            noises.FisherTippett(l=4.0),
            0.7 + float(torch.digamma(torch.tensor(4.0))) - math.log(4),
            math.pi**2 / 6 - 49 / 36,
        ),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, Noise) else "",
)
def test_moments(noise, mean, variance):
    count = 200_000
    y = noise.draw(torch.full((count,), 0.7, dtype=torch.float64), Key(0))
    assert float(y.mean()) == pytest.approx(mean, abs=5 * math.sqrt(variance / count))
    assert float(y.var()) == pytest.approx(variance, rel=0.03)


def ratios(noise, log_density, scale):
    """misfit(p, y) + scale log p(y | p) must not depend on p."""
    y = torch.as_tensor([[0.3, 0.8, 1.3]], dtype=torch.float64)
    predictions = [torch.full((1, 3), p, dtype=torch.float64) for p in (0.4, 0.9, 1.6)]
    constants = [
        float(noise.misfit(p, y)) + scale * float(log_density(p.numpy(), y.numpy()).sum()) for p in predictions
    ]
    assert np.ptp(constants) < 1e-9, constants


def test_misfits_are_likelihoods():
    ratios(noises.Gaussian(sigma=0.2), lambda p, y: stats.norm.logpdf(y, p, 0.2), 0.04)
    ratios(noises.Laplace(b=0.2), lambda p, y: stats.laplace.logpdf(y, p, 0.2), 0.2)
    ratios(noises.Gamma(l=4.0), lambda p, y: stats.gamma.logpdf(y, 4.0, scale=p / 4), 0.25)
    ratios(noises.Rician(sigma=0.2), lambda p, y: stats.rice.logpdf(y, p / 0.2, scale=0.2), 0.04)
    ratios(noises.FisherTippett(l=4.0), lambda p, y: 4 * (y - p) - 4 * np.exp(y - p), 0.25)
    ratios(noises.Poisson(gain=0.1), lambda p, y: stats.poisson.logpmf(np.round(10 * y), 10 * p), 0.1)
    counts = lambda p, y: np.exp(-y) * 1e4 * np.log(1e4 * np.exp(-p)) - 1e4 * np.exp(-p)  # noqa: E731
    ratios(noises.LogPoisson(N0=1e4, mu=1.0), counts, 1e-4)


@pytest.mark.parametrize("entry", NOISES, ids=lambda e: e.name)
def test_the_expected_misfit_is_expected(entry):
    # Poisson and log-Poisson only where counts are high, as their documentation says.
    high = {"poisson": {"gain": 1e-3}, "poisson-gaussian": {"gain": 1e-3, "sigma": 0.01}, "log-poisson": {"N0": 1e4}}
    noise = construct("noise", f"deepinv/{entry.name}", high.get(entry.name, {}), "noise")
    clean = (Key(1).uniform((1, 1, 200, 200), like=DOUBLE) + 0.5).double()
    y = noise.sample(clean, Key(2))
    expected = noise.expected_misfit(y)
    if expected is not None:
        assert float(noise.misfit(clean, y)) == pytest.approx(float(expected), rel=0.03, abs=1e-12)


def test_no_photons_is_a_number():
    y = noises.LogPoisson(N0=2.0, mu=1.0).draw(torch.full((1000,), 3.0), Key(0))
    assert torch.isfinite(y).all()
    assert float(y.max()) == pytest.approx(math.log(20), rel=1e-5)


def test_bad_input():
    with pytest.raises(BadParameter, match="sigma is -1"):
        noises.Gaussian(sigma=-1.0)
    with pytest.raises(BadParameter, match="gain is 0"):
        noises.Poisson(gain=0.0)
    with pytest.raises(BadParameter, match=r"p is 0\.7, s is 0\.7"):
        noises.SaltPepper(p=0.7, s=0.7)
    with pytest.raises(BadParameter, match="above sigma_max"):
        noises.UniformGaussian(sigma_min=0.4, sigma_max=0.2)
    with pytest.raises(BadData, match="clip_positive"):
        noises.Poisson().draw(torch.tensor([-0.1]), Key(0))
    with pytest.raises(BadData, match="positive everywhere"):
        noises.Gamma().draw(torch.tensor([0.0]), Key(0))
    assert float(noises.Poisson(clip_positive=True).draw(torch.tensor([-0.1]), Key(0))) == 0


@pytest.mark.parametrize("name", ["uniform", "salt-pepper", "rician"])
def test_solvers_for_least_squares_refuse_other_noise(name):
    tables = {"shape": [1, 8, 8], "operator": {"name": "identity"}, "noise": {"name": f"deepinv/{name}"}}
    with pytest.raises(Incompatible, match="LeastSquares"):
        Pipeline.from_dict(tables | {"solver": {"name": "conjugate-gradients"}})
    assert issubclass(load("noise", "deepinv/uniform-gaussian"), LeastSquares)
    assert issubclass(load("noise", "deepinv/gaussian"), GaussianNoise)
