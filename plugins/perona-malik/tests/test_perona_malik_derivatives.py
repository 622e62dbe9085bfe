"""F' and F'': by hand, by automatic differentiation, by differences."""

import math

import pytest
import torch
from preimage_perona_malik import PeronaMalik, _compiled, _scheme
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from preimage import Key, power_iteration
from preimage.testing import check_component

VARIANTS = [
    {},
    {"discretisation": "four-neighbour", "steps": 2},
    {"boundary": "circular", "contrast": 0.4, "steps": 2},
    {"channels": "coupled", "contrast": 0.3, "steps": 2},
    {"channels": "coupled", "discretisation": "four-neighbour", "boundary": "circular", "steps": 1},
]


@pytest.fixture(params=["compiled", "torch"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(_compiled, "serves", lambda x: False)
    else:
        pytest.importorskip("numba")
    return request.param


def images(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return Key(5).child("images").uniform(shape, like=torch.zeros((), dtype=dtype))


def directions(x: Tensor, name: str) -> Tensor:
    return Key(5).child(name).normal(x.shape, like=x)


def test_the_laws_hold(engine: str):
    assert check_component("operator", "perona-malik") >= 5


@pytest.mark.parametrize("choices", VARIANTS, ids=str)
def test_derivative_equals_central_differences(engine: str, choices: dict[str, object]):
    x = 0.3 * images(2, 2, 9, 8)
    operator, v = PeronaMalik((2, 9, 8), **choices), directions(x, "v")
    h = 1e-5
    # Richardson extrapolation takes the error of the differences from h^2 to h^4.
    wide, narrow = ((operator(x + s * v) - operator(x - s * v)) / (2 * s) for s in (2 * h, h))
    differences = (4 * narrow - wide) / 3
    derivative = operator.jvp(x, v)
    assert float((differences - derivative).norm() / derivative.norm()) < 1e-7


@pytest.mark.parametrize("choices", VARIANTS, ids=str)
def test_all_ways_to_the_derivative_agree(engine: str, choices: dict[str, object]):
    x = images(2, 2, 9, 8)
    operator, v, w = PeronaMalik((2, 9, 8), **choices), directions(x, "v"), directions(x, "w")

    def plain(a: Tensor) -> Tensor:
        return _scheme.flow(a, operator.scheme, False)[0]

    forth = torch.func.jvp(plain, (x,), (v,))[1]
    back = torch.func.vjp(plain, x)[1](w)[0]
    y, jacobian = operator.linearize(x)
    torch.testing.assert_close(y, plain(x), rtol=0, atol=1e-13)
    for result in (operator.jvp(x, v), jacobian(v), jacobian.T.adjoint(v), torch.func.jvp(operator, (x,), (v,))[1]):
        torch.testing.assert_close(result, forth, rtol=0, atol=1e-11)
    leaf = x.clone().requires_grad_()
    operator(leaf).backward(w)
    without_states = torch.func.vjp(lambda a: operator(a), x)[1](w)[0]
    for result in (operator.vjp(x)[1](w), jacobian.adjoint(w), jacobian.T(w), leaf.grad, without_states):
        torch.testing.assert_close(result, back, rtol=0, atol=1e-11)


def test_a_pullback_can_be_used_again_and_outlives_changes_of_x(engine: str):
    x = images(2, 1, 9, 8)
    operator, w = PeronaMalik((1, 9, 8)), directions(x, "w")
    _, pullback = operator.vjp(x)
    first = pullback(w)
    x.zero_()
    assert torch.equal(pullback(w), first)


@pytest.mark.parametrize("choices", VARIANTS, ids=str)
def test_second_derivatives(engine: str, choices: dict[str, object]):
    x = (0.4 * images(1, 2, 4, 3)).requires_grad_()
    operator = PeronaMalik((2, 4, 3), **choices)
    w = directions(x.detach(), "w").requires_grad_()
    assert torch.autograd.gradcheck(operator, (x,), fast_mode=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(operator, (x,), fast_mode=True)
    assert torch.autograd.gradcheck(lambda a, b: operator.vjp(a)[1](b), (x, w), fast_mode=True)
    assert torch.autograd.gradcheck(operator.jvp, (x, w), fast_mode=True)


def test_jacobians_and_hessians_by_vectorisation(engine: str):
    x = 0.4 * images(1, 1, 3, 4)
    operator = PeronaMalik((1, 3, 4), contrast=0.3)
    rows = torch.func.jacrev(operator)(x)
    torch.testing.assert_close(torch.func.jacfwd(operator)(x), rows, rtol=0, atol=1e-12)
    basis = torch.eye(12, dtype=x.dtype).reshape(12, 1, 3, 4)
    columns = operator.jvp(x.expand(12, 1, 3, 4).contiguous(), basis)
    torch.testing.assert_close(columns.reshape(12, 12).T, rows.reshape(12, 12), rtol=0, atol=1e-12)

    def energy(a: Tensor) -> Tensor:
        return operator(a).square().sum() / 2

    expected = torch.autograd.functional.hessian(
        lambda a: _scheme.flow(a, operator.scheme, False)[0].square().sum() / 2, x
    )
    torch.testing.assert_close(torch.func.hessian(energy)(x), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(torch.func.jacrev(torch.func.grad(energy))(x), expected, rtol=0, atol=1e-10)
    outer = torch.func.vmap(operator)(x.expand(3, 1, 1, 3, 4))
    torch.testing.assert_close(outer[2], operator(x), rtol=0, atol=0)


def test_gradients_of_a_loss_with_a_gradient_in_it(engine: str):
    """||grad_x ||F(x) - y||^2||^2, as in gradient penalties and unrolled solvers, differentiated again."""
    x = (0.4 * images(2, 1, 5, 4)).requires_grad_()
    operator, y = PeronaMalik((1, 5, 4)), images(2, 1, 5, 4)

    def penalty(function: object) -> Tensor:
        value = (function(x) - y).square().sum()  # type: ignore[operator]
        (gradient,) = torch.autograd.grad(value, x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), x)[0]

    plain = penalty(lambda a: _scheme.flow(a, operator.scheme, False)[0])
    torch.testing.assert_close(penalty(operator), plain, rtol=1e-9, atol=1e-9)


def test_torch_compile_traces_the_plain_scheme():
    operator, x = PeronaMalik((1, 6, 5), steps=2), images(2, 1, 6, 5).requires_grad_()
    w = directions(x.detach(), "w")
    compiled = torch.compile(operator, backend="eager", fullgraph=True)
    y = compiled(x)
    torch.testing.assert_close(y, operator(x), rtol=0, atol=1e-14)
    (gradient,) = torch.autograd.grad(y, x, w)
    torch.testing.assert_close(gradient, operator.vjp(x.detach())[1](w), rtol=0, atol=1e-12)
    pulled = torch.compile(lambda a, b: operator.vjp(a)[1](b), backend="eager", fullgraph=True)(x.detach(), w)
    torch.testing.assert_close(pulled, gradient, rtol=0, atol=1e-12)


def test_linearisation_keeps_its_rows(engine: str):
    for channels in ("separate", "coupled"):
        operator, x = PeronaMalik((2, 6, 5), channels=channels), images(3, 2, 6, 5)
        v = directions(x, "v")
        jacobian, index = operator.linearize(x)[1], torch.tensor([2, 0])
        torch.testing.assert_close(jacobian.rows(index)(v[index]), jacobian(v)[index], rtol=0, atol=1e-14)
        torch.testing.assert_close(
            jacobian.rows(index).adjoint(v[index]), jacobian.adjoint(v)[index], rtol=0, atol=1e-14
        )


@pytest.mark.parametrize("steps", [1, 5])
def test_vjp_holds_the_memory_it_says(engine: str, steps: int):
    x = images(3, 1, 64, 48, dtype=torch.float32)
    operator = PeronaMalik((1, 64, 48), steps=steps)
    operator.vjp(x)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        _, pullback = operator.vjp(x)
    held = sum(event.self_cpu_memory_usage for event in record.events())
    pixels = 65 * 49 if engine == "compiled" else 64 * 48
    value = 3 * 64 * 48 * 4
    assert held == pytest.approx(2 * steps * 3 * pixels * 4 + value, rel=0.01)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        pullback(x)
    assert sum(event.self_cpu_memory_usage for event in record.events()) <= 1.01 * value


def test_forward_holds_states_only_for_a_gradient():
    x = images(3, 1, 64, 48, dtype=torch.float32)
    operator, value = PeronaMalik((1, 64, 48)), 3 * 64 * 48 * 4
    for needed in (False, True):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            y = operator(x.requires_grad_(needed))
        held = sum(event.self_cpu_memory_usage for event in record.events()) - value
        assert held > 9.9 * value if needed else held < 0.01 * value
        assert y.requires_grad is needed
        del y  # or it would be freed within the next record


@pytest.mark.parametrize("boundary", ["neumann", "circular"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 7, 9), (1, 1, 6), (1, 1, 1)])
def test_norm_bound_holds_where_diffusion_runs_backwards(shape: tuple[int, int, int], boundary: str):
    for step_size in (0.1, 0.25):
        operator = PeronaMalik(shape, steps=1, step_size=step_size, contrast=0.1, boundary=boundary)
        i, j = torch.meshgrid(torch.arange(shape[1]), torch.arange(shape[2]), indexing="ij")
        board = ((-1.0) ** (i + j)).to(torch.float64)[None, None]
        # |D u|^2 = 3 contrast^2 is where the density is most concave, |D u| = 0 where it is most convex.
        at = torch.cat([board * 0.1 * math.sqrt(1.5) / 2, board * 0.1 * math.sqrt(3) / 2, 0 * board, images(1, *shape)])
        largest = power_iteration(operator.linearize(at)[1], at, steps=100)
        assert float(largest.max()) <= operator.norm_bound() * (1 + 1e-9)
        if shape == (1, 8, 8) and boundary == "circular" and step_size == 0.1:
            # E'(u) has the eigenvalue 1 + h here, and the bound, L with 1 + h ||D||^2 / 8 = 1 + h, is nearly met.
            assert float(largest[0]) > 0.93 * operator.norm_bound()


def test_norm_bound_of_the_defaults():
    assert PeronaMalik((1, 96, 96)).norm_bound() == pytest.approx((0.5 + 0.5 * 1.15**2) ** 5, rel=1e-3)
    assert PeronaMalik((1, 1, 1)).norm_bound() == 1
