"""Sweep, choose, run with fresh seeds and report: `python scripts/reproduce.py --help`."""

import sys

from continual.reproduce.app import main

if __name__ == "__main__":
    sys.exit(main())
