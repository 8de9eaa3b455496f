# The only door: people and continuous integration call these targets and nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Where the cluster of `make demo` and `make e2e` comes from: local, kind or current (any kubeconfig).
CLUSTER ?= local
# A recorded trace in the Azure LLM inference format; without one a synthetic trace with the same marginals is made.
TRACE ?= $(firstword $(wildcard ../shared/traces/*.csv))
E2E := cargo run --quiet -p tidegate-e2e --
DEBUG := $(or $(CARGO_TARGET_DIR),target)/debug

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tidegate
DENY_VERSION := 0.20.2
ADVISORIES := https://github.com/RustSec/advisory-db
DENY := $(CACHE)/cargo-deny-$(DENY_VERSION)/bin/cargo-deny
FUZZ_VERSION := 0.13.2
FUZZ := $(CACHE)/cargo-fuzz-$(FUZZ_VERSION)/bin/cargo-fuzz
FUZZ_TARGETS := $(or $(TARGET),policy events answers requests stream usage prompts headers metrics calls timings)

# An empty name would be taken for one.
ifneq ($(TRACE),)
export TIDEGATE_TRACE := $(TRACE)
endif

.PHONY: help demo demo-standalone test check deny advisories unit golden laws loom miri fuzz apiserver clients protocol alerts chart e2e smoke chaos scale bench profile bench-core bench-quality gen images release clean-clusters

help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

demo: ## A cluster, two engines with simulated GPUs, the policies and an hour of traffic in two minutes
	$(E2E) demo $(if $(filter-out file,$(origin CLUSTER)),--cluster $(CLUSTER))

demo-standalone: ## The same sidecar and policies without a cluster, in a minute
	cargo build -p tidegate-e2e -p tidegate-sidecar -p tidegate-cli
	$(DEBUG)/tidegate-e2e demo-standalone --sidecar $(DEBUG)/tidegate-sidecar --cli $(DEBUG)/kubectl-tidegate

test: check deny unit loom apiserver clients protocol alerts chart e2e ## Everything, from unit tests to end-to-end tests on a real cluster

check: ## Format, lints, generated files
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	$(MAKE) --no-print-directory gen
	@git diff --exit-code --stat -- manifests docs/plots docs/api-reference.md || { echo "generated files differ: commit what 'make gen' wrote" >&2; exit 1; }

deny: $(DENY) ## Licences, sources, banned crates and known vulnerabilities of every dependency
	$(DENY) --log-level error check bans licenses sources
	@if GIT_TERMINAL_PROMPT=0 git ls-remote --exit-code --quiet $(ADVISORIES) HEAD >/dev/null 2>&1; then $(MAKE) --no-print-directory advisories; \
	else echo "NOT CHECKED: known vulnerabilities: $(ADVISORIES) cannot be reached from here; run 'make advisories' where it can" >&2; fi

advisories: $(DENY) ## Known vulnerabilities of every dependency, by the RustSec advisory database
	$(DENY) --log-level error check advisories

$(DENY):
	cargo install cargo-deny --locked --version $(DENY_VERSION) --root $(CACHE)/cargo-deny-$(DENY_VERSION)

unit: ## Unit, law, differential and process-level tests. The cases of laws are the same in every run
	PROPTEST_RNG_SEED=1 cargo test --workspace

laws: ## The laws again, with LAWS_CASES (5000) new random cases each: what fails is kept as a regression
	PROPTEST_CASES=$(or $(LAWS_CASES),5000) cargo test -p tidegate-core -p tidegate-policy -p tidegate-operator-core -p tidegate-fuzz

golden: ## Write the golden files of injection anew, to be read before they are committed
	TIDEGATE_WRITE_GOLDEN=1 cargo test -p tidegate-operator-core --test golden

loom: ## Every interleaving of the compare-and-swap loops
	RUSTFLAGS="--cfg loom" cargo test -p tidegate-core --lib --release --target-dir target/loom

# Not the tests that play thousands of requests: those take Miri minutes each.
MIRI_TESTS := breaker::state limit::concurrency limit::key limit::fixed_window::tests::a_ limit::sliding_log::tests::a_ \
	limit::sliding_window::tests::a_ limit::table concurrency::permits queue::tests --skip a_flood --skip keys_that_are \
	--skip keys_in_use --skip no_place_is_lost --skip the_ramp_lets --skip of_other_seeds --skip in_the_ramp \
	--skip the_ramp_refuses --skip takes_turns --skip where_low_finds

miri: ## The core's tests under Miri: states of breaker and limits, keys, places, the queue, or TESTS, few cases of each law. Needs a nightly compiler with miri
	@cargo +nightly miri --version >/dev/null 2>&1 || { echo "Miri is not there: rustup toolchain install nightly --component miri,rust-src" >&2; exit 1; }
	PROPTEST_CASES=4 MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test -p tidegate-core --lib --target-dir target/miri -- $(or $(TESTS),$(MIRI_TESTS))

fuzz: $(FUZZ) ## Every reader of what others write, FUZZ_SECONDS (60) each; TARGET=usage for one. Needs a nightly compiler
	@rustup toolchain list | grep -q ^nightly || { echo "fuzzing needs a nightly compiler: rustup toolchain install nightly --profile minimal" >&2; exit 1; }
	cp Cargo.lock fuzz/Cargo.lock
	cd fuzz && for target in $(FUZZ_TARGETS); do \
		mkdir -p corpus/$$target && \
		PATH="$(dir $(FUZZ)):$$PATH" cargo +nightly fuzz run --sanitizer none $$target corpus/$$target \
			$$(ls -d seeds/$$target 2>/dev/null) -- -max_total_time=$(or $(FUZZ_SECONDS),60) -rss_limit_mb=2048 -timeout=10 || exit 1; \
	done

fuzz-keep: ## Keep a part of what fuzzing has grown for cargo test: at most 150 inputs of each target in fuzz/grown
	mkdir -p fuzz/grown
	cd fuzz/corpus && for target in *; do \
		find $$target -type f -size -400c | LC_ALL=C sort | sed -n 1,150p | while read -r file; do xxd -p -c 0 $$file; done > ../grown/$$target.hex; \
	done

$(FUZZ):
	cargo install cargo-fuzz --locked --version $(FUZZ_VERSION) --root $(CACHE)/cargo-fuzz-$(FUZZ_VERSION)

protocol: ## h2spec, and payloads of request smuggling as nginx, Node.js and Go read them behind the sidecar
	cargo build -p tidegate-sidecar
	cargo test -p tidegate-e2e --features clients --test protocol

clients: ## The official OpenAI clients for Python and Node.js against the sidecar
	cargo build -p tidegate-sidecar
	cargo test -p tidegate-e2e --features clients --test clients

apiserver: ## On a real API server: every rule and default of the custom resources, every golden pod, what the operator asks
	cargo build -p tidegate-operator
	cargo test -p tidegate-e2e --features cluster --test apiserver

alerts: ## The alert rules, and a real Prometheus that scrapes the sidecar
	cargo build -p tidegate-sidecar
	cargo test -p tidegate-e2e --features prometheus --test prometheus

chart: ## The chart: helm lint, kubeconform (strict), rights, Pod Security, dashboard
	cargo test -p tidegate-e2e --features chart --test chart

e2e: ## End-to-end tests on a real cluster, two minutes of random faults with the same seed each time among them
	cargo build -p tidegate-cli
	TIDEGATE_CHAOS_SEED=1 $(E2E) test --cluster $(CLUSTER) --load-images -- cargo test -p tidegate-e2e --features cluster --test cluster -- --test-threads 4

# A policy is applied and refused, a pod injected, a request limited, a policy changed under load, everything uninstalled.
SMOKE := injection::a_pod_that_a_policy_selects_gets_a_sidecar_and_becomes_ready \
	injection::opted_out_and_host_network_pods_are_left_alone_and_say_why \
	injection::probes_and_metrics_pass_without_limits \
	policy::a_change_is_enforced_within_a_second_and_no_request_is_lost \
	policy::a_tightened_limit_refuses_and_deleting_the_policy_frees_the_pod \
	policy::an_invalid_policy_is_refused_with_what_to_write_instead \
	control_plane::uninstalling_the_chart_leaves_running_pods_serving

smoke: ## A small part of the end-to-end tests, for another cluster than the usual one: CLUSTER=kind also on a bare machine
	cargo build -p tidegate-cli
	$(E2E) test --cluster $(CLUSTER) --load-images -- cargo test -p tidegate-e2e --features cluster --test cluster -- --test-threads 2 --exact $(SMOKE)

chaos: ## Random faults under load for ten minutes: CHAOS_SECONDS for how long, CHAOS_SEED to repeat a run
	TIDEGATE_CHAOS_SECONDS=$(or $(CHAOS_SECONDS),600) $(if $(CHAOS_SEED),TIDEGATE_CHAOS_SEED=$(CHAOS_SEED)) $(E2E) test --cluster $(CLUSTER) --load-images -- cargo test -p tidegate-e2e --features cluster --test cluster -- --nocapture chaos::

scale: ## The operator with 1000 pods on 100 nodes and 200 policies: report/scale.md; SCALE_PODS=5000 for more, SECTION=webhook for the webhook alone
	cargo build --quiet --profile image -p tidegate-operator -p tidegate-e2e
	$(or $(CARGO_TARGET_DIR),target)/image/tidegate-e2e scale --operator $(or $(CARGO_TARGET_DIR),target)/image/tidegate-operator $(if $(SCALE_PODS),--pods $(SCALE_PODS)) $(if $(filter webhook,$(SECTION)),--webhook)

bench: ## CPU, streams, memory beside nginx, HAProxy and Envoy, floods, decisions beside peers: report/bench.md; SECTION=cpu for one, PEERS=pingora,tidegate for others
	cargo run --quiet --profile image -p tidegate-e2e -- bench $(if $(SECTION),--section $(SECTION)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(PEERS),--peers $(PEERS))

profile: ## The profile by which the sidecar's release is compiled: sidecar/profile. Needs rustup's component llvm-tools
	cargo run --quiet --profile image -p tidegate-e2e -- profile

bench-core: ## Decisions beside their bounds and peers alone: report/bench.md
	$(E2E) bench --section decisions

bench-quality: ## Goodput of admission policies against a model of an engine, in virtual time: report/quality
	cargo run --quiet --profile image -p tidegate-e2e -- bench-quality $(if $(QUICK),--quick) $(if $(PUBLISH),--publish docs)

gen: ## Generate manifests/ and docs/api-reference.md from the Rust types and the chart, docs/plots/ from the core
	cargo run --quiet -p tidegate-crds --bin crdgen -- manifests/crds docs/api-reference.md
	$(E2E) manifests > target/manifests.yaml && mv target/manifests.yaml manifests/tidegate.yaml
	$(E2E) plots docs/plots

images: ## Build the container images and load them into the cluster
	$(E2E) cluster load-images --cluster $(CLUSTER)

release: ## OCI archives of the images, each with the list of what is in it (CycloneDX), in release/
	$(E2E) release release $(if $(REGISTRY),--registry $(REGISTRY))

clean-clusters: ## Take down what an interrupted run left behind
	$(E2E) cluster down --cluster $(CLUSTER)
