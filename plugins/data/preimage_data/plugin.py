"""What this distribution offers. Imports no torch."""

from importlib.util import find_spec
from pathlib import Path

from preimage import Command, Component, hookimpl


@hookimpl
def preimage_components() -> list[Component]:
    spec = find_spec("skimage")  # its images make the examples; the package itself is not imported
    images = f"{spec.submodule_search_locations[0]}/data" if spec and spec.submodule_search_locations else "."
    specimens = str(Path(__file__).parent / "specimens")  # a few images in the formats of the data sets by name
    return [
        Component(
            "dataset",
            "photographs",
            "preimage_data.photographs:Photographs",
            "sixteen photographs that ship with scikit-image",
            examples=(
                {"size": 64, "count": 8},
                {"size": [48, 64], "colour": "colour", "crop": "centre", "names": ["camera", "rocket", "page"]},
                {"size": [40, 72], "crop": "stretch", "count": 2},
            ),
        ),
        Component(
            "dataset",
            "folder",
            "preimage_data.folder:Folder",
            "any folder of image files, in PREIMAGE_DATA or anywhere",
            examples=(
                {"path": images, "size": 64, "extensions": [".png", ".jpg"]},
                {"path": images, "size": 96, "crop": "centre", "colour": "colour", "extensions": [".jpg"]},
                {"path": images, "extensions": [".png"], "start": 1, "count": 1},
            ),
        ),
        Component(
            "dataset",
            "image-file",
            "preimage_data.image_file:ImageFile",
            "one image file",
            examples=(
                {"path": f"{images}/camera.png"},
                {"path": f"{images}/rocket.jpg", "size": 64, "colour": "grey"},
                {"path": f"{images}/logo.png", "size": [64, 48], "crop": "centre", "colour": "colour"},
            ),
        ),
        Component(
            "dataset",
            "stl10",
            "preimage_data.stl10:STL10",
            "STL-10 from its binary files, grey or in colour, 96 x 96, with a split for networks",
            examples=(
                {"path": specimens},
                {"path": specimens, "split": "unlabeled", "colour": "colour", "size": 64},
                {"path": specimens, "split": "test", "size": [48, 96], "crop": "centre"},
                {"path": specimens, "fold": 3},
            ),
        ),
        Component(
            "dataset",
            "celeba",
            "preimage_data.celeba:CelebA",
            "aligned faces of CelebA by their official partition",
            examples=(
                {"path": specimens},
                {"path": specimens, "split": "valid", "window": 108, "colour": "grey"},
                {"path": specimens, "split": "test", "size": None},
            ),
        ),
        Component(
            "dataset",
            "bsds500",
            "preimage_data.bsds500:BSDS500",
            "photographs of the Berkeley Segmentation Data Set",
            examples=(
                {"path": specimens},
                {"path": specimens, "split": "val", "size": 96, "colour": "colour"},
                {"path": specimens, "split": "test", "size": [64, 96], "crop": "resize"},
            ),
        ),
        Component("metric", "psnr", "preimage_data.measures:PSNR", "peak signal-to-noise ratio in dB"),
        Component("metric", "ssim", "preimage_data.measures:SSIM", "structural similarity (Wang et al. 2004)"),
    ]


@hookimpl
def preimage_commands() -> list[Command]:
    return [
        Command("run", "preimage_data.commands:run", "Simulate and reconstruct the images of a pipeline."),
        Command("data", "preimage_data.data_command:data", "Find copies of images between and inside data sets."),
        Command("demo", "preimage_data.commands:demo", "Five inverse problems on real photographs."),
    ]
