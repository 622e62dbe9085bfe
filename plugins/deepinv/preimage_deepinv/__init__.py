"""deepinv by name: its operators, noise models, priors and reconstructors, and preimage inside deepinv.

Public names load their module, and with it torch and deepinv, on first use (PEP 562).
"""

import lazy_loader

from . import catalogue, catalogue_methods

_MODULE_OF = {
    entry.target.partition(":")[2]: entry.target.partition(":")[0]
    for entry in (*catalogue.OPERATORS, *catalogue.NOISES, *catalogue_methods.PRIORS, *catalogue_methods.SOLVERS)
} | catalogue_methods.FUNCTIONS

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        module: [name for name, of in _MODULE_OF.items() if of == module] for module in set(_MODULE_OF.values())
    },
)
