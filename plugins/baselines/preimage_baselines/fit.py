"""The command `preimage fit`; what it needs is imported when it runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from torch import Tensor


@click.group("fit")
def fit() -> None:
    """Estimate the parameters of a prior from a folder of images."""


@fit.command("gaussian-spectrum")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file to write (.safetensors).")
@click.option("--size", default=64, show_default=True, help="Side of the square images of the model, in pixels.")
@click.option("--channels", type=click.Choice(["1", "3"]), default="3", show_default=True, help="Grey or colour.")
@click.option(
    "--crop",
    type=click.Choice(["resize", "tiles"]),
    default="resize",
    show_default=True,
    help="Shrink every image (antialiased bilinear) and cut its centre, or cut it into tiles, pixels untouched.",
)
@click.option(
    "--mean",
    type=click.Choice(["image", "colour"]),
    default="colour",
    show_default=True,
    help="Mean image, for aligned images such as faces, or one colour.",
)
@click.option("--components", default=0, show_default=True, help="Principal components to take in.")
@click.option("--share", type=float, help="Weight of the components, 0 to 1.  [default: chosen by held-out images]")
@click.option("--flip", is_flag=True, help="Count every image's mirror image too.")
@click.option("--shift", is_flag=True, help="Count every image moved by one pixel too, in four directions.")
@click.option("--note", default="", help="Recorded in the file: what the images are, and the terms of their use.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
def gaussian_spectrum(
    folder: Path,
    out: Path,
    size: int,
    channels: str,
    crop: Literal["resize", "tiles"],
    mean: Literal["image", "colour"],
    components: int,
    share: float | None,
    flip: bool,
    shift: bool,
    note: str,
    overwrite: bool,
) -> int:
    """Fit the Gaussian prior gaussian-spectrum to all images in FOLDER and the folders below it.

    Use it with [prior] name = "gaussian-spectrum", weights = "FILE". The file's header tells the data (number of
    images, digest), the options and the versions. A relative FOLDER is below PREIMAGE_DATA, if that is set.

    Needs preimage-data, which reads the images.
    """
    import torch

    from preimage import __version__
    from preimage.errors import BadFile

    from . import __version__ as own_version
    from .fit_gaussian import check_options, fit_spectrum
    from .fit_images import Progress, folder_images

    if out.exists() and not overwrite:
        raise BadFile(f"{out} is there already", "the name of a new file", "choose another --out, or give --overwrite")
    check_options(components, share)
    images, data = folder_images(folder, size=size, channels=int(channels), crop=crop)
    with Progress("components") as progress:
        model, share = fit_spectrum(
            images, mean=mean, components=components, flip=flip, shift=shift, share=share, report=progress.show
        )
    facts: dict[str, Any] = {
        "data": data,
        "note": note,
        "options": {"size": size, "channels": int(channels), "crop": crop, "mean": mean, "components": components}
        | {"share": share, "flip": flip, "shift": shift},
        "versions": {"preimage": __version__, "preimage-baselines": own_version, "torch": torch.__version__},
    }
    model.save(out, facts)
    click.echo(_summary(out, images, model.components, share))
    return 0


def _summary(out: Path, images: "Tensor", components: "Tensor", share: float) -> str:
    shape = "x".join(map(str, images.shape[1:]))
    low_rank = f", {len(components)} components with share {share:g}" if len(components) else ""
    return f"{out}: {len(images)} images of {shape}{low_rank}, {out.stat().st_size / 2**20:.2f} MiB"
