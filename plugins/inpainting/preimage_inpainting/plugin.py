"""What this distribution offers."""

from pathlib import Path

from preimage import Component, hookimpl

_EXAMPLE_MASK = str(Path(__file__).with_name("example-mask.png"))


@hookimpl
def preimage_components() -> list[Component]:
    return [
        Component(
            "operator",
            "inpainting",
            "preimage_inpainting._operator:Inpainting",
            "known pixels of the image, one mask shared by all images: random, box, centre, or from an image file",
            shape=(3, 16, 12),
            examples=(
                {},
                {"mask": "random", "keep": 0.3, "per_channel": True},
                {"mask": "box", "box": [2, 3, 5, 4]},
                {"mask": "centre", "fraction": 0.4},
                {"mask": "file", "path": _EXAMPLE_MASK},
            ),
        ),
        Component(
            "operator",
            "inpainting-per-image",
            "preimage_inpainting._operator:InpaintingPerImage",
            "known pixels of the image, a mask drawn for each image: random pixels, or a box at a random place",
            shape=(3, 16, 12),
            examples=({}, {"keep": 0.25, "per_channel": True}, {"mask": "box", "size": [5, 4]}),
        ),
    ]
