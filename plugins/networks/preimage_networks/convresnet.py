"""ConvResNet: residual blocks at full resolution, without any constraint on their Lipschitz constants."""

from typing import Literal

from torch import Tensor, nn

from preimage.errors import BadParameter

Preset = Literal["paper", "small"]

_PRESETS: dict[Preset, tuple[int, int, int]] = {"paper": (20, 64, 128), "small": (12, 16, 32)}


class _Block(nn.Module):
    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.wide = nn.Conv2d(channels, hidden, 5, padding=2)
        self.narrow = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(self.wide(x).relu())


class ConvResNet(nn.Module):
    """x -> out(b_N o ... o b_1(in(x))), b_i(u) = u + W_i relu(V_i u), V_i of 5 x 5 pixels (zero padding), W_i of one.

    The counterpart of an invertible residual network that is free of its constraint (Arndt & Nickel 2024, section 4.1);
    in and out are 1 x 1 convolutions to and from `channels` features. Images (B, image_channels, H, W) of any size.

    - `preset`: "paper" has 20 blocks of 64 and 128 features (4,263,873 parameters on grey images), "small" 12 of 16 and
      32 (160,369). `blocks`, `channels`, `hidden` replace its values.

    Raises `BadParameter` if a number is not positive.
    """

    def __init__(
        self,
        preset: Preset = "small",
        image_channels: int = 1,
        blocks: int | None = None,
        channels: int | None = None,
        hidden: int | None = None,
    ):
        super().__init__()
        given = (blocks, channels, hidden)
        blocks, channels, hidden = (
            own if own is not None else p for own, p in zip(given, _PRESETS[preset], strict=True)
        )
        for name, value in {
            "image_channels": image_channels,
            "blocks": blocks,
            "channels": channels,
            "hidden": hidden,
        }.items():
            if value < 1:
                raise BadParameter(f"{name} is {value}", "an integer >= 1")
        self.image_channels = image_channels
        self.lift = nn.Conv2d(image_channels, channels, 1)
        self.blocks = nn.Sequential(*(_Block(channels, hidden) for _ in range(blocks)))
        self.project = nn.Conv2d(channels, image_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.blocks(self.lift(x)))
