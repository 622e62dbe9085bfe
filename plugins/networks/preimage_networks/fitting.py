"""Fitting a network to one image: the weights are the unknowns, and the network is the prior."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from preimage import ForwardOperator, Key, Noise, Prior, Problem, Solver
from preimage.errors import BadParameter, Incompatible

from .early_stopping import Best, Spread
from .untrained_network import ImageNetwork

FIRST, SECOND, TINY = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class FitState:
    """One network per image.

    - `weights`, `moment`, `square`: of the network, and Adam's moments of their gradient, (B, weights).
    - `inputs`: of the network, fixed, (B, *input_shape). `seeds`: of its perturbations, (B,), int64.
    - `steps`: taken, the same for all images still running. `average`: of the outputs, or None.
    - `best`: the estimate. `spread`: of recent outputs, or None where the rule does not need it.
    """

    weights: Tensor
    moment: Tensor
    square: Tensor
    inputs: Tensor
    seeds: Tensor
    steps: int
    average: Tensor | None
    best: Best
    spread: Spread | None


@dataclass(frozen=True, kw_only=True)
class NetworkFit(Solver[FitState]):
    """Minimises the misfit of F(network(weights, input)) over the weights, by Adam, one network for each image.

    No training data: what regularises is that such a network fits images sooner, or better, than noise. For any
    operator, linear or not, and any noise with a misfit; images have values in (0, 1), the range of the sigmoid that
    ends the network. Weights and input are drawn from the image's own key, so that a run can be repeated and no image
    depends on its batch mates. Problem.x0 has no meaning here and is not used.

    - `learning_rate`: of Adam (Kingma & Ba 2015; moments 0.9, 0.999), > 0.
    - `stopping`: which rule ends an image's run before max_steps.
      "discrepancy": the first estimate whose misfit is at most tau^2 times the expected misfit of the true image
      (Morozov; `Noise.expected_misfit`). "variance": the outputs of the last `window` steps spread least where the
      image is fitted and the noise not yet; stops after `patience` steps without less spread, and gives the estimate
      where it was least (Wang et al. 2021, "Early stopping for deep image prior"). "none": all steps.
      "auto" (default): "discrepancy" where the noise model knows a positive level, else "variance".
    - `tau`: > 0, for "discrepancy". `window`, `patience`: steps, >= 1, for "variance".
    - `averaging`: r in [0, 1): the estimate is the average of the outputs, a <- r a + (1 - r) x; 0 for the last output.
    - `input_noise`: deviation of the normal numbers added to the input in each step, afresh, from the key; >= 0.
    - `max_steps`: >= 0.

    The estimate is the best so far: by the spread under "variance", by its misfit otherwise; the truth is never looked
    at. `objective` is the misfit of the estimate.

    Networks are computed in single precision, one image at a time on a CPU, together on a GPU. The problem is computed
    in the dtype of y, for all images together. On a CPU a batch gives exactly what its images give alone: in double
    precision always, in single precision with operators whose result for an image has the same bits in any batch. All
    of ours have; a dense random matrix only where numba is installed. The fit is chaotic: without that, the last bits
    become hundredths of a decibel within ten steps, and tenths within a hundred.

    A step costs one F and one F'^T, and one more F with averaging.
    Raises `BadParameter` for values out of range; needs images (C, H, W) with sides of at least 4 pixels, or
    `Incompatible` is raised when a pipeline is assembled.
    """

    learning_rate: float = 0.01
    stopping: Literal["auto", "discrepancy", "variance", "none"] = "auto"
    tau: float = 1.0
    window: int = 100
    patience: int = 300
    averaging: float = 0.0
    input_noise: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        for name in ("learning_rate", "tau"):
            if not 0 < (value := getattr(self, name)) < float("inf"):
                raise BadParameter(f"{name} is {value}", "a finite number > 0")
        for name in ("window", "patience"):
            if (value := getattr(self, name)) < 1:
                raise BadParameter(f"{name} is {value}", "an integer >= 1")
        if not 0 <= self.averaging < 1:
            raise BadParameter(f"averaging is {self.averaging}", "a number >= 0 and < 1", "write averaging = 0.99")
        if not 0 <= self.input_noise < float("inf"):
            raise BadParameter(f"input_noise is {self.input_noise}", "a finite number >= 0")
        self.network((3, 8, 8))  # refuses what the network refuses

    @abstractmethod
    def network(self, shape: tuple[int, int, int]) -> ImageNetwork:
        """The network for images of this shape (C, H, W)."""

    def objections(self, operator: ForwardOperator, noise: Noise, prior: Prior | None) -> list[Incompatible]:
        shape = operator.in_shape
        if len(shape) == 3 and min(shape[1:]) >= 4:
            return []
        found = f"{type(self).__name__} met an operator for inputs of shape {shape}"
        return [Incompatible(found, "images (C, H, W) with sides of at least 4 pixels")]

    def uses_start(self) -> bool:
        return False

    def init(self, problem: Problem, keys: Sequence[Key]) -> FitState:
        network, like = self._network(problem), torch.zeros((), device=problem.y.device)
        keep_freed_memory()
        weights = torch.stack([network.draw_weights(key.child("weights"), like) for key in keys])
        inputs = torch.stack([network.draw_input(key.child("input"), like) for key in keys])
        seeds = [int(key.child("perturbation").generator().integers(2**63)) for key in keys]
        with torch.no_grad():
            pieces = _split(network, weights, inputs)
            x = torch.cat([network(w, z) for w, z in pieces]).to(problem.y)
        misfit, zero, watched = problem.misfit(x), torch.zeros_like(weights), self._watched(problem)
        score = torch.where(watched, float("inf"), misfit)
        return FitState(
            weights=weights,
            moment=zero,
            square=zero,
            inputs=inputs,
            seeds=torch.tensor(seeds, device=weights.device),
            steps=0,
            average=x if self.averaging else None,
            best=Best.of(x, misfit, score),
            spread=Spread.of(x) if bool(watched.any()) else None,
        )

    def step(self, problem: Problem, state: FitState) -> FitState:
        network, steps = self._network(problem), state.steps + 1
        x, misfit, gradient = self._fit(problem, network, state.weights, self._perturbed(state))
        # The output is that of the weights before this step: those after it are seen in the next one.
        moment = torch.lerp(state.moment, gradient, 1 - FIRST)
        square = torch.lerp(state.square, gradient.square(), 1 - SECOND)
        size = self.learning_rate / (1 - FIRST**steps)
        weights = state.weights - size * moment / ((square / (1 - SECOND**steps)).sqrt() + TINY)
        average, estimate, fits = None, x, misfit
        if state.average is not None:
            # The first output counts like every other: without this it would linger.
            average = torch.lerp(state.average, x, max(1 - self.averaging, 1 / steps))
            estimate, fits = average, problem.misfit(average)
        spread, score = None, fits
        if state.spread is not None:
            spread = state.spread.then(x, self.window)
            spreads = spread.variance if steps >= self.window else torch.full_like(fits, float("inf"))
            score = torch.where(self._watched(problem), spreads, fits)
        best = state.best.then(estimate, fits, score)
        return FitState(weights, moment, square, state.inputs, state.seeds, steps, average, best, spread)

    def estimate(self, problem: Problem, state: FitState) -> Tensor:
        return state.best.x

    def objective(self, problem: Problem, state: FitState) -> Tensor:
        return state.best.misfit

    def done(self, problem: Problem, state: FitState) -> Tensor:
        calm = (state.best.since >= self.patience) & (state.steps >= self.window)
        return torch.where(self._watched(problem), calm, state.best.misfit <= self._limit(problem))

    def criterion(self, problem: Problem, state: FitState) -> Sequence[str]:
        variance = f"the outputs spread no less for {self.patience} steps (smoothed variance)"
        misfit = f"the misfit fell to {self.tau**2:.3g} times its expected value (discrepancy principle)"
        return [variance if watched else misfit for watched in self._watched(problem).tolist()]

    def remedy(self) -> str:
        return "use a smaller learning_rate"

    def _watched(self, problem: Problem) -> Tensor:
        """Which images the spread of the outputs decides on: bool, (B,)."""
        watched = self.stopping == "variance"
        if self.stopping != "auto":
            return torch.full((len(problem.y),), watched, device=problem.y.device)
        expected = problem.noise.expected_misfit(problem.y)
        return torch.ones_like(problem.y.flatten(1)[:, 0], dtype=torch.bool) if expected is None else expected == 0

    def _limit(self, problem: Problem) -> Tensor:
        """The misfit that ends a run, (B,); -1 where none does."""
        expected = problem.noise.expected_misfit(problem.y)
        if self.stopping in ("none", "variance") or expected is None:
            return torch.full_like(problem.y.flatten(1)[:, 0], -1)
        return self.tau**2 * expected

    def _network(self, problem: Problem) -> ImageNetwork:
        channels, height, width = problem.operator.in_shape
        return self.network((channels, height, width))

    def _perturbed(self, state: FitState) -> Tensor:
        if not self.input_noise:
            return state.inputs
        shape = state.inputs.shape[1:]
        drawn = [Key(int(seed)).child(state.steps).normal(shape, like=state.inputs) for seed in state.seeds.tolist()]
        return state.inputs + self.input_noise * torch.stack(drawn)

    def _fit(
        self, problem: Problem, network: ImageNetwork, weights: Tensor, inputs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs, their misfits, and the gradients of these in the weights."""
        pieces = [network.linearise(w, z) for w, z in _split(network, weights, inputs)]
        x = torch.cat([output for output, _ in pieces]).to(problem.y)
        misfit, slope = problem.misfit_and_grad(x)
        slope = slope / problem.y[0].numel()
        if slope.dtype == torch.float64:
            # Fits amplify the last bits, in which an operator's result may depend on batch mates (the sums of a matrix
            # product have another order than those of a matrix times a vector): these bits must not reach the weights.
            slope = slope.to(torch.bfloat16)
        slope = slope.to(weights)
        slopes = slope.split([len(output) for output, _ in pieces])
        gradients = [pullback(part) for (_, pullback), part in zip(pieces, slopes, strict=True)]
        return x, misfit, torch.cat(gradients)


def keep_freed_memory() -> None:
    """Lets the C library keep the memory that a step frees for the next step.

    glibc returns freed memory to the system beyond a threshold, and hundreds of pages would be faulted in anew in each
    step. Having freed one block of just under 32 MiB it raises that threshold to 64 MiB (mallopt(3), "dynamic mmap
    threshold"). The block is never written to, so it costs nothing; other C libraries ignore it.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


def _split(network: ImageNetwork, weights: Tensor, inputs: Tensor) -> list[tuple[Tensor, Tensor]]:
    rows = network.rows_at_once(weights)
    return list(zip(weights.split(rows), inputs.split(rows), strict=True))
