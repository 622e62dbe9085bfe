from .run import Summary as Summary, run_suite as run_suite
from .store import Results as Results, clean as clean, merge as merge, read as read
from .suite import (
    Cell as Cell,
    Limits as Limits,
    Suite as Suite,
    load_suite as load_suite,
    shipped_suites as shipped_suites,
)
