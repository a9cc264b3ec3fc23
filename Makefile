# Countersign: `make demo` shows it, `make test` proves it; both do all of their own set-up.

SHELL := /bin/bash
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/countersign
export CARGO_TARGET_DIR ?= $(CACHE)/target
BIN := $(CARGO_TARGET_DIR)/debug
RELEASE := $(CARGO_TARGET_DIR)/release

.PHONY: test check unit docs recording screenshots cluster-tests harness e2e e2e-shared e2e-alone browser model faults crashes first-change kubernetes ordinary-user existing demo demo-up demo-down characteristics bench bench-quick bench-hour deny fuzz release static generate nightly upgrade build tools

## test: formatting, lints, unit, property and end-to-end tests, and the site
# The model computes for minutes beside the unit tests, in the time that they leave. Tests in a cluster mostly wait, so two
# clusters run at the same time. All of them are built before, since a compiler would slow down tests with deadlines.
test: check
	cargo test --workspace --locked --test model --no-run
	@log=$$(mktemp) && { setsid chrt --idle 0 cargo test --workspace --locked --test model > "$$log" 2>&1 & } && \
	model=$$! && trap 'kill -- -$$model 2> /dev/null; rm -f "$$log"' EXIT && \
	$(MAKE) unit docs cluster-tests && \
	MAKE='$(MAKE)' tests/lanes.sh 'harness e2e-alone browser' 'e2e-shared crashes' && \
	echo "Waiting for the model, which has been running since the unit tests" && \
	{ wait $$model; ended=$$?; cat "$$log"; exit $$ended; }

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --workspace --locked $(patsubst %,--test %,e2e faults first_change demo smoke outages install chart model) -- -D warnings

unit:
	cargo test --workspace --locked

## docs: the site of docs/, in $(SITE); tests/site.rs checks its links
SITE ?= $(CACHE)/site
MDBOOK := $(CACHE)/mdbook-0.5.4/bin/mdbook
docs: $(MDBOOK)
	docs/build.sh $(MDBOOK) $(SITE)

# Without its server, and not optimised, which builds in half the time: a site takes seconds either way.
$(MDBOOK):
	CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --root $(@:/bin/mdbook=) \
		--no-default-features --features search mdbook@0.5.4

## recording: runs the demo and records it for the picture of a rollback in docs/
recording:
	@demo=$$(mktemp) && trap 'rm -f "$$demo"' EXIT && set -o pipefail && \
	$(MAKE) --silent demo | tee "$$demo" && cp "$$demo" docs/figures/demo.txt
	COUNTERSIGN_GENERATE=write cargo test --workspace --locked --test reference

# The tests that `make test` runs in a cluster.
cluster-tests: build tools
	cargo test --workspace --locked $(patsubst %,--test %,smoke outages install chart e2e faults) --no-run

## harness: the test cluster itself, and the chart from its first installation to its end
harness: build tools
	cargo test --workspace --locked $(patsubst %,--test %,smoke outages install chart) --no-run
	$(BIN)/cluster exec -- env CARGO_NET_OFFLINE=true RUST_BACKTRACE=0 \
		cargo test --workspace --locked $(patsubst %,--test %,smoke outages install chart)

## e2e: the operator on a real control plane, Prometheus and traffic: tests that share a cluster, and at the same time in
##   another one those that disturb others. `make e2e E2E=pause` runs those whose name contains it
e2e: build tools
	cargo test --workspace --locked --test e2e --no-run
	@MAKE='$(MAKE)' tests/lanes.sh e2e-shared e2e-alone

# Tests wait more than they work, so more of them run at once than there are cores.
RUN_E2E = $(BIN)/cluster exec --operator $(BIN)/countersign -- \
	env CARGO_NET_OFFLINE=true RUST_BACKTRACE=0 cargo test --workspace --locked --test e2e --
e2e-shared: build tools
	cargo test --workspace --locked --test e2e --no-run
	$(RUN_E2E) --test-threads=12 $(E2E)

# One after another, apart from those of `Scene::unguarded`: there are threads for these and for those that come before.
e2e-alone: build tools
	cargo test --workspace --locked --test e2e --no-run
	$(RUN_E2E) --ignored --skip plugin::browser --test-threads=10 $(E2E)

# Debian's and that of other systems.
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
BROWSER := $(CACHE)/browser
# What the scripts of tests/browser/ use: outside the repository, from the lock file, without scripts of packages.
# Packages that npm has in its cache are not downloaded again, so a second run needs no network.
BROWSER_PACKAGES = mkdir -p $(BROWSER) && cp tests/browser/package.json tests/browser/package-lock.json $(BROWSER) && \
	{ npm ci --loglevel=error --prefer-offline --ignore-scripts --no-audit --no-fund --prefix $(BROWSER) || { \
		echo "make $@: npm cannot install the packages of tests/browser/package-lock.json; its reason is above" >&2; exit 1; }; }
NO_BROWSER = [ -z "$(CHROMIUM)" ] || ! command -v node > /dev/null || ! command -v npm > /dev/null
INSTALL_BROWSER := Debian: apt-get install chromium nodejs npm
IN_BROWSER = CHROMIUM=$(CHROMIUM) COUNTERSIGN_BROWSER=$(BROWSER)
## browser: the dashboard in a real Chromium on the test cluster. Where Chromium or Node is missing it says that it is left
##   out, and nothing fails; where its two packages cannot be had, it fails with npm's reason
browser: build tools
	@if $(NO_BROWSER); then \
		echo "make browser: LEFT OUT: no test of the dashboard in a browser has run, since Chromium, Node or npm is" \
			"not installed ($(INSTALL_BROWSER))" >&2; \
	else \
		$(BROWSER_PACKAGES) && cargo test --workspace --locked --test e2e --no-run && \
		$(BIN)/cluster exec --operator $(BIN)/countersign -- \
			env CARGO_NET_OFFLINE=true RUST_BACKTRACE=0 $(IN_BROWSER) \
			cargo test --workspace --locked --test e2e -- --ignored --test-threads=2 plugin::browser; \
	fi

## screenshots: runs the demo, and takes the pictures of the dashboard in docs/figures/ from it; they are to be looked at
screenshots: build
	@if $(NO_BROWSER); then echo "make screenshots: Chromium, Node or npm is not installed ($(INSTALL_BROWSER))" >&2; exit 1; fi
	@$(BROWSER_PACKAGES)
	@demo=$(DEMO) && $(BIN)/cluster exec --operator $(BIN)/countersign -- \
		env $(IN_BROWSER) tests/browser/screenshots.sh "$$demo" $(BIN)/kubectl-countersign docs/figures

## faults: whatever can go wrong between the operator and its cluster, one thing at a time; about an hour.
##   What a failure names as COUNTERSIGN_SEED runs it again
faults:
	COUNTERSIGN_FAULTS=all $(MAKE) crashes FAULTS=

# The part of it that `make test` runs: deaths of the operator at some of its writes, and a tenth of the flood.
FAULTS := crash:: flood::
crashes: build tools
	cargo test --workspace --locked --test faults --no-run
	$(BIN)/cluster exec --operator $(BIN)/countersign -- \
		env CARGO_NET_OFFLINE=true RUST_BACKTRACE=0 cargo test --workspace --locked --test faults -- --test-threads=1 --nocapture $(FAULTS)

## first-change: what a newcomer does: `helm install`, the Rollout of its notes and a change of it, then people who
##   are asked, with the built-in policy in real time; about 18 minutes
first-change: build tools
	cargo test --workspace --locked --test first_change --no-run
	$(BIN)/cluster exec -- env CARGO_NET_OFFLINE=true RUST_BACKTRACE=0 cargo test --workspace --locked --test first_change

# The versions beside the newest, each a file of tests/cluster/tools/controlplane/, and what is tested on them: what an
# API server does otherwise without mutating policies, and before 1.31 without selecting custom resources by field.
KUBERNETES := 1.30 1.33
OLDER := workload:: routes:: promotion:: rollback:: evidence:: plugin::check:: \
	freeze::a_bad freeze::a_freeze_ends freeze::a_freeze_holds freeze::a_freeze_that freeze::a_window freeze::an_incident \
	attacks::beside:: attacks::content:: attacks::deletion:: attacks::operator:: attacks::owned:: attacks::pods:: \
	attacks::scale:: attacks::status:: attacks::tampered::law_11 \
	identity::installed::the_api_server identity::intervention:: identity::roles:: \
	identity::sign_off::nobody_signs identity::stamp::the_stamp_is_demanded
## kubernetes: tests in a cluster of older versions, and of the chart in one without it; their control planes are built
##   first: half an hour each. `make kubernetes KUBERNETES=1.33` tests one
kubernetes: build
	cargo test --workspace --locked --test e2e --test chart --no-run
	@failed=; for version in $(KUBERNETES); do \
		echo "Kubernetes $$version"; export COUNTERSIGN_KUBERNETES=$$version; \
		$(BIN)/cluster exec --operator $(BIN)/countersign -- env CARGO_NET_OFFLINE=true RUST_BACKTRACE=0 \
			cargo test --workspace --locked --test e2e -- --include-ignored --test-threads=10 $(OLDER) || failed="$$failed $$version"; \
		$(BIN)/cluster exec -- env CARGO_NET_OFFLINE=true RUST_BACKTRACE=0 \
			cargo test --workspace --locked --test chart || failed="$$failed $$version (chart)"; \
	done; \
	if [ -n "$$failed" ]; then echo "kubernetes: failed:$$failed" >&2; exit 1; fi

## ordinary-user: `make demo` and `make test` by a user without root, from a fresh clone of the last commit; run by root
##   it becomes such a user. An hour and a half, and some gigabytes of disk while it runs
ordinary-user:
	tests/cluster/ordinary-user.sh

# What releases are upgraded from; tests/chart reads it here.
EARLIER := 1ce1de020245ee2e85b21bf3da428c7b6480fb77
## upgrade: the chart from its installation to its end, as `make harness` has it, but with the operator of that earlier
##   commit before the upgrade and after the rollback; then each of the two operators takes over from the other in the
##   midst of every stage of a change. The earlier one is built first, which takes a quarter of an hour
upgrade: build tools
	rm -rf $(CACHE)/earlier && mkdir -p $(CACHE)/earlier
	set -o pipefail; git archive $(EARLIER) | tar -x -C $(CACHE)/earlier
	cd $(CACHE)/earlier && CARGO_TARGET_DIR=$(CACHE)/earlier-target cargo build --locked --bin countersign
	cargo test --workspace --locked --test chart --no-run
	@for tests in '' --ignored; do \
		$(BIN)/cluster exec -- env CARGO_NET_OFFLINE=true RUST_BACKTRACE=0 COUNTERSIGN_HISTORY=required \
			COUNTERSIGN_EARLIER_OPERATOR=$(CACHE)/earlier-target/debug/countersign \
			cargo test --workspace --locked --test chart -- $$tests || exit 1; \
	done

## model: the state machine explored exhaustively, with two faults on a path where `make test` has one
model:
	COUNTERSIGN_MODEL_FAULTS=$(or $(COUNTERSIGN_MODEL_FAULTS),2) cargo test --workspace --locked --test model -- --nocapture

## demo: a harmless change promoted, a bad one rolled back, and a risky one signed off, before your eyes
##   `make demo KUBECONFIG=FILE` shows it on that cluster (examples/README.md). A KUBECONFIG of the environment is not
##   used: many a shell has one, and who types `make demo` there need not mean that cluster
demo:
ifeq ($(origin KUBECONFIG),command line)
	@demo=$(DEMO) && "$$demo" existing
else
	@$(if $(KUBECONFIG),echo 'A cluster of its own; another one: make demo KUBECONFIG=$(KUBECONFIG)' >&2;) $(PLAY)
endif

## existing: the same as on a cluster that exists already, whose part the test cluster plays; five minutes
existing:
	@$(PLAY) existing

# A test target, so its path is found as that of a test.
DEMO = $$(cargo test --workspace --locked --test demo --no-run --message-format=json-render-diagnostics | \
	sed -n '/"name":"demo"/s/.*"executable":"\([^"]*\)".*/\1/p')
# It builds what it needs and no more: neither the plugin nor a router nor Helm, whose part charts/install.yaml plays.
PLAY = tools=$$(tests/cluster/tools/build.sh base) && \
	cargo build --workspace --locked --bin countersign --bin cluster --test demo && demo=$(DEMO) && \
	$(BIN)/cluster exec --tools "$$tools" --operator $(BIN)/countersign --chart charts/install.yaml -- "$$demo"

## demo-up: leaves a cluster running with the operator and the first versions of examples/, and
##   prints what to export: eval "$$(make -s demo-up)"
# A definition may be established and not served yet, so it is applied until it is.
demo-up: build
	@set -e; PATH="$$(tests/cluster/tools/build.sh):$$PATH"; \
	exports=$$($(BIN)/cluster up --operator $(BIN)/countersign); eval "$$exports"; \
	{ kubectl wait --for=condition=Established crd --all; \
	tries=0; until kubectl apply --server-side $(patsubst %,-f examples/%.yaml,policy harmless risky); do \
		tries=$$((tries + 1)); [ $$tries -lt 10 ]; sleep 1; done; \
	kubectl wait --for=jsonpath={.status.phase}=Stable rollout web login; } >&2; \
	echo "The dashboard: $(BIN)/kubectl-countersign dashboard" >&2; \
	echo "$$exports"; echo "export PATH='$${PATH%%:*}':\"\$$PATH\""

## demo-down: ends it
demo-down: build
	@$(BIN)/cluster down

## characteristics: false rollbacks and detection beside a threshold and a z-test, as tables and as a
##   picture in docs/; in the profile of the tests, whose dependencies are built already
characteristics:
	cargo bench --workspace --locked --profile dev --bench operating_characteristics

## bench: what the operator costs, built as it is shipped, as one table; about 40 minutes on a machine that has
##   nothing else to do. `make bench-quick` measures part of it, in less than eight minutes once all is built.
##   `make bench-hour` shows that memory stays flat over an hour of changes
bench-quick: SCALE := --quick
bench-hour: SCALE := --hour
bench bench-quick bench-hour: build tools
	cargo build --locked --release -p countersign -p countersign-decide --bin countersign --bin decide
	@scale=$$(cargo bench --workspace --locked --profile dev --bench scale --no-run --message-format=json-render-diagnostics | \
		sed -n '/"name":"scale"/s/.*"executable":"\([^"]*\)".*/\1/p') && \
	RUST_LOG=info,countersign::controller=debug \
	$(BIN)/cluster exec --operator $(RELEASE)/countersign -- "$$scale" $(RELEASE)/countersign $(RELEASE)/decide $(SCALE)

## fuzz: every parser of foreign text under libFuzzer for FUZZ_SECONDS each; it reports what it finds, and new
##   inputs are kept under ~/.cache/countersign/fuzz. `make fuzz FUZZ=query` runs one
FUZZ_SECONDS ?= 60
fuzz:
	@tests/fuzz/run.sh $(FUZZ_SECONDS) $(CACHE) $(FUZZ)

## deny: advisories, licences, sources and duplicates of all dependencies; the advisories come over the network
deny:
	cargo install --quiet --locked --root $(CACHE)/cargo cargo-deny@0.20.2
	$(CACHE)/cargo/bin/cargo-deny --locked check

## release: the operator and the plugin as they are released, each with its bill of materials beside it
release:
	cargo install --quiet --locked --root $(CACHE)/cargo cargo-auditable@0.7.7 auditable2cdx@0.1.0
	RUSTFLAGS="--remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo \
	--remap-path-prefix=$(CARGO_TARGET_DIR)=/target --remap-path-prefix=$(CURDIR)=/src" \
	$(CACHE)/cargo/bin/cargo-auditable auditable build --release --locked -p countersign -p countersign-kubectl --bins
	for bin in countersign kubectl-countersign; do \
		$(CACHE)/cargo/bin/auditable2cdx $(RELEASE)/$$bin > $(RELEASE)/$$bin.cdx.json || exit 1; done
	cd $(RELEASE) && sha256sum countersign kubectl-countersign *.cdx.json | tee SHA256SUMS

## static: the operator as the Dockerfile builds it, from the files of its build context alone, without Docker: one
##   static program that starts. It needs rustup's target $(MUSL) and musl-gcc (Debian: musl-tools)
MUSL := $(shell uname -m)-unknown-linux-musl
static:
	@context=$$(mktemp -d) && trap 'rm -rf "$$context"' EXIT && tests/packaging/context.sh "$$context" && \
	cd "$$context" && cargo build --release --locked --target $(MUSL) --bin countersign && \
	program=$(CARGO_TARGET_DIR)/$(MUSL)/release/countersign && \
	if readelf --program-headers $$program | grep INTERP; then echo "$$program is not static" >&2; exit 1; fi && \
	$$program --version && sha256sum $$program

# Each fits the six hours of a job; .github/workflows/nightly.yaml has a job for each.
NIGHTLY := deny model fuzz static upgrade first-change existing kubernetes ordinary-user faults bench
## nightly: what is too long for `make test`, one after another, and all of it even if one fails: about seven hours
nightly:
	@failed=; for part in $(NIGHTLY); do $(MAKE) $$part || failed="$$failed $$part"; done; \
	if [ -n "$$failed" ]; then echo "nightly: failed:$$failed" >&2; exit 1; fi

## generate: the committed files that the program and the chart write, and the reference of docs/
generate: tools
	cargo run --locked --bin countersign -- crds --dir crds
	rm -f charts/countersign/crd-files/*.yaml && cp crds/*.yaml charts/countersign/crd-files/
	PATH="$$(tests/cluster/tools/build.sh):$$PATH" charts/render.sh > charts/install.yaml.new
	mv charts/install.yaml.new charts/install.yaml
	COUNTERSIGN_GENERATE=write cargo test --workspace --locked --test reference

# With a test among them, so that dependencies have the features that tests ask for and are built once.
build:
	cargo build --workspace --locked --bins --test demo

tools:
	@tests/cluster/tools/build.sh > /dev/null
