"""Plasticity in continual learning: algorithms for one network, trained as populations of runs."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("continual")
except PackageNotFoundError:  # imported from a clone that is not installed
    __version__ = "0+unknown"
