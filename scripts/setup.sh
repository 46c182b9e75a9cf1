#!/usr/bin/env bash
# Makes .venv, or brings it up to date, with this package and the extras named:
#     bash scripts/setup.sh [dev] [optuna]
# Extras add up over calls. Where nothing has changed since the last call, nothing is done.
# .venv is made with $PYTHON, or else with the first Python on the PATH that is new enough.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=.venv/bin/python
stamp=.venv/installed-by-setup
new_enough='import sys; sys.exit(sys.version_info < (3, 11))'

# The stamp holds the extras installed and what they were installed from: a clone that was moved and
# a pyproject.toml that was edited are installed again.
declared="$PWD $(cksum <pyproject.toml)"
was_declared=
extras=
if [ -x "$python" ] && [ -f "$stamp" ]; then
    { read -r was_declared && read -r extras; } <"$stamp" || true
fi
wanted=$(printf '%s\n' ${extras//,/ } "$@" | sort -u | paste -sd , -)
if [ "$was_declared" = "$declared" ] && [ "$extras" = "$wanted" ]; then
    exit 0
fi

make_venv() {
    local candidates=(python3 python python3.14 python3.13 python3.12 python3.11) candidate
    if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        if "$candidate" -c "import ensurepip, venv; $new_enough" 2>/dev/null; then
            "$candidate" -m venv --clear .venv
            return
        fi
    done
    echo "None of these is Python 3.11 or newer with its venv module (Debian: python3-venv):" \
        "${candidates[*]}; install one or name one with PYTHON=/path/to/python." >&2
    exit 1
}

if ! "$python" -c '' 2>/dev/null; then
    make_venv
elif ! "$python" -c "$new_enough"; then
    echo ".venv holds $("$python" --version), and 3.11 or newer is needed: remove .venv and start again." >&2
    exit 1
elif ! "$python" -m pip --version >/dev/null 2>&1; then
    "$python" -m ensurepip >/dev/null
fi
echo "Installing into .venv; the first time, this downloads PyTorch and takes a few minutes."
rm -f "$stamp"
"$python" -m pip install --quiet --disable-pip-version-check --editable ".${wanted:+[$wanted]}"
printf '%s\n%s\n' "$declared" "$wanted" >"$stamp"
