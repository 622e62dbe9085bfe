"""A process that computes cells, one after the other, as it is told: `python -m preimage_compare._worker`.

It ends when its input ends, or when the process that started it is gone. What components print goes to stderr.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any, BinaryIO

from preimage_compare import _frames

_LOOK_FOR_PARENT = 1.0  # seconds


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_FOR_PARENT)
    os._exit(1)


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer every task with an outcome."""
    from safetensors.torch import load

    from preimage_compare.measure import Laboratory, OtherMeasurement, Task, WrongEnvironment
    from preimage_compare.suite import Limits

    laboratory = Laboratory(notify=lambda phase: _frames.write(sink, {"phase": phase}))
    while (received := _frames.read(source)) is not None:
        message, (measured,) = received
        task = Task(**{**message, "limits": Limits(**message["limits"])})
        answer: dict[str, Any]
        blobs: list[bytes | None] = [None, None]
        try:
            outcome = laboratory.compute(task, None if measured is None else load(measured))
            answer, blobs = {"record": dict(outcome.record)}, [outcome.image, outcome.measurement]
        except OtherMeasurement:
            answer = {"other": True}
        except WrongEnvironment as error:
            answer = {"wrong": str(error)}
        _frames.write(sink, answer, blobs)


def main() -> None:
    """Take over stdin and stdout for messages, and serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
        serve(source, sink)
    sys.stderr.flush()
    os._exit(0)  # threads of libraries must not keep it


if __name__ == "__main__":
    main()
