"""From a trained network to a weights file that says what it is."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from preimage.assembly import versions
from preimage.weights import load_into, load_weights, save_weights

from .images import Images
from .loop import Judged, judge
from .recipe import SETTINGS, Recipe

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def export(
    recipe: Recipe, network: nn.Module, path: Path, images: Images, judged: Judged | None, facts: dict[str, Any]
) -> dict[str, Any]:
    """Write the weights of a trained network; the header's facts, which are also returned, say where they come from.

    - recipe and its digest, versions, the forward model they were trained for, the number of images and their digest,
      the terms of the data, scores on the validation images, and `facts` (steps, seconds, ...).
    - `storage`: in half precision, what the scores were before.

    The file is read again and judged before this returns, so that the scores are those of the file.
    Raises `BadFile` if it cannot be written.
    """
    half = _DTYPES.get(recipe.export.dtype)
    tensors = {n: t.to(half) if half and t.is_floating_point() else t for n, t in network.state_dict().items()}
    before = judge(recipe, network, judged)[0] if judged is not None else {}
    stored = recipe.network().to(next(network.parameters()).device)
    stored.load_state_dict({name: t.to(network.state_dict()[name].dtype) for name, t in tensors.items()})
    scores = judge(recipe, stored, judged)[0] if judged is not None else {}
    header: dict[str, Any] = {
        "recipe": recipe.tables,
        "settings": {name: vars(getattr(recipe, name)) for name in SETTINGS},
        "recipe_digest": recipe.digest,
        "name": recipe.export.name,
        "versions": versions({"operator": recipe.forward.get("operator", [])}),
        "data": {"images": len(images), "digest": images.digest(), "terms": recipe.export.terms},
        "scores": scores,
        **facts,
    }
    if recipe.start:
        header["start"] = {"name": recipe.start, "digest": load_weights(recipe.start, recipe.component).digest}
    if half:
        header["storage"] = {"dtype": recipe.export.dtype, "scores_before": before}
    if recipe.forward and (forward := recipe.forward_model(_shape(images, judged))) is not None:
        header["forward_model"] = {name: forward.config[name] for name in ("operator", "noise", "seed")}
    save_weights(path, tensors, component=recipe.component, config=recipe.config, facts=header)
    load_into(recipe.network(), load_weights(str(path), recipe.component))
    return header


def _shape(images: Images, judged: Judged | None) -> tuple[int, ...]:
    return tuple(images[0].shape if judged is None else judged.images.shape[1:])
