#!/usr/bin/env bash
# Runs the quick part of the tests with the oldest and the newest libraries that pyproject.toml allows, each set in
# an environment of its own below MATRIX_DIR (default: a temporary folder; a few GB for each set):
#
#   bash scripts/matrix.sh                 all sets
#   bash scripts/matrix.sh oldest hydra14  some of them
#
# What is tested besides the sets: this checkout. Ends with 1 if a set fails, after all have run.
set -uo pipefail
cd "$(dirname "$0")/.."

# name | Python | requirements that replace those of pyproject.toml
SETS=(
  "oldest|python3.11|torch==2.11.* hydra-core==1.3.8 wandb==0.28.1"
  "newest|python3|torch<2.15 hydra-core<1.4 wandb"
  "hydra14|python3|torch<2.15 hydra-core>=1.4.0.dev0,<1.5 wandb"
)
TESTS=${MATRIX_TESTS:-"tests/cli tests/contracts tests/sweep/test_launcher.py tests/tracking tests/cpu tests/test_stepping.py tests/test_api.py tests/test_training.py tests/test_schema.py"}
MATRIX_DIR=${MATRIX_DIR:-$(mktemp -d)}
TORCH_INDEX=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}

wanted=("$@")
failed=()
for set in "${SETS[@]}"; do
  IFS='|' read -r name python requirements <<<"$set"
  if ((${#wanted[@]})) && [[ " ${wanted[*]} " != *" $name "* ]]; then continue; fi
  echo "== $name: $python, $requirements"
  if ! command -v "$python" >/dev/null; then
    echo "   no $python here: left out"
    failed+=("$name (no $python)")
    continue
  fi
  venv=$MATRIX_DIR/$name
  read -ra pins <<<"$requirements"
  # --pre for the set that asks for a pre-release; the others are stable releases.
  pre=()
  [[ $name == hydra14 ]] && pre=(--pre)
  "$python" -m venv "$venv" &&
    "$venv/bin/pip" install --quiet --extra-index-url "$TORCH_INDEX" "${pins[@]:0:1}" torchvision &&
    "$venv/bin/pip" install --quiet "${pre[@]}" "${pins[@]:1}" &&
    "$venv/bin/pip" install --quiet --extra-index-url "$TORCH_INDEX" -e ".[dev]" "${pins[@]}" ||
    { failed+=("$name (installation)"); continue; }
  "$venv/bin/pip" list 2>/dev/null | grep -Ei '^(torch|torchvision|hydra-core|omegaconf|wandb) ' | sed 's/^/   /'
  # shellcheck disable=SC2086  # several paths
  "$venv/bin/python" -m pytest -q -n auto --dist loadfile -m "not slow and not cuda and not slurm" $TESTS || failed+=("$name")
done

if ((${#failed[@]})); then
  printf 'failed: %s\n' "${failed[@]}"
  exit 1
fi
echo "all sets pass"
