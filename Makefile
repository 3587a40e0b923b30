# `make demo` and `make test` are the two commands; each builds what is missing.
# Every target works from a fresh clone. VENV, VENV_LAVA, VENV_FULL and PYTHON may be set from outside.
# Versions are those of constraints/; with NEWEST=1 the newest: `make test NEWEST=1 VENV=.venv-newest`.
SHELL      := /bin/sh
VENV       ?= .venv
VENV_LAVA  ?= .venv-lava
VENV_FULL  ?= .venv-full
DEMO       ?= export/demo
MODEL      ?= spiketrack-nano
PYTEST     ?= $(PY) -m pytest -q
# One process per core: most of the suite waits for commands that it runs. PARALLEL= runs it in one process.
PARALLEL   ?= -n auto --maxprocesses 4
PY         := $(VENV)/bin/python
ENV        := VENV="$(VENV)" VENV_LAVA="$(VENV_LAVA)" VENV_FULL="$(VENV_FULL)" NEWEST="$(NEWEST)" sh scripts/env.sh

.DEFAULT_GOAL := help
.PHONY: help env env-lava env-full demo test test-slow test-full mutants lint wheel golden constraints clean distclean

help:
	@echo 'make demo       build .venv, export the bundled model on the bundled clip, say which files to open'
	@echo 'make test       build .venv and .venv-lava, then ruff, mypy and the default test suite'
	@echo 'make test-slow  the tests marked slow (wheel in an empty environment, long parity runs)'
	@echo 'make mutants    do the tests bite? 200 one-token faults, one by one (hours; MUTANTS="--count 20 --area mapping")'
	@echo 'make lint       ruff and mypy only'
	@echo 'make wheel      dist/*.whl, with models and hardware profiles inside'
	@echo 'make golden     rewrite the golden text dumps under tests/ (review the difference like code)'
	@echo 'make test NEWEST=1 VENV=.venv-newest   the same with the newest versions instead of those of constraints/'
	@echo 'make constraints  write constraints/ from .venv and .venv-lava, once the suite passes there'
	@echo 'make env-full   .venv-full: Python 3.10, lava-dl 0.6.0, torch 2.3.1, norse, nir (5.8 GB); make test-full tests it'
	@echo 'make clean      build products, caches and exports; make distclean also removes the environments'

# The script is idempotent and answers in milliseconds when its stamp is current.
env:
	@$(ENV) main

# Never fails: without Lava everything but the Lava engine works, and the script says how to get it.
env-lava:
	@$(ENV) lava

env-full:
	@$(ENV) full

demo: env
	$(VENV)/bin/spiketrack-export $(MODEL) --target loihi2 -o "$(DEMO)" --force
	@echo
	@echo 'Open:'
	@for f in report.html tracked.mp4 energy.json layers.csv parity.json model.nir; do \
	    if [ -e "$(DEMO)/$$f" ]; then echo "  $(DEMO)/$$f"; fi; done

lint: env
	$(PY) -m ruff check .
	$(PY) -m mypy

test: env env-lava
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PYTEST) $(PARALLEL)

test-slow: env env-lava
	$(PYTEST) -m slow

mutants: env env-lava
	$(PY) scripts/mutants.py $(MUTANTS)

test-full: env-full
	$(VENV_FULL)/bin/python -m pip check
	$(VENV_FULL)/bin/python -m pytest -q

wheel: env
	$(PY) -m pip wheel --quiet --no-deps --wheel-dir dist .
	@ls -l dist/*.whl

golden: env
	SPIKETRACK_UPDATE_GOLDEN=1 $(PYTEST) -m golden

# For other Pythons: .venv/bin/python scripts/constraints.py 3.12 3.13 (needs uv).
constraints: env env-lava
	$(PY) scripts/constraints.py
	if [ -x "$(VENV_LAVA)/bin/python" ]; then $(PY) scripts/constraints.py --lava "$(VENV_LAVA)/bin/python"; fi

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find export -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf "$(VENV)" "$(VENV_LAVA)" "$(VENV_FULL)"
