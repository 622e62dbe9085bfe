"""Operators whose tensors are a function of a key: rebuilt when needed, never saved."""

from abc import abstractmethod
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Any, Generic, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from preimage import Key, LinearOperator
from preimage.errors import BadParameter

Tables = TypeVar("Tables")
T = TypeVar("T")

_TABLES: "WeakKeyDictionary[nn.Module, dict[tuple[object, torch.dtype, torch.device], Any]]" = WeakKeyDictionary()
_LOCK = Lock()


class Rebuilt(LinearOperator, Generic[Tables]):
    """A measurement of a vector, x in R^n to y in R^m with 1 <= m <= n, drawn from a key.

    The operator itself holds the key and nothing else, so that saving and copying it cost nothing and `.to` has
    nothing to move. What is drawn from the key is made on first use, for the dtype and the device of the input, and
    freed together with the operator.

    Raises `BadParameter` unless 1 <= measurements <= n.
    """

    def __init__(self, n: int, *, measurements: int, key: Key):
        check_measurements(n, measurements)
        super().__init__((n,), (measurements,))
        self.key = key

    @abstractmethod
    def draw(self, dtype: torch.dtype, device: torch.device) -> Tables:
        """What the key stands for: a pure function of the key, n, m, dtype and device."""

    @abstractmethod
    def solve_gram(self, b: Tensor, shift: float | Tensor) -> Tensor:
        """(A A^T + shift I)^-1 b exactly: (B, m) -> (B, m); `shift` positive, one number or one per image (B,)."""

    def gram_factor(self) -> float | None:
        """c if A A^T = c I, else None."""
        return None

    def tables(self, like: Tensor) -> Tables:
        """`draw` for the dtype and device of `like`, remembered as long as the operator lives."""
        return self.remembered(Rebuilt, like, lambda: self.draw(like.dtype, like.device))

    def remembered(self, what: object, like: Tensor, make: Callable[[], T]) -> T:
        """What `make` gives, a pure function of the key, the dtype and the device of `like`, made on first use.

        - `what`: tells apart several such things of one operator.
        """
        where = (what, like.dtype, like.device)
        with _LOCK:
            mine = _TABLES.setdefault(self, {})
            if where not in mine:
                mine[where] = aside(make)
            return cast(T, mine[where])


def check_measurements(n: int, measurements: int) -> None:
    """Raise `BadParameter` unless 1 <= measurements <= n."""
    if isinstance(measurements, bool) or not isinstance(measurements, int):
        raise BadParameter(f"measurements is {measurements!r}", "a whole number", "write measurements = 500, say")
    if not 1 <= measurements <= n:
        raise BadParameter(
            f"measurements is {measurements} for images of {n} values",
            f"1 to {n} measurements",
            "take fewer measurements or larger images" if measurements > n else "take at least one measurement",
        )


@contextmanager
def enough_memory(what: str, remedy: str) -> Generator[None, None, None]:
    """Turn torch's complaint about memory into a `BadParameter` that names what was too large."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise BadParameter(f"{what} does not fit into memory", "a matrix that fits", remedy) from error
    except RuntimeError as error:
        if "allocate" not in str(error) and "too large" not in str(error) and "overflow" not in str(error):
            raise
        raise BadParameter(f"{what} does not fit into memory", "a matrix that fits", remedy) from error


def aside(function: Any) -> Any:
    # In a thread of its own, because what the caller has switched on for its thread (inference mode, torch.func
    # transforms, a default device) must not get into tensors that outlive the call.
    with ThreadPoolExecutor(1) as elsewhere:
        return elsewhere.submit(function).result()
