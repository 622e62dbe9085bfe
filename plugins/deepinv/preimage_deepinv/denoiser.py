"""Denoisers of deepinv as priors."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from preimage import Denoiser, Shape, check_shape
from preimage.errors import Incompatible, PreimageError, ShapeMismatch

from ._bridge import _Float64 as Float64
from ._deepinv import lookup
from ._isolation import isolated


class WrappedDenoiser(Denoiser):
    """denoise(x, sigma): deepinv's denoiser on x, with sigma as its second argument, as deepinv's own plug-and-play
    prior hands it over.

    - `name`: what messages call it. `denoiser`: an instance of deepinv's Denoiser, or anything called as
      denoiser(x, sigma) with x (B, C, H, W) and sigma (B,).
    - `one_by_one`: images are given to it alone, where its result depends on the batch (default: True).
    - `fresh`: every call works on a copy, where it keeps state between calls (default: True).

    It is put in evaluation mode. Random numbers that it draws from global generators are the same in every call, and
    the generators are left as they were. Raises `Incompatible` with its own words if it fails.
    """

    def __init__(
        self,
        in_shape: Shape,
        denoiser: Callable[[Tensor, Tensor], Tensor],
        *,
        name: str = "",
        one_by_one: bool = True,
        fresh: bool = True,
    ):
        super().__init__(in_shape)
        if isinstance(denoiser, nn.Module):
            denoiser = cast("Callable[[Tensor, Tensor], Tensor]", denoiser.eval().requires_grad_(False))
        elif not callable(denoiser):
            raise Incompatible(f"{denoiser!r} is no denoiser", "an object that is called as denoiser(x, sigma)")
        self.denoiser = denoiser
        self.name = name or type(denoiser).__name__
        self.one_by_one, self.fresh = one_by_one, fresh

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        check_shape(x, self.in_shape, f"input of {self.name}")
        levels = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x))
        rows = [(x[i : i + 1], levels[i : i + 1]) for i in range(len(x))] if self.one_by_one else [(x, levels)]
        return torch.cat([self._apply_to(image, level) for image, level in rows])

    def _apply_to(self, x: Tensor, sigma: Tensor) -> Tensor:
        denoiser = copy.deepcopy(self.denoiser) if self.fresh else self.denoiser
        double = Float64() if x.dtype == torch.float64 else nullcontext()
        try:
            with isolated(x), double:
                # A copy, because some denoisers make their input require a gradient.
                result = self.run(denoiser, x.clone(), sigma)
        except (PreimageError, torch.OutOfMemoryError, ImportError):
            raise
        except Exception as error:  # deepinv lets errors of torch and einops through
            said = " ".join(str(error).split())[:300] or type(error).__name__
            raise Incompatible(
                f"{self.name} failed on images of shape {self.in_shape} in {x.dtype}: {said}",
                "images of a shape and dtype that it takes",
                "sides that are multiples of 64 suit every network",
            ) from error
        if result.shape != x.shape:
            found = f"{self.name} turns images of shape {self.in_shape} into {tuple(result.shape[1:])}"
            raise ShapeMismatch(found, "a denoiser, which keeps the shape")
        # Some denoisers differentiate inside, and leave the graph on their result.
        return result.to(x) if x.requires_grad else result.detach().to(x)

    def run(self, denoiser: Any, x: Tensor, sigma: Tensor) -> Tensor:
        """One call of deepinv's denoiser: x (B, *in_shape), sigma (B,)."""
        return denoiser(x, sigma)


def from_denoiser(denoiser: Any, in_shape: Shape) -> WrappedDenoiser:
    """Any denoiser of deepinv, given as a Python object, as a prior for images of this shape.

    Raises `Incompatible` unless it is an instance of deepinv's Denoiser.
    """
    if not isinstance(denoiser, lookup("models.Denoiser")):
        found = f"{type(denoiser).__name__} is no denoiser of deepinv"
        raise Incompatible(found, "an instance of deepinv.models.Denoiser", "use WrappedDenoiser for other callables")
    return WrappedDenoiser(in_shape, denoiser)
