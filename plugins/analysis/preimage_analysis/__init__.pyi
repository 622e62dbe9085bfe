from .files import write_findings as write_findings
from .inversion_convergence import InversionConvergence as InversionConvergence
from .learned_operators import LearnedOperators as LearnedOperators
from .linear_generator import LinearGenerator as LinearGenerator
from .operator_approximation import OperatorApproximation as OperatorApproximation
from .progress import KeptProgress as KeptProgress, Progress as Progress
from .reconstruction_against_bound import ReconstructionAgainstBound as ReconstructionAgainstBound
from .study import Column as Column, Findings as Findings, Statement as Statement, Study as Study, Table as Table

__version__: str
