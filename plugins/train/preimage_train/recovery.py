"""A small inverse problem, solved with the network as it stands: what likelihood alone does not show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from preimage_data import psnr
from torch import Tensor, nn

from preimage import ForwardModel, Pipeline, load
from preimage.assembly import construct
from preimage.errors import BadParameter, Incompatible


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """The inverse problem of a recipe's [validation.recovery], with the trained prior: the score "recovery_psnr".

    - `operator`, `noise`, `solver`: tables as in a pipeline. `weight`: of the prior.
    - `count`: of how many validation images at most.

    Raises `BadParameter` unless count >= 1.
    """

    operator: dict[str, Any] | list[dict[str, Any]]
    noise: dict[str, Any]
    solver: dict[str, Any]
    weight: float | Literal["auto"] = 1.0
    count: int = 8

    def __post_init__(self):
        if self.count < 1:
            raise BadParameter(f"validation.recovery.count is {self.count}", "an integer >= 1")

    def score(self, component: str, network: nn.Module, images: Tensor, labels: Sequence[str], seed: int) -> Tensor:
        """PSNR of each of the first `count` images, (B,). Measurements are drawn by label from the seed."""
        images, labels = images[: self.count], labels[: self.count]
        shape = tuple(images.shape[1:])
        tables = {"operator": self.operator, "noise": self.noise, "seed": seed, "device": str(images.device)}
        forward = ForwardModel.from_tables(tables, shape, "validation.recovery")
        arguments = {name: value for name, value in self.solver.items() if name != "name"}
        pipeline = Pipeline(
            operator=forward.operator,
            noise=forward.noise,
            key=forward.key,
            prior=prior_class(component).of(network, shape),
            solver=construct("solver", self.solver["name"], arguments, "validation.recovery: solver"),
            weight=self.weight,
        )
        found = pipeline.reconstruct(forward.simulate(images, labels), labels, throw=False)
        return psnr(found.x, images)


def prior_class(component: str) -> Any:
    """The prior that a recipe trains. Raises `Incompatible` if it is a solver."""
    kind, _, name = component.partition("/")
    if kind != "prior":
        found = f"[validation.recovery] for {component}, which is no prior"
        raise Incompatible(
            found, "a prior that a solver can use", "remove it: the objective's score is one of recovery"
        )
    return load(kind, name)
