"""Weighted l1 norms in orthonormal bases: what the cosine and the wavelet prior share."""

from abc import abstractmethod
from typing import cast

import torch
from torch import Tensor

from preimage import Diagonal, LinearOperator, Proximable, Shape, per_image
from preimage.errors import BadParameter

from .checks import not_negative

_OPPONENT = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))


class OrthonormalTransform(LinearOperator):
    """Q with Q^T Q = Q Q^T = I: (B, C, H, W) -> (B, C, H, W). Subclasses implement `forward` and `adjoint`."""

    def __init__(self, in_shape: Shape):
        super().__init__(in_shape, in_shape)

    def norm_bound(self) -> float:
        return 1.0

    def normal_diagonal(self) -> Diagonal:
        return Diagonal.identity()


class OrthonormalSparsity(Proximable):
    """R(x) = sum over k of w_k |(Q x)_k|, Q orthonormal, w_k >= 0.

    The proximal map is exact, Q^T soft(Q x, step w) with soft(c, t) = sign(c) max(|c| - t, 0) (Donoho & Johnstone 1994,
    "Ideal spatial adaptation by wavelet shrinkage"; Daubechies, Defrise & De Mol 2004, section 1.4).

    - `weights`: w, broadcastable against the coefficients (C, H, W); a coefficient of weight 0 is not penalised.
    """

    weights: Tensor

    def __init__(self, in_shape: Shape, weights: Tensor):
        super().__init__(in_shape)
        self.register_buffer("weights", weights)

    @abstractmethod
    def transform(self) -> OrthonormalTransform:
        """Q, from images to coefficients."""

    def energy(self, x: Tensor) -> Tensor:
        return self.norm(self.transform()(x))

    def prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        transform = self.transform()
        return transform.adjoint(self.shrink(transform(x), step))

    def norm(self, coefficients: Tensor) -> Tensor:
        """sum of w |c|, (B,)."""
        return (coefficients.abs() * self.weights.to(coefficients)).flatten(1).sum(1)

    def dual_norm(self, coefficients: Tensor) -> Tensor:
        """max |c| / w, (B,): infinite where a coefficient of weight 0 is not zero."""
        weights = self.weights.to(coefficients)
        ratio = coefficients.abs() / torch.where(weights > 0, weights, 1)
        free = torch.where(coefficients == 0, 0.0, torch.inf).to(coefficients)
        return torch.where(weights > 0, ratio, free).flatten(1).amax(1)

    def shrink(self, coefficients: Tensor, step: float | Tensor) -> Tensor:
        """Soft thresholding of coefficients (B, C, H, W) at step w."""
        threshold = per_image(step, coefficients) * self.weights.to(coefficients)
        return coefficients - torch.minimum(torch.maximum(coefficients, -threshold), threshold)


def opponent_matrix() -> Tensor:
    """An orthonormal basis of colours, one row each, float64: brightness (1, 1, 1) / sqrt(3), red against blue
    (1, 0, -1) / sqrt(2), and green against both (1, -2, 1) / sqrt(6).

    Up to scaling of the rows the colour features of Ohta, Kanade & Sakai (1980, "Color information for region
    segmentation", section 3), which decorrelate natural images.
    """
    rows = torch.tensor(_OPPONENT, dtype=torch.float64)
    return rows / rows.square().sum(1, keepdim=True).sqrt()


def check_colour(colour: str, in_shape: Shape) -> None:
    """Raise `BadParameter` unless `colour` is a known basis that images of this shape have."""
    if colour not in ("channels", "opponent"):
        raise BadParameter(f"colour is {colour!r}", "'channels' or 'opponent'", 'write colour = "channels"')
    if colour == "opponent" and in_shape[0] != 3:
        raise BadParameter(
            f"colour is 'opponent' for images with {in_shape[0]} channels",
            "images with 3 channels, red, green and blue",
            'write colour = "channels"',
        )


def mix(matrix: Tensor, x: Tensor) -> Tensor:
    """The matrix applied to the colour of each pixel: (B, C, H, W) -> (B, C, H, W)."""
    return cast(Tensor, torch.matmul(matrix.to(x), x.flatten(2))).reshape(x.shape)


def check_chroma(chroma: float, colour: str) -> None:
    """Raise `BadParameter` unless it is a weight that the basis of colours has a use for."""
    not_negative("chroma", chroma)
    if chroma != 1 and colour != "opponent":
        raise BadParameter(
            f"chroma is {chroma}, but colour is {colour!r}",
            "chroma = 1 without colour = 'opponent'",
            "leave chroma out",
        )


def channel_weights(in_shape: Shape, chroma: float) -> Tensor:
    """1 for the first channel and `chroma` for the others: (C, 1, 1), float64."""
    weights = torch.full((in_shape[0], 1, 1), chroma, dtype=torch.float64)
    weights[0] = 1
    return weights
