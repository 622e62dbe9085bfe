"""Compressive sensing of images: the registered operator."""

import math
from typing import Any, Literal

from torch import Tensor

from preimage import Diagonal, Key, LinearOperator, Shape, check_shape
from preimage.errors import BadParameter

from ._cosine import SubsampledCosine
from ._gaussian import GaussianMatrix
from ._hadamard import SubsampledHadamard
from ._rebuilt import Rebuilt, check_measurements

_ENSEMBLES = {"gaussian": GaussianMatrix, "dct": SubsampledCosine, "hadamard": SubsampledHadamard}


class CompressiveSensing(LinearOperator):
    """y = A vec(x): (B, *in_shape) -> (B, m), A random with m <= n rows, n the number of values of an image.

    - `measurements`: m, 1 to n.
    - `ensemble`: the law A is drawn from. "gaussian": independent entries N(0, 1/m), the ensemble of the literature
      (`GaussianMatrix`; m n numbers in memory). "dct", "hadamard": rows of a randomised orthonormal transform
      (`SubsampledCosine`, `SubsampledHadamard`; O(n log n), no matrix). They are different ensembles: a result for
      one says nothing exact about another, so name the ensemble with every figure.
    - `key`: A is a function of the key, n, m and the ensemble; the same on every device and, up to rounding, in every
      dtype. Nothing of A is saved: it is rebuilt from the key on first use.

    vec(x) is x in the order of its axes, (channel, row, column). E ||A x||^2 = ||x||^2 for all three.

    Raises `BadParameter` unless 1 <= m <= n, for an unknown ensemble, and for "hadamard" with odd n.
    """

    def __init__(
        self,
        in_shape: Shape,
        *,
        measurements: int,
        ensemble: Literal["gaussian", "dct", "hadamard"] = "gaussian",
        key: Key,
    ):
        n = math.prod(in_shape)
        if ensemble not in _ENSEMBLES:
            names = " or ".join(map(repr, _ENSEMBLES))
            raise BadParameter(f"ensemble is {ensemble!r}", names, 'write ensemble = "gaussian", say')
        check_measurements(n, measurements)
        super().__init__(in_shape, (measurements,))
        self.ensemble: Literal["gaussian", "dct", "hadamard"] = ensemble
        self.matrix: Rebuilt[Any] = _ENSEMBLES[ensemble](n, measurements=measurements, key=key)

    def forward(self, x: Tensor) -> Tensor:
        return self.matrix(x.flatten(1))

    def adjoint(self, y: Tensor) -> Tensor:
        check_shape(y, self.out_shape, "input of the adjoint of CompressiveSensing")
        return self.matrix.adjoint(y).reshape(-1, *self.in_shape)

    def norm_bound(self) -> float | None:
        return self.matrix.norm_bound()

    def solve_normal(self, b: Tensor, shift: float | Tensor) -> Tensor | None:
        check_shape(b, self.in_shape, "right-hand side of the normal equations of CompressiveSensing")
        solved = self.matrix.solve_normal(b.flatten(1), shift)
        return None if solved is None else solved.reshape(b.shape)

    @property
    def T(self) -> LinearOperator:  # noqa: N802 (the field's notation)
        return Transpose(self)


class Transpose(LinearOperator):
    """A^T, sharing A's tables; its `solve_normal` is (A A^T + shift I)^-1."""

    def __init__(self, operator: CompressiveSensing):
        super().__init__(operator.out_shape, operator.in_shape)
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        return self.operator.adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.operator(y)

    def norm_bound(self) -> float | None:
        return self.operator.norm_bound()

    def normal_diagonal(self) -> Diagonal | None:
        factor = self.operator.matrix.gram_factor()
        return None if factor is None else Diagonal.identity(factor)

    def solve_normal(self, b: Tensor, shift: float | Tensor) -> Tensor | None:
        check_shape(b, self.in_shape, "right-hand side of the normal equations of Transpose")
        return self.operator.matrix.solve_gram(b, shift)

    @property
    def T(self) -> LinearOperator:  # noqa: N802
        return self.operator
