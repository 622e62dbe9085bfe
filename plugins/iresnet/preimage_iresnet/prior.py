"""The trained invertible network as a prior: an operator learned together with its stable inverse."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn

from preimage import Shape, check_shape
from preimage.errors import BadParameter, Incompatible, ShapeMismatch
from preimage.trained import Inversion, LearnedOperator, restore
from preimage.weights import Weights, WeightsName, load_weights

from .certificate import verify
from .implicit import Accuracy, decode
from .inverse import Block, invert
from .network import InvertibleResNet, apply
from .residual import KERNEL

Rule = Literal["estimated", "certified"]


class InvertibleResNetPrior(LearnedOperator):
    """An `InvertibleResNet` phi that was trained for an operator F, phi ~ F, and whose inverse reconstructs:

        x = project(decode(lift(y))), encode = phi, decode = phi^-1, ||phi^-1(a) - phi^-1(b)|| <= ||a - b|| / (1 - L)

    (Arndt & Nickel 2024). States and codes are M copies of each image channel, one after the
    other: `latent_shape` is (M, h, w), `lift` copies and `project` takes the mean. A network for grey images works on
    each of the C channels of a colour image, states being (C M, h, w). Images have pixel values in [0, 1] and any size
    from 5 x 5.

    - `weights`: "auto" for those that ship for the pipeline's operator and noise (in a pipeline alone), one of their
      names, or a file that `preimage train` exported. Its certificate is checked.
    - `tolerance` in (0, 1): the accuracy ||x - phi^-1(z)|| <= tolerance ||x|| of `decode`.
    - `rule`: "estimated" meets the tolerance in practice, "certified" provably (`inverse.invert`); it takes about twice
      the evaluations, some of them in float64.

    Derivatives of `decode`, by autograd or torch.func, are implicit (`implicit.decode`), as accurate as `decode`.

    `trained` has the weights, `inverse_lipschitz` is 1 / (1 - L).

    Raises `BadParameter` for a tolerance out of its range, `ShapeMismatch` for smaller images, `BadFile` or
    `Incompatible` if the weights are missing, damaged, of another architecture or number of channels, or break their
    certificate. `decode` and `invert` raise `BadData` for NaN or infinity, and all maps `ShapeMismatch`.
    """

    network = InvertibleResNet
    trained: Weights

    def __init__(
        self, in_shape: Shape, *, weights: WeightsName = "auto", rule: Rule = "estimated", tolerance: float = 1e-6
    ):
        loaded = load_weights(weights, "prior/iresnet")
        phi = cast(InvertibleResNet, restore(loaded, self.network))
        verify(loaded, phi)
        self._prepare(in_shape, phi, rule, tolerance)
        self.trained = loaded

    @classmethod
    def of(
        cls,
        network: nn.Module,
        in_shape: Shape,
        *,
        rule: Rule = "estimated",
        tolerance: float = 1e-6,
        facts: Mapping[str, Any] | None = None,
    ) -> Self:
        """The prior of a network in memory, certified (`InvertibleResNet.certify`).

        - `facts`: what the header of a file would say; `forward_model` has the tables of the operator and the noise.

        Raises `Incompatible` for one that is not certified, or still in training mode, and what the constructor raises.
        """
        network = cast(InvertibleResNet, network)
        if network.training or not bool(network.certified):
            found = "the network has no certificate" if not network.training else "the network is in training mode"
            remedy = "call network.eval().certify(examples) first: it divides the weights by their proved norms"
            raise Incompatible(found, "a certified network in evaluation mode", remedy)
        prior = cls.__new__(cls)
        prior._prepare(in_shape, network, rule, tolerance)
        prior.trained = Weights(Path("a network in memory"), "prior/iresnet", {}, facts or {}, network.state_dict(), "")
        return prior

    def _prepare(self, in_shape: Shape, phi: InvertibleResNet, rule: Rule, tolerance: float) -> None:
        super().__init__(in_shape)
        if rule not in ("estimated", "certified"):
            raise BadParameter(f"rule is {rule!r}", '"estimated" or "certified"')
        if len(self.in_shape) != 3 or min(self.in_shape[1:]) < KERNEL:
            found = f"images are {self.in_shape}, smaller than the {KERNEL} x {KERNEL} kernel of the network"
            raise ShapeMismatch(found, f"(C, h, w) with h, w >= {KERNEL}", "use larger images, or pad them")
        if phi.image_channels not in (1, self.in_shape[0]):
            found = f"the network is for images of {phi.image_channels} channels, not {self.in_shape[0]}"
            raise Incompatible(found, f"images of {phi.image_channels} channels", "name weights for these images")
        self.rule, self.tolerance = rule, _checked(tolerance)
        self.phi = phi
        self._colours = self.in_shape[0] // phi.image_channels
        self.latent_shape = (self._colours * phi.channels, *self.in_shape[1:])
        self.lipschitz = phi.lipschitz
        self.inverse_lipschitz = 1 / (1 - phi.lipschitz)

    def stability_radius(self, noise: float | Tensor) -> float | Tensor:
        """noise / (1 - L): how far decode can move at most when its argument moves by a vector of this norm.

        A measurement moved by e moves all its copies: then ||lift(e)|| = sqrt(M / C) ||e|| for a network of C channels.
        """
        return noise * self.inverse_lipschitz

    def lift(self, x: Tensor) -> Tensor:
        check_shape(x, self.in_shape, "image")
        return self._join(self.phi.lift(x.reshape(-1, self.phi.image_channels, *x.shape[2:])))

    def project(self, u: Tensor) -> Tensor:
        check_shape(u, self.latent_shape, "state")
        return self.phi.project(self._apart(u)).reshape(-1, *self.in_shape)

    def encode(self, u: Tensor) -> Tensor:
        check_shape(u, self.latent_shape, "state")
        residuals = [residual.to(u) for residual in self.phi.residuals()]
        return self._join(apply(residuals, self._apart(u)))

    def decode(self, z: Tensor) -> Tensor:
        check_shape(z, self.latent_shape, "code")
        certified = self.rule == "certified"
        return self._join(
            decode(Block.of(self.phi), self._apart(z), Accuracy(self.tolerance, certified, self.tolerance))
        )

    def invert(self, z: Tensor, tolerance: float, certified: bool) -> Inversion:
        """As `LearnedOperator.invert`; of a colour image evaluations are the sum over its channels."""
        check_shape(z, self.latent_shape, "code")
        found = invert(Block.of(self.phi), self._apart(z), _checked(tolerance), certified)
        bound, evaluations, contraction = (t.reshape(-1, self._colours) for t in found[1:])
        whole = torch.linalg.vector_norm(bound, dim=1), evaluations.sum(1), contraction.amax(1)
        return Inversion(self._join(found.x), *whole)

    def _apart(self, u: Tensor) -> Tensor:
        """(B, C M, h, w) -> (B C, M, h, w)."""
        return u.reshape(-1, self.phi.channels, *u.shape[2:])

    def _join(self, u: Tensor) -> Tensor:
        """(B C, M, h, w) -> (B, C M, h, w)."""
        return u.reshape(-1, *self.latent_shape)


def _checked(tolerance: float) -> float:
    if not 0 < tolerance < 1:
        remedy = "use 1e-3 for a picture, 1e-6 for a round trip in float32"
        raise BadParameter(f"tolerance is {tolerance}", "a number in (0, 1)", remedy)
    return tolerance
