"""deepinv's transformers and diffusion networks as denoisers."""

from typing import Any, Literal

from preimage import Key, Shape
from preimage.errors import BadParameter, ShapeMismatch

from ._weights import PRETRAINED, Published
from .networks import NetworkDenoiser


class Restormer(NetworkDenoiser):
    """Transformer with attention across channels (Zamir et al. 2022, "Restormer: efficient transformer for
    high-resolution image restoration"), in its version for noise of unknown level: `denoise(x, sigma)` does not depend
    on sigma.

    - `dim`: 48. `num_blocks`, `heads`: of the four levels, (4, 6, 6, 8) and (1, 2, 4, 8). `num_refinement_blocks`: 4.

    `weights`, `allow_download` and errors: see `NetworkDenoiser`.
    """

    component, path = "deepinv/restormer", "models.Restormer"

    def __init__(
        self,
        in_shape: Shape,
        key: Key = Key(0),
        *,
        weights: str = PRETRAINED,
        allow_download: bool = False,
        dim: int = 48,
        num_blocks: tuple[int, int, int, int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: tuple[int, int, int, int] = (1, 2, 4, 8),
    ):
        published = None
        if (dim, num_blocks, num_refinement_blocks, heads) == (48, (4, 6, 6, 8), 4, (1, 2, 4, 8)):
            file = {1: "gaussian_gray_denoising_blind.pth", 3: "gaussian_color_denoising_blind.pth"}.get(in_shape[0])
            published = None if file is None else Published.by_deepinv("restormer", file)
        arguments = {
            "in_channels": in_shape[0],
            "out_channels": in_shape[0],
            "dim": dim,
            "num_blocks": num_blocks,
            "num_refinement_blocks": num_refinement_blocks,
            "heads": heads,
            "LayerNorm_type": "BiasFree",
        }
        super().__init__(in_shape, key, weights, allow_download, published, arguments)


class SwinIR(NetworkDenoiser):
    """Swin transformer (Liang et al. 2021, "SwinIR: image restoration using Swin transformer"), trained for one noise
    level: `denoise(x, sigma)` does not depend on sigma.

    - `pretrained_noise_level`: of the published weights, in 255ths: 15 (default), 25 or 50.
    - `img_size`: of the training images, 128. `embed_dim`: 180. `depths`, `num_heads`: of its stages, six times 6.
      `window_size`: 8.

    `weights`, `allow_download` and errors: see `NetworkDenoiser`; `BadParameter` if a number of heads does not divide
    embed_dim, or depths and num_heads differ in length.
    """

    component, path = "deepinv/swinir", "models.SwinIR"

    def __init__(
        self,
        in_shape: Shape,
        key: Key = Key(0),
        *,
        weights: str = PRETRAINED,
        allow_download: bool = False,
        pretrained_noise_level: Literal[15, 25, 50] = 15,
        img_size: int = 128,
        embed_dim: int = 180,
        depths: tuple[int, ...] = (6, 6, 6, 6, 6, 6),
        num_heads: tuple[int, ...] = (6, 6, 6, 6, 6, 6),
        window_size: int = 8,
    ):
        if len(depths) != len(num_heads) or not depths or any(embed_dim % heads for heads in num_heads):
            found = f"depths is {depths}, num_heads {num_heads}, embed_dim {embed_dim}"
            raise BadParameter(found, "one number of heads for each depth, which divides embed_dim")
        published = None
        usual = (img_size, embed_dim, depths, num_heads, window_size) == (128, 180, (6,) * 6, (6,) * 6, 8)
        if usual and in_shape[0] in (1, 3):
            kind = "004_grayDN" if in_shape[0] == 1 else "005_colorDN"
            file = f"{kind}_DFWB_s128w8_SwinIR-M_noise{pretrained_noise_level}.pth"
            published = Published(file, f"https://github.com/JingyunLiang/SwinIR/releases/download/v0.0/{file}")
        arguments: dict[str, Any] = {
            "img_size": img_size,
            "in_chans": in_shape[0],
            "embed_dim": embed_dim,
            "depths": list(depths),
            "num_heads": list(num_heads),
            "window_size": window_size,
        }
        super().__init__(in_shape, key, weights, allow_download, published, arguments)


class _Diffusion(NetworkDenoiser):
    def as_published(self, network: Any) -> None:
        # Published networks see pixels in [-1, 1]; deepinv sets the same when it downloads them.
        network._was_trained_on_minus_one_one = True
        network.pixel_std = 0.5
        network.precondition_type = "edm"


class NCSNpp(_Diffusion):
    """Score network of diffusion models (Song et al. 2021; Karras et al. 2022, "Elucidating the design space of
    diffusion-based generative models") as a denoiser of every noise level.

    - `img_resolution`: of the training images; images here are square with this side. 64 by default.
    - `model_channels`: a multiple of 32, 128. `channel_mult`: per resolution, (1, 2, 2, 2). `num_blocks`: 4.
      `attn_resolutions`: sides at which it attends, (16,).

    The published weights are for faces (FFHQ) of 3 x 64 x 64. `weights`, `allow_download` and errors: see
    `NetworkDenoiser`; `BadParameter` for model_channels, `ShapeMismatch` for images of another size.
    """

    component, path = "deepinv/ncsnpp", "models.NCSNpp"

    def __init__(
        self,
        in_shape: Shape,
        key: Key = Key(0),
        *,
        weights: str = PRETRAINED,
        allow_download: bool = False,
        img_resolution: int = 64,
        model_channels: int = 128,
        channel_mult: tuple[int, ...] = (1, 2, 2, 2),
        num_blocks: int = 4,
        attn_resolutions: tuple[int, ...] = (16,),
    ):
        _check_diffusion(in_shape, self.component, img_resolution, model_channels, channel_mult)
        own = (img_resolution, model_channels, channel_mult, num_blocks, attn_resolutions)
        published = None
        if own == (64, 128, (1, 2, 2, 2), 4, (16,)) and in_shape[0] == 3:
            published = Published.by_deepinv("edm", "edm-ffhq-64x64-uncond-ve.pt")
        arguments = _diffusion(in_shape, img_resolution, model_channels, channel_mult, num_blocks, attn_resolutions)
        super().__init__(in_shape, key, weights, allow_download, published, arguments)


class ADMUNet(_Diffusion):
    """U-Net of diffusion models (Dhariwal & Nichol 2021, "Diffusion models beat GANs on image synthesis") as a denoiser
    of every noise level, without classes.

    Parameters and errors as for `NCSNpp`; model_channels is 192, channel_mult (1, 2, 3, 4), num_blocks 3 and
    attn_resolutions (32, 16, 8) by default. Weights are published for ImageNet's classes only, which is another
    network: `weights` is required, a path or "untrained".
    """

    component, path = "deepinv/admunet", "models.ADMUNet"

    def __init__(
        self,
        in_shape: Shape,
        key: Key = Key(0),
        *,
        weights: str,
        img_resolution: int = 64,
        model_channels: int = 192,
        channel_mult: tuple[int, ...] = (1, 2, 3, 4),
        num_blocks: int = 3,
        attn_resolutions: tuple[int, ...] = (32, 16, 8),
    ):
        _check_diffusion(in_shape, self.component, img_resolution, model_channels, channel_mult)
        arguments = _diffusion(in_shape, img_resolution, model_channels, channel_mult, num_blocks, attn_resolutions)
        super().__init__(in_shape, key, weights, False, None, arguments)


def _check_diffusion(
    in_shape: Shape, who: str, img_resolution: int, model_channels: int, channel_mult: tuple[int, ...]
) -> None:
    if model_channels < 32 or model_channels % 32:
        raise BadParameter(f"model_channels is {model_channels}", "a multiple of 32, the size of its groups")
    if not channel_mult or min(channel_mult) < 1:
        raise BadParameter(f"channel_mult is {channel_mult}", "at least one factor >= 1")
    if tuple(in_shape[1:]) != (img_resolution, img_resolution):
        raise ShapeMismatch(
            f"{who} got images of shape {tuple(in_shape)}",
            f"images (C, {img_resolution}, {img_resolution}), as img_resolution says",
        )


def _diffusion(
    in_shape: Shape,
    img_resolution: int,
    model_channels: int,
    channel_mult: tuple[int, ...],
    num_blocks: int,
    attn_resolutions: tuple[int, ...],
) -> dict[str, Any]:
    return {
        "img_resolution": img_resolution,
        "in_channels": in_shape[0],
        "out_channels": in_shape[0],
        "model_channels": model_channels,
        "channel_mult": list(channel_mult),
        "num_blocks": num_blocks,
        "attn_resolutions": list(attn_resolutions),
    }
