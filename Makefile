# One command per task. `make test` is what CI runs; everything works from a fresh clone.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

HOST_TRIPLE := $(shell rustc -vV | sed -n 's/^host: //p')
CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
FLEET := $(abspath target/dist/fleet)
# What the tests on the real engine run: the binary that ships.
export FLEET_BIN = $(FLEET)
# The same with crash points, for the tests that kill it.
CRASH := $(abspath target/dist/fleet-crash)
export FLEET_CRASH_BIN = $(CRASH)
export INSTA_UPDATE ?= no

.PHONY: help setup build crash-bin demo lint check-fmt clippy docs deny tests simulation test test-long bench clean

help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | column -t -s '	'

setup: ## Install and start what the tests need (as root, on Debian), else say what is missing
	scripts/setup.sh

# An explicit --target keeps the flag away from build scripts and proc macros, which cannot be static.
build: ## Leave the static release binary at target/dist/fleet
	RUSTFLAGS='-C target-feature=+crt-static' \
	  cargo build --locked --package fleet-bin --profile dist --target $(HOST_TRIPLE)
	install -D $(CARGO_TARGET_DIR)/$(HOST_TRIPLE)/dist/fleet $(FLEET).new
	mv -f $(FLEET).new $(FLEET)

crash-bin: ## Leave the static release binary with crash points at target/dist/fleet-crash
	RUSTFLAGS='-C target-feature=+crt-static' \
	  cargo build --locked --package fleet-bin --features crash-points --profile dist --target $(HOST_TRIPLE)
	install -D $(CARGO_TARGET_DIR)/$(HOST_TRIPLE)/dist/fleet $(CRASH).new
	mv -f $(CRASH).new $(CRASH)

demo: build ## Show the main job on this machine's engine, in about a minute
	$(FLEET) demo

lint: check-fmt clippy docs deny ## Format, clippy, docs, banned crates

check-fmt:
	cargo fmt --all --check

clippy:
	cargo clippy --locked --workspace --all-targets --all-features -- -D warnings

docs:
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --all-features --no-deps

# tests/tidy.rs checks the banned crates in any case; cargo-deny adds licences and sources where it is installed.
deny:
	@if command -v cargo-deny >/dev/null; then \
	  cargo deny --offline --locked check bans licenses sources; \
	else echo 'cargo-deny is not installed: licences and sources are left to CI that has it'; fi

tests: ## All tests, those on the real engine included; needs `setup`, `build` and `crash-bin`
	scripts/bounded.sh cargo test --locked --workspace --no-fail-fast -- --show-output

simulation: ## The simulation at speed: fresh seeds, every pair of deaths
	scripts/bounded.sh cargo test --locked --release --package fleet-core --test simulation -- --show-output

test: setup lint build crash-bin tests simulation ## Everything that must pass

test-long: export FLEET_TEST_LONG = 1
test-long: test ## The same with full counts

bench: build ## Measure; results are in docs/benchmarks.md
	cargo bench --locked --package fleet

clean: ## Remove what was built
	cargo clean
