"""Ensembles: searches for one image whose results are averaged, and the problems that they solve."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from preimage import Generative, Key, LinearOperator, Problem, Shape, check_shape
from preimage.errors import BadParameter, ShapeMismatch


class Mirror(LinearOperator):
    """Left and right exchanged, (B, ..., W) -> (B, ..., W): symmetric and its own inverse."""

    def __init__(self, in_shape: Shape):
        super().__init__(in_shape, in_shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(-1)

    def adjoint(self, y: Tensor) -> Tensor:
        check_shape(y, self.out_shape, "input of the adjoint of Mirror")
        return y.flip(-1)

    def norm_bound(self) -> float:
        return 1.0


class GeneratorEnsemble(Generative):
    """Several generators of images of one shape, each as probable: x = G_k(z), k uniform and z ~ N(0, I).

    As one generator it takes n + 1 numbers, n those of a latent of its members, which are flattened: the first number t
    chooses k, the integer part of K Phi(t), Phi the normal distribution function. `LatentMap` knows the members, and
    averages the images that it finds with each.

    - `members`: at least one. Raises `BadParameter` for none, `ShapeMismatch` unless images and latents agree.
    """

    def __init__(self, members: Sequence[Generative]):
        if not members:
            raise BadParameter("an ensemble of no generators", "at least one")
        super().__init__(members[0].in_shape)
        for name in ("in_shape", "latent_shape"):
            if len(shapes := {getattr(member, name) for member in members}) > 1:
                raise ShapeMismatch(f"members of an ensemble have {name}s {sorted(shapes)}", "one for all")
        self._members = nn.ModuleList(members)
        self.latent_shape = (1 + torch.Size(members[0].latent_shape).numel(),)

    @property
    def members(self) -> tuple[Generative, ...]:
        return tuple(cast("Sequence[Generative]", self._members))

    def decode(self, z: Tensor) -> Tensor:
        check_shape(z, self.latent_shape, "latent z")
        members = self.members
        chosen = (len(members) * torch.special.ndtr(z[:, 0])).long().clamp_max(len(members) - 1)
        each = [
            members[int(k)].decode(latent.reshape(1, *members[int(k)].latent_shape))
            for k, latent in zip(chosen, z[:, 1:], strict=True)
        ]
        return torch.cat(each)


@dataclass(frozen=True)
class View:
    """One member of an ensemble: a problem with the solution's mirror image as its solution, or with itself.

    - `name`: for messages. `problem`: with the member's generator. `mirrored`: which of the two.
    - `start`: number of its random start.
    """

    name: str
    problem: Problem
    mirrored: bool
    start: int

    def image(self, x: Tensor) -> Tensor:
        """The solution of the problem at hand that a solution of this view's problem stands for."""
        return x.flip(-1) if self.mirrored else x

    def keys(self, keys: Sequence[Key]) -> tuple[Key, ...]:
        """Keys of this view's start; those of the problem for the first."""
        return tuple(key.child("again", self.start) if self.start else key for key in keys)


def views(problem: Problem, mirror: bool, starts: int) -> list[View]:
    """The members: each generator, as it is and (with `mirror`) mirrored, from each start.

    To search among the mirror images of what G makes is to search among what G makes for the mirror image of the
    solution: the operator then is F after `Mirror`.
    """
    prior = problem.prior
    generators = prior.members if isinstance(prior, GeneratorEnsemble) else (cast(Generative, prior),)
    found = list[View]()
    for number, generator in enumerate(generators):
        own = problem if generator is prior else replace(problem, prior=generator)
        sides = [(False, own), (True, mirror_image(own))] if mirror else [(False, own)]
        for mirrored, side in sides:
            names = [f"generator {number + 1}"] * (len(generators) > 1) + ["mirrored"] * mirrored
            for start in range(starts):
                name = " ".join([*names, *[f"start {start + 1}"] * (starts > 1)])
                found.append(View(name or "as it is", side, mirrored, start))
    return found


def mirror_image(problem: Problem) -> Problem:
    """The problem whose solutions are the mirror images of those of this one."""
    x0 = None if problem.x0 is None else problem.x0.flip(-1)
    return replace(problem, operator=problem.operator @ Mirror(problem.operator.in_shape), x0=x0)


def average(images: Sequence[Tensor], found: Sequence[Tensor]) -> Tensor:
    """The mean of (B, ...) images over those members that found one, bool (B,) each; zero where none did."""
    if len(images) == 1:
        return images[0]
    counts = torch.stack(list(found)).to(images[0])
    weights = (counts / counts.sum(0).clamp_min(1)).reshape(*counts.shape, *[1] * (images[0].ndim - 1))
    return (weights * torch.stack(list(images))).sum(0)
