#!/usr/bin/env bash
# Runs the test suite, in .venv and with all it needs installed there first; arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh dev
exec .venv/bin/python -m pytest -n auto --dist loadfile "$@"
