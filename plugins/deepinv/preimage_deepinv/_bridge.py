"""A physics of deepinv as an operator of preimage."""

import math
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from preimage import ForwardOperator, LinearOperator, Shape, check_shape, per_image
from preimage.errors import Incompatible, ShapeMismatch

from ._deepinv import lookup, quiet, refused

Physics = Any
"""An instance of deepinv's Physics. deepinv ships no type information."""


class Bridge(ForwardOperator):
    """y = A(x) of a physics of deepinv, without its noise and sensor.

    The physics is a submodule, so that `.to(device, dtype)` moves it, complex tensors included. Its random parts are
    drawn in its constructor from the `key`, in float32 on the CPU. Its out_shape is measured there, by one call.

    Raises `Incompatible` for input in another dtype than the operator's (deepinv fails there with an error of torch):
    `operator.to(torch.float64)` moves it.
    """

    deepinv: ClassVar[str]
    """Name of the class in deepinv.physics."""

    hard_coded: ClassVar[bool] = False
    """True if deepinv's code names float32, so that float64 takes `_Float64` around each call."""

    single: ClassVar[bool] = False
    """True if deepinv takes one image at a time, or mixes those of a batch."""

    def __init__(self, in_shape: Shape, physics: Physics):
        tidy(physics)
        super().__init__(in_shape, ())
        self.physics: Physics = physics
        self.register_buffer("reference", torch.zeros(()), persistent=False)
        with quiet(), torch.no_grad():
            probe = torch.zeros((1, *self.in_shape))
            complaint = f"{self.deepinv} cannot be applied to images of shape {tuple(in_shape)}"
            measured = refused(complaint, lambda: self.apply_physics(probe))
        self.out_shape = tuple(measured.shape[1:])

    def to_deepinv(self, x: Tensor) -> Any:
        """Images as deepinv's physics takes them."""
        return x

    def from_deepinv(self, y: Any) -> Tensor:
        """Measurements as real tensors (B, *out_shape)."""
        return cast(Tensor, y)

    def run_physics(self, x: Any) -> Any:
        """A(x) by deepinv, in deepinv's form of images and measurements."""
        return self.physics.A(x)

    def apply_physics(self, x: Tensor) -> Tensor:
        """A(x) by deepinv, in ours."""
        if self.single and len(x) > 1:
            return torch.cat([self.apply_physics(image) for image in x.split(1)])
        return self.from_deepinv(self.run_physics(self.to_deepinv(x)))

    def forward(self, x: Tensor) -> Tensor:
        self.check_dtype(x)
        if self.hard_coded and x.dtype == torch.float64:
            with _Float64():
                return self.apply_physics(x)
        return self.apply_physics(x)

    def check_dtype(self, x: Tensor) -> None:
        """Raise `Incompatible` unless x has the operator's dtype."""
        own = cast(Tensor, self._buffers["reference"]).dtype
        if x.dtype != own:
            known = x.dtype in (torch.float32, torch.float64)
            raise Incompatible(
                f"{type(self).__name__} is in {own}, its input in {x.dtype}",
                f"input in {own}: deepinv's {self.deepinv} cannot mix dtypes",
                f"operator.to({x.dtype}), or x.to({own})" if known else f"x.to({own})",
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Bridge":
        def convert(tensor: Tensor) -> Tensor:
            # A complex tensor converted to a real dtype would lose its imaginary part.
            if tensor.is_complex():
                return torch.view_as_complex(fn(torch.view_as_real(tensor.resolve_conj())))
            return fn(tensor)

        before = cast(Tensor, self._buffers["reference"]).dtype
        super()._apply(convert, recurse)
        real = cast(Tensor, self._buffers["reference"]).dtype
        for module in self.physics.modules():
            kept = vars(module).get("dtype")  # some physics keep their dtype as an attribute, which .to leaves alone
            if isinstance(kept, torch.dtype):
                module.dtype = real.to_complex() if kept.is_complex else real
        if real != before:
            self.refresh()
        return self

    def refresh(self) -> None:
        """Compute again, in the new dtype, what deepinv derived from other tensors in the old one."""


class LinearBridge(Bridge, LinearOperator):
    """A linear physics of deepinv; the adjoint is its A_adjoint."""

    transpose_of: ClassVar[str] = "deepinv"
    """Who computes the adjoint: "deepinv", or "autodiff" where deepinv's A_adjoint is not exact, keeps state between
    calls or takes float32 only; the table in the README says which."""

    opaque: ClassVar[bool] = False
    """True if torch cannot differentiate deepinv's code; its derivative is then the adjoint."""

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, _Apply.apply(x, self, False)) if self.opaque else super().forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        check_shape(y, self.out_shape, f"input of the adjoint of {type(self).__name__}")
        return cast(Tensor, _Apply.apply(y, self, True)) if self.opaque else self.transpose(y)

    def transpose(self, y: Tensor) -> Tensor:
        """A^T y, by whom `transpose_of` says."""
        self.check_dtype(y)
        if self.transpose_of == "autodiff":
            return super().adjoint(y)
        if self.hard_coded and y.dtype == torch.float64:
            with _Float64():
                return self.apply_adjoint(y)
        return self.apply_adjoint(y)

    def measurement_to_deepinv(self, y: Tensor) -> Any:
        """Measurements as deepinv's A_adjoint takes them."""
        return y

    def image_from_deepinv(self, x: Any) -> Tensor:
        """Images as real tensors (B, *in_shape)."""
        return cast(Tensor, x)

    def apply_adjoint(self, y: Tensor) -> Tensor:
        """A^T y by deepinv."""
        return self.image_from_deepinv(self.physics.A_adjoint(self.measurement_to_deepinv(y)))


class DecomposableBridge(LinearBridge):
    """A physics A = U diag(s) V^T of which deepinv knows the factors: exact norm and normal equations."""

    def norm_bound(self) -> float:
        """The largest singular value, max |s|, with the rounding of one multiplication."""
        return float(self.physics.mask.abs().max()) * (1 + 4 * torch.finfo(cast(Tensor, self.reference).dtype).eps)

    def solve_normal(self, b: Tensor, shift: float | Tensor) -> Tensor | None:
        """(A^T A + shift I)^-1 b = (b - V V^T b) / shift + V ((s^2 + shift)^-1 V^T b), deepinv's prox_l2 where V is
        square."""
        check_shape(b, self.in_shape, f"right-hand side of the normal equations of {type(self).__name__}")
        self.check_dtype(b)
        shifts, physics = per_image(shift, b), self.physics
        coefficients = physics.V_adjoint(b)
        energy = (physics.mask * physics.mask.conj()).real if physics.mask.is_complex() else physics.mask.square()
        shifts = shifts.reshape(shifts.shape[:1] + (1,) * (coefficients.ndim - 1)) if shifts.ndim else shifts
        if self.square:
            return cast(Tensor, physics.V(coefficients / (energy + shifts)))
        # x = (b - V (s^2 / (s^2 + shift)) V^T b) / shift, which is right for an orthonormal V with fewer columns too.
        reduced = physics.V(coefficients * (energy / (energy + shifts)))
        return cast(Tensor, (b - reduced) / per_image(shift, b))

    square: bool = True
    """Whether V is square (orthogonal), not just a matrix with orthonormal columns."""


class _Apply(torch.autograd.Function):
    """A linear physics, or its adjoint, that is its own derivative."""

    @staticmethod
    def forward(x: Tensor, bridge: LinearBridge, transposed: bool) -> Tensor:
        return bridge.transpose(x) if transposed else Bridge.forward(bridge, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.bridge, ctx.transposed = inputs[1:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, None, None]:
        return _Apply.apply(gradients[0], ctx.bridge, not ctx.transposed), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _Apply.apply(tangents[0], ctx.bridge, ctx.transposed)


class _Float64(TorchFunctionMode):
    """Code that names torch.float32 or complex64 is run as if it named float64 or complex128."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        swap = {torch.float32: torch.float64, torch.complex64: torch.complex128}
        named = {n: swap.get(v, v) if isinstance(v, torch.dtype) else v for n, v in (kwargs or {}).items()}
        return func(*(swap.get(a, a) if isinstance(a, torch.dtype) else a for a in args), **named)


def as_complex(x: Tensor) -> Tensor:
    """(B, 2C, ...) -> complex (B, C, ...): the first C channels are real parts, the last C imaginary parts."""
    real, imaginary = x.chunk(2, 1)
    return torch.complex(real.contiguous(), imaginary.contiguous())


def as_real(z: Tensor) -> Tensor:
    """Complex (B, C, ...) -> (B, 2C, ...): real parts, then imaginary parts."""
    return torch.cat((z.real, z.imag), 1)


def check_image(in_shape: Shape, who: str, channels: int | None = None, even_channels: bool = False) -> None:
    """Raise `ShapeMismatch` unless in_shape is (C, H, W), with this C if one is given."""
    wanted = "images (C, H, W)" if channels is None else f"images ({channels}, H, W)"
    if even_channels:
        wanted = "complex images as (2C, H, W), C real parts and C imaginary parts"
    wrong = len(in_shape) != 3 or min(in_shape) < 1 or (channels is not None and in_shape[0] != channels)
    if wrong or (even_channels and in_shape[0] % 2):
        raise ShapeMismatch(
            f"{who} is made for shape {tuple(in_shape)}", wanted, "choose another dataset, or set shape"
        )


def count(shape: Shape) -> int:
    """The number of values."""
    return math.prod(shape)


def same(x: Any, *_: Any, **__: Any) -> Any:
    """x."""
    return x


_IDENTITIES = ("forw", "sensor_model", "noise_model", "_U", "_V", "_U_adjoint", "_V_adjoint")
"""Attributes whose default in deepinv is a lambda that returns its argument; lambdas cannot be pickled."""


def tidy(physics: Physics) -> None:
    """Make a physics fit to be copied and saved: no generators, and no identity in the form of a lambda."""
    zero = lookup("physics.ZeroNoise")
    for module in cast("list[nn.Module]", list(physics.modules())):
        kept = vars(module)
        for name, value in list(kept.items()):
            if isinstance(value, torch.Generator):
                kept[name] = None
            elif isinstance(value, FunctionType) and name in _IDENTITIES and value.__name__ == "<lambda>":
                kept[name] = same
    if isinstance(physics, nn.Module) and "noise_model" in physics._modules:
        physics.noise_model = zero(noise_model=same)
