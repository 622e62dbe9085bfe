"""PSNR and SSIM by hand and against scikit-image; figures that show what they say."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from preimage_data import PSNR, SSIM, Photographs, comparison, overview, psnr, ssim
from preimage_data.figures import Row, View, figure_bytes, gallery, view
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from preimage import ForwardOperator, Identity, Key, load
from preimage.errors import ShapeMismatch
from preimage.testing import check_component, check_rows

TRUTH = torch.stack([Photographs(size=32, colour="colour")[i] for i in range(3)])
NOISY = (TRUTH + 0.1 * Key(0).normal(TRUTH.shape)).clamp(0, 1)


def test_psnr_by_hand():
    reference = torch.zeros(4, 1, 2, 2)
    estimate = torch.stack([torch.full((1, 2, 2), v) for v in (0.1, 1.0, 0.0, 7.0)])
    estimate[0, 0, 0, 0] = 0.0
    values = psnr(estimate, reference)
    assert values.tolist() == pytest.approx([-10 * math.log10(0.01 * 3 / 4), 0.0, math.inf, 0.0])
    assert values.dtype == torch.float64


def test_psnr_and_ssim_are_scikit_images():
    for i in range(3):
        a, b = NOISY[i].double().numpy(), TRUTH[i].double().numpy()
        assert float(psnr(NOISY, TRUTH)[i]) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1), abs=1e-9)
        convention = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
        each = [structural_similarity(a[c], b[c], **convention) for c in range(3)]
        assert float(ssim(NOISY, TRUTH)[i]) == pytest.approx(np.mean(each), abs=1e-9)


def test_measures_are_per_image_clipped_and_registered():
    for measure in (psnr, ssim):
        check_rows(measure, (NOISY, TRUTH), measure.__name__, 0.0)
        assert torch.equal(measure(3 * NOISY - 1, TRUTH), measure((3 * NOISY - 1).clamp(0, 1), TRUTH))
    assert float(ssim(TRUTH, TRUTH).min()) == pytest.approx(1)
    assert load("metric", "psnr") is PSNR
    assert load("metric", "ssim") is SSIM
    assert torch.equal(PSNR()(NOISY, TRUTH), psnr(NOISY, TRUTH))
    assert torch.equal(SSIM()(NOISY, TRUTH), ssim(NOISY, TRUTH))
    assert check_component("metric", "psnr") == check_component("metric", "ssim") == 1


def test_shapes_that_do_not_fit():
    with pytest.raises(ShapeMismatch, match="PSNR of shapes"):
        psnr(TRUTH, TRUTH[:1])
    with pytest.raises(ShapeMismatch, match="batch axis"):
        psnr(TRUTH[0], TRUTH[0])
    with pytest.raises(ShapeMismatch, match="at least 11 x 11"):
        ssim(TRUTH[..., :10], TRUTH[..., :10])


class Half(ForwardOperator):
    """Every other pixel, squared: not linear, and another shape."""

    def __init__(self):
        super().__init__((3, 32, 32), (3, 16, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[..., ::2, ::2] ** 2


def test_how_measurements_are_shown():
    same = view(Identity((3, 32, 32)), NOISY)
    assert same is not None
    assert (same.name, same.compared) == ("measurement", True)
    assert torch.equal(same.image, NOISY)
    other = view(Half(), torch.zeros(2, 3, 16, 16))
    assert other is not None
    assert (other.name, other.compared, other.image.shape) == ("measurement", False, (2, 3, 16, 16))
    assert torch.equal(other.rows(slice(1)).image, other.image[:1])


def test_the_scaled_adjoint_is_a_step_of_steepest_descent():
    pytest.importorskip("preimage_compressive_sensing")
    operator = load("operator", "compressive-sensing")((1, 12, 12), measurements=40, key=Key(1))
    y = operator(TRUTH[:2, :1, :12, :12])
    seen = view(operator, y)
    assert seen is not None
    assert seen.name == "scaled adjoint"

    def residual(scale: float) -> torch.Tensor:
        return (operator(scale * seen.image) - y).flatten(1).norm(dim=1)

    assert bool((residual(1.0) < residual(1.01)).all())
    assert bool((residual(1.0) < residual(0.99)).all())


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def test_comparison_shows_every_panel_and_repeats_itself():
    seen = View("measurement", NOISY[:1], True)
    figure = comparison(NOISY[0], truth=TRUTH[0], seen=seen, title="astronaut")
    titles = [ax.get_title() for ax in figure.axes[:4]]
    assert titles[0].startswith("truth")
    assert f"PSNR {float(psnr(NOISY, TRUTH)[0]):.2f} dB" in titles[1]
    assert "SSIM" in titles[2]
    largest = float((NOISY[0] - TRUTH[0]).mean(0).abs().max())
    assert figure.axes[3].images[0].get_clim() == pytest.approx((-largest, largest))
    grey = comparison(NOISY[0, :1], truth=TRUTH[0, :1])
    assert all(ax.images[0].get_clim() == (0, 1) for ax in grey.axes[:2])
    again = figure_bytes(comparison(NOISY[0], truth=TRUTH[0], seen=seen, title="astronaut"))
    assert figure_bytes(figure) == again
    assert pixels(again).std() > 20


def test_comparison_without_truth_of_small_wide_and_exact_images():
    assert len(comparison(NOISY[0]).axes) == 1
    assert "PSNR exact" in comparison(TRUTH[0], truth=TRUTH[0]).axes[1].get_title()
    small = comparison(NOISY[0, :, :4, :], truth=TRUTH[0, :, :4, :])
    assert "SSIM" not in small.axes[1].get_title()
    assert figure_bytes(small).startswith(b"\x89PNG")


def test_overview_and_gallery():
    row = Row("denoising", View("measurement", NOISY, True), NOISY)
    bare = Row("other", None, NOISY)
    figure = overview(TRUTH, ["a", "b", "c"], [row, bare])
    assert sum(len(ax.images) for ax in figure.axes) == 3 * (3 + 2)
    assert pixels(figure_bytes(figure)).std() > 20
    assert sum(len(ax.images) for ax in gallery(TRUTH, ["a", "b", "c"], row).axes) == 9
    assert sum(len(ax.images) for ax in gallery(TRUTH, ["a", "b", "c"], bare).axes) == 6
