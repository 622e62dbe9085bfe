"""What this distribution offers. Imports neither torch nor deepinv."""

from preimage import Component, hookimpl

from .catalogue import NOISES, OPERATORS, Entry
from .catalogue_methods import PRIORS, SOLVERS


@hookimpl
def preimage_components() -> list[Component]:
    return [
        *(_component("operator", entry) for entry in OPERATORS),
        *(_component("noise", entry) for entry in NOISES),
        *(_component("prior", entry) for entry in PRIORS),
        *(_component("solver", entry) for entry in SOLVERS),
    ]


def _component(kind: str, entry: Entry) -> Component:
    return Component(
        kind, f"deepinv/{entry.name}", f"preimage_deepinv.{entry.target}", entry.summary, entry.shape, entry.examples
    )
