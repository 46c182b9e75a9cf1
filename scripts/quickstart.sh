#!/usr/bin/env bash
# Trains plain Adam and L2 Init, three seeds each, on labels drawn anew for each task, and reports how
# much each still learns. Installs into .venv first; arguments go to scripts/train.py as overrides.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder="outputs/quickstart/$(date +%Y-%m-%d_%H-%M-%S)"
bash scripts/setup.sh
.venv/bin/python scripts/train.py -m experiment=quickstart agent=base,l2_init seed=0,1,2 \
    "$@" hydra.sweep.dir="$folder"
.venv/bin/python scripts/report.py "$folder"
