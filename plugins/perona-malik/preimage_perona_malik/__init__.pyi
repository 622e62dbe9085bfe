from .operator import PeronaMalik as PeronaMalik
