#!/usr/bin/env bash
# usage: tests/soak.sh: the simulation of two hosts over bad wires, with many seeds (make soak).
# SOFTRDMA_SEEDS (20000) says how many, SOFTRDMA_FIRST_SEED (1) from where on; a finding names its seed.
set -euo pipefail
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/common.sh"

exec cargo run --quiet --release -p softrdma-tests --bin simulate -- "${SOFTRDMA_FIRST_SEED:-1}" "${SOFTRDMA_SEEDS:-20000}"
