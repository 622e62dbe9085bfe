"""The proximal map of total variation, 32 noisy crops of 96 x 96, float32: ours against scikit-image and deepinv.

All minimise 0.1 TV(u) + 1/2 ||u - x||^2, isotropic, on the same forward differences. Accuracy is the duality gap over
the objective, computed here in double precision with one dual point for all, the optimum (a gap below 1e-9 by a long
run): the most favourable gap a result can have. How many iterations each peer needs for it is counted first, with its
own stopping rule switched off: for scikit-image image by image, for deepinv, which treats a batch as one, until every
image is there, for the best of five step sizes, its default among them. Ours runs as it is, with `tolerance` at that
accuracy, its evaluations of the gap included. Then they are timed in turn. (To 1e-4 scikit-image needs more than 1024
iterations, and deepinv five seconds a call: there the ratios only fall further.)

Counting takes the time of a few runs, not of a search: deepinv's iteration is followed once, in pieces that go on from
its variables; scikit-image, which cannot go on, is tried around the count of the image before.
"""

import functools
from collections.abc import Callable

import deepinv
import numpy as np
import pytest
import torch
from preimage_baselines import TotalVariation
from preimage_data import Photographs
from skimage.restoration import denoise_tv_chambolle

from preimage import Key, dot

SHAPE, COUNT, STEP = (1, 96, 96), 32, 0.1
ACCURACIES = (1e-2, 1e-3)
TAUS = (0.01, 0.03, 0.1, 0.3, 0.003)  # the peer's default first
MOST = 1024


@pytest.fixture(scope="module")
def noisy() -> torch.Tensor:
    photographs = Photographs(size=192)
    quarters = [photographs[index][:, i : i + 96, j : j + 96] for index in range(8) for i in (0, 96) for j in (0, 96)]
    clean = torch.stack(quarters)
    return clean + 0.1 * Key(0).normal(clean.shape, clean)


@pytest.fixture(scope="module")
def optimum(noisy) -> torch.Tensor:
    """The dual value that bounds every objective from below, (B,), float64."""
    x, tv = noisy.double(), TotalVariation(SHAPE, tolerance=1e-9, max_inner_steps=100000)
    u, p = tv.prox_from(x, STEP, None)
    point = x - STEP * tv.analysis().adjoint(p)
    bound = 0.5 * (dot(x, x) - dot(point, point))
    assert bool((value(u, x) - bound <= 1e-8 * bound).all())
    return bound


def value(u: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    u, x = u.double(), x.double()
    return STEP * TotalVariation(SHAPE).energy(u) + 0.5 * dot(u - x, u - x)


def gap(u: torch.Tensor, x: torch.Tensor, optimum: torch.Tensor) -> torch.Tensor:
    objective = value(u, x)
    return (objective - optimum) / objective


def fewest(enough: Callable[[int], bool], guess: int, most: int = MOST) -> int | None:
    """The least number of iterations that is enough, for a test that stays true once it is: outwards from a guess by
    steps of a quarter, then by bisection; None above `most`."""
    low, high = 0, guess
    while not enough(high):
        if high == most:
            return None
        low, high = high, min(max(high + 1, high * 5 // 4), most)
    if low == 0:
        low = high * 4 // 5
        while low and enough(low):
            low, high = low * 4 // 5, low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def chambolle(image: np.ndarray, iterations: int) -> np.ndarray:
    return denoise_tv_chambolle(image, weight=STEP, eps=0, max_num_iter=iterations)


def condat(noisy: torch.Tensor, tau: float, iterations: int) -> torch.Tensor:
    # A new one each time: it keeps its variables between calls.
    model = deepinv.models.TVDenoiser(tau=tau, n_it_max=iterations, crit=0)
    with torch.no_grad():
        return model(noisy, ths=STEP)


def condat_count(noisy: torch.Tensor, tau: float, enough: Callable[[torch.Tensor], bool], most: int) -> int | None:
    """The iterations after which deepinv's result is first enough; None above `most`.

    One run: a model goes on from its variables, so that calls of 16 iterations each visit what one long call does. The
    piece in which the result gets good enough is repeated in single iterations.
    """
    model = deepinv.models.TVDenoiser(tau=tau, n_it_max=16, crit=0)
    count = 0
    with torch.no_grad():
        while count < most:
            before = model.x2, model.u2
            if not enough(model(noisy, ths=STEP)):
                count += 16
                continue
            model = deepinv.models.TVDenoiser(tau=tau, n_it_max=1, crit=0, x2=before[0], u2=before[1])
            model.restart = before[0] is None
            while True:
                count += 1
                if enough(model(noisy, ths=STEP)):
                    return count
    return None


@pytest.mark.parametrize("accuracy", ACCURACIES)
def test_total_variation_prox_against_scikit_image(noisy, optimum, compare, accuracy):
    prior = TotalVariation(SHAPE, tolerance=accuracy)
    assert float(gap(prior.prox(noisy, STEP), noisy, optimum).max()) <= accuracy
    images = [image[0].numpy() for image in noisy]

    def enough(index: int, iterations: int) -> bool:
        u = torch.from_numpy(chambolle(images[index], iterations))[None, None]
        return float(gap(u, noisy[index : index + 1], optimum[index : index + 1])) <= accuracy

    counts: list[int] = []
    for index in range(COUNT):
        count = fewest(functools.partial(enough, index), counts[-1] if counts else 16)
        if count is None:
            pytest.skip(f"scikit-image does not reach {accuracy:g} in {MOST} iterations")
        counts.append(count)

    def peer() -> list[np.ndarray]:
        return [chambolle(image, iterations) for image, iterations in zip(images, counts, strict=True)]

    name = f"TV prox, 32 crops 96 x 96, to a gap of {accuracy:g}"
    note = f"peer: {min(counts)} to {max(counts)} iterations"
    compare(
        name, lambda: prior.prox(noisy, STEP), ("scikit-image denoise_tv_chambolle", peer), 1.0, rounds=5, note=note
    )


@pytest.mark.parametrize("accuracy", ACCURACIES)
def test_total_variation_prox_against_deepinv(noisy, optimum, compare, accuracy):
    prior = TotalVariation(SHAPE, tolerance=accuracy)

    def enough(u: torch.Tensor) -> bool:
        return float(gap(u, noisy, optimum).max()) <= accuracy

    best: tuple[float, int] | None = None
    for tau in TAUS:
        # A step size that needs more than the best so far is of no interest: not followed beyond that.
        count = condat_count(noisy, tau, enough, MOST if best is None else best[1])
        if count is not None and (best is None or count < best[1]):
            best = tau, count
    if best is None:
        pytest.skip(f"deepinv does not reach {accuracy:g} in {MOST} iterations")
    tau, iterations = best
    assert enough(condat(noisy, tau, iterations))  # one call, as timed, is what was followed
    label = f"deepinv TVDenoiser, best step {tau:g} of {len(TAUS)}" + " (its default)" * (tau == TAUS[0])
    name = f"TV prox, 32 crops 96 x 96, to a gap of {accuracy:g}"

    def peer() -> torch.Tensor:
        return condat(noisy, tau, iterations)

    note = f"peer: {iterations} iterations"
    compare(name, lambda: prior.prox(noisy, STEP), (label, peer), 0.5, rounds=3, note=note)
