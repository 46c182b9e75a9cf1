"""Make a table and a figure from folders of runs: python scripts/report.py FOLDER..."""

import sys

from continual.report import main

if __name__ == "__main__":
    sys.exit(main())
