"""Comparisons of methods: suites in, paired and crash-safe results out, and a page to read them.

Importing this package imports no torch; public names (see the stub) load their module on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
