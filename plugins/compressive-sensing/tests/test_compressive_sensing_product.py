"""Products with a dense matrix: the library's up to rounding; the same bits in any batch, on any number of threads."""

import pytest
import torch
from preimage_compressive_sensing import GaussianMatrix, _product
from preimage_compressive_sensing._product import product

from preimage import Key

needs_numba = pytest.mark.skipif(_product.compiled() is None, reason="needs numba")
SIZES = [(1, 1), (3, 5), (4, 1024), (7, 1025), (41, 2047), (130, 3000)]


def drawn(m, n, dtype, count=13):
    like = torch.zeros((), dtype=dtype)
    matrix = Key(0).normal((m, n), like=like)
    return matrix, Key(1).normal((count, n), like=like), Key(2).normal((count, m), like=like)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("m", "n"), SIZES)
def test_it_is_the_product(m, n, dtype):
    matrix, x, y = drawn(m, n, dtype)
    tolerance = 2e-5 if dtype == torch.float32 else 1e-13
    scale = (m * n) ** 0.5
    expected = (x.double() @ matrix.double().mT).to(dtype)
    torch.testing.assert_close(product(x, matrix, False), expected, rtol=0, atol=tolerance * scale)
    expected = (y.double() @ matrix.double()).to(dtype)
    torch.testing.assert_close(product(y, matrix, True), expected, rtol=0, atol=tolerance * scale)


@needs_numba
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_vector_has_the_same_bits_in_any_batch_and_on_any_number_of_threads(dtype, transposed, monkeypatch):
    monkeypatch.setattr(_product, "_ENTRIES_PER_THREAD", 1)
    before = torch.get_num_threads()
    for m, n in SIZES:
        matrix, x, y = drawn(m, n, dtype)
        given = y if transposed else x
        whole = product(given, matrix, transposed)
        for size in (1, 2, 3, 5):
            parts = [product(part, matrix, transposed) for part in given.split(size)]
            assert torch.equal(torch.cat(parts), whole)
        assert torch.equal(product(given.flip(0), matrix, transposed).flip(0), whole)
        try:
            torch.set_num_threads(3)
            assert torch.equal(product(given, matrix, transposed), whole)
        finally:
            torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")  # torch's own, on first use of forward mode
def test_it_is_differentiable_twice_and_under_transforms():
    matrix, x, y = drawn(5, 7, torch.float64, count=3)
    for given, transposed in ((x, False), (y, True)):
        leaf = given.requires_grad_()
        assert torch.autograd.gradcheck(lambda v: product(v, matrix, transposed), leaf, check_forward_ad=True)  # noqa: B023
        assert torch.autograd.gradgradcheck(lambda v: product(v, matrix, transposed), leaf)  # noqa: B023
        leaf = given.detach()
        one = torch.func.vmap(lambda v: product(v[None], matrix, transposed)[0])(leaf)  # noqa: B023
        torch.testing.assert_close(one, product(leaf, matrix, transposed))


def test_without_numba_it_is_the_library_s(monkeypatch):
    matrix, x, y = drawn(6, 9, torch.float32)
    monkeypatch.setattr(_product, "compiled", lambda: None)
    assert torch.equal(product(x, matrix, False), x @ matrix.mT)
    assert torch.equal(product(y, matrix, True), y @ matrix)


def test_half_precision_and_an_empty_batch_are_served():
    matrix, x, _ = drawn(6, 9, torch.float32)
    assert product(x.bfloat16(), matrix.bfloat16(), False).dtype == torch.bfloat16
    assert product(x[:0], matrix, False).shape == (0, 6)


@needs_numba
def test_the_operator_gives_a_batch_what_its_images_get_alone():
    operator = GaussianMatrix(700, measurements=90, key=Key(3))
    x = Key(4).uniform((5, 700))
    y = operator(x)
    for index in range(5):
        assert torch.equal(operator(x[index : index + 1])[0], y[index])
        assert torch.equal(operator.adjoint(y[index : index + 1])[0], operator.adjoint(y)[index])
