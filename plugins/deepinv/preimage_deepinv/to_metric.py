"""Metrics of preimage as metrics of deepinv."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ._deepinv import lookup

DeepinvMetric: Any = lookup("loss.metric.Metric")


def as_metric(metric: Callable[[Tensor, Tensor], Tensor], *, lower_better: bool = False) -> "PreimageMetric":
    """A metric of preimage, metric(estimate, reference) -> (B,), as one of deepinv, for `deepinv.test` and its Trainer.

    It appears in their results under the name of its class. deepinv's own SSIM also counts a border of reflected
    pixels, and its PSNR adds 1e-8 to the mean square error, so that no setting of theirs gives preimage's numbers.

    - `lower_better`: whether a smaller value is better.
    """
    name = getattr(metric, "__name__", type(metric).__name__)
    return type(name, (PreimageMetric,), {"__doc__": metric.__doc__})(metric, lower_better)


class PreimageMetric(DeepinvMetric):
    """See `as_metric`."""

    def __init__(self, of: Callable[[Tensor, Tensor], Tensor], lower_better: bool = False):
        super().__init__()
        self.of, self.lower_better = of, lower_better

    def metric(self, x_net: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.of(x_net, x).to(x_net)
