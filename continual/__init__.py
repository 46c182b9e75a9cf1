"""Plasticity in continual learning: algorithms for one network, trained as populations of runs."""

import os
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

# Otherwise MKL's matrix products depend on where in memory their operands lie, and with that a replica's
# results on its place in a population. MKL reads it at the first product; it costs no speed.
os.environ.setdefault("MKL_CBWR", "AUTO")

try:
    __version__ = version("continual")
except PackageNotFoundError:  # imported from a clone that is not installed
    __version__ = "0+unknown"

if TYPE_CHECKING:
    from continual.api import launch, load, train
    from continual.errors import Stopped, UserError

__all__ = ["Stopped", "UserError", "__version__", "launch", "load", "train"]

_ROOMS = {"launch": "api", "load": "api", "train": "api", "Stopped": "errors", "UserError": "errors"}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: importing the package costs nothing."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
