# What is needed: Python 3.10 or newer, and a network for the first `pip install`. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: help demo test lint clean

help:
	@echo "make demo    fine-tune three small models on handwritten digits and combine them (no network after the install)"
	@echo "make test    lint, types, tests"
	@echo "make clean   remove $(VENV), caches and what the demo wrote"

demo: $(STAMP)
	$(BIN)/tlkit demo

test: lint
	$(BIN)/python -m pytest

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

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis demo
	find tl_kit recipes tests -name __pycache__ -type d -exec rm -rf {} +
