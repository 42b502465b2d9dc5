# The few things one does in this tree. Each is a script in scripts/, so CI and people run the same.

.DEFAULT_GOAL := help
.PHONY: help demo test test-image test-cluster check setup clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/installed ## train on four local ranks with and without freezing, and compare
	@scripts/demo

test: .venv/installed ## everything a change must pass: the checks below and all tests
	@scripts/check

test-image: .venv/installed ## build the image of a rank with podman or docker, and run it as a cluster would
	@scripts/packages && .venv/bin/pytest -m image tests/image

test-cluster: .venv/installed ## start Kubernetes with its operators on this machine, and submit runs to it
	@scripts/packages && scripts/cluster build && .venv/bin/pytest -m cluster tests/cluster

check: .venv/installed ## format, lint, types, floors, generated files, house rules: no other tests
	@scripts/check format lint types floors generated house

setup: .venv/installed ## make .venv, once per change of pyproject.toml or constraints.txt

.venv/installed: pyproject.toml constraints.txt scripts/setup
	@scripts/setup

clean: ## remove caches and build artefacts; .venv and runs/ stay
	@rm -rf build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find bench dashboards fedctl scripts tests trainer -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
