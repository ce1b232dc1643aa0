# `make help` says what there is. Each target does its own set-up (.ci/setup).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test bench lint format extension requirements clean

# cargo may be installed for the user only; Debian keeps e2fsck out of an ordinary user's way.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin
# maturin installs into the environment this names.
export VIRTUAL_ENV := $(CURDIR)/.venv
unexport PYTHONPATH PYTHONHOME CONDA_PREFIX

VENV := .venv/bin
# The tests run what users run: the optimised build. One profile, one target
# directory, so that the core is compiled once for both test runners.
CARGO_TEST := cargo test --release --locked --package layermelt-core
PYTEST ?= $(VENV)/python -m pytest

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: extension ## real packages in layers -> one image -> checked, listed, booted
	@.ci/setup demo
	@PYTHONPATH=tests $(VENV)/python -m integration.real.demo

test: extension ## all tests; what cannot run here is skipped and says why
	@.ci/setup test
	$(CARGO_TEST)
	$(PYTEST) tests

bench: extension ## race against the peers, scaling, parts; reports go to benches/reports
	@.ci/setup bench
	benches/peers/install.sh .cache/peers
	$(VENV)/python benches/compare.py --cache .cache
	$(VENV)/python benches/scaling.py --cache .cache
	$(PYTEST) benches --benchmark-columns=min,median,max,rounds

lint: ## format, clippy, ruff, mypy: all warnings are errors
	@.ci/setup rust
	@.ci/setup venv
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(VENV)/ruff check
	$(VENV)/ruff format --check
	MYPYPATH=tests:benches $(VENV)/mypy python tests benches

format: ## put the sources into shape
	@.ci/setup rust
	@.ci/setup venv
	cargo fmt --all
	$(VENV)/ruff format
	$(VENV)/ruff check --fix

extension: ## build layermelt into .venv
	@.ci/setup rust
	@.ci/setup venv
	@PIP_QUIET=1 $(VENV)/maturin develop --release --quiet

requirements: ## choose the versions of requirements-dev.lock anew (needs uv)
	{ head -n 2 requirements-dev.lock; \
	  uv pip compile --universal --python-version 3.10 --generate-hashes --extra dev \
	    --no-header --quiet --upgrade pyproject.toml; } > requirements-dev.lock.new
	mv requirements-dev.lock.new requirements-dev.lock

clean: ## remove what building and testing left (not .cache)
	rm -rf target .venv python/layermelt/_core*.so
	find . -name __pycache__ -prune -exec rm -rf {} +
