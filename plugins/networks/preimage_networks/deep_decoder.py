"""The deep decoder: an under-parameterised network of pixelwise mixing and upsampling, fitted to one image."""

from dataclasses import dataclass

from .decoder_network import DecoderNetwork
from .fitting import NetworkFit


@dataclass(frozen=True, kw_only=True)
class DeepDecoder(NetworkFit):
    """Fits a small decoder network to the measurement of one image: min misfit(F(network(w, z))) over w (Heckel & Hand
    2019, "Deep decoder", ICLR; compressive sensing with it: Heckel & Soltanolkotabi 2020, "Compressive sensing with
    un-trained neural networks", ICML).

    With fewer weights than pixels the network cannot fit noise well, so that stopping matters less than for
    `DeepImagePrior`.

    - `channels`: k >= 1. `layers`: upsampling layers, >= 0; see `DecoderNetwork`. The defaults have 5536 weights for a
      colour image of 64 x 64 = 12288 values; for larger images take more channels.

    Everything else is as `NetworkFit` says.
    """

    max_steps: int = 800
    channels: int = 32
    layers: int = 4

    def network(self, shape: tuple[int, int, int]) -> DecoderNetwork:
        return DecoderNetwork(shape, channels=self.channels, layers=self.layers)
