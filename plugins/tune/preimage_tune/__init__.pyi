from .outcomes import Settings as Settings, Tuned as Tuned
from .presets import Entry as Entry, merge_presets as merge_presets, write_presets as write_presets
from .samplers import SAMPLERS as SAMPLERS, propose as propose
from .space import Space as Space, parse_space as parse_space
from .study import Score as Score, Store as Store, Study as Study, Trial as Trial, search as search
from .tuning import tune as tune

__version__: str
