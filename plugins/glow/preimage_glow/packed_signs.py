"""Where an array is positive, one bit for each number."""

import torch
import torch.nn.functional as F
from torch import Tensor

PIECE = 2**17
"""Numbers."""

_GATHER = 0x0102040810204080  # times a word of eight bytes 0 or 1: its top byte has them as bits
_SPREAD = 0x0101010101010101  # times a byte: eight copies of it
_SELECT = 0x8040201008040201 - 2**64  # the i-th bit in the i-th byte
_CARRY = 0x7F7F7F7F7F7F7F7F  # added to bytes of at most one bit: sets the top bit of those that are not 0


def packed_size(count: int) -> int:
    """Bytes for so many bits."""
    return -(-count // 8)


def pack_signs(h: Tensor) -> Tensor:
    """Bits of h != 0 for each image of a batch: (B, C, h, w) -> (B, ceil(C h w / 8)) of uint8.

    For the results of a ReLU. NaN counts as not 0, so that the derivative stays NaN.
    """
    bits = (h != 0).permute(0, 2, 3, 1).flatten(1)
    bits = F.pad(bits, (0, 8 * packed_size(bits.shape[1]) - bits.shape[1])).contiguous()
    return bits.view(torch.int64).mul_(_GATHER).bitwise_right_shift_(56).to(torch.uint8)


def mask_by_signs(g: Tensor, packed: Tensor) -> Tensor:
    """g (B, C, h, w) where the packed array was not 0, and 0 elsewhere; in the memory of g if its channels are last.

    In pieces, so that the numbers 0 and 1 never take as much memory as g.
    """
    flat = g.permute(0, 2, 3, 1).flatten(1)
    piece = at_once(8 * len(g), g.device)
    for some, bits in zip(flat.split(8 * piece, 1), packed.split(piece, 1), strict=True):
        some.mul_(_unpacked(bits, some.shape[1]).to(g.dtype))
    batch, channels, height, width = g.shape
    return flat.view(batch, height, width, channels).permute(0, 3, 1, 2)


def at_once(numbers: int, device: torch.device) -> int:
    """How many things of so many numbers to work on at a time: few on a CPU, where memory is to be saved, else all."""
    return max(1, PIECE // max(1, numbers)) if device.type == "cpu" else 2**40


def _unpacked(packed: Tensor, count: int) -> Tensor:
    """(B, bytes) -> (B, count) of uint8, 0 or 1."""
    words = packed.to(torch.int64).mul_(_SPREAD).bitwise_and_(_SELECT).add_(_CARRY)
    return words.bitwise_right_shift_(7).bitwise_and_(_SPREAD).view(torch.uint8)[:, :count]
