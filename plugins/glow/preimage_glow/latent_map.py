"""The latent that explains the measurement, for any generative prior, operator and noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import torch
from preimage_baselines.line_search import Objective
from preimage_baselines.stopping import Event, Rule, RuleBased, Window, any_met, ratio, which_met
from torch import Tensor

from preimage import (
    ForwardOperator,
    Generative,
    Key,
    LinearOperator,
    Noise,
    NormalizingFlow,
    Prior,
    Problem,
    Status,
    dot,
    norms,
    per_image,
)
from preimage.errors import BadParameter, Incompatible

from .batched_adam import BatchedAdam
from .batched_lbfgs import BatchedLBFGS
from .batched_search import BatchedSearch, SearchState
from .latent_members import GeneratorEnsemble, View, average, views
from .latent_objective import LatentPoint, Penalty, latent_objective
from .latent_starts import SEEDED, Start, check_scale, first_latents, start_objections


@dataclass(frozen=True)
class Member:
    """One search for each image. `window`: its last objectives."""

    search: SearchState[LatentPoint]
    window: Window


@dataclass(frozen=True)
class LatentMapState:
    """- `members`: of the ensemble, one if there is none, in the order of `views`.
    - `gain`: c with A A^T A = c A, (B,), where the measured is put back; None elsewhere."""

    members: tuple[Member, ...]
    gain: Tensor | None


@dataclass(frozen=True)
class Ended(Event):
    """Images all of whose members have ended. `each`: by name, the rules of each member, which say how."""

    each: Sequence[tuple[str, Sequence[Rule | Event]]] = ()

    def sentences(self) -> list[str]:
        said = [[f"{name}: {sentence}" for sentence in which_met(rules)] for name, rules in self.each]
        return ["; ".join(column) for column in zip(*said, strict=True)]


@dataclass(frozen=True, kw_only=True)
class LatentMap(RuleBased[LatentMapState]):
    """Searches the latent space of a generator x = G(z) for the image:

        min over z of  misfit(F(G(z)), y) + weight penalty(z),        x = G(z)

    (Bora et al. 2017, "Compressed sensing using generative models", eq. 3; Asim et al. 2020, "Invertible generative
    models for inverse problems: mitigating representation error and dataset bias", eq. 2). For every prior that is
    `Generative`, every operator, linear or not, and every noise. Not convex: what is found depends on the start, and
    with little or no penalty the way from the start is what regularises, more than the objective does.

    - `penalty`: "none"; "norm", ||z||; "squared-norm" (default), 1/2 ||z||^2, with which weight = sigma^2 gives the
      most probable z under Gaussian noise, and where G is affine the posterior mean; "log-density", -log p(G(z)) =
      1/2 ||z||^2 + log |det G'(z)| up to a constant, which at weight = sigma^2 gives the most probable image, for a
      prior that is a `NormalizingFlow`.

    The papers minimise ||F(G(z)) - y||^2 + gamma ||z||^k, our misfit is half the squared norm for Gaussian noise: their
    gamma is our weight for k = 2 ("squared-norm"), and twice our weight for k = 1 ("norm").

    - `optimiser`: "lbfgs", one memory, line search and end for each image (`BatchedLBFGS`, with `memory` pairs and
      steps of `step_length`), or "adam" (`BatchedAdam`, with `learning_rate`).
    - `step_length`: part of the step of "lbfgs" that is tried first, in (0, 1]; "auto": 0.5 with penalty "none", whose
      result depends on the way, else 1.
    - `start`: "zero": z = 0. "random": normal numbers of deviation c. "fixed-norm": a random direction, norm
      c sqrt(n). "pseudo-inverse": c times the latent of A^+ y with values clipped to [0, 1]. "noise-filled": the same
      with normal noise of deviation 0.2 where A sees nothing (of an inpainting mask: in the hole), clipped.
      "encode": c times the latent of `Problem.x0`, an estimate of another solver (`[start]` in a pipeline). The last
      three are for priors that are an `InvertibleMap`; those with A^+ for linear operators.
      Of the starts of the published code these are all that do not use the true image. The search may leave such a
      start, already consistent with y, nowhere to go: that is what c < 1 is for.
    - `start_scale`: c >= 0; "auto" is 1 for the random ones and 0.35 for the encoded ones.
    - `max_evaluations`: of G and its gradient for each image, >= 1: the budget that counts. `max_steps`: of iterations.
    - `tolerance`: an image is done when its objective has changed by at most this part over the last 10 steps; >= 0.
    - `tau`: if positive, also when its misfit is at most tau^2 times that expected of the true image (Morozov's
      discrepancy principle; `Noise.expected_misfit`); default 0, off. Meant for penalty "none".
    - `max_restarts`: of an image's search from its best point, after steps that find nothing lower or only NaN.
    - `project`: the estimate is x + A^+ (y - A x), what was measured put back; for a linear A whose singular values
      are all 0 or equal, such as an inpainting mask, and little noise.
    - `mirror`: search among the mirror images of what G makes, too, and average. `starts`: so many random starts, and
      average. With a prior that is a `GeneratorEnsemble` the average is over its members, too. Each member of such an
      ensemble is a search of its own, with `max_evaluations` of its own; `evaluations` counts all of them.
    - `images_at_once`: for how many images G is computed together; "auto": one on a CPU, where an image's result is
      then the same to the last bit whatever the batch and its place in it, and all on a GPU.

    NaN or infinity at a point of the search shortens the step; at the start, the latent. An image for which nothing
    helps ends as diverged, with its best finite estimate (zeros if there was none), and the reason says so.
    The estimate is the best so far by the objective (of an ensemble, the mean of the members' best).

    Details of the result: `latent`, z of the best, (B, *latent_shape), of an ensemble (B, members, *latent_shape);
    `evaluations` and `restarts`, (B,), in all; `latent_norm`, `misfit` and `penalty`, (B,), means over members.
    A step costs one evaluation (G, F, F'^T, G'^T), rarely more.
    Raises `BadParameter` for values out of range, `Incompatible` for a penalty, start or projection that the prior or
    operator does not allow.
    """

    prior_type: ClassVar[type[Prior] | None] = Generative

    max_steps: int = 1000
    max_evaluations: int = 300
    penalty: Penalty = "squared-norm"
    optimiser: Literal["lbfgs", "adam"] = "lbfgs"
    memory: int = 100
    step_length: Literal["auto"] | float = "auto"
    learning_rate: float = 0.05
    start: Start = "zero"
    start_scale: Literal["auto"] | float = "auto"
    tolerance: float = 1e-4
    tau: float = 0.0
    max_restarts: int = 5
    project: bool = False
    mirror: bool = False
    starts: int = 1
    images_at_once: Literal["auto"] | int = "auto"

    def __post_init__(self):
        super().__post_init__()
        for name in ("tolerance", "tau"):
            if not 0 <= (value := cast(float, getattr(self, name))) < float("inf"):
                raise BadParameter(f"{name} is {value}", "a finite number >= 0")
        for name, least in {"max_evaluations": 1, "max_restarts": 0, "starts": 1, "images_at_once": 1}.items():
            if (value := getattr(self, name)) != "auto" and value < least:
                raise BadParameter(f"{name} is {value}", f"an integer >= {least}")
        if self.step_length != "auto" and not 0 < self.step_length <= 1:
            raise BadParameter(f"step_length is {self.step_length}", "a number in (0, 1]", 'use 1, or leave it "auto"')
        if self.starts > 1 and self.start not in SEEDED:
            found = f"starts is {self.starts}, and all starts {self.start!r} are the same"
            raise BadParameter(found, f"one of {', '.join(SEEDED)}", 'use start = "random", or starts = 1')
        check_scale(self.start_scale)
        # The searches refuse what is out of range for them.
        _ = BatchedLBFGS(memory=self.memory), BatchedAdam(learning_rate=self.learning_rate)

    def uses_start(self) -> bool:
        return self.start == "encode"

    def objections(self, operator: ForwardOperator, noise: Noise, prior: Prior | None) -> list[Incompatible]:
        found = list[Incompatible]()
        for member in prior.members if isinstance(prior, GeneratorEnsemble) else (prior,):
            found += start_objections(self.start, operator, member)
            if self.penalty == "log-density" and not isinstance(member, NormalizingFlow):
                who = f'penalty "log-density" met {type(member).__name__}, which has no density'
                found.append(Incompatible(who, "a NormalizingFlow", 'use penalty = "squared-norm"'))
        if self.project and not isinstance(operator, LinearOperator):
            who = f"project met {type(operator).__name__}, which is not linear"
            found.append(Incompatible(who, "a LinearOperator", "leave project out"))
        return found

    def init(self, problem: Problem, keys: Sequence[Key]) -> LatentMapState:
        gain = common_gain(problem) if self.project else None
        members = list[Member]()
        for view in self._views(problem):
            z = first_latents(view.problem, self.start, self.start_scale, view.keys(keys))
            search = self._search().start(self._objective(view), z)
            members.append(Member(search, Window.of(search.best.value)))
        return LatentMapState(tuple(members), gain)

    def step(self, problem: Problem, state: LatentMapState) -> LatentMapState:
        pairs = zip(self._views(problem), state.members, strict=True)
        return replace(state, members=tuple(self._advance(view, member) for view, member in pairs))

    def estimate(self, problem: Problem, state: LatentMapState) -> Tensor:
        bests = [member.search.best for member in state.members]
        images = [view.image(best.image) for view, best in zip(self._views(problem), bests, strict=True)]
        x = average(images, [torch.isfinite(best.value) for best in bests])
        if state.gain is None:
            return x
        operator = cast(LinearOperator, problem.operator)
        return x + operator.adjoint(problem.y - operator(x)) / per_image(state.gain, x)

    def objective(self, problem: Problem, state: LatentMapState) -> Tensor:
        return torch.stack([member.search.best.value for member in state.members]).mean(0)

    def rules(self, problem: Problem, state: LatentMapState) -> Sequence[Rule | Event]:
        each = [
            self._rules(view.problem, member) for view, member in zip(self._views(problem), state.members, strict=True)
        ]
        if len(each) == 1:
            return each[0]
        searches = [member.search for member in state.members]
        met = torch.stack([any_met(rules) for rules in each]).all(0)
        failed = torch.stack([search.failed for search in searches]).all(0)
        spent = torch.stack([self._spent(search) for search in searches]).any(0)
        named = [(view.name, rules) for view, rules in zip(self._views(problem), each, strict=True)]
        return [
            Ended("", met & failed, Status.DIVERGED, named),
            Ended("", met & spent, Status.MAX_STEPS, named),
            Ended("", met, Status.CONVERGED, named),
        ]

    def remedy(self) -> str:
        return 'use start = "zero" or a smaller start_scale, and see whether the weights of the prior are finite'

    def details(self, problem: Problem, state: LatentMapState) -> Mapping[str, Tensor]:
        searches = [member.search for member in state.members]
        latents = [search.best.x for search in searches]
        means = {
            "latent_norm": [norms(z) for z in latents],
            "misfit": [search.best.misfit for search in searches],
            "penalty": [search.best.penalty for search in searches],
        }
        return {
            "latent": latents[0] if len(latents) == 1 else torch.stack(latents, 1),
            "evaluations": torch.stack([search.evaluations for search in searches]).sum(0),
            "restarts": torch.stack([search.restarts for search in searches]).sum(0),
            **{name: torch.stack(values).mean(0) for name, values in means.items()},
        }

    def reference_problem(self, key: Key) -> Problem:
        from .reference_flow import reference_problem

        return reference_problem(key)

    def _advance(self, view: View, member: Member) -> Member:
        """A step of the images that still search; others have no budget."""
        left = (self.max_evaluations - member.search.evaluations).clamp_min(0)
        budget = torch.where(any_met(self._rules(view.problem, member)), 0, left)
        search = self._search().step(self._objective(view), member.search, budget)
        return Member(search, member.window.then(search.best.value))

    def _rules(self, problem: Problem, member: Member) -> list[Rule | Event]:
        """What ends one search."""
        search = member.search
        nowhere = "NaN or infinity at every start that was tried"
        broken = "NaN or infinity in every direction from the best point, whose image this is"
        stuck = "no step lowers the objective, which is as low as rounding permits"
        spent = f"the {self.max_evaluations} evaluations of the generator allowed for an image were used up"
        found: list[Rule | Event] = [
            Event(nowhere, search.failed & torch.isinf(search.best.value), Status.DIVERGED),
            Event(broken, search.failed, Status.DIVERGED),
        ]
        if self.tau and (expected := problem.noise.expected_misfit(problem.y)) is not None:
            fit = ratio(search.best.misfit, expected)
            found.append(Rule("the misfit in units of its expected value", fit, self.tau**2))
        # A search that creeps along a wall of NaN changes little, and has not converged.
        change = torch.where(search.hindered, float("inf"), member.window.change())
        return [
            *found,
            Rule("the relative change of the objective over 10 steps", change, self.tolerance),
            Event(stuck, search.stuck),
            Event(spent, self._spent(search), Status.MAX_STEPS),
        ]

    def _spent(self, search: SearchState[LatentPoint]) -> Tensor:
        return search.evaluations >= self.max_evaluations

    def _views(self, problem: Problem) -> list[View]:
        return views(problem, self.mirror, self.starts)

    def _search(self) -> BatchedSearch:
        if self.optimiser == "adam":
            return BatchedAdam(max_restarts=self.max_restarts, learning_rate=self.learning_rate)
        return BatchedLBFGS(max_restarts=self.max_restarts, memory=self.memory, length=self._length())

    def _length(self) -> float:
        if self.step_length == "auto":
            return 0.5 if self.penalty == "none" else 1.0
        return self.step_length

    def _objective(self, view: View) -> Objective[LatentPoint]:
        return latent_objective(view.problem, self.penalty, self.images_at_once)


def common_gain(problem: Problem) -> Tensor:
    """c with A A^T A = c A, (B,): the square of the only singular value of A besides 0, whence A^+ = A^T / c.

    Found, and checked, on one random image. Raises `Incompatible` for an operator with several.
    """
    operator, like = cast(LinearOperator, problem.operator), problem.y
    x = Key(0).child("gain").normal(operator.in_shape, like=like).expand(len(like), *operator.in_shape)
    y = operator(x)
    again = operator(operator.adjoint(y))
    gain = dot(again, y) / dot(y, y).clamp_min(torch.finfo(y.dtype).tiny)
    off = norms(again - per_image(gain, y) * y) / norms(again).clamp_min(torch.finfo(y.dtype).tiny)
    if bool((off > 1e-4).any()) or bool((gain <= 0).any()):
        raise Incompatible(
            f"project met {type(operator).__name__}, whose singular values differ",
            "an operator that only leaves out, such as an inpainting mask (singular values 0, or all the same)",
            "leave project out",
        )
    return gain
