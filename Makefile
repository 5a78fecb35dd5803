# SPDX-License-Identifier: Apache-2.0
# "make" lists what there is. "make demo" and "make test" are the two commands of the README.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

BIN := .venv/bin
PYTEST := $(BIN)/pytest
# More options for pytest: make test ARGS='-x -k chap'
ARGS ?=
BENCH ?= *

.PHONY: help setup demo test fast lint bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## system packages, virtual environment, compiled binding (does nothing when all is there)
	@appliance/setup/install.sh
	@appliance/setup/venv.sh

demo: setup ## back up, browse and restore real machines on the built-in lab (root; about six minutes)
	@$(BIN)/lanfree demo

# Serial on purpose: the real-tools tests boot guests under software emulation, and two of them at once on two cores run
# into each other's time limits.
test: setup lint ## the whole suite, real tools included; a missing tool is a failure (root)
	@REQUIRE=all $(PYTEST) -m '' --durations=15 $(ARGS)

fast: ## the fast suite alone: no root, no tools, under 30 seconds
	@$(PYTEST) $(ARGS)

lint: ## formatting, lint, types, direction of imports
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup ## measure and print figures, judge nothing; one of them: make bench BENCH=san
	@for bench in tests/bench/bench_$(BENCH).py; do \
	    echo "== $$bench"; $(BIN)/python $$bench $(ARGS); \
	done

clean: ## remove what these targets made: environment, compiled binding, caches
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@rm -f proxy/transport/iscsi/_libiscsi*.so proxy/transport/iscsi/_libiscsi*.[co]
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
