"""The laws of each kind of component, as functions that raise `LawBroken`.

`preimage check NAME` runs them over a registered component's examples; a plugin's own tests are one line,
`check_component("operator", "my-operator")`. Computations are in float64 unless the law is about the dtype.
"""

import copy
import pickle
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ._dataset import Dataset
from ._key import Key
from ._noise import Noise
from ._norm import power_iteration
from ._operator import ForwardOperator, LinearOperator
from ._parameters import construct
from ._prior import (
    AveragedDenoiser,
    Denoiser,
    Differentiable,
    Energy,
    Generative,
    InvertibleMap,
    Prior,
    Proximable,
    Quadratic,
    Splittable,
)
from ._problem import Problem
from ._registry import find
from ._solver import Solver, Status, solve
from ._tensors import directional_derivative, dot, norms
from .errors import BadParameter, LawBroken

_DOUBLE = torch.zeros((), dtype=torch.float64)


def check_component(kind: str, name: str) -> int:
    """Hold a registered component to the laws of its kind, for each of its examples; the number of examples.

    Raises `LawBroken` and whatever the registry or the constructor raises.
    """
    component, _ = find(kind, name)
    checks: dict[str, Callable[[Any], None]] = {
        "operator": check_operator,
        "noise": check_noise,
        "prior": check_prior,
        "solver": check_solver,
        "dataset": check_dataset,
        "metric": check_metric,
    }
    for example in component.examples:
        made = construct(kind, name, example, f"{kind} {name!r}", in_shape=component.shape, key=Key(0).child("example"))
        if kind in checks:
            checks[kind](made)
    return len(component.examples)


# Operators


def check_operator(operator: ForwardOperator, key: Key = Key(0), rtol: float = 1e-8) -> None:
    """Shapes, dtypes, purity, independence of rows, derivatives, and for linear ones adjoint, norm and solves."""
    who = type(operator).__name__
    _check_dtypes(operator, key)
    operator = _cast(operator, torch.float64)
    x = key.child("x").uniform((3, *operator.in_shape), like=_DOUBLE)
    v = key.child("v").normal(x.shape, like=x)
    y = operator(x.clone())  # so that a modified argument is still there to be seen below
    require(
        y.shape == (3, *operator.out_shape),
        f"{who}: out_shape is {operator.out_shape}, forward gives {tuple(y.shape[1:])}",
    )
    w = key.child("w").normal(y.shape, like=x)

    def pull(a: Tensor, b: Tensor) -> Tensor:
        return operator.vjp(a)[1](b)

    for what, function, arguments in (
        ("forward", operator.__call__, (x,)),
        ("jvp", operator.jvp, (x, v)),
        ("vjp", pull, (x, w)),
    ):
        check_pure(operator, function, arguments, f"{who}.{what}")
        if not operator.per_image:
            check_rows(function, arguments, f"{who}.{what}", rtol)
    _check_precision(operator, x, v)
    if isinstance(operator, LinearOperator):
        _check_linear(operator, x, v, w, rtol)
    _check_derivatives(operator, x, v, w, rtol)
    reloaded = pickle.loads(pickle.dumps(operator))
    close(reloaded(x), y, 0.0, f"{who}: a saved and reloaded operator gives other numbers")


def _check_dtypes(operator: ForwardOperator, key: Key) -> None:
    who = type(operator).__name__
    for dtype in (torch.float32, torch.float64):
        moved = _cast(operator, dtype)
        x = key.child("x").uniform((2, *operator.in_shape), like=torch.zeros((), dtype=dtype))
        y, pullback = moved.vjp(x)
        for what, tensor in (("forward", moved(x)), ("vjp's value", y), ("vjp", pullback(y)), ("jvp", moved.jvp(x, x))):
            require(tensor.dtype == dtype, f"{who}: {what} turns {dtype} into {tensor.dtype}")


def _check_precision(operator: ForwardOperator, x: Tensor, v: Tensor) -> None:
    def slope(h: float) -> Tensor:
        return (operator(x + h * v) - operator(x - h * v)) / (2 * h)

    # A change of 1e-9 survives in float64 (2e-16), and is lost where anything inside is rounded to float32 (1e-7).
    complaint = f"{type(operator).__name__}: float64 input is computed with less than float64 precision: slopes differ"
    close(slope(1e-9), slope(1e-5), 1e-3, complaint)


def _check_derivatives(operator: ForwardOperator, x: Tensor, v: Tensor, w: Tensor, rtol: float) -> None:
    who = type(operator).__name__
    value, jacobian = operator.linearize(x)
    close(value, operator(x), rtol, f"{who}: linearize returns another value than forward")
    by_hand = jacobian.adjoint(w)
    _duality(jacobian(v), w, v, by_hand, rtol, f"{who}: <F'(x) v, w> and <v, F'(x)^T w> differ")
    automatic = directional_derivative(operator.forward, x, v)
    close(jacobian(v), automatic, rtol, f"{who}: jvp differs from automatic differentiation of forward")
    automatic = torch.func.vjp(operator.forward, x)[1](w)[0]
    close(by_hand, automatic, rtol, f"{who}: vjp differs from automatic differentiation of forward")
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((operator(leaf) * w).sum(), leaf)
    close(gradient, by_hand, rtol, f"{who}: the gradient through autograd differs from vjp")
    check_taylor(operator, x, v)
    if (bound := operator.norm_bound()) is not None:
        largest = float(power_iteration(jacobian, x).max())
        require(
            largest <= bound * (1 + 1e-9), f"{who}: norm_bound is {bound}, but a singular value of {largest} was found"
        )


def check_taylor(operator: ForwardOperator, x: Tensor, v: Tensor, sizes: Sequence[float] = (1e-2, 1e-3, 1e-4)) -> None:
    """||F(x + h v) - F(x) - h F'(x) v|| must fall like h^2, or be at rounding level."""
    y, jacobian = operator.linearize(x)
    slope, scale = jacobian(v), _norm(y) + 1e-30
    errors = [_norm(operator(x + h * v) - y - h * slope) / scale for h in sizes]
    for big, small in pairwise(errors):
        falls = small <= big / 30 or small < 1e-12
        require(falls, f"{type(operator).__name__}: the derivative is wrong, remainders {errors} do not fall like h^2")


def _check_linear(operator: LinearOperator, x: Tensor, v: Tensor, w: Tensor, rtol: float) -> None:
    who = type(operator).__name__
    close(operator(2 * x - 5 * v), 2 * operator(x) - 5 * operator(v), rtol, f"{who}: claims to be linear and is not")
    require(
        bool((operator(torch.zeros_like(x)) == 0).all()), f"{who}: claims to be linear, but F(0) is not 0 (affine?)"
    )
    back = operator.adjoint(w)
    require(back.shape == x.shape, f"{who}: adjoint gives shape {tuple(back.shape)}, not {tuple(x.shape)}")
    _duality(operator(v), w, v, back, rtol, f"{who}: <A v, w> and <v, A^T w> differ: adjoint is not the adjoint")
    close(back, LinearOperator.adjoint(operator, w), rtol, f"{who}: adjoint differs from automatic differentiation")
    check_pure(operator, operator.adjoint, (w,), f"{who}.adjoint")
    if (diagonal := operator.normal_diagonal()) is not None:
        close(diagonal.apply(x), operator.normal(x), rtol, f"{who}: normal_diagonal is not A^T A")
    if (solved := operator.solve_normal(x, 0.3)) is not None:
        close(
            operator.normal(solved) + 0.3 * solved,
            x,
            rtol,
            f"{who}: solve_normal does not solve (A^T A + shift I) u = b",
        )
        shifts = torch.tensor([0.1, 0.3, 2.0], dtype=x.dtype)
        each = operator.solve_normal(x, shifts)
        require(each is not None, f"{who}: solve_normal has a closed form for one shift, but not for one per image")
        close(
            each[1:2], solved[1:2], rtol, f"{who}: solve_normal with one shift per image"
        ) if each is not None else None


# Noise


def check_noise(noise: Noise, key: Key = Key(0)) -> None:
    """Shape and dtype kept, draws repeatable and independent per image, misfit per image with the right gradient."""
    who = type(noise).__name__
    for dtype in (torch.float32, torch.float64):
        clean = key.child("clean").uniform((3, 1, 8, 8), like=torch.zeros((), dtype=dtype)) + 0.1
        y = noise.sample(clean.clone(), key)
        require(
            y.shape == clean.shape and y.dtype == dtype,
            f"{who}.sample turns {clean.dtype} {tuple(clean.shape)} into {y.dtype} {tuple(y.shape)}",
        )
    clean = key.child("clean").uniform((3, 1, 8, 8), like=_DOUBLE) + 0.1

    def sample(a: Tensor) -> Tensor:
        return noise.sample(a, key)

    check_pure(noise, sample, (clean,), f"{who}.sample")
    y = noise.sample(clean, key)
    close(noise.sample(clean[1:2], [key.child(1)]), y[1:2], 0.0, f"{who}.sample: a draw depends on its batch mates")
    misfit = noise.misfit(clean, y)
    require(misfit.shape == (3,), f"{who}.misfit must be per image, (B,); got {tuple(misfit.shape)}")
    check_rows(noise.misfit, (clean, y), f"{who}.misfit", 1e-12)
    automatic = Noise.misfit_grad(noise, clean, y)
    close(noise.misfit_grad(clean, y), automatic, 1e-8, f"{who}.misfit_grad differs from automatic differentiation")
    require(
        bool((noise.misfit(y.clamp_min(1e-3), y.clamp_min(1e-3)) <= misfit + 1e-9).all()),
        f"{who}.misfit is not least at the measurement",
    )


# Priors


def check_prior(prior: Prior, key: Key = Key(0), rtol: float = 1e-6) -> None:
    """Every capability the prior declares, and purity."""
    who = type(prior).__name__
    prior = _cast(prior, torch.float64)
    x = key.child("x").uniform((3, *prior.in_shape), like=_DOUBLE)
    x2 = x + 0.3 * key.child("u").normal(x.shape, like=x)
    if isinstance(prior, Energy):
        shape = tuple(prior.energy(x.clone()).shape)
        require(shape == (3,), f"{who}.energy must be per image, (B,); got {shape}")
        _pure_rows(prior, prior.energy, x, f"{who}.energy", rtol)
    if isinstance(prior, Differentiable):
        _pure_rows(prior, prior.grad, x, f"{who}.grad", rtol)
        close(prior.grad(x), Differentiable.grad(prior, x), rtol, f"{who}.grad differs from automatic differentiation")
    if isinstance(prior, Splittable):
        operator = prior.analysis()
        require(
            operator.in_shape == prior.in_shape, f"{who}.analysis() takes {operator.in_shape}, not {prior.in_shape}"
        )
        _firmly_nonexpansive(prior.prox_coefficients, operator(x), operator(x2), f"{who}.prox_coefficients", rtol)
    if isinstance(prior, Quadratic):
        k, c = prior.analysis()(x), prior.target()
        c = torch.zeros_like(k[0]) if c is None else c
        close(prior.energy(x), 0.5 * dot(k - c, k - c), rtol, f"{who}.energy is not 1/2 ||K x - c||^2")
        complaint = f"{who}.prox_coefficients is not (k + step c) / (1 + step)"
        close(prior.prox_coefficients(k, 0.1), (k + 0.1 * c) / 1.1, rtol, complaint)
    if isinstance(prior, Proximable):
        _pure_rows(prior, lambda a: prior.prox(a, 0.1), x, f"{who}.prox", rtol)
        _firmly_nonexpansive(prior.prox, x, x2, f"{who}.prox", rtol)
        _check_prox(prior, x, key)
        steps = torch.tensor([0.1, 0.2, 0.4], dtype=x.dtype)
        each = torch.cat([prior.prox(x[i : i + 1], float(step)) for i, step in enumerate(steps)])
        close(prior.prox(x, steps), each, 1e-4, f"{who}.prox with one step per image")
        started, _ = prior.prox_from(x, 0.1, prior.prox_from(x2, 0.1, None)[1])
        close(started, prior.prox(x, 0.1), 1e-3, f"{who}.prox_from depends on where it starts")
    if isinstance(prior, Denoiser):
        require(prior.denoise(x.clone(), 0.1).shape == x.shape, f"{who}.denoise must keep the shape")
        _pure_rows(prior, lambda a: prior.denoise(a, 0.1), x, f"{who}.denoise", rtol)
    if isinstance(prior, AveragedDenoiser):
        _check_averaged(prior, x, key)
    if isinstance(prior, Generative):
        z = key.child("z").normal((3, *prior.latent_shape), like=x)
        require(prior.decode(z.clone()).shape == x.shape, f"{who}.decode must give images of in_shape")
        _pure_rows(prior, prior.decode, z, f"{who}.decode", rtol)
    if isinstance(prior, InvertibleMap):
        u = prior.lift(x)
        z = key.child("z").normal((3, *prior.latent_shape), like=x)
        close(prior.project(u), x, rtol, f"{who}: project(lift(x)) is not x")
        close(prior.decode(prior.encode(u)), u, rtol, f"{who}: decode(encode(u)) is not u")
        close(prior.encode(prior.decode(z)), z, rtol, f"{who}: encode(decode(z)) is not z")
        _pure_rows(prior, prior.encode, u, f"{who}.encode", rtol)
        _pure_rows(prior, prior.decode, z, f"{who}.decode", rtol)


def _check_prox(prior: Proximable, x: Tensor, key: Key) -> None:
    """p = prox(x) minimises step R(u) + 1/2 ||u - x||^2: no nearby u may do better."""
    p = prior.prox(x, 0.1)

    def value(u: Tensor) -> Tensor:
        return 0.1 * prior.energy(u) + 0.5 * dot(u - x, u - x)

    for size in (1e-1, 1e-2, 1e-3):
        for index, direction in enumerate((key.child("d", str(size)).normal(x.shape, like=x), x - p, -p)):
            better = value(p + size * direction) < value(p) - 1e-6 * value(p).abs() - 1e-9
            who = f"{type(prior).__name__}.prox"
            require(not bool(better.any()), f"{who} is not the minimiser: {size} along direction {index} is better")


def _check_averaged(prior: AveragedDenoiser, x: Tensor, key: Key) -> None:
    """N = Id + (D - Id) / t has at most the Lipschitz constant it says, for pairs near and far."""
    who, t, bound = type(prior).__name__, prior.averaged, prior.contraction
    require(0 < t < 1, f"{who}.averaged is {t}, not a number in (0, 1)")
    require(0 <= bound <= 1, f"{who}.contraction is {bound}, not a number in [0, 1]")
    for size in (1.0, 1e-3):
        move = size * key.child("move", str(size)).normal(x.shape, like=x)
        for sigma in (0.02, 0.1):
            denoised = prior.denoise(x + move, sigma) - prior.denoise(x, sigma)
            ratio = float((norms(move + (denoised - move) / t) / norms(move)).amax())
            complaint = f"{who}: distances grow {ratio:.12g} times under N, not at most {bound}"
            require(ratio <= bound + 1e-9, complaint)


# Solvers


def check_solver(solver: Solver[Any], key: Key = Key(0), problem: Problem | None = None, rtol: float = 1e-5) -> None:
    """Purity, independence of the batch, one weight per image, dtype; on a small reference problem unless another is
    given."""
    who = type(solver).__name__
    given = solver.reference_problem(key) if problem is None else problem
    keys = key.rows(len(given.y))
    parts = [part for part in (given.operator, given.prior, given.noise) if part is not None]
    before = [_fingerprint(part) for part in parts]

    def run(y: Tensor) -> Tensor:
        whole = Problem(given.operator, y, given.noise, given.prior, given.weight)
        return solve(whole, solver, key=keys[: len(y)]).x

    try:
        replace(solver, max_steps=-1)
        raise LawBroken(f"{who} accepts max_steps = -1: its __post_init__ does not call super().__post_init__()")
    except BadParameter:
        pass
    x = run(given.y.clone())
    require(x.shape == (len(given.y), *given.operator.in_shape), f"{who} gives shape {tuple(x.shape)}")
    require(x.dtype == given.y.dtype, f"{who} turns {given.y.dtype} into {x.dtype}")
    check_pure(solver, run, (given.y,), who)
    for index in range(len(given.y)):
        alone = solve(given.rows(torch.tensor([index])), solver, key=[keys[index]])
        require(alone.status[0] is not Status.DIVERGED, f"{who} diverges on the reference problem")
        close(alone.x, x[index : index + 1], rtol, f"{who}: the result of image {index} depends on its batch mates")
    for part, unchanged in zip(parts, before, strict=True):
        require(_fingerprint(part) == unchanged, f"{who} leaves state behind on {type(part).__name__}")
    if given.prior is not None:
        weights = 2.0 ** -torch.arange(len(given.y), dtype=given.y.dtype)
        together = solve(replace(given, weight=weights), solver, key=keys).x
        for index, weight in enumerate(cast("list[float]", weights.tolist())):
            alone = solve(replace(given.rows(torch.tensor([index])), weight=weight), solver, key=[keys[index]])
            complaint = f"{who}: with one weight per image, image {index} differs from a run with its weight alone"
            close(together[index : index + 1], alone.x, rtol, complaint)
    backwards = torch.arange(len(given.y)).flip(0)
    flipped = solve(given.rows(backwards), solver, key=tuple(reversed(keys))).x
    close(flipped.flip(0), x, rtol, f"{who}: the result depends on the order of the batch")


# Datasets


def check_dataset(dataset: Dataset) -> None:
    """Images of the declared shape, float32 in [0, 1], the same each time, with unique labels."""
    who = type(dataset).__name__
    require(len(dataset) > 0, f"{who} is empty")
    for index in range(min(len(dataset), 4)):
        image = dataset[index]
        require(
            tuple(image.shape) == dataset.shape,
            f"{who}[{index}] has shape {tuple(image.shape)}, declared {dataset.shape}",
        )
        require(image.dtype == torch.float32, f"{who}[{index}] is {image.dtype}, not float32")
        require(float(image.min()) >= 0 and float(image.max()) <= 1, f"{who}[{index}] leaves [0, 1]")
        close(dataset[index], image, 0.0, f"{who}[{index}] is different the second time")
    labels = [dataset.label(index) for index in range(len(dataset))]
    require(len(set(labels)) == len(labels), f"{who} uses a label twice")


# Metrics


def check_metric(metric: Callable[[Tensor, Tensor], Tensor], key: Key = Key(0)) -> None:
    """metric(estimate, reference): one finite value per image, (B,), pure, and independent of batch mates."""
    who = type(metric).__name__
    reference = key.child("reference").uniform((3, 1, 16, 16))
    estimate = (reference + 0.1 * key.child("error").normal(reference.shape)).clamp(0, 1)
    value = metric(estimate.clone(), reference.clone())
    require(value.shape == (3,), f"{who} must be per image, (B,); got {tuple(value.shape)}")
    require(bool(torch.isfinite(value).all()), f"{who} is not finite")
    check_pure(metric, metric, (estimate, reference), who)
    check_rows(metric, (estimate, reference), who, 1e-5)


# Rules shared by all kinds


def require(holds: bool, complaint: str) -> None:
    """Raise `LawBroken` unless it holds."""
    if not holds:
        raise LawBroken(complaint)


def close(a: Tensor, b: Tensor, rtol: float, complaint: str) -> None:
    """Raise `LawBroken` if a and b differ by more than rtol times their largest value (rtol 0: bit-equal)."""
    require(a.shape == b.shape, f"{complaint}: shapes {tuple(a.shape)} and {tuple(b.shape)}")
    if bool(torch.isinf(a).any()):  # the energy of a constraint: the same infinities, or the difference below is NaN
        a, b = (torch.where(torch.isinf(t) & (a == b), 0, t) for t in (a, b))
    scale = max(float(a.abs().max()), float(b.abs().max()), 1e-30)
    gap = float((a - b).abs().max())
    require(gap <= rtol * scale, f"{complaint}: by {gap:.2e}, allowed {rtol * scale:.2e}")


def check_pure(owner: object, function: Callable[..., Tensor], arguments: tuple[Tensor, ...], who: str) -> None:
    """The same result for the same arguments, whatever ran before and whatever the global seeds; nothing modified."""
    before, originals = _fingerprint(owner), [a.clone() for a in arguments]
    _seed_globally(1)
    first = function(*arguments).clone()
    for argument, original in zip(arguments, originals, strict=True):
        require(torch.equal(argument, original), f"{who} modifies its argument")
    require(_fingerprint(owner) == before, f"{who} leaves state behind on {type(owner).__name__}")
    function(*(a.flip(0) * 0.5 for a in arguments))
    _seed_globally(2)
    close(function(*arguments), first, 0.0, f"{who} depends on a global seed or on what ran before")


def check_rows(function: Callable[..., Tensor], arguments: tuple[Tensor, ...], who: str, rtol: float) -> None:
    """A batch equals its images one by one."""
    whole = function(*arguments)
    for index in range(len(whole)):
        alone = function(*(a[index : index + 1] for a in arguments))
        close(alone, whole[index : index + 1], rtol, f"{who} mixes the images of a batch")


def _pure_rows(owner: object, function: Callable[[Tensor], Tensor], x: Tensor, who: str, rtol: float) -> None:
    check_pure(owner, function, (x,), who)
    check_rows(function, (x,), who, rtol)


def _firmly_nonexpansive(prox: Callable[[Tensor, float], Tensor], a: Tensor, b: Tensor, who: str, rtol: float) -> None:
    p, q = prox(a, 0.1), prox(b, 0.1)
    require(p.shape == a.shape, f"{who} must keep the shape, got {tuple(p.shape)}")
    excess = dot(p - q, p - q) - dot(p - q, a - b)
    require(bool((excess <= rtol * dot(a - b, a - b) + 1e-12).all()), f"{who} is not firmly non-expansive")


def _duality(forth: Tensor, w: Tensor, v: Tensor, back: Tensor, rtol: float, complaint: str) -> None:
    # Relative to the norms, not to the products, which may cancel.
    gap = float((dot(forth, w) - dot(v, back)).abs().max())
    scale = _norm(forth) * _norm(w) + 1e-30
    require(gap <= rtol * scale, f"{complaint}: by {gap:.2e}, allowed {rtol * scale:.2e}")


def _norm(tensor: Tensor) -> float:
    return float(tensor.square().sum().sqrt())


def _seed_globally(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (the law is about this very seed)


def _cast(module: Any, dtype: torch.dtype) -> Any:
    return copy.deepcopy(module).to(dtype=dtype)


def _fingerprint(thing: object, depth: int = 4) -> object:
    """A value that changes when anything stored on the object changes."""
    if isinstance(thing, Tensor):
        return (str(thing.dtype), tuple(thing.shape), thing.detach().cpu().contiguous().numpy().tobytes())
    if isinstance(thing, np.ndarray):
        return thing.tobytes()
    if isinstance(thing, str | int | float | bool | bytes | None):
        return thing
    if depth == 0:
        return type(thing).__name__
    if isinstance(thing, dict):
        return tuple((str(name), _fingerprint(value, depth - 1)) for name, value in thing.items())  # type: ignore[reportUnknownVariableType]
    if isinstance(thing, list | tuple | set | frozenset):
        return tuple(_fingerprint(value, depth - 1) for value in thing)  # type: ignore[reportUnknownVariableType]
    return (
        (type(thing).__name__, _fingerprint(vars(thing), depth - 1))
        if hasattr(thing, "__dict__")
        else type(thing).__name__
    )
