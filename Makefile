# Everything runs in .venv, which is created on first use. With another Python: make test PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
# One more than the cores of a small machine: a quarter of the time of two workers is spent waiting for sockets and files.
JOBS ?= 3
ARGS ?=

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt finetune/__init__.py
# If Python may not write its caches, each start would compile all of torch.
COMPILE := $(BIN)/python -m compileall -qq -j $(JOBS) $(VENV)/lib || true
# One thread per worker: the tests run side by side.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal --quiet

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-fast lint format docs pictures bench tagger gpu clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

quickstart: $(VENV)/.runtime ## Install, then train, evaluate and merge a small finance model
	@$(BIN)/slmtune quickstart

test: $(VENV)/.dev ## Run every test, or pass ARGS to pytest: make test ARGS='tests/train -k resume'
	@$(PYTEST) $(ARGS)

test-fast: $(VENV)/.dev ## Run the tests that take less than about ten seconds each
	@$(PYTEST) -m 'not slow' $(ARGS)

lint: $(VENV)/.dev ## Check style, types, layers and the generated pages
	@$(BIN)/ruff check --quiet --output-format concise .
	@$(BIN)/ruff format --quiet --check . || { echo 'Some files are not formatted: make format'; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python docs/generate_commands.py --check
	@$(BIN)/python docs/generate_errors.py --check
	@$(BIN)/python docs/generate_architecture.py --check
	@$(BIN)/python -m docs.generate_families --check

format: $(VENV)/.dev ## Format the code
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

docs: $(VENV)/.dev ## Generate the pages that come from the code and build the guide into site/
	@$(BIN)/python docs/generate_commands.py
	@$(BIN)/python docs/generate_errors.py
	@$(BIN)/python docs/generate_architecture.py
	@$(BIN)/python -m docs.generate_families
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'The guide is in site/index.html'

pictures: $(VENV)/.dev ## Take the README's pictures from a new quickstart; needs Chromium
	@$(BIN)/python -m docs.make_pictures

# The scripts in benchmarks/parts need other tools or files, and say which.
# A benchmark exits with 2 if the machine lacks what it needs, such as a GPU.
bench: $(VENV)/.dev ## Run every benchmark; each prints a ratio measured in one run
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script" || [ $$? -eq 2 ]; done

# On one thread, so that equal libraries on equal processors give an equal file.
tagger: $(VENV)/.dev ## Train the tagger of names and places, on the CPU, for --tagger own
	@OMP_NUM_THREADS=1 $(BIN)/python examples/tagger/train.py $(ARGS)

# UNSLOTH: the interpreter of an environment with Unsloth, to be compared with.
gpu: $(VENV)/.dev ## On a machine with a GPU: run its tests, then measure QLoRA; the table is in gpu.md
	@$(BIN)/python -m pytest --quiet -m gpu $(ARGS)
	@$(BIN)/python benchmarks/gpu_qlora.py --table gpu.md $(if $(UNSLOTH),--unsloth $(UNSLOTH))

clean: ## Remove the files left by builds and checks; keeps .venv and runs/
	@rm -rf build dist site wandb .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find finetune tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'slmtune needs Python 3.11 or newer. Name one: make PYTHON=python3.11 ...'; exit 1; }
	@echo 'Making $(VENV)'
	@$(PYTHON) -m venv $(VENV)

# torch is installed first, so that the build that the package index offers for this machine is there before the rest.
$(VENV)/.torch: constraints.txt | $(BIN)/python
	@echo 'Installing torch into $(VENV) (once; a large download)'
	@$(INSTALL) torch
	@touch $@

$(VENV)/.runtime: $(INPUTS) $(VENV)/.torch
	@echo 'Installing slmtune into $(VENV)'
	@$(INSTALL) --editable '.[serve]'
	@$(COMPILE)
	@touch $@

$(VENV)/.dev: $(INPUTS) $(VENV)/.torch
	@echo 'Installing slmtune and its development tools into $(VENV)'
	@$(INSTALL) --editable '.[dev]'
	@$(COMPILE)
	@touch $@ $(VENV)/.runtime
