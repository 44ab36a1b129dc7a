# What is needed: Python 3.10 or newer, and a network for the first `pip install`. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# A worker for each core, with one thread of torch; a file's tests stay together, and share what it prepares.
SHARED := -n auto --dist loadfile
# What most changes break first: every part by itself, one short run from images to checkpoint, and the house rules.
QUICK := tests/combining tests/data tests/freezing tests/images tests/optimization tests/storage/test_atomic.py \
	tests/training/test_loop.py tests/training/test_microbatches.py tests/finetuning/test_finetune.py tests/test_children.py \
	tests/test_dependencies.py tests/test_imports.py

.PHONY: help demo quick test test-lowest lint torture bench site wheel-demo clean

help:
	@echo "make demo        fine-tune three small models on handwritten digits and combine them (no network after the install)"
	@echo "make quick       lint, types, and a choice of the tests (a minute and a half on two cores)"
	@echo "make test        lint, types, tests"
	@echo "make test-lowest the tests on the lowest versions that pyproject.toml allows, with python3.10"
	@echo "make torture     kills runs, fills disks, feeds broken and hostile files, and prints what survived (20 minutes)"
	@echo "make bench       timings against peers, side by side: make bench DATA=folder with train/, val/ and test/ (half an hour)"
	@echo "make site        the documentation as a site, in build/site"
	@echo "make wheel-demo  build the wheel, install it into an environment of its own, and run the demo there"
	@echo "make clean       remove virtual environments, caches and what the demo wrote"

demo: $(STAMP)
	$(BIN)/tlkit demo

test: lint
	$(BIN)/python -m pytest $(SHARED)

quick: lint
	$(BIN)/python -m pytest $(SHARED) $(QUICK)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "tl-kit needs Python 3.10 or newer: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment (on Debian: apt install python3-venv)"; exit 1; }
	@echo "installing into $(VENV) (once; torch is large)"
	$(PIP) install --editable '.[dev,starter]'
	@touch $(STAMP)

LOWEST := .venv-lowest
LOWEST_PYTHON ?= python3.10

test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest $(SHARED)

$(LOWEST)/.installed: pyproject.toml tests/lowest.txt
	test -x $(LOWEST)/bin/python || $(LOWEST_PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip --quiet --disable-pip-version-check install -c tests/lowest.txt --editable '.[dev,starter]'
	@touch $@

torture: $(STAMP)
	$(BIN)/python -m pytest -m torture tests/torture

PEERS := .venv-peers

bench: $(STAMP) $(PEERS)/.installed
	@test -n "$(DATA)" || { echo "say where the images are: make bench DATA=PATH"; exit 1; }
	$(BIN)/python benchmarks/head_against_bare_pass.py --data "$(DATA)" --json benchmarks/results/head_against_bare_pass.json
	$(BIN)/python benchmarks/evaluation_against_parts.py --data "$(DATA)" --json benchmarks/results/evaluation_against_parts.json
	$(BIN)/python benchmarks/training_rate.py --data "$(DATA)" --json benchmarks/results/training_rate.json
	$(BIN)/python benchmarks/last_layers_against_head.py --data "$(DATA)" --json benchmarks/results/last_layers_against_head.json
	$(BIN)/python benchmarks/peers.py --data "$(DATA)" --peers-python $(PEERS)/bin/python --json benchmarks/results/peers.json

$(PEERS)/.installed:
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --quiet --disable-pip-version-check install fastai timm scikit-learn
	@touch $(PEERS)/.installed

site: $(STAMP)
	$(BIN)/mkdocs build --strict

# In a folder of its own: nothing of the repository can be imported there.
WHEEL_VENV := .venv-wheel

wheel-demo:
	rm -rf $(WHEEL_VENV) dist demo-of-the-wheel
	$(PYTHON) -m venv $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/python -m pip --quiet --disable-pip-version-check wheel --no-deps --wheel-dir dist .
	wheel=$$(echo dist/*.whl) && \
		$(WHEEL_VENV)/bin/python -m pip --quiet --disable-pip-version-check install "$$wheel[starter]"
	mkdir demo-of-the-wheel && cd demo-of-the-wheel && ../$(WHEEL_VENV)/bin/tlkit demo

clean:
	rm -rf $(VENV) $(LOWEST) $(PEERS) $(WHEEL_VENV) build demo-of-the-wheel dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis demo
	find tl_kit recipes tests -name __pycache__ -type d -exec rm -rf {} +
