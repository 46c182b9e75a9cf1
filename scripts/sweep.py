"""Watch, wait for, cancel or resume a sweep: python scripts/sweep.py status|wait|cancel|resume FOLDER."""

import sys

from continual.sweep.cli import main

if __name__ == "__main__":
    sys.exit(main())
