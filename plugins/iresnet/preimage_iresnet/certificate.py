"""The certificate of an invertible residual network: weights divided by proved norms, and the proof at load."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from preimage.errors import BadData, BadFile, Incompatible
from preimage.weights import Weights

from .network import InvertibleResNet
from .norm_bounds import SLACK, convolution_norm_bound, norm_is_at_most
from .norms import grid_norm

METHOD = "branch and bound over frequencies, Bernstein-Szego inequality, Cholesky factorisations in float64"

_STEP = 1e-7
_REMEDY = "copy the file again, or train and export it again with `preimage train`"


class BlockNorms(NamedTuple):
    """Proved upper bounds of ||W1|| and ||W2|| of one block, on images of every size."""

    wide: float
    narrow: float

    @property
    def lipschitz(self) -> Fraction:
        """The bound of Lip(f_i), their product, without rounding."""
        return Fraction(self.wide) * Fraction(self.narrow)


def certify(network: InvertibleResNet, examples: Tensor) -> dict[str, Any]:
    """Bring a network to where Lip(f_i) <= L_i and Lip(phi^-1) <= 1 / (1 - L) are proved, and fit the linear starts of
    its inverse to what it does with `examples`, images (B, C, h, w); the certificate, plain values for a header.

    Every W1 and W2 is divided, in place, by a bound of its norm that holds for images of all sizes
    (`norm_bounds.norm_is_at_most`). The bounds of the certificate are those of the tensors as they are afterwards,
    rounded to their dtype, and multiply out without rounding: prod (1 - ||W1_i|| ||W2_i||) >= 1 - L. They hold where
    the network is evaluated exactly or, up to its rounding errors, in float64; float32 adds some 1e-7 of its output to
    each residual.

    The certificate: `method`; `slack`, how far a proved norm of W1 may lie above the true one; `lipschitz`, L; for each
    of the `blocks` the proved norms `wide` (W1) and `narrow` (W2), their `product` and `bound`, L_i;
    `inverse_lipschitz`, prod 1 / (1 - product); `digest`, SHA-256 of all tensors.

    Raises `BadData` if weights are not finite.
    """
    from .linear_start import fit

    training = network.training
    norms = divide(network)
    network.eval()
    fit(network, examples)
    network.train(training)
    return {
        "method": METHOD,
        "slack": SLACK,
        "lipschitz": network.lipschitz,
        "blocks": [
            {"wide": own.wide, "narrow": own.narrow, "product": float(own.lipschitz), "bound": bound}
            for own, bound in zip(norms, network.bounds, strict=True)
        ],
        "inverse_lipschitz": math.prod(1 / (1 - float(own.lipschitz)) for own in norms),
        "digest": digest(network.state_dict()),
    }


@torch.no_grad()
def divide(network: InvertibleResNet) -> list[BlockNorms]:
    """The part of `certify` that concerns the norms: W1 and W2 divided, the network marked as certified."""
    blocks: list[Any] = list(network.blocks)
    for index, block in enumerate(blocks):
        if not all(bool(torch.isfinite(tensor).all()) for tensor in block.plain()):
            found = f"weights of block {index + 1} are NaN or infinite"
            raise BadData(found, "finite weights", "train again, with a smaller learning rate")
    norms = [_divide(block, bound) for block, bound in zip(blocks, _targets(network), strict=True)]
    network.certified.fill_(True)
    return norms


def verify(weights: Weights, network: InvertibleResNet) -> None:
    """Prove anew, for a network restored from a weights file, what its header claims.

    The norms in the header are proved for the tensors, which takes a fraction of what finding them takes, and the
    products are compared with L of the config: whatever the header says, a network that passes has the bounds. The
    digest besides finds changes that the bounds survive.

    Raises `BadFile` if the header has no certificate or one that cannot be read, or if a tensor is not what it was;
    `Incompatible` if the certificate is for another L or split, if its norms do not multiply out to L, or if one of
    them is not that of the tensor.
    """
    where = str(weights.path)
    certificate, norms = _read(weights, where)
    claimed = [certificate["lipschitz"], *(block["bound"] for block in certificate["blocks"])]
    if claimed != [network.lipschitz, *network.bounds]:
        found = f"{where} has a certificate for lipschitz = {claimed[0]} and {len(norms)} blocks, or for another split"
        expected = f"that of its config: lipschitz = {network.lipschitz} over {len(network.bounds)} blocks"
        raise Incompatible(found, expected, _REMEDY)
    for index, (own, bound) in enumerate(zip(norms, network.bounds, strict=True), 1):
        if own.lipschitz > Fraction(bound):
            found = f"{where}: the certified norms of block {index} multiply out to {float(own.lipschitz):.9g}"
            raise Incompatible(found, f"at most its bound, {bound:.9g}", _REMEDY)
    whole = _remaining(own.lipschitz for own in norms)
    if whole < 1 - Fraction(network.lipschitz):
        found = f"{where}: the certified norms multiply out to Lip(phi^-1) <= {1 / float(whole):.9g}"
        raise Incompatible(found, f"at most 1 / (1 - lipschitz) = {1 / (1 - network.lipschitz):.9g}", _REMEDY)
    found_digests = {digest(weights.tensors), digest(network.state_dict())}
    if not bool(network.certified) or found_digests != {certificate["digest"]}:
        found = f"{where}: the tensors are not those that the certificate was written for"
        raise BadFile(found, f"tensors with the SHA-256 {certificate['digest']:.12}...", _REMEDY)
    blocks: list[Any] = list(network.blocks)
    for index, (block, own) in enumerate(zip(blocks, norms, strict=True), 1):
        for name, tensor, bound in (("W1", block.wide, own.wide), ("W2", block.narrow, own.narrow)):
            if not norm_is_at_most(tensor, bound):
                found = f"{where}: the norm of {name} of block {index} is not at most {bound:.9g}, as its header says"
                raise Incompatible(found, "norms that can be proved", _REMEDY)


def certified_norms(weights: Weights) -> list[BlockNorms]:
    """The norms in the header's certificate, as they stand there. Raises `BadFile` as `verify`."""
    return _read(weights, str(weights.path))[1]


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, sorted by name: the same in whatever file they are."""
    whole = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        whole.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        whole.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def _targets(network: InvertibleResNet) -> list[float]:
    """Numbers at most L_i for which prod (1 - target_i) >= 1 - L without rounding: L_i less some 1e-7 of it.

    A split is accepted if it multiplies out to 1e-6.
    """
    remaining, targets = 1 - Fraction(network.lipschitz), list(network.bounds)
    while True:
        targets = [target * (1 - _STEP) for target in targets]
        if _remaining(Fraction(target) for target in targets) >= remaining:
            return targets


def _remaining(bounds: Iterable[Fraction]) -> Fraction:
    """prod (1 - L_i), without rounding."""
    return math.prod((1 - bound for bound in bounds), start=Fraction(1))


def _divide(block: Any, target: float) -> BlockNorms:
    """W1 to norm 1 about, W2 such that the proved norms multiply out to at most the target."""
    _multiply(block.wide, 1 / max(float(grid_norm(block.wide.double())), 1e-30))
    wide = convolution_norm_bound(block.wide)
    narrow = convolution_norm_bound(block.narrow)
    factor = target / max(wide * narrow, 1e-30)
    while True:
        _multiply(block.narrow, factor)
        norms = BlockNorms(wide, convolution_norm_bound(block.narrow))
        if norms.lipschitz <= Fraction(target):
            return norms
        factor = 1 - torch.finfo(block.narrow.dtype).eps


def _multiply(tensor: Tensor, factor: float) -> None:
    """The product in float64, rounded once."""
    tensor.copy_(tensor.double() * factor)


def _read(weights: Weights, where: str) -> tuple[dict[str, Any], list[BlockNorms]]:
    """The certificate of a header, its entries of the types that `certify` writes."""
    expected = "the fact 'certificate' in its header, written when a trained network is exported"
    if "certificate" not in weights.facts:
        raise BadFile(f"{where} has no certificate", expected, _REMEDY)
    try:
        table = cast("dict[str, Any]", weights.facts["certificate"])
        read = {"lipschitz": float(table["lipschitz"]), "digest": str(table["digest"]), "blocks": list[Any]()}
        norms = list[BlockNorms]()
        for block in table["blocks"]:
            norms.append(BlockNorms(float(block["wide"]), float(block["narrow"])))
            read["blocks"].append({"bound": float(block["bound"])})
        if not all(0 <= norm < math.inf for own in norms for norm in own):
            raise ValueError("a norm is negative, infinite or NaN")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadFile(f"{where} has a certificate that cannot be read: {error!r}", expected, _REMEDY) from None
    return read, norms
