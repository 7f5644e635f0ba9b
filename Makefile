# Every command of the project; `make` lists them. Scripts do the work, so that each is found once.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

# All that is downloaded or built lies outside the checkout, so that a fresh clone starts warm.
export SEARCHCELL_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/searchcell
export CARGO_TARGET_DIR ?= $(SEARCHCELL_CACHE)/target
$(shell CARGO_TARGET_DIR='$(CARGO_TARGET_DIR)' .ci/own-target >&2)
ifneq ($(.SHELLSTATUS),0)
$(error .ci/own-target failed: see above; another checkout's build could be taken for this one's)
endif

CLUSTER := e2e/cluster/cluster
LEVEL ?= smoke
N ?= 10000
export LEVEL TEST KEEP

.PHONY: help
help: ## this list
	@echo "SearchCell: a Kubernetes operator for cells of small Elasticsearch clusters"
	@awk 'BEGIN {FS = ":.*## "} /^##@ /{printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ See it work

.PHONY: demo demo-down
demo: ## a three-zone Kubernetes, the operator, a real cell and real documents in it; needs nothing prepared
	@e2e/demo

demo-down: ## remove all that the demo made; the cache stays
	@e2e/demo down

##@ Develop

.PHONY: build fmt lint purity generate verify check sbom clean
build: ## build everything (debug)
	@cargo build --workspace --all-targets

fmt: ## format the code
	@cargo fmt --all

lint: purity ## formatting, clippy with warnings denied, purity of the core
	@cargo fmt --all --check
	@cargo clippy --quiet --workspace --all-targets -- -D warnings

purity: ## operator/core: no async runtime, no clients, no HTTP, no clock, no randomness
	@! cargo tree --quiet -p searchcell-core -e normal --prefix none | grep -E '^(tokio|kube-client|kube-runtime|hyper|reqwest|axum|tower|elasticsearch|rand|chrono) v' || { echo "operator/core depends on the above" >&2; exit 1; }
	@! grep -rnE '\b(Timestamp|SystemTime|Instant|Zoned)::now\b|\bstd::(fs|net|process|thread)\b' operator/core/src || { echo "operator/core reads a clock or does I/O" >&2; exit 1; }

generate: ## write all generated files anew: CRDs, API reference, schema of the routing table, golden files
	@cargo run --quiet --package searchcell-crds --bin crdgen -- write crds
	@cargo run --quiet --package searchcell-crds --bin crdgen -- docs docs/reference
	@UPDATE_GOLDEN=1 cargo test --quiet --package searchcell-core --test golden --test inject --test table

verify: ## fail when a generated file is not what `make generate` would write
	@sum() { find crds/*.yaml docs/reference operator/core/tests/golden operator/core/tests/vectors -type f -exec sha256sum {} + | sort -k2; }; \
	before=$$(sum); $(MAKE) generate >/dev/null; diff <(echo "$$before") <(sum) || { echo "the files above were out of date: commit what make generate wrote" >&2; exit 1; }

check: lint verify ## lint, verify, and licences, sources, bans and known vulnerabilities of all dependencies
	@.ci/supply-chain deny

sbom: ## the bill of materials of the operator, CycloneDX JSON; prints where it is
	@.ci/supply-chain sbom

clean: ## remove what cargo built (not the caches of the test cluster)
	@cargo clean

##@ Test

.PHONY: test unit sim fuzz-router bench bench-router bench-upgrades api-test e2e e2e-keep
test: ## everything, the simulation included, up to the smoke level of e2e; brings up and removes its own cluster (KEEP=1 keeps it)
	@e2e/test all

unit: ## unit, golden, property and wire tests, without the simulation: needs nothing but cargo
	@cargo test --workspace --no-fail-fast

sim: ## the simulation alone: N= schedules (10000) from seed FIRST= (0) of STORY= (all), or one of them again, SEED=
	@SEARCHCELL_SIM_SCHEDULES=$(N) $(if $(SEED),SEARCHCELL_SIM_SEED=$(SEED)) $(if $(FIRST),SEARCHCELL_SIM_FIRST=$(FIRST)) $(if $(STORY),SEARCHCELL_SIM_STORY=$(STORY)) cargo test --profile simtest -p searchcell-operator --test sim -- \
		--include-ignored --nocapture --skip ninety_data_nodes $(if $(SEED),no_schedule_breaks_an_invariant)

fuzz-router: N = 10000000
fuzz-router: ## the router's parser of bulks against another one: N= inputs (10000000)
	@SEARCHCELL_FUZZ=$(N) cargo test --release -p searchcell-router --test fuzz -- --nocapture

bench: bench-router bench-upgrades ## all benchmarks; each writes its part of docs/benchmarks.md

bench-router: ## the router beside its peers, in turns: RUNS= rounds (5), COUNT= documents, ONLY=, PEERS=
	@e2e/bench-router

bench-upgrades: ## ninety simulated data nodes, upgraded by zone and one pod at a time
	@e2e/bench-upgrades

api-test: ## CRDs and the webhook against a real API server
	@e2e/test api

e2e: ## end-to-end tests: LEVEL=smoke|full, or TEST=name for some of them
	@e2e/test e2e

e2e-keep: ## the same, and the cluster stays for a look
	@KEEP=1 e2e/test e2e

##@ A cluster to work with (SEARCHCELL_CLUSTER=kind|local|current)

.PHONY: cluster-up cluster-down cluster-env cluster-status image image-binary deploy undeploy
cluster-up: ## bring up three nodes in three zones
	@$(CLUSTER) up

cluster-down: ## remove them; nothing stays but the cache
	@$(CLUSTER) down

cluster-env: ## for eval "$(make -s cluster-env)": a shell whose kubectl reaches the cluster
	@$(CLUSTER) env

cluster-status: ## what is up
	@$(CLUSTER) status

image: ## the operator's image, as an archive in the cache
	@e2e/operator image

image-binary: ## the static release binary that goes into the image
	@e2e/operator binary

deploy: ## build the image, load it, install CRDs and operator, wait until it is available
	@e2e/operator deploy

undeploy: ## remove operator and CRDs, and with them every SearchCell
	@e2e/operator undeploy
