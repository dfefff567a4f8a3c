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
export INSTA_UPDATE ?= no

.PHONY: help setup build demo lint check-fmt clippy docs deny tests test test-long bench clean

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

tests: ## All tests, those on the real engine included; needs `setup` and `build`
	scripts/bounded.sh cargo test --locked --workspace --no-fail-fast

test: setup lint build tests ## Everything that must pass

test-long: export FLEET_TEST_LONG = 1
test-long: test ## The same with full counts

bench: build ## Measure; results are in docs/benchmarks.md
	cargo bench --locked --package fleet

clean: ## Remove what was built
	cargo clean
