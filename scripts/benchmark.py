"""Time the program beside a plain PyTorch loop: `python scripts/benchmark.py --help`."""

import sys

from benchmarking import main

if __name__ == "__main__":
    sys.exit(main())
