# Two commands are all a newcomer needs: `make demo` and `make test`. Both call `make setup` first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
HOROVOD := horovod==0.28.1
# Two processes, as most tests keep one core busy.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadgroup
# TensorFlow greets with lines about missing GPUs otherwise.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help setup demo test test-all check bench lock clean

help: ## Say what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 16

setup: $(READY) ## Create .venv with everything, Horovod over Gloo included (idempotent)

$(READY): pyproject.toml constraints.txt Makefile scripts/find-python scripts/build-horovod
	python=$$(scripts/find-python); \
	test -x $(BIN)/python || "$$python" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt hatchling editables wheel "setuptools<81"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	scripts/build-horovod $(BIN)/python $(HOROVOD)
	touch $@

demo: setup ## Train a deep GP on 327,346 flights and report (under 6 minutes on 2 cores)
	$(BIN)/natdgp train experiments/flights/const.yaml

test: setup ## Run the tests, but for those marked slow
	$(PYTEST)

test-all: setup ## Run every test, those marked slow too
	$(PYTEST) -m "slow or not slow"

check: setup ## Lint, format, types, imports, experiment files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/natdgp check experiments/*/*.yaml

bench: setup ## Run the benchmarks that need no extra data
	for script in benchmarks/*.py; do $(BIN)/python "$$script"; done

lock: ## Resolve constraints.txt anew for Python 3.10 and 3.11 (needs uv)
	uv pip compile --quiet --universal --python-version 3.10 --all-extras --upgrade \
	    --no-emit-package horovod --custom-compile-command "make lock" \
	    pyproject.toml --output-file constraints.txt

clean: ## Remove the environment and all caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
