"""The inverse at inference: block by block to a tolerance, with a proved bound on how far it is from the exact one."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from preimage.errors import BadData
from preimage.trained import Inversion

from .fixed_point import Enough, Fixed, iterate, norms
from .ledger import Ledger
from .network import InvertibleResNet, ResidualBlock
from .residual import Residual

_SINGLE = 2.0**-21  # below this step, relative to x, float32 brings nothing more


class Block(NamedTuple):
    """One block to be inverted: f, its bound L_i >= Lip(f), and the linear start x_0 = z + start * z + start_bias."""

    residual: Residual
    bound: float
    start: Tensor
    start_bias: Tensor

    @classmethod
    def of(cls, network: InvertibleResNet) -> "list[Block]":
        """The blocks of a network, the one inverted first (phi_1, applied last) in front."""
        blocks = (cast(ResidualBlock, block) for block in network.blocks)
        given = zip(network.residuals(), network.bounds, blocks, strict=True)
        return [cls(residual, bound, block.start, block.start_bias) for residual, bound, block in given]

    def to(self, like: torch.dtype | Tensor) -> "Block":
        """The same in another dtype, or the dtype and on the device of a tensor."""
        return Block(self.residual.to(like), self.bound, self.start.to(like), self.start_bias.to(like))

    def guess(self, z: Tensor) -> Tensor:
        """x_0."""
        return z + F.conv2d(z, self.start, self.start_bias, padding=1)


@torch.no_grad()
def invert(blocks: Sequence[Block], z: Tensor, tolerance: float, certified: bool) -> Inversion:
    """phi^-1(z), phi = phi_1 o ... o phi_N: (B, M, h, w) -> (B, M, h, w), each ||x - phi^-1(z)|| <= tolerance ||x||.

    Every block is the fixed point of x <- z + f(x), from its linear start (Arndt & Nickel 2024 start at z). With
    q = L_i a step from x_{k-1} to x_k, computed with an error of norm <= rho, leaves

        ||x_k - phi_i^-1(z)|| <= d_i = (q ||x_k - x_{k-1}|| + rho) / (1 - q),

    and later blocks enlarge the error by at most prod_{j > i} 1 / (1 - L_j), so sum_i d_i prod_{j > i} 1 / (1 - L_j)
    bounds that of x, in the Euclidean norm: `Inversion.bound`.

    - `certified`: the tolerance is met by this bound, of which each block may take two equal parts, since in whole
      steps it takes about one; what it leaves is for those after it. Steps are accelerated (`fixed_point.iterate`), the
      last ones in float64, where rho is negligible, and so are the states between blocks.
    - otherwise it is met as an estimate: d_i with the measured contraction in place of q and nothing for rounding, and
      errors of the N blocks that are independent and grow evenly, by g = 1.7 over the whole network: each is
      tolerance / (g^((N - i) / N) sqrt(N)).

    Early steps on float64 are taken in float32. An image does not depend on its batch, up to rounding of those steps.

    Where floating-point numbers do not admit the tolerance, iterations end at rounding errors and the bound is larger
    than asked for. rho holds for convolutions that are sums of products in any order; in single precision that is
    granted on a CPU alone, and the bound is infinite on other devices unless `certified`.

    Raises `BadData` if there is NaN or infinity in z.
    """
    if not bool(torch.isfinite(z).all()):
        bad = int((~torch.isfinite(z)).sum())
        raise BadData(f"the code to be inverted has {bad} values that are NaN or infinite", "finite numbers", "mend y")
    exact = torch.float64 if certified else torch.promote_types(z.dtype, torch.float32)
    residuals, bounds = [block.residual for block in blocks], [block.bound for block in blocks]
    ledger = Ledger(residuals, bounds, z, tolerance, certified, exact)
    x = _laid_out(z, exact)
    for index, block in enumerate(blocks):
        x = _invert_block(block, x, ledger, index)
    out = x.to(z.dtype)
    bound = ledger.bound + 1.001 * norms(out.double() - x.double())
    return Inversion(out, bound, ledger.evaluations, ledger.contraction)


def _invert_block(block: Block, z: Tensor, ledger: Ledger, index: int) -> Tensor:
    """The state before a block, of the one after it; in float64 early steps are taken in float32."""

    def enough(rows: Tensor, step: Tensor, pace: Tensor, size: Tensor) -> Tensor:
        return ledger.enough(index, rows, step, pace, size)

    def nearly(rows: Tensor, step: Tensor, pace: Tensor, size: Tensor) -> Tensor:
        ahead = pace * step  # the length of the next step, which would be the first in float64
        return (ahead <= _SINGLE * size) | ledger.enough(index, rows, ahead, pace, size)

    if z.dtype == torch.float64:
        small = _laid_out(z, torch.float32)
        single = block.to(small)
        found = _solve(small, single.guess(small), single, nearly, None, ledger.certified)
        ledger.count(found)
        start, pace = _laid_out(found.x, torch.float64), found.pace
    else:
        start, pace = block.to(z).guess(z), None
    found = _solve(z, start, block.to(z), enough, pace, ledger.certified)
    ledger.count(found)
    ledger.enter(index, found)
    return found.x


def _solve(z: Tensor, start: Tensor, block: Block, enough: Enough, pace: Tensor | None, accelerated: bool) -> Fixed:
    def advance(x: Tensor, rows: Tensor | None) -> Tensor:
        return (z if rows is None else z[rows]) + block.residual(x)

    return iterate(start, advance, block.bound, enough, pace, accelerated)


def _laid_out(x: Tensor, dtype: torch.dtype) -> Tensor:
    """In a dtype, and the layout of memory in which its convolutions are fast."""
    return x.to(dtype, memory_format=torch.channels_last if dtype == torch.float32 else torch.contiguous_format)
