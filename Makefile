# Longshore's tasks. `make` alone lists them.

VENV := .venv
INSTALLED := $(VENV)/.installed
LOCKER := .cache/lock
LOCK = $(LOCKER)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"
# The first of these that is at least 3.11, unless PYTHON names one.
ifndef PYTHON
PYTHON := $(shell for name in python3 python3.13 python3.12 python3.11; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$$name"; break; }; done)
endif
# More for pytest, for example: make test PYTEST_ARGS="-k lease -x"
PYTEST_ARGS ?=
# Two for each processor, because many tests wait for processes; at most 16, because Redis has so many databases.
TEST_PROCESSES ?= $(shell processors=$$(nproc 2>/dev/null || echo 2); echo $$((processors < 8 ? 2 * processors : 16)))
# The tests of `make test-long`.
LONG_TESTS := tests/chaos tests/conformance tests/security/test_one_owner_for_a_minute.py \
	tests/acceptance/test_without_registry.py tests/acceptance/test_old_environments.py tests/acceptance/test_tour.py \
	tests/acceptance/test_sources.py tests/acceptance/test_published_client.py tests/acceptance/clients
# make chaos SEED=7 JOBS=300 FAULTS=60 SUMMARY=path: without SEED, a random seed is used and printed.
JOBS ?= 300
FAULTS ?= 60
# The number of examples of `make conformance`, and its database: sqlite or postgresql.
EXAMPLES ?= 5000
DATABASE ?= sqlite
# make bench BENCH=reads: one case of benchmarks/; without BENCH, all of them.
BENCH ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-stop test test-long chaos broken-rules conformance bench checks lint format types lock migration clean

help:  ## List the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED)  ## Create the virtual environment in .venv, with the locked dependencies
	@:

$(INSTALLED): requirements-dev.lock pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or newer is needed, with its venv module." \
		"Debian 12, Ubuntu 24.04 and newer: apt-get install python3 python3-venv. Or name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv module." \
		"Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing the locked dependencies into $(VENV)"
	@[ -x $(VENV)/bin/python ] || "$(PYTHON)" -m venv $(VENV)
	@# --no-deps: the lock is complete, and pip would look for extras of what it pins beyond the lock
	@$(VENV)/bin/python -m pip install --quiet --require-hashes --no-deps --requirement requirements-dev.lock
	@$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo:  ## The main use with real services, from nothing to a pulled image (KEEP=1: leave it running)
	@[ -z "$(PYTHON)" ] || "$(PYTHON)" -m dev.services.packages demo
	@$(MAKE) --no-print-directory setup
	@$(VENV)/bin/python -m dev.demo

demo-stop:  ## Stop what `KEEP=1 make demo` left running
	@$(VENV)/bin/python -m dev.demo stop

test:  ## Run all checks, and all tests but the long ones, with the real services that they need
	@[ -z "$(PYTHON)" ] || "$(PYTHON)" -m dev.services.packages test
	@$(MAKE) --no-print-directory setup
	@$(MAKE) --no-print-directory checks
	@$(VENV)/bin/python -m pytest -n $(TEST_PROCESSES) \
		$(addprefix --ignore ,$(LONG_TESTS)) $(PYTEST_ARGS)

test-long:  ## Run the long tests: short chaos and conformance, a hostile owner, all published clients, sources
	@[ -z "$(PYTHON)" ] || "$(PYTHON)" -m dev.services.packages test-long
	@$(MAKE) --no-print-directory setup
	@$(VENV)/bin/python -m pytest -n 2 $(LONG_TESTS) $(PYTEST_ARGS)

chaos: setup  ## Inject real faults into a complete Longshore, and check what must hold (about 15 minutes)
	@[ -z "$(PYTHON)" ] || "$(PYTHON)" -m dev.services.packages test
	@$(VENV)/bin/python -m tests.chaos --jobs $(JOBS) --faults $(FAULTS) \
		$(if $(SEED),--seed $(SEED)) $(if $(SUMMARY),--summary $(SUMMARY))

broken-rules: setup  ## Break each of the design's seven rules in a copy; a test must fail for each (3 minutes)
	@$(VENV)/bin/python -m tests.broken_rules

conformance: setup  ## Check a running Longshore against its OpenAPI document (EXAMPLES=5000 DATABASE=sqlite)
	@$(VENV)/bin/python -m tests.conformance --examples $(EXAMPLES) --database $(DATABASE)

bench: setup  ## Measure Longshore and its peers: all cases, or one (BENCH=reads RESULTS=path for JSON)
	@[ -z "$(PYTHON)" ] || "$(PYTHON)" -m dev.services.packages test
	@$(VENV)/bin/python -m benchmarks $(BENCH) $(if $(RESULTS),--json $(RESULTS))

checks: lint types

lint: setup  ## Check style, names and the directions of imports
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/lint-imports --no-logo
	@$(VENV)/bin/python -m dev.check_names

format: setup  ## Format the code
	@$(VENV)/bin/ruff check --fix
	@$(VENV)/bin/ruff format

types: setup  ## Check types, strictly
	@$(VENV)/bin/mypy

lock:  ## Lock the newest dependencies that pyproject.toml allows, for every Python and platform at once
	@[ -x $(LOCKER)/bin/uv ] || { "$(PYTHON)" -m venv $(LOCKER) && $(LOCKER)/bin/python -m pip install --quiet uv; }
	@# The lock for developing, and the part of it that is needed for running
	@$(LOCK) --upgrade --extra dev --output-file requirements-dev.lock pyproject.toml
	@$(LOCK) --constraint requirements-dev.lock --output-file requirements.lock pyproject.toml

migration: setup  ## Write the next migration from the models: make migration MESSAGE="what changes"
	@$(VENV)/bin/python -m migrations "$(MESSAGE)"

clean:  ## Remove everything that these tasks created in the checkout
	@[ ! -d .longshore-demo ] || [ ! -x $(VENV)/bin/python ] || $(VENV)/bin/python -m dev.demo stop
	@rm -rf $(VENV) .cache .longshore-demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis schemathesis-report .import_linter_cache build dist *.egg-info
	@find . -name __pycache__ -prune -exec rm -rf {} +
