"""Where a run computes, and what is known of it."""

import platform
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric

from preimage.errors import BadParameter


@dataclass(frozen=True)
class Devices:
    """Where a run computes, in Lightning Fabric's words; see its documentation for the values."""

    accelerator: str = "auto"
    devices: str = "auto"
    nodes: int = 1
    strategy: str = "auto"

    def fabric(self, precision: str, several: bool = False) -> Fabric:
        """The Fabric of these devices; with `several` phases each uses a part of the network's weights alone.

        Raises `BadParameter` if there are no such devices here.
        """
        strategy = (
            f"{self.strategy}_find_unused_parameters_true" if several and self.strategy == "ddp" else self.strategy
        )
        count: int | str = int(self.devices) if self.devices.lstrip("-").isdigit() else self.devices
        if self.accelerator == "auto" and count == "auto" and not torch.cuda.is_available():
            count = 1
        try:
            return Fabric(
                accelerator=self.accelerator, devices=count, num_nodes=self.nodes, strategy=strategy,
                precision=precision,  # pyright: ignore[reportArgumentType]
            )  # fmt: skip
        except Exception as error:  # Fabric has exceptions of its own, some of them private
            found = f"devices {self.accelerator}, {self.devices}, {self.strategy}: {str(error).splitlines()[0]}"
            raise BadParameter(found, "devices that this machine has", "leave the flags out") from error


def hardware(fabric: Fabric) -> str:
    """What a run computed on, in one line."""
    if fabric.device.type == "cuda":
        return f"{fabric.world_size} x {torch.cuda.get_device_name(fabric.device)}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} thread(s) x {fabric.world_size}"


def slow_precision(device: torch.device, precision: str) -> str:
    """What to say of a precision that costs time on a processor instead of saving it; empty if there is nothing to say.

    Products in bfloat16 are computed in float32 where a processor has no instructions for them, after a conversion each
    (a training step of an invertible residual network then takes 2.6 to 2.9 times as long as in float32).
    """
    instructions = ("amx_bf16", "avx512_bf16", "bf16")  # of x86, of x86, of ARM
    if device.type != "cpu" or precision != "bf16-mixed" or any(map(torch.cpu.get_capabilities().get, instructions)):
        return ""
    remedy = "--set precision=32-true is about three times as fast"
    return f"this processor has no instructions for bfloat16, in which the recipe computes: {remedy}"
