# Two commands matter: `make demo` and `make test`. Each sets itself up from a bare clone.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := .tools/bin/uv
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo down test check format lock audit clean

help: ## say what there is
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make the project's own environment

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "ClickPost needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv .tools \
	  || { echo "Python cannot make virtual environments here (on Debian: apt-get install python3-venv)."; exit 1; }
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9

$(READY): pyproject.toml requirements.lock | $(UV)
	@echo "Setting up $(VENV) (once; about a minute) ..."
	@test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	@$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: $(READY) ## start everything, publish a sample post to four sandbox platforms
	@$(BIN)/clickpost demo

down: $(READY) ## stop what `make demo` started
	@$(BIN)/clickpost down

test: $(READY) ## every check: style, types, imports, tests
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/pytest -n 3 --dist loadgroup

check: $(READY) ## the quick checks only: style, types, imports
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

format: $(READY) ## put the code in shape
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lock: $(UV) ## resolve requirements.lock anew from pyproject.toml
	@$(UV) pip compile pyproject.toml --extra dev --universal --generate-hashes --quiet \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" -o requirements.lock

audit: $(UV) ## ask PyPI for known holes in what requirements.lock pins (needs the network)
	@$(UV) tool run --quiet --from pip-audit==2.10.1 pip-audit --strict --progress-spinner off \
	  --disable-pip --require-hashes -r requirements.lock

clean: ## remove the environment (not your data)
	@rm -rf $(VENV) .tools
