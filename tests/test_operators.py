"""Operator algebra, linearisation, norms, transforms and closed-form solves."""

import pytest
import scipy.fft
import torch
from torch import Tensor

from preimage import (
    Basis,
    Diagonal,
    ForwardOperator,
    Identity,
    Key,
    LinearOperator,
    NormKind,
    operator_norm,
    per_image_operator,
    stack,
)
from preimage._reference import ReferenceOperator
from preimage.errors import ShapeMismatch
from preimage.testing import check_operator
from preimage.transforms import dct, dct2, idct, idct2

SHAPE = (2, 5, 6)
DOUBLE = torch.zeros((), dtype=torch.float64)


class Matrix(LinearOperator):
    """A dense matrix, with nothing but forward."""

    def __init__(self, rows: int = 7, label: str = "matrix"):
        super().__init__(SHAPE, (rows,))
        self.register_buffer("matrix", Key(1).child(label).normal((rows, 60), like=DOUBLE))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.matrix.to(x).mT  # type: ignore[reportCallIssue, reportArgumentType]


class Square(ForwardOperator):
    def __init__(self, in_shape=SHAPE):
        super().__init__(in_shape, in_shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.square() + x


def dense(operator: LinearOperator) -> Tensor:
    """The matrix of an operator."""
    size = torch.Size(operator.in_shape).numel()
    return operator(torch.eye(size, dtype=torch.float64).reshape(size, *operator.in_shape)).flatten(1).mT


A, B, R, F = Matrix(), Matrix(label="other"), ReferenceOperator(SHAPE), Square()


@pytest.mark.parametrize(
    "operator",
    [
        A,
        A.T,
        A @ R,
        A + B,
        A - B,
        3 * A,
        -A,
        stack(A, R),
        A @ R @ R + 2 * B,
        (A @ R).T,
        F,
        F @ F,
        F @ R,
        A @ F,
        R @ F @ R,
    ],
    ids=["A", "A.T", "AR", "A+B", "A-B", "3A", "-A", "stack", "ARR+2B", "(AR).T", "F", "FF", "FR", "AF", "RFR"],
)
def test_the_algebra_keeps_the_laws(operator):
    check_operator(operator)


def test_the_algebra_is_matrix_algebra():
    a, b, r = dense(A), dense(B), dense(R)
    for operator, expected in [
        (A @ R, a @ r),
        (A + B, a + b),
        (A - 2 * B, a - 2 * b),
        (-A, -a),
        (A.T, a.mT),
        ((A @ R).T, r.mT @ a.mT),
        (stack(A, R), torch.cat((a, r))),
    ]:
        assert torch.allclose(dense(operator), expected, atol=1e-12)
    assert isinstance(A @ R, LinearOperator)
    assert not isinstance(A @ F, LinearOperator)
    assert A.T.T is A


def test_norm_bounds_combine():
    assert (R @ R + 2 * R).norm_bound() == pytest.approx(3.0)
    assert stack(R, 2 * R).norm_bound() == pytest.approx(5**0.5)
    assert (A @ R).norm_bound() is None
    assert (F @ R).norm_bound() is None


def test_what_does_not_fit_says_so():
    with pytest.raises(ShapeMismatch, match=r"cannot compose .*\(7,\)"):
        _ = R @ A
    with pytest.raises(ShapeMismatch, match="cannot add"):
        _ = A + R
    with pytest.raises(ShapeMismatch, match="cannot stack"):
        stack(A, Identity((1, 2, 2)))
    with pytest.raises(ShapeMismatch, match="dtype"):
        R(torch.zeros(1, *SHAPE, dtype=torch.uint8))
    with pytest.raises(ShapeMismatch, match="adjoint"):
        A.adjoint(torch.zeros(1, 8))


def test_the_jacobian_is_an_operator_with_one_derivative_per_image():
    x = Key(0).normal((3, *SHAPE), like=DOUBLE)
    y, jacobian = F.linearize(x)
    assert torch.equal(y, F(x))
    v = torch.ones_like(x)
    assert torch.allclose(jacobian(v), 2 * x + 1)
    assert torch.allclose((jacobian.T @ jacobian)(v), (2 * x + 1) ** 2)
    some = jacobian.rows(torch.tensor([2, 0]))
    assert torch.allclose(some(v[:2]), (2 * x + 1)[[2, 0]])
    for wrong in (lambda: jacobian(v[:2]), lambda: jacobian.adjoint(v[:2])):
        with pytest.raises(ShapeMismatch, match="a batch of 2 for the Jacobian at 3 images"):
            wrong()
    assert torch.allclose(operator_norm(F, x, steps=400).value, (2 * x + 1).abs().flatten(1).amax(1), rtol=1e-2)


def test_norms_say_what_kind_they_are():
    x = torch.zeros(2, *SHAPE, dtype=torch.float64)
    assert operator_norm(R, x).kind is NormKind.BOUND
    estimate = operator_norm(A, x, steps=200)
    assert estimate.kind is NormKind.ESTIMATE
    true = torch.linalg.matrix_norm(dense(A), 2)
    assert torch.allclose(estimate.value, true.expand(2), rtol=1e-6)
    assert bool((estimate.safe > true).all())
    assert torch.allclose(operator_norm(A, x).value[:1], operator_norm(A, x[:1]).value, rtol=1e-12)


def test_one_operator_for_each_image():
    x = Key(0).normal((3, *SHAPE), like=DOUBLE)
    each = per_image_operator([R, 2 * R, Identity(SHAPE)])
    assert isinstance(each, LinearOperator)
    assert torch.equal(each(x), torch.cat((R(x[:1]), 2 * R(x[1:2]), x[2:])))
    assert torch.equal(each.rows(torch.tensor([2, 0]))(x[[2, 0]]), each(x)[[2, 0]])
    assert each.norm_bound() is None
    assert torch.allclose(
        operator_norm(each, x, steps=300).value, torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype), rtol=1e-3
    )
    assert per_image_operator([R, Identity(SHAPE)]).norm_bound() == 1.0
    w = Key(0).child("w").normal(x.shape, like=x)
    assert torch.allclose((each(x) * w).sum(), (x * each.adjoint(w)).sum())
    with pytest.raises(ShapeMismatch, match="2 images for 3 operators"):
        each(x[:2])
    solved = per_image_operator([2 * Identity(SHAPE), Identity(SHAPE)]).solve_normal(x[:2], 1.0)  # type: ignore[reportAttributeAccessIssue]
    assert torch.allclose(solved, x[:2] / torch.tensor([5.0, 2.0], dtype=x.dtype).reshape(2, 1, 1, 1))
    mixed = per_image_operator([F, F])
    value, back = mixed.vjp(x[:2])
    assert torch.allclose(back(torch.ones_like(value)), 2 * x[:2] + 1)


@pytest.mark.parametrize("n", [1, 2, 5, 64, 257, 513, 600])
def test_the_cosine_transform_is_scipys(n):
    x = Key(n).normal((3, n), like=DOUBLE)
    expected = torch.from_numpy(scipy.fft.dct(x.numpy(), norm="ortho"))
    assert torch.allclose(dct(x), expected, atol=1e-11)
    assert torch.allclose(idct(dct(x)), x, atol=1e-11)
    leaf = x.clone().requires_grad_()
    weights = torch.arange(3.0 * n, dtype=torch.float64).reshape(3, n)
    (gradient,) = torch.autograd.grad((dct(leaf) * weights).sum(), leaf)
    assert torch.allclose(gradient, idct(weights), atol=1e-8 * n)


def test_two_dimensional_transforms():
    x = Key(0).normal((2, 3, 8, 520), like=DOUBLE)
    assert torch.allclose(dct2(x), torch.from_numpy(scipy.fft.dctn(x.numpy(), axes=(-2, -1), norm="ortho")), atol=1e-11)
    assert torch.allclose(idct2(dct2(x)), x, atol=1e-11)
    assert dct2(x.float()).dtype == torch.float32


def test_diagonals_combine_where_one_basis_fits_both():
    eigenvalues = Key(0).uniform((5, 6), like=DOUBLE)
    cosine, pixel = Diagonal(Basis.COSINE, eigenvalues), Diagonal(Basis.PIXEL, eigenvalues)
    x = Key(1).normal((3, *SHAPE), like=DOUBLE)
    assert cosine.plus(pixel) is None
    assert cosine.plus(None) is None
    both = cosine.plus(Diagonal.identity(2.0), 0.5)
    assert both is not None
    assert both.basis is Basis.COSINE
    assert torch.allclose(both.apply(x), cosine.apply(x) + x)
    assert torch.allclose(both.apply(both.solve(x)), x)
    per_image = Diagonal.identity().plus(pixel, torch.tensor([1.0, 2.0, 3.0]))
    assert per_image is not None
    assert torch.allclose(per_image.apply(x)[2], x[2] * (1 + 3 * eigenvalues))
    rows = torch.cos(2 * torch.pi * torch.arange(5, dtype=torch.float64) / 5)[:, None]
    half = Diagonal(Basis.FOURIER, 2 + rows + Key(2).uniform((1, 4), like=DOUBLE))
    assert torch.allclose(half.apply(half.solve(x)), x)


def test_gradients_flow_twice_through_jacobians():
    x = Key(0).normal((1, *SHAPE), like=DOUBLE).requires_grad_()
    _, back = F.vjp(x)
    (second,) = torch.autograd.grad(back(torch.ones_like(x)).sum(), x)
    assert torch.allclose(second, torch.full_like(x, 2.0))
