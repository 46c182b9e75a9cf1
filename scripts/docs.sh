#!/usr/bin/env bash
# Builds the documentation as a site in outputs/docs; a warning, such as a dead link, is an error.
# Installs what that needs into .venv first; arguments go to sphinx-build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh docs
.venv/bin/python -m sphinx --fail-on-warning --quiet --builder html "$@" docs outputs/docs
echo "outputs/docs/index.html"
