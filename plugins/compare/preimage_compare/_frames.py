"""Messages between the process that runs a suite and those that compute its cells: JSON with attached bytes."""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

_HEAD = struct.Struct(">QQ")
Message = dict[str, Any]


def write(stream: BinaryIO, message: Mapping[str, Any], blobs: Sequence[bytes | None] = ()) -> None:
    """Send a message and some bytes (or None)."""
    sizes = [-1 if blob is None else len(blob) for blob in blobs]
    text = json.dumps({"message": message, "sizes": sizes}).encode()
    body = b"".join(blob for blob in blobs if blob)
    stream.write(_HEAD.pack(len(text), len(body)) + text + body)
    stream.flush()


def read(stream: BinaryIO) -> tuple[Message, list[bytes | None]] | None:
    """The next message; None at the end."""
    head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length, attached = _HEAD.unpack(head)
    text, body = stream.read(length), stream.read(attached)
    if len(text) < length or len(body) < attached:
        return None
    envelope = json.loads(text)
    blobs: list[bytes | None] = []
    start = 0
    for size in envelope["sizes"]:
        blobs.append(None if size < 0 else body[start : start + size])
        start += max(size, 0)
    return envelope["message"], blobs
