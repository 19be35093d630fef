# `make` alone prints this help. Everything runs in one virtual environment, .venv, made on demand by PYTHON; VENV names another one.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
SEED   ?= 1
SEEDS  ?= 100
NEW_ENOUGH = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "quorl needs Python 3.11 or newer; say which: make $(or $(MAKECMDGOALS),up) PYTHON=python3.12")'

$(VENV)/.stamp: pyproject.toml
	@$(NEW_ENOUGH)
	$(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[all,dev]'
	touch $@

help: ## Print this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/bin/quorl: pyproject.toml
	@$(NEW_ENOUGH)
	@echo "Installing into $(VENV); this takes a minute."
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[all]'

up: $(VENV)/bin/quorl ## Run a cluster on this machine: three nodes, a worker, the dashboard, keys that break things
	$(VENV)/bin/quorl up

demo: $(VENV)/bin/quorl ## Start three nodes, kill the leader half way, and count what was lost (nothing)
	$(PY) -m examples.demo

test: $(VENV)/.stamp ## Run every test; protocol and machine must be covered to the last branch
	$(PY) -m pytest -n auto -m "not chaos and not sim and not browser" --cov --cov-report=
	PYTHONHASHSEED=0 $(PY) -m pytest -n auto -m "sim and not chaos"
	$(PY) -m pytest -m chaos
	@if command -v chromium >/dev/null; then echo "$(PY) -m pytest -m browser"; $(PY) -m pytest -m browser; \
	else echo "No Chromium is here: the tests of the dashboard in a browser are left out (apt-get install chromium)."; fi
	$(PY) -m coverage report --include='cluster/protocol/*,cluster/machine/*' --fail-under=100

check: $(VENV)/.stamp ## Lint, formatting, types and the house rules
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(PY) -m pytest -q tests/test_tidy.py

sim: $(VENV)/.stamp ## Simulate whole clusters: SEEDS of them, from SEED on
	PYTHONHASHSEED=0 $(PY) -m tests.simulation $(SEED) $(SEEDS)

mutants: $(VENV)/.stamp ## Switch every repair off in turn; the simulation must notice each
	PYTHONHASHSEED=0 $(PY) -m tests.simulation.mutants

fuzz: $(VENV)/.stamp ## Let schemathesis try the API of a real node for ten minutes
	$(PY) -m tests.api.fuzz --seed $(SEED)

chaos: $(VENV)/.stamp ## Kill, pause and cut off real nodes, longer than the tests do
	QUORL_CHAOS_ROUNDS=20 $(PY) -m pytest tests/chaos --timeout=1800

bench: $(VENV)/.stamp ## Measure this machine
	$(PY) -m benchmarks

clean: ## Stop the cluster of the demo; remove the environment, caches and the data of the demo; that of quorl up stays
	-@test ! -x $(VENV)/bin/quorl || $(PY) -m examples.demo --stop
	rm -rf .venv .venv-* data build dist src/*.egg-info .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help demo test check sim mutants fuzz chaos bench up clean
