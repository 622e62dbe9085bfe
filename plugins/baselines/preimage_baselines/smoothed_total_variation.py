"""Total variation with its corner rounded off: for solvers that need a gradient."""

import torch
from torch import Tensor

from preimage import Differentiable, LinearOperator, Shape, check_shape
from preimage.errors import ShapeMismatch

from .checks import positive
from .gradient import DiscreteGradient


class SmoothedTotalVariation(Differentiable):
    """R(x) = sum over pixels of sqrt(|(K x)(pixel)|^2 + epsilon^2) - epsilon, K the discrete gradient, |.| the
    Euclidean length of the two differences (Vogel & Oman 1996, "Iterative methods for total variation denoising",
    eq. 2.5).

    0 <= TV(x) - R(x) <= epsilon times the number of lengths: quadratic where |K x| << epsilon, total variation where
    |K x| >> epsilon.

    - `epsilon`: > 0, in units of the image; default 0.03. Smaller values are closer to total variation, and harder:
      the gradient K^T (K x / sqrt(|K x|^2 + epsilon^2)) has the Lipschitz constant ||K||^2 / epsilon < 8 / epsilon
      (`lipschitz`).
    - `coupled`: False (default): each channel has lengths of its own. True: one length over all channels at a pixel,
      so that channels prefer to have their edges at the same place.

    `majoriser(x)` is the quadratic model of lagged diffusivity, for Gauss-Newton methods and reweighted least squares.
    Raises `BadParameter` unless epsilon is positive and finite, `ShapeMismatch` unless in_shape is (C, H, W).
    """

    def __init__(self, in_shape: Shape, *, epsilon: float = 0.03, coupled: bool = False):
        super().__init__(in_shape)
        positive("epsilon", epsilon, "use total variation itself (tv) for no smoothing")
        self.epsilon, self.coupled = epsilon, coupled
        self._gradient = DiscreteGradient(in_shape)

    def energy(self, x: Tensor) -> Tensor:
        square = self._square(self._gradient(x))
        # sqrt(s + e^2) - e without cancellation where s is small.
        return (square / ((square + self.epsilon**2).sqrt() + self.epsilon)).flatten(1).sum(1)

    def grad(self, x: Tensor) -> Tensor:
        differences = self._gradient(x)
        return self._gradient.adjoint(differences * self._diffusivity(differences))

    def lipschitz(self) -> float:
        """An upper bound of the Lipschitz constant of the gradient, ||K||^2 / epsilon."""
        return self._gradient.norm_bound() ** 2 / self.epsilon

    def majoriser(self, x: Tensor) -> LinearOperator:
        """M = K^T W K, W = 1 / sqrt(|K x|^2 + epsilon^2): symmetric, positive semi-definite, ||M|| <= `lipschitz()`.

        M x is the gradient at x, and for every u

            R(u) <= R(x) + <M x, u - x> + 1/2 <u - x, M (u - x)>

        (Vogel & Oman 1996, section 3; Chan & Mulet 1999, "On the convergence of the lagged diffusivity fixed point
        method", section 2). Row i of M acts with the weights of x[i]: a batch of as many images is expected.
        """
        return LaggedDiffusivity(self._gradient, self._diffusivity(self._gradient(x)))

    def _square(self, differences: Tensor) -> Tensor:
        square = differences.square().sum(1, keepdim=True)
        return square.sum(2, keepdim=True) if self.coupled else square

    def _diffusivity(self, differences: Tensor) -> Tensor:
        return (self._square(differences) + self.epsilon**2).rsqrt()


class LaggedDiffusivity(LinearOperator):
    """u -> K^T (W K u), K the discrete gradient and W >= 0 a weight per image, pixel, and perhaps channel.

    - `weights`: (B, 1, C or 1, H, W); row i of a batch is weighted by the i-th of them.
    """

    def __init__(self, gradient: DiscreteGradient, weights: Tensor):
        super().__init__(gradient.in_shape, gradient.in_shape)
        self.gradient, self.weights = gradient, weights

    def forward(self, x: Tensor) -> Tensor:
        if len(x) != len(self.weights):
            found = f"a batch of {len(x)} for the diffusivities of {len(self.weights)} images"
            raise ShapeMismatch(found, f"a batch of {len(self.weights)}", "take the model at the images you mean")
        return self.gradient.adjoint(self.weights * self.gradient(x))

    def adjoint(self, y: Tensor) -> Tensor:
        check_shape(y, self.out_shape, "input of the adjoint of LaggedDiffusivity")
        return self(y)

    def norm_bound(self) -> float:
        return self.gradient.norm_bound() ** 2 * float(torch.amax(self.weights))

    def rows(self, index: Tensor) -> "LaggedDiffusivity":
        return LaggedDiffusivity(self.gradient, self.weights[index])
