"""How fast it all is: `python scripts/benchmark.py`, always beside a plain PyTorch loop in the same run."""

from benchmarking.cli import main

__all__ = ["main"]
