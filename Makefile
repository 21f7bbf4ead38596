# `make demo` and `make test` are all a newcomer needs; everything is installed into .venv.
PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin
# Most tests wait for real servers rather than for a core: a few files at once.
JOBS   ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo test check install clean

help:  ## Show what there is
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## Take a real item through a real repository to deployed and done, and watch
	@$(RUN)/orch demo

test: $(VENV)/.dev  ## Run every test
	@$(RUN)/python -m pytest -n $(JOBS) --dist loadfile

check: $(VENV)/.dev  ## Lint, types and import rules
	@$(RUN)/ruff check . && $(RUN)/ruff format --check . && $(RUN)/mypy && $(RUN)/lint-imports

install: $(VENV)/.demo  ## Install into .venv what `make demo` needs

clean:  ## Remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@PYTHON="$(PYTHON)" .ci/venv "$(VENV)"

$(VENV)/.demo: requirements.lock pyproject.toml | $(VENV)/bin/python
	@.ci/install "$(VENV)" requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(VENV)/bin/python
	@.ci/install "$(VENV)" requirements-dev.lock
	@touch $(VENV)/.demo $@
