"""The compiled and the portable blur: each by itself, and against each other."""

import itertools
import subprocess
import sys

import pytest
import torch
from preimage_gaussian_blur import GaussianBlur, _function, _portable
from preimage_gaussian_blur.matrix import BOUNDARIES
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual

from preimage import Key
from preimage.testing import check_operator

BACKENDS = ["compiled", "portable"]


def images(*shape, dtype=torch.float64):
    return Key(1).child("images").normal(shape, like=torch.zeros((), dtype=dtype))


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    """Runs a test with numba and without."""
    if request.param == "compiled":
        pytest.importorskip("numba")
        monkeypatch.setattr(_portable, "blur", _never)
    else:
        monkeypatch.setattr(_function, "compiled", lambda: None)
    return request.param


def _never(*arguments):
    raise AssertionError("the portable blur ran although numba is there")


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_each_keeps_the_laws(backend, boundary):
    for size, shape in ((11, (2, 19, 30)), (5, (1, 6, 5)), (21, (1, 30, 23))):
        check_operator(GaussianBlur(shape, size=size, sigma=size / 6, boundary=boundary))


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_both_give_the_same_numbers(boundary, monkeypatch):
    pytest.importorskip("numba")
    for (height, width), size in itertools.product(
        [(64, 47), (25, 31), (7, 9), (1, 5)], [1, 3, 5, 7, 9, 11, 13, 21, 25]
    ):
        operator = GaussianBlur((2, height, width), size=size, sigma=0.3 + size / 6, boundary=boundary)
        for dtype, tolerance in ((torch.float64, 2e-15), (torch.float32, 1e-6)):
            x = images(3, 2, height, width, dtype=dtype)
            fast = operator(x), operator.adjoint(x)
            with monkeypatch.context() as patch:
                patch.setattr(_function, "compiled", lambda: None)
                plain = operator(x), operator.adjoint(x)
            for a, b in zip(fast, plain, strict=True):
                assert a.dtype == b.dtype == dtype
                assert torch.allclose(a, b, rtol=0, atol=tolerance * float(x.abs().max())), (height, width, size)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_float32_is_accurate(backend, boundary):
    operator = GaussianBlur((1, 33, 47), boundary=boundary)
    x = images(2, 1, 33, 47)
    for call in (operator, operator.adjoint):
        assert float((call(x.float()).double() - call(x)).abs().max()) <= 5e-7


@pytest.mark.parametrize("boundary", ["symmetric", "mirror", "replicate"])
def test_gradients_to_second_order(backend, boundary):
    operator = GaussianBlur((1, 7, 6), size=5, sigma=1.0, boundary=boundary)
    x = images(2, 1, 7, 6).requires_grad_()

    def cubic(a):
        return operator(operator(a) ** 3)

    assert gradcheck(cubic, (x,), check_forward_ad=True)
    assert gradgradcheck(cubic, (x,), check_fwd_over_rev=True)
    assert gradcheck(operator.adjoint, (x,), check_forward_ad=True)


@pytest.mark.parametrize("boundary", ["circular", "mirror"])
def test_transforms_of_torch_func(backend, boundary):
    operator = GaussianBlur((1, 6, 7), size=5, sigma=1.0, boundary=boundary)
    x = images(1, 1, 6, 7)
    matrix = operator(torch.eye(42, dtype=torch.float64).reshape(42, 1, 6, 7)).reshape(42, 42).mT
    for jacobian in (torch.func.jacrev(operator.forward), torch.func.jacfwd(operator.forward)):
        assert torch.allclose(jacobian(x).reshape(42, 42), matrix, rtol=0, atol=1e-15)
    stacked = images(3, 2, 1, 6, 7)
    assert torch.equal(torch.func.vmap(operator)(stacked), torch.stack([operator(a) for a in stacked]))
    last = torch.func.vmap(operator, in_dims=-1, out_dims=-1)(stacked.movedim(0, -1))
    assert torch.equal(last.movedim(-1, 0), torch.func.vmap(operator)(stacked))
    hessian = torch.func.hessian(lambda a: 0.5 * operator(a).square().sum())(x).reshape(42, 42)
    assert torch.allclose(hessian, matrix.mT @ matrix, rtol=0, atol=1e-15)


def test_forward_mode_without_torch_func(backend):
    operator = GaussianBlur((1, 9, 9), boundary="replicate")
    x, v = images(1, 1, 9, 9), images(1, 1, 9, 9) ** 2
    with dual_level():
        value, tangent = unpack_dual(operator(make_dual(x, v)))
    assert torch.equal(value, operator(x))
    assert torch.equal(tangent, operator(v))


def test_half_precision_is_computed_in_float32(backend):
    operator = GaussianBlur((1, 24, 24), boundary="mirror")
    x = images(2, 1, 24, 24).half()
    for call in (operator, operator.adjoint):
        assert torch.equal(call(x), call(x.float()).half())


def test_autocast_does_not_round_the_border(backend):
    operator = GaussianBlur((1, 24, 24))
    x = images(2, 1, 24, 24, dtype=torch.float32)
    expected = operator(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(operator(x), expected)


def test_inference_mode_leaves_nothing_behind(backend):
    operator = GaussianBlur((1, 27, 26), size=9, sigma=1.1, boundary="mirror")
    with torch.inference_mode():
        operator(images(1, 1, 27, 26))
        operator.adjoint(images(1, 1, 27, 26))
    x = images(1, 1, 27, 26).requires_grad_()
    (gradient,) = torch.autograd.grad(operator(x).square().sum(), x)
    assert torch.allclose(gradient, 2 * operator.normal(x.detach()), rtol=0, atol=1e-14)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_number_of_threads_does_not_change_the_numbers(boundary):
    pytest.importorskip("numba")
    shape, threads = (3, 190, 300), torch.get_num_threads()
    operator = GaussianBlur(shape, boundary=boundary)
    x = images(2, *shape)
    try:
        torch.set_num_threads(1)
        alone = operator(x), operator.adjoint(x)
        torch.set_num_threads(5)
        together = operator(x), operator.adjoint(x)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(alone[0], together[0])
    assert torch.equal(alone[1], together[1])


def test_infinite_and_missing_values_stay_where_the_kernel_reaches(backend):
    operator = GaussianBlur((1, 40, 40), size=5, sigma=1.0)
    x = torch.zeros(1, 1, 40, 40)
    x[0, 0, 20, 20] = float("nan")
    assert int(operator(x).isnan().sum()) == 25


def test_without_numba_the_portable_blur_is_taken():
    script = """
import sys
sys.modules["numba"] = None
import torch
from preimage_gaussian_blur import GaussianBlur, _function
assert _function.compiled() is None
x = torch.rand(1, 1, 20, 20)
operator = GaussianBlur((1, 20, 20))
assert abs(float(operator(x).mean() - x.mean())) < 1e-6
print("portable")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "portable\n", done.stderr


def test_torch_compile_goes_around_it():
    script = """
import torch
from preimage_gaussian_blur import GaussianBlur
x = torch.rand(1, 1, 20, 20, requires_grad=True)
operator = GaussianBlur((1, 20, 20), boundary="mirror")
compiled = torch.compile(lambda a: (operator(2 * a) ** 2).sum(), backend="eager")
(gradient,) = torch.autograd.grad(compiled(x), x)
assert torch.allclose(gradient, 8 * operator.normal(x), atol=1e-5)
print("compiled")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "compiled\n", done.stderr


def test_the_entry_module_imports_no_torch():
    script = "import sys, preimage_gaussian_blur.plugin as p; p.preimage_components(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_gpu_gives_the_same_numbers(boundary):
    operator = GaussianBlur((2, 40, 33), boundary=boundary)
    x = images(3, 2, 40, 33)
    for call in (operator, operator.adjoint):
        assert torch.allclose(call(x.cuda()).cpu(), call(x), rtol=0, atol=1e-14)
    check_operator(operator.cuda())
