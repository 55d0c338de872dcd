#!/usr/bin/env bash
# Wheels of what a GPU machine of ours lacks, into .wheels (ignored by git), at most 25 MB; run where there is a network.
# It has Python 3.12, torch, transformers, peft, accelerate, pyarrow and pandas, and no network. Versions: constraints.txt.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
if [ -z "${PYTHON:-}" ] && [ -x "$root/.venv/bin/python" ]; then python=$root/.venv/bin/python; fi
most=$((25 * 1024 * 1024))
packages=(
  annotated-types datasets dill hydra-core multiprocess omegaconf pydantic pydantic_core
  trl typing_extensions typing-inspection zstandard
)
pure=(antlr4-python3-runtime) # comes as source only
platforms=(manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64 manylinux1_x86_64)

pinned() { # NAME==VERSION as the tests ran with it
  grep -iE "^${1//[-_]/[-_]}==" "$root/constraints.txt" || { echo "constraints.txt has no $1" >&2; exit 1; }
}
wanted=() sources=()
for name in "${packages[@]}"; do wanted+=("$(pinned "$name")"); done
for name in "${pure[@]}"; do sources+=("$(pinned "$name")"); done
rm -rf "$root/.wheels"
"$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp --abi cp312 --abi abi3 --abi none \
  "${platforms[@]/#/--platform=}" -d "$root/.wheels" "${wanted[@]}"
"$python" -m pip wheel -q --no-deps -w "$root/.wheels" "${sources[@]}"
size=$(cat "$root"/.wheels/*.whl | wc -c)
echo "$(ls "$root"/.wheels/*.whl | wc -l) wheels, $((size / 1024)) KiB, in .wheels"
if [ "$size" -gt "$most" ]; then echo "more than 25 MB" >&2; exit 1; fi
