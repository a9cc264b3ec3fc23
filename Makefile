# Countersign: `make demo` shows it, `make test` proves it; both do all of their own set-up.

SHELL := /bin/bash
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/countersign
export CARGO_TARGET_DIR ?= $(CACHE)/target
BIN := $(CARGO_TARGET_DIR)/debug

.PHONY: test check unit e2e demo demo-up demo-down characteristics generate build tools

## test: formatting, lints, unit, property and end-to-end tests
test: check unit e2e

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

unit:
	cargo test --workspace --locked

## e2e: the operator on a real control plane, Prometheus and traffic; tests wait more than they work
e2e: build tools
	cargo test --locked --test e2e --no-run
	$(BIN)/cluster exec --operator $(BIN)/countersign -- \
		env CARGO_NET_OFFLINE=true cargo test --locked --test e2e -- --test-threads=6 $(E2E)

## demo: a harmless change promoted and a risky one rolled back, before your eyes
demo: build tools
	@demo=$$(cargo test --locked --test demo --no-run --message-format=json-render-diagnostics | \
		sed -n '/"name":"demo"/s/.*"executable":"\([^"]*\)".*/\1/p') && \
	$(BIN)/cluster exec --operator $(BIN)/countersign -- "$$demo"

## demo-up: leaves a cluster running with the operator and the first versions of examples/, and
##   prints what to export: eval "$$(make -s demo-up)"
demo-up: build
	@set -e; PATH="$$(tests/cluster/tools/build.sh):$$PATH"; \
	exports=$$($(BIN)/cluster up --operator $(BIN)/countersign); eval "$$exports"; \
	{ kubectl wait --for=condition=Established crd --all; \
	kubectl apply --server-side $(patsubst %,-f examples/%.yaml,policy harmless risky); \
	kubectl wait --for=jsonpath={.status.phase}=Stable rollout web login; } >&2; \
	echo "$$exports"; echo "export PATH='$${PATH%%:*}':\"\$$PATH\""

## demo-down: ends it
demo-down: build
	@$(BIN)/cluster down

## characteristics: false rollbacks and detection beside a threshold and a z-test, as tables and as a
##   picture in docs/; in the profile of the tests, whose dependencies are built already
characteristics:
	cargo bench --locked --profile dev --bench operating_characteristics

## generate: the committed files that the program writes
generate:
	cargo run --locked --bin countersign -- crds --dir crds

build:
	cargo build --workspace --locked --bins

tools:
	@tests/cluster/tools/build.sh > /dev/null
