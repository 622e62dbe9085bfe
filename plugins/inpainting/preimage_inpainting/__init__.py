"""Inpainting: some pixels are known, the others are to be found.

Public names (see the stub) load their module, and with it torch, on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
