# Every habit of the project, one target each. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
DOCKER ?= docker
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
UV_VERSION := 0.13.9
# Tests that run at once; those of a file stay together, since they share what is slow to start.
JOBS ?= 2
SIDE_BY_SIDE := -n $(JOBS) --dist loadfile
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
QUESTION ?= What is the capital of France?

.PHONY: help setup demo test test-full e2e chaos check bench bench-operator gpu-check format lint types imports lock crd docs image chart clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv from the lock file (hashes required) and install the project into it

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 11) else f"Pagoda needs Python 3.11 or later; $(PYTHON) is {v[0]}.{v[1]}. Try: make setup PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: $(STAMP) ## Serve a real model on this machine and ask it a question (KEEP=1 keeps serving)
	@$(BIN)/pagoda local up -f examples/smollm2.yaml $(if $(KEEP),,--ask "$(QUESTION)")

test: $(STAMP) ## Unit, property and product tests: no cluster, no GPU
	$(BIN)/python -m pytest -m "not full" $(SIDE_BY_SIDE)

test-full: $(STAMP) ## The same with every combination: all families of models, whole grids of shapes
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

e2e: $(STAMP) ## Scenarios on a real control plane, built once into the user's cache
	$(BIN)/python -m e2e.prerequisites
	$(BIN)/python -m pytest e2e $(SIDE_BY_SIDE) --no-loadscope-reorder

chaos: $(STAMP) ## A hundred seeds of bad weather around the operator, which is killed in it (SEEDS=7, SEEDS=0-99)
	$(BIN)/python -m e2e.prerequisites
	$(BIN)/python -m pytest e2e/test_chaos.py --seeds $(SEEDS) $(SIDE_BY_SIDE) --no-loadscope-reorder
SEEDS ?= 0-99

bench: $(STAMP) ## This engine beside transformers' generate, on this machine (QUICK=1 for a first look)
	$(BIN)/python -m bench.compare $(if $(QUICK),--quick)

bench-operator: $(STAMP) ## The operator with 10, 100 and 1,000 services on a real control plane with fake pods
	$(BIN)/python -m e2e.prerequisites
	$(BIN)/python -m bench.operator.run $(if $(SIZES),--sizes $(SIZES))

gpu-check: ## Prove every kernel on this machine's GPU, and print how near its limits the engine comes
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m bench.gpu_check

check: lint types imports test ## All that CI runs, except e2e

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports

format: $(STAMP) ## Format and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## Resolve the dependencies anew into the lock files
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv==$(UV_VERSION); }
	$(BIN)/uv pip compile pyproject.toml --extra dev $(LOCK_FLAGS) -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra operator $(LOCK_FLAGS) -c requirements.lock -o requirements-operator.lock
	$(BIN)/uv pip compile pyproject.toml --extra operator --extra engine $(LOCK_FLAGS) -c requirements.lock -o requirements-engine.lock
LOCK_FLAGS := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

crd: $(STAMP) ## Write the CRD from the API's models
	$(BIN)/python -m pagoda_operator.api.crd
	$(BIN)/python -m pagoda_operator.api.crd charts/pagoda/files

docs: $(STAMP) ## Write the generated tables of the documentation anew
	$(BIN)/python tests/docs/tables.py

image: ## Build the two images, operator and engine
	$(DOCKER) build --target operator -t pagoda-operator:$(VERSION) .
	$(DOCKER) build --target engine -t pagoda-engine:$(VERSION) .

chart: ## Package the Helm chart into dist/
	helm package charts/pagoda --destination dist

clean: ## Remove what the targets made in this folder (the user's cache stays)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist build
