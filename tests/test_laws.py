"""The laws must catch planted defects: each class below is wrong in exactly one way."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from preimage import (
    ForwardOperator,
    GaussianNoise,
    Identity,
    Key,
    LinearOperator,
    Problem,
    Proximable,
    Shape,
    Solver,
    dot,
    per_image,
)
from preimage._reference import ReferenceOperator, ReferencePrior
from preimage.errors import LawBroken
from preimage.testing import check_dataset, check_metric, check_noise, check_operator, check_prior, check_solver

SHAPE = (1, 6, 6)


class Cube(ForwardOperator):
    """F(x) = x^3 + x, a correct nonlinear operator with derivatives by hand."""

    factor = 1.0

    def __init__(self, in_shape: Shape = SHAPE):
        super().__init__(in_shape, in_shape)

    def forward(self, x: Tensor) -> Tensor:
        return x**3 + x

    def jvp(self, x: Tensor, v: Tensor) -> Tensor:
        return self.factor * (3 * x**2 + 1) * v

    def vjp(self, x: Tensor):
        return self(x), lambda w: (3 * x**2 + 1) * w


def reference(**methods) -> LinearOperator:
    """The correct reference operator with some methods replaced."""
    return type("Planted", (ReferenceOperator,), methods)(SHAPE)


class GlobalSeed(ReferenceOperator):
    def forward(self, x):
        return super().forward(x) + 1e-3 * torch.randn(())


class NumpySeed(ReferenceOperator):
    def forward(self, x):
        return super().forward(x) * (1 + 1e-3 * np.random.rand())  # noqa: NPY002 (the planted defect)


class PythonSeed(ReferenceOperator):
    def forward(self, x):
        return super().forward(x) * (1 + 1e-3 * random.random())


class KeepsState(ReferenceOperator):
    calls = 0

    def forward(self, x):
        self.calls = self.calls + 1
        return super().forward(x)


class KeepsStateInCache(ReferenceOperator):
    def __init__(self, in_shape):
        super().__init__(in_shape)
        self.cache = {}

    def forward(self, x):
        self.cache["last"] = x.detach()
        return super().forward(x)


class Modifies(ReferenceOperator):
    def forward(self, x):
        y = super().forward(x)
        if not torch._C._functorch.is_gradtrackingtensor(x) and not x.requires_grad:
            x.add_(1e-6)
        return y


DEFECTS = {
    "wrong adjoint sign": (
        reference(adjoint=lambda self, y: -ReferenceOperator.adjoint(self, y)),
        "not the adjoint|differ",
    ),
    "adjoint of another boundary": (
        reference(adjoint=lambda self, y: 0.5 * (y + torch.nn.functional.pad(y, (1, 0))[..., :-1])),
        "not the adjoint|differ",
    ),
    "forward used as adjoint": (reference(adjoint=lambda self, y: self(y)), "not the adjoint|differ"),
    "jvp off by a factor": (type("Half", (Cube,), {"factor": 0.5})(), "differ|derivative"),
    "vjp off by a factor": (type("Half", (Cube,), {"vjp": lambda self, x: (self(x), lambda w: w)})(), "differ"),
    "vjp's value differs": (
        type("Value", (Cube,), {"vjp": lambda self, x: (self(x) + 1, Cube.vjp(self, x)[1])})(),
        "another value",
    ),
    "mixing the rows of a batch": (
        reference(forward=lambda self, x: ReferenceOperator.forward(self, x) - 0.01 * x.mean(0)),
        "mixes the images",
    ),
    "normalised over the batch": (
        reference(forward=lambda self, x: x / (1 + x.square().mean())),
        "mixes the images|linear",
    ),
    "argument modified": (Modifies(SHAPE), "modifies its argument"),
    "state left behind": (KeepsState(SHAPE), "leaves state behind"),
    "state left in a dictionary": (KeepsStateInCache(SHAPE), "leaves state behind"),
    "hidden global torch seed": (GlobalSeed(SHAPE), "global seed"),
    "hidden global numpy seed": (NumpySeed(SHAPE), "global seed"),
    "hidden global python seed": (PythonSeed(SHAPE), "global seed"),
    "float32 forced inside": (
        reference(forward=lambda self, x: ReferenceOperator.forward(self, x.float()).to(x)),
        "less than float64",
    ),
    "float32 given back": (reference(forward=lambda self, x: ReferenceOperator.forward(self, x).float()), "turns"),
    "linear claimed but affine": (
        reference(forward=lambda self, x: ReferenceOperator.forward(self, x) + 0.1),
        "claims to be linear",
    ),
    "linear claimed but not": (
        reference(forward=lambda self, x: x * x.abs(), adjoint=LinearOperator.adjoint),
        "linear",
    ),
    "norm bound too small": (reference(norm_bound=lambda self: 0.9), "norm_bound"),
    "solve_normal for another shift": (
        reference(solve_normal=lambda self, b, shift: b / (1 + per_image(shift, b))),
        "solve_normal",
    ),
    "wrong out_shape": (reference(forward=lambda self, x: x[..., :-1]), "out_shape|shape"),
    "not differentiable": (reference(forward=lambda self, x: ReferenceOperator.forward(self, x.detach())), "differ"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_planted_operator_defects_are_caught(name):
    operator, complaint = DEFECTS[name]
    with pytest.raises((LawBroken, RuntimeError, ValueError)) as caught:
        check_operator(operator)
    if isinstance(caught.value, LawBroken):
        assert any(part in str(caught.value) for part in complaint.split("|")), str(caught.value)


@pytest.mark.parametrize(
    "operator", [Identity(SHAPE), Cube(), ReferenceOperator(SHAPE)], ids=lambda o: type(o).__name__
)
def test_correct_operators_pass(operator):
    check_operator(operator)


class WrongProx(ReferencePrior):
    def prox(self, x, step):
        return x / (1 + 0.5 * per_image(step, x))


class CouplingPrior(ReferencePrior):
    def energy(self, x):
        return 0.5 * dot(x, x) + x.mean()


class StatefulProx(Proximable):
    """Starts from where it stopped the last time, like the total variation of a well-known library."""

    def __init__(self, in_shape):
        super().__init__(in_shape)
        self.last = None

    def energy(self, x):
        return 0.5 * dot(x, x)

    def prox(self, x, step):
        u = x if self.last is None or self.last.shape != x.shape else self.last
        for _ in range(3):
            u = u - 0.3 * (u - x + per_image(step, x) * u)
        self.last = u
        return u


@pytest.mark.parametrize(
    "prior", [WrongProx(SHAPE), CouplingPrior(SHAPE), StatefulProx(SHAPE)], ids=lambda p: type(p).__name__
)
def test_planted_prior_defects_are_caught(prior):
    with pytest.raises(LawBroken):
        check_prior(prior)


def test_a_correct_prior_passes():
    check_prior(ReferencePrior(SHAPE))


@dataclass(frozen=True, kw_only=True)
class Descent(Solver[Tensor]):
    """Gradient descent: correct."""

    def init(self, problem: Problem, keys: Sequence[Key]) -> Tensor:
        return problem.start()

    def step(self, problem: Problem, state: Tensor) -> Tensor:
        return state - 0.5 * problem.misfit_and_grad(state)[1]

    def estimate(self, problem: Problem, state: Tensor) -> Tensor:
        return state

    def done(self, problem: Problem, state: Tensor) -> Tensor:
        return problem.misfit_and_grad(state)[1].flatten(1).norm(dim=1) < 1e-4


class StopsOnTheMean(Descent):
    def done(self, problem, state):
        return (problem.misfit_and_grad(state)[1].norm() < 1e-3).expand(len(state))


class CouplesByMomentum(Descent):
    def step(self, problem, state):
        return state - 0.5 * problem.misfit_and_grad(state)[1] + 1e-3 * state.mean()


class UsesGlobalSeed(Descent):
    def init(self, problem, keys):
        return torch.randn_like(problem.y)

    max_steps = 3


class DrawsFromTheFirstKey(Descent):
    max_steps = 3

    def init(self, problem, keys):
        return keys[0].normal(problem.y.shape, like=problem.y)


class TunesTheOperator(Descent):
    def init(self, problem, keys):
        problem.operator.step = float(problem.y.mean())  # type: ignore[reportAttributeAccessIssue]
        return problem.start()


@pytest.mark.parametrize(
    "defect", [StopsOnTheMean, CouplesByMomentum, UsesGlobalSeed, DrawsFromTheFirstKey, TunesTheOperator]
)
def test_planted_solver_defects_are_caught(defect):
    with pytest.raises(LawBroken):
        check_solver(defect(max_steps=3) if "max_steps" in vars(defect) else defect())


def test_a_correct_solver_passes():
    check_solver(Descent())


class ZeroSigma(GaussianNoise):
    def draw(self, clean, key):
        return clean + self.sigma * torch.randn(clean.shape, dtype=clean.dtype)


class PooledMisfit(GaussianNoise):
    def misfit(self, predicted, y):
        return 0.5 * (predicted - y).square().sum().expand(len(y))


@pytest.mark.parametrize("noise", [ZeroSigma(sigma=0.1), PooledMisfit(sigma=0.1)], ids=lambda n: type(n).__name__)
def test_planted_noise_defects_are_caught(noise):
    with pytest.raises(LawBroken):
        check_noise(noise)


def test_planted_dataset_defects_are_caught():
    from preimage import Dataset

    class Good(Dataset):
        shape = (1, 4, 4)

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return torch.full(self.shape, 0.25 * index)

        def label(self, index):
            return f"image-{index}"

    check_dataset(Good())
    changes = {
        "label": lambda self, index: "same",
        "__getitem__": lambda self, index: torch.rand(self.shape),
        "__len__": lambda self: 0,
        "shape": (3, 4, 4),
    }
    for name, change in changes.items():
        bad = type("Bad", (Good,), {name: change})()
        if name == "shape":
            bad_item = type("BadItem", (Good,), {"__getitem__": lambda self, index: torch.full((1, 4, 4), 1.5)})()
            with pytest.raises(LawBroken):
                check_dataset(bad_item)
            continue
        with pytest.raises(LawBroken):
            check_dataset(bad)


def test_planted_metric_defects_are_caught():
    def error(estimate, reference):
        return (estimate - reference).flatten(1).square().sum(1)

    check_metric(error)
    pooled = [
        lambda a, b: (a - b).square().sum(),
        lambda a, b: error(a, b) / error(a, b).sum(),
        lambda a, b: error(a, b) * torch.rand(()),
        lambda a, b: error(a.clamp_(0.2, 0.8), b),
    ]
    for metric in pooled:
        with pytest.raises(LawBroken):
            check_metric(metric)
