"""deepinv's networks for Gaussian noise as denoisers."""

from typing import Any, Literal

from torch import Tensor, nn

from preimage import Key, Shape
from preimage.errors import BadParameter, ShapeMismatch

from ._deepinv import build
from ._weights import PRETRAINED, UNTRAINED, Published, find, load_into
from .denoiser import WrappedDenoiser


class NetworkDenoiser(WrappedDenoiser):
    """A network of deepinv with weights.

    The parameters that all have:

    - `weights`: "pretrained" (default), the weights published for it: the file is looked for in the folder that the
      environment variable PREIMAGE_DEEPINV_WEIGHTS names, then where deepinv itself downloads to. A path: a file of
      your own, a state_dict saved by torch.save or safetensors. "untrained": random ones, drawn from the `key`, for
      tests and speed.
    - `allow_download`: fetch the published weights if they are not there; False by default.

    It computes in the dtype of its weights, which `.to(torch.float64)` changes, and keeps that of the image.
    Raises `BadFile` if the weights are missing (saying which file to put where), damaged, or hold more than tensors,
    `BadParameter` if none are published for these parameters, `Incompatible` if they do not fit, `ShapeMismatch` for
    images that are not (C, H, W) or have a number of channels that it cannot have.
    """

    component: str
    """Its name in the registry."""

    path: str
    """Where deepinv has it, below the package."""

    has_published: bool = True
    """Whether deepinv's class takes published weights."""

    def __init__(
        self,
        in_shape: Shape,
        key: Key,
        weights: str,
        allow_download: bool,
        published: Published | None,
        arguments: dict[str, Any],
        *,
        one_by_one: bool = False,
        fresh: bool = False,
    ):
        if len(in_shape) != 3:
            raise ShapeMismatch(f"{self.component} got images of shape {tuple(in_shape)}", "images (C, H, W)")
        file = None if weights == UNTRAINED else find(self.component, weights, published, allow_download)
        without = {"pretrained": None} if self.has_published else {}
        network: nn.Module = build(self.path, seed=key, **without, **arguments)
        if file is not None:
            load_into(self.holder(network), file, self.component)
        if weights == PRETRAINED:
            self.as_published(network)
        super().__init__(in_shape, network, name=self.component, one_by_one=one_by_one, fresh=fresh)

    def holder(self, network: nn.Module) -> nn.Module:
        """The part of the network whose tensors a weights file holds."""
        return network

    def as_published(self, network: Any) -> None:
        """Set what the published weights need beyond the constructor's arguments."""

    def run(self, denoiser: Any, x: Tensor, sigma: Tensor) -> Tensor:
        own = next(denoiser.parameters()).dtype
        return denoiser(x.to(own), sigma.to(own))


class DnCNN(NetworkDenoiser):
    """Residual convolutional network (Zhang et al. 2017, "Beyond a Gaussian denoiser"), trained for one noise level:
    `denoise(x, sigma)` does not depend on sigma. The published weights are for sigma = 2/255.

    - `depth`, `nf`, `bias`: layers, channels, and whether convolutions have a bias; 20, 64, True.
    - `lipschitz`: the published weights trained to be non-expansive (Pesquet et al. 2021, "Learning maximally monotone
      operators for image recovery"), for plug-and-play methods; False by default.

    `weights`, `allow_download` and errors: see `NetworkDenoiser`.
    """

    component, path = "deepinv/dncnn", "models.DnCNN"

    def __init__(
        self,
        in_shape: Shape,
        key: Key = Key(0),
        *,
        weights: str = PRETRAINED,
        allow_download: bool = False,
        lipschitz: bool = False,
        depth: int = 20,
        nf: int = 64,
        bias: bool = True,
    ):
        published = None
        if (depth, nf, bias) == (20, 64, True) and in_shape[0] in (1, 3):
            colour = "gray" if in_shape[0] == 1 else "color"
            file = f"dncnn_sigma2_lipschitz_{colour}.pth" if lipschitz else f"dncnn_sigma2_{colour}.pth"
            published = Published.by_deepinv("dncnn", file)
        arguments = {"in_channels": in_shape[0], "out_channels": in_shape[0], "depth": depth, "nf": nf, "bias": bias}
        super().__init__(in_shape, key, weights, allow_download, published, arguments)


class DRUNet(NetworkDenoiser):
    """U-Net with residual blocks that takes the noise level as a map (Zhang et al. 2021, "Plug-and-play image
    restoration with deep denoiser prior"), the denoiser of DPIR.

    - `nc`: channels of the four scales, (64, 128, 256, 512). `nb`: blocks per scale, 4.

    `weights`, `allow_download` and errors: see `NetworkDenoiser`.
    """

    component, path = "deepinv/drunet", "models.DRUNet"

    def __init__(
        self,
        in_shape: Shape,
        key: Key = Key(0),
        *,
        weights: str = PRETRAINED,
        allow_download: bool = False,
        nc: tuple[int, int, int, int] = (64, 128, 256, 512),
        nb: int = 4,
    ):
        published = None
        if (nc, nb) == ((64, 128, 256, 512), 4) and in_shape[0] in (1, 3):
            colour = "gray_finetune_26k" if in_shape[0] == 1 else "color_finetune_22k"
            published = Published.by_deepinv("drunet", f"drunet_deepinv_{colour}.pth")
        arguments = {"in_channels": in_shape[0], "out_channels": in_shape[0], "nc": nc, "nb": nb}
        super().__init__(in_shape, key, weights, allow_download, published, arguments)


class GSDRUNet(NetworkDenoiser):
    """Gradient step denoiser x - alpha grad g(x), g(x) = 1/2 ||x - N(x)||^2 with N a DRUNet (Hurault, Leclaire &
    Papadakis 2022, "Gradient step denoiser for convergent plug-and-play").

    - `alpha`: step, > 0, default 1. `nc`: channels of the four scales, (64, 128, 256, 512). `nb`: blocks per scale, 2.

    `weights`, `allow_download` and errors: see `NetworkDenoiser`; `BadParameter` for another alpha.
    """

    component, path = "deepinv/gsdrunet", "models.GSDRUNet"

    def __init__(
        self,
        in_shape: Shape,
        key: Key = Key(0),
        *,
        weights: str = PRETRAINED,
        allow_download: bool = False,
        alpha: float = 1.0,
        nc: tuple[int, int, int, int] = (64, 128, 256, 512),
        nb: int = 2,
    ):
        if not 0 < alpha < float("inf"):
            raise BadParameter(f"alpha is {alpha}", "a finite number > 0")
        published = None
        if (nc, nb) == ((64, 128, 256, 512), 2) and in_shape[0] in (1, 3):
            file = "GSDRUNet_grayscale_torch.ckpt" if in_shape[0] == 1 else "GSDRUNet_torch.ckpt"
            published = Published.by_deepinv("gradientstep", file)
        channels = {"in_channels": in_shape[0], "out_channels": in_shape[0]}
        arguments = {**channels, "alpha": alpha, "nc": nc, "nb": nb}
        super().__init__(in_shape, key, weights, allow_download, published, arguments)


class FFDNet(NetworkDenoiser):
    """Convolutional network on the four interleaved quarters of the image and a noise level map (Zhang, Zuo & Zhang
    2018, "FFDNet: toward a fast and flexible solution for CNN based image denoising").

    - `n_conv_layers`, `nf`: layers and channels; "published" (default): 15 and 64 for one channel, 12 and 96 for
      three.

    `weights`, `allow_download` and errors: see `NetworkDenoiser`; `ShapeMismatch` for sides that are not even.
    """

    component, path = "deepinv/ffdnet", "models.FFDNet"

    def __init__(
        self,
        in_shape: Shape,
        key: Key = Key(0),
        *,
        weights: str = PRETRAINED,
        allow_download: bool = False,
        n_conv_layers: Literal["published"] | int = "published",
        nf: Literal["published"] | int = "published",
    ):
        if any(side % 2 for side in in_shape[1:]):
            raise ShapeMismatch(f"deepinv/ffdnet got images of shape {tuple(in_shape)}", "sides that are even")
        layers, channels = (12, 96) if in_shape[0] == 3 else (15, 64)
        own_layers = layers if n_conv_layers == "published" else n_conv_layers
        own_channels = channels if nf == "published" else nf
        published = None
        if (own_layers, own_channels) == (layers, channels) and in_shape[0] in (1, 3):
            file = "ffdnet_gray.pth" if in_shape[0] == 1 else "ffdnet_color.pth"
            published = Published.by_deepinv("FFDNet", file)
        arguments = {"img_channels": in_shape[0], "n_conv_layers": own_layers, "nf": own_channels}
        super().__init__(in_shape, key, weights, allow_download, published, arguments)


class SCUNet(NetworkDenoiser):
    """U-Net of Swin transformer and convolution blocks, for real noise of unknown level (Zhang et al. 2023, "Practical
    blind image denoising via Swin-Conv-UNet and data synthesis"): `denoise(x, sigma)` does not depend on sigma.

    - `config`: blocks in each of the seven stages, seven times 4. `dim`: channels, a multiple of 64, default 64.

    `weights`, `allow_download` and errors: see `NetworkDenoiser`; weights are published for three channels.
    """

    component, path = "deepinv/scunet", "models.SCUNet"

    def __init__(
        self,
        in_shape: Shape,
        key: Key = Key(0),
        *,
        weights: str = PRETRAINED,
        allow_download: bool = False,
        config: tuple[int, int, int, int, int, int, int] = (4, 4, 4, 4, 4, 4, 4),
        dim: int = 64,
    ):
        if dim < 64 or dim % 64:
            raise BadParameter(f"dim is {dim}", "a multiple of 64: heads have 32 channels, half of each block's")
        published = None
        if (config, dim, in_shape[0]) == ((4,) * 7, 64, 3):
            published = Published.by_deepinv("scunet", "scunet_color_real_psnr.pth")
        arguments = {"in_nc": in_shape[0], "config": list(config), "dim": dim}
        super().__init__(in_shape, key, weights, allow_download, published, arguments)


class DScCP(NetworkDenoiser):
    """Unfolded Chambolle-Pock iteration with strong convexity (Le, Repetti & Pustelnik 2024, "Unfolded proximal neural
    networks for robust image Gaussian denoising"), for three channels.

    - `depth`: iterations, 20. `n_channels_per_layer`: 64.

    `weights`, `allow_download` and errors: see `NetworkDenoiser`.
    """

    component, path = "deepinv/dsccp", "models.DScCP"

    def __init__(
        self,
        in_shape: Shape,
        key: Key = Key(0),
        *,
        weights: str = PRETRAINED,
        allow_download: bool = False,
        depth: int = 20,
        n_channels_per_layer: int = 64,
    ):
        if in_shape[0] != 3:
            raise ShapeMismatch(f"deepinv/dsccp got images of shape {tuple(in_shape)}", "images (3, H, W)")
        published = None
        if (depth, n_channels_per_layer) == (20, 64):
            published = Published.by_deepinv("dsccp", "ckpt_dsccp.pth.tar")
        arguments = {"depth": depth, "n_channels_per_layer": n_channels_per_layer}
        # Its noise level is one number for the batch.
        super().__init__(in_shape, key, weights, allow_download, published, arguments, one_by_one=True)


class EPLL(NetworkDenoiser):
    """Expected patch log likelihood (Zoran & Weiss 2011, "From learning models of natural image patches to whole image
    restoration"): half quadratic splitting with a Gaussian mixture model of patches.

    - `n_components`: of the mixture, 200. `patch_size`: side of the patches, 6.

    `weights`, `allow_download` and errors: see `NetworkDenoiser`; what the weights hold is the mixture.
    """

    component, path = "deepinv/epll", "models.EPLLDenoiser"

    def __init__(
        self,
        in_shape: Shape,
        key: Key = Key(0),
        *,
        weights: str = PRETRAINED,
        allow_download: bool = False,
        n_components: int = 200,
        patch_size: int = 6,
    ):
        published = None
        if (n_components, patch_size) == (200, 6) and in_shape[0] in (1, 3):
            file = "GMM_BSDS_gray2.pt" if in_shape[0] == 1 else "GMM_BSDS_color2.pt"
            published = Published.by_deepinv("EPLL", file)
        arguments = {"n_components": n_components, "patch_size": patch_size, "channels": in_shape[0]}
        # It keeps the regularised covariances of the last noise level.
        super().__init__(in_shape, key, weights, allow_download, published, arguments, one_by_one=True, fresh=True)

    def holder(self, network: Any) -> nn.Module:
        return network.PatchGMM

    def run(self, denoiser: Any, x: Tensor, sigma: Tensor) -> Tensor:
        if not bool(sigma > 0):  # deepinv divides by it
            return x
        return denoiser(x, sigma)


class UNet(NetworkDenoiser):
    """U-Net without a noise level, for weights of your own: `denoise(x, sigma)` does not depend on sigma, and none are
    published.

    - `weights`: a path, or "untrained"; required. Other parameters as in deepinv: `residual` (True), `scales` (4),
      `bias` (True), `batch_norm` (True).

    Errors: see `NetworkDenoiser`.
    """

    component, path = "deepinv/unet", "models.UNet"
    has_published = False

    def __init__(
        self,
        in_shape: Shape,
        key: Key = Key(0),
        *,
        weights: str,
        residual: bool = True,
        scales: int = 4,
        bias: bool = True,
        batch_norm: bool = True,
    ):
        channels = {"in_channels": in_shape[0], "out_channels": in_shape[0]}
        arguments = {**channels, "residual": residual, "scales": scales, "bias": bias, "batch_norm": batch_norm}
        super().__init__(in_shape, key, weights, False, None, arguments)
