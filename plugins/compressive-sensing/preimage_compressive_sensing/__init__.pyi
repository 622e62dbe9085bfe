from ._cosine import SubsampledCosine as SubsampledCosine
from ._gaussian import GaussianMatrix as GaussianMatrix
from ._hadamard import SubsampledHadamard as SubsampledHadamard
from ._operator import CompressiveSensing as CompressiveSensing
