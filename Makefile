# The two commands of the README. `make run ARGS="plan=true"` passes overrides on; `make run TORCH=torch` takes PyPI's build of torch (CUDA on Linux).
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
TORCH ?= torch==2.13.0
ARGS ?=

.PHONY: run test

run: .venv/installed
	.venv/bin/python -m speed.run $(ARGS)

test: .venv/installed
	.venv/bin/python -m pytest $(ARGS)

# Without --no-compile, pip compiles 350 MB of Python in one process, of which a run imports a fifth: Python compiles that when it is first
# imported, and keeps it unless PYTHONDONTWRITEBYTECODE is set, as in many containers. Then each process would compile it anew, for 20 s.
unexport PYTHONDONTWRITEBYTECODE

.venv/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python of 3.11 or later was found: install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q --no-compile $(TORCH)
	.venv/bin/pip install -q --no-compile -c constraints.txt -e ".[dev]"
	@touch $@
