"""Pipelines of preimage as reconstructors of deepinv."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from preimage import Pipeline
from preimage.errors import Incompatible

from ._deepinv import lookup
from .to_physics import LinearOperatorPhysics, OperatorPhysics

DeepinvReconstructor: Any = lookup("models.Reconstructor")


def as_reconstructor(pipeline: Pipeline) -> "PipelineReconstructor":
    """A pipeline of preimage as a reconstructor of deepinv, called as model(y, physics); for `deepinv.test`, its
    Trainer and everything else that takes one."""
    return PipelineReconstructor(pipeline)


class PipelineReconstructor(DeepinvReconstructor):
    """The estimate of a pipeline from measurements y (B, *out_shape).

    The pipeline knows its operator, so that `physics` may be left out. What is given must be
    `as_physics(pipeline.operator)`; another physics raises `Incompatible`, for it would have no effect. Random numbers
    of image i are those of `labels[i]`, by default of its position in the batch. It has no parameters to train.
    """

    def __init__(self, pipeline: Pipeline):
        super().__init__()
        self.pipeline = pipeline

    def forward(self, y: Tensor, physics: Any = None, labels: Sequence[str] | None = None) -> Tensor:
        if physics is not None:
            self._check(physics)
        return self.pipeline.reconstruct(y, labels).x

    def _check(self, physics: Any) -> None:
        remedy = "give as_physics(pipeline.operator), or leave physics out"
        if not isinstance(physics, LinearOperatorPhysics | OperatorPhysics):
            found = f"a pipeline with its own operator was given the physics {type(physics).__name__}"
            raise Incompatible(found, "the physics of the pipeline's own operator", remedy)
        if not self.pipeline.per_image and physics.operator is not self.pipeline.operator:
            found = f"the physics is of another {type(physics.operator).__name__} than the pipeline's operator"
            raise Incompatible(found, "the physics of the pipeline's own operator", remedy)
