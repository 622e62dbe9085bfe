"""How often an operator was evaluated: an image through F, its adjoint or a derivative counts as one."""

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import Tensor

from preimage import ForwardOperator, LinearOperator


def counting(operator: ForwardOperator) -> tuple[ForwardOperator, "Counter[str]"]:
    """The same operator, of a subclass of its class, and the counter of its evaluations so far.

    Counted are `forward`, `adjoint`, `jvp`, `vjp` (one, and one for each pullback), `linearize` (one, and one for each
    application of the Jacobian or its adjoint), `normal` (two) and `solve_normal` (one), for each image of a batch. A
    method that calls another one of these counts once, as itself.
    """
    counter: Counter[str] = Counter()
    return _Counting(counter).wrapped(operator), counter


class _Counting:
    def __init__(self, counter: "Counter[str]"):
        self.counter, self.inside = counter, False

    def wrapped(self, operator: Any) -> Any:
        cls: Any = type(operator)
        methods = {"forward": 1, "jvp": 1} | (
            {"adjoint": 1, "normal": 2, "solve_normal": 1} if isinstance(operator, LinearOperator) else {}
        )
        made: dict[str, Any] = {name: self._method(getattr(cls, name), name, cost) for name, cost in methods.items()}
        made["rows"] = lambda own, index: self._rows(operator, own, index)
        if not isinstance(operator, LinearOperator):  # a linear one's are made of forward and adjoint
            made |= {"vjp": self._vjp(cls.vjp), "linearize": self._linearize(cls.linearize)}
        twin = copy.copy(operator)
        object.__setattr__(twin, "__class__", type(cls.__name__, (cls,), made))
        return twin

    def _rows(self, original: Any, own: Any, index: Tensor) -> Any:
        chosen = original.rows(index)
        return own if chosen is original else self.wrapped(chosen)

    def _method(self, plain: Callable[..., Any], name: str, cost: int) -> Callable[..., Any]:
        def counted(own: Any, x: Tensor, *rest: Any) -> Any:
            return self._outermost(name, cost * len(x), lambda: plain(own, x, *rest))

        return counted

    def _vjp(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def counted(own: Any, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
            y, pullback = self._outermost("vjp", len(x), lambda: plain(own, x))
            return y, lambda w: self._outermost("vjp", len(w), lambda: pullback(w))

        return counted

    def _linearize(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def counted(own: Any, x: Tensor) -> tuple[Tensor, Any]:
            y, jacobian = self._outermost("linearize", len(x), lambda: plain(own, x))
            return y, self.wrapped(jacobian)

        return counted

    def _outermost(self, name: str, cost: int, work: Callable[[], Any]) -> Any:
        if self.inside:
            return work()
        self.inside = True
        try:
            outcome = work()
        finally:
            self.inside = False
        if outcome is not None:  # solve_normal without a closed form has not solved anything
            self.counter[name] += cost
        return outcome
