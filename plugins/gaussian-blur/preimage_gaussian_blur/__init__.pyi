from .operator import GaussianBlur as GaussianBlur
