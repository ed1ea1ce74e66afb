# `make realign` and `make test` set up everything they need; run them as often as you like.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PINS := requirements.lock pyproject.toml
SPELLED := README.md CONTRIBUTING.md CHANGELOG.md Makefile pyproject.toml mkdocs.yml benchmarks conf docs src tests notebooks \
  data/01_raw/sample/README.md
TORCH = $(shell grep '^torch==' requirements.lock)
FREEZE := pip freeze --all --exclude-editable --exclude pip | sed -E 's/\+[[:alnum:].]+$$//'
SUPPORTED := import sys; v = sys.version_info[:2]; \
  sys.exit(None if (3, 11) <= v <= (3, 13) else \
  f"Found Python {v[0]}.{v[1]} ({sys.executable}); realignment needs 3.11, 3.12 or 3.13. \
  Name another one: make PYTHON=python3.12 realign")

export DO_NOT_TRACK := 1
export KEDRO_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true
export NO_MKDOCS_2_WARNING := 1
# Rows of many lengths fragment glibc's heap: large tensors go back to the system at once instead.
export MALLOC_MMAP_THRESHOLD_ := 4194304

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help realign test lint docs viz mlflow lock clean

help: ## What can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

realign: $(VENV)/.installed ## Set up, then re-align the base model to the new policy (ARGS="--params seed=7")
	$(BIN)/kedro run --pipelines realign $(ARGS)

test: lint docs ## Set up, then check style, types, layers and documentation, and run all tests (ARGS="-k triage")
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.installed-dev ## Style, spelling, types and layers only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell $(SPELLED)
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed-dev ## The documentation with API pages as a site in build/docs; a broken link is an error
	$(BIN)/mkdocs build --strict

viz: $(VENV)/.installed ## The pipelines and their data in the browser (kedro-viz)
	$(BIN)/kedro viz run $(ARGS)

mlflow: $(VENV)/.installed ## Runs and registered models in the browser (MLflow)
	$(BIN)/mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db}" $(ARGS)

lock: ## The newest versions that pyproject.toml allows, from a fresh environment; torch stays at its pin
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip --quiet install $(TORCH)
	$(VENV)-lock/bin/python -m pip --quiet install -e '.[dev,docs]'
	(grep '^#' requirements.lock && $(VENV)-lock/bin/$(FREEZE)) > requirements.lock.new
	mv requirements.lock.new requirements.lock
	rm -rf $(VENV)-lock

clean: ## Remove the environment and caches; data, models and MLflow runs stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist src/*.egg-info
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than what it was installed from, or pip runs again; an install that was cut short leaves none.
$(VENV)/.installed: $(PINS) | $(BIN)/pip
	@echo "Installing the pinned packages into $(VENV) (a few minutes the first time)"
	@$(PIP) install -c requirements.lock $(TORCH)
	@$(PIP) install -c requirements.lock -e .
	@touch $@

$(VENV)/.installed-dev: $(PINS) | $(BIN)/pip
	@echo "Installing the pinned packages and the tools for tests into $(VENV) (a few minutes the first time)"
	@$(PIP) install -c requirements.lock $(TORCH)
	@$(PIP) install -c requirements.lock -e '.[dev,docs]'
	@touch $(VENV)/.installed $@

$(BIN)/pip:
	@$(PYTHON) -c '$(SUPPORTED)'
	$(PYTHON) -m venv $(VENV)
