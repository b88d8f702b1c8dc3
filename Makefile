# Each target makes sure of what it needs (tests/setup.sh: installed when root on Debian 12, named otherwise) and then
# runs one script. What needs DPDK or root and cannot have it is left out, and said so.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test bench interop soak fuzz lint smc-compat smc-bench

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Write and Send, 64 B to 1 MiB: softrdma, sequential and kernel-socket side by side, with the raw limits
	@tests/setup.sh dpdk
	@bench/demo.sh

test: ## Lint, unit and property tests, simulation, end to end over every fabric there is
	@tests/setup.sh lint dpdk network tshark
	@tests/check.sh

bench: ## The speed table and the baselines, both halves of each ratio: raw frames, testpmd, plain TCP, bare smoltcp
	@tests/setup.sh dpdk network
	@bench/baselines.sh

interop: ## Against the Linux kernel's siw in a virtual machine, both ways (root; builds the guest once)
	@tests/setup.sh dpdk network
	@tests/interop.sh

smc-compat: ## Unmodified programs over shared memory (redis, nginx, PostgreSQL, ssh, ...), their data checked
	@tests/setup.sh smc
	@tests/smc/compat.sh

smc-bench: ## What shared memory brings unmodified programs beside TCP loopback, both halves of each ratio
	@tests/setup.sh smc
	@bench/smc.sh

soak: ## The simulation with 20,000 seeds and more (SOFTRDMA_SEEDS)
	@tests/setup.sh
	@tests/soak.sh

fuzz: ## Each fuzz target for a minute (SOFTRDMA_FUZZ_SECONDS)
	@tests/setup.sh c++
	@tests/fuzz.sh

lint: ## rustfmt, clippy and rustdoc, warnings denied
	@tests/setup.sh lint dpdk
	@tests/lint.sh
