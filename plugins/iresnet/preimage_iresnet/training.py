"""Objectives for invertible residual networks: reconstruction by the inverse, approximation of the operator."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from preimage_data import psnr
from preimage_train import Objective
from torch import Tensor, nn

from preimage import ForwardModel, Key
from preimage.errors import BadParameter, Incompatible

from .network import InvertibleResNet, apply
from .terms import Terms

_JUDGED = Terms(5, 0)


class _Invertible(Objective):
    needs_forward_model = True

    def objections(self, network: nn.Module) -> list[Incompatible]:
        if isinstance(network, InvertibleResNet):
            return []
        return [Incompatible(f"{type(network).__name__} is not an invertible residual network", "prior/iresnet")]

    def scores(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> Mapping[str, Tensor]:
        measured, clean = _measure(images, labels, forward)
        phi = cast(InvertibleResNet, network)
        residuals = phi.residuals()
        restored = phi.project(phi.invert(residuals, phi.lift(measured), _JUDGED))
        states = apply(residuals, phi.lift(images))
        copies = states.unflatten(1, (-1, phi.image_channels))
        return {
            "psnr": psnr(restored, images),
            "operator_error": (phi.project(states) - clean).square().flatten(1).mean(1).sqrt(),
            "identity_error": (images - clean).square().flatten(1).mean(1).sqrt(),
            "channel_spread": copies.var(1, correction=0).flatten(1).mean(1).sqrt(),
        }

    def pictures(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> Mapping[str, Tensor]:
        measured, clean = _measure(images, labels, forward)
        phi = cast(InvertibleResNet, network)
        residuals = phi.residuals()
        restored = phi.project(phi.invert(residuals, phi.lift(measured), _JUDGED))
        learned = phi.project(apply(residuals, phi.lift(images)))
        return {
            "measurement": measured,
            "reconstruction": restored,
            "image": images,
            "learned operator": learned,
            "operator": clean,
        }


class InvertibleReconstruction(_Invertible):
    """Reconstruction training of phi: with x_hat = phi^-1(y, ..., y), y = F(x) + noise drawn anew, the loss is

        (1 - stacked) |mean x_hat - x|^2 + stacked |x_hat - (x, ..., x)|^2
            + approximation |mean phi(x, ..., x) - F(x)|^2,

    each the mean over pixels and images (Arndt & Nickel 2024, reconstruction training: stacked = 1, the problem as it
    is written). The mean over the copies alone, stacked = 0, leaves the copies apart and phi far from F; `stacked` ties
    the copies together, `approximation` ties phi to F, each at some cost in PSNR. The default ties at hardly any.

    - `stacked` in [0, 1], `approximation` >= 0: the weights.
    - `terms`: evaluations of each block in the inverse, and terms of its derivative (`Terms`); `final_terms` for the
      last fraction `final` of the budget: few terms are cheap, but bias the gradient. Blocks start from a convolution
      that is fitted to the batch in every hundredth step (`linear_start.fit`), which is worth more than a term.

    Scores: PSNR; `operator_error`, rms(phi(x) - F(x)), beside `identity_error`, rms(x - F(x)); `channel_spread`, the
    rms deviation of the copies from their mean.
    """

    def __init__(
        self,
        *,
        stacked: float = 0.003,
        approximation: float = 0.0,
        terms: tuple[int, int] = (2, 1),
        final_terms: tuple[int, int] = (3, 2),
        final: float = 0.15,
    ):
        if not 0 <= stacked <= 1:
            raise BadParameter(f"stacked is {stacked}", "a number in [0, 1]")
        if not 0 <= approximation < float("inf"):
            raise BadParameter(f"approximation is {approximation}", "a finite number >= 0")
        if not 0 <= final <= 1:
            raise BadParameter(f"final is {final}", "a fraction of the budget, in [0, 1]")
        self.stacked, self.approximation, self.final = stacked, approximation, final
        self.terms = Terms(*terms).checked("terms")
        self.final_terms = Terms(*final_terms).checked("final_terms")

    def prepare(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> tuple[Tensor, ...]:
        measured, clean = _measure(images, labels, forward)
        return measured, images, clean

    def loss(self, phase: str, network: nn.Module, progress: float, *inputs: Tensor) -> Tensor:
        measured, images, clean = inputs
        phi = cast(InvertibleResNet, network)
        last = progress >= 1 - self.final
        terms = self.final_terms if last else self.terms
        phi.refit(measured)
        residuals = phi.residuals()
        states = phi.invert(residuals, phi.lift(measured), terms, _precision(measured))
        loss = (1 - self.stacked) * F.mse_loss(phi.project(states), images)
        if self.stacked:
            loss = loss + self.stacked * F.mse_loss(states, phi.lift(images))
        if self.approximation:
            loss = loss + self.approximation * F.mse_loss(phi.project(apply(residuals, phi.lift(images))), clean)
        return loss


class InvertibleApproximation(_Invertible):
    """Approximation training of phi: the mean over pixels and images of |phi(x, ..., x) - (F(x), ..., F(x))|^2, with
    `noise` of F(x) + noise in its place (Arndt & Nickel 2024, approximation training).

    Scores as for `InvertibleReconstruction`, the error of the learned operator first: its PSNR.
    """

    def __init__(self, *, noise: bool = False):
        self.noise = noise

    def prepare(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> tuple[Tensor, ...]:
        measured, clean = _measure(images, labels, forward)
        return images, measured if self.noise else clean

    def loss(self, phase: str, network: nn.Module, progress: float, *inputs: Tensor) -> Tensor:
        images, wanted = inputs
        phi = cast(InvertibleResNet, network)
        states = apply(phi.residuals(), phi.lift(images))
        return F.mse_loss(states.float(), phi.lift(wanted))

    def scores(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> Mapping[str, Tensor]:
        found = super().scores(network, images, labels, key, forward)
        return {"operator_psnr": -20 * torch.log10(found["operator_error"]), **found}


def _measure(images: Tensor, labels: Sequence[str], forward: ForwardModel | None) -> tuple[Tensor, Tensor]:
    """y and F(x). Raises `ValueError` if they are not images of the shape of x."""
    assert forward is not None
    clean = forward.operator_for(labels)(images)
    if clean.shape != images.shape:
        raise ValueError(f"the operator makes measurements of shape {tuple(clean.shape[1:])} of them, not images alike")
    return forward.simulate(images, labels), clean


def _precision(like: Tensor) -> torch.dtype:
    """What autocast computes convolutions in here."""
    device = like.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else like.dtype
