from .adversarial import Adversarial as Adversarial
from .images import Feed as Feed, Images as Images
from .likelihood import Likelihood as Likelihood
from .loop import Outcome as Outcome, Slice as Slice, Training as Training
from .objective import Objective as Objective
from .recipe import Recipe as Recipe, parse as parse, read as read
from .supervised import Approximation as Approximation, Reconstruction as Reconstruction
from .train import Devices as Devices, prepare_folder as prepare_folder, run as run

__version__: str
