"""Total variation: its value, and how accurate its proximal map is."""

import numpy as np
import pytest
import torch
from preimage_baselines import Tikhonov, TotalVariation, total_variation_prox

from preimage import Key, dot
from preimage.testing import check_prior

SHAPE = (1, 24, 20)
VARIANTS = [(v, c) for v in ("isotropic", "anisotropic") for c in (False, True)]
DOUBLE = torch.zeros((), dtype=torch.float64)


def noisy(count=3, channels=1, dtype=torch.float64):
    x = 0.1 * Key(1).normal((count, channels, *SHAPE[1:]), DOUBLE)
    x[:, :, 6:15, 4:12] += 1
    return x.to(dtype)


def gap(tv, x, u, p, step):
    """Duality gap of step R(u) + 1/2 ||u - x||^2 by its definition, with the dual value at p."""
    primal = step * tv.energy(u) + 0.5 * dot(u - x, u - x)
    point = x - step * tv.analysis().adjoint(p)
    return primal - 0.5 * (dot(x, x) - dot(point, point)), primal


@pytest.fixture(params=["compiled", "portable"])
def backend(request, monkeypatch):
    if request.param == "compiled":
        pytest.importorskip("numba")
    else:
        monkeypatch.setattr(total_variation_prox, "compiled", lambda: None)
    return request.param


@pytest.mark.parametrize(("variant", "coupled"), VARIANTS)
def test_the_value_is_the_formula(variant, coupled):
    x = noisy(2, 3)[:, :, :4, :5]
    expected = torch.zeros(2, dtype=torch.float64)
    for b, i, j in np.ndindex(2, 4, 5):
        d = [float(x[b, c, i + 1, j] - x[b, c, i, j]) if i < 3 else 0.0 for c in range(3)]
        e = [float(x[b, c, i, j + 1] - x[b, c, i, j]) if j < 4 else 0.0 for c in range(3)]
        if variant == "isotropic":
            groups = [d + e] if coupled else [list(pair) for pair in zip(d, e, strict=True)]
        else:
            groups = [d, e] if coupled else [[v] for v in d + e]
        expected[b] += sum(float(np.linalg.norm(g)) for g in groups)
    tv = TotalVariation((3, 4, 5), variant=variant, coupled=coupled)
    assert torch.allclose(tv.energy(x), expected, rtol=1e-12)


def test_the_value_has_a_finite_gradient_where_the_image_is_flat():
    x = torch.ones(1, *SHAPE, requires_grad=True)
    TotalVariation(SHAPE).energy(x).sum().backward()
    assert x.grad is not None
    assert bool((x.grad == 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("variant", "coupled"), VARIANTS)
@pytest.mark.parametrize("step", [0.01, 0.1, 1.0])
def test_the_duality_gap_is_below_the_tolerance(backend, dtype, variant, coupled, step):
    x = noisy(3, 2, dtype)
    tv = TotalVariation((2, *SHAPE[1:]), variant=variant, coupled=coupled)
    u, p = tv.prox_from(x, step, None)
    assert u.dtype == dtype
    exact, primal = gap(tv, x.double(), u.double(), p.double(), step)
    # Single precision: p is of length one, and u = x - step K^T p, up to rounding only.
    assert bool((exact <= (1e-6 if dtype == torch.float64 else 3e-6) * primal).all())


@pytest.mark.parametrize("variant", ["isotropic", "anisotropic"])
def test_the_proximal_map_agrees_with_a_long_run_of_plain_projected_gradient(variant):
    x, step = noisy(1), 0.05
    tv = TotalVariation(SHAPE, variant=variant, tolerance=1e-12, max_inner_steps=3000)
    k, p = tv.analysis(), torch.zeros(1, 2, *SHAPE, dtype=torch.float64)
    for _ in range(3000):
        p = p + k(x / step - k.adjoint(p)) / 8
        p = p / (p.norm(dim=1, keepdim=True) if variant == "isotropic" else p.abs()).clamp_min(1)
    assert torch.allclose(tv.prox(x, step), x - step * k.adjoint(p), atol=2e-3)


def test_the_proximal_map_agrees_with_scikit_image():
    restoration = pytest.importorskip("skimage.restoration")
    x, step = noisy(1), 0.2
    # Its objective is weight TV + 1/2 ||u - x||^2 up to the dual step, on the same forward differences.
    theirs = torch.as_tensor(
        restoration.denoise_tv_chambolle(x[0, 0].numpy(), weight=step, eps=1e-12, max_num_iter=20000)
    )[None, None]
    tv = TotalVariation(SHAPE)
    ours = tv.prox(x, step)

    def value(u):
        return float(step * tv.energy(u) + 0.5 * dot(u - x, u - x))

    assert value(ours) == pytest.approx(value(theirs), rel=1e-3)
    assert value(ours) <= value(theirs) * (1 + 1e-6)


def test_a_warm_start_saves_iterations_and_nothing_else(backend):
    tv, x = TotalVariation(SHAPE), noisy()
    u, memory = tv.prox_from(x, 0.2, None)
    again, after = TotalVariation(SHAPE, max_inner_steps=1).prox_from(x, 0.2, memory)
    assert torch.allclose(u, again, atol=1e-12)
    assert torch.equal(after, memory)


def test_a_step_of_zero_and_a_flat_image_are_left_alone(backend):
    tv, x = TotalVariation(SHAPE), noisy()
    assert torch.equal(tv.prox(x, 0.0), x)
    flat = torch.full_like(x, 0.3)
    assert torch.equal(tv.prox(flat, 0.5), flat)
    steps = torch.tensor([0.0, 0.1, 5.0], dtype=x.dtype)
    assert torch.equal(tv.prox(x, steps)[0], x[0])


def test_a_long_step_gives_the_mean(backend):
    x = noisy(2)
    u = TotalVariation(SHAPE, tolerance=1e-8).prox(x, 50.0)
    assert torch.allclose(u, x.mean((2, 3), keepdim=True).expand_as(x), atol=1e-3)


@pytest.mark.parametrize("variant", ["isotropic", "anisotropic"])
def test_the_laws_hold_without_numba_too(variant, monkeypatch):
    monkeypatch.setattr(total_variation_prox, "compiled", lambda: None)
    check_prior(TotalVariation(SHAPE, variant=variant))


@pytest.mark.parametrize("variant", ["isotropic", "anisotropic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 7, 9), (1, 1, 6), (1, 6, 1), (1, 1, 1)])
def test_both_implementations_agree(variant, dtype, shape, monkeypatch):
    pytest.importorskip("numba")
    x = Key(2).normal((3, *shape), DOUBLE).to(dtype)
    tv, steps = TotalVariation(shape, variant=variant), torch.tensor([0.01, 0.1, 0.5])
    fast = tv.prox(x, steps)
    monkeypatch.setattr(total_variation_prox, "compiled", lambda: None)
    assert torch.allclose(fast, tv.prox(x, steps), atol=1e-4)


def test_several_threads_give_the_same_numbers():
    tv, x = TotalVariation(SHAPE), noisy()
    alone, threads = tv.prox(x, 0.1), torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        assert torch.equal(tv.prox(x, 0.1), alone)
    finally:
        torch.set_num_threads(threads)


def test_gradients_pass_through_the_proximal_map():
    x = noisy(1)[:, :, 4:9, 3:8].requires_grad_()
    tv = TotalVariation((1, 5, 5), tolerance=1e-4)
    assert torch.autograd.gradcheck(lambda a: tv.prox(a, 0.05), x, atol=5e-2)


@pytest.mark.parametrize("kind", ["identity", "gradient"])
def test_the_quadratic_priors_have_exact_proximal_maps(kind):
    prior, x = Tikhonov(SHAPE, kind=kind), noisy()
    for step in (0.0, 0.3, torch.tensor([0.1, 1.0, 30.0], dtype=x.dtype)):
        u = prior.prox(x, step)
        scale = step if isinstance(step, float) else step.reshape(-1, 1, 1, 1)
        assert torch.allclose(u + scale * prior.grad(u), x, atol=1e-12)
