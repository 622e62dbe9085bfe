"""Gaussian blur, 11 x 11, against deepinv: equal kernel, equal boundary where both have it."""

import pytest
import torch
from deepinv.physics import Blur, BlurFFT
from preimage_gaussian_blur import GaussianBlur

BOUNDARIES = ["symmetric", "zero", "circular", "mirror", "replicate"]
PADDING = {"zero": "constant", "circular": "circular", "mirror": "reflect", "replicate": "replicate"}


def kernel(operator: GaussianBlur) -> torch.Tensor:
    weights = torch.as_tensor(operator.kernel)
    return torch.outer(weights, weights)[None, None].float()


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_large_forward_against_fft(compare, boundary):
    operator, x = GaussianBlur((1, 512, 512), boundary=boundary), torch.rand(1, 1, 512, 512)
    peer = BlurFFT((1, 512, 512), filter=kernel(operator))
    if boundary == "circular":
        assert float((operator(x) - peer.A(x)).abs().max()) < 1e-5
    note = "equal" if boundary == "circular" else "the peer's boundary is circular"
    compare(
        f"blur forward, 512², {boundary}", lambda: operator(x), ("deepinv BlurFFT", lambda: peer.A(x)), 1.0, note=note
    )


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_large_adjoint_against_forward(compare, boundary):
    operator, x = GaussianBlur((1, 512, 512), boundary=boundary), torch.rand(1, 1, 512, 512)
    peer = ("its own forward", lambda: operator(x))
    compare(f"blur adjoint, 512², {boundary}", lambda: operator.adjoint(x), peer, 1.3)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_batch_against_convolution(compare, boundary):
    operator, x = GaussianBlur((1, 96, 96), boundary=boundary), torch.rand(32, 1, 96, 96)
    padding = PADDING.get(boundary, "constant")
    peer = Blur(filter=kernel(operator), padding=padding)
    if boundary in PADDING:
        assert float((operator(x) - peer.A(x)).abs().max()) < 1e-5
    note = "equal" if boundary in PADDING else "the peer has no half-sample boundary"
    label = f"deepinv Blur, {padding}"
    compare(f"blur forward, 32 x 96², {boundary}", lambda: operator(x), (label, lambda: peer.A(x)), 1.0, note=note)
