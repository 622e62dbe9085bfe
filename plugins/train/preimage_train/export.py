"""From a trained network to a weights file that says what it is."""

from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from preimage.assembly import versions
from preimage.errors import BadParameter
from preimage.trained import Certified
from preimage.weights import load_into, load_weights, save_weights

from .checkpoint import digest
from .images import Images
from .loop import Judged, judge
from .recipe import SETTINGS, Recipe

OWN = {name: metadata.version(name) for name in ("preimage-train", "lightning-fabric")}
_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def export(
    recipe: Recipe,
    network: nn.Module,
    path: Path,
    images: Images,
    judged: Judged | None,
    examples: Tensor,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Write the weights of a trained network; the header's facts, which are also returned, say where they come from.

    - recipe and its digest, versions, the forward model they were trained for, the number of images and their digest,
      the terms of the data, scores on the validation images, and `facts` (steps, seconds, ...).
    - `certificate`: of a network that has one (`preimage.trained.Certified`), which its weights are brought to first,
      with `examples` of what it was given.
    - `storage`: in half precision, what the scores were before.

    The scores are of a network with the tensors as they are stored; the file is read once more to see that it is whole.
    Raises `BadFile` if it cannot be written, `BadParameter` if a certificate would be rounded away.
    """
    kind, name = recipe.component.split("/")
    half = _DTYPES.get(recipe.export.dtype)
    if isinstance(network, Certified):
        if half:
            found = f"export.dtype is {recipe.export.dtype} for weights with a certificate"
            raise BadParameter(found, "float32", "rounding them would break it")
        facts = facts | {"certificate": network.certify(examples)}
    tensors = {n: t.to(half) if half and t.is_floating_point() else t for n, t in network.state_dict().items()}
    before = judge(recipe, network, judged)[0] if judged is not None else {}
    stored = recipe.network().to(next(network.parameters()).device)
    stored.load_state_dict({key: t.to(network.state_dict()[key].dtype) for key, t in tensors.items()})
    scores = judge(recipe, stored, judged)[0] if judged is not None else {}
    header: dict[str, Any] = {
        "recipe": recipe.tables,
        "settings": {table: vars(getattr(recipe, table)) for table in SETTINGS},
        "recipe_digest": recipe.digest,
        "name": recipe.export.name,
        "versions": versions({"operator": recipe.forward.get("operator", []), kind: {"name": name}}) | OWN,
        "data": {"images": len(images), "digest": images.digest(), "terms": recipe.export.terms},
        "scores": scores,
        **facts,
    }
    if recipe.start:
        start = load_weights(recipe.start, recipe.component)
        header["start"] = {"name": recipe.start, "digest": digest(start.tensors)}
    if half:
        header["storage"] = {"dtype": recipe.export.dtype, "scores_before": before}
    if recipe.forward and (forward := recipe.forward_model(_shape(images, judged))) is not None:
        header["forward_model"] = {key: forward.config[key] for key in ("operator", "noise", "seed")}
    save_weights(path, tensors, component=recipe.component, config=recipe.arguments(), facts=header)
    load_into(recipe.network(), load_weights(str(path), recipe.component))
    return header


def _shape(images: Images, judged: Judged | None) -> tuple[int, ...]:
    return tuple(images[0].shape if judged is None else judged.images.shape[1:])
