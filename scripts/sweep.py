"""See to a sweep that was started: python scripts/sweep.py status|wait|cancel|resume|upload|watch FOLDER."""

import sys

from continual.cli.sweep_command import main

if __name__ == "__main__":
    sys.exit(main())
