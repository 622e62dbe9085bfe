"""What training minimises: components of kind `trainer`, named in a recipe's [objective]."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from preimage import ForwardModel, Key
from preimage.errors import Incompatible


class Objective(ABC):
    """A loss, and a score on images that were not trained on. Hyper-parameters only; the network is an argument.

    An objective may have several phases, each with an optimiser of its own over a part of the network, taken in turn in
    every step (a discriminator, then a generator).
    """

    needs_forward_model: bool = False
    """Whether a recipe must have [operator] and [noise]."""

    def phases(self, network: nn.Module) -> Mapping[str, nn.Module]:
        """What each phase trains, in order."""
        return {"network": network}

    def rate(self, phase: str) -> float:
        """What multiplies the learning rate in a phase."""
        return 1.0

    def objections(self, network: nn.Module) -> list[Incompatible]:
        """What is wrong with a network for this objective."""
        return []

    @abstractmethod
    def prepare(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> tuple[Tensor, ...]:
        """What `loss` is given: made of a batch of clean images (B, C, H, W), without gradients, at full precision.

        The network tells sizes; its weights play no part. `labels` differ between images and between steps; all
        randomness comes from `key.child(label)` and the forward model's key, so that it depends on nothing else.
        """

    @abstractmethod
    def loss(self, phase: str, network: nn.Module, progress: float, *inputs: Tensor) -> Tensor:
        """The mean loss of the batch, a number. Runs in the precision of the recipe.

        `progress` is the fraction of the budget that is used up, in [0, 1], for losses that follow a schedule.
        """

    @abstractmethod
    def scores(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> Mapping[str, Tensor]:
        """Figures of merit per image (B,) of a network in evaluation mode; the first decides, larger is better."""

    def pictures(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> Mapping[str, Tensor]:
        """Rows of images worth looking at, by name, (B, C, H, W) each."""
        return {}
