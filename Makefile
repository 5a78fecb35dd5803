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
BENCH ?= san repository

.PHONY: help setup demo demo-vsphere demo-fleet test s3server vcsim oidc test-vmfs fast lint bench peers clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## system packages, virtual environment, compiled binding (does nothing when all is there)
	@appliance/setup/install.sh
	@appliance/setup/venv.sh

demo: setup ## back up, browse and restore real machines on the built-in lab, then its console (root; two minutes after set-up)
	@$(BIN)/lanfree demo

demo-vsphere: setup vcsim ## the same for vSphere, against a simulated vCenter and a real LUN (root; two minutes)
	@$(BIN)/python -m tests.system.vcsim.demo

demo-fleet: setup ## several proxies over PostgreSQL, one killed in the middle of a night's work (root; a minute)
	@$(BIN)/python -m tests.system.fleet.demo

# Two workers: what boots guests under software emulation stays together in one of them (tests/conftest.py), since two at once
# on two cores run into each other's time limits; the other one does the rest meanwhile.
test: setup s3server vcsim oidc lint ## the whole suite, real tools included; a missing tool is a failure (root)
	@REQUIRE=all $(PYTEST) -m '' -n 2 --durations=25 $(ARGS)

s3server: setup ## build the S3 server that the tests start (once, needs Go)
	@appliance/setup/s3server.sh

vcsim: setup ## build the vCenter simulator that the tests start (once, needs Go)
	@appliance/setup/vcsim.sh

oidc: setup ## build the OpenID provider that the tests start (once, needs Go)
	@appliance/setup/oidc.sh

test-vmfs: setup ## volumes that ESXi made, and ours, read as an independent reader reads them (fetches 1 MB; eight minutes)
	@REQUIRE=all $(PYTEST) -m '' $(ARGS) tests/integration/transport/fixtures_vmfs.py tests/integration/transport/genuine_vmfs.py

fast: ## the fast suite alone: no root, no tools, under 30 seconds
	@$(PYTEST) $(ARGS)

lint: ## formatting, lint, types, direction of imports
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup peers ## figures beside goals, judged by nobody (ten minutes as root); others: make bench BENCH='catalog mounter'
	@for bench in $(BENCH); do \
	    echo "== $$bench"; \
	    if [ -f tests/bench/$$bench/__main__.py ]; then $(BIN)/python -m tests.bench.$$bench $(ARGS); continue; fi; \
	    for file in tests/bench/bench_$$bench.py tests/bench/$$bench/bench_*.py; do \
	        [ ! -f $$file ] || PYTHONPATH=. $(BIN)/python $$file $(ARGS); \
	    done; \
	done

peers: ## install the other backup tools that the bench runs beside (once; some minutes)
	@tests/bench/repository/peers.sh

clean: ## remove what these targets made: environment, compiled binding, caches
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@rm -f proxy/transport/iscsi/_libiscsi*.so proxy/transport/iscsi/_libiscsi*.[co]
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
