"""F itself: against the formula in loops, and what the continuous equation promises."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from preimage_perona_malik import PeronaMalik, _compiled
from torch import Tensor

from preimage import Key

VARIANTS = [
    {"discretisation": discretisation, "boundary": boundary, "channels": channels}
    for discretisation in ("forward-backward", "four-neighbour")
    for boundary in ("neumann", "circular")
    for channels in ("separate", "coupled")
]


@pytest.fixture(params=["compiled", "torch"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(_compiled, "serves", lambda x: False)
    else:
        pytest.importorskip("numba")
    return request.param


def images(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return Key(7).child("images").uniform(shape, like=torch.zeros((), dtype=dtype))


def right_hand_side(u: np.ndarray, contrast: float, discretisation: str, boundary: str, channels: str) -> np.ndarray:
    """div(g(|grad u|) grad u) pixel by pixel, as it is written on paper."""
    C, H, W = u.shape

    def g(squared: float) -> float:
        return 1 / (1 + squared / contrast**2)

    def difference(c: int, i: int, j: int, axis: int) -> float:
        following = (i + 1, j) if axis == 0 else (i, j + 1)
        if boundary == "circular":
            following = (following[0] % H, following[1] % W)
        elif following[0] == H or following[1] == W:
            return 0.0
        return u[(c, *following)] - u[c, i, j]

    def flux(c: int, i: int, j: int, axis: int) -> float:
        if boundary == "circular":
            i, j = i % H, j % W
        elif i < 0 or j < 0:
            return 0.0
        axes = (axis,) if discretisation == "four-neighbour" else (0, 1)
        together = range(C) if channels == "coupled" else (c,)
        squared = sum(difference(k, i, j, a) ** 2 for k in together for a in axes)
        return g(squared) * difference(c, i, j, axis)

    out = np.zeros_like(u)
    for c in range(C):
        for i in range(H):
            for j in range(W):
                out[c, i, j] = flux(c, i, j, 0) - flux(c, i - 1, j, 0) + flux(c, i, j, 1) - flux(c, i, j - 1, 1)
    return out


def heun(u: np.ndarray, steps: int, h: float, contrast: float, **choices: str) -> np.ndarray:
    for _ in range(steps):
        k1 = right_hand_side(u, contrast, **choices)
        k2 = right_hand_side(u + h * k1, contrast, **choices)
        u = u + h / 2 * (k1 + k2)
    return u


@pytest.mark.parametrize("choices", VARIANTS, ids=lambda c: "-".join(c.values()))
def test_equals_the_formula_written_in_loops(engine: str, choices: dict[str, str]):
    x = images(1, 3, 7, 6)
    expected = heun(x[0].numpy(), 5, 0.15, 0.1, **choices)
    assert np.abs(PeronaMalik((3, 7, 6), **choices)(x)[0].numpy() - expected).max() < 1e-12
    expected = heun(x[0].numpy(), 3, 0.25, 0.7, **choices)
    operator = PeronaMalik((3, 7, 6), steps=3, step_size=0.25, contrast=0.7, **choices)
    assert np.abs(operator(x)[0].numpy() - expected).max() < 1e-12


def test_defaults_are_the_papers(engine: str):
    x = images(1, 1, 6, 8)
    expected = heun(
        x[0].numpy(), 5, 0.15, 0.1, discretisation="forward-backward", boundary="neumann", channels="separate"
    )
    assert np.abs(PeronaMalik((1, 6, 8))(x)[0].numpy() - expected).max() < 1e-12


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (2, 9, 1), (3, 2, 2), (1, 70, 3), (1, 5, 2100)])
@pytest.mark.parametrize("choices", VARIANTS, ids=lambda c: "-".join(c.values()))
def test_thin_and_wide_images(shape: tuple[int, int, int], choices: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    # The last two are cut into blocks by the compiled kernels.
    pytest.importorskip("numba")
    x, operator = images(2, *shape), PeronaMalik(shape, **choices)
    w = Key(3).normal(x.shape, like=x)
    y, pullback = operator.vjp(x)
    back, forth = pullback(w), operator.jvp(x, w)
    monkeypatch.setattr(_compiled, "serves", lambda x: False)
    y_torch, pullback_torch = operator.vjp(x)
    torch.testing.assert_close(y, y_torch, rtol=0, atol=1e-13)
    torch.testing.assert_close(back, pullback_torch(w), rtol=0, atol=1e-11)
    torch.testing.assert_close(forth, operator.jvp(x, w), rtol=0, atol=1e-11)


@pytest.mark.parametrize("choices", VARIANTS, ids=lambda c: "-".join(c.values()))
def test_constants_stay_sums_are_kept_and_the_range_is_not_left(engine: str, choices: dict[str, str]):
    operator = PeronaMalik((2, 12, 9), step_size=0.25, contrast=0.3, **choices)
    flat = torch.full((2, 2, 12, 9), 0.37, dtype=torch.float64)
    torch.testing.assert_close(operator(flat), flat, rtol=0, atol=0)
    x = images(3, 2, 12, 9)
    y = operator(x)
    torch.testing.assert_close(y.sum((-2, -1)), x.sum((-2, -1)), rtol=1e-13, atol=0)
    assert bool((y.amax((-2, -1)) <= x.amax((-2, -1))).all())
    assert bool((y.amin((-2, -1)) >= x.amin((-2, -1))).all())
    assert float(y.var()) < 0.9 * float(x.var())


def test_large_contrast_is_the_heat_equation(engine: str):
    # cos(pi (i + 1/2) k / n) are the eigenvectors of the Laplacian without flux, with 2 cos(pi k / n) - 2.
    n, k, steps, h = 16, 3, 4, 0.2
    mode = torch.cos(math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) * k / n)
    x = mode[None, None, :, None].expand(1, 1, n, 5).contiguous()
    z = h * (2 * math.cos(math.pi * k / n) - 2)
    y = PeronaMalik((1, n, 5), steps=steps, step_size=h, contrast=1e12)(x)
    torch.testing.assert_close(y, (1 + z + z**2 / 2) ** steps * x, rtol=0, atol=1e-13)


def test_edges_above_the_contrast_stay_and_noise_below_goes(engine: str):
    x = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    x[..., 16:] = 1
    x = x + 0.02 * Key(1).normal(x.shape, like=x)
    y = PeronaMalik((1, 32, 32))(x)
    assert float((y[..., 16] - y[..., 15]).mean()) > 0.9
    assert float(y[..., :14].std()) < 0.5 * float(x[..., :14].std())


def test_heun_is_of_second_order():
    x = torch.sin(torch.arange(24, dtype=torch.float64) / 3)[None, None, None].expand(1, 1, 4, 24) * 0.2
    exact = PeronaMalik((1, 4, 24), steps=512, step_size=0.8 / 512)(x)
    errors = [float((PeronaMalik((1, 4, 24), steps=n, step_size=0.8 / n)(x) - exact).norm()) for n in (4, 8, 16)]
    assert 3.5 < errors[0] / errors[1] < 5
    assert 3.5 < errors[1] / errors[2] < 5


def test_images_of_a_batch_do_not_influence_each_other(engine: str):
    operator, x = PeronaMalik((3, 10, 11)), images(4, 3, 10, 11)
    whole = operator(x)
    for index in range(4):
        assert torch.equal(operator(x[index : index + 1])[0], whole[index])
    assert operator(x[:0]).shape == (0, 3, 10, 11)


def test_strided_inputs_are_taken_and_not_modified(engine: str):
    operator, x = PeronaMalik((3, 8, 9)), images(2, 9, 8, 3)
    strided, before = x.transpose(1, 3), x.clone()
    torch.testing.assert_close(operator(strided), operator(strided.contiguous()), rtol=0, atol=0)
    assert torch.equal(x, before)


def test_threads_change_nothing():
    pytest.importorskip("numba")
    operator, x = PeronaMalik((1, 96, 96)), images(9, 1, 96, 96, dtype=torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        y, pullback = operator.vjp(x)
        alone = pullback(x)
        torch.set_num_threads(3)
        assert _compiled.workers_for(x) == 3
        y_shared, pullback = operator.vjp(x)
        shared = pullback(x)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(y, y_shared)
    assert torch.equal(alone, shared)


def test_half_precision_runs_in_torch():
    x = images(1, 1, 12, 12, dtype=torch.float32)
    operator = PeronaMalik((1, 12, 12))
    y = operator(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), operator(x), rtol=0, atol=0.03)


def test_works_without_numba():
    program = (
        "import sys; sys.modules['numba'] = None\n"
        "import torch; from preimage_perona_malik import PeronaMalik, _compiled\n"
        "x = torch.linspace(0, 1, 60).reshape(1, 1, 6, 10); operator = PeronaMalik((1, 6, 10))\n"
        "assert _compiled.kernels() is None\n"
        "y, pullback = operator.vjp(x); pullback(x); operator.jvp(x, x); print(float(y.sum()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(30, rel=1e-5)


def test_listing_imports_no_torch():
    program = "import sys, preimage_perona_malik.plugin as p; p.preimage_components(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
