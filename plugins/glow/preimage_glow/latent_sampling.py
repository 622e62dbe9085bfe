"""Draws from the posterior of the latent, for the posterior mean and deviation of the image."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor

from preimage import (
    ForwardOperator,
    GaussianNoise,
    Generative,
    Key,
    Noise,
    PoissonNoise,
    Prior,
    Problem,
    Solver,
    solve,
)
from preimage.errors import BadParameter, Incompatible

from .effective_sample_size import ChainDiagnostics, chain_diagnostics
from .gaussian_approximation import GaussianApproximation, laplace_approximation, no_directions
from .latent_curvature import latent_curvature
from .latent_map import LatentMap
from .latent_objective import LatentPoint, latent_objective
from .latent_starts import Start, check_scale, first_latents, start_objections

PROBES = 8
"""Random linear functionals of the image whose effective sample sizes are looked at."""

JITTER = 0.2
"""Part by which the step size of a trajectory varies at random, so that its length never falls in with a period."""


class Positions(NamedTuple):
    """Where the chains are: `z` (B, K, n), the potential U there (B, K) in float64, its `gradient`, the `image`
    (B, K, *in_shape), and the `misfit`, (B, K)."""

    z: Tensor
    potential: Tensor
    gradient: Tensor
    image: Tensor
    misfit: Tensor


class StepSize(NamedTuple):
    """Dual averaging (Hoffman & Gelman 2014, "The No-U-Turn sampler", section 3.2), all (B,): logarithms of the
    step size and of its average, and the mean of (wanted - found) acceptance."""

    log_step: Tensor
    log_average: Tensor
    shortfall: Tensor


@dataclass(frozen=True)
class LatentSamplingState:
    """- `taken`: trajectories so far, those of the warm-up included. `seed`: of each image's random numbers, (B,).
    - `approximation`: reference of the integrator. `mode`: the image that was found first, (B, *in_shape).
    - `at`: where the chains are. `step_size`: as adapted. `lost`: images without a finite start, bool, (B,).
    - `mean`, `squares`: of the images drawn, running mean and sum of squared differences from it, (B, *in_shape).
    - `accepted`: sum of acceptance probabilities over draws and chains, (B,). `evaluations`: of G and its gradient.
    - `probes`: random functionals of the image, (B, p, ...). `trace`: scalars of each draw, (B, p + 2, K, draws).
    """

    taken: int
    seed: Tensor
    approximation: GaussianApproximation
    mode: Tensor
    at: Positions
    step_size: StepSize
    lost: Tensor
    mean: Tensor
    squares: Tensor
    accepted: Tensor
    evaluations: Tensor
    probes: Tensor
    trace: Tensor


@dataclass(frozen=True, kw_only=True)
class LatentSampling(Solver[LatentSamplingState]):
    """Posterior mean of x = G(z) by Hamiltonian Monte Carlo in the latent space of a generator:

        p(z | y) ~ exp(-U(z)),    U(z) = misfit(F(G(z)), y) / s + w / 2 ||z||^2,

    s what turns the misfit into -log p(y | z): sigma^2 for Gaussian noise, 1 / peak for Poisson noise. w, the weight of
    the problem, is Bayes' rule at 1, its default, as for gaussian-posterior; the objective of latent-map has its mode
    at the weight s w. For every prior that is `Generative` and every differentiable operator.

    A trajectory moves (z, v) under U(z) + 1/2 v^T M v in `leapfrog_steps` steps; v ~ N(0, M^-1) before each, and it is
    accepted or not by Metropolis & Hastings, so that U alone decides what the draws are. A step is kick, rotation,
    kick: the motion in the Gaussian reference N(c, M^-1) is a rotation, followed exactly, and only the difference of U
    from the reference kicks v (Beskos, Pinski, Sanz-Serna & Stuart 2011, "Hybrid Monte Carlo on Hilbert spaces",
    with a reference near the posterior in place of the prior). So the many directions that the data say
    nothing about cost no accuracy of integration, however many they are; with one step a trajectory it is
    preconditioned Langevin dynamics (MALA, of Crank-Nicolson type), and for a linear G and F whose curvature is known,
    draws are independent.

    - The reference is Laplace's approximation at a mode c that `latent-map` finds first, from `start` with
      `search_evaluations`: M = w I + J^T W J, the Hessian of U without second derivatives of F(G(z)), within a Krylov
      space of dimension `rank`, and w I elsewhere; 2 `rank` evaluations. Chains begin at c. `rank` pays up to the
      number of latents or measurements. `search_evaluations` = 0: chains begin at `start`, each with random numbers of
      its own where there are some, and the reference is the prior, N(0, I / w).
    - `start`, `start_scale`: as for latent-map; "encode" begins at `Problem.x0`.
    - `chains`: for each image. `warmup`: trajectories that are not used, while the step size is adapted to a mean
      acceptance of `acceptance` (dual averaging), for each image on its own. `draws`: trajectories after that.
    - `step_size`: of rotation and kick, in (0, pi / (2 leapfrog_steps)], at which a trajectory goes a quarter of the
      way round: fixed, or "auto", adapted.
    - `images_at_once`: latents for which G is computed together; "auto": on a CPU the chains of one image, so that its
      result does not depend on its batch mates by rounding, and on a GPU all.

    A trajectory that meets NaN or infinity is rejected. The estimate is the mean of the images drawn by all chains; in
    the warm-up, of where they are.

    Details of the result: `deviation`, pixelwise posterior standard deviation, (B, *in_shape); `mode`, the image of the
    mode; for each image, (B,): `effective_sample_size`, the least of those of misfit, ||z||^2 and 8 random linear
    functionals of x (standard normal coefficients), all chains together, and `scale_reduction`, the largest of their
    split R-hats: above 1.05 the chains have not seen the whole posterior. A mean over draws has the standard error
    deviation / sqrt(effective sample size). `acceptance`, `step_size`, and `evaluations`, of G and its gradient
    together, all chains and the search included: a trajectory takes `leapfrog_steps` for each chain.

    Raises `BadParameter` for values out of range, and for a weight of 0 (no prior, no posterior); `Incompatible` for
    other noises, or Gaussian noise with sigma = 0 (no density), and for starts as latent-map.
    """

    prior_type: ClassVar[type[Prior] | None] = Generative

    chains: int = 4
    warmup: int = 200
    draws: int = 300
    leapfrog_steps: int = 6
    rank: int = 128
    acceptance: float = 0.8
    step_size: Literal["auto"] | float = "auto"
    start: Start = "zero"
    start_scale: Literal["auto"] | float = "auto"
    search_evaluations: int = 300
    images_at_once: Literal["auto"] | int = "auto"

    def __post_init__(self):
        super().__post_init__()
        least = {"chains": 1, "warmup": 0, "draws": 1, "leapfrog_steps": 1, "rank": 0, "search_evaluations": 0}
        for name, lowest in {**least, "images_at_once": 1}.items():
            if (value := getattr(self, name)) != "auto" and value < lowest:
                raise BadParameter(f"{name} is {value}", f"an integer >= {lowest}")
        if not 0 < self.acceptance < 1:
            raise BadParameter(f"acceptance is {self.acceptance}", "a number in (0, 1)", "use 0.8")
        if self.step_size != "auto" and not 0 < self.step_size <= self._longest() * (1 + 1e-9):
            found = f"step_size is {self.step_size} for {self.leapfrog_steps} leapfrog_steps"
            raise BadParameter(found, f"a number in (0, {self._longest():.4g}], pi / (2 leapfrog_steps), or 'auto'")
        check_scale(self.start_scale)

    def uses_start(self) -> bool:
        return self.start == "encode"

    def objections(self, operator: ForwardOperator, noise: Noise, prior: Prior | None) -> list[Incompatible]:
        found = start_objections(self.start, operator, prior)
        if dispersion(noise) is None:
            level = " without a level above zero" if isinstance(noise, GaussianNoise) else ""
            text = f"noise {type(noise).__name__}{level} has no likelihood to draw by"
            found.append(Incompatible(text, "Gaussian noise with sigma > 0, or Poisson noise"))
        return found

    def init(self, problem: Problem, keys: Sequence[Key]) -> LatentSamplingState:
        posterior = _posed(problem)
        count, base = len(problem.y), _weights(problem)
        seed = torch.tensor([int(key.child("seed").generator().integers(2**63)) for key in keys], dtype=torch.int64)
        if self.search_evaluations:
            z, evaluations = self._search(posterior, keys)
            approximation = self._approximate(posterior, z, base, keys)
            evaluations = evaluations + 2 * approximation.precisions.shape[1] + 1
            z = z[:, None].expand(-1, self.chains, -1)
        else:
            own = [[key.child("chain", chain) for key in keys] for chain in range(self.chains)]
            z = torch.stack([first_latents(problem, self.start, self.start_scale, k).flatten(1) for k in own], 1)
            approximation = no_directions(torch.zeros_like(z[:, 0]), base)
            evaluations = problem.y.new_zeros(count)
        at = self._evaluation(posterior, self.chains)(z)
        shape = (self.chains, self.draws)
        like = at.image[:, 0]
        log_step = like.new_full((count,), math.log(self._longest() if self.step_size == "auto" else self.step_size))
        probes = torch.stack([key.child("probes").normal((PROBES, *like.shape[1:]), like) for key in keys])
        return LatentSamplingState(
            taken=0,
            seed=seed.to(problem.y.device),
            approximation=approximation,
            mode=at.image[:, 0],
            at=at,
            step_size=StepSize(log_step, log_step, torch.zeros_like(log_step)),
            lost=~torch.isfinite(at.potential).all(1),
            mean=torch.zeros_like(like),
            squares=torch.zeros_like(like),
            accepted=torch.zeros_like(log_step),
            evaluations=evaluations + self.chains,
            probes=probes,
            trace=torch.zeros(count, PROBES + 2, *shape, dtype=torch.float64, device=like.device),
        )

    def step(self, problem: Problem, state: LatentSamplingState) -> LatentSamplingState:
        posterior, warm = _posed(problem), state.taken < self.warmup
        keys = [Key(seed).child(state.taken) for seed in cast("list[int]", state.seed.tolist())]
        like = state.at.z
        normal = torch.stack([key.child("velocity").normal(like.shape[1:], like) for key in keys])
        uniform = torch.stack([key.child("choices").uniform((2, self.chains), state.at.potential) for key in keys])
        size = (state.step_size.log_step if warm else state.step_size.log_average).exp()
        size = size[:, None] * (1 + JITTER * (2 * uniform[:, 0] - 1)).to(size)
        velocity = state.approximation.draw(normal)
        proposed, final = self._trajectory(posterior, state, velocity, size)
        gain = state.at.potential + state.approximation.quadratic(velocity)
        gain = gain - proposed.potential - state.approximation.quadratic(final)
        probability = acceptance_probability(gain)
        accepted = uniform[:, 1] < probability
        at = Positions(*(_choose(accepted, new, old) for new, old in zip(proposed, state.at, strict=True)))
        state = replace(
            state,
            taken=state.taken + 1,
            at=at,
            evaluations=state.evaluations + self.chains * self.leapfrog_steps,
        )
        if not warm:
            return self._collected(state, probability)
        return state if self.step_size != "auto" else replace(state, step_size=self._adapted(state, probability))

    def estimate(self, problem: Problem, state: LatentSamplingState) -> Tensor:
        return state.mean if state.taken > self.warmup else state.at.image.mean(1)

    def done(self, problem: Problem, state: LatentSamplingState) -> Tensor:
        return torch.full_like(state.lost, state.taken >= self.warmup + self.draws)

    def diverged(self, problem: Problem, state: LatentSamplingState) -> Tensor:
        return state.lost

    def remedy(self) -> str:
        return "use another start: F(G(z)) is not finite where the chains begin"

    def criterion(self, problem: Problem, state: LatentSamplingState) -> Sequence[str]:
        found = self._diagnostics(state)
        drawn = f"{self.chains} chains took {self.draws} draws"
        return [
            f"{drawn}, worth {float(effective):.0f} independent ones (R-hat {float(reduction):.3f})"
            for effective, reduction in zip(*found, strict=True)
        ]

    def details(self, problem: Problem, state: LatentSamplingState) -> Mapping[str, Tensor]:
        drawn = max(0, state.taken - self.warmup)
        total = drawn * self.chains
        unknown = torch.full_like(state.squares, float("nan"))
        effective, reduction = self._diagnostics(state)
        return {
            "deviation": (state.squares / (total - 1)).sqrt() if total > 1 else unknown,
            "mode": state.mode,
            "effective_sample_size": effective,
            "scale_reduction": reduction,
            "acceptance": state.accepted / total if total else torch.full_like(state.accepted, float("nan")),
            "step_size": state.step_size.log_average.exp(),
            "evaluations": state.evaluations,
        }

    def _longest(self) -> float:
        """The step size at which a trajectory turns by a quarter: where the reference is all there is, draws are then
        independent."""
        return 0.5 * math.pi / self.leapfrog_steps

    def _search(self, posterior: Problem, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        """A mode for each image, (B, n), and how many evaluations it took."""
        search = LatentMap(
            start=self.start,
            start_scale=self.start_scale,
            max_evaluations=self.search_evaluations,
            max_steps=self.search_evaluations,
            tolerance=1e-6,
            images_at_once=self.images_at_once,
        )
        found = solve(posterior, search, key=keys, throw=False)
        return found.details["latent"].flatten(1), found.details["evaluations"].to(posterior.y)

    def _approximate(self, posterior: Problem, z: Tensor, base: Tensor, keys: Sequence[Key]) -> GaussianApproximation:
        """Laplace's approximation for each image, by itself on a CPU."""
        scale, every = cast(float, dispersion(posterior.noise)), torch.arange(len(z), device=z.device)
        found = list[GaussianApproximation]()
        for rows in every.split(1 if z.device.type == "cpu" else len(z)):
            curvature = latent_curvature(posterior.rows(rows), z[rows], scale)
            own = [keys[row] for row in cast("list[int]", rows.tolist())]
            found.append(laplace_approximation(curvature, z[rows], base[rows], self.rank, own))
        return GaussianApproximation(
            *(torch.cat([getattr(part, f.name) for part in found]) for f in fields(GaussianApproximation))
        )

    def _evaluation(self, posterior: Problem, chains: int) -> Callable[[Tensor], Positions]:
        """U, its gradient and G(z) as a function of latents (B, K, n)."""
        shape = cast(Generative, posterior.prior).latent_shape
        every = torch.arange(len(posterior.y) * chains, device=posterior.y.device)
        repeated = posterior.rows(every // chains)
        alone = self.images_at_once == "auto" and every.device.type == "cpu"
        objective = latent_objective(repeated, "squared-norm", chains if alone else self.images_at_once)
        scale = cast(float, dispersion(posterior.noise))
        weights = cast(Tensor, repeated.weight).double()

        def positions(z: Tensor) -> Positions:
            point: LatentPoint = objective(every, z.reshape(-1, *shape))[1]()
            energy = point.misfit.double() + 0.5 * weights * point.x.double().square().flatten(1).sum(1)
            energy = torch.where(torch.isfinite(point.value), energy, float("inf"))
            parts = (point.x.flatten(1), energy / scale, point.gradient.flatten(1) / scale, point.image, point.misfit)
            return Positions(*(part.unflatten(0, z.shape[:2]) for part in parts))

        return positions

    def _trajectory(
        self, posterior: Problem, state: LatentSamplingState, velocity: Tensor, size: Tensor
    ) -> tuple[Positions, Tensor]:
        """Where the chains come to, and with what velocity."""
        reference, at, size = state.approximation, state.at, size[..., None]
        centre, cosine, sine = reference.centre[:, None], size.cos(), size.sin()
        positions = self._evaluation(posterior, self.chains)

        def push(at: Positions) -> Tensor:
            return 0.5 * size * (at.z - centre - reference.covariance(at.gradient))

        velocity = velocity + push(at)
        for index in range(self.leapfrog_steps):
            away = at.z - centre
            z, velocity = centre + cosine * away + sine * velocity, cosine * velocity - sine * away
            at = positions(z)
            last = index == self.leapfrog_steps - 1
            velocity = velocity + (1 if last else 2) * push(at)
        return at, velocity

    def _adapted(self, state: LatentSamplingState, probability: Tensor) -> StepSize:
        """Dual averaging, with the constants of Hoffman & Gelman: gamma 0.05, t0 10, kappa 0.75."""
        t, longest = state.taken, math.log(self._longest())
        size = state.step_size
        share = 1 / (t + 10)
        shortfall = (1 - share) * size.shortfall + share * (self.acceptance - probability.mean(1)).to(size.shortfall)
        log_step = (longest - math.sqrt(t) / 0.05 * shortfall).clamp_max(longest)
        weight = t**-0.75
        return StepSize(log_step, weight * log_step + (1 - weight) * size.log_average, shortfall)

    def _collected(self, state: LatentSamplingState, probability: Tensor) -> LatentSamplingState:
        """The state with where the chains are counted as draws."""
        draw, at = state.taken - self.warmup - 1, state.at
        before = draw * self.chains
        own_mean = at.image.mean(1)
        own_squares = (at.image - own_mean[:, None]).square().sum(1)
        total, change = before + self.chains, own_mean - state.mean
        mean = state.mean + change * (self.chains / total)
        squares = state.squares + own_squares + change.square() * (before * self.chains / total)
        seen = torch.einsum("bpn,bkn->bpk", state.probes.flatten(2), at.image.flatten(2))
        scalars = torch.cat((torch.stack((at.misfit, at.z.square().sum(-1)), 1), seen), 1)
        trace = state.trace.clone()
        trace[..., draw] = scalars.to(trace)
        accepted = state.accepted + probability.sum(1).to(state.accepted)
        return replace(state, mean=mean, squares=squares, trace=trace, accepted=accepted)

    def _diagnostics(self, state: LatentSamplingState) -> ChainDiagnostics:
        """The least effective sample size and the largest R-hat, (B,)."""
        drawn = max(0, state.taken - self.warmup)
        found = chain_diagnostics(state.trace[..., :drawn])
        return ChainDiagnostics(found.effective.amin(1), found.scale_reduction.amax(1))


def acceptance_probability(gain: Tensor) -> Tensor:
    """min(1, exp(gain)), of Metropolis & Hastings; 0 for what is not finite."""
    return torch.where(torch.isfinite(gain), gain.clamp_max(0).exp(), 0)


def dispersion(noise: Noise) -> float | None:
    """s with misfit / s = -log p(y | F(x)) up to a constant; None if there is none, or none known."""
    if isinstance(noise, GaussianNoise):
        return noise.sigma**2 or None
    return 1 / noise.peak if isinstance(noise, PoissonNoise) else None


def _weights(problem: Problem) -> Tensor:
    """The weight of every image, (B,). Raises `BadParameter` for 0."""
    weights = torch.as_tensor(problem.weight).to(problem.y).expand(len(problem.y))
    if bool((weights <= 0).any()):
        raise BadParameter("weight is 0", "a number > 0; 1 is Bayes' rule", "leave the weight out")
    return weights


def _posed(problem: Problem) -> Problem:
    """The problem whose objective, misfit + weight / 2 ||z||^2, is s U."""
    return replace(problem, weight=cast(float, dispersion(problem.noise)) * _weights(problem))


def _choose(which: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(which.reshape(*which.shape, *[1] * (new.ndim - 2)), new, old)
