"""Time the program beside a plain PyTorch loop: `python scripts/benchmark.py --help`."""

import sys

from continual.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
