#!/usr/bin/env bash
# Runs the test suite, in .venv and with all it needs installed there first; arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh dev
# One process more than there are cores: some tests wait, for SLURM or for what they have killed.
exec .venv/bin/python -m pytest -n "$(.venv/bin/python -c 'import os; print((os.cpu_count() or 1) + 1)')" --dist loadfile --no-loadscope-reorder "$@"
