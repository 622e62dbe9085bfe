"""The proof that an averaged network is one: the norms of its kernels."""

from collections.abc import Mapping
from typing import Any, cast

import torch

from preimage.errors import BadFile, Incompatible
from preimage.weights import Weights

from .averaged_network import BOUND, AveragedNetwork, ShrinkageLayer
from .certificate import digest
from .norm_bounds import convolution_norm_bound, norm_is_at_most


@torch.no_grad()
def certify(network: AveragedNetwork) -> dict[str, Any]:
    """Divide every kernel, in place, so that ||W||^2 <= 2 sigmoid(gain) is proved for the numbers as they are stored.

    From then on the network applies them as they are. The facts for the header: `averaged`, t; `norms`, for each layer
    a proved bound of ||W|| at every image size; `digest`, the SHA-256 of the tensors.

    Raises `ValueError` if a kernel is not finite or zero.
    """
    norms = list[float]()
    layers = cast("list[ShrinkageLayer]", list(network.layers))
    for layer in layers:
        wanted = float((2 * torch.sigmoid(layer.gain.double())).sqrt())
        if not (bound := convolution_norm_bound(layer.kernel)) > 0:
            raise ValueError("a kernel is zero")
        layer.kernel.copy_(layer.kernel.double() * (wanted * (1 - 1e-6) / bound))  # for the rounding to float32
        norms.append(convolution_norm_bound(layer.kernel))
    network.certified.fill_(True)
    return {"averaged": network.averaged, "norms": norms, "digest": digest(network.state_dict())}


def verify(weights: Weights, network: AveragedNetwork) -> None:
    """Prove, from the tensors alone, that a network with these weights is averaged, and that they are as exported.

    Raises `Incompatible` if the header has no certificate, or the proof fails; `BadFile` if the tensors are not those
    that were certified.
    """
    name, again = weights.path.name, "export it again: preimage train writes certificates"
    certificate: Any = weights.facts.get("certificate")
    if not isinstance(certificate, Mapping) or not {"averaged", "norms", "digest"} <= certificate.keys():
        raise Incompatible(f"{name} has no certificate of an averaged operator", "the header's certificate", again)
    if certificate["digest"] != digest(weights.tensors):
        found = f"the tensors of {name} are not those that were certified"
        raise BadFile(found, "a file as it was exported", "copy it again, or " + again)
    layers = cast("list[ShrinkageLayer]", list(network.layers))
    if not bool(network.certified) or certificate["averaged"] != network.averaged:
        raise Incompatible(f"the certificate of {name} is of another network", f"t = {network.averaged}", again)
    for index, layer in enumerate(layers):
        if not norm_is_at_most(layer.kernel, BOUND):
            found = f"{name}: the norm of layer {index} cannot be proved to be at most sqrt(2)"
            raise Incompatible(found, "nonexpansive layers", again)
