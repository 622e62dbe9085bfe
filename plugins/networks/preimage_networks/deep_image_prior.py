"""The deep image prior: a convolutional hourglass network, fitted to one image."""

from dataclasses import dataclass

from .fitting import NetworkFit
from .hourglass_network import HourglassNetwork


@dataclass(frozen=True, kw_only=True)
class DeepImagePrior(NetworkFit):
    """Fits a convolutional network with skip connections to the measurement of one image: min misfit(F(network(w, z)))
    over w, stopped early (Ulyanov, Vedaldi & Lempitsky 2018, "Deep image prior", CVPR).

    The network fits images long before noise; it could fit that too, so the rule that stops it matters. As in the
    paper the input is perturbed afresh in each step, and the estimate is an average over the steps.

    - `averaging`: default 0.99. `input_noise`: default 0.03. Both as in the authors' program, for denoising.
    - `channels`, `skip_channels`, `scales`, `input_channels`: see `HourglassNetwork`; the defaults are an eighth of the
      paper's width, for images of 64 to 128 pixels on a CPU.

    Everything else is as `NetworkFit` says.
    """

    max_steps: int = 1000
    averaging: float = 0.99
    input_noise: float = 0.03
    tau: float = 0.95
    channels: int = 16
    skip_channels: int = 4
    scales: int = 4
    input_channels: int = 16

    def network(self, shape: tuple[int, int, int]) -> HourglassNetwork:
        return HourglassNetwork(
            shape,
            channels=self.channels,
            skip_channels=self.skip_channels,
            scales=self.scales,
            input_channels=self.input_channels,
        )
