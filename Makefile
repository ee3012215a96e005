# Everything runs from .venv, which `make install` makes. Another interpreter: make install PYTHON=python3.12
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.laotie-installed
EXTRAS := train,dev,serve,stream,report

.DEFAULT_GOAL := help
.PHONY: help install demo check test format clean results peers

help:
	@echo "make install   .venv with everything; afterwards $(BIN)/laotie --help"
	@echo "make demo      the main job end to end on embedded data"
	@echo "make check     formatting, lint, strict types, import contracts"
	@echo "make test      check + tests"
	@echo "make results DATA=DIR   the measured tables of docs/results.md from the data sets in DIR (hours; resumable; ONLY=a,b)"
	@echo "make peers DATA=DIR     other libraries on the same data, in an environment of their own"
	@echo "make format    rewrite the sources in the house format"
	@echo "make clean     remove caches and build products (not .venv)"

install: $(STAMP)

# An existing .venv is kept, whoever made it; only its Python version is checked.
$(STAMP): pyproject.toml
	@test -x $(BIN)/python || { \
	  command -v $(PYTHON) >/dev/null || { echo "laotie: '$(PYTHON)' not found; set PYTHON=/path/to/python3.11" >&2; exit 1; }; \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "laotie: Python >= 3.11 is needed, '$(PYTHON)' is $$($(PYTHON) -V 2>&1); try make install PYTHON=python3.11" >&2; exit 1; }; \
	  echo "laotie: creating $(VENV) with $$($(PYTHON) -V)"; \
	  $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "laotie: no virtual environment (on Debian: install python3-venv)" >&2; exit 1; }; }
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "laotie: $(VENV) holds $$($(BIN)/python -V), but Python >= 3.11 is needed; remove $(VENV) and run make install again" >&2; exit 1; }
	@echo "laotie: installing laotie[$(EXTRAS)] into $(VENV) (a minute or two)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$(EXTRAS)]"
	@touch $@

demo: install
	$(BIN)/laotie demo

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: check
	$(BIN)/python -m pytest

results: install
	@test -n "$(DATA)" || { echo "laotie: make results DATA=DIR, the folder of data sets" >&2; exit 2; }
	$(BIN)/laotie results "$(DATA)" --out docs/results.md --only "$(ONLY)"

peers: install
	@test -n "$(DATA)" || { echo "laotie: make peers DATA=DIR, the folder of data sets" >&2; exit 2; }
	$(BIN)/python benchmarks/peers/run.py "$(DATA)"

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .compiled-checked .coverage build dist *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
