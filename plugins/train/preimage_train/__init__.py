"""`preimage train`: one training loop for everything learned in preimage.

Importing this package imports no torch; public names (see the stub) load their module on first use.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
