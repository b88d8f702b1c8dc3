#!/usr/bin/env bash
# usage: tests/soak.sh: the models of what threads share, under loom, then socket programs over shared memory under stress, then
# the simulation of two hosts over bad wires, with many seeds (make soak).
# SOFTRDMA_SEEDS (20000) says how many, SOFTRDMA_SMC_SEEDS (50) how many for socket programs, SOFTRDMA_FIRST_SEED (1) from
# where on; a finding names its seed.
set -euo pipefail
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/common.sh"

RUSTFLAGS="--cfg loom" step "loom: every interleaving of the turn, of arming and of the memory table" \
	cargo test --quiet --release -p softrdma-verbs --lib --target-dir "${CARGO_TARGET_DIR:-target}/loom" loom_
RUSTFLAGS="--cfg loom" step "loom: every interleaving of the mailbox and of what the halves of a connection share" \
	cargo test --quiet --release -p softrdma-stack --lib --target-dir "${CARGO_TARGET_DIR:-target}/loom" loom_

if [[ -e bins/smc-preload/Cargo.toml ]]; then
	cargo build --quiet --release -p softrdma-smc-preload
	step "socket programs over shared memory: any mixture of operations, and peers that are killed, by seed" \
		tests/smc/semantics/stress.sh -l "${CARGO_TARGET_DIR:-target}/release/libsoftrdma_smc.so" \
		-f "${SOFTRDMA_FIRST_SEED:-1}" -n "${SOFTRDMA_SMC_SEEDS:-50}" -k 20
fi

exec cargo run --quiet --release -p softrdma-tests --bin simulate -- "${SOFTRDMA_FIRST_SEED:-1}" "${SOFTRDMA_SEEDS:-20000}"
