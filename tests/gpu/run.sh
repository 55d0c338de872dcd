#!/usr/bin/env bash
# What a GPU must show, in one command that ends within 8 minutes: tests/gpu/README.md says what and how to read it.
#
#   tests/gpu/run.sh                     on a machine with a GPU; without one, the same parts in tiny shapes
#   tests/gpu/run.sh --parts 2,5         some parts only
#   tests/gpu/run.sh --out DIR           where the figures go ($OUT, or a new folder whose name is printed)
#
# Python: $PYTHON, or the checkout's .venv, or python3. Packages that it lacks are taken from .wheels (wheels.sh).
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
if [ -z "${PYTHON:-}" ] && [ -x "$root/.venv/bin/python" ]; then python=$root/.venv/bin/python; fi
begun=$SECONDS
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
path=$root:$root/tests/gpu
if ! "$python" -c "import datasets, hydra, pydantic, trl" 2>/dev/null && compgen -G "$root/.wheels/*.whl" >/dev/null; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$scratch/site" "$root"/.wheels/*.whl \
    && path=$path:$scratch/site
fi
export PYTHONPATH=$path${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
"$python" "$root/tests/gpu/gpu_run.py" --scratch "$scratch" --spent "$((SECONDS - begun))" "$@"
