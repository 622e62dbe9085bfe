"""The training loop: one for every network and objective, on Lightning Fabric."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.utils.data import DataLoader

from preimage import ForwardModel
from preimage.errors import Diverged, Incompatible, raise_all
from preimage.trained import DataDependent
from preimage.weights import load_into, load_weights

from . import checkpoint
from .checkpoint import Position
from .images import Feed, Images
from .objective import Objective
from .recipe import Recipe
from .settings import Optimiser

SETBACKS = 3
"""How often a loss may stop being finite before a run gives up."""

_EXAMPLES = 16


class Listener(Protocol):
    """Who is told how training goes, on the first process."""

    def stepped(self, position: Position, losses: dict[str, float], rate: float, norms: dict[str, float]) -> None:
        """A step was taken; norms are those of the gradients before they were clipped."""
        ...

    def validated(self, position: Position, scores: dict[str, float], pictures: dict[str, Tensor], best: bool) -> None:
        """The network was judged."""
        ...

    def said(self, text: str) -> None:
        """Something happened that one should know."""
        ...


@dataclass(frozen=True)
class Slice:
    """How long this call may train, and how often it writes a checkpoint.

    - `seconds`: of training and validation, then it stops, to be resumed; None for no limit.
    - `checkpoint_seconds`, `checkpoint_steps`: a checkpoint is written when either is over.
    - `stop`: asked after every step; true stops at once, with a checkpoint (a signal arrived).
    """

    seconds: float | None = None
    checkpoint_seconds: float = 60.0
    checkpoint_steps: int | None = None
    stop: Callable[[], bool] = lambda: False


@dataclass
class Outcome:
    """How a run stands when a call of `Training.run` ends.

    - `finished`: whether the budget is used up, or patience ended. `network`: what is to be exported.
    """

    finished: bool
    position: Position
    network: nn.Module


class _Losses(nn.Module):
    """The objective and the network as one module, whose forward pass is the loss: what DDP and autocast wrap."""

    def __init__(self, objective: Objective, network: nn.Module):
        super().__init__()
        self.objective, self.network = objective, network

    def forward(self, phase: str, progress: float, batch: "_Batch") -> Tensor:
        return self.objective.loss(phase, self.network, progress, *batch.inputs)


class _Batch:
    """What `Objective.prepare` made. A class of our own, because Fabric rounds tensors that a module is called with to
    half precision, in which a pixel value between 1/2 and 1 is one of 128."""

    def __init__(self, inputs: tuple[Tensor, ...]):
        self.inputs = inputs


class Training:
    """A run of a recipe: its network, optimisers and data on the devices of `fabric`, and a folder for checkpoints.

    Raises `Incompatible` or `BadParameter` if network, objective and data do not fit together.
    """

    def __init__(
        self, recipe: Recipe, images: Images, judged: Images | None, folder: Path, fabric: Fabric, listener: Listener
    ):
        self.recipe, self.images, self.folder, self.fabric, self.listener = recipe, images, folder, fabric, listener
        self._seen = {"training": images} | ({} if judged is None else {"validation": judged})
        self.feed = Feed(images, recipe.batches, recipe.key.child("data"), fabric.global_rank, fabric.world_size)
        network = initial_network(recipe)
        raise_all("the recipe does not fit together", recipe.objective.objections(network))
        self.forward_model = recipe.forward_model(self.feed.shape, fabric.device)
        self._try(network)
        if isinstance(network, DataDependent) and not recipe.start:
            # Every process sees the same examples, whatever its share of the batches is.
            first = Feed(images, recipe.batches, recipe.key.child("data"))
            network.initialise(self._examples(network, first, network.examples_wanted).cpu())
        network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.averaged = copy.deepcopy(network).to(fabric.device) if recipe.optimiser.average is not None else None
        self.losses = fabric.setup_module(_Losses(recipe.objective, network))
        self.network: nn.Module = network
        phases = recipe.objective.phases(network)
        self.optimisers = {name: _optimiser(recipe.optimiser, part) for name, part in phases.items()}
        wrapped: Any = fabric.setup_optimizers(*self.optimisers.values())
        listed = wrapped if isinstance(wrapped, tuple | list) else (wrapped,)
        self.stepping = dict(zip(phases, listed, strict=True))
        self.judged = _judged(judged, recipe, fabric) if judged is not None else None
        self.position = Position()

    @property
    def validated_network(self) -> nn.Module:
        """What is judged and exported: the average of the weights if the recipe asks for one."""
        return self.network if self.averaged is None else self.averaged

    def _try(self, network: nn.Module) -> None:
        """Raise `Incompatible` if the network cannot take the images, before anything is trained or written."""
        images, labels = self.feed[0]
        objective, key, device = self.recipe.objective, self.recipe.key.child("train"), self.fabric.device
        trial = copy.deepcopy(network).to(device).train()
        try:
            with torch.no_grad():
                inputs = objective.prepare(trial, images.to(device), labels, key, self.forward_model)
                for phase in objective.phases(trial):
                    objective.loss(phase, trial, 0.0, *inputs)
        except (RuntimeError, ValueError) as error:
            found = f"the network does not take these images of shape {tuple(images.shape[1:])}: {error}"
            remedy = "change image_channels of [model], or colour and size of [data]"
            raise Incompatible(found, "images that fit the network", remedy) from None

    def examples(self) -> Tensor:
        """What the network is given in the first steps, for at least 16 images: (B, C, H, W)."""
        return self._examples(self.network, self.feed, _EXAMPLES)

    @torch.no_grad()
    def _examples(self, network: nn.Module, feed: Feed, count: int) -> Tensor:
        objective, key, found = self.recipe.objective, self.recipe.key.child("train"), list[Tensor]()
        while sum(map(len, found)) < count:
            images, labels = feed[len(found)]
            found.append(objective.prepare(network, images.to(self.fabric.device), labels, key, self.forward_model)[0])
        return torch.cat(found)

    def tensors(self) -> dict[str, Tensor]:
        """The state of the run, by name."""
        whole = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        whole |= {f"buffer/{name}": tensor for name, tensor in _unexported(self.network).items()}
        if self.averaged is not None:
            whole |= {f"average/{name}": tensor for name, tensor in self.averaged.state_dict().items()}
        for phase, optimiser in self.optimisers.items():
            whole |= checkpoint.optimiser_tensors(optimiser, f"optimiser/{phase}")
        return whole

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {what: images.digest() for what, images in self._seen.items()}

    def resume(self) -> bool:
        """Go back to the last checkpoint; False if there is none. Raises as `checkpoint.read`."""
        found = checkpoint.read(self.folder, self.recipe.digest, self._digests)
        if found is None:
            return False
        self.position, tensors, wrong = found
        for text in wrong:
            self.listener.said(f"{text}; the one before is used")
        self.network.load_state_dict(_part(tensors, "network/"))
        for name, tensor in _part(tensors, "buffer/").items():
            self.network.get_buffer(name).copy_(tensor)
        if self.averaged is not None:
            self.averaged.load_state_dict(_part(tensors, "average/"))
        for phase, optimiser in self.optimisers.items():
            checkpoint.restore_optimiser(optimiser, tensors, f"optimiser/{phase}")
        return True

    def save(self) -> None:
        """Write a checkpoint (the first process does)."""
        if self.fabric.is_global_zero:
            checkpoint.write(self.folder, self.recipe.digest, self.position, self.tensors(), self._digests)
        self.fabric.barrier()

    def run(self, limits: Slice) -> Outcome:
        """Train until the budget is used up, patience ends, or this call's share of time is over.

        A loss or gradient that is not finite sends the run back to its last checkpoint, at half the learning rate.
        Raises `Diverged` when that happens for the fourth time, and `BadFile` if a checkpoint cannot be written.
        """
        began = saved = time.monotonic()
        saved_step = self.position.step
        if not (self.folder / checkpoint.NEWEST).exists():
            self.save()  # so that there is something to go back to
        batches = self._batches()
        while not self._over():
            started, worked = time.perf_counter(), time.process_time()
            sound = self._step(*next(batches))
            self.position.seconds += time.perf_counter() - started
            self.position.processor_seconds += time.process_time() - worked
            if not sound:
                self._set_back()
                batches = self._batches()
                continue
            better = False
            if self.position.step % self.recipe.validation.every == 0 or self._over():
                better = self._validate()  # with a checkpoint, so that the best network is never of an abandoned branch
            now, stop = time.monotonic(), self._agreed(limits.stop())
            slice_over = self._agreed(limits.seconds is not None and now - began > limits.seconds)
            due = limits.checkpoint_steps is not None and self.position.step - saved_step >= limits.checkpoint_steps
            if (
                stop
                or slice_over
                or due
                or better
                or self._agreed(now - saved > limits.checkpoint_seconds)
                or self._over()
            ):
                self.save()
                saved, saved_step = now, self.position.step
            if stop or slice_over:
                break
        return Outcome(self._over(), self.position, self.validated_network)

    def _over(self) -> bool:
        patience = self.recipe.validation.patience
        return self._progress() >= 1 or (patience is not None and self.position.stale >= patience)

    def _progress(self) -> float:
        p, batches = self.position, self.recipe.batches
        return self.recipe.budget.progress(p.step, p.seconds, len(self.images), batches.size)

    def _batches(self) -> Iterator[tuple[Tensor, list[str]]]:
        workers = self.recipe.batches.workers
        loader = DataLoader(
            self.feed,
            sampler=range(self.position.step, 2**62),
            batch_size=None,
            num_workers=workers,
            generator=torch.Generator(),
            multiprocessing_context="spawn" if workers else None,
        )
        return iter(loader)

    def _step(self, images: Tensor, labels: list[str]) -> bool:
        """One step of every phase; False, with nothing changed that is not put back, if it was not finite."""
        p, optimiser = self.position, self.recipe.optimiser
        progress = self._progress()
        factor = self.recipe.schedule.factor(progress) * p.rate
        with torch.no_grad():
            inputs = self.recipe.objective.prepare(
                self.network, images.to(self.fabric.device), labels, self.recipe.key.child("train"), self.forward_model
            )
        inputs = tuple(t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t for t in inputs)
        self.network.train()
        shown, norms = dict[str, float](), dict[str, float]()
        phases = self.recipe.objective.phases(self.network)
        for phase, step in self.stepping.items():
            for group in step.param_groups:
                group["lr"] = optimiser.learning_rate * self.recipe.objective.rate(phase) * factor
            for other, part in phases.items():
                part.requires_grad_(other == phase)
            step.zero_grad(set_to_none=True)
            loss = self.losses(phase, progress, _Batch(inputs))
            self.fabric.backward(loss)
            gradients = [w.grad for w in phases[phase].parameters() if w.grad is not None]
            norm = nn.utils.get_total_norm(gradients)
            value, length = self._mean(loss.detach()), float(norm)
            if not (math.isfinite(value) and math.isfinite(length)):
                return False
            if optimiser.clip > 0:
                nn.utils.clip_grads_with_norm_(phases[phase].parameters(), optimiser.clip, norm)
            step.step()
            shown[phase], norms[phase] = value, length
        p.step += 1
        self._average()
        self.listener.stepped(p, shown, optimiser.learning_rate * factor, norms)
        return True

    @torch.no_grad()
    def _average(self) -> None:
        decay = self.recipe.optimiser.average
        if self.averaged is None or decay is None:
            return
        decay = min(decay, (1 + self.position.step) / (10 + self.position.step))
        for mean, tensor in zip(self.averaged.state_dict().values(), self.network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(tensor, 1 - decay)
            else:
                mean.copy_(tensor)

    def _validate(self) -> bool:
        """Judge the network, if there is anything to judge it by; whether it is the best so far."""
        if self.judged is None or self.position.validated == self.position.step:
            return False
        p = self.position
        p.validated = p.step
        scores, pictures = judge(self.recipe, self.validated_network, self.judged)
        first = next(iter(scores.values()))
        better = math.isfinite(first) and (p.best is None or first > p.best)
        p.stale = 0 if better else p.stale + 1
        if better:
            p.best, p.best_step = first, p.step
        if self.fabric.is_global_zero:
            self.listener.validated(p, scores, pictures, better)
        self.fabric.barrier()
        return better

    def _set_back(self) -> None:
        """Return to the last checkpoint with half the learning rate."""
        at, before = self.position.step, self.position
        setbacks, rate = [*before.setbacks, at], before.rate / 2
        self.resume()
        if len(setbacks) > SETBACKS:
            raise Diverged(
                f"the loss was not finite at the steps {setbacks}, though the learning rate was halved each time",
                "a loss that stays finite",
                "use a smaller optimiser.learning_rate or clip; the last checkpoint is kept",
            )
        self.position.setbacks, self.position.rate = setbacks, rate
        self.save()
        learning = self.recipe.optimiser.learning_rate * rate
        back = self.position.step
        self.listener.said(f"the loss was not finite at step {at}: back to step {back}, learning rate {learning:g}")

    def _mean(self, loss: Tensor) -> float:
        return float(self.fabric.all_reduce(loss) if self.fabric.world_size > 1 else loss)  # pyright: ignore[reportArgumentType]

    def _agreed(self, mine: bool) -> bool:
        """True if it is for any process: all must stop, or write, at the same step."""
        if self.fabric.world_size == 1:
            return mine
        told = torch.tensor(float(mine), device=self.fabric.device)
        return bool(self.fabric.all_reduce(told, reduce_op="sum") > 0)  # pyright: ignore[reportOperatorIssue]


@dataclass(frozen=True)
class Judged:
    """Images for validation, all of one shape, and what measures them."""

    images: Tensor
    labels: list[str]
    forward: ForwardModel | None


@torch.no_grad()
def judge(recipe: Recipe, network: nn.Module, judged: Judged) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Mean scores of a network over the validation images, in parts of a batch each, and pictures of the first four.

    Measurements are drawn by label, so every validation, of any run, sees the same ones.
    """
    training = network.training
    network.eval()
    key, size = recipe.key.child("validation"), max(4, recipe.batches.size)
    found: dict[str, list[Tensor]] = {}
    for start in range(0, len(judged.images), size):
        part, labels = judged.images[start : start + size], judged.labels[start : start + size]
        for name, values in recipe.objective.scores(network, part, labels, key, judged.forward).items():
            found.setdefault(name, []).append(values)
    if (recovery := recipe.recovery) is not None:
        found["recovery_psnr"] = [recovery.score(recipe.component, network, judged.images, judged.labels, recipe.seed)]
    pictures = recipe.objective.pictures(network, judged.images[:4], judged.labels[:4], key, judged.forward)
    network.train(training)
    return {n: float(torch.cat(v).double().mean()) for n, v in found.items()}, dict(pictures)


def initial_network(recipe: Recipe) -> nn.Module:
    """The network before the first step: drawn from the recipe's key, or the weights that it starts from."""
    network = recipe.network()
    if recipe.start:
        load_into(network, load_weights(recipe.start, recipe.component))
    return network


def _judged(images: Images, recipe: Recipe, fabric: Fabric) -> Judged:
    count = min(len(images), recipe.validation.count)
    stacked = torch.stack([images[index] for index in range(count)]).to(fabric.device)
    forward = recipe.forward_model(tuple(stacked.shape[1:]), fabric.device)
    return Judged(stacked, [images.label(index) for index in range(count)], forward)


def _optimiser(settings: Optimiser, part: nn.Module) -> Optimizer:
    weights, rate, decay = part.parameters(), settings.learning_rate, settings.weight_decay
    if settings.name == "sgd":
        return SGD(weights, lr=rate, momentum=settings.betas[0], weight_decay=decay)
    made = Adam if settings.name == "adam" else AdamW
    return made(weights, lr=rate, betas=settings.betas, weight_decay=decay)


def _unexported(network: nn.Module) -> dict[str, Tensor]:
    """Buffers that belong to training alone: not persistent, so that weights do not have them, but checkpoints do."""
    exported = network.state_dict()
    return {name: tensor for name, tensor in network.named_buffers() if name not in exported}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
