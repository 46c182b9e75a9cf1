"""Plasticity in continual learning: algorithms for one network, trained as populations of runs."""

import os
from importlib.metadata import PackageNotFoundError, version

# Otherwise MKL's matrix products depend on where in memory their operands lie, and with that a replica's
# results on its place in a population. MKL reads it at the first product; it costs no speed.
os.environ.setdefault("MKL_CBWR", "AUTO")

try:
    __version__ = version("continual")
except PackageNotFoundError:  # imported from a clone that is not installed
    __version__ = "0+unknown"
