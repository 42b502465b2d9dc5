# The few things one does in this tree. Each is a script in scripts/, so CI and people run the same.

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz test-faults test-wire test-slow test-image test-cluster test-cluster-smoke check audit setup clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/installed ## train on four local ranks in three ways: every value, without settled ones, by low rank; and compare
	@scripts/demo

test: .venv/installed ## what a change must pass: the checks below and all quick tests
	@scripts/check

test-slow: .venv/installed ## the slow tests, and those with bounds on rounding as other processors compute
	@scripts/check slow kernels

test-faults: .venv/installed ## kill, starve and cut off real runs in every way of docs/faults.md, and resume them
	@.venv/bin/pytest -m '' tests/faults

test-wire: .venv/installed ## hold the bytes that runs count against what the ranks' network interfaces send; needs root
	@.venv/bin/pytest -m wire tests/wire

fuzz: .venv/installed ## hostile files and settings, for FUZZ_SECONDS (600): a result or one line
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-600} .venv/bin/pytest -q -s tests/fuzz

test-image: .venv/installed ## build the image of a rank with podman or docker, and run it as a cluster would
	@scripts/packages && .venv/bin/pytest -m image tests/image

test-cluster-smoke: .venv/installed ## of the next those tests that touch each backend and each command once
	@scripts/packages && scripts/cluster build && .venv/bin/pytest -m 'cluster and smoke' tests/cluster

test-cluster: .venv/installed ## start Kubernetes with its operators on this machine, and submit runs to it
	@scripts/packages && scripts/cluster build && .venv/bin/pytest -m cluster tests/cluster

check: .venv/installed ## format, lint, types, floors, generated files, house rules, locks: no other tests
	@scripts/check format lint types floors generated house lock

audit: .venv/installed ## look up known vulnerabilities of all locked versions; needs a network
	@scripts/audit

setup: .venv/installed ## make .venv, once per change of pyproject.toml or constraints.txt

.venv/installed: pyproject.toml constraints.txt scripts/setup
	@scripts/setup

clean: ## remove caches and build artefacts; .venv and runs/ stay
	@rm -rf build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find bench dashboards fedctl scripts tests trainer -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
