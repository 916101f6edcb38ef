# One entry for everything: `make help`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CACHE := $(or $(GPUFLEET_CACHE),$(HOME)/.cache/gpufleet)
UV := $(or $(shell command -v uv 2>/dev/null),$(CACHE)/uv/bin/uv)
RUN := $(UV) run --locked
# Some environments set it; each start of an interpreter then compiles everything that it imports.
unexport PYTHONDONTWRITEBYTECODE
# Tests mostly wait, so there is one worker more than cores; each needs 2 GiB of memory for its cluster.
E2E_WORKERS = $(shell awk -v cores="$$(nproc)" '/^MemAvailable/ { most = int($$2 / 2097152) } \
  END { n = cores + 1; if (n > most) n = most; if (n > 8) n = 8; print n < 1 ? 1 : n }' /proc/meminfo)
# One works while another waits for a timeout or a program that it started. Each needs 0.5 GiB of memory.
UNIT_WORKERS = $(shell expr $$(nproc) + 1)

# Single, gang, spread, distribution, shared and heat; forgery; churn; death of the operator; pods of other owners; claims.
E2E_CORE := e2e/allocation/test_core.py e2e/allocation/test_forgery.py e2e/placement/test_churn.py e2e/resilience/test_operator_death.py \
  e2e/resilience/test_killed_at_write.py e2e/adoption e2e/dra/test_claims.py e2e/dra/test_workloads.py e2e/dra/test_policy_claims.py

ACTIONLINT := github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
HELM = $(or $(shell command -v helm 2>/dev/null),$(lastword $(sort $(wildcard $(CACHE)/tools/helm-*/helm))),helm)
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
REGISTRY := localhost
HISTORIES := 1000

.PHONY: help krew setup format lint types unit histories check test e2e e2e-core workflows helm-lint manifests docs crds proto cluster kubeconfig cluster-down \
  demo demo-dra demo-recorded demo-down images sbom wheel release-check clean

help: ## List the targets.
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(CACHE)/uv/bin/uv:
	@echo "uv is not installed: putting uv 0.13.9 into $(CACHE)/uv"
	@python3 -m venv $(CACHE)/uv && $(CACHE)/uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9

setup: $(UV) ## Make the virtual environment from the lock file.
	@test -d .venv || echo "making the virtual environment in .venv (once)" >&2
	@$(UV) sync --locked --quiet

format: setup ## Format the Python files.
	$(RUN) ruff format
	$(RUN) ruff check --fix

lint: setup ## Check style, layer contracts and spelling (ruff, import-linter, codespell).
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) lint-imports
	$(RUN) codespell

types: setup ## Check the types with mypy --strict.
	$(RUN) mypy

unit: setup ## Run the unit tests in a process per core and one more: no root, no network.
	$(RUN) pytest tests -n $(UNIT_WORKERS) --dist worksteal

histories: setup ## Run each test of random histories with 1,000 of them (HISTORIES=N: with N), which takes hours.
	GPUFLEET_HISTORIES=$(HISTORIES) $(RUN) pytest tests -m histories -n 2 --dist worksteal --timeout 0

check: lint types unit ## Run lint, types and unit tests, as before a commit.

e2e: setup ## Run the tests on a real cluster of etcd, apiserver, scheduler, kubelets and containerd.
	$(RUN) pytest e2e --timeout 900 -n $(E2E_WORKERS) --dist loadfile --no-loadscope-reorder --durations 40

e2e-core: setup ## Run the end-to-end tests that every supported Kubernetes must pass; GPUFLEET_CLUSTER_KUBERNETES selects it.
	$(RUN) pytest $(E2E_CORE) --timeout 900 -n $(E2E_WORKERS) --dist loadfile --no-loadscope-reorder --durations 40

workflows: ## Check .github/workflows with actionlint (needs Go).
	go run $(ACTIONLINT) -color

helm-lint: ## Lint the chart and render it with helm.
	@command -v $(HELM) >/dev/null || { echo "helm is not installed: install it (https://helm.sh/docs/intro/install) or set HELM=/path/to/helm" >&2; exit 1; }
	$(HELM) lint --strict charts/gpufleet
	$(HELM) template gpufleet charts/gpufleet --namespace gpufleet-system >/dev/null

manifests: ## Write dist/install.yaml, dist/crds.yaml and a base for Kustomize, with helm; HELM_VALUES are more of its arguments.
	@mkdir -p dist/kustomize
	cat crds/*.yaml | sed 's/^# Generated/---\n&/' > dist/crds.yaml
	$(HELM) template gpufleet charts/gpufleet --namespace gpufleet-system --no-hooks --skip-tests \
	  --set podSecurity.createNamespace=true $(HELM_VALUES) > dist/install.yaml
	cp dist/install.yaml config/kustomize/base/kustomization.yaml dist/kustomize

test: lint workflows types unit e2e ## Run everything; the first run builds the cluster's binaries.

docs: setup ## Write the generated parts of README.md and docs.
	$(RUN) python -m gpufleet_testing.reference

crds: setup ## Write crds/*.yaml and the chart's copies from the models.
	$(RUN) python -m gpufleet_api.generate

proto: setup ## Generate the gRPC messages from the .proto files.
	$(RUN) python -m gpufleet_agent.proto.generate

cluster: setup ## Start a real two-node cluster on this machine.
	@$(RUN) python -m gpufleet_testbed up

kubeconfig: setup ## Print the path of the cluster's kubeconfig.
	@$(RUN) python -m gpufleet_testbed kubeconfig

cluster-down: setup ## Stop the cluster and remove what it made.
	@$(RUN) python -m gpufleet_testbed down

demo: setup ## Start a real cluster with simulated GPUs and place GPUWorkloads on it.
	@$(RUN) python -m gpufleet_e2e.demo

demo-dra: setup ## The same with ResourceClaims instead of the device plugin.
	@$(RUN) python -m gpufleet_e2e.demo --transport=DRA

demo-recorded: setup ## Run the agent on a recorded node for two minutes: no cluster, no root.
	@$(RUN) python -m gpufleet_e2e.demo.recorded

demo-down: setup ## Remove everything that `make demo` made.
	@$(RUN) python -m gpufleet_e2e.demo down

images: ## Build the images of agent, operator and command line with Docker (REGISTRY: where they are pushed to).
	for target in agent operator cli; do \
	  docker build --target $$target --build-arg VERSION=$(VERSION) --build-arg REVISION="$$(git rev-parse HEAD)" \
	    --tag $(REGISTRY)/gpufleet-$$target:$(VERSION) . || exit 1; \
	done

sbom: setup ## Write the bill of materials (SPDX) of each image that `make images` built into dist/.
	mkdir -p dist
	for target in agent operator cli; do \
	  $(RUN) python -m gpufleet_testing.sbom $(REGISTRY)/gpufleet-$$target:$(VERSION) > dist/gpufleet-$$target.spdx.json || exit 1; \
	done

wheel: setup ## Build the wheel into dist/.
	$(UV) build --quiet --wheel --out-dir dist

krew: wheel ## Build the archive and the manifest of the kubectl plugin for krew into dist/.
	$(RUN) python -m gpufleet_testing.krew dist/gpufleet-$(VERSION)-py3-none-any.whl $(if $(KREW_URL),--url=$(KREW_URL))

release-check: ## Check that the package, the chart and a dated section of the changelog have VERSION.
	@grep -qx 'version = "$(VERSION)"' pyproject.toml || { echo "pyproject.toml: version is not $(VERSION)" >&2; exit 1; }
	@grep -qx 'version: $(VERSION)' charts/gpufleet/Chart.yaml || { echo "Chart.yaml: version is not $(VERSION)" >&2; exit 1; }
	@grep -qx 'appVersion: "\?$(VERSION)"\?' charts/gpufleet/Chart.yaml || { echo "Chart.yaml: appVersion is not $(VERSION)" >&2; exit 1; }
	@grep -Eq '^## \[$(VERSION)\] - [0-9]{4}-[0-9]{2}-[0-9]{2}$$' CHANGELOG.md || { echo "CHANGELOG.md: no section [$(VERSION)] - YYYY-MM-DD" >&2; exit 1; }

clean: ## Remove caches in this folder (not the tool cache).
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
