"""Several trained flows as one prior, for averages over networks."""

from typing import Annotated

from preimage import Shape, WeightsFile
from preimage.errors import BadParameter

from .latent_members import GeneratorEnsemble
from .prior import GlowPrior


class GlowEnsemble(GeneratorEnsemble):
    """Flows trained on their own, each as probable: `GeneratorEnsemble` of `GlowPrior`s.

    With `solver/latent-map` the estimate is the mean of what the search finds with each; the evaluations of all count.

    - `weights`: names that ship (`preimage show prior/glow` lists them), or files, two at least.

    Raises `BadParameter` for fewer, and what `GlowPrior` raises.
    """

    def __init__(self, in_shape: Shape, *, weights: tuple[Annotated[str, WeightsFile, "prior/glow"], ...]):
        if len(weights) < 2:
            raise BadParameter(f"weights is {list(weights)}", "two names or more", "use prior/glow for one network")
        super().__init__([GlowPrior(in_shape, weights=name) for name in weights])
