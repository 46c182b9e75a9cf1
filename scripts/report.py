"""Make tables, figures and a page of them from folders of runs: python scripts/report.py FOLDER..."""

import sys

from continual.report import main

if __name__ == "__main__":
    sys.exit(main())
