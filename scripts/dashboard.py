"""Save a W&B workspace for the runs in folders: python scripts/dashboard.py FOLDER..."""

import sys

from continual.tracking.wandb_dashboard import main

if __name__ == "__main__":
    sys.exit(main())
