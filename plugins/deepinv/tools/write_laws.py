"""Write the tables of operators and noise into README.md: `python plugins/deepinv/tools/write_laws.py [--check]`.

Every operator is held to the laws twice: deepinv's physics as it is, and the operator made of it. With --check nothing
is written, and the exit code is 1 if the file is out of date.
"""

import copy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from preimage_deepinv.catalogue import NOISES, NOISES_NOT_OFFERED, OPERATORS, OPERATORS_NOT_OFFERED, Entry
from torch import Tensor

from preimage import Key, LeastSquares, LinearOperator, load
from preimage._parameters import construct
from preimage.errors import NotInstalled
from preimage.testing import check_component

README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- tables of operators and noise: written by tools/write_laws.py -->", "<!-- end of the tables -->"


def render() -> str:
    """Both tables and both lists."""
    operators = [operator_row(entry) for entry in OPERATORS]
    noises = [noise_row(entry) for entry in NOISES]
    lines = [
        "| operator | deepinv's class | example | has | deepinv's physics by itself | the operator |",
        "|---|---|---|---|---|---|",
        *("| " + " | ".join(row) + " |" for row in operators),
        "",
        "Not offered:",
        "",
        *(f"- `{name}`: {reason}." for name, reason in OPERATORS_NOT_OFFERED.items()),
        "",
        "| noise | deepinv's class | misfit | expected misfit known |",
        "|---|---|---|---|",
        *("| " + " | ".join(row) + " |" for row in noises),
        "",
        "Not offered:",
        "",
        *(f"- `{name}`: {reason}." for name, reason in NOISES_NOT_OFFERED.items()),
    ]
    return "\n".join(lines)


def make(entry: Entry, example: Any) -> Any:
    """The operator of one example."""
    name = f"deepinv/{entry.name}"
    return construct("operator", name, example, name, in_shape=entry.shape, key=Key(0).child("example"))


def operator_row(entry: Entry) -> list[str]:
    """The row of an operator, all its examples checked."""
    name, cls = f"deepinv/{entry.name}", load("operator", f"deepinv/{entry.name}")
    if entry.needs:
        return [f"`{name}`", f"`{entry.deepinv}`", f"{entry.shape}", "", "", f"needs the package {entry.needs}"]
    operator = make(entry, entry.examples[0])
    has = [
        "adjoint" if issubclass(cls, LinearOperator) else "jvp, vjp",
        "norm" if operator.norm_bound() is not None else "",
        "solve_normal" if any(solves(make(entry, example)) for example in entry.examples) else "",
    ]
    count = check_component("operator", name)
    shapes = f"{operator.in_shape} → {operator.out_shape}"
    worst: dict[str, float] = {}
    for example in entry.examples:
        for what, figure in defects(make(entry, example)).items():
            worst[what] = max(figure, worst.get(what, 0.0))
    found = "; ".join(what + (f", by {figure:.1g}" if figure else "") for what, figure in worst.items())
    kept = f"keeps all laws ({count} example{'s' if count > 1 else ''})"
    return [f"`{name}`", f"`{entry.deepinv}`", shapes, ", ".join(filter(None, has)), found or "keeps them", kept]


def solves(operator: Any) -> bool:
    """Whether it has `solve_normal`."""
    b = torch.ones((1, *operator.in_shape))
    return isinstance(operator, LinearOperator) and operator.solve_normal(b, 1.0) is not None


def defects(operator: Any) -> dict[str, float]:
    """Which laws deepinv's physics breaks, and by how much (0 if there is no figure)."""
    found: dict[str, float] = {}
    three = Key(1).uniform((3, *operator.in_shape))

    def run(physics: Any, x: Tensor) -> Tensor:
        return operator.from_deepinv(physics.A(operator.to_deepinv(x)))

    whole = attempt(lambda: run(copy.deepcopy(operator.physics), three))
    alone = torch.cat([run(copy.deepcopy(operator.physics), image) for image in three.split(1)])
    if not isinstance(whole, Tensor) or whole.shape != alone.shape:
        found["fails on a batch"] = 0.0
    elif (gap := relative(whole, alone)) > 1e-6:
        found["mixes the images of a batch"] = gap

    double = three[:1].double()
    moved = attempt(lambda: run(copy.deepcopy(operator.physics).to(torch.float64), double))
    exact = copy.deepcopy(operator).to(torch.float64)(double)
    if not isinstance(moved, Tensor):
        found[f"{moved} in float64"] = 0.0
    elif moved.dtype != torch.float64:
        found["turns float64 into float32"] = 0.0
    elif (gap := relative(moved, exact)) > 1e-3:
        found["loses the imaginary part of its tensors by .to(torch.float64)"] = gap
    if isinstance(operator, LinearOperator):
        found |= adjoint_defects(operator, three[:1])
    return found


def adjoint_defects(operator: Any, x: Tensor) -> dict[str, float]:
    """Whether deepinv's A_adjoint is the adjoint, in float32, and works in float64."""
    w = Key(2).normal((1, *operator.out_shape), like=x)

    def back(physics: Any, y: Tensor) -> Tensor:
        return operator.image_from_deepinv(physics.A_adjoint(operator.measurement_to_deepinv(y)))

    adjoint = attempt(lambda: back(copy.deepcopy(operator.physics), w))
    if not isinstance(adjoint, Tensor):
        return {f"{adjoint} in A_adjoint": 0.0}
    forth = operator(x)
    gap = abs(float((forth * w).sum()) - float((x * adjoint).sum())) / float(forth.norm() * w.norm())
    if gap > 1e-4:
        return {"A_adjoint is not the adjoint": gap}
    error = attempt(lambda: back(copy.deepcopy(operator.physics).to(torch.float64), w.double()))
    return {} if isinstance(error, Tensor) else {f"{error} in A_adjoint in float64": 0.0}


def relative(a: Tensor, b: Tensor) -> float:
    """The largest difference over the largest value."""
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-30))


def attempt(function: Callable[[], Tensor]) -> Tensor | str:
    """The result, or the name of the error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function()
    except Exception as error:  # whatever deepinv raises is the finding
        return type(error).__name__


MISFITS = {
    "uniform": "no likelihood to follow; half the squared distance to |p − y| ≤ a",
    "salt-pepper": "no likelihood; sum of |p − y|",
    "poisson-gaussian": "likelihood of the shifted Poisson variable, an approximation",
}


def noise_row(entry: Entry) -> list[str]:
    """The row of a noise model, checked."""
    name, cls = f"deepinv/{entry.name}", load("noise", f"deepinv/{entry.name}")
    check_component("noise", name)
    misfit = MISFITS.get(entry.name, "least squares" if issubclass(cls, LeastSquares) else "likelihood")
    known = construct("noise", name, {}, name).expected_misfit(torch.ones((1, 1, 4, 4))) is not None
    return [f"`{name}`", f"`{entry.deepinv}`", misfit, "yes" if known else "no"]


def main() -> int:
    """Write or check."""
    torch.set_num_threads(1)
    text = README.read_text("utf-8")
    head, _, rest = text.partition(START)
    _, _, tail = rest.partition(END)
    wanted = f"{head}{START}\n\n{render()}\n\n{END}{tail}"
    if wanted == text:
        return 0
    if "--check" in sys.argv:
        print("README.md is out of date: run python plugins/deepinv/tools/write_laws.py")
        return 1
    README.write_text(wanted, "utf-8")
    print("wrote README.md")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotInstalled as error:
        sys.exit(str(error))
