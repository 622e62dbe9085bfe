"""Perona-Malik diffusion as a forward operator."""

import math
from collections.abc import Callable
from typing import Literal, cast

from torch import Tensor

from preimage import ForwardOperator, LinearOperator, Shape, check_shape
from preimage.errors import BadParameter, ShapeMismatch

from . import _derivatives
from ._scheme import Scheme

Discretisation = Literal["forward-backward", "four-neighbour"]
Boundary = Literal["neumann", "circular"]
Channels = Literal["separate", "coupled"]

STABLE_STEP = 0.25
"""Largest step size for which a step is a convex combination of neighbouring pixels, whatever the image."""

_LEAST_CONTRAST = 1e-6


class PeronaMalik(ForwardOperator):
    """F(x) = u(T), where du/dt = div(g(|grad u|) grad u), u(0) = x, and g(s) = 1 / (1 + s^2 / contrast^2).

    Smooths where the image is flat, keeps edges steeper than `contrast`, and enhances the steepest. Images
    (C, H, W) -> (C, H, W) of any value range; `contrast` is in the same units, per pixel.

    Time runs in `steps` Heun steps of size h = `step_size` (T = steps * h): k1 = f(u), k2 = f(u + h k1),
    u <- u + h (k1 + k2) / 2. Space, with the forward differences D u = (u[i+1, j] - u[i, j], u[i, j+1] - u[i, j]):

    - discretisation "forward-backward": f(u) = -D^T (g(|D u|) D u), one g for each pixel from its two differences.
    - discretisation "four-neighbour": f(u) = -D^T (g(|d_k|) d_k), one g for each difference d_k, hence the sum over the
      four neighbours n of g(|u_n - u|) (u_n - u): Perona and Malik's own scheme.
    - boundary "neumann": no flux through the border (differences across it are zero). "circular": periodic.
    - channels "separate": each channel diffuses on its own. "coupled": one g for all, from |D u|^2 summed over them.

    The sum of the pixels of a channel stays the same, and no pixel leaves the range of the values of its channel.

    **Derivatives** are written by hand and compiled where numba is installed (CPU, float32 and float64; `pip install
    preimage-perona-malik[fast]`); elsewhere they run in torch. Derivatives of higher order are automatic.

    **Memory of `vjp`** and `linearize`: they hold 2 * steps copies of the batch (10 by default), the points where f was
    evaluated, for as long as the pullback lives; compiled, each copy has one additional row and column. The pullback
    itself needs a few images of working space, not a batch, when compiled. `forward` holds the same copies if x
    requires a gradient, and none otherwise; `jvp` holds none.

    Sources: P. Perona, J. Malik, "Scale-space and edge detection using anisotropic diffusion", IEEE TPAMI 12(7), 1990,
    eqs. (3), (7)-(10). The defaults are those of C. Arndt, J. Nickel, "Invertible ResNets for inverse imaging
    problems", where `contrast` is called lambda and the discretisation of |grad u| is not stated.

    Raises `BadParameter` if steps < 1, if step_size is not in (0, 0.25] (above, the explicit scheme may oscillate and
    grow), or if contrast is not a finite number >= 1e-6; `ShapeMismatch` if in_shape is not (C, H, W).
    """

    def __init__(
        self,
        in_shape: Shape,
        *,
        steps: int = 5,
        step_size: float = 0.15,
        contrast: float = 0.1,
        discretisation: Discretisation = "forward-backward",
        boundary: Boundary = "neumann",
        channels: Channels = "separate",
    ):
        if len(in_shape) != 3 or min(in_shape) < 1:
            raise ShapeMismatch(
                f"PeronaMalik is to diffuse images of shape {tuple(in_shape)}",
                "(C, H, W), each at least 1",
                "give a grey image one channel: (1, H, W)",
            )
        _check(steps, step_size, contrast)
        _check_choice("discretisation", discretisation, ("forward-backward", "four-neighbour"))
        _check_choice("boundary", boundary, ("neumann", "circular"))
        _check_choice("channels", channels, ("separate", "coupled"))
        super().__init__(in_shape, in_shape)
        self.scheme = Scheme(
            steps=steps,
            step_size=float(step_size),
            contrast=float(contrast),
            edges=discretisation == "four-neighbour",
            circular=boundary == "circular",
            coupled=channels == "coupled",
        )

    def forward(self, x: Tensor) -> Tensor:
        return _derivatives.flow(x, self.scheme)[0]

    def jvp(self, x: Tensor, v: Tensor) -> Tensor:
        _check_like(x, self.in_shape, x, "input of PeronaMalik")
        _check_like(v, self.in_shape, x, "direction of PeronaMalik.jvp")
        return _derivatives.push(x, v, self.scheme)

    def vjp(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        y, jacobian = self.linearize(x)
        return y, jacobian.adjoint

    def linearize(self, x: Tensor) -> tuple[Tensor, LinearOperator]:
        _check_like(x, self.in_shape, x, "input of PeronaMalik")
        y, states = _derivatives.flow(x, self.scheme, keep=True)
        return y, LinearisedDiffusion(self, x, states)

    def norm_bound(self) -> float:
        """A bound of ||F'(x)|| that holds at every x: (1/2 + L^2 / 2)^steps, L = max(1 + h ||D||^2 / 8, h ||D||^2 - 1).

        The Jacobian of f is -D^T H D, and H, the Hessian of the density contrast^2 / 2 log(1 + s^2 / contrast^2), has
        eigenvalues in [-1/8, 1] (the least where s^2 = 3 contrast^2). So the Jacobian of the Euler step
        E(u) = u + h f(u) is symmetric with eigenvalues between 1 - h ||D||^2 and 1 + h ||D||^2 / 8, of modulus at most
        L; and the Heun step is (u + E(E(u))) / 2. ||D||^2 is known: 4 cos^2(pi / 2H) + 4 cos^2(pi / 2W) without flux
        through the border.

        About 2.11 for the defaults. At photographs ||F'(x)|| is nearer to 1.4; a solver that can search its step
        length, or estimates the norm where it is, may take longer steps than this bound allows.
        """
        scheme = self.scheme
        squared = sum(_difference_norm_squared(n, scheme.circular) for n in self.in_shape[1:])
        reach = scheme.step_size * squared
        euler = max(1 + reach / 8, reach - 1)
        return (0.5 + 0.5 * euler**2) ** scheme.steps

    def extra_repr(self) -> str:
        return f"{self.in_shape}, {self.scheme}"


class LinearisedDiffusion(LinearOperator):
    """F'(x) of `PeronaMalik`, which keeps the points of the forward run: both directions start from them."""

    def __init__(self, operator: PeronaMalik, x: Tensor, states: Tensor):
        super().__init__(operator.in_shape, operator.out_shape)
        self.operator, self.x, self.states = operator, x, states

    def forward(self, x: Tensor) -> Tensor:
        _check_like(x, self.in_shape, self.x, "direction of PeronaMalik")
        return _derivatives.push(self.x, x, self.operator.scheme, self.states)

    def adjoint(self, y: Tensor) -> Tensor:
        _check_like(y, self.out_shape, self.x, "input of the pullback of PeronaMalik")
        return _derivatives.pull(self.x, y, self.operator.scheme, self.states)

    def norm_bound(self) -> float:
        return self.operator.norm_bound()

    def rows(self, index: Tensor) -> "LinearisedDiffusion":
        x = self.x[index]
        # What is one image for the kernels is one channel here, unless channels are coupled.
        parts = self.states.unflatten(0, (len(self.x), -1))[index].flatten(0, 1)
        return LinearisedDiffusion(self.operator, x, parts)


def _difference_norm_squared(n: int, circular: bool) -> float:
    """||forward difference of n numbers||^2: the largest 2 - 2 cos of its frequencies."""
    return 4.0 if circular and n % 2 == 0 else 4 * math.cos(math.pi / (2 * n)) ** 2


def _check(steps: int, step_size: float, contrast: float) -> None:
    if isinstance(cast(object, steps), bool) or not isinstance(cast(object, steps), int) or steps < 1:
        raise BadParameter(f"steps is {steps!r}", "a whole number, at least 1", "write steps = 5")
    if not 0 < step_size <= STABLE_STEP:
        above = step_size > STABLE_STEP
        raise BadParameter(
            f"step_size is {step_size}" + (", above the stability limit of the explicit scheme" if above else ""),
            f"a number above 0, at most {STABLE_STEP}",
            f"for the same final time take steps = {math.ceil(steps * step_size / STABLE_STEP)} and "
            f"step_size = {steps * step_size / math.ceil(steps * step_size / STABLE_STEP):.4g}"
            if above and math.isfinite(step_size)
            else "write step_size = 0.15",
        )
    if not _LEAST_CONTRAST <= contrast < math.inf:
        raise BadParameter(
            f"contrast is {contrast}",
            f"a finite number, at least {_LEAST_CONTRAST}",
            "write contrast = 0.1 for images with values in [0, 1]; where differences of neighbours are much larger, "
            "edges are kept",
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise BadParameter(f"{name} is {value!r}", " or ".join(map(repr, choices)), f"write {name} = {choices[0]!r}")


def _check_like(tensor: Tensor, shape: Shape, x: Tensor, what: str) -> None:
    """As many rows as x, of this shape, in x's dtype and on its device: compiled kernels rely on it."""
    check_shape(tensor, shape, what)
    if len(tensor) != len(x) or tensor.dtype != x.dtype or tensor.device != x.device:
        raise ShapeMismatch(
            f"{what} is a batch of {len(tensor)} in {tensor.dtype} on {tensor.device}",
            f"a batch of {len(x)} in {x.dtype} on {x.device}, like the images the derivative is taken at",
            "make one from the other with .to(), and give both the same number of rows",
        )
