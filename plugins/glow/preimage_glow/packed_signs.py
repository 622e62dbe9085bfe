"""Where an array is positive, one bit for each number."""

import torch
import torch.nn.functional as F
from torch import Tensor

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
    bits = h.permute(0, 2, 3, 1).flatten(1).to(torch.bool)
    bits = F.pad(bits, (0, 8 * packed_size(bits.shape[1]) - bits.shape[1]))
    return ((bits.contiguous().view(torch.int64) * _GATHER) >> 56).to(torch.uint8)


def unpack_signs(packed: Tensor, like: Tensor) -> Tensor:
    """1 where the packed array was not 0 and 0 elsewhere, of the shape (B, C, h, w) and dtype of `like`."""
    words = packed.to(torch.int64) * _SPREAD & _SELECT
    words += _CARRY
    words >>= 7
    words &= _SPREAD
    batch, channels, height, width = like.shape
    ones = words.view(torch.uint8)[:, : channels * height * width].to(like.dtype)
    return ones.view(batch, height, width, channels).permute(0, 3, 1, 2)
