"""Images for preimage: data sets, image files, measures of quality, figures, and the commands `run`, `demo` and `data`.

Importing this package imports no torch; public names (see the stub) load their module on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
