# The same recipes that people and CI run. `make help` lists them.
#
#   CARGO_FLAGS=…   more flags for cargo build and test, such as --offline
#   SEEDS=…         how many kills, moments, cases and simulated worlds `make torture` tries (default 1000)
#   SEED=…          where they begin (default: the time, printed); the same SEED replays
#   FUZZ_S=…        how many seconds `make fuzz` runs; FUZZ_ARGS=… more flags for libFuzzer
#   DEMO_ARGS=…     flags for windlass demo, such as --keep
#   BENCH_ARGS=…    flags for bench/run.py (see `python3 bench/run.py --help`)

SHELL := /bin/sh
CARGO ?= cargo
SEEDS ?= 1000
SEED := $(or $(SEED),$(shell date +%s))
FUZZ_S ?= 60
# the sanitizer's flags want a nightly compiler: RUSTC_BOOTSTRAP lets the stable one take them, here and nowhere else
FUZZ_BIN := $(HOME)/.cache/windlass/cargo-fuzz/bin
PYTHON ?= python3
# CONTRIBUTING's example is in nobody's binary: its test builds our crates once more, so without optimisation. All of the
# workspace is named, so that other people's crates are those of the run before
EXAMPLE_FLAGS := $(foreach room,repo snapshot rack_scheduler metal_broker,--config profile.dev.package.windlass-$(room).opt-level=0)

.DEFAULT_GOAL := help
.PHONY: help demo test lint fmt doc torture fuzz bench deps deps-demo deps-test deps-torture deps-fuzz deps-bench audit clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: deps-demo ## A real disk goes into the store and comes back by its difference (no root, no server)
	$(CARGO) build --release --locked $(CARGO_FLAGS) --bin windlass
	./target/release/windlass demo $(DEMO_ARGS)

test: deps-test ## Everything: format, lints, doc tests, unit, property, kill and power-loss tests
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked $(CARGO_FLAGS) -- -D warnings
	$(CARGO) test --workspace --doc --quiet --locked $(CARGO_FLAGS)
	rm -rf target/said
	WINDLASS_SAID=$(CURDIR)/target/said $(CARGO) nextest run --workspace --locked $(CARGO_FLAGS)
	sh scripts/secrets.sh target/said
	$(CARGO) nextest run --workspace --bin windlass --features windlass/example --locked $(EXAMPLE_FLAGS) $(CARGO_FLAGS) -E 'test(example)'

lint: ## Format check and clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked $(CARGO_FLAGS) -- -D warnings

fmt: ## Formats every source
	$(CARGO) fmt --all

doc: ## API documentation of our own crates
	$(CARGO) doc --workspace --no-deps --locked $(CARGO_FLAGS)

torture: deps-torture ## Every test, the seeded ones at length: make torture SEEDS=10000 [SEED=7]
	@echo "SEED=$(SEED) SEEDS=$(SEEDS)"
	WINDLASS_SEED=$(SEED) WINDLASS_KILLS=$(SEEDS) WINDLASS_POWER_POINTS=$(SEEDS) WINDLASS_CUT_S=60 \
	  WINDLASS_SIM_SEEDS=$(SEEDS) WINDLASS_RACK_REQUESTS=100000 WINDLASS_RACK_KILLS=50 PROPTEST_CASES=$(SEEDS) $(CARGO) nextest run --workspace --locked --profile torture --run-ignored all $(CARGO_FLAGS)

fuzz: deps-fuzz ## Any bytes as a qcow2 image, and as what comes from a fleet's servers, for FUZZ_S seconds each (default 60)
	mkdir -p fuzz/corpus/qcow2
	for options in cluster_size=512 cluster_size=4k,refcount_bits=1 compat=0.10 compression_type=zstd,cluster_size=4k; do \
	  image=fuzz/corpus/qcow2/$$options && \
	  qemu-img create -q -f qcow2 -o $$options $$image 1M && \
	  qemu-io -f qcow2 -c 'write -P 3 1k 20k' -c 'write -z 64k 9k' $$image >/dev/null && \
	  qemu-img convert -c -f qcow2 -O qcow2 -o $$options $$image $$image-compressed || exit 1; done
	PATH="$(FUZZ_BIN):$$PATH" RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --fuzz-dir fuzz qcow2 -- \
	  -max_total_time=$(FUZZ_S) -max_len=262144 -rss_limit_mb=2048 -timeout=20 -print_final_stats=1 $(FUZZ_ARGS)
	WINDLASS_FUZZ_CORPUS=$(CURDIR)/fuzz/corpus/trust $(CARGO) nextest run --cargo-quiet -p windlass-trust --locked $(CARGO_FLAGS) -E 'test(seeds_of_the_fuzz_target)'
	PATH="$(FUZZ_BIN):$$PATH" RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --fuzz-dir fuzz trust -- \
	  -max_total_time=$(FUZZ_S) -max_len=4096 -rss_limit_mb=2048 -timeout=20 -print_final_stats=1 $(FUZZ_ARGS)

bench: deps-bench ## windlass beside restic, borg and casync in one run; report in bench/report/
	$(CARGO) build --release --locked $(CARGO_FLAGS) --bin windlass
	$(PYTHON) bench/run.py $(BENCH_ARGS)
	$(PYTHON) bench/idle.py
	$(CARGO) bench -q -p windlass-nats --bench requests --bench jobs_submit --bench heartbeats --locked $(CARGO_FLAGS)
	$(CARGO) bench -q -p windlass-rack_scheduler --features testing --bench rack --bench rack_lattice --locked $(CARGO_FLAGS)
	WINDLASS_RACK_STATE_RACKS=10000 $(CARGO) bench -q -p windlass-rack_scheduler --bench rack_state --locked $(CARGO_FLAGS)
	$(CARGO) bench -q -p windlass-rack_scheduler --features testing --bench rack --locked $(CARGO_FLAGS) -- dump 1 200 medium \
	  | $(HOME)/.cache/windlass/highspy/bin/python3 bench/rack_exact.py --limit-s 5 --budget-s 60
	$(CARGO) bench -q -p windlass-rack_scheduler --features testing --bench rack --locked $(CARGO_FLAGS) -- dump 2 200 large \
	  | $(HOME)/.cache/windlass/highspy/bin/python3 bench/rack_exact.py --limit-s 15 --budget-s 120
	$(CARGO) bench -q -p windlass-metal_broker --features testing --bench metal --locked $(CARGO_FLAGS) | tee bench/report/metal.txt
	$(PYTHON) bench/metal_plot.py bench/report/metal.svg <bench/report/metal.txt
	$(CARGO) bench -q -p windlass-redfish --bench refresh --locked $(CARGO_FLAGS)
	$(CARGO) bench -q -p windlass-metal_broker --features testing --bench metal --locked $(CARGO_FLAGS) -- dump 1 400 \
	  | $(HOME)/.cache/windlass/highspy/bin/python3 bench/metal_exact.py

audit: ## Licences, bans and duplicate versions (needs cargo-deny; advisories need the internet)
	$(CARGO) deny --all-features check licenses bans sources

deps: deps-demo deps-test ## What demo and test need: by root, else sudo, else prints the apt line
deps-demo:
	@sh scripts/deps.sh demo
deps-test:
	@sh scripts/deps.sh test
deps-torture:
	@sh scripts/deps.sh torture
deps-fuzz:
	@sh scripts/deps.sh fuzz
deps-bench:
	@sh scripts/deps.sh bench

clean: ## Removes what was built (the caches in ~/.cache/windlass stay)
	$(CARGO) clean
	rm -rf bench/report
