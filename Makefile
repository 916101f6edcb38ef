# One entry for everything: `make help`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CACHE := $(or $(GPUFLEET_CACHE),$(HOME)/.cache/gpufleet)
UV := $(or $(shell command -v uv 2>/dev/null),$(CACHE)/uv/bin/uv)
RUN := $(UV) run --locked

.PHONY: help setup format lint types unit test e2e crds proto cluster kubeconfig cluster-down demo demo-recorded demo-down clean

help: ## List the targets.
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

$(CACHE)/uv/bin/uv:
	@echo "uv is not installed: putting uv 0.13.9 into $(CACHE)/uv"
	@python3 -m venv $(CACHE)/uv && $(CACHE)/uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9

setup: $(UV) ## Make the virtual environment from the lock file.
	@test -d .venv || echo "making the virtual environment in .venv (once)" >&2
	@$(UV) sync --locked --quiet

format: setup ## Format the Python files.
	$(RUN) ruff format
	$(RUN) ruff check --fix

lint: setup ## ruff and the layer contracts.
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) lint-imports

types: setup ## mypy --strict.
	$(RUN) mypy

unit: setup ## Unit tests: seconds, no root, no network.
	$(RUN) pytest tests

e2e: setup ## Tests on a real cluster of etcd, apiserver, scheduler, kubelets and containerd.
	$(RUN) pytest e2e --timeout 900

test: lint types unit e2e ## Everything; the first run builds the cluster's binaries.

crds: setup ## Write crds/*.yaml and the chart's copies from the models.
	$(RUN) python -m gpufleet_api.generate

proto: setup ## Generate the gRPC messages from the .proto files.
	$(RUN) python -m gpufleet_agent.proto.generate

cluster: setup ## Start a real two-node cluster on this machine.
	@$(RUN) python -m cluster up

kubeconfig: setup ## Print the path of the cluster's kubeconfig.
	@$(RUN) python -m cluster kubeconfig

cluster-down: setup ## Stop the cluster and remove what it made.
	@$(RUN) python -m cluster down

demo: setup ## From nothing to GPUWorkloads on a real cluster with simulated GPUs.
	@$(RUN) python -m demo

demo-recorded: setup ## The agent on a recorded node, two minutes: no cluster, no root.
	@$(RUN) python -m demo.recorded

demo-down: setup ## Remove everything that `make demo` made.
	@$(RUN) python -m demo down

clean: ## Remove caches in this folder (not the tool cache).
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
